//! Records what clients see.

use std::sync::{Mutex, MutexGuard};

use folkmoot::id::RequestId;
use folkmoot_jepsen::history::{Event, History, Id, Op, Process};

use crate::runtime::elapsed;
use crate::trace::Trace;

/// The history of a life.
#[derive(Debug)]
pub struct Recorder {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    history: History,
    processes: u32,
    subscriptions: u64,
}

/// Now, as histories have it.
pub fn now() -> u64 {
    elapsed().as_nanos() as u64
}

/// A request's id, as histories have it.
pub fn id(request: &RequestId) -> Id {
    Id::from_u128(u128::from_be_bytes(*request.as_bytes()))
}

/// An event, as histories have it.
pub fn event(event: &folkmoot::chat::event::Event) -> Event {
    Event { seq: event.seq.0, id: id(&event.request_id) }
}

impl Recorder {
    /// An empty history.
    pub fn new() -> Recorder {
        Recorder { state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// A process that did nothing yet.
    pub fn process(&self) -> Process {
        let mut state = self.lock();
        state.processes += 1;
        Process(state.processes)
    }

    /// A number for a subscription.
    pub fn subscription(&self) -> u64 {
        let mut state = self.lock();
        state.subscriptions += 1;
        state.subscriptions
    }

    /// Adds a line.
    ///
    /// # Panics
    /// When it makes no sense: that is a bug of the simulator's.
    pub fn push(&self, trace: &Trace, op: Op) {
        let head = [op.kind as u8, op.f as u8];
        trace.op(&head, &op);
        let added = self.lock().history.push(op);
        if let Err(error) = added {
            panic!("the simulator's history makes no sense: {error}");
        }
    }

    /// Takes the history.
    pub fn take(&self) -> History {
        std::mem::take(&mut self.lock().history)
    }
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}
