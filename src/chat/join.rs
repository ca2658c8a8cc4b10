//! Join: makes the actor a participant.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{EventKind, Role, Salt};
use crate::chat::state::{Participant, RoomKind, StateMut};
use crate::id::RoomId;

/// Joins a room: a public one, unless banned, and a private one as an admin. To everybody else a
/// private room is not there.
pub(super) fn apply<S: StateMut>(call: &mut Call<'_, S>, room: &RoomId, salt: Salt) -> Reply {
    let seen = access::see(call.state, call.actor, room)?;
    if seen.room.kind == RoomKind::Direct {
        return Err(Rejection::WrongRoomKind("direct"));
    }
    if let Some(part) = seen.part.as_ref().filter(|part| part.role != Role::Banned) {
        return Ok(call.nothing_to_do(&seen.room, part.since_ms));
    }
    let mut row = Arc::unwrap_or_clone(seen.room);
    row.participants += 1;
    let participant = Participant { role: Role::Member, since_ms: call.now_ms };
    call.state.put_participant(room, &call.actor.user, Some(participant));
    Ok(call.append(row, call.draft(EventKind::Join, salt)))
}
