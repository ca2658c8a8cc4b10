//! Membership churn: while clients chat, an operator adds nodes and takes others away, moves replicas
//! and leads, drains and resumes, with the product's own command line.
//!
//! ```text
//! look (who votes where?) ─► draw an order ─► give it ─► look until it is done, or go on before that
//! ```
//!
//! It takes turns with nobody: what the nemesis does meanwhile may make an order fail, or wait. An
//! order is an `admin` operation of the history: `ok` once the cluster says that it is done, `fail` when
//! it was refused, `info` when nobody knows. One that stays undone stays with the cluster; when all
//! faults are over, every group must settle where it should be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::history::{Admin, F, Op, Value};
use crate::run::client::Outcome;
use crate::run::roster::Roster;
use crate::run::workload::World;

pub mod operator;
pub mod order;
mod settle;
pub mod view;

use operator::Operator;
use order::{Ground, Order, Verb};
use view::{State, View};

/// How long to wait for an order to be done before the next one is given.
const ORDER_WITHIN: Duration = Duration::from_secs(30);
/// How often to look whether one is done.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// An operator who never leaves a cluster as it is.
#[derive(Debug)]
pub struct Churn {
    operator: Operator,
    /// Orders that are not done yet.
    open: Vec<Open>,
    /// How often each sort of order was given, and how often it was done.
    given: BTreeMap<Verb, u64>,
    done: BTreeMap<Verb, u64>,
    /// What came of orders, to be told with the attacks.
    pub struck: BTreeMap<String, u64>,
    /// What the cluster did and should not have.
    pub findings: Vec<String>,
}

/// An order that the cluster has taken.
#[derive(Debug)]
struct Open {
    order: Order,
    op: Op,
    /// The place of the node that goes.
    leaves: Option<usize>,
}

impl Churn {
    /// Has ordered nothing yet.
    #[must_use]
    pub fn new(world: &Arc<World>, cluster: &Arc<Cluster>, roster: &Arc<Roster>) -> Churn {
        Churn {
            operator: Operator::new(world, cluster, roster),
            open: vec![],
            given: BTreeMap::new(),
            done: BTreeMap::new(),
            struck: BTreeMap::new(),
            findings: vec![],
        }
    }

    /// Gives orders until then; what is under way goes on.
    pub async fn run(mut self, until: Instant) -> Churn {
        while Instant::now() < until {
            self.pause(100, 1_200).await;
            let Some(view) = self.look().await else { continue };
            self.press(&view).await;
            let (away, struck) = (self.operator.away(), self.operator.roster.struck());
            let ground = Ground { view: &view, away: &away, done: &self.done, struck: &struck };
            let Some(order) = ground.draw(&mut self.operator.rng) else { continue };
            if !self.give(order, &view).await {
                continue;
            }
            // At times the next order comes while this one is under way.
            let patience = match self.operator.rng.random_bool(0.7) {
                true => ORDER_WITHIN,
                false => Duration::from_millis(self.operator.rng.random_range(0..800)),
            };
            self.wait(order, until.min(Instant::now() + patience)).await;
            if let Order::Move { shard, from, to } = order
                && self.is_open(order)
                && self.operator.rng.random_bool(0.5)
                && let Some(view) = self.look().await
            {
                let back = Order::Move { shard, from: to, to: from };
                self.give(back, &view).await;
            }
        }
        self
    }

    async fn pause(&mut self, from_ms: u64, to_ms: u64) {
        sleep(Duration::from_millis(self.operator.rng.random_range(from_ms..to_ms))).await;
    }

    fn is_open(&self, order: Order) -> bool {
        self.open.iter().any(|open| open.order == order)
    }

    async fn wait(&mut self, order: Order, until: Instant) {
        while self.is_open(order) && Instant::now() < until {
            sleep(LOOK_EVERY).await;
            self.look().await;
        }
    }

    /// Asks for the cluster as it is now, and takes note of what is done by now.
    async fn look(&mut self) -> Option<View> {
        let view = self.operator.look().await?;
        self.note(&view).await;
        Some(view)
    }

    /// Takes note of what is done: nodes that have left are ended, and clients go to those that are
    /// there.
    async fn note(&mut self, view: &View) {
        let done: Vec<Open> = self.open.extract_if(.., |open| open.order.is_done(view)).collect();
        for Open { order, op, leaves } in done {
            self.count(order.verb(), None);
            *self.done.entry(order.verb()).or_default() += 1;
            self.record(&op, &Outcome::Ok(()));
            if let Some(place) = leaves {
                self.operator.end_for_good(place).await;
            }
        }
        self.operator.tell(view, !self.open.is_empty() || !view.is_settled());
    }

    /// Records how an order ended.
    fn record(&self, op: &Op, outcome: &Outcome<()>) {
        self.operator.world.recorder.end(op, outcome, |()| op.value.clone());
    }

    fn count(&mut self, verb: Verb, what: Option<&str>) {
        let what = what.map(|what| format!(": {what}")).unwrap_or_default();
        *self.struck.entry(format!("churn-{}{what}", verb.name())).or_default() += 1;
    }

    /// Gives an order; whether it was taken.
    async fn give(&mut self, order: Order, view: &View) -> bool {
        let Some(server) = self.operator.servers().first().copied() else { return false };
        let leaves = order.removes().and_then(|id| Some(view.node(id)?.place));
        let kills = leaves.filter(|_| order.verb() == Verb::ReplaceDead);
        if let Some(place) = kills
            && !self.operator.kill(place).await
        {
            return false;
        }
        *self.given.entry(order.verb()).or_default() += 1;
        let op = self.begin(order, server);
        let outcome = match order {
            Order::Join(place) => self.operator.join(place).await,
            _ => self.order(order).await,
        };
        let code = outcome.code().unwrap_or_default().to_owned();
        match &outcome {
            Outcome::Unknown(_) => {
                self.count(order.verb(), Some(&format!("unknown ({code})")));
                // The others may have been taken all the same: then they are seen to be done, later.
                if order.verb() == Verb::TransferLeader {
                    self.record(&op, &outcome);
                    return false;
                }
            }
            Outcome::Failed(_) => {
                self.count(order.verb(), Some(&format!("refused ({code})")));
                self.record(&op, &outcome);
                if let Some(place) = kills {
                    self.operator.revive(place).await;
                }
                return false;
            }
            Outcome::Ok(()) => {}
        }
        self.open.push(Open { order, op, leaves });
        true
    }

    /// Records that an order begins, given to a node.
    fn begin(&self, order: Order, server: usize) -> Op {
        let recorder = &self.operator.world.recorder;
        let words = order.arguments().join(" ");
        let admin = Admin { what: words.as_str().into(), id: None, seq: None };
        let op = Op::invoke(0, recorder.process(), F::Admin, Value::Admin(Box::new(admin)));
        let op = op.node(self.operator.cluster.nodes[server].name.as_str());
        recorder.push(op.clone());
        op
    }

    /// Types an order, and does not wait until it is done.
    async fn order(&mut self, order: Order) -> Outcome<()> {
        let mut arguments = order.arguments();
        arguments.push("--no-wait".into());
        match self.operator.folkmoot(arguments).await {
            Outcome::Ok(_) => Outcome::Ok(()),
            Outcome::Failed(why) => Outcome::Failed(why),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }

    /// Gives orders again of which nobody knows whether they were taken, and for which a node was
    /// killed: it must not stay so.
    async fn press(&mut self, view: &View) {
        let unsure = self.open.iter().filter(|open| {
            let leaves = |id| view.node(id).is_some_and(|node| node.state != State::Leaving);
            open.order.verb() == Verb::ReplaceDead && open.order.removes().is_some_and(leaves)
        });
        let orders: Vec<(Order, Option<usize>)> =
            unsure.map(|open| (open.order, open.leaves)).collect();
        for (order, place) in orders {
            let outcome = self.order(order).await;
            if !matches!(outcome, Outcome::Failed(_)) {
                continue;
            }
            let refused: Vec<Open> = self.open.extract_if(.., |open| open.order == order).collect();
            refused.iter().for_each(|open| self.record(&open.op, &outcome));
            if let Some(place) = place {
                self.operator.revive(place).await;
            }
        }
    }

    /// What went wrong here.
    pub fn problems(&mut self) -> Vec<String> {
        let mut problems = std::mem::take(&mut self.operator.problems);
        problems.extend(self.unshown());
        problems
    }

    /// Whether any order was done.
    #[must_use]
    pub fn has_struck(&self) -> bool {
        !self.done.is_empty()
    }

    /// Sorts of orders that were given and never done: nothing was shown of them.
    fn unshown(&self) -> Vec<String> {
        let given = self.given.iter().filter(|(verb, _)| !self.done.contains_key(verb));
        let unshown = given.map(|(verb, times)| {
            let name = verb.name();
            format!("churn: {name} was ordered {times} times, and never came about")
        });
        unshown.collect()
    }
}
