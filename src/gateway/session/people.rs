//! Who is there in the rooms that a client follows: what it is told, and what it says of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::chat::permission::Action;
use crate::error::Error;
use crate::gateway::presence::RoomPresence;
use crate::gateway::session::Said;
use crate::gateway::session::dialog::Dialog;
use crate::id::{RoomId, Seq, UserId};
use crate::presence::Seen;

/// What somebody told of counts for, in bytes.
const PERSON_BYTES: usize = 64;

impl<Tag: Default> Dialog<Tag> {
    /// Tells what has changed of a room's people since that was told last, if the client may know.
    pub(super) fn tell_people(&mut self, room: &RoomId, now: Arc<RoomPresence>) {
        let Some(following) = self.following.get_mut(room) else { return };
        let now_ms = self.app.clock.now_ms();
        if now.allows(&self.caller.actor, now_ms, Action::SeePresence).is_err() {
            following.people = None;
            return;
        }
        let before = following.people.replace(now.clone());
        let first = before.is_none();
        let before = before.unwrap_or_default();
        let people = changed(&before.people, &now.people);
        if first || !people.is_empty() || before.present != now.present {
            self.count_bytes(people.len() * PERSON_BYTES);
            let present = now.present;
            self.say(Tag::default(), Said::Present { room: room.clone(), present, people });
        }
        if before.typing != now.typing {
            let users = now.typing.clone();
            self.say(Tag::default(), Said::Typing { room: room.clone(), users });
        }
        let marks: Vec<(UserId, Seq)> = now
            .reads
            .iter()
            .filter(|(user, seq)| **seq > before.reads.get(*user).copied().unwrap_or_default())
            .map(|(user, seq)| (user.clone(), *seq))
            .collect();
        if !marks.is_empty() {
            self.count_bytes(marks.len() * PERSON_BYTES);
            self.say(Tag::default(), Said::Read { room: room.clone(), marks });
        }
    }

    /// The client's user types in a room, or has stopped.
    pub(super) fn type_in(&mut self, tag: Tag, room: RoomId, types: bool) {
        let people = self.following.get(&room).and_then(|following| following.people.as_ref());
        let actor = &self.caller.actor;
        let allowed = match people {
            Some(people) => people.allows(actor, self.app.clock.now_ms(), Action::Post),
            None => Err(Error::invalid("who types in a room follows it, with its presence")),
        };
        let allowed = self.caller.require(crate::chat::account::Scope::Post).and(allowed);
        match allowed {
            Ok(()) => self.app.backend.presence().typing(&room, &actor.user, types),
            Err(error) => self.refuse(tag, Some(room), error),
        }
    }
}

/// Those of whom something else is known now than before.
fn changed(before: &BTreeMap<UserId, Seen>, now: &BTreeMap<UserId, Seen>) -> Vec<(UserId, Seen)> {
    let new = now.iter().filter(|(user, seen)| before.get(*user) != Some(*seen));
    let new = new.map(|(user, seen)| (user.clone(), *seen));
    let gone = before.keys().filter(|user| !now.contains_key(*user));
    new.chain(gone.map(|user| (user.clone(), Seen::default()))).collect()
}
