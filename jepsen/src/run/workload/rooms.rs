//! The rooms that clients use now: a few busy ones, many quiet ones, and fresh ones all the time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng;
use rand::rngs::SmallRng;

use crate::history::Name;

/// A room in use.
#[derive(Debug)]
pub struct Room {
    /// Its name.
    pub name: Name,
    slot: usize,
    posts: AtomicU64,
}

/// The rooms in use, the busiest first.
#[derive(Debug)]
pub struct Rooms {
    slots: Mutex<Vec<Arc<Room>>>,
    /// Cumulative weights: the n-th room is used 1/n times as often as the first.
    weights: Vec<f64>,
    /// Posts after which a room makes way for a fresh one.
    posts_max: u64,
    made: AtomicU64,
}

impl Rooms {
    /// So many slots; none has a room yet.
    #[must_use]
    pub fn new(count: usize, posts_max: u64) -> Rooms {
        let mut sum = 0.0;
        let weights = (1..=count).map(|n| {
            sum += 1.0 / n as f64;
            sum
        });
        Rooms {
            weights: weights.collect(),
            slots: Mutex::new(vec![]),
            posts_max,
            made: AtomicU64::new(0),
        }
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Arc<Room>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many slots there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.weights.len()
    }

    /// A name that no room has yet: its hash decides about its shard, so rooms spread over all.
    #[must_use]
    pub fn fresh_name(&self, slot: usize) -> String {
        format!("r{slot}-{}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// Puts a room that was created into a slot.
    pub fn put(&self, slot: usize, name: &str) {
        let room = Arc::new(Room { name: name.into(), slot, posts: AtomicU64::new(0) });
        let mut slots = self.slots();
        match slots.get_mut(slot) {
            Some(old) => *old = room,
            None => slots.push(room),
        }
    }

    /// A room, by Zipf's law.
    pub fn pick(&self, rng: &mut SmallRng) -> Arc<Room> {
        let total = self.weights.last().copied().unwrap_or(1.0);
        let point = rng.random_range(0.0..total);
        let slot = self.weights.partition_point(|weight| *weight <= point);
        let slots = self.slots();
        slots[slot.min(slots.len() - 1)].clone()
    }

    /// Counts a post. The slot that is due for a fresh room, told to one caller only; the busiest
    /// room stays for the whole run, so that ids meet a long history.
    pub fn count_post(&self, room: &Room) -> Option<usize> {
        let posts = room.posts.fetch_add(1, Ordering::Relaxed) + 1;
        (posts == self.posts_max && room.slot > 0).then_some(room.slot)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_first_room_is_the_busiest_and_the_last_is_not_left_out() {
        let rooms = Rooms::new(10, 5);
        for slot in 0..rooms.count() {
            rooms.put(slot, &rooms.fresh_name(slot));
        }
        let mut rng = SmallRng::seed_from_u64(1);
        let mut picked = [0; 10];
        for _ in 0..10_000 {
            picked[rooms.pick(&mut rng).slot] += 1;
        }
        assert!(picked[0] > 2_500 && picked[9] > 200, "{picked:?}");
        assert!(picked[0] > picked[4] && picked[4] > picked[9], "{picked:?}");
    }

    #[test]
    fn a_room_makes_way_once_and_the_busiest_never() {
        let rooms = Rooms::new(2, 3);
        rooms.put(0, "a");
        rooms.put(1, "b");
        let [a, b] = [0, 1].map(|slot| rooms.slots()[slot].clone());
        let due: Vec<_> = (0..6).filter_map(|_| rooms.count_post(&b)).collect();
        assert_eq!(due, [1]);
        assert!((0..6).all(|_| rooms.count_post(&a).is_none()));
    }
}
