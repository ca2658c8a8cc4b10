//! SetTopic: what a room is about at present.

use std::sync::Arc;

use crate::chat::append::Call;
use crate::chat::command::Reply;
use crate::chat::event::{EventKind, Salt};
use crate::chat::permission::Action;
use crate::chat::state::StateMut;
use crate::chat::{access, check};
use crate::id::RoomId;
use crate::limits;

/// Sets the topic; an empty one takes it away.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    topic: String,
    salt: Salt,
) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::SetTopic)?;
    check::line("topic", &topic, limits::TITLE_BYTES_MAX)?;
    if seen.room.topic == topic {
        return Ok(call.nothing_to_do(&seen.room, call.now_ms));
    }
    let mut row = Arc::unwrap_or_clone(seen.room);
    row.topic.clone_from(&topic);
    let mut draft = call.draft(EventKind::Topic, salt);
    draft.text = topic;
    Ok(call.append(row, draft))
}
