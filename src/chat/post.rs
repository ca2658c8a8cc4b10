//! Post: says something in a room. The path that must be short.

use std::sync::Arc;

use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{EventKind, Salt};
use crate::chat::permission::Action;
use crate::chat::state::{Notes, StateMut};
use crate::chat::{access, check};
use crate::id::{RoomId, Seq};
use crate::limits;

/// Appends a message or an action, perhaps in reply to a message that is kept.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    kind: EventKind,
    text: String,
    reply_to: Option<Seq>,
    salt: Salt,
) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::Post)?;
    if !matches!(kind, EventKind::Message | EventKind::Action) {
        return Err(Rejection::InvalidArgument("only messages and actions are posted".into()));
    }
    check::text(&text)?;
    let mut thread = None;
    if let Some(seq) = reply_to {
        access::message(call.state, &seen.room, seq)?;
        let notes = call.state.notes(room, seq);
        if notes.as_ref().is_some_and(|notes| notes.replies.len() >= limits::REPLIES_MAX) {
            return Err(Rejection::LimitReached(format!(
                "a message takes at most {} replies",
                limits::REPLIES_MAX
            )));
        }
        thread = Some((seq, notes.map_or_else(Notes::default, Arc::unwrap_or_clone)));
    }
    let mut draft = call.draft(kind, salt);
    draft.target = reply_to;
    draft.text = text;
    let done = call.append(Arc::unwrap_or_clone(seen.room), draft);
    // Unless the message went with this very reply, which is one more than the room keeps.
    if let Some((seq, mut notes)) = thread
        && call.state.room(room).is_some_and(|row| seq >= row.first_seq)
    {
        notes.replies.push(done.seq);
        call.state.put_notes(room, seq, notes);
    }
    Ok(done)
}
