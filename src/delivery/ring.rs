//! The newest events of one followed room, shared by all its followers.
//!
//! Owned by the hub and by the tails that it hands out. Holds a dense run of events that ends at
//! `head`; what is older is in history. Publishing is one short lock; waking comes after it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::chat::event::{Body, Event, EventKind};
use crate::delivery::encoded::Encoded;
use crate::error::Error;
use crate::id::Seq;

/// Events that a ring keeps.
pub(super) const EVENTS_MAX: usize = 256;
/// Bytes that a ring keeps, the newest event apart, which is always kept.
pub(super) const BYTES_MAX: usize = 256 * 1024;
/// What an event counts for besides its text, in bytes.
const EVENT_BYTES: usize = 256;

/// What a follower finds at its cursor.
#[derive(Debug)]
pub(super) enum Look {
    /// The events above the cursor; at least one.
    Events(Vec<Arc<Encoded>>),
    /// The ring begins above the event after the cursor.
    Behind,
    /// Nothing above the cursor yet.
    Nothing,
    /// No more will come.
    Ended(Error),
}

#[derive(Debug)]
struct State {
    /// The last event published, or the head at registration. `run` ends here.
    head: Seq,
    run: VecDeque<Arc<Encoded>>,
    /// Of `run`.
    bytes: usize,
    ended: Option<Error>,
}

/// The newest events of one room.
#[derive(Debug)]
pub(super) struct Ring {
    state: Mutex<State>,
    changed: Notify,
}

fn size(event: &Event) -> usize {
    EVENT_BYTES + event.body.text().len()
}

impl Ring {
    /// A ring without events, of a room whose last event is `head`.
    pub(super) fn new(head: Seq) -> Ring {
        let state = State { head, run: VecDeque::new(), bytes: 0, ended: None };
        Ring { state: Mutex::new(state), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the room's next events, ascending and dense. Wakes nobody: see [`Ring::wake`].
    ///
    /// Events at or below the head were published before and are left out. Events further above
    /// it follow a snapshot: what lies between is in history.
    pub(super) fn push(&self, events: &[Arc<Event>]) {
        let mut state = self.lock();
        for event in events {
            if event.seq <= state.head {
                continue;
            }
            state.advance(Seq(event.seq.0 - 1));
            if event.kind == EventKind::Redaction
                && let Some(target) = event.target
            {
                state.erase(target);
            }
            state.bytes += size(event);
            state.run.push_back(Encoded::new(Arc::clone(event)));
            state.head = event.seq;
            state.trim();
        }
    }

    /// Moves the head forward without events: those up to `head` are in history.
    pub(super) fn advance(&self, head: Seq) {
        self.lock().advance(head);
    }

    /// No more will come. The first reason stays.
    pub(super) fn end(&self, error: &Error) {
        self.lock().ended.get_or_insert_with(|| error.clone());
        self.wake();
    }

    /// Wakes every follower that waits.
    pub(super) fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Completes at the next [`Ring::wake`] after this call, awaited or not.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// What is above `cursor`, at most up to `last`.
    pub(super) fn look(&self, cursor: Seq, last: Option<Seq>) -> Look {
        let state = self.lock();
        if let Some(error) = &state.ended {
            return Look::Ended(error.clone());
        }
        if cursor >= state.head {
            return Look::Nothing;
        }
        let missing = (state.head.0 - cursor.0) as usize;
        let start = match state.run.len().checked_sub(missing) {
            Some(start) => start,
            None if mutant!(SkipsWhenSlow) && last.is_none() && !state.run.is_empty() => 0,
            None => return Look::Behind,
        };
        let end = match last {
            Some(last) if last < state.head => start + last.0.saturating_sub(cursor.0) as usize,
            _ => state.run.len(),
        };
        Look::Events(state.run.range(start..end).cloned().collect())
    }
}

impl State {
    fn advance(&mut self, head: Seq) {
        if head > self.head {
            self.run.clear();
            self.bytes = 0;
            self.head = head;
        }
    }

    fn trim(&mut self) {
        while self.run.len() > EVENTS_MAX || (self.bytes > BYTES_MAX && self.run.len() > 1) {
            let Some(oldest) = self.run.pop_front() else { break };
            self.bytes -= size(&oldest.event);
        }
    }

    /// Erases a message's body, and its edits', as the store does when it is redacted.
    fn erase(&mut self, target: Seq) {
        for slot in &mut self.run {
            let event = &slot.event;
            let is_edit = event.kind == EventKind::Edit && event.target == Some(target);
            if event.seq == target || is_edit {
                let mut erased = Event::clone(event);
                self.bytes -= size(&erased);
                erased.body = Body::Erased { hash: erased.body.hash() };
                self.bytes += size(&erased);
                *slot = Encoded::new(Arc::new(erased));
            }
        }
    }
}
