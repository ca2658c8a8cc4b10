//! Histories in the formats of other people's checkers, so that they can judge the same run.
//!
//! - [`edn`]: op maps as Jepsen stores them.
//! - [`kafka`]: the same run as operations of `jepsen.tests.kafka`.
//! - [`porcupine`]: operations with call and return times, as JSON lines.
//!
//! Jepsen knows no completion without an invoke, so a delivery becomes a poll of a process that
//! its subscription has for itself, which is invoked and completes at once.

use std::collections::HashMap;

use crate::history::{F, History, Id, Kind, Name, Process};

mod edn;
mod kafka;
mod porcupine;
mod sends;

pub use edn::edn;
pub use kafka::kafka;
pub use porcupine::porcupine;

/// Numbers for processes that the history does not have.
struct Fresh {
    next: u32,
}

impl Fresh {
    fn above(history: &History) -> Fresh {
        let used = history.ops().iter().map(|op| op.process);
        let highest = used.filter(|process| *process != Process::NEMESIS).max();
        Fresh { next: highest.map_or(0, |process| process.0.saturating_add(1)) }
    }

    fn process(&mut self) -> Process {
        self.next = self.next.saturating_add(1);
        Process(self.next - 1)
    }
}

/// Small numbers for names, in the order in which they come up.
struct Numbers<T>(HashMap<T, usize>);

impl<T: std::hash::Hash + Eq> Numbers<T> {
    fn new() -> Numbers<T> {
        Numbers(HashMap::new())
    }

    fn of(&mut self, name: T) -> usize {
        let next = self.0.len();
        *self.0.entry(name).or_insert(next)
    }
}
