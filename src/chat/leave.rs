//! Leave: ends the actor's participation, or declines an invitation. A mute or a ban stays.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{EventKind, Salt};
use crate::chat::permission::{Action, Who};
use crate::chat::state::StateMut;
use crate::id::RoomId;

/// Leaves a room. Its last owner may not, unless it is archived.
pub(super) fn apply<S: StateMut>(call: &mut Call<'_, S>, room: &RoomId, salt: Salt) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::Leave)?;
    let standing = access::standing(seen.part.as_ref(), call.now_ms);
    let part = match seen.part {
        Some(part) if !matches!(standing, Who::Outsider | Who::Banned) => part,
        _ => return Err(Rejection::NotParticipant(room.clone())),
    };
    access::keep_an_owner(call.state, &seen.room, &call.actor.user, &part)?;
    let mut row = Arc::unwrap_or_clone(seen.room);
    if part.is_inside() {
        row.participants = row.participants.saturating_sub(1);
    }
    call.state.put_participant(room, &call.actor.user, part.departed(call.now_ms));
    Ok(call.append(row, call.draft(EventKind::Leave, salt)))
}
