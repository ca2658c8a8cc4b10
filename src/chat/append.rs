//! Appends events: the one place that gives them their seq, their time and their place in the
//! hash chain. Called by the verbs, once they have decided.

use std::sync::Arc;

use crate::chat::apply::Appended;
use crate::chat::command::{Actor, Done};
use crate::chat::event::{Body, Event, EventKind, Role, Salt};
use crate::chat::retention;
use crate::chat::state::{Room, StateMut};
use crate::id::{RequestId, RoomId, Seq, UserId};

/// Events that go with each new one, at most, besides as many as came.
const TRIMMED_BY_AN_EVENT: u64 = 64;

/// One request while it is applied.
pub(super) struct Call<'a, S> {
    pub state: &'a mut S,
    pub actor: &'a Actor,
    pub id: RequestId,
    /// Log time, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// What was appended, for subscribers.
    pub events: &'a mut Appended,
}

/// An event before it has its place in a room.
pub(super) struct Draft {
    pub kind: EventKind,
    pub sender: UserId,
    pub request_id: RequestId,
    pub target: Option<Seq>,
    pub subject: Option<UserId>,
    pub role: Option<Role>,
    pub withdrawn: bool,
    pub until_ms: Option<u64>,
    pub original_at_ms: Option<u64>,
    pub original_sender: Option<String>,
    pub salt: Salt,
    pub text: String,
}

impl<S: StateMut> Call<'_, S> {
    /// A draft of the actor's own, with nothing but its kind, for the verb to fill.
    pub fn draft(&self, kind: EventKind, salt: Salt) -> Draft {
        Draft {
            kind,
            sender: self.actor.user.clone(),
            request_id: self.id,
            target: None,
            subject: None,
            role: None,
            withdrawn: false,
            until_ms: None,
            original_at_ms: None,
            original_sender: None,
            salt,
            text: String::new(),
        }
    }

    /// Appends one event to a room and writes the room's row, with whatever else the verb changed
    /// in it.
    pub fn append(&mut self, room: Room, draft: Draft) -> Done {
        self.append_all(room, [draft])
    }

    /// Appends events to a room and writes the room's row, once. The outcome has the last one's
    /// seq. What the room keeps no longer goes.
    pub fn append_all(&mut self, mut room: Room, drafts: impl IntoIterator<Item = Draft>) -> Done {
        let before = room.head;
        for draft in drafts {
            let event = Event {
                seq: room.head.next(),
                at_ms: self.now_ms,
                sender: draft.sender,
                kind: draft.kind,
                request_id: draft.request_id,
                target: draft.target,
                subject: draft.subject,
                role: draft.role,
                withdrawn: draft.withdrawn,
                until_ms: draft.until_ms,
                original_at_ms: draft.original_at_ms,
                original_sender: draft.original_sender,
                body: Body::Present { salt: draft.salt, text: draft.text },
            };
            room.head = event.seq;
            room.chain = event.chain(&room.chain);
            let event = Arc::new(event);
            if !mutant!(EventForgotten) || !event.seq.0.is_multiple_of(16) {
                self.state.append_event(&room.id, event.clone());
            }
            self.events.push((room.id.clone(), event));
        }
        let done = self.done(&room);
        let (id, limited) = (room.id.clone(), room.retention.is_set());
        self.state.put_room(room);
        if limited {
            let added = done.seq.0 - before.0;
            retention::trim_due(self.state, &id, self.now_ms, added + TRIMMED_BY_AN_EVENT);
        }
        done
    }

    /// The outcome of a change to a room that ends at its head.
    fn done(&self, room: &Room) -> Done {
        Done {
            seq: room.head,
            epoch: Some(room.epoch.clone()),
            at_ms: self.now_ms,
            duplicate: false,
            imported: None,
        }
    }

    /// The outcome of asking for what a room has been since `at_ms` already: nothing is appended.
    pub fn nothing_to_do(&self, room: &Room, at_ms: u64) -> Done {
        Done { at_ms, duplicate: true, ..self.done(room) }
    }
}

/// A salt for the n-th of several events of one command: `blake3(salt ‖ n)`, cut to 16 bytes.
pub(super) fn derived_salt(salt: &Salt, n: u64) -> Salt {
    let mut input = [0; 24];
    input[..16].copy_from_slice(salt);
    input[16..].copy_from_slice(&n.to_le_bytes());
    let mut derived = [0; 16];
    derived.copy_from_slice(&blake3::hash(&input).as_bytes()[..16]);
    derived
}

/// A request id for the n-th of several events of one command, so that every event of a room has
/// its own: `id`'s time, and for randomness `blake3(room ‖ source ‖ n)`.
pub(super) fn derived_id(id: RequestId, room: &RoomId, source: &str, n: u64) -> RequestId {
    let mut hasher = blake3::Hasher::new();
    for part in [room.as_str(), source] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hasher.update(&n.to_le_bytes());
    let mut random = [0; 10];
    random.copy_from_slice(&hasher.finalize().as_bytes()[..10]);
    RequestId::mint(id.unix_ms(), random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_salts_and_ids_are_pinned_and_differ() {
        // They are in stored chains: every version must derive the same.
        let room = RoomId::parse("general").unwrap();
        let id = RequestId::mint(1_700_000_000_000, [7; 10]);
        assert_eq!(
            derived_id(id, &room, "irc.log", 1).to_string(),
            "018bcfe5-6800-747a-9738-0e507c896e84"
        );
        assert_eq!(
            derived_salt(&[1; 16], 1),
            [169, 199, 23, 208, 81, 119, 119, 128, 125, 70, 208, 3, 55, 5, 232, 6]
        );
        assert_ne!(derived_id(id, &room, "irc.log", 1), derived_id(id, &room, "irc.log", 2));
        assert_ne!(derived_id(id, &room, "irc.log", 1), derived_id(id, &room, "irc.lo", 1));
        assert_ne!(derived_salt(&[1; 16], 1), derived_salt(&[1; 16], 2));
    }
}
