//! What faults did to clients: how long they waited for an ok after each began, and after all
//! had ended.
//!
//! A *wait* is a stretch of time in which clients asked something of a room and none was answered
//! with ok: from the first that asked to the first ok. A refusal does not end it, unless nobody
//! asks again for a while. So a room that nobody asks is not down, and one that fails fast is; who
//! still waits for a node that is cut off, when others are served, does not count.

use serde::Serialize;

use crate::history::{F, History, Name, Phase, Value};
use crate::report::html;
use crate::report::operations::{Operation, Operations, Outcome};

/// When nobody asks for longer, a wait ends without an ok.
const PAUSE_MAX_NS: u64 = 500_000_000;

/// A fault, from its start to its stop. Times are milliseconds since the history began.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Span {
    pub fault: String,
    pub on: Vec<String>,
    pub from_ms: f64,
    /// The end of the history when it never stops.
    pub to_ms: f64,
    pub stops: bool,
    /// Whether every shard kept a majority, if the run knows.
    pub majority: Option<bool>,
    /// The longest wait in any room that overlaps it, from its start on.
    pub wait_ms: Option<f64>,
}

/// All faults have ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Heal {
    pub at_ms: f64,
    /// Until the first ok of an operation that began since.
    pub first_ok_ms: Option<f64>,
    /// Until the last of the rooms that were waiting had an ok.
    pub last_room_ms: Option<f64>,
}

/// Faults, heals, and what they did.
#[derive(Debug, Default, Serialize)]
pub(super) struct Recovery {
    pub spans: Vec<Span>,
    pub heals: Vec<Heal>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Wait {
    begin_ns: u64,
    end_ns: u64,
    /// Whether it ended with an ok.
    served: bool,
}

fn ms(ns: u64) -> f64 {
    (ns as f64 / 1e3).round() / 1e3
}

impl Recovery {
    pub(super) fn of(history: &History, ops: &Operations) -> Recovery {
        let (mut spans, heals) = faults(history, ops.span_ns);
        let waits = waits(ops);
        let longest = waits.iter().map(|wait| wait.end_ns - wait.begin_ns).max().unwrap_or(0);
        for (span, (from, to)) in &mut spans {
            let first = waits.partition_point(|wait| wait.end_ns <= *from);
            let near = waits[first..].iter().take_while(|wait| wait.end_ns <= *to + longest);
            let during = near.filter(|wait| wait.begin_ns < *to);
            let wait = during.map(|wait| wait.end_ns - wait.begin_ns.max(*from)).max();
            span.wait_ms = wait.map(ms);
        }
        let heals = heals.iter().map(|at| heal(*at, ops, &waits, longest)).collect();
        Recovery { spans: spans.into_iter().map(|(span, _)| span).collect(), heals }
    }

    /// The waits after faults that left a majority, shortest first: failovers.
    pub(super) fn failovers_ms(&self) -> Vec<f64> {
        let majority = self.spans.iter().filter(|span| span.majority != Some(false));
        let mut waits: Vec<f64> = majority.filter_map(|span| span.wait_ms).collect();
        waits.sort_by(f64::total_cmp);
        waits
    }
}

type Spans = Vec<(Span, (u64, u64))>;

/// Each fault with its times, and when all had ended.
fn faults(history: &History, span_ns: u64) -> (Spans, Vec<u64>) {
    let (mut spans, mut heals): (Spans, Vec<u64>) = Default::default();
    let mut open: Vec<usize> = Vec::new();
    let start = history.ops().first().map_or(0, |op| op.time);
    for op in history.ops().iter().filter(|op| op.f == F::Nemesis) {
        let Value::Fault(fault) = &op.value else { continue };
        let at = op.time - start;
        let names = |names: &[Name]| names.iter().map(|name| html::name(name.as_str())).collect();
        if fault.phase == Phase::Start {
            open.push(spans.len());
            let span = Span {
                fault: html::name(fault.fault.as_str()),
                on: names(&fault.on),
                from_ms: ms(at),
                to_ms: ms(span_ns),
                stops: false,
                majority: fault.majority,
                wait_ms: None,
            };
            spans.push((span, (at, span_ns)));
        } else if fault.phase == Phase::Stop
            && let Some(found) =
                open.iter().position(|i| spans[*i].0.fault == html::name(fault.fault.as_str()))
        {
            let (span, times) = &mut spans[open.remove(found)];
            (span.to_ms, span.stops, times.1) = (ms(at), true, at);
            if open.is_empty() {
                heals.push(at);
            }
        }
    }
    (spans, heals)
}

/// What a room's clients are at.
#[derive(Clone, Default)]
struct Room {
    /// The lines of what they asked and wait for. Without what was asked before something that
    /// was ok since: the room is served, and who waits still has asked a node that is cut off.
    asking: Vec<u32>,
    waiting_since: Option<u64>,
    /// When somebody was last refused.
    refused: u64,
}

/// All waits of all rooms, by when they ended.
fn waits(ops: &Operations) -> Vec<Wait> {
    let mut events: Vec<(u32, bool, &Operation)> = Vec::new();
    for op in ops.list.iter().filter(|op| ops.serves(op)) {
        events.push((op.line, true, op));
        events.extend(op.end_line.map(|line| (line, false, op)));
    }
    events.sort_unstable_by_key(|(line, ..)| *line);
    let mut rooms = vec![Room::default(); ops.rooms.len()];
    let mut waits = Vec::with_capacity(ops.list.len());
    for (_, begins, op) in events {
        let room = &mut rooms[op.room as usize];
        waits.extend(if begins { room.begin(op) } else { room.end(op) });
    }
    for room in rooms {
        if let Some(begin_ns) = room.waiting_since {
            let end_ns = if room.asking.is_empty() { room.refused } else { ops.span_ns };
            waits.push(Wait { begin_ns, end_ns, served: false });
        }
    }
    waits.sort_by_key(|wait| wait.end_ns);
    waits
}

impl Room {
    /// Somebody asks. Returns a wait that had ended before, since nobody asked for a while.
    fn begin(&mut self, op: &Operation) -> Option<Wait> {
        let silent = self.asking.is_empty() && op.begin_ns - self.refused > PAUSE_MAX_NS;
        let ended = self.waiting_since.take_if(|_| silent);
        self.asking.push(op.line);
        self.waiting_since.get_or_insert(op.begin_ns);
        ended.map(|begin_ns| Wait { begin_ns, end_ns: self.refused, served: false })
    }

    /// Somebody is answered. Returns the wait that this ends.
    fn end(&mut self, op: &Operation) -> Option<Wait> {
        if op.outcome != Outcome::Ok {
            if let Some(place) = self.asking.iter().position(|line| *line == op.line) {
                self.asking.swap_remove(place);
                self.refused = op.end_ns;
            }
            return None;
        }
        let wait = self.waiting_since.take().map(|begin_ns| Wait {
            begin_ns,
            end_ns: op.end_ns,
            served: true,
        });
        self.asking.retain(|line| *line > op.line);
        self.waiting_since = (!self.asking.is_empty()).then_some(op.end_ns);
        wait
    }
}

fn heal(at: u64, ops: &Operations, waits: &[Wait], longest: u64) -> Heal {
    let since = ops.list.partition_point(|op| op.begin_ns < at);
    let ok = |op: &&Operation| op.outcome == Outcome::Ok && ops.serves(op);
    let mut first: Option<u64> = None;
    for op in &ops.list[since..] {
        if first.is_some_and(|end| op.begin_ns >= end) {
            break;
        }
        if ok(&op) {
            first = Some(first.map_or(op.end_ns, |end| end.min(op.end_ns)));
        }
    }
    let next = waits.partition_point(|wait| wait.end_ns <= at);
    let open = waits[next..].iter().take_while(|wait| wait.end_ns <= at + longest);
    let last = open.filter(|wait| wait.begin_ns <= at && wait.served).map(|wait| wait.end_ns).max();
    Heal {
        at_ms: ms(at),
        first_ok_ms: first.map(|end| ms(end - at)),
        last_room_ms: last.or(first).map(|end| ms(end - at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Fault, Op, Process};

    const MS: u64 = 1_000_000;

    /// Reads as (process, room, from, to, outcome), and faults as (name, at, phase); in milliseconds.
    fn recovery(
        reads: &[(u32, &str, u64, u64, Outcome)],
        faults: &[(&str, u64, Phase)],
    ) -> Recovery {
        let mut lines: Vec<(u64, u8, Op)> = Vec::new();
        for (process, room, from, to, outcome) in reads {
            let read = Op::invoke(from * MS, Process(*process), F::Read, Value::range(0, None));
            let read = read.room(*room).node("n1");
            lines.push((from * MS, 2, read.clone()));
            lines.push(match outcome {
                Outcome::Ok => {
                    (to * MS, 1, read.ok(to * MS, Value::Page { head: 0, events: vec![] }))
                }
                Outcome::Fail => (to * MS, 1, read.fail(to * MS, "unavailable")),
                Outcome::Info => (to * MS, 1, read.info(to * MS, "timeout")),
            });
        }
        for (name, at, phase) in faults {
            let fault = Fault { fault: (*name).into(), phase: *phase, on: vec![], majority: None };
            lines.push((at * MS, 0, Op::nemesis(at * MS, fault)));
        }
        lines.sort_by_key(|(time, order, _)| (*time, *order));
        let mut history = History::new();
        for (_, _, op) in lines {
            history.push(op).unwrap();
        }
        Recovery::of(&history, &Operations::of(&history))
    }

    use Outcome::{Fail, Info, Ok};

    #[test]
    fn a_wait_lasts_from_the_first_that_asks_to_the_first_ok() {
        let found = recovery(
            &[
                (0, "tea", 0, 10, Ok),
                (0, "tea", 100, 101, Ok), // answered before the fault was really there
                (1, "tea", 120, 5_000, Info),
                (2, "tea", 300, 310, Fail),
                (2, "tea", 700, 1_000, Ok), // so the one that still waits asked a node that is cut off
                (3, "milk", 4_000, 4_003, Ok), // nobody asked before: it was not down
            ],
            &[("kill", 90, Phase::Start), ("kill", 4_500, Phase::Stop)],
        );
        assert_eq!(found.spans[0].wait_ms, Some(880.0));
        assert_eq!(found.failovers_ms(), [880.0]);
        assert_eq!((found.spans[0].from_ms, found.spans[0].to_ms), (90.0, 4_500.0));
    }

    #[test]
    fn a_wait_before_a_fault_counts_from_its_start() {
        let found = recovery(
            &[(0, "tea", 0, 500, Ok)],
            &[("kill", 400, Phase::Start), ("kill", 450, Phase::Stop)],
        );
        assert_eq!(found.spans[0].wait_ms, Some(100.0));
    }

    #[test]
    fn refusals_go_on_waiting_unless_nobody_asks_again() {
        let kill = [("kill", 1, Phase::Start), ("kill", 9_000, Phase::Stop)];
        let soon = recovery(
            &[(0, "tea", 10, 11, Fail), (0, "tea", 500, 501, Fail), (0, "tea", 1_000, 1_001, Ok)],
            &kill,
        );
        assert_eq!(soon.spans[0].wait_ms, Some(991.0));
        let late = recovery(&[(0, "tea", 10, 11, Fail), (0, "tea", 8_000, 8_001, Ok)], &kill);
        assert_eq!(late.spans[0].wait_ms, Some(1.0));
    }

    #[test]
    fn a_heal_is_over_when_the_last_that_waited_is_served() {
        let found = recovery(
            &[
                (3, "tea", 0, 1, Ok),
                (0, "tea", 50, 1_200, Ok),
                (1, "milk", 60, 1_900, Ok),
                (2, "water", 1_050, 1_060, Ok),
            ],
            &[
                ("kill", 40, Phase::Start),
                ("pause", 45, Phase::Start),
                ("kill", 900, Phase::Stop),
                ("pause", 1_000, Phase::Stop),
            ],
        );
        let heal = Heal { at_ms: 1_000.0, first_ok_ms: Some(60.0), last_room_ms: Some(900.0) };
        assert_eq!(found.heals, [heal]);
        // The wait for milk began at 60 and ended at 1900.
        assert_eq!(found.spans[1].wait_ms, Some(1_840.0));
    }

    #[test]
    fn what_never_ends_lasts_to_the_end() {
        let found = recovery(
            &[(0, "tea", 0, 20, Ok), (0, "tea", 100, 2_000, Info)],
            &[("kill", 50, Phase::Start)],
        );
        assert!(!found.spans[0].stops);
        assert_eq!((found.spans[0].to_ms, found.spans[0].wait_ms), (2_000.0, Some(1_900.0)));
        assert!(found.heals.is_empty());
    }
}
