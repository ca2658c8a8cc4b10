//! The events of a shard that are in memory: those not durable yet, and some that are.
//!
//! For each room these are its last ones, without a hole, so that [`Tails`] and the base between
//! them have every event: the base those up to a room's durable head, the tail those above it, and
//! whatever durable ones memory has room for, which subscribers who catch up read.
//!
//! Used by `state.rs` alone.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::chat::event::Event;
use crate::id::{RoomId, Seq};

/// A room's last events.
#[derive(Debug)]
struct Tail {
    events: VecDeque<Arc<Event>>,
    /// The seq of the first event in `events`, or of the next one when there are none.
    first: u64,
    /// The base has the events up to here.
    durable: u64,
    /// A checkpoint is writing the events from `durable` up to here.
    frozen: u64,
    /// Memory of the events above `frozen`.
    active_bytes: usize,
    /// Memory of the events above `durable` up to `frozen`.
    frozen_bytes: usize,
}

impl Tail {
    fn head(&self) -> u64 {
        self.first + self.events.len() as u64 - 1
    }
}

/// The last events of each room.
#[derive(Debug)]
pub struct Tails {
    rooms: HashMap<RoomId, Tail>,
    active: Vec<RoomId>,
    frozen: Vec<RoomId>,
    /// Up to where rooms became durable, with the memory that took, in order of time.
    clean: VecDeque<(RoomId, u64, usize)>,
    pinned_bytes: usize,
    clean_bytes: usize,
    clean_bytes_max: usize,
}

/// What an erased event in memory needs besides being replaced there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erase {
    /// Nothing: no checkpoint has taken it yet.
    Done,
    /// The base has it, or will have from the checkpoint under way.
    InBase,
}

fn weigh(event: &Event) -> usize {
    let other = event.original_sender.as_ref().map_or(0, String::len);
    size_of::<Event>() + 48 + event.body.text().len() + other
}

impl Tails {
    /// No events; up to `clean_bytes_max` bytes of durable ones will stay.
    pub fn new(clean_bytes_max: usize) -> Tails {
        Tails {
            rooms: HashMap::new(),
            active: Vec::new(),
            frozen: Vec::new(),
            clean: VecDeque::new(),
            pinned_bytes: 0,
            clean_bytes: 0,
            clean_bytes_max,
        }
    }

    /// Appends a room's next event.
    ///
    /// # Panics
    /// When it is not the next one.
    pub fn append(&mut self, room: &RoomId, event: Arc<Event>) {
        let seq = event.seq.0;
        let bytes = weigh(&event);
        self.pinned_bytes += bytes;
        if let Some(tail) = self.rooms.get_mut(room) {
            assert_eq!(seq, tail.head() + 1, "the next event of {room}");
            if tail.head() == tail.frozen {
                self.active.push(room.clone());
            }
            tail.events.push_back(event);
            tail.active_bytes += bytes;
            return;
        }
        // Not in memory: what came before is durable.
        let tail = Tail {
            events: [event].into(),
            first: seq,
            durable: seq - 1,
            frozen: seq - 1,
            active_bytes: bytes,
            frozen_bytes: 0,
        };
        self.rooms.insert(room.clone(), tail);
        self.active.push(room.clone());
    }

    /// The first event of a room that is in memory. `None`: all are in the base.
    pub fn first(&self, room: &RoomId) -> Option<Seq> {
        self.rooms.get(room).map(|tail| Seq(tail.first))
    }

    /// Events in memory in `first..=last`.
    pub fn events(
        &self,
        room: &RoomId,
        first: Seq,
        last: Seq,
    ) -> impl Iterator<Item = &Arc<Event>> {
        let tail = self.rooms.get(room);
        let (from, to) = tail.map_or((0, 0), |tail| {
            let to = last.0.min(tail.head()) + 1;
            let index = |seq: u64| usize::try_from(seq.saturating_sub(tail.first)).unwrap_or(0);
            (index(first.0.min(to)), index(to))
        });
        tail.into_iter().flat_map(move |tail| tail.events.range(from..to.max(from)))
    }

    /// Replaces the body of an event, if it is in memory.
    pub fn erase(&mut self, room: &RoomId, seq: Seq) -> Erase {
        let Some(tail) = self.rooms.get_mut(room) else { return Erase::InBase };
        if let Some(index) = seq.0.checked_sub(tail.first)
            && let Some(event) = usize::try_from(index).ok().and_then(|i| tail.events.get_mut(i))
        {
            let erased = event.erased();
            // Durable events go as many as came, so what they took stays as it is.
            if seq.0 > tail.durable {
                let frozen = seq.0 <= tail.frozen;
                let of_tail = if frozen { &mut tail.frozen_bytes } else { &mut tail.active_bytes };
                *of_tail = *of_tail + weigh(&erased) - weigh(event);
                self.pinned_bytes = self.pinned_bytes + weigh(&erased) - weigh(event);
            }
            *event = Arc::new(erased);
        }
        if seq.0 > tail.frozen { Erase::Done } else { Erase::InBase }
    }

    /// Whether there are events that no checkpoint has taken.
    pub fn is_dirty(&self) -> bool {
        !self.active.is_empty()
    }

    /// Memory of events that are not durable, in bytes.
    pub fn pinned_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// Memory of all events, in bytes.
    pub fn bytes(&self) -> usize {
        self.pinned_bytes + self.clean_bytes
    }

    /// Hands out the events that are not durable, for a checkpoint to write.
    pub fn freeze(&mut self) -> Vec<(RoomId, Vec<Arc<Event>>)> {
        self.frozen = std::mem::take(&mut self.active);
        let mut rooms = Vec::with_capacity(self.frozen.len());
        for room in &self.frozen {
            let Some(tail) = self.rooms.get_mut(room) else { continue };
            tail.frozen = tail.head();
            tail.frozen_bytes = std::mem::take(&mut tail.active_bytes);
            let from = usize::try_from(tail.durable + 1 - tail.first).unwrap_or(0);
            rooms.push((room.clone(), tail.events.range(from..).cloned().collect()));
        }
        rooms
    }

    /// What was frozen is durable now. Returns what memory has no more room for, to be dropped
    /// where that keeps nobody waiting.
    pub fn thaw(&mut self) -> Vec<Arc<Event>> {
        for room in std::mem::take(&mut self.frozen) {
            let Some(tail) = self.rooms.get_mut(&room) else { continue };
            let bytes = std::mem::take(&mut tail.frozen_bytes);
            self.pinned_bytes -= bytes;
            self.clean_bytes += bytes;
            tail.durable = tail.frozen;
            self.clean.push_back((room, tail.durable, bytes));
        }
        let mut retired = Vec::new();
        while self.clean_bytes > self.clean_bytes_max {
            let Some((room, to, bytes)) = self.clean.pop_front() else { break };
            self.clean_bytes -= bytes;
            let Some(tail) = self.rooms.get_mut(&room) else { continue };
            let count = usize::try_from((to + 1).saturating_sub(tail.first)).unwrap_or(0);
            retired.extend(tail.events.drain(..count));
            tail.first += count as u64;
            if tail.events.is_empty() {
                self.rooms.remove(&room);
            }
        }
        retired
    }

    /// What was frozen could not be written: it will be again.
    pub fn unfreeze(&mut self) {
        for room in std::mem::take(&mut self.frozen) {
            let Some(tail) = self.rooms.get_mut(&room) else { continue };
            let listed = tail.head() > tail.frozen;
            tail.frozen = tail.durable;
            tail.active_bytes += std::mem::take(&mut tail.frozen_bytes);
            if !listed {
                self.active.push(room);
            }
        }
    }
}
