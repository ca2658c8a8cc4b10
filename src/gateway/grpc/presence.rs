//! `folkmoot.v1.Rooms`: who is in a room, and how present they are.

use std::sync::Arc;

use crate::error::Error;
use crate::gateway::app::{App, Caller};
use crate::gateway::convert;
use crate::id::{RoomId, UserId};
use crate::proto::v1 as proto;

pub(super) async fn participants(
    app: Arc<App>,
    caller: Caller,
    request: proto::ListParticipantsRequest,
) -> Result<proto::ListParticipantsResponse, Error> {
    let limit = convert::page_limit(request.limit)?;
    let after = Some(request.after).filter(|after| !after.is_empty());
    let after = after.map(|after| UserId::parse(&after)).transpose()?;
    let room = RoomId::parse(&request.room)?;
    let page = app.participants(&caller.actor, room, after, limit).await?;
    let shown = |(part, seen): &((UserId, _), Option<_>)| proto::Participant {
        presence: seen.map(|seen| convert::seen(&part.0, seen)),
        ..convert::participant(part)
    };
    let participants = page.participants.iter().map(shown).collect();
    let next = page.next.map_or(String::new(), |user| user.as_str().to_owned());
    Ok(proto::ListParticipantsResponse { participants, next })
}

pub(super) async fn set(
    app: Arc<App>,
    caller: Caller,
    request: proto::SetPresenceRequest,
) -> Result<proto::Presence, Error> {
    let status = convert::presence_status(request.status)?;
    let time = convert::presence_for(Some(request.for_ms).filter(|ms| *ms > 0))?;
    let user = &caller.actor.user;
    let seen = app.backend.presence().lease(user, status, time);
    Ok(convert::seen(user, seen))
}
