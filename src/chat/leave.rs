//! Leave: ends the actor's participation. Whoever is banned stays banned.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{EventKind, Role, Salt};
use crate::chat::state::{RoomKind, StateMut};
use crate::id::RoomId;

/// Leaves a room. An owner may; a room can be without one, and an admin can give it another.
pub(super) fn apply<S: StateMut>(call: &mut Call<'_, S>, room: &RoomId, salt: Salt) -> Reply {
    let seen = access::see(call.state, call.actor, room)?;
    if seen.room.kind == RoomKind::Direct {
        return Err(Rejection::WrongRoomKind("direct"));
    }
    if matches!(seen.role(), None | Some(Role::Banned)) {
        return Err(Rejection::NotParticipant(room.clone()));
    }
    let mut row = Arc::unwrap_or_clone(seen.room);
    row.participants = row.participants.saturating_sub(1);
    call.state.put_participant(room, &call.actor.user, None);
    Ok(call.append(row, call.draft(EventKind::Leave, salt)))
}
