//! `folkmoot.v1.Rooms`, but for `Session`.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::chat::command::Command;
use crate::error::{Code, Error};
use crate::gateway::app::{App, Caller, Post, salt};
use crate::gateway::convert;
use crate::gateway::grpc::{answer, export, marks, moderation, presence};
use crate::gateway::operations::EventsQuery;
use crate::id::{RoomId, Seq, UserId};
use crate::limits;
use crate::proto::v1 as proto;
use crate::proto::v1::rooms_server::Rooms;

/// The service.
#[derive(Debug)]
pub struct RoomsService {
    app: Arc<App>,
}

impl RoomsService {
    /// Serves this gateway's rooms.
    pub fn new(app: Arc<App>) -> RoomsService {
        RoomsService { app }
    }
}

/// Executes a command on a room.
pub(super) async fn execute(
    app: &App,
    caller: &Caller,
    request_id: &[u8],
    command: Command,
) -> Result<proto::Ack, Error> {
    let id = convert::request_id(request_id)?;
    Ok(convert::ack(app.execute(&caller.actor, id, command).await?))
}

/// Validates a message to be posted.
pub fn post(request: proto::PostRequest) -> Result<Post, Error> {
    Ok(Post {
        room: RoomId::parse(&request.room)?,
        id: convert::request_id(&request.client_msg_id)?,
        text: request.text,
        reply_to: (request.reply_to > 0).then_some(Seq(request.reply_to)),
        kind: convert::posted_kind(request.kind)?,
    })
}

#[tonic::async_trait]
impl Rooms for RoomsService {
    async fn create_room(
        &self,
        request: Request<proto::CreateRoomRequest>,
    ) -> Result<Response<proto::CreateRoomResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let id = convert::request_id(&request.request_id)?;
            let room = RoomId::parse(&request.room)?;
            let kind = convert::room_kind(request.kind)?;
            let ((room, participants), created) =
                app.create_room(&caller.actor, room, request.title, kind, id).await?;
            let room = Some(convert::room(&room, &participants));
            Ok(proto::CreateRoomResponse { room, created })
        })
        .await
    }

    async fn get_room(
        &self,
        request: Request<proto::GetRoomRequest>,
    ) -> Result<Response<proto::Room>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let consistency = convert::consistency(request.consistency)?;
            let room = RoomId::parse(&request.room)?;
            caller.certain_for(consistency)?;
            let (room, participants) = app.room(&caller.actor, room, consistency).await?;
            Ok(convert::room(&room, &participants))
        })
        .await
    }

    async fn list_rooms(
        &self,
        request: Request<proto::ListRoomsRequest>,
    ) -> Result<Response<proto::ListRoomsResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let limit = convert::page_limit(request.limit)?;
            let after = convert::after_room(&request.after)?;
            let (rooms, next) = app.rooms(&caller.actor, after, limit, request.search).await?;
            let rooms = rooms.iter().map(|room| convert::room(room, &[])).collect();
            Ok(proto::ListRoomsResponse { rooms, next: next.unwrap_or_default() })
        })
        .await
    }

    async fn list_participants(
        &self,
        request: Request<proto::ListParticipantsRequest>,
    ) -> Result<Response<proto::ListParticipantsResponse>, Status> {
        answer(&self.app, request, presence::participants).await
    }

    async fn set_presence(
        &self,
        request: Request<proto::SetPresenceRequest>,
    ) -> Result<Response<proto::Presence>, Status> {
        answer(&self.app, request, presence::set).await
    }

    async fn join(
        &self,
        request: Request<proto::JoinRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let command = Command::Join { room: RoomId::parse(&request.room)?, salt: salt() };
            execute(&app, &caller, &request.request_id, command).await
        })
        .await
    }

    async fn leave(
        &self,
        request: Request<proto::LeaveRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let command = Command::Leave { room: RoomId::parse(&request.room)?, salt: salt() };
            execute(&app, &caller, &request.request_id, command).await
        })
        .await
    }

    async fn post(
        &self,
        request: Request<proto::PostRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let (done, _) = app.post(&caller.actor, post(request)?).await?;
            Ok(convert::ack(done))
        })
        .await
    }

    async fn edit(
        &self,
        request: Request<proto::EditRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            app.check_text(&request.text)?;
            let (room, target) = (RoomId::parse(&request.room)?, convert::target(request.target)?);
            let command = Command::Edit { room, target, text: request.text, salt: salt() };
            execute(&app, &caller, &request.request_id, command).await
        })
        .await
    }

    async fn redact(
        &self,
        request: Request<proto::RedactRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let (room, target) = (RoomId::parse(&request.room)?, convert::target(request.target)?);
            let command = Command::Redact { room, target, salt: salt() };
            execute(&app, &caller, &request.request_id, command).await
        })
        .await
    }

    async fn react(
        &self,
        request: Request<proto::ReactRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let proto::ReactRequest { room, request_id, target, symbol, withdraw } = request;
            convert::text("symbol", &symbol, limits::SYMBOL_BYTES_MAX)?;
            let (room, target) = (RoomId::parse(&room)?, convert::target(target)?);
            let command = Command::React { room, target, symbol, withdraw, salt: salt() };
            execute(&app, &caller, &request_id, command).await
        })
        .await
    }

    async fn set_role(
        &self,
        request: Request<proto::SetRoleRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let (room, user) = (RoomId::parse(&request.room)?, UserId::parse(&request.user)?);
            let role = convert::role(request.role)?;
            let id = convert::request_id(&request.request_id)?;
            let command = Command::SetRole { room, user: user.clone(), role, salt: salt() };
            Ok(convert::ack(app.execute_on(&caller.actor, user, id, command).await?))
        })
        .await
    }

    async fn invite(
        &self,
        request: Request<proto::InviteRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, moderation::invite).await
    }

    async fn kick(
        &self,
        request: Request<proto::KickRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, moderation::kick).await
    }

    async fn restrict(
        &self,
        request: Request<proto::RestrictRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, moderation::restrict).await
    }

    async fn lift(
        &self,
        request: Request<proto::LiftRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, moderation::lift).await
    }

    async fn set_topic(
        &self,
        request: Request<proto::SetTopicRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, moderation::set_topic).await
    }

    async fn pin(
        &self,
        request: Request<proto::PinRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, moderation::pin).await
    }

    async fn archive(
        &self,
        request: Request<proto::ArchiveRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, moderation::archive).await
    }

    async fn set_retention(
        &self,
        request: Request<proto::SetRetentionRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, moderation::set_retention).await
    }

    async fn list_own_rooms(
        &self,
        request: Request<proto::ListOwnRoomsRequest>,
    ) -> Result<Response<proto::ListOwnRoomsResponse>, Status> {
        answer(&self.app, request, marks::own_rooms).await
    }

    async fn mark_read(
        &self,
        request: Request<proto::MarkReadRequest>,
    ) -> Result<Response<proto::Ack>, Status> {
        answer(&self.app, request, marks::mark_read).await
    }

    async fn thread(
        &self,
        request: Request<proto::ThreadRequest>,
    ) -> Result<Response<proto::EventsResponse>, Status> {
        answer(&self.app, request, moderation::thread).await
    }

    async fn import(
        &self,
        request: Request<proto::ImportRequest>,
    ) -> Result<Response<proto::ImportResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            let id = convert::request_id(&request.request_id)?;
            let room = RoomId::parse(&request.room)?;
            let proto::ImportRequest { source, lines, .. } = request;
            let done = app.import(&caller.actor, room, source, lines, id).await?;
            let imported = done.imported.ok_or_else(|| {
                Error::new(Code::Internal, "an import command had another's outcome")
            })?;
            Ok(proto::ImportResponse {
                line: imported.line,
                imported: imported.count,
                head: done.seq.0,
            })
        })
        .await
    }

    async fn events(
        &self,
        request: Request<proto::EventsRequest>,
    ) -> Result<Response<proto::EventsResponse>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            if u64::from(request.wait_ms) > limits::WAIT_MS_MAX {
                let message = format!("wait_ms must be at most {}", limits::WAIT_MS_MAX);
                return Err(Error::invalid(message));
            }
            let after = request.after.map(convert::cursor).transpose()?;
            let before = request.before.map(convert::cursor).transpose()?;
            let query = EventsQuery {
                room: RoomId::parse(&request.room)?,
                page: convert::page(after, before)?,
                limit: convert::page_limit(request.limit)?,
                wait: Duration::from_millis(request.wait_ms.into()),
                consistency: convert::consistency(request.consistency)?,
            };
            let consistency = query.consistency;
            Ok(convert::events(&app.events(&caller, query).await?, consistency))
        })
        .await
    }

    type ExportStream = export::ExportStream;

    async fn export(
        &self,
        request: Request<proto::ExportRequest>,
    ) -> Result<Response<export::ExportStream>, Status> {
        answer(&self.app, request, |app, caller, request| async move {
            export::stream(app, caller, RoomId::parse(&request.room)?).await
        })
        .await
    }

    type SessionStream = Pin<Box<dyn Stream<Item = Result<proto::SessionResponse, Status>> + Send>>;

    // Routed to session.rs before it gets here, for the sake of pre-encoded events.
    async fn session(
        &self,
        _request: Request<Streaming<proto::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Error::new(Code::Internal, "sessions are routed elsewhere").into())
    }
}
