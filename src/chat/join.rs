//! Join: makes the actor a participant.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::append::Call;
use crate::chat::command::Reply;
use crate::chat::event::{EventKind, Role, Salt};
use crate::chat::permission::Action;
use crate::chat::state::{Part, Participant, StateMut};
use crate::id::RoomId;

/// Joins a room: a public one, or one that the actor was invited to; admins join any. Who left
/// while muted is muted still.
pub(super) fn apply<S: StateMut>(call: &mut Call<'_, S>, room: &RoomId, salt: Salt) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::Join)?;
    if let Some(part) = seen.part.as_ref().filter(|part| part.is_inside()) {
        return Ok(call.nothing_to_do(&seen.room, part.since_ms));
    }
    let mut row = Arc::unwrap_or_clone(seen.room);
    row.participants += 1;
    let participant = match seen.part {
        Some(part) if part.is_muted(call.now_ms) => {
            Participant { part: Part::In, since_ms: call.now_ms, ..part }
        }
        _ => Participant::new(Role::Member, call.now_ms),
    };
    // What was said before is not news to catch up with.
    let participant = Participant { read: row.head.next(), ..participant };
    call.state.put_participant(room, &call.actor.user, Some(participant));
    Ok(call.append(row, call.draft(EventKind::Join, salt)))
}
