//! The results of a run: what the checkers say of its history, what happened to its nodes, and how
//! long everything took. All but what happened to the nodes follows from the history alone.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::check::{self, Anomaly, Report, Verdict};
use crate::history::{F, History, Kind, Phase, Value};
use crate::run::operations::Step;
use crate::run::store::Missing;
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
    /// Whether it was no part of the cluster at the end.
    #[serde(default)]
    pub away: bool,
    /// Whether its disk had forgotten what it had acknowledged, so that it refused to go on.
    pub lost: bool,
    /// How often it installed a snapshot.
    #[serde(default)]
    pub snapshots_installed: u64,
}

/// How long clients may wait: whoever waits longer is a finding. The defaults hold on a machine of
/// two cores that has other things to do, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// From the end of all faults to the first ok, in the slowest room; in milliseconds.
    pub recover_ms: u64,
    /// From the death of a node to the next acknowledgement, the worst, in milliseconds.
    pub failover_worst_ms: u64,
    /// The same, the median.
    pub failover_median_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { recover_ms: 10_000, failover_worst_ms: 10_000, failover_median_ms: 5_000 }
    }
}

impl Limits {
    /// What took longer.
    #[must_use]
    pub fn exceeded(&self, failovers: &Times, heals: &Times) -> Vec<String> {
        let judged = [
            ("the worst failover", failovers.worst, self.failover_worst_ms),
            ("the median failover", failovers.median, self.failover_median_ms),
            ("the slowest first ok after healing", heals.worst, self.recover_ms),
        ];
        let slow = judged.into_iter().filter_map(|(what, took, limit)| {
            let took = took.filter(|took| *took > limit as f64)?;
            Some(format!("{what} took {took:.0} ms, and the limit is {limit} ms"))
        });
        slow.collect()
    }

    /// For the checkers, who judge each room that is ever asked, also one that nobody asks for long:
    /// not stricter than they are by themselves.
    #[must_use]
    pub fn of_checkers(&self) -> check::Options {
        let options = check::Options::default();
        let recover_within = options.recover_within.max(Duration::from_millis(self.recover_ms));
        check::Options { recover_within, ..options }
    }
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
    /// How often each kind of attack struck, and what came of it where that differs.
    pub attacks: BTreeMap<String, u64>,
    /// The attacks that were asked for and could not be had.
    #[serde(default)]
    pub missing: Vec<Missing>,
    /// How long clients may wait.
    #[serde(default)]
    pub limits: Limits,
    /// What an operator did, where that was measured.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Messages that were posted on a session's or a WebSocket's own stream and acknowledged.
    #[serde(default)]
    pub session_posts: u64,
    /// How often a room was followed, by transport.
    #[serde(default)]
    pub followed: BTreeMap<String, u64>,
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
    /// What took longer than the limits allow.
    pub too_slow: Vec<String>,
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
        let (failovers, heals) = (timing::failovers(history), timing::heals(history));
        let too_slow = outside.limits.exceeded(&failovers, &heals);
        if report.verdict != Verdict::Invalid {
            report.unknown.extend(outside.problems.iter().cloned());
            if !report.unknown.is_empty() {
                report.verdict = Verdict::Unknown;
            }
            if !outside.findings.is_empty() || !too_slow.is_empty() {
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
            failover_ms: failovers,
            first_ok_after_heal_ms: heals,
            too_slow,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn times(median: f64, worst: f64) -> Times {
        Times { count: 2, median: Some(median), worst: Some(worst), all: vec![median, worst] }
    }

    #[test]
    fn each_limit_is_held() {
        let limits = Limits { recover_ms: 3000, failover_worst_ms: 2000, failover_median_ms: 1200 };
        let fine = limits.exceeded(&times(1200.0, 2000.0), &times(10.0, 3000.0));
        assert_eq!(fine, Vec::<String>::new());
        let slow = |failovers, heals| limits.exceeded(&failovers, &heals).join("; ");
        let (good, none) = (times(1.0, 2.0), Times::default());
        assert!(slow(times(1201.0, 1999.0), none.clone()).contains("median failover took 1201 ms"));
        assert!(slow(times(1.0, 2001.0), good.clone()).starts_with("the worst failover took 2001"));
        assert!(slow(good, times(1.0, 3001.0)).contains("healing took 3001 ms"));
        assert_eq!(slow(none.clone(), none), "", "what was not measured is not slow");
    }

    #[test]
    fn what_is_slow_makes_a_run_invalid_and_what_is_missing_unknown() {
        let history = History::new();
        let judged = |outside: Outside| {
            let mut report = crate::check::check(&history, &crate::check::Options::default());
            (report.verdict, report.unknown) = (Verdict::Valid, vec![]);
            Results::new(&history, report, outside).report.verdict
        };
        assert_eq!(judged(Outside::default()), Verdict::Valid);
        let problems = vec!["kill was asked for, and never struck".into()];
        assert_eq!(judged(Outside { problems, ..Outside::default() }), Verdict::Unknown);
        let findings = vec!["n1 panicked".into()];
        assert_eq!(judged(Outside { findings, ..Outside::default() }), Verdict::Invalid);
    }
}
