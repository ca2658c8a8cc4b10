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

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::history::{Admin, F, Op, Phase, Value};
use crate::run::client::Outcome;
use crate::run::client::grpc::Grpc;
use crate::run::roster::Roster;
use crate::run::workload::World;

mod command;
pub mod order;
mod settle;
pub mod view;

use order::{Ground, Order, Verb};
use view::{State, View};

/// How long to wait for an order to be done before the next one is given.
const ORDER_WITHIN: Duration = Duration::from_secs(30);
/// How often to look whether one is done.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The operator.
#[derive(Debug)]
pub struct Churn {
    world: Arc<World>,
    cluster: Arc<Cluster>,
    roster: Arc<Roster>,
    /// Connections to every node, as the admin.
    asks: Vec<Grpc>,
    rng: SmallRng,
    /// Orders that are not done yet.
    open: Vec<Open>,
    /// How often each sort of order was given, and how often it was done.
    given: BTreeMap<Verb, u64>,
    done: BTreeMap<Verb, u64>,
    /// What came of orders, to be told with the attacks.
    pub struck: BTreeMap<String, u64>,
    /// What went wrong here.
    pub problems: Vec<String>,
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
        let token = cluster.admin().map(|admin| admin.token.clone()).unwrap_or_default();
        let asks = world.nodes.iter().map(|(_, address)| Grpc::new(*address, &token)).collect();
        Churn {
            world: world.clone(),
            cluster: cluster.clone(),
            roster: roster.clone(),
            asks,
            rng: SmallRng::seed_from_u64(world.seed ^ 0x6368_7572_6e00),
            open: vec![],
            given: BTreeMap::new(),
            done: BTreeMap::new(),
            struck: BTreeMap::new(),
            problems: vec![],
            findings: vec![],
        }
    }

    /// Gives orders until then; what is under way goes on.
    pub async fn run(mut self, until: Instant) -> Churn {
        while Instant::now() < until {
            self.pause(100, 1_200).await;
            let Some(view) = self.look().await else { continue };
            self.press(&view).await;
            let (away, struck) = (self.away(), self.roster.struck());
            let ground = Ground { view: &view, away: &away, done: &self.done, struck: &struck };
            let Some(order) = ground.draw(&mut self.rng) else { continue };
            if !self.give(order, &view).await {
                continue;
            }
            // At times the next order comes while this one is under way.
            let patience = match self.rng.random_bool(0.7) {
                true => ORDER_WITHIN,
                false => Duration::from_millis(self.rng.random_range(0..800)),
            };
            self.wait(order, until.min(Instant::now() + patience)).await;
            if let Order::Move { shard, from, to } = order
                && self.is_open(order)
                && self.rng.random_bool(0.5)
                && let Some(view) = self.look().await
            {
                let back = Order::Move { shard, from: to, to: from };
                self.give(back, &view).await;
            }
        }
        self
    }

    async fn pause(&mut self, from_ms: u64, to_ms: u64) {
        sleep(Duration::from_millis(self.rng.random_range(from_ms..to_ms))).await;
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

    /// Places where a node may join.
    fn away(&self) -> Vec<usize> {
        let present = self.cluster.present();
        (0..self.cluster.nodes.len()).filter(|place| !present.contains(place)).collect()
    }

    /// Where those are that can be asked, in an order of its own each time.
    fn servers(&mut self) -> Vec<usize> {
        let nodes = self.cluster.present();
        let running = |place: &usize| self.cluster.nodes[*place].running().is_some();
        let mut servers: Vec<usize> = nodes.into_iter().filter(running).collect();
        servers.shuffle(&mut self.rng);
        servers
    }

    /// Asks for the cluster as it is now, and takes note of what is done by now.
    async fn look(&mut self) -> Option<View> {
        let addresses: Vec<SocketAddr> = self.world.nodes.iter().map(|node| node.1).collect();
        for place in self.servers() {
            let Outcome::Ok(answer) = self.asks[place].placement().await else { continue };
            let view = View::of(&answer, &addresses);
            self.note(&view).await;
            return Some(view);
        }
        None
    }

    /// Takes note of what is done: nodes that have left are ended, and clients go to those that are
    /// there.
    async fn note(&mut self, view: &View) {
        let (done, open) =
            std::mem::take(&mut self.open).into_iter().partition(|open| open.order.is_done(view));
        self.open = open;
        let done: Vec<Open> = done;
        for Open { order, op, leaves } in done {
            self.count(order.verb(), None);
            *self.done.entry(order.verb()).or_default() += 1;
            self.world.recorder.end(&op, &Outcome::Ok(()), |()| op.value.clone());
            if let Some(place) = leaves {
                self.end_for_good(place).await;
            }
        }
        let moving = !self.open.is_empty() || !view.is_settled();
        self.roster.set_placement(view.placement(), moving);
        let there = view.nodes.iter().map(|node| node.place);
        let there: BTreeSet<usize> = there.collect();
        self.world.set_present(&there.intersection(&self.cluster.present()).copied().collect());
    }

    fn count(&mut self, verb: Verb, what: Option<&str>) {
        let what = what.map(|what| format!(": {what}")).unwrap_or_default();
        *self.struck.entry(format!("churn-{}{what}", verb.name())).or_default() += 1;
    }

    /// Gives an order; whether it was taken.
    async fn give(&mut self, order: Order, view: &View) -> bool {
        *self.given.entry(order.verb()).or_default() += 1;
        let Some(server) = self.servers().first().copied() else { return false };
        let leaves = order.removes().and_then(|id| Some(view.node(id)?.place));
        if let Order::Replace { dead: true, .. } = order
            && !self.kill(leaves).await
        {
            return false;
        }
        let words = order.arguments().join(" ");
        let admin = Admin { what: words.as_str().into(), id: None, seq: None };
        let process = self.world.recorder.process();
        let op = Op::invoke(0, process, F::Admin, Value::Admin(Box::new(admin)));
        let op = op.node(self.cluster.nodes[server].name.as_str());
        self.world.recorder.push(op.clone());
        let outcome = match order {
            Order::Join(place) => self.join(place).await,
            _ => self.order(order).await,
        };
        let code = outcome.code().unwrap_or_default().to_owned();
        match &outcome {
            // It may have been taken all the same: then it is seen to be done, later.
            Outcome::Unknown(_) => self.count(order.verb(), Some(&format!("unknown ({code})"))),
            Outcome::Failed(_) => {
                self.count(order.verb(), Some(&format!("refused ({code})")));
                self.world.recorder.end(&op, &outcome, |()| Value::None);
                if let Order::Replace { dead: true, .. } = order {
                    self.revive(leaves).await;
                }
                return false;
            }
            Outcome::Ok(()) => {}
        }
        self.open.push(Open { order, op, leaves });
        true
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
            for open in self.open.extract_if(.., |open| open.order == order) {
                self.world.recorder.end(&open.op, &outcome, |()| Value::None);
            }
            self.revive(place).await;
        }
    }

    /// Ends a node that is to be replaced; whether it was not hit otherwise.
    async fn kill(&mut self, place: Option<usize>) -> bool {
        let Some(place) = place else { return false };
        let roster = self.roster.clone();
        let _hands = roster.hands().await;
        let node = self.cluster.nodes[place].clone();
        if !roster.struck().is_empty() || node.running().is_none() {
            return false;
        }
        let majority = roster.placement().has_majority(&BTreeSet::from([place]));
        roster.set_dead(place, true);
        let on = [node.name.clone()];
        self.world.recorder.fault(&lost(&node.name), Phase::Start, &on, Some(majority));
        self.blocking(move || node.kill()).await;
        true
    }

    /// Starts a node again that is not to be replaced after all.
    async fn revive(&mut self, place: Option<usize>) {
        let Some(place) = place else { return };
        self.roster.set_dead(place, false);
        let node = self.cluster.nodes[place].clone();
        let name = node.name.clone();
        let started = self.blocking(move || node.start()).await;
        self.problems.extend(started.and_then(Result::err).map(|e| format!("{name}: {e}")));
        self.stop_fault(&name);
    }

    /// The node that was lost is gone, or back.
    fn stop_fault(&self, name: &str) {
        let struck = self.roster.struck();
        let majority = (!struck.is_empty()).then(|| self.roster.has_majority(&struck));
        self.world.recorder.fault(&lost(name), Phase::Stop, &[name.to_owned()], majority);
    }

    /// A node was removed from the cluster: it is ended, and its place is free.
    async fn end_for_good(&mut self, place: usize) {
        let roster = self.roster.clone();
        let _hands = roster.hands().await;
        let node = self.cluster.nodes[place].clone();
        let name = node.name.clone();
        let left = self.blocking(move || node.leave()).await;
        self.problems.extend(left.and_then(Result::err).map(|e| format!("{name}: {e}")));
        if roster.dead().contains(&place) {
            roster.set_dead(place, false);
            self.stop_fault(&name);
        }
    }

    /// Starts the node at this place, which then asks to be let in.
    async fn join(&mut self, place: usize) -> Outcome<()> {
        let ticket = match self.ticket().await {
            Outcome::Ok(ticket) => ticket,
            Outcome::Failed(why) | Outcome::Unknown(why) => return Outcome::Failed(why),
        };
        let roster = self.roster.clone();
        let _hands = roster.hands().await;
        let node = self.cluster.nodes[place].clone();
        match self.blocking(move || node.enter(&ticket)).await {
            Some(Ok(())) => Outcome::Ok(()),
            Some(Err(error)) => Outcome::Failed(error.to_string()),
            None => Outcome::Failed("panicked".into()),
        }
    }

    /// Does something that takes its time, off the threads that clients are on.
    async fn blocking<T: Send + 'static>(
        &mut self,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let done = tokio::task::spawn_blocking(act).await;
        done.map_err(|error| self.problems.push(format!("churn: {error}"))).ok()
    }

    /// Whether any order was done.
    #[must_use]
    pub fn has_struck(&self) -> bool {
        !self.done.is_empty()
    }

    /// Sorts of orders that were given and never done: nothing was shown of them.
    #[must_use]
    pub fn unshown(&self) -> Vec<String> {
        let given = self.given.iter().filter(|(verb, _)| !self.done.contains_key(verb));
        let unshown = given.map(|(verb, times)| {
            let name = verb.name();
            format!("churn: {name} was ordered {times} times, and never came about")
        });
        unshown.collect()
    }
}

/// The fault of a node that is to be replaced.
fn lost(node: &str) -> String {
    format!("churn-lost-{node}")
}
