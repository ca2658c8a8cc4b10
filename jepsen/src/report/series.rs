//! Quantiles and rates over time, in windows of one width.

use serde::Serialize;

use crate::report::html;
use crate::report::operations::{Operation, Operations, Outcome};

/// At most so many windows, so that each is a few pixels wide.
const WINDOWS_MAX: u64 = 100;

const MS: u64 = 1_000_000;

/// Widths that people can think in, in milliseconds.
const WIDTHS_MS: [u64; 16] = [
    100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000,
    1_200_000, 1_800_000, 3_600_000,
];

/// Latencies of operations that were ok, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Quantiles {
    pub count: u64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// The smallest value that at least this share of the values does not exceed; `sorted` is not
/// empty.
fn quantile(sorted: &[u64], per_mille: u64) -> u64 {
    let rank = (sorted.len() as u64 * per_mille).div_ceil(1_000).max(1);
    sorted[rank as usize - 1]
}

fn ms(ns: u64) -> f64 {
    // Three digits behind the point are microseconds: finer is noise, and makes the page larger.
    (ns as f64 / 1e3).round() / 1e3
}

impl Quantiles {
    /// Sorts the latencies. `None` when there are none.
    pub(super) fn of(latencies_ns: &mut [u64]) -> Option<Quantiles> {
        latencies_ns.sort_unstable();
        let max = *latencies_ns.last()?;
        Some(Quantiles {
            count: latencies_ns.len() as u64,
            p50: ms(quantile(latencies_ns, 500)),
            p99: ms(quantile(latencies_ns, 990)),
            p999: ms(quantile(latencies_ns, 999)),
            max: ms(max),
        })
    }
}

/// What one kind of operation did, or one node, in each window.
#[derive(Debug, Serialize)]
pub(super) struct Series {
    pub name: String,
    /// Of what began in the window and was ok.
    pub quantiles: Vec<Option<Quantiles>>,
    /// How many a second were ok, by when they ended.
    pub ok: Vec<f64>,
    /// How many a second failed or are of unknown outcome, by when they ended.
    pub not_ok: Vec<f64>,
    /// Of the whole history.
    pub all: Option<Quantiles>,
    /// How many operations were ok, failed, and are of unknown outcome.
    pub counts: [u64; 3],
}

/// Everything over time.
#[derive(Debug, Serialize)]
pub(super) struct OverTime {
    pub width_ms: u64,
    pub kinds: Vec<Series>,
    /// Of sends, resends and reads.
    pub nodes: Vec<Series>,
    /// Deliveries a second; empty when there are none.
    pub deliveries: Vec<f64>,
}

/// The windows of a history.
#[derive(Clone, Copy)]
struct Windows {
    width_ns: u64,
    count: usize,
}

impl Windows {
    fn of(span_ns: u64) -> Windows {
        let fits = |width_ms: &&u64| span_ns / (**width_ms * MS) < WINDOWS_MAX;
        let longest = WIDTHS_MS[WIDTHS_MS.len() - 1];
        let width_ms = WIDTHS_MS.iter().find(fits).copied();
        let width_ms = width_ms.unwrap_or((span_ns / MS / WINDOWS_MAX).max(longest) + 1);
        Windows { width_ns: width_ms * MS, count: (span_ns / (width_ms * MS)) as usize + 1 }
    }

    fn at(self, ns: u64) -> usize {
        ((ns / self.width_ns) as usize).min(self.count - 1)
    }

    fn rates(self, times_ns: impl Iterator<Item = u64>) -> Vec<f64> {
        let mut counts = vec![0_u64; self.count];
        times_ns.for_each(|ns| counts[self.at(ns)] += 1);
        let seconds = self.width_ns as f64 / 1e9;
        counts.into_iter().map(|n| (n as f64 / seconds * 10.0).round() / 10.0).collect()
    }

    fn series(self, name: &str, ops: &[&Operation]) -> Series {
        let mut latencies = vec![Vec::new(); self.count];
        let mut all = Vec::with_capacity(ops.len());
        let mut counts = [0; 3];
        ops.iter().for_each(|op| counts[op.outcome as usize] += 1);
        for op in ops.iter().filter(|op| op.outcome == Outcome::Ok) {
            latencies[self.at(op.begin_ns)].push(op.latency_ns());
            all.push(op.latency_ns());
        }
        let ended = |ok: bool| {
            let these = ops.iter().filter(move |op| (op.outcome == Outcome::Ok) == ok);
            self.rates(these.map(|op| op.end_ns))
        };
        Series {
            name: html::name(name),
            quantiles: latencies.iter_mut().map(|these| Quantiles::of(these)).collect(),
            ok: ended(true),
            not_ok: ended(false),
            all: Quantiles::of(&mut all),
            counts,
        }
    }
}

impl OverTime {
    pub(super) fn of(ops: &Operations) -> OverTime {
        let windows = Windows::of(ops.span_ns);
        let mut by_kind = vec![Vec::new(); ops.kinds.len()];
        let mut by_node = vec![Vec::new(); ops.nodes.len()];
        for op in &ops.list {
            by_kind[op.kind as usize].push(op);
            if ops.serves(op) {
                by_node[op.node as usize].push(op);
            }
        }
        let kinds = ops.kinds.iter().zip(&by_kind);
        let nodes = ops.nodes.iter().zip(&by_node).filter(|(_, list)| !list.is_empty());
        let deliveries = ops.deliveries.iter().map(|(ns, _)| *ns);
        OverTime {
            width_ms: windows.width_ns / MS,
            kinds: kinds.map(|(name, list)| windows.series(name, list)).collect(),
            nodes: nodes.map(|(name, list)| windows.series(name, list)).collect(),
            deliveries: if ops.deliveries.is_empty() { vec![] } else { windows.rates(deliveries) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition: count for each value how many do not exceed it.
    fn naive(values: &[u64], share: f64) -> f64 {
        let enough = |value: &&u64| {
            let below = values.iter().filter(|other| other <= value).count() as f64;
            below / values.len() as f64 >= share
        };
        ms(*values.iter().filter(enough).min().unwrap())
    }

    #[test]
    fn quantiles_agree_with_their_definition() {
        let mut seed = 7_u64;
        for len in (1..60).chain([99, 100, 101, 999, 1_000, 1_001, 2_500]) {
            let values: Vec<u64> = std::iter::repeat_with(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (seed >> 33) % 50_000 * 1_000
            })
            .take(len)
            .collect();
            let found = Quantiles::of(&mut values.clone()).unwrap();
            let naive = [0.5, 0.99, 0.999, 1.0].map(|share| naive(&values, share));
            assert_eq!([found.p50, found.p99, found.p999, found.max], naive, "{len} values");
            assert_eq!(found.count, len as u64);
        }
        assert_eq!(Quantiles::of(&mut []), None);
    }

    #[test]
    fn every_history_has_a_few_windows_that_hold_it() {
        for span_ms in [0, 1, 99, 100, 60_000, 61_234, 1_800_000, 86_400_000, 4_000_000_000] {
            let windows = Windows::of(span_ms * MS);
            assert!((1..=WINDOWS_MAX as usize).contains(&windows.count), "{span_ms}");
            assert!(windows.count as u64 * windows.width_ns > span_ms * MS, "{span_ms}");
        }
    }
}
