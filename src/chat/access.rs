//! Who may see a room, and who may speak in it. Used by verbs and queries alike.
//!
//! **Invariant:** whoever may not see a private or direct room gets the very answer that a missing
//! room gives. A ban from such a room is no exception: it may concern somebody who never knew it.

use std::sync::Arc;

use crate::chat::command::{Actor, Rejection};
use crate::chat::event::{Event, Role};
use crate::chat::state::{Participant, Room, RoomKind, State};
use crate::id::{RoomId, Seq};

/// A room as one actor sees it.
pub(super) struct Seen {
    pub room: Arc<Room>,
    /// The actor's part in it; a ban, too, but then the actor is an admin.
    pub part: Option<Participant>,
}

impl Seen {
    /// The actor's role; `None` when they are not a participant.
    pub fn role(&self) -> Option<Role> {
        self.part.as_ref().map(|part| part.role)
    }
}

/// The room, if the actor may know of it.
///
/// # Errors
/// `RoomNotFound`, or `Banned` in a public room.
pub(super) fn see(state: &impl State, actor: &Actor, id: &RoomId) -> Result<Seen, Rejection> {
    let missing = || Rejection::RoomNotFound(id.clone());
    let room = state.room(id).ok_or_else(missing)?;
    let part = state.participant(id, &actor.user);
    if !actor.admin {
        let public = room.kind == RoomKind::Public;
        match part.as_ref().map(|part| part.role) {
            Some(Role::Banned) if public => return Err(Rejection::Banned(id.clone())),
            Some(Role::Banned) => return Err(missing()),
            None if !public => return Err(missing()),
            _ => {}
        }
    }
    Ok(Seen { room, part })
}

/// The room, if the actor may post in it: participants who are not muted, and admins.
///
/// # Errors
/// As [`see`], and `NotParticipant` or `Muted`.
pub(super) fn speak(state: &impl State, actor: &Actor, id: &RoomId) -> Result<Seen, Rejection> {
    let seen = see(state, actor, id)?;
    if actor.admin {
        return Ok(seen);
    }
    match seen.role() {
        Some(Role::Owner | Role::Moderator | Role::Member) => Ok(seen),
        Some(Role::Muted) => Err(Rejection::Muted(id.clone())),
        // `see` has refused the banned already.
        Some(Role::Banned) => Err(Rejection::Banned(id.clone())),
        None => Err(Rejection::NotParticipant(id.clone())),
    }
}

/// The message at a seq: something said, and kept.
///
/// # Errors
/// `EventNotFound` when there is none, or an event of another kind.
pub(super) fn message(state: &impl State, room: &Room, seq: Seq) -> Result<Arc<Event>, Rejection> {
    event(state, room, seq)
        .filter(|event| event.kind.is_message())
        .ok_or_else(|| Rejection::EventNotFound { room: room.id.clone(), seq })
}

/// The event at a seq, if it is kept.
pub(super) fn event(state: &impl State, room: &Room, seq: Seq) -> Option<Arc<Event>> {
    if seq < room.first_seq || seq > room.head {
        return None;
    }
    state.events(&room.id, seq, seq, 1, usize::MAX).pop()
}
