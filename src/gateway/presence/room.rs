//! One room's people, and what is told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::watch;

use crate::chat::command::Actor;
use crate::chat::permission::Action;
use crate::chat::query::judge;
use crate::chat::state::{Participant, Room};
use crate::error::Error;
use crate::gateway::operations::RoomView;
use crate::gateway::presence::{PEOPLE_MAX, TYPING_MAX};
use crate::id::{RoomId, Seq, UserId};
use crate::presence::{Presence, Seen, Status};

/// Ticks before a room's participants are read again: a second, and five for a large one.
const RELOAD_TICKS: u32 = 4;
const RELOAD_LARGE_TICKS: u32 = 20;
/// Ticks before a large room's numbers are told again.
const TELL_LARGE_TICKS: u32 = 8;

/// What is known of who is there in a room.
#[derive(Debug, Default, PartialEq)]
pub struct RoomPresence {
    /// The room; `None` until it has been read.
    room: Option<Arc<Room>>,
    /// Those who have a part in it.
    members: Arc<BTreeMap<UserId, Participant>>,
    /// How many of them are there, online or away.
    pub present: usize,
    /// Whether they are too many for anybody to be named.
    pub large: bool,
    /// Those who are there, or of whom it is known when they were; nobody where they are too many.
    pub people: BTreeMap<UserId, Seen>,
    /// How far they have read; nobody where they are too many.
    pub reads: BTreeMap<UserId, Seq>,
    /// Some of those who type.
    pub typing: Vec<UserId>,
}

impl RoomPresence {
    /// Whether the room has been read.
    pub fn is_known(&self) -> bool {
        self.room.is_some()
    }

    /// What the rules say to this for somebody who follows the room.
    ///
    /// # Errors
    /// The table's; [`Code::Unavailable`](crate::error::Code::Unavailable) while the room has not been read.
    pub fn allows(&self, actor: &Actor, now_ms: u64, action: Action) -> Result<(), Error> {
        let Some(room) = &self.room else {
            let message = "who is in the room is not known yet: try again";
            return Err(Error::new(crate::error::Code::Unavailable, message).retry_after(250));
        };
        Ok(judge(room, self.members.get(&actor.user), actor, now_ms, action)?)
    }

    /// Whom to name to somebody who was told this before: all of whom something else is known now; `None`
    /// where there is nothing to tell. In a large room that is nobody, and says nothing of those who were
    /// named before; once it is small again, they are all named anew.
    pub fn news_since(&self, before: &RoomPresence) -> Option<Vec<(UserId, Seen)>> {
        let people = match self.large {
            true => Vec::new(),
            false => changed(&before.people, &self.people),
        };
        let same = (before.present, before.large) == (self.present, self.large);
        let nothing = same && people.is_empty();
        (!nothing).then_some(people)
    }
}

/// Those of whom something else is known now than before.
fn changed(before: &BTreeMap<UserId, Seen>, now: &BTreeMap<UserId, Seen>) -> Vec<(UserId, Seen)> {
    let new = now.iter().filter(|(user, seen)| before.get(*user) != Some(*seen));
    let new = new.map(|(user, seen)| (user.clone(), *seen));
    let gone = before.keys().filter(|user| !now.contains_key(*user));
    new.chain(gone.map(|user| (user.clone(), Seen::default()))).collect()
}

/// A room that is followed here.
#[derive(Debug, Default)]
pub struct Watched {
    out: watch::Sender<Arc<RoomPresence>>,
    room: Option<Arc<Room>>,
    members: Arc<BTreeMap<UserId, Participant>>,
    reads: BTreeMap<UserId, Seq>,
    /// The participants that are known are old.
    fresh: bool,
    loading: bool,
    /// Ticks since they were read, or that was tried.
    since_load: u32,
    /// Something has changed that was not told.
    untold: bool,
    /// Ticks since anything was told.
    since_told: u32,
}

impl Watched {
    pub fn subscribe(&self) -> watch::Receiver<Arc<RoomPresence>> {
        self.out.subscribe()
    }

    pub fn is_followed(&self) -> bool {
        self.out.receiver_count() > 0
    }

    pub fn doubt(&mut self) {
        self.fresh = false;
    }

    fn is_large(&self) -> bool {
        self.members.len() > PEOPLE_MAX
    }

    /// Whether the participants are known, old as that may be.
    pub fn is_known(&self) -> bool {
        self.room.is_some()
    }

    pub fn note_read(&mut self, user: UserId, seq: Seq) {
        if !self.is_large() && self.members.contains_key(&user) {
            let known = self.reads.entry(user).or_default();
            self.untold |= seq > *known;
            *known = seq.max(*known);
        }
    }

    pub fn note_changes(&mut self, users: &BTreeSet<UserId>, typing: bool) {
        self.untold |= typing || users.iter().any(|user| self.members.contains_key(user));
    }

    /// What has changed is told with the next tick, however large the room is.
    pub fn hurry(&mut self) {
        self.since_told = TELL_LARGE_TICKS;
    }

    /// Whether the participants are to be read now.
    pub fn begin_load(&mut self) -> bool {
        let pause = match &self.room {
            None => 1,
            _ if self.is_large() => RELOAD_LARGE_TICKS,
            _ => RELOAD_TICKS,
        };
        let begins = !self.fresh && !self.loading && self.since_load >= pause;
        if begins {
            (self.loading, self.fresh) = (true, true);
        }
        begins
    }

    pub fn loaded(&mut self, loaded: Result<RoomView, Error>) {
        (self.loading, self.since_load) = (false, 0);
        let Ok((room, participants)) = loaded else {
            self.fresh = false; // it is tried again
            return;
        };
        let inside = participants.into_iter().filter(|(_, part)| part.is_inside());
        self.members = Arc::new(inside.collect());
        self.room = Some(room);
        let known = std::mem::take(&mut self.reads);
        if !self.is_large() {
            let read = |(user, part): (&UserId, &Participant)| {
                let seq = known.get(user).copied().unwrap_or_default().max(part.read);
                (user.clone(), seq)
            };
            self.reads = self.members.iter().map(read).collect();
        }
        self.untold = true;
    }

    /// Tells what has changed, when it is time to.
    pub fn tick(&mut self, id: &RoomId, presence: &Presence) {
        self.since_load = self.since_load.saturating_add(1);
        self.since_told = self.since_told.saturating_add(1);
        if !self.untold || !self.is_known() || self.is_large() && self.since_told < TELL_LARGE_TICKS
        {
            return;
        }
        (self.untold, self.since_told) = (false, 0);
        let seen = presence.seen(self.members.keys());
        let present = seen.iter().filter(|seen| seen.status != Status::Offline).count();
        let mut people = BTreeMap::new();
        if !self.is_large() {
            let known = self.members.keys().cloned().zip(seen);
            people = known.filter(|(_, seen)| *seen != Seen::default()).collect();
        }
        let mut typing = presence.typing_in(id);
        typing.retain(|user| self.members.contains_key(user));
        typing.truncate(TYPING_MAX);
        let now = RoomPresence {
            room: self.room.clone(),
            members: self.members.clone(),
            present,
            large: self.is_large(),
            people,
            reads: self.reads.clone(),
            typing,
        };
        self.out.send_if_modified(|told| {
            let modified = **told != now;
            if modified {
                *told = Arc::new(now);
            }
            modified
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::event::Role;
    use crate::chat::state::room_row;
    use crate::clock::SystemClock;

    fn user(n: usize) -> UserId {
        UserId::parse(&format!("u{n:04}")).unwrap()
    }

    fn tea() -> RoomId {
        RoomId::parse("tea").unwrap()
    }

    /// A room with so many participants, which has just been read.
    fn watched(people: usize) -> (Watched, watch::Receiver<Arc<RoomPresence>>) {
        let mut watched = Watched::default();
        let told = watched.subscribe();
        assert!(!watched.begin_load(), "not before the first tick");
        watched.tick(&tea(), &Presence::new(Arc::new(SystemClock)));
        assert!(watched.begin_load());
        assert!(!watched.begin_load(), "it is being read");
        watched.loaded(Ok(view(people)));
        (watched, told)
    }

    fn view(people: usize) -> RoomView {
        let part = |n| (user(n), Participant::new(Role::Member, 1));
        (Arc::new(room_row(tea())), (0..people).map(part).collect())
    }

    #[test]
    fn a_small_room_has_people_and_what_has_changed_is_told_with_the_next_tick() {
        let presence = Presence::new(Arc::new(SystemClock));
        let (mut watched, mut told) = watched(3);
        let ann = presence.enter(user(0), Status::Online);
        let _stranger = presence.enter(user(7), Status::Online);
        watched.note_read(user(1), Seq(4));
        watched.note_read(user(1), Seq(2));
        watched.note_read(user(7), Seq(2));
        watched.tick(&tea(), &presence);
        let now = told.borrow_and_update().clone();
        assert_eq!((now.present, now.people.len()), (1, 1), "{now:?}");
        assert_eq!(now.reads, (0..3).map(|n| (user(n), Seq(4 * u64::from(n == 1)))).collect());
        watched.tick(&tea(), &presence);
        watched.note_changes(&BTreeSet::from([user(7)]), false);
        watched.tick(&tea(), &presence);
        assert!(!told.has_changed().unwrap(), "nothing has changed");
        drop(ann);
        watched.note_changes(&presence.take_changes().users, false);
        watched.tick(&tea(), &presence);
        assert!(told.has_changed().unwrap());
        assert_eq!(told.borrow().present, 0);
    }

    #[test]
    fn a_large_room_has_numbers_now_and_then() {
        let presence = Presence::new(Arc::new(SystemClock));
        let (mut watched, mut told) = watched(PEOPLE_MAX + 1);
        let mut times = 0;
        let mut devices = Vec::new();
        for n in 0..10 * TELL_LARGE_TICKS as usize {
            devices.push(presence.enter(user(n), Status::Online));
            watched.note_changes(&presence.take_changes().users, false);
            watched.note_read(user(n), Seq(3));
            watched.tick(&tea(), &presence);
            if told.has_changed().unwrap() {
                times += 1;
                let now = told.borrow_and_update().clone();
                assert!(now.present > 0 && now.people.is_empty() && now.reads.is_empty());
            }
        }
        assert!((9..=11).contains(&times), "{times} times in twenty seconds");
        for (n, hurries) in [(100, true), (101, false), (102, true)] {
            devices.push(presence.enter(user(n), Status::Online));
            watched.note_changes(&presence.take_changes().users, false);
            if hurries {
                watched.hurry();
            }
            watched.tick(&tea(), &presence);
            assert_eq!(told.has_changed().unwrap(), hurries);
            told.borrow_and_update();
        }
    }

    #[test]
    fn a_room_that_grows_large_names_nobody_and_all_once_it_is_small_again() {
        let presence = Presence::new(Arc::new(SystemClock));
        let (mut watched, told) = watched(PEOPLE_MAX);
        let _devices: Vec<_> = (0..3).map(|n| presence.enter(user(n), Status::Online)).collect();
        let mut before = Arc::<RoomPresence>::default();
        let mut news = |watched: &mut Watched| {
            (0..TELL_LARGE_TICKS).for_each(|_| watched.tick(&tea(), &presence));
            let now = told.borrow().clone();
            let before = std::mem::replace(&mut before, now.clone());
            let named = now.news_since(&before)?.into_iter();
            Some(named.map(|(user, seen)| (user, seen.status)).collect::<Vec<_>>())
        };
        let all: Vec<_> = (0..3).map(|n| (user(n), Status::Online)).collect();
        assert_eq!(news(&mut watched), Some(all.clone()));
        watched.loaded(Ok(view(PEOPLE_MAX + 1)));
        assert_eq!(news(&mut watched), Some(Vec::new()), "numbers only");
        assert_eq!(news(&mut watched), None, "nothing has changed");
        watched.loaded(Ok(view(PEOPLE_MAX)));
        assert_eq!(news(&mut watched), Some(all));
    }

    #[test]
    fn participants_are_read_again_after_a_pause_when_they_are_in_doubt_or_could_not_be_read() {
        let presence = Presence::new(Arc::new(SystemClock));
        let (mut watched, _told) = watched(1);
        let ticks_to_load = |watched: &mut Watched| {
            (0..100).find(|_| {
                watched.tick(&tea(), &presence);
                watched.begin_load()
            })
        };
        assert_eq!(ticks_to_load(&mut watched), None);
        watched.doubt();
        assert!(ticks_to_load(&mut watched).is_some());
        watched.doubt(); // while they are being read
        watched.loaded(Ok(view(2)));
        assert_eq!(ticks_to_load(&mut watched), Some(RELOAD_TICKS - 1));
        watched.loaded(Err(Error::invalid("")));
        assert_eq!(ticks_to_load(&mut watched), Some(RELOAD_TICKS - 1));
        assert_eq!(watched.members.len(), 2, "what is known stays");
    }
}
