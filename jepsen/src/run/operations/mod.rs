//! What operators do to a cluster, one thing after the other under a steady load: how long each takes,
//! and how long posts take meanwhile. The checkers judge the whole run.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster;
use crate::history::{Admin, F, Op, Value};
use crate::run::churn::operator::Operator;
use crate::run::client::Outcome;
use crate::run::roster::Roster;
use crate::run::workload::World;

mod perform;
pub mod prefill;
mod restart;
pub mod table;

/// Between two operations.
const PAUSE: Duration = Duration::from_secs(5);
/// How long one may take.
const WITHIN: Duration = Duration::from_secs(600);
/// Posts are counted for as long as an operation takes, and for so long at least: what it does to them
/// may come to light a moment later.
const MEASURED_FOR: Duration = Duration::from_secs(5);
/// How long clients are measured with nothing else going on.
const NOTHING_FOR: Duration = Duration::from_secs(20);

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Nothing: to compare with.
    Nothing,
    /// Stops and starts each node in turn.
    RollingRestart,
    /// Drains the node that leads most.
    Drain,
    /// Spreads leads that one node has all of.
    Leaders,
    /// Two nodes join, and get their share.
    Grow,
    /// Moves a replica with its lead.
    Move,
    /// Removes the last two nodes.
    Shrink,
    /// A node is killed, and comes back: no operation, but what precedes one.
    Crash,
    /// Replaces a node that was killed before.
    Replace,
}

impl Operation {
    /// All, in the order in which they are done.
    pub const ALL: &[Operation] = &[
        Operation::Nothing,
        Operation::RollingRestart,
        Operation::Drain,
        Operation::Leaders,
        Operation::Grow,
        Operation::Move,
        Operation::Shrink,
        Operation::Crash,
        Operation::Replace,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Nothing => "nothing",
            Operation::RollingRestart => "rolling-restart",
            Operation::Drain => "drain",
            Operation::Leaders => "leaders",
            Operation::Grow => "grow",
            Operation::Move => "move",
            Operation::Shrink => "shrink",
            Operation::Crash => "crash",
            Operation::Replace => "replace",
        }
    }

    /// What is done, as an operator would type it.
    #[must_use]
    pub const fn commands(self) -> &'static str {
        match self {
            Operation::Nothing => "",
            Operation::RollingRestart => {
                "`scripts/rolling-restart`: of each node SIGTERM, `folkmoot serve`"
            }
            Operation::Drain => "`folkmoot node drain`",
            Operation::Leaders => "`folkmoot shard rebalance --leaders`, one node leads all",
            Operation::Grow => "2 × `folkmoot serve --join`, `folkmoot shard rebalance`",
            Operation::Move => "`folkmoot shard move`, from its leader",
            Operation::Shrink => "2 × `folkmoot node remove`",
            Operation::Crash => "no operation: `kill -9` and, 10 s later, `folkmoot serve`",
            Operation::Replace => {
                "of a dead node: `folkmoot serve --join`, `folkmoot node replace`"
            }
        }
    }

    /// The operation of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Operation> {
        Operation::ALL.iter().copied().find(|operation| operation.name() == name)
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// These, in this order.
    pub operations: Vec<Operation>,
    /// Messages that are there before.
    pub prefill: u64,
}

/// What was done. Times are the history's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Its name.
    pub name: String,
    /// What an operator types.
    pub commands: String,
    /// When it began, in nanoseconds.
    pub begin: u64,
    /// When it was over.
    pub end: u64,
    /// Until when posts are counted: five seconds from its beginning at least.
    pub until: u64,
    /// How many nodes the cluster had when it began.
    pub nodes: usize,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Step {
    /// For how long posts are counted, in seconds.
    #[must_use]
    pub fn measured(&self) -> f64 {
        (self.until - self.begin) as f64 / 1e9
    }
}

/// Does all of it; what was done, and what went wrong.
pub async fn run(
    plan: &Plan,
    world: &Arc<World>,
    cluster: &Arc<Cluster>,
    roster: &Arc<Roster>,
) -> (Vec<Step>, Vec<String>) {
    let mut operator = Operator::new(world, cluster, roster);
    let (mut steps, mut problems) = (vec![], vec![]);
    for operation in &plan.operations {
        sleep(PAUSE).await;
        let name = operation.name();
        if let Err(why) = operator.prepare(*operation).await {
            problems.push(format!("before {name}: {why}"));
            break;
        }
        sleep(PAUSE).await;
        let what = Admin { what: name.into(), id: None, seq: None };
        let process = world.recorder.process();
        let op = Op::invoke(0, process, F::Admin, Value::Admin(Box::new(what)));
        world.recorder.push(op.clone());
        let (begin, nodes) = (world.recorder.now(), cluster.present().len());
        let done = match timeout(WITHIN, operator.perform(*operation)).await {
            Ok(done) => done,
            Err(_) => Err(format!("not done within {WITHIN:?}")),
        };
        let end = world.recorder.now();
        sleep(MEASURED_FOR.saturating_sub(Duration::from_nanos(end - begin))).await;
        let until = world.recorder.now();
        let outcome = match &done {
            Ok(()) => Outcome::Ok(()),
            Err(why) => Outcome::Unknown(why.clone()),
        };
        world.recorder.end(&op, &outcome, |()| op.value.clone());
        let error = done.err();
        problems.extend(error.as_ref().map(|why| format!("{name}: {why}")));
        let failed = error.is_some();
        let commands = operation.commands().into();
        steps.push(Step { name: name.into(), commands, begin, end, until, nodes, error });
        if failed {
            break;
        }
    }
    problems.append(&mut operator.problems);
    (steps, problems)
}

/// The operations with these names, with commas between.
///
/// # Errors
///
/// The name that there is not, and those that there are.
pub fn parse(names: &str) -> Result<Vec<Operation>, String> {
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    let known = || Operation::ALL.iter().map(|o| o.name()).collect::<Vec<_>>().join(", ");
    let parsed = names.map(|name| {
        Operation::parse(name)
            .ok_or_else(|| format!("there is no operation {name:?}; there are: {}", known()))
    });
    let parsed: Vec<Operation> = parsed.collect::<Result<_, _>>()?;
    match parsed.is_empty() {
        true => Err(format!("name an operation: {}", known())),
        false => Ok(parsed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_known_by_their_names() {
        for operation in Operation::ALL {
            assert_eq!(Operation::parse(operation.name()), Some(*operation));
        }
        assert_eq!(parse("drain, move"), Ok(vec![Operation::Drain, Operation::Move]));
        let said = parse("drain,dance").unwrap_err();
        assert!(said.contains("dance") && said.contains("rolling-restart"), "{said}");
        assert!(parse(",").is_err());
    }
}
