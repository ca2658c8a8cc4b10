//! The results of a run: what the checkers say of its history, what happened to its nodes, and how
//! long everything took. All but what happened to the nodes follows from the history alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::check::{Anomaly, Report, Verdict};
use crate::history::{F, History, Kind, Phase, Value};
use crate::run::timing::{self, Quantiles, Times};

/// What happened to a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeResult {
    /// Its name.
    pub name: String,
    /// How often it ended though nobody had asked it to.
    pub stopped_by_itself: u64,
    /// How, and the last it said, each time.
    pub why: Vec<String>,
    /// Lines of its log that should never be there.
    pub panics: Vec<String>,
    /// Whether it was well at the end.
    pub well: bool,
    /// Whether its disk had forgotten what it had acknowledged, so that it refused to go on.
    pub lost: bool,
}

/// What is known beside the history.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outside {
    /// Each node.
    pub nodes: Vec<NodeResult>,
    /// What is wrong with the cluster, though no client saw it.
    pub findings: Vec<String>,
    /// What went wrong with the run itself: its verdict is then `unknown` at best.
    pub problems: Vec<String>,
    /// How often each kind of attack struck.
    pub attacks: BTreeMap<String, u64>,
}

/// Everything that came of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The checkers' report.
    #[serde(flatten)]
    pub report: Report,
    /// Acknowledged messages that are gone.
    pub lost: u64,
    /// Messages that are there twice.
    pub duplicate: u64,
    /// Places without a message, and messages passed over.
    pub gap: u64,
    /// Reads that missed what had been acknowledged.
    pub stale_read: u64,
    /// Replicas that differ.
    pub diverged: u64,
    /// From the death of a node to the next acknowledgement, in the slowest of the rooms that were
    /// asked at that time.
    pub failover_ms: Times,
    /// From the end of all faults to the first ok, in the slowest of the rooms that were asked.
    pub first_ok_after_heal_ms: Times,
    /// How long operations took, by what they do and how they ended.
    pub latency_ms: BTreeMap<String, BTreeMap<String, Quantiles>>,
    /// Operations that were ok a second.
    pub throughput_per_s: f64,
    /// What is known beside the history.
    #[serde(flatten)]
    pub outside: Outside,
}

impl Results {
    /// Puts together what is known.
    #[must_use]
    pub fn new(history: &History, mut report: Report, outside: Outside) -> Results {
        if report.verdict != Verdict::Invalid {
            report.unknown.extend(outside.problems.iter().cloned());
            if !report.unknown.is_empty() {
                report.verdict = Verdict::Unknown;
            }
            if !outside.findings.is_empty() {
                report.verdict = Verdict::Invalid;
            }
        }
        let count = |names: &[Anomaly]| {
            names.iter().filter_map(|name| report.anomalies.get(name)).sum::<u64>()
        };
        Results {
            lost: count(&[Anomaly::LostWrite, Anomaly::Unseen]),
            duplicate: count(&[Anomaly::Duplicate]),
            gap: count(&[Anomaly::Gap, Anomaly::PollSkip]),
            stale_read: count(&[Anomaly::StaleRead]),
            diverged: count(&[Anomaly::Diverged]),
            failover_ms: timing::failovers(history),
            first_ok_after_heal_ms: timing::heals(history),
            latency_ms: timing::latencies(history),
            throughput_per_s: throughput(history),
            report,
            outside,
        }
    }
}

/// For the operations between the first and the last line that clients wrote under load.
fn throughput(history: &History) -> f64 {
    let under_load = |op: &&crate::history::Op| {
        op.kind == Kind::Ok && matches!(op.f, F::Send | F::Resend | F::Read | F::ReadLocal)
    };
    let ok: Vec<u64> = history.ops().iter().filter(under_load).map(|op| op.time).collect();
    match (ok.first(), ok.last()) {
        (Some(first), Some(last)) if last > first => {
            ok.len() as f64 / ((last - first) as f64 / 1e9)
        }
        _ => 0.0,
    }
}

/// Whether a line of the history begins or ends a fault; its name.
pub(super) fn fault(value: &Value) -> Option<(&str, Phase)> {
    match value {
        Value::Fault(fault) => Some((fault.fault.as_str(), fault.phase)),
        _ => None,
    }
}
