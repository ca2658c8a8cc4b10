//! The points of the latency scatter, few enough to draw.
//!
//! What failed, what is of unknown outcome, and the slowest of what was ok are each a point. The
//! rest of what was ok lies so dense that its points would cover each other: from a number on it
//! becomes cells of a grid, each with a count.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::history::History;
use crate::report::html;
use crate::report::operations::{Operation, Operations, Outcome};

/// So many ok points are drawn one by one.
const OK_MAX: usize = 20_000;
/// So many points of `fail` and `info` are drawn one by one: more would make the page too large to
/// open. If it must be, `fail` is thinned first.
const NOT_OK_MAX: usize = 150_000;
/// Of each kind of operation, one in so many is slow.
const SLOW_ONE_IN: usize = 200;
/// A kind with fewer that were ok is drawn one by one.
const KIND_MIN: usize = 1_000;
/// Columns of the grid.
const COLUMNS: u64 = 480;
/// Rows of the grid for each factor of ten in latency.
pub(super) const ROWS_PER_DECADE: u64 = 14;

/// Operations one by one, as columns, in the order in which they began.
#[derive(Debug, Default, Serialize)]
pub(super) struct Points {
    /// Microseconds since the point before.
    pub time: Vec<u64>,
    /// Microseconds.
    pub latency: Vec<u64>,
    /// Kind and node: kind * nodes + node.
    pub group: Vec<u32>,
    /// 0 ok, 1 fail, 2 info.
    pub outcome: Vec<u8>,
    /// A place in `rooms`.
    pub room: Vec<u32>,
    /// A place in `errors`, plus one; 0: none.
    pub error: Vec<u32>,
    /// The line that begins it: lines since the point before.
    pub line: Vec<u32>,
    /// How many lines later it ends; 0: never.
    pub lasts: Vec<u32>,
    pub errors: Vec<String>,
    pub rooms: Vec<String>,
}

/// Cells of the grid, as columns, from left to right.
#[derive(Debug, Default, Serialize)]
pub(super) struct Cells {
    pub width_us: u64,
    pub rows_per_decade: u64,
    /// Columns since the cell before.
    pub x: Vec<u64>,
    /// From `10^(y / rows_per_decade)` microseconds on.
    pub y: Vec<u64>,
    pub group: Vec<u32>,
    pub outcome: Vec<u8>,
    pub count: Vec<u64>,
}

/// The scatter.
#[derive(Debug, Default, Serialize)]
pub(super) struct Scatter {
    pub points: Points,
    pub cells: Cells,
    /// How many operations are in cells, of ok, fail and info.
    pub thinned: [u64; 3],
}

impl Scatter {
    pub(super) fn of(history: &History, ops: &Operations) -> Scatter {
        let mut scatter = Scatter::default();
        scatter.cells.width_us = (ops.span_ns / 1_000 / COLUMNS).max(1);
        scatter.cells.rows_per_decade = ROWS_PER_DECADE;
        let mut cells: BTreeMap<(u64, u64, u32, u8), u64> = BTreeMap::new();
        let alone = alone(ops);
        let (mut errors, mut rooms) = (HashMap::new(), HashMap::new());
        let (mut last_us, mut last_line) = (0, 0);
        for op in &ops.list {
            let group = u32::from(op.kind) * ops.nodes.len() as u32 + u32::from(op.node);
            let (time_us, latency_us) = (op.begin_ns / 1_000, op.latency_ns() / 1_000);
            if !alone(op) {
                let x = time_us / scatter.cells.width_us;
                *cells.entry((x, row(latency_us), group, op.outcome as u8)).or_default() += 1;
                scatter.thinned[op.outcome as usize] += 1;
                continue;
            }
            let error = op.end_line.and_then(|line| history.ops()[line as usize].error.as_deref());
            let points = &mut scatter.points;
            points.error.push(match error {
                Some(error) => *errors.entry(error).or_insert_with(|| {
                    points.errors.push(html::name(error));
                    points.errors.len() as u32
                }),
                None => 0,
            });
            points.time.push(time_us - last_us);
            points.latency.push(latency_us);
            points.group.push(group);
            points.outcome.push(op.outcome as u8);
            points.room.push(*rooms.entry(op.room).or_insert_with(|| {
                points.rooms.push(html::name(&ops.rooms[op.room as usize]));
                points.rooms.len() as u32 - 1
            }));
            points.line.push(op.line - last_line);
            points.lasts.push(op.end_line.map_or(0, |end| end - op.line));
            (last_us, last_line) = (time_us, op.line);
        }
        let mut last = 0;
        for ((x, y, group, outcome), count) in cells {
            scatter.cells.x.push(x - last);
            scatter.cells.y.push(y);
            scatter.cells.group.push(group);
            scatter.cells.outcome.push(outcome);
            scatter.cells.count.push(count);
            last = x;
        }
        scatter
    }
}

/// The row of the grid. Whole microseconds below 1 are as 1.
fn row(latency_us: u64) -> u64 {
    ((latency_us.max(1) as f64).log10() * ROWS_PER_DECADE as f64) as u64
}

/// Decides which operations are drawn one by one.
fn alone(ops: &Operations) -> impl Fn(&Operation) -> bool {
    let mut count = [0_usize; 3];
    let mut latencies = vec![Vec::new(); ops.kinds.len()];
    for op in &ops.list {
        count[op.outcome as usize] += 1;
        if op.outcome == Outcome::Ok {
            latencies[op.kind as usize].push(op.latency_ns());
        }
    }
    let [ok, fail, info] = count;
    let thin = [ok > OK_MAX, fail + info > NOT_OK_MAX, info > NOT_OK_MAX];
    // Latencies from which on an operation of the kind is slow; `None`: all are drawn.
    let slow: Vec<Option<u64>> = latencies
        .into_iter()
        .map(|mut these| {
            let place = these.len() - these.len() / SLOW_ONE_IN;
            (these.len() >= KIND_MIN).then(|| *these.select_nth_unstable(place).1)
        })
        .collect();
    move |op| {
        // Where many have the very same latency, none of them is slow for its kind.
        let slow = |op: &Operation| slow[op.kind as usize].is_none_or(|ns| op.latency_ns() > ns);
        !thin[op.outcome as usize] || (op.outcome == Outcome::Ok && slow(op))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{F, Id, Op, Process, Value};

    /// Sends of one after another, of which one in a hundred fails, one in a hundred is unknown,
    /// and a few take long.
    fn history(operations: u64) -> History {
        let mut history = History::new();
        let (mut time, mut process) = (0, 0);
        for n in 0..operations {
            let id = Id::from_u128(u128::from(n));
            let send = Op::invoke(time, Process(process), F::Send, Value::send(id));
            let send = send.node(["n1", "n2"][n as usize % 2]).room("tea");
            history.push(send.clone()).unwrap();
            time += if n % 1_000 == 7 { 900_000_000 + n } else { 1_000_000 + n % 50 * 100_000 };
            history
                .push(match n % 100 {
                    3 => send.fail(time, "unavailable"),
                    4 => send.info(time, "timeout"),
                    _ => send.ok(time, Value::sent(id, n + 1)),
                })
                .unwrap();
            process += u32::from(n % 100 == 4);
        }
        history
    }

    #[test]
    fn a_short_history_is_drawn_point_by_point() {
        let history = history(5_000);
        let scatter = Scatter::of(&history, &Operations::of(&history));
        assert_eq!(scatter.points.time.len(), 5_000);
        assert_eq!(scatter.thinned, [0; 3]);
        assert!(scatter.cells.x.is_empty());
        let times: u64 = scatter.points.time.iter().sum();
        assert_eq!(times, history.ops()[history.len() - 2].time / 1_000);
    }

    #[test]
    fn only_what_is_ok_and_not_slow_is_thinned() {
        let history = history(100_000);
        let ops = Operations::of(&history);
        let scatter = Scatter::of(&history, &ops);
        let count = |outcome| scatter.points.outcome.iter().filter(|o| **o == outcome).count();
        assert_eq!((count(1), count(2)), (1_000, 1_000));
        let slow = scatter.points.latency.iter().filter(|us| **us >= 900_000).count();
        assert_eq!(slow, 100);
        let in_cells: u64 = scatter.cells.count.iter().sum();
        assert_eq!(scatter.thinned, [in_cells, 0, 0]);
        assert_eq!(in_cells + scatter.points.time.len() as u64, 100_000);
        assert!(scatter.cells.x.len() < 40_000, "{}", scatter.cells.x.len());
        // Each cell holds as many as there are in it, counted another way.
        let (width, mut x) = (scatter.cells.width_us, 0);
        for cell in (0..scatter.cells.x.len()).step_by(997) {
            x = scatter.cells.x[..=cell].iter().sum::<u64>().max(x);
            let (y, group) = (scatter.cells.y[cell], scatter.cells.group[cell]);
            let low = 10_f64.powf(y as f64 / ROWS_PER_DECADE as f64);
            let high = 10_f64.powf((y + 1) as f64 / ROWS_PER_DECADE as f64);
            let inside = ops.list.iter().filter(|op| {
                let us = (op.latency_ns() / 1_000) as f64;
                let here = op.begin_ns / 1_000 / width == x && u32::from(op.node) == group;
                here && op.outcome == Outcome::Ok && us >= low && us < high && us < 900_000.0
            });
            assert_eq!(inside.count() as u64, scatter.cells.count[cell], "cell {cell}");
        }
    }

    #[test]
    fn when_too_much_failed_that_is_thinned_and_what_is_unknown_is_not() {
        let mut history = History::new();
        let many = NOT_OK_MAX as u32 + 10;
        for n in 0..many {
            let time = u64::from(n) * 1_000_000;
            let read = Op::invoke(time, Process(n), F::Read, Value::range(0, None)).room("tea");
            history.push(read.clone()).unwrap();
            let end = time + 100_000;
            let unknown = n % 1_000 == 0;
            history
                .push(if unknown { read.info(end, "timeout") } else { read.fail(end, "busy") })
                .unwrap();
        }
        let scatter = Scatter::of(&history, &Operations::of(&history));
        let unknown = u64::from(many.div_ceil(1_000));
        assert_eq!(scatter.thinned, [0, u64::from(many) - unknown, 0]);
        assert_eq!(scatter.points.outcome, vec![2; unknown as usize]);
        assert_eq!(scatter.cells.count.iter().sum::<u64>(), scatter.thinned[1]);
    }

    #[test]
    fn equal_latencies_are_not_all_slow() {
        let mut history = History::new();
        for n in 0..30_000 {
            let id = Id::from_u128(n);
            let time = n as u64 * 2_000_000;
            let send = Op::invoke(time, Process(0), F::Send, Value::send(id)).room("tea");
            history.push(send.clone()).unwrap();
            history.push(send.ok(time + 1_000_000, Value::sent(id, n as u64 + 1))).unwrap();
        }
        let scatter = Scatter::of(&history, &Operations::of(&history));
        assert_eq!(scatter.thinned, [30_000, 0, 0]);
    }
}
