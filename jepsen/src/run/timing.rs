//! How long things took, from a history.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::history::{F, History, Kind, Name, Phase, Value};
use crate::run::verdict::fault;

/// A room counts when somebody asked it something within this time of the event, in nanoseconds:
/// one that nobody asks is not slow.
const ASKED_WITHIN: u64 = 250_000_000;
/// Who was refused asks again within this time, in nanoseconds; or has gone.
const ASKED_AGAIN_WITHIN: u64 = 500_000_000;

/// Quantiles of some durations, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// Of how many.
    pub count: u64,
    /// Half are not longer.
    pub p50: f64,
    /// 99 % are not longer.
    pub p99: f64,
    /// 99.9 % are not longer.
    pub p999: f64,
    /// None is longer.
    pub max: f64,
}

/// Durations of a few events, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// Of how many.
    pub count: u64,
    /// The middle one.
    pub median: Option<f64>,
    /// The longest.
    pub worst: Option<f64>,
    /// All, in the order in which they came.
    pub all: Vec<f64>,
}

impl Times {
    fn of(all: Vec<f64>) -> Times {
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        Times {
            count: all.len() as u64,
            median: (!sorted.is_empty()).then(|| quantile(&sorted, 0.5)),
            worst: sorted.last().copied(),
            all,
        }
    }
}

/// The smallest value that at least this share of all does not exceed.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

/// Latencies by what was done and how it ended.
#[must_use]
pub fn latencies(history: &History) -> BTreeMap<String, BTreeMap<String, Quantiles>> {
    let mut all: BTreeMap<(F, &str), Vec<f64>> = BTreeMap::new();
    for (line, op) in history.ops().iter().enumerate() {
        let Some(end) = history.partner(line).filter(|end| *end > line) else { continue };
        let end = &history.ops()[end];
        all.entry((op.f, end.kind.as_str())).or_default().push((end.time - op.time) as f64 / 1e6);
    }
    let mut quantiles: BTreeMap<String, BTreeMap<String, Quantiles>> = BTreeMap::new();
    for ((f, kind), mut took) in all {
        took.sort_by(f64::total_cmp);
        let of = Quantiles {
            count: took.len() as u64,
            p50: quantile(&took, 0.5),
            p99: quantile(&took, 0.99),
            p999: quantile(&took, 0.999),
            max: took.last().copied().unwrap_or(0.0),
        };
        quantiles.entry(f.as_str().into()).or_default().insert(kind.into(), of);
    }
    quantiles
}

/// The faults that a failover is measured of: nodes die at once, and majorities are left.
const DEATHS: &[&str] = &[
    "kill-one",
    "kill-leader",
    "kill-minority",
    "power-cut-one",
    "power-cut-leader",
    "power-cut-minority",
];

/// From each death of nodes that leaves majorities, while nothing else is wrong, to the next
/// acknowledgement in the slowest room.
#[must_use]
pub fn failovers(history: &History) -> Times {
    let mut active = 0_u64;
    let mut times = vec![];
    for (line, op) in history.ops().iter().enumerate() {
        let Value::Fault(struck) = &op.value else { continue };
        match struck.phase {
            Phase::Start => {
                let dies = DEATHS.contains(&struck.fault.as_str());
                if dies && active == 0 && struck.majority == Some(true) {
                    times.extend(slowest_room(history, line, &[F::Send, F::Resend]));
                }
                active += 1;
            }
            Phase::Stop => active = active.saturating_sub(1),
        }
    }
    Times::of(times)
}

/// From each end of all faults to the first ok in the slowest room.
#[must_use]
pub fn heals(history: &History) -> Times {
    let mut active = 0_u64;
    let mut times = vec![];
    for (line, op) in history.ops().iter().enumerate() {
        match fault(&op.value) {
            Some((_, Phase::Start)) => active += 1,
            Some((_, Phase::Stop)) => {
                active = active.saturating_sub(1);
                if active == 0 {
                    let took = slowest_room(history, line, &[F::Send, F::Resend, F::Read]);
                    times.extend(took);
                }
            }
            None => {}
        }
    }
    Times::of(times)
}

/// A room that was asked something, and has not answered with ok yet.
#[derive(Default)]
struct Waiting {
    /// Operations that are under way.
    open: u32,
    /// When somebody last asked, or was answered, whatever it was.
    last: u64,
    over: bool,
}

/// From a line to the first ok of something that was asked after it, in the slowest of the rooms
/// that were asked soon. A room that still waits when the next fault begins, or at the end, or when
/// nobody asks it any more, has waited as long as somebody did. `None` when no room was asked.
fn slowest_room(history: &History, from: usize, fs: &[F]) -> Option<f64> {
    let ops = history.ops();
    let begin = ops[from].time;
    let mut rooms: BTreeMap<&Name, Waiting> = BTreeMap::new();
    for (line, op) in ops.iter().enumerate().skip(from + 1) {
        let soon = op.time - begin <= ASKED_WITHIN;
        if matches!(fault(&op.value), Some((_, Phase::Start)))
            || (!soon && rooms.values().all(|room| room.over))
        {
            break;
        }
        // One with another text is meant to be refused; a refusal has no value of its own.
        let asked = match op.kind {
            Kind::Invoke => op,
            _ => history.partner(line).map_or(op, |invoke| &ops[invoke]),
        };
        let other_body = matches!(asked.value, Value::Write { other_body: true, .. });
        let counts = fs.contains(&op.f) && !other_body;
        let Some(name) = op.room.as_ref().filter(|_| counts) else { continue };
        if op.kind == Kind::Invoke {
            if soon {
                rooms.entry(name).or_default();
            }
            let Some(room) = rooms.get_mut(name).filter(|room| !room.over) else { continue };
            if room.open == 0 && room.last > 0 && op.time - room.last > ASKED_AGAIN_WITHIN {
                room.over = true;
                continue;
            }
            room.open += 1;
            room.last = op.time;
        } else if history.partner(line).is_some_and(|invoke| invoke > from)
            && let Some(room) = rooms.get_mut(name).filter(|room| !room.over)
        {
            room.open = room.open.saturating_sub(1);
            room.last = op.time;
            room.over = op.kind == Kind::Ok;
        }
    }
    let slowest = rooms.values().map(|room| room.last).max()?;
    Some((slowest - begin) as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Fault, Id, Op, Process};

    fn fault(time: u64, name: &str, phase: Phase) -> Op {
        let majority = (phase == Phase::Start).then_some(true);
        Op::nemesis(time, Fault { fault: name.into(), phase, on: vec![], majority })
    }

    /// Sends of process 0 in rooms, each with when it begins and ends, in ms; ends of `None` fail.
    fn history(lines: &[Op], sends: &[(&str, u64, Option<u64>)]) -> History {
        let mut all = lines.to_vec();
        for (n, (room, from, to)) in sends.iter().enumerate() {
            let id = Id::from_u128((n as u128 + 1) << 80);
            let op = Op::invoke(from * 1_000_000, Process(n as u32), F::Send, Value::send(id));
            let op = op.node("n1").room(*room);
            all.push(op.clone());
            all.push(match to {
                Some(to) => op.ok(to * 1_000_000, Value::sent(id, n as u64 + 1)),
                None => op.fail((from + 1) * 1_000_000, "unavailable"),
            });
        }
        all.sort_by_key(|op| op.time);
        let mut history = History::new();
        for op in all {
            history.push(op).unwrap();
        }
        history
    }

    #[test]
    fn a_failover_is_that_of_the_slowest_room_that_was_asked() {
        let kill = fault(1_000_000_000, "kill-leader", Phase::Start);
        let sends = [
            ("a", 1_001, Some(1_005)),
            ("b", 900, Some(1_300)), // sent before: says nothing of after
            ("b", 1_100, None),
            ("b", 1_200, Some(1_900)),
            ("b", 1_950, Some(1_951)),
            ("d", 1_010, None), // nobody asks it again for a while
            ("d", 1_800, Some(2_500)),
            ("c", 1_500, Some(3_000)), // nobody asked it soon
        ];
        let times = failovers(&history(&[kill], &sends));
        assert_eq!(times.all, [900.0]);
        assert_eq!((times.median, times.worst, times.count), (Some(900.0), Some(900.0), 1));
    }

    #[test]
    fn a_room_that_waits_when_the_next_fault_begins_has_waited_as_long_as_it_was_asked() {
        let lines = [
            fault(1_000_000_000, "kill-leader", Phase::Start),
            fault(1_700_000_000, "kill-one", Phase::Start), // something else is wrong already
        ];
        let sends = [
            ("a", 1_010, Some(1_100)),
            ("b", 1_020, None),
            ("b", 1_400, None),
            ("b", 1_650, Some(1_900)),
        ];
        assert_eq!(failovers(&history(&lines, &sends)).all, [650.0]);
    }

    #[test]
    fn a_heal_counts_when_the_last_fault_ends() {
        let lines = [
            fault(1_000_000_000, "kill-one", Phase::Start),
            fault(1_100_000_000, "pause-one", Phase::Start),
            fault(2_000_000_000, "kill-one", Phase::Stop),
            fault(3_000_000_000, "pause-one", Phase::Stop),
        ];
        let sends = [("a", 2_010, Some(2_020)), ("a", 3_010, Some(3_050))];
        assert_eq!(heals(&history(&lines, &sends)).all, [50.0]);
    }

    #[test]
    fn quantiles_are_those_of_a_naive_count() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        for share in [0.5, 0.99, 0.999, 1.0] {
            let expected = sorted.iter().find(|value| {
                sorted.iter().filter(|other| other <= value).count() as f64 >= share * 1000.0
            });
            assert_eq!(Some(&quantile(&sorted, share)), expected);
        }
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
    }
}
