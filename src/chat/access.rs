//! Somebody before a room: who they are there, and whether the table lets them. Used by verbs and
//! queries alike.
//!
//! **Invariant:** whoever may not see a private, group or direct room gets the very answer that a
//! missing room gives. A ban from such a room is no exception: it may concern somebody who never
//! knew it.

use std::sync::Arc;

use crate::chat::command::{Actor, Rejection};
use crate::chat::event::{Event, Role};
use crate::chat::permission::{self, Action, Denial, Who};
use crate::chat::state::{Participant, Room, State};
use crate::id::{RoomId, Seq, UserId};

/// Owners are looked for in pages of this many participants.
const SCAN: usize = 256;

/// A room as one actor sees it.
pub(super) struct Seen {
    pub room: Arc<Room>,
    /// The actor's part in it; a ban, too, but then the actor is an admin.
    pub part: Option<Participant>,
    /// Who the actor is there.
    pub who: Who,
}

impl Seen {
    /// Refuses what the table does not allow the actor.
    ///
    /// # Errors
    /// As [`may`].
    pub fn require(&self, action: Action) -> Result<(), Rejection> {
        let archived = self.room.archived;
        permission::ask(self.room.kind, archived, self.who, action)
            .map_err(|denial| rejection(denial, &self.room))
    }

    /// Refuses what is done to somebody over whom the actor has no say.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn outrank(&self, target: Who) -> Result<(), Rejection> {
        if permission::outranks(self.who, target) {
            return Ok(());
        }
        Err(Rejection::Forbidden("moderators have a say over members only".into()))
    }
}

/// The room, if the actor may do this in it.
///
/// # Errors
/// `RoomNotFound` to those who may not know of it; else what the table says, see
/// [`permission::ask`].
pub(super) fn may(
    state: &impl State,
    actor: &Actor,
    id: &RoomId,
    action: Action,
) -> Result<Seen, Rejection> {
    let room = state.room(id).ok_or_else(|| Rejection::RoomNotFound(id.clone()))?;
    let part = state.participant(id, &actor.user);
    let who = if actor.admin { Who::Admin } else { standing(part.as_ref(), state.log_time_ms()) };
    let seen = Seen { room, part, who };
    seen.require(action)?;
    Ok(seen)
}

/// What the rules say to somebody whose part in a room is known, at this log time: for what is in no
/// shard's state, as who is there.
///
/// # Errors
/// What the table says, see [`permission::ask`].
pub fn judge(
    room: &Arc<Room>,
    part: Option<&Participant>,
    actor: &Actor,
    now_ms: u64,
    action: Action,
) -> Result<(), Rejection> {
    let who = if actor.admin { Who::Admin } else { standing(part, now_ms) };
    Seen { room: room.clone(), part: None, who }.require(action)
}

/// Who somebody with this part is, administrators aside.
pub(super) fn standing(part: Option<&Participant>, now_ms: u64) -> Who {
    part.map_or(Who::Outsider, |part| part.who(now_ms))
}

fn rejection(denial: Denial, room: &Room) -> Rejection {
    let id = || room.id.clone();
    match denial {
        // Nobody who is not signed in gets here; if so, they see nothing.
        Denial::Unauthenticated | Denial::Hidden => Rejection::RoomNotFound(id()),
        Denial::Banned => Rejection::Banned(id()),
        Denial::NotParticipant => Rejection::NotParticipant(id()),
        Denial::Muted => Rejection::Muted(id()),
        Denial::Forbidden(reason) => Rejection::Forbidden(reason.into()),
        Denial::WrongRoomKind => Rejection::WrongRoomKind(room.kind.name()),
        Denial::Archived => Rejection::Archived(id()),
    }
}

/// Refuses to take a room's last owner from it; an archived room needs none.
///
/// # Errors
/// `Forbidden`.
pub(super) fn keep_an_owner(
    state: &impl State,
    room: &Room,
    user: &UserId,
    part: &Participant,
) -> Result<(), Rejection> {
    let owner = part.is_inside() && part.role == Role::Owner;
    if !owner || room.archived || other_owner(state, &room.id, user) {
        return Ok(());
    }
    Err(Rejection::Forbidden(
        "this is the room's last owner: make somebody else an owner first, or archive the room"
            .into(),
    ))
}

/// Whether the room has an owner besides `user`.
fn other_owner(state: &impl State, room: &RoomId, user: &UserId) -> bool {
    let mut after: Option<UserId> = None;
    loop {
        let page = state.participants(room, after.as_ref(), SCAN);
        if page.iter().any(|(id, part)| part.role == Role::Owner && part.is_inside() && id != user)
        {
            return true;
        }
        match page.into_iter().next_back() {
            Some((last, _)) => after = Some(last),
            None => return false,
        }
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
