//! How well the cluster served while it could: the share of ok while a majority was healthy, and
//! the time from the end of all faults to the first ok in each room.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::check::report::{Anomaly, Availability, Findings};
use crate::history::{F, History, Kind, Name, Op, Phase, Value};

/// What is broken at the moment.
#[derive(Default)]
struct Faults<'h> {
    active: BTreeSet<&'h Name>,
    /// What the last fault said of the majority, if it did.
    majority: Option<bool>,
    /// Goes up whenever something breaks or heals.
    changes: u64,
}

impl<'h> Faults<'h> {
    fn healthy(&self) -> bool {
        self.majority.unwrap_or(self.active.is_empty())
    }

    /// Whether this ends the last fault.
    fn take(&mut self, op: &'h Op) -> bool {
        let Value::Fault(fault) = &op.value else { return false };
        self.changes += 1;
        self.majority = fault.majority;
        match fault.phase {
            Phase::Start => {
                self.active.insert(&fault.fault);
                false
            }
            Phase::Stop => self.active.remove(&fault.fault) && self.active.is_empty(),
        }
    }
}

/// The time after all faults ended, until the next one begins.
struct Recovery<'h> {
    heal: usize,
    /// Who asks since, until one operation is ok.
    waiting: BTreeMap<&'h Name, Waiting>,
    served: BTreeSet<&'h Name>,
}

/// Operations in a room of which none was ok yet.
struct Waiting {
    /// The line from which on it counts: the first one's, or where the faults ended, if that is later.
    since: usize,
    /// The first one's line.
    first: usize,
    /// How many wait for an answer.
    open: u32,
    /// Where one last ended without an ok.
    refused: Option<usize>,
}

impl Waiting {
    /// How long somebody had waited at a line, or was refused again and again. What comes after the last
    /// refusal does not count while nobody asks: nothing says that they would have been refused again.
    fn until(&self, history: &History, line: usize) -> Duration {
        let end = if self.open > 0 { line } else { self.refused.unwrap_or(self.since) };
        since(history, self.since, end)
    }
}

/// Whether the operation of a line says how well a cluster serves. A resend with another text is meant to
/// be refused; its refusal does not repeat what was asked.
fn counts(history: &History, line: usize, op: &Op) -> bool {
    match op.f {
        F::Send | F::Read => true,
        F::Resend => {
            let other = |op: &Op| matches!(op.value, Value::Write { other_body: true, .. });
            let invoke = history.partner(line).filter(|_| op.kind != Kind::Invoke);
            !other(invoke.map_or(op, |invoke| &history.ops()[invoke]))
        }
        _ => false,
    }
}

/// Measures, and reports rooms that did not come back in time.
pub(super) fn check(
    history: &History,
    recover_within: Duration,
    findings: &mut Findings,
) -> Availability {
    let mut measured = Availability::default();
    let mut faults = Faults::default();
    let mut recovery: Option<Recovery> = None;
    let mut slowest: Option<Duration> = None;
    // The lines of what has begun, and not ended yet.
    let mut open: BTreeSet<usize> = BTreeSet::new();
    // For each line that begins something: the changes before it, if all was well then.
    let mut healthy_since: Vec<(usize, u64)> = Vec::new();
    let mut change_before_line = vec![0_u64; history.len()];
    for (line, op) in history.ops().iter().enumerate() {
        change_before_line[line] = faults.changes;
        if op.f == F::Nemesis {
            if let Some(ended) = recovery.take() {
                give_up(history, &ended, line, recover_within, findings);
            }
            if faults.take(op) {
                measured.heals += 1;
                recovery = Some(Recovery::new(history, line, &open));
            }
            continue;
        }
        let Some(room) = op.room.as_ref().filter(|_| counts(history, line, op)) else { continue };
        if op.kind == Kind::Invoke {
            open.insert(line);
            if faults.healthy() {
                healthy_since.push((line, faults.changes));
            }
        } else if let Some(invoke) = history.partner(line) {
            open.remove(&invoke);
        }
        if let Some(recovery) = &mut recovery
            && let Some(took) = recovery.take(history, line, op, room, recover_within, findings)
        {
            slowest = slowest.max(Some(took));
        }
    }
    if let (Some(ended), Some(last)) = (recovery, history.len().checked_sub(1)) {
        give_up(history, &ended, last, recover_within, findings);
    }
    for (line, changes) in healthy_since {
        let end = history.partner(line);
        let end_changes = end.map_or(faults.changes, |end| change_before_line[end]);
        if end_changes == changes {
            measured.healthy_operations += 1;
            let ok = end.is_some_and(|end| history.ops()[end].kind == Kind::Ok);
            measured.healthy_ok += u64::from(ok);
        }
    }
    measured.recovery_max_ms = slowest.map(|took| took.as_secs_f64() * 1e3);
    measured
}

fn since(history: &History, from: usize, to: usize) -> Duration {
    Duration::from_nanos(history.ops()[to].time - history.ops()[from].time)
}

impl<'h> Recovery<'h> {
    /// The faults end, and what is open then waits from there on.
    fn new(history: &'h History, heal: usize, open: &BTreeSet<usize>) -> Recovery<'h> {
        let mut waiting: BTreeMap<&Name, Waiting> = BTreeMap::new();
        for first in open.iter().copied() {
            if let Some(room) = &history.ops()[first].room {
                let new = Waiting { since: heal, first, open: 0, refused: None };
                waiting.entry(room).or_insert(new).open += 1;
            }
        }
        Recovery { heal, waiting, served: BTreeSet::new() }
    }

    /// How long the room took, if this is its first ok: since the faults ended, or since somebody
    /// first asked it after that. A room is not slow while nobody asks.
    fn take(
        &mut self,
        history: &History,
        line: usize,
        op: &Op,
        room: &'h Name,
        recover_within: Duration,
        findings: &mut Findings,
    ) -> Option<Duration> {
        if self.served.contains(room) {
            return None;
        }
        if op.kind == Kind::Invoke {
            let new = Waiting { since: line, first: line, open: 0, refused: None };
            self.waiting.entry(room).or_insert(new).open += 1;
            return None;
        }
        if op.kind != Kind::Ok {
            if let Some(waiting) = self.waiting.get_mut(room) {
                (waiting.open, waiting.refused) = (waiting.open - 1, Some(line));
            }
            return None;
        }
        // What was asked before the end of the faults waited from then on.
        let invoke = history.partner(line).filter(|invoke| *invoke > self.heal);
        let waiting = self.waiting.remove(room);
        self.served.insert(room);
        let took = match (waiting, invoke) {
            (Some(waiting), Some(invoke)) => {
                let alone = |refused: &usize| *refused < invoke && waiting.open == 1;
                let silence = waiting.refused.filter(alone);
                let silence = silence.map(|refused| since(history, refused, invoke));
                since(history, waiting.since, line) - silence.unwrap_or_default()
            }
            _ => since(history, self.heal, line),
        };
        if took > recover_within {
            findings.add(Anomaly::Unavailable, Some(room), &[self.heal, line], || {
                format!(
                    "after the faults ended, somebody waited {:.1} s for the first ok",
                    took.as_secs_f64()
                )
            });
        }
        Some(took)
    }
}

/// Another fault begins, or the history ends, at `line`: who still waits, and has for too long?
fn give_up(
    history: &History,
    recovery: &Recovery,
    line: usize,
    recover_within: Duration,
    findings: &mut Findings,
) {
    for (room, waiting) in &recovery.waiting {
        let waited = waiting.until(history, line);
        if waited > recover_within {
            findings.add(Anomaly::Unavailable, Some(room), &[recovery.heal, waiting.first], || {
                format!(
                    "after the faults ended, somebody waited {:.1} s, and nothing was ok",
                    waited.as_secs_f64()
                )
            });
        }
    }
}
