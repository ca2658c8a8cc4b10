//! The calls of `folkmoot.v1.Rooms` on who is in a room, and on the room itself: from a request to
//! its command. Called by `rooms`.

use std::sync::Arc;

use crate::chat::command::Command;
use crate::chat::state::Retention;
use crate::error::Error;
use crate::gateway::app::{App, Caller, salt};
use crate::gateway::convert;
use crate::gateway::grpc::rooms::execute;
use crate::gateway::operations::ThreadQuery;
use crate::id::{RoomId, Seq, UserId};
use crate::limits::{REASON_BYTES_MAX, TITLE_BYTES_MAX};
use crate::proto::v1 as proto;

/// Invites a user.
pub(super) async fn invite(
    app: Arc<App>,
    caller: Caller,
    request: proto::InviteRequest,
) -> Result<proto::Ack, Error> {
    let id = convert::request_id(&request.request_id)?;
    let (room, user) = (RoomId::parse(&request.room)?, UserId::parse(&request.user)?);
    let command = Command::Invite { room, user: user.clone(), salt: salt() };
    Ok(convert::ack(app.execute_on(&caller.actor, user, id, command).await?))
}

/// Removes somebody.
pub(super) async fn kick(
    app: Arc<App>,
    caller: Caller,
    request: proto::KickRequest,
) -> Result<proto::Ack, Error> {
    convert::at_most("reason", &request.reason, REASON_BYTES_MAX)?;
    let (room, user) = (RoomId::parse(&request.room)?, UserId::parse(&request.user)?);
    let command = Command::Kick { room, user, reason: request.reason, salt: salt() };
    execute(&app, &caller, &request.request_id, command).await
}

/// Mutes or bans somebody.
pub(super) async fn restrict(
    app: Arc<App>,
    caller: Caller,
    request: proto::RestrictRequest,
) -> Result<proto::Ack, Error> {
    convert::at_most("reason", &request.reason, REASON_BYTES_MAX)?;
    let id = convert::request_id(&request.request_id)?;
    let restriction = convert::restriction(request.restriction)?;
    let (room, user) = (RoomId::parse(&request.room)?, UserId::parse(&request.user)?);
    let proto::RestrictRequest { for_ms, reason, .. } = request;
    let target = user.clone();
    let command = Command::Restrict { room, user, restriction, for_ms, reason, salt: salt() };
    Ok(convert::ack(app.execute_on(&caller.actor, target, id, command).await?))
}

/// Lifts a mute or a ban.
pub(super) async fn lift(
    app: Arc<App>,
    caller: Caller,
    request: proto::LiftRequest,
) -> Result<proto::Ack, Error> {
    let restriction = convert::restriction(request.restriction)?;
    let (room, user) = (RoomId::parse(&request.room)?, UserId::parse(&request.user)?);
    let command = Command::Lift { room, user, restriction, salt: salt() };
    execute(&app, &caller, &request.request_id, command).await
}

/// Sets the topic.
pub(super) async fn set_topic(
    app: Arc<App>,
    caller: Caller,
    request: proto::SetTopicRequest,
) -> Result<proto::Ack, Error> {
    convert::at_most("topic", &request.topic, TITLE_BYTES_MAX)?;
    let room = RoomId::parse(&request.room)?;
    let command = Command::SetTopic { room, topic: request.topic, salt: salt() };
    execute(&app, &caller, &request.request_id, command).await
}

/// Pins a message, or unpins it.
pub(super) async fn pin(
    app: Arc<App>,
    caller: Caller,
    request: proto::PinRequest,
) -> Result<proto::Ack, Error> {
    let (room, target) = (RoomId::parse(&request.room)?, convert::target(request.target)?);
    let command = Command::Pin { room, target, withdraw: request.withdraw, salt: salt() };
    execute(&app, &caller, &request.request_id, command).await
}

/// Archives a room, or unarchives it.
pub(super) async fn archive(
    app: Arc<App>,
    caller: Caller,
    request: proto::ArchiveRequest,
) -> Result<proto::Ack, Error> {
    let room = RoomId::parse(&request.room)?;
    let command = Command::Archive { room, withdraw: request.withdraw, salt: salt() };
    execute(&app, &caller, &request.request_id, command).await
}

/// Says how much of a room's log is kept.
pub(super) async fn set_retention(
    app: Arc<App>,
    caller: Caller,
    request: proto::SetRetentionRequest,
) -> Result<proto::Ack, Error> {
    let room = RoomId::parse(&request.room)?;
    let proto::Retention { max_age_ms, max_events } =
        request.retention.ok_or_else(|| Error::invalid("retention is missing"))?;
    let retention = Retention { max_age_ms, max_events };
    let command = Command::SetRetention { room, retention, salt: salt() };
    execute(&app, &caller, &request.request_id, command).await
}

/// Reads a page of a thread.
pub(super) async fn thread(
    app: Arc<App>,
    caller: Caller,
    request: proto::ThreadRequest,
) -> Result<proto::EventsResponse, Error> {
    let after = request.after.map(convert::cursor).transpose()?;
    let before = request.before.map(convert::cursor).transpose()?;
    let query = ThreadQuery {
        room: RoomId::parse(&request.room)?,
        root: Seq(convert::target(request.root)?.0),
        page: convert::page(after, before)?,
        limit: convert::page_limit(request.limit)?,
        consistency: convert::consistency(request.consistency)?,
    };
    let consistency = query.consistency;
    Ok(convert::events(&app.thread(&caller, query).await?, consistency))
}
