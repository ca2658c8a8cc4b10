//! Redact: erases a message's text, and its edits', for good. Their hashes stay, so the chain
//! still verifies.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::append::Call;
use crate::chat::command::{Done, Reply};
use crate::chat::event::{EventKind, Salt};
use crate::chat::permission::Action;
use crate::chat::state::{Notes, StateMut};
use crate::id::{RoomId, Seq};

/// Redacts a message: the sender (muted, or gone from a public room, just the same), the room's
/// moderators and owners, and admins.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    target: Seq,
    salt: Salt,
) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::Read)?;
    let message = access::message(call.state, &seen.room, target)?;
    let own = message.sender == call.actor.user;
    seen.require(if own { Action::RedactOwn } else { Action::RedactOthers })?;
    let notes = call.state.notes(room, target);
    if let Some(redaction) = notes.as_ref().and_then(|notes| notes.redacted_by) {
        let event = access::event(call.state, &seen.room, redaction);
        let at_ms = event.map_or(call.now_ms, |event| event.at_ms);
        return Ok(Done { seq: redaction, ..call.nothing_to_do(&seen.room, at_ms) });
    }

    let mut notes = notes.map_or_else(Notes::default, Arc::unwrap_or_clone);
    let mut draft = call.draft(EventKind::Redaction, salt);
    draft.target = Some(target);
    let mut row = Arc::unwrap_or_clone(seen.room);
    row.pins.retain(|seq| *seq != target);
    let done = call.append(row, draft);
    call.state.erase_body(room, target);
    for edit in &notes.edits {
        call.state.erase_body(room, *edit);
    }
    if call.state.room(room).is_some_and(|row| target >= row.first_seq) {
        notes.redacted_by = Some(done.seq);
        call.state.put_notes(room, target, notes);
    }
    Ok(done)
}
