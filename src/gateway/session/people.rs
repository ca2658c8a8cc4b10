//! Who is there in the rooms that a client follows: what it is told, and what it says of itself.

use std::sync::Arc;

use crate::chat::account::Scope;
use crate::chat::permission::Action;
use crate::error::Error;
use crate::gateway::presence::RoomPresence;
use crate::gateway::session::Said;
use crate::gateway::session::dialog::{Dialog, People};
use crate::id::{RoomId, Seq, UserId};

/// What somebody told of counts for, in bytes.
const PERSON_BYTES: usize = 64;

impl<Tag: Default> Dialog<Tag> {
    /// Tells what has changed of a room's people since that was told last, if the client may know.
    pub(super) fn tell_people(&mut self, room: &RoomId, now: Arc<RoomPresence>) {
        let Some(following) = self.following.get_mut(room) else { return };
        let (actor, now_ms) = (&self.caller.actor, self.app.clock.now_ms());
        if !now.is_known() {
            return;
        }
        let may_post = now.allows(actor, now_ms, Action::Post);
        if let Err(hidden) = now.allows(actor, now_ms, Action::SeePresence) {
            following.people = People::Hidden(may_post.err().unwrap_or(hidden));
            return;
        }
        let before = std::mem::replace(&mut following.people, People::Known(now.clone()));
        if matches!(before, People::Unknown { types: true }) && may_post.is_ok() {
            self.app.backend.presence().typing(room, &actor.user, true);
        }
        let (first, before) = match before {
            People::Known(before) => (false, before),
            _ => (true, Arc::default()),
        };
        if let Some(people) = now.news_since(&before).or(first.then(Vec::new)) {
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

    /// The client's user types in a room, or has stopped. Before it is known who may, that is kept.
    pub(super) fn type_in(&mut self, tag: Tag, room: RoomId, types: bool) {
        if let Err(error) = self.say_types(&room, types) {
            self.refuse(tag, Some(room), error);
        }
    }

    fn say_types(&mut self, room: &RoomId, types: bool) -> Result<(), Error> {
        self.caller.require(Scope::Post)?;
        let actor = &self.caller.actor;
        match self.following.get_mut(room).map(|following| &mut following.people) {
            None | Some(People::Unasked) => {
                return Err(Error::invalid("who types in a room follows it, with its presence"));
            }
            Some(People::Unknown { types: kept }) => {
                *kept = types;
                return Ok(());
            }
            Some(People::Hidden(error)) => return Err(error.clone()),
            Some(People::Known(people)) => {
                people.allows(actor, self.app.clock.now_ms(), Action::Post)?;
            }
        }
        self.app.backend.presence().typing(room, &actor.user, types);
        Ok(())
    }
}
