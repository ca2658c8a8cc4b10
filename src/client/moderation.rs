//! Who is in a room, and the room itself.

use crate::client::Client;
use crate::client::rooms::id_bytes;
use crate::error::Error;
use crate::id::{RoomId, Seq, UserId};
use crate::proto::v1 as pb;
use pb::rooms_client::RoomsClient;

impl Client {
    /// Lets somebody see a room that is hidden from them, and join it.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn invite(&self, room: &RoomId, user: &UserId) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::InviteRequest {
                room: room.to_string(),
                request_id: id_bytes(id),
                user: user.to_string(),
            });
            RoomsClient::new(channel).invite(request).await
        })
        .await
    }

    /// Removes somebody from a room, or takes back an invitation.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn kick(&self, room: &RoomId, user: &UserId, reason: &str) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::KickRequest {
                room: room.to_string(),
                request_id: id_bytes(id),
                user: user.to_string(),
                reason: reason.to_string(),
            });
            RoomsClient::new(channel).kick(request).await
        })
        .await
    }

    /// Mutes or bans somebody for `for_ms` milliseconds; 0 = for good.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn restrict(
        &self,
        room: &RoomId,
        user: &UserId,
        restriction: pb::Restriction,
        for_ms: u64,
        reason: &str,
    ) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::RestrictRequest {
                room: room.to_string(),
                request_id: id_bytes(id),
                user: user.to_string(),
                restriction: restriction as i32,
                for_ms,
                reason: reason.to_string(),
            });
            RoomsClient::new(channel).restrict(request).await
        })
        .await
    }

    /// Lifts a mute or a ban.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn lift(
        &self,
        room: &RoomId,
        user: &UserId,
        restriction: pb::Restriction,
    ) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::LiftRequest {
                room: room.to_string(),
                request_id: id_bytes(id),
                user: user.to_string(),
                restriction: restriction as i32,
            });
            RoomsClient::new(channel).lift(request).await
        })
        .await
    }

    /// Sets a room's topic; an empty one takes it away.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn set_topic(&self, room: &RoomId, topic: &str) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::SetTopicRequest {
                room: room.to_string(),
                request_id: id_bytes(id),
                topic: topic.to_string(),
            });
            RoomsClient::new(channel).set_topic(request).await
        })
        .await
    }

    /// Pins a message, or unpins it.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn pin(&self, room: &RoomId, target: Seq, withdraw: bool) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::PinRequest {
                room: room.to_string(),
                request_id: id_bytes(id),
                target: target.0,
                withdraw,
            });
            RoomsClient::new(channel).pin(request).await
        })
        .await
    }

    /// Makes a room read-only, or takes that back.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn archive(&self, room: &RoomId, withdraw: bool) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::ArchiveRequest {
                room: room.to_string(),
                request_id: id_bytes(id),
                withdraw,
            });
            RoomsClient::new(channel).archive(request).await
        })
        .await
    }

    /// Says how much of a room's log is kept.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn set_retention(
        &self,
        room: &RoomId,
        retention: pb::Retention,
    ) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::SetRetentionRequest {
                room: room.to_string(),
                request_id: id_bytes(id),
                retention: Some(retention),
            });
            RoomsClient::new(channel).set_retention(request).await
        })
        .await
    }

    /// Reads a page of the replies to a message.
    ///
    /// # Errors
    /// `room_not_found`, `event_not_found`, `invalid_cursor`.
    pub async fn thread(&self, request: &pb::ThreadRequest) -> Result<pb::EventsResponse, Error> {
        self.read(|channel| async move {
            RoomsClient::new(channel).thread(self.request(request.clone())).await
        })
        .await
    }
}
