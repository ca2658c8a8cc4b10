//! The live end of every room that somebody on this node follows; one hub a shard.
//!
//! The state machine publishes into it, set-up code registers with it, both while they hold the
//! shard's lock: so the head that a registration notes and the events that are published after it
//! fit together exactly. Publishing never waits for a subscriber and encodes nothing; for a room
//! that nobody follows it is one map lookup.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::chat::event::Event;
use crate::delivery::ring::Ring;
use crate::error::Error;
use crate::id::{RoomId, Seq};

/// The followed rooms of one shard. Clones are the same hub.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    rooms: Arc<Mutex<Rooms>>,
}

#[derive(Debug, Default)]
struct Rooms {
    // Ordered, so that a simulation wakes followers in the same order each time.
    followed: BTreeMap<RoomId, Followed>,
    followers: usize,
    stop: Stop,
}

#[derive(Debug)]
struct Followed {
    ring: Arc<Ring>,
    followers: usize,
}

/// What a registration meets.
#[derive(Debug, Default)]
enum Stop {
    #[default]
    No,
    /// Until the replica sees a leader again.
    Stalled(Error),
    /// For good.
    Closed(Error),
}

/// Wakes a room's followers when dropped.
///
/// Waking thousands of tasks takes longer than publishing, so keep this until the shard's lock
/// is released. Dropping it at once is correct too.
#[derive(Debug)]
#[must_use = "followers wake when this is dropped: drop it after the shard's lock"]
pub struct Wake(Option<Arc<Ring>>);

impl Drop for Wake {
    fn drop(&mut self) {
        if let Some(ring) = &self.0 {
            ring.wake();
        }
    }
}

/// One follower's place at the live end of a room; a [`Subscription`] is made of it. Dropping it
/// leaves the room, and the last one to leave takes the room's ring along.
///
/// [`Subscription`]: crate::delivery::subscription::Subscription
#[derive(Debug)]
pub struct LiveTail {
    hub: Hub,
    pub(super) room: RoomId,
    pub(super) head: Seq,
    pub(super) ring: Arc<Ring>,
}

impl Hub {
    /// A hub without followers.
    pub fn new() -> Hub {
        Hub::default()
    }

    fn lock(&self) -> MutexGuard<'_, Rooms> {
        // Nothing in here panics halfway through a change.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a room's new events, ascending and dense, to its followers.
    ///
    /// Call it while holding the lock under which the events became readable, and for each room
    /// in order of seq. Events that were published before are left out.
    pub fn publish(&self, room: &RoomId, events: &[Arc<Event>]) -> Wake {
        let rooms = self.lock();
        Wake(rooms.followed.get(room).map(|followed| {
            followed.ring.push(events);
            Arc::clone(&followed.ring)
        }))
    }

    /// Begins to follow a room whose last event is `head`: the tail goes on with `head + 1`.
    ///
    /// Call it while holding the lock under which `head` was read. In a hub that is stalled or
    /// closed, the tail has ended already.
    pub fn register(&self, room: &RoomId, head: Seq) -> LiveTail {
        let mut rooms = self.lock();
        let tail = |ring| LiveTail { hub: self.clone(), room: room.clone(), head, ring };
        if let Stop::Stalled(error) | Stop::Closed(error) = &rooms.stop {
            let ring = Arc::new(Ring::new(head));
            ring.end(error);
            return tail(ring);
        }
        rooms.followers += 1;
        let followed = rooms
            .followed
            .entry(room.clone())
            .or_insert_with(|| Followed { ring: Arc::new(Ring::new(head)), followers: 0 });
        followed.followers += 1;
        followed.ring.advance(head);
        tail(Arc::clone(&followed.ring))
    }

    /// Moves every followed room to the head that `head` tells, after a snapshot was installed:
    /// followers read what they missed from history. A room without a head is gone; its followers
    /// end with `gone`.
    ///
    /// Call it while holding the lock under which the snapshot became readable.
    pub fn jump(&self, gone: &Error, head: impl Fn(&RoomId) -> Option<Seq>) {
        let mut ended = Vec::new();
        let mut rooms = self.lock();
        rooms.followed.retain(|room, followed| match head(room) {
            Some(head) => {
                followed.ring.advance(head);
                followed.ring.wake();
                true
            }
            None => {
                ended.push((Arc::clone(&followed.ring), followed.followers));
                false
            }
        });
        for (ring, followers) in ended {
            rooms.followers -= followers;
            ring.end(gone);
        }
    }

    /// Ends every subscription to one room; later ones are taken. For a room whose epoch changes.
    pub fn end_room(&self, room: &RoomId, error: &Error) {
        let mut rooms = self.lock();
        if let Some(followed) = rooms.followed.remove(room) {
            rooms.followers -= followed.followers;
            followed.ring.end(error);
        }
    }

    /// Ends every subscription; later ones are taken.
    pub fn end_all(&self, error: &Error) {
        self.lock().end_all(error);
    }

    /// Ends every subscription, and each one that is registered before [`Hub::resume`]. For a
    /// replica that has seen no leader for longer than an election takes.
    pub fn stall(&self, error: &Error) {
        let mut rooms = self.lock();
        if !matches!(rooms.stop, Stop::Closed(_)) {
            rooms.stop = Stop::Stalled(error.clone());
        }
        rooms.end_all(error);
    }

    /// Takes subscriptions again after [`Hub::stall`].
    pub fn resume(&self) {
        let mut rooms = self.lock();
        if matches!(rooms.stop, Stop::Stalled(_)) {
            rooms.stop = Stop::No;
        }
    }

    /// Ends every subscription and takes no more. For a node that stops.
    pub fn close(&self, error: &Error) {
        let mut rooms = self.lock();
        rooms.stop = Stop::Closed(error.clone());
        rooms.end_all(error);
    }

    /// How many subscriptions there are.
    pub fn followers(&self) -> usize {
        self.lock().followers
    }

    /// How many rooms are followed.
    pub fn rooms(&self) -> usize {
        self.lock().followed.len()
    }
}

impl Rooms {
    fn end_all(&mut self, error: &Error) {
        self.followers = 0;
        for followed in std::mem::take(&mut self.followed).into_values() {
            followed.ring.end(error);
        }
    }
}

impl Drop for LiveTail {
    fn drop(&mut self) {
        let mut rooms = self.hub.lock();
        let Some(followed) = rooms.followed.get_mut(&self.room) else { return };
        // A tail that ended may have a successor under the same name.
        if !Arc::ptr_eq(&followed.ring, &self.ring) {
            return;
        }
        followed.followers -= 1;
        let last = followed.followers == 0;
        rooms.followers -= 1;
        if last {
            rooms.followed.remove(&self.room);
        }
    }
}
