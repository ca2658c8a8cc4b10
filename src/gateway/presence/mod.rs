//! Who is there, gathered for each room that somebody follows here, and told as a whole: however many
//! come and go, whoever follows a room is told four times a second at most.
//!
//! ```text
//!  presence (everybody) ──► changes ──► gather ──► a room's present state ──► those who follow it
//!  the room's shard ──► participants ──┘
//! ```
//!
//! One task a node does it for all rooms. A room's participants are read from its shard, and read again
//! when the room's log says that they have changed.
//!
//! **Invariants**
//! - A person is told of a room's people only while the table of permissions lets them
//!   (`Action::SeePresence`), as of what the room's log had a second ago.
//! - Of a room with more than [`PEOPLE_MAX`] participants only numbers are told, every two seconds, and at once
//!   when a node is lost.
//! - Whoever takes nothing keeps nothing waiting: only the present state is ever told.

mod room;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::chat::command::Actor;
use crate::chat::query::{Answer, Query};
use crate::chat::state::{Participant, Room};
use crate::error::Error;
use crate::gateway::app::App;
use crate::gateway::operations::{RoomView, wrong_answer};
use crate::gateway::presence::room::Watched;
use crate::id::{RoomId, UserId};
use crate::limits::PAGE_ITEMS_MAX;
use crate::presence::{Changes, Presence, Seen, TICK};
use crate::router::Consistency;

pub use crate::gateway::presence::room::RoomPresence;

/// A room with more participants than this has numbers only.
pub const PEOPLE_MAX: usize = 250;
/// How many are named who type at the same time.
const TYPING_MAX: usize = 5;
/// Between two looks where nobody follows anything.
const IDLE: Duration = Duration::from_secs(5);
/// Rooms whose participants are being read.
const LOADS_MAX: usize = 8;

/// What those who follow rooms here are told of who is there.
#[derive(Debug, Default)]
pub struct Gathered {
    rooms: Mutex<HashMap<RoomId, Watched>>,
    /// Somebody follows a room, after nobody did.
    begun: Notify,
}

impl Gathered {
    fn rooms(&self) -> MutexGuard<'_, HashMap<RoomId, Watched>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows who is there in a room, for somebody who follows the room.
    pub fn watch(&self, room: &RoomId) -> watch::Receiver<Arc<RoomPresence>> {
        let mut rooms = self.rooms();
        if rooms.is_empty() {
            self.begun.notify_one();
        }
        rooms.entry(room.clone()).or_default().subscribe()
    }

    /// Whether nobody follows anything here.
    fn is_idle(&self) -> bool {
        self.rooms().is_empty()
    }

    /// Says that a room's participants may have changed.
    pub fn doubt(&self, room: &RoomId) {
        if let Some(watched) = self.rooms().get_mut(room) {
            watched.doubt();
        }
    }

    /// A tick: tells what has changed, and adds the rooms whose participants are to be read: those never
    /// read before come first.
    fn tick(&self, presence: &Presence, changes: Changes, due: &mut VecDeque<RoomId>) {
        let mut rooms = self.rooms();
        rooms.retain(|_, watched| watched.is_followed());
        for ((room, user), seq) in changes.reads {
            if let Some(watched) = rooms.get_mut(&room) {
                watched.note_read(user, seq);
            }
        }
        for (room, watched) in rooms.iter_mut() {
            watched.note_changes(&changes.users, changes.typing.contains(room));
            if changes.node_lost {
                watched.hurry();
            }
            watched.tick(room, presence);
            if watched.begin_load() {
                match watched.is_known() {
                    true => due.push_back(room.clone()),
                    false => due.push_front(room.clone()),
                }
            }
        }
    }

    fn has(&self, id: &RoomId) -> bool {
        self.rooms().contains_key(id)
    }

    fn loaded(&self, id: &RoomId, loaded: Result<RoomView, Error>) {
        if let Some(watched) = self.rooms().get_mut(id) {
            watched.loaded(loaded);
        }
    }
}

/// Gathers, for as long as this is polled.
pub async fn gather(app: Arc<App>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // While nobody follows anything, changes are dropped, and the metric is kept.
    let mut idle = interval(IDLE);
    idle.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut loads, mut due) = (FuturesUnordered::new(), VecDeque::new());
    loop {
        tokio::select! {
            () = app.gathered.begun.notified() => {}
            _ = idle.tick(), if app.gathered.is_idle() => {
                drop(app.backend.presence().take_changes());
                app.metrics.present.set(app.backend.presence().here() as f64);
            }
            _ = ticks.tick(), if !app.gathered.is_idle() => {
                let presence = app.backend.presence();
                app.gathered.tick(presence, presence.take_changes(), &mut due);
                app.metrics.present.set(presence.here() as f64);
            }
            Some((room, loaded)) = loads.next(), if !loads.is_empty() => {
                app.gathered.loaded(&room, loaded);
            }
        }
        while loads.len() < LOADS_MAX
            && let Some(room) = due.pop_front()
        {
            if app.gathered.has(&room) {
                loads.push(load(&app, room));
            }
        }
    }
}

async fn load(app: &App, id: RoomId) -> (RoomId, Result<RoomView, Error>) {
    let loaded = read(app, &id).await;
    (id, loaded)
}

/// Reads a room and all of its participants.
async fn read(app: &App, id: &RoomId) -> Result<RoomView, Error> {
    // For whoever follows the room; each of them is judged by what is read.
    let actor = Actor { user: UserId::parse("gateway")?, admin: true };
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = app.participants(&actor, id.clone(), after, PAGE_ITEMS_MAX).await?;
        all.extend(page.participants.into_iter().map(|(participant, _)| participant));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok((page.room, all)),
        }
    }
}

impl App {
    /// A page of a room's participants with ids above `after`, with how present those are who are in
    /// the room, if the actor may know; and after whom there may be more.
    ///
    /// # Errors
    /// The router's.
    pub async fn participants(
        &self,
        actor: &Actor,
        room: RoomId,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<ParticipantsPage, Error> {
        let query = Query::Participants { room, after, limit };
        let answer = self.backend.query(actor, query, Consistency::Linearizable).await?;
        let Answer::Room { room, participants, sees_presence } = answer else {
            return Err(wrong_answer());
        };
        let next = participants.last().filter(|_| participants.len() >= limit);
        let next = next.map(|(user, _)| user.clone());
        let seen = self.backend.presence().seen(participants.iter().map(|(user, _)| user));
        let shown = |(part, seen): ((UserId, Participant), Seen)| {
            let seen = (sees_presence && part.1.is_inside()).then_some(seen);
            (part, seen)
        };
        let participants = participants.into_iter().zip(seen).map(shown).collect();
        Ok(ParticipantsPage { room, participants, next })
    }
}

/// A page of a room's participants.
#[derive(Debug)]
pub struct ParticipantsPage {
    /// The room.
    pub room: Arc<Room>,
    /// In order of id, with how present they are, as far as whoever asks may know.
    pub participants: Vec<((UserId, Participant), Option<Seen>)>,
    /// After whom there may be more.
    pub next: Option<UserId>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::state::Participant;
    use crate::chat::state::room_row;
    use crate::clock::SystemClock;

    #[test]
    fn all_that_is_due_is_read_and_first_what_never_was() {
        let room = |n: usize| RoomId::parse(&format!("room-{n}")).unwrap();
        let (gathered, presence) = (Gathered::default(), Presence::new(Arc::new(SystemClock)));
        let mut due = VecDeque::new();
        let tick = |due: &mut VecDeque<RoomId>| {
            gathered.tick(&presence, Changes::default(), due);
        };
        let mut watching = vec![gathered.watch(&room(0))];
        tick(&mut due);
        assert_eq!(due.pop_front(), Some(room(0)));
        let none: Vec<(UserId, Participant)> = Vec::new();
        gathered.loaded(&room(0), Ok((Arc::new(room_row(room(0))), none)));
        for _ in 0..8 {
            tick(&mut due);
        }
        assert!(due.is_empty(), "nothing has changed");
        gathered.doubt(&room(0));
        watching.extend((1..100).map(|n| gathered.watch(&room(n))));
        tick(&mut due);
        assert_eq!((due.len(), due.back()), (100, Some(&room(0))));
        tick(&mut due);
        assert_eq!(due.len(), 100, "each once");
        drop(watching);
        tick(&mut due);
        assert!(!due.iter().any(|room| gathered.has(room)), "nobody follows them any more");
    }
}
