//! Kick: ends another's participation, or takes back an invitation. They may come back as they
//! came: only a ban keeps them out.

use std::sync::Arc;

use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{EventKind, Salt};
use crate::chat::permission::{Action, Who};
use crate::chat::state::StateMut;
use crate::chat::{access, check};
use crate::id::{RoomId, UserId};
use crate::limits;

/// Removes somebody over whom the actor has a say.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    user: &UserId,
    reason: String,
    salt: Salt,
) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::Kick)?;
    check::line("reason", &reason, limits::REASON_BYTES_MAX)?;
    if *user == call.actor.user {
        return Err(Rejection::Forbidden("nobody removes themselves: leave the room".into()));
    }
    let part = call.state.participant(room, user);
    let target = access::standing(part.as_ref(), call.now_ms);
    seen.outrank(target)?;
    let part = match part {
        Some(part) if !matches!(target, Who::Outsider | Who::Banned) => part,
        _ => return Err(Rejection::NotInRoom { room: room.clone(), user: user.clone() }),
    };
    access::keep_an_owner(call.state, &seen.room, user, &part)?;
    let mut row = Arc::unwrap_or_clone(seen.room);
    if part.is_inside() {
        row.participants = row.participants.saturating_sub(1);
    }
    call.state.put_participant(room, user, part.departed(call.now_ms));
    let mut draft = call.draft(EventKind::Leave, salt);
    draft.subject = Some(user.clone());
    draft.text = reason;
    Ok(call.append(row, draft))
}
