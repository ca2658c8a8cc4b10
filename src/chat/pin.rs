//! Pin: keeps a message in sight, or lets it go. A redacted or trimmed message is no longer pinned.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{EventKind, Salt};
use crate::chat::permission::Action;
use crate::chat::state::StateMut;
use crate::id::{RoomId, Seq};
use crate::limits;

/// Pins a message that is kept, or unpins it.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    target: Seq,
    withdraw: bool,
    salt: Salt,
) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::Pin)?;
    access::message(call.state, &seen.room, target)?;
    let pinned = seen.room.pins.contains(&target);
    if pinned != withdraw {
        return Ok(call.nothing_to_do(&seen.room, call.now_ms));
    }
    let redacted = call.state.notes(room, target).is_some_and(|notes| notes.redacted_by.is_some());
    if !withdraw && redacted {
        return Err(Rejection::Redacted);
    }
    if !withdraw && seen.room.pins.len() >= limits::PINS_PER_ROOM_MAX {
        return Err(Rejection::LimitReached(format!(
            "room {room} has {} pins: take one off first",
            limits::PINS_PER_ROOM_MAX
        )));
    }
    let mut row = Arc::unwrap_or_clone(seen.room);
    if withdraw {
        row.pins.retain(|seq| *seq != target);
    } else {
        row.pins.push(target);
    }
    let mut draft = call.draft(EventKind::Pin, salt);
    draft.target = Some(target);
    draft.withdrawn = withdraw;
    Ok(call.append(row, draft))
}
