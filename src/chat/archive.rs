//! Archive: makes a room read-only, or takes that back.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::append::Call;
use crate::chat::command::Reply;
use crate::chat::event::{EventKind, Salt};
use crate::chat::permission::Action;
use crate::chat::state::StateMut;
use crate::id::RoomId;

/// Archives a room, or unarchives it.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    withdraw: bool,
    salt: Salt,
) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::Archive)?;
    if seen.room.archived != withdraw {
        return Ok(call.nothing_to_do(&seen.room, call.now_ms));
    }
    let mut row = Arc::unwrap_or_clone(seen.room);
    row.archived = !withdraw;
    let mut draft = call.draft(EventKind::Archive, salt);
    draft.withdrawn = withdraw;
    Ok(call.append(row, draft))
}
