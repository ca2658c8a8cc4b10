//! Edit: replaces a message's text. The message's event stays as it was; pages show both.

use std::sync::Arc;

use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{EventKind, Salt};
use crate::chat::permission::Action;
use crate::chat::state::{Notes, StateMut};
use crate::chat::{access, check};
use crate::id::{RoomId, Seq};
use crate::limits;

/// Edits a message of the actor's own, while they may post. Nobody edits what another said, not
/// even an admin: they can only redact it.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    target: Seq,
    text: String,
    salt: Salt,
) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::EditOwn)?;
    let message = access::message(call.state, &seen.room, target)?;
    if message.sender != call.actor.user {
        return Err(Rejection::Forbidden("only its sender may edit a message".into()));
    }
    let notes = call.state.notes(room, target);
    if let Some(notes) = &notes {
        if notes.redacted_by.is_some() {
            return Err(Rejection::Redacted);
        }
        if notes.edits.len() >= limits::EDITS_PER_MESSAGE_MAX {
            return Err(Rejection::LimitReached(format!(
                "a message is edited at most {} times",
                limits::EDITS_PER_MESSAGE_MAX
            )));
        }
    }
    check::text(&text)?;
    let mut notes = notes.map_or_else(Notes::default, Arc::unwrap_or_clone);
    let mut draft = call.draft(EventKind::Edit, salt);
    draft.target = Some(target);
    draft.text = text;
    let done = call.append(Arc::unwrap_or_clone(seen.room), draft);
    if call.state.room(room).is_some_and(|row| target >= row.first_seq) {
        notes.edits.push(done.seq);
        call.state.put_notes(room, target, notes);
    }
    Ok(done)
}
