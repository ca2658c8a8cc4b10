//! Rooms that are looked for by their id or title, a few at a time.
//!
//! How many rooms there are that the actor may not know of, or that are not what is looked for, has no
//! bound. Whoever has a state locked looks at some of them, lets go of it, and goes on from there.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::command::Actor;
use crate::chat::permission::Action;
use crate::chat::state::{Room, State};
use crate::id::RoomId;

/// Rooms looked at together: whatever is to be applied waits meanwhile.
const RUN: usize = 64;

/// The rooms of a shard that somebody may see, ascending, as far as they have been found.
#[derive(Debug)]
pub struct Search {
    actor: Actor,
    /// Up to here it has been looked.
    after: Option<RoomId>,
    /// Rooms to be found; at least 1.
    limit: usize,
    /// What they have in their id or title, in lower case; empty = anything.
    text: String,
    found: Vec<Arc<Room>>,
}

impl Search {
    /// Looks for the first `limit` rooms above `after` that the actor may know of, with `text`, whatever
    /// its case, in their id or title.
    pub fn new(actor: &Actor, after: Option<RoomId>, limit: usize, text: &str) -> Search {
        let text = text.to_lowercase();
        Search { actor: actor.clone(), after, limit, text, found: Vec::new() }
    }

    /// Looks at the next few rooms. True when all are found that there are, or as many as are wanted.
    pub fn look(&mut self, state: &impl State) -> bool {
        let run = state.rooms(self.after.as_ref(), RUN);
        let Some(last) = run.last() else { return true };
        self.after = Some(last.id.clone());
        for room in run {
            if self.fits(&room) && access::may(state, &self.actor, &room.id, Action::See).is_ok() {
                self.found.push(room);
                if self.found.len() >= self.limit {
                    return true;
                }
            }
        }
        false
    }

    /// What has been found.
    pub fn found(self) -> Vec<Arc<Room>> {
        self.found
    }

    fn fits(&self, room: &Room) -> bool {
        self.text.is_empty()
            || room.id.as_str().contains(&self.text)
            || room.title.to_lowercase().contains(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::memory::Memory;
    use crate::chat::query::{Answer, Query, query};
    use crate::chat::state::{RoomKind, StateMut as _, room_row};
    use crate::id::UserId;

    /// How often it was looked, and what was found.
    fn search(state: &Memory, limit: usize, text: &str) -> (usize, Vec<String>) {
        let eve = Actor { user: UserId::parse("eve").unwrap(), admin: false };
        let mut search = Search::new(&eve, None, limit, text);
        let mut looks = 1;
        while !search.look(state) {
            looks += 1;
        }
        let found = search.found();
        let asked = Query::Rooms { after: None, limit, search: text.into() };
        assert_eq!(query(state, &eve, &asked), Ok(Answer::Rooms { rooms: found.clone() }));
        (looks, found.iter().map(|room| room.id.to_string()).collect())
    }

    #[test]
    fn a_search_looks_at_a_few_rooms_at_once_and_finds_all_that_there_are() {
        let mut state = Memory::default();
        for n in 0..640 {
            let id = RoomId::parse(&format!("room-{n:03}")).unwrap();
            let kind = if n % 200 == 199 { RoomKind::Public } else { RoomKind::Private };
            state.put_room(Room { kind, title: format!("Room {n}"), ..room_row(id) });
        }
        let public = ["room-199", "room-399", "room-599"].map(String::from);
        assert_eq!(search(&state, 100, ""), (11, public.to_vec()), "ten times 64, and the end");
        assert_eq!(search(&state, 2, ""), (7, public[..2].to_vec()));
        assert_eq!(search(&state, 1, "ROOM 399"), (7, public[1..2].to_vec()));
        assert_eq!(search(&state, 1, "zzz"), (11, vec![]));
        assert_eq!(search(&Memory::default(), 1, ""), (1, vec![]));
    }
}
