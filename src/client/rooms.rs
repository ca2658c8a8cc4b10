//! Rooms and their message logs.

use std::time::Duration;

use tonic::Streaming;

use crate::client::{Client, wire};
use crate::error::Error;
use crate::id::{RequestId, RoomId, Seq, UserId};
use crate::proto::v1 as pb;
use pb::rooms_client::RoomsClient;

/// A message to post.
#[derive(Debug, Clone)]
pub struct Post {
    /// Where to.
    pub room: RoomId,
    /// What it says, at most 64 KiB.
    pub text: String,
    /// MESSAGE or ACTION.
    pub kind: pb::EventKind,
    /// The message that this answers.
    pub reply_to: Option<Seq>,
    /// `None` lets the client mint one. A given id is never replaced, on clock skew neither.
    pub id: Option<RequestId>,
}

impl Post {
    /// A plain message with an id of the client's.
    pub fn message(room: &RoomId, text: impl Into<String>) -> Post {
        Post {
            room: room.clone(),
            text: text.into(),
            kind: pb::EventKind::Message,
            reply_to: None,
            id: None,
        }
    }

    /// The wire form under an id.
    pub(super) fn to_request(&self, id: RequestId) -> pb::PostRequest {
        pb::PostRequest {
            room: self.room.to_string(),
            client_msg_id: id_bytes(id),
            text: self.text.clone(),
            reply_to: self.reply_to.map_or(0, |seq| seq.0),
            kind: self.kind as i32,
        }
    }
}

pub(super) fn id_bytes(id: RequestId) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(id.as_bytes())
}

/// A room's log as it streams out of an export.
#[derive(Debug)]
pub struct Export {
    stream: Streaming<pb::ExportResponse>,
}

impl Export {
    /// The next part; `None` at the end. The first has `room` and `chain_base`.
    ///
    /// # Errors
    /// The stream cannot be resumed: begin again.
    pub async fn next(&mut self) -> Result<Option<pb::ExportResponse>, Error> {
        self.stream.message().await.map_err(|status| wire::error_of(&status))
    }
}

impl Client {
    /// Creates a room; `created` is false when this very room was there already.
    ///
    /// # Errors
    /// `already_exists` when it differs.
    pub async fn create_room(
        &self,
        room: &RoomId,
        title: &str,
        kind: pb::RoomKind,
    ) -> Result<pb::CreateRoomResponse, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::CreateRoomRequest {
                room: room.to_string(),
                title: title.to_string(),
                kind: kind as i32,
                request_id: id_bytes(id),
            });
            RoomsClient::new(channel).create_room(request).await
        })
        .await
    }

    /// Reads a room's state.
    ///
    /// # Errors
    /// `room_not_found`.
    pub async fn get_room(
        &self,
        room: &RoomId,
        consistency: pb::Consistency,
    ) -> Result<pb::Room, Error> {
        self.read(|channel| async move {
            let request = self.request(pb::GetRoomRequest {
                room: room.to_string(),
                consistency: consistency as i32,
            });
            RoomsClient::new(channel).get_room(request).await
        })
        .await
    }

    /// A page of rooms in order of id, from after `after` (empty: from the first), with `search` in
    /// their id or title (empty: all).
    ///
    /// # Errors
    /// As every call.
    pub async fn list_rooms(
        &self,
        after: &str,
        limit: u32,
        search: &str,
    ) -> Result<pb::ListRoomsResponse, Error> {
        self.read(|channel| async move {
            let (after, search) = (after.to_string(), search.to_string());
            let request = self.request(pb::ListRoomsRequest { limit, after, search });
            RoomsClient::new(channel).list_rooms(request).await
        })
        .await
    }

    /// A page of the rooms that the caller is in or invited to, in order of id, from after `after`
    /// (empty: from the first), with what they have not read.
    ///
    /// # Errors
    /// As every call.
    pub async fn list_own_rooms(
        &self,
        after: &str,
        limit: u32,
    ) -> Result<pb::ListOwnRoomsResponse, Error> {
        self.read(|channel| async move {
            let request = self.request(pb::ListOwnRoomsRequest { limit, after: after.to_string() });
            RoomsClient::new(channel).list_own_rooms(request).await
        })
        .await
    }

    /// A page of a room's participants, those with ids above `after`, with how present they are.
    ///
    /// # Errors
    /// `room_not_found`.
    pub async fn list_participants(
        &self,
        room: &RoomId,
        after: &str,
        limit: u32,
    ) -> Result<pb::ListParticipantsResponse, Error> {
        self.read(|channel| async move {
            let (room, after) = (room.to_string(), after.to_string());
            let request = self.request(pb::ListParticipantsRequest { room, limit, after });
            RoomsClient::new(channel).list_participants(request).await
        })
        .await
    }

    /// Says up to where the caller has read a room: `seq` of the answer is where the mark is. It never
    /// goes back, so it is safe to say so again.
    ///
    /// # Errors
    /// `not_participant`; `event_not_found` beyond the head.
    pub async fn mark_read(&self, room: &RoomId, seq: Seq) -> Result<pb::Ack, Error> {
        self.read(|channel| async move {
            let request = self.request(pb::MarkReadRequest { room: room.to_string(), seq: seq.0 });
            RoomsClient::new(channel).mark_read(request).await
        })
        .await
    }

    /// Makes the caller a participant.
    ///
    /// # Errors
    /// `room_not_found`, `banned`, `forbidden`.
    pub async fn join(&self, room: &RoomId) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request =
                self.request(pb::JoinRequest { room: room.to_string(), request_id: id_bytes(id) });
            RoomsClient::new(channel).join(request).await
        })
        .await
    }

    /// Ends the caller's participation.
    ///
    /// # Errors
    /// `room_not_found`.
    pub async fn leave(&self, room: &RoomId) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request =
                self.request(pb::LeaveRequest { room: room.to_string(), request_id: id_bytes(id) });
            RoomsClient::new(channel).leave(request).await
        })
        .await
    }

    /// Posts one message. For many, a [`crate::client::Session`] pipelines them.
    ///
    /// # Errors
    /// As the rules say; with `may_have_applied`, repeat with the same id to find out.
    pub async fn post(&self, post: &Post) -> Result<pb::Ack, Error> {
        self.attempts(post.id, self.options().attempt_timeout, |channel, id| async move {
            RoomsClient::new(channel).post(self.request(post.to_request(id))).await
        })
        .await
    }

    /// Replaces a message's text.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn edit(&self, room: &RoomId, target: Seq, text: &str) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::EditRequest {
                room: room.to_string(),
                request_id: id_bytes(id),
                target: target.0,
                text: text.to_string(),
            });
            RoomsClient::new(channel).edit(request).await
        })
        .await
    }

    /// Erases a message's text for good.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn redact(&self, room: &RoomId, target: Seq) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::RedactRequest {
                room: room.to_string(),
                request_id: id_bytes(id),
                target: target.0,
            });
            RoomsClient::new(channel).redact(request).await
        })
        .await
    }

    /// Adds a reaction to a message, or takes it back.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn react(
        &self,
        room: &RoomId,
        target: Seq,
        symbol: &str,
        withdraw: bool,
    ) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::ReactRequest {
                room: room.to_string(),
                request_id: id_bytes(id),
                target: target.0,
                symbol: symbol.to_string(),
                withdraw,
            });
            RoomsClient::new(channel).react(request).await
        })
        .await
    }

    /// Sets a participant's role.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn set_role(
        &self,
        room: &RoomId,
        user: &UserId,
        role: pb::Role,
    ) -> Result<pb::Ack, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::SetRoleRequest {
                room: room.to_string(),
                request_id: id_bytes(id),
                user: user.to_string(),
                role: role as i32,
            });
            RoomsClient::new(channel).set_role(request).await
        })
        .await
    }

    /// Appends lines of foreign history; lines at or below the source's mark are skipped.
    ///
    /// # Errors
    /// As the rules say.
    pub async fn import(
        &self,
        room: &RoomId,
        source: &str,
        lines: &[pb::ImportLine],
    ) -> Result<pb::ImportResponse, Error> {
        self.mutate(|channel, id| async move {
            let request = self.request(pb::ImportRequest {
                room: room.to_string(),
                source: source.to_string(),
                lines: lines.to_vec(),
                request_id: id_bytes(id),
            });
            RoomsClient::new(channel).import(request).await
        })
        .await
    }

    /// Reads a page of a room's log. `request.room` is the room; a long poll gets its wait on top
    /// of the time for an attempt.
    ///
    /// # Errors
    /// `room_not_found`, `invalid_cursor`.
    pub async fn events(&self, request: &pb::EventsRequest) -> Result<pb::EventsResponse, Error> {
        let limit =
            self.options().attempt_timeout + Duration::from_millis(u64::from(request.wait_ms));
        self.attempts(None, limit, |channel, _| async move {
            RoomsClient::new(channel).events(self.request(request.clone())).await
        })
        .await
    }

    /// Streams a room's log with salts and chain. Admins only.
    ///
    /// # Errors
    /// `room_not_found`, `forbidden`.
    pub async fn export(&self, room: &RoomId) -> Result<Export, Error> {
        let stream = self
            .read(|channel| async move {
                let request = self.request(pb::ExportRequest { room: room.to_string() });
                RoomsClient::new(channel).export(request).await
            })
            .await?;
        Ok(Export { stream })
    }
}
