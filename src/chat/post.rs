//! Post: says something in a room. The path that must be short.

use std::sync::Arc;

use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{EventKind, Salt};
use crate::chat::state::StateMut;
use crate::chat::{access, check};
use crate::id::{RoomId, Seq};

/// Appends a message or an action, perhaps in reply to a message that is kept.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    kind: EventKind,
    text: String,
    reply_to: Option<Seq>,
    salt: Salt,
) -> Reply {
    let seen = access::speak(call.state, call.actor, room)?;
    if !matches!(kind, EventKind::Message | EventKind::Action) {
        return Err(Rejection::InvalidArgument("only messages and actions are posted".into()));
    }
    check::text(&text)?;
    if let Some(seq) = reply_to {
        access::message(call.state, &seen.room, seq)?;
    }
    let mut draft = call.draft(kind, salt);
    draft.target = reply_to;
    draft.text = text;
    Ok(call.append(Arc::unwrap_or_clone(seen.room), draft))
}
