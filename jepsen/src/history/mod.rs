//! What clients saw, in order: the history that drivers write and checkers judge.
//!
//! ```text
//! simulator ── push ──► History ──► check, export
//! real run ── Writer ──► JSON lines ── read ──┘
//! ```
//!
//! A history that exists is well formed: [`History::push`] refuses a line that makes no sense, so
//! that no checker ever sees one, and [`read`] says at which line of a file that was.
//!
//! **The order of lines is real time.** Whoever records must take one lock, then the time, then
//! write; an invoke before the request is sent, a completion after the answer has come. Then an
//! operation that ends on an earlier line than another begins did happen before it, even where the
//! clock shows the same time for both, as a simulator's does.
//!
//! ```
//! use folkmoot_jepsen::check::{Options, Verdict, check};
//! use folkmoot_jepsen::history::{F, History, Id, Op, Process, Value};
//!
//! # fn main() -> Result<(), folkmoot_jepsen::history::Malformed> {
//! let mut history = History::new();
//! let id = Id::from_u128(7);
//! let send = Op::invoke(0, Process(0), F::Send, Value::send(id)).node("n1").room("tea");
//! history.push(send.clone())?;
//! history.push(send.ok(1_000, Value::sent(id, 1)))?; // or send.fail(…), send.info(…)
//! let report = check(&history, &Options::default());
//! assert_eq!(report.verdict, Verdict::Unknown, "one send says little");
//! # Ok(())
//! # }
//! ```

use std::collections::HashMap;
use std::fmt;

mod id;
mod op;
mod read;
mod rules;
mod write;

pub use id::{Id, Name, Process};
pub use op::{Admin, Event, F, Fault, Kind, Op, Phase, Value};
pub use read::{ReadError, read};
pub use write::{FORMAT, Writer};

/// Stands for no line in [`History::partner`]'s table.
const NONE: u32 = u32::MAX;

/// Why a line makes no sense after those before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    fn new(problem: impl fmt::Display) -> Malformed {
        Malformed(problem.to_string())
    }
}

/// A well-formed history.
#[derive(Debug, Default)]
pub struct History {
    ops: Vec<Op>,
    /// For each line the other one of its operation.
    partners: Vec<u32>,
    processes: HashMap<Process, Doing>,
    /// The rooms of subscriptions.
    subscriptions: HashMap<u64, Name>,
    /// It was read from a file that may have been cut off between two lines.
    maybe_cut: bool,
}

/// What a process is at.
#[derive(Clone, Copy, Debug)]
enum Doing {
    Nothing,
    /// The operation that began on this line.
    Operation(u32),
    /// Nothing ever again, since the outcome on this line was unknown.
    Retired(u32),
}

impl History {
    /// An empty history.
    #[must_use]
    pub fn new() -> History {
        History::default()
    }

    /// Adds a line and returns its index.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when the line cannot follow those before it: its time is earlier, its process
    /// is busy or retired, it completes what was never invoked, or `f`, type and value do not go
    /// together. The history is then as it was.
    pub fn push(&mut self, op: Op) -> Result<usize, Malformed> {
        let index = u32::try_from(self.ops.len()).ok().filter(|index| *index != NONE);
        let index = index.ok_or_else(|| Malformed::new("more lines than a history holds"))?;
        if let Some(last) = self.ops.last()
            && op.time < last.time
        {
            return Err(Malformed::new(format_args!(
                "the clock goes back: {} ns after {} ns",
                op.time, last.time
            )));
        }
        rules::shape(&op)?;
        let partner = match op.f {
            F::Nemesis => NONE,
            F::Deliver => self.check_delivery(&op).map(|()| NONE)?,
            _ if op.kind == Kind::Invoke => self.begin(index, &op).map(|()| NONE)?,
            _ => self.complete(index, &op)?,
        };
        if partner != NONE {
            self.partners[partner as usize] = index;
        }
        self.partners.push(partner);
        self.ops.push(op);
        Ok(index as usize)
    }

    fn begin(&mut self, index: u32, op: &Op) -> Result<(), Malformed> {
        match self.processes.get(&op.process) {
            Some(Doing::Operation(open)) => {
                return Err(Malformed::new(format_args!(
                    "process {} begins a {} while its {} of operation {open} is open",
                    op.process,
                    op.f.as_str(),
                    self.ops[*open as usize].f.as_str()
                )));
            }
            Some(Doing::Retired(at)) => {
                return Err(Malformed::new(format_args!(
                    "process {} begins a {}, but retired with the info of operation {at}",
                    op.process,
                    op.f.as_str()
                )));
            }
            Some(Doing::Nothing) | None => {}
        }
        if op.f == F::Subscribe
            && let (Value::Subscription { subscription, .. }, Some(room)) = (&op.value, &op.room)
        {
            self.check_room(*subscription, room)?;
            self.subscriptions.insert(*subscription, room.clone());
        }
        self.processes.insert(op.process, Doing::Operation(index));
        Ok(())
    }

    fn complete(&mut self, index: u32, op: &Op) -> Result<u32, Malformed> {
        let Some(Doing::Operation(open)) = self.processes.get(&op.process) else {
            return Err(Malformed::new(format_args!(
                "process {} completes a {} that it never invoked",
                op.process,
                op.f.as_str()
            )));
        };
        let open = *open;
        rules::completes(&self.ops[open as usize], op, open)?;
        let next = match op.kind {
            Kind::Info => Doing::Retired(index),
            _ => Doing::Nothing,
        };
        self.processes.insert(op.process, next);
        Ok(open)
    }

    fn check_delivery(&self, op: &Op) -> Result<(), Malformed> {
        let (Value::Delivery { subscription, .. }, Some(room)) = (&op.value, &op.room) else {
            return Ok(());
        };
        if let Some(Doing::Retired(at)) = self.processes.get(&op.process) {
            return Err(Malformed::new(format_args!(
                "process {} has a delivery, but retired with the info of operation {at}",
                op.process
            )));
        }
        if !self.subscriptions.contains_key(subscription) {
            return Err(Malformed::new(format_args!(
                "a delivery on subscription {subscription}, which nobody subscribed"
            )));
        }
        self.check_room(*subscription, room)
    }

    fn check_room(&self, subscription: u64, room: &Name) -> Result<(), Malformed> {
        match self.subscriptions.get(&subscription) {
            Some(other) if other != room => Err(Malformed::new(format_args!(
                "subscription {subscription} is of room {other}, not {room}"
            ))),
            _ => Ok(()),
        }
    }

    /// The lines.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The other line of an operation: of an invoke its completion, of a completion its invoke.
    /// `None` for what never completed, for deliveries and faults.
    #[must_use]
    pub fn partner(&self, index: usize) -> Option<usize> {
        self.partners.get(index).filter(|partner| **partner != NONE).map(|p| *p as usize)
    }

    /// The room's head, as the `ok` of a subscribe on this line tells it: by itself, or as where a new
    /// subscription begins.
    pub(crate) fn head_told(&self, index: usize) -> Option<u64> {
        let op = self.ops.get(index).filter(|op| op.f == F::Subscribe && op.kind == Kind::Ok)?;
        let Value::Subscription { after, head, .. } = &op.value else { return None };
        let asked = self.partner(index).map(|invoke| &self.ops[invoke].value);
        let from_head = matches!(asked, Some(Value::Subscription { after: None, .. }));
        head.or(after.filter(|_| from_head))
    }

    /// Whether nothing can be missing at its end. Of a file without header and end nobody knows.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.maybe_cut
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is no line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

#[cfg(test)]
mod tests;
