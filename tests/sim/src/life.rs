//! One life of a cluster: it is born, clients talk, things go wrong, then all is well again, and
//! everything is looked at.

mod ending;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use folkmoot::id::ShardId;
use folkmoot::meta::NodeState;
use folkmoot::shard::runtime::AsyncRuntime;
use folkmoot_jepsen::check::{self, Verdict};
use folkmoot_jepsen::history::History;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::cluster::{Cluster, Node, Running};
use crate::equal;
use crate::follower::Follower;
use crate::invariants::Invariants;
use crate::nemesis::Nemesis;
use crate::network::Network;
use crate::operator;
use crate::placement;
use crate::plan::Plan;
use crate::runtime::{self, Sim, elapsed};
use crate::trace::{Trace, TraceHash};
use crate::workload::{Client, World};

/// How often invariants are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// At every so many looks, what replicas remember of the messages that were sent last is compared, and
/// of how many.
const COMPARE_LOOKS: u64 = 10;
const COMPARE_SENT: usize = 20;
/// How long a cluster may take to be well again once nothing goes wrong any more.
const HEAL_WITHIN: Duration = Duration::from_secs(20);
/// How long everything after that may take.
const END_WITHIN: Duration = Duration::from_secs(60);

/// How a life went.
#[derive(Debug)]
pub struct Outcomes {
    /// What it was like.
    pub plan: Plan,
    /// What was wrong, the first first; empty if all is well.
    pub failures: Vec<String>,
    /// The trace's hash.
    pub hash: TraceHash,
    /// What clients saw.
    pub history: History,
    /// Operations that were answered.
    pub ok: u64,
    /// Steps in the trace.
    pub steps: u64,
    /// How often tasks were polled.
    pub polls: u64,
    /// Virtual time it took.
    pub took: Duration,
}

/// Lives it: what failed, the history, polls, and the virtual time that it took.
async fn lived(plan: &Plan, trace: Arc<Trace>) -> (Vec<String>, History, u64, Duration) {
    let life = Life::new(plan, trace);
    let ending = life.run().await;
    let history = life.world.recorder.take();
    let mut failures = life.cluster.violations();
    failures.extend(ending);
    for node in life.cluster.nodes.values() {
        life.cluster.kill(node);
    }
    failures.extend(runtime::take_panics().iter().map(ToString::to_string));
    (failures, history, runtime::polls(), elapsed())
}

/// Lives a life.
pub fn live(plan: &Plan, spoken: bool) -> Outcomes {
    let trace = Arc::new(Trace::new(spoken));
    let told = trace.clone();
    let living = || runtime::run(plan.seed, plan.machine.clone(), lived(plan, told));
    // A node's state is looked at from outside, too.
    let lived = catch_unwind(AssertUnwindSafe(living)).unwrap_or_else(|panic| {
        let failure = format!("the simulation panicked: {}", runtime::panic_text(&*panic));
        (vec![failure], History::default(), 0, Duration::ZERO)
    });
    let (mut failures, history, polls, took) = lived;
    let report = check::check(
        &history,
        &check::Options { recover_within: END_WITHIN, min_ok: 1, ..Default::default() },
    );
    match report.verdict {
        Verdict::Valid => {}
        Verdict::Invalid => failures.push(report.to_string()),
        // Every life ends with all that a verdict takes.
        Verdict::Unknown if failures.is_empty() => failures.push(report.to_string()),
        Verdict::Unknown => {}
    }
    let (hash, steps) = (trace.hash(), trace.steps());
    Outcomes {
        plan: plan.clone(),
        failures,
        hash,
        ok: report.counts.ok,
        history,
        steps,
        polls,
        took,
    }
}

struct Life {
    plan: Plan,
    cluster: Arc<Cluster>,
    world: Arc<World>,
}

impl Life {
    fn new(plan: &Plan, trace: Arc<Trace>) -> Life {
        trace.say(format_args!("{plan}"));
        let rng = SmallRng::seed_from_u64(plan.seed ^ 0xa17);
        let network = Network::new(rng, plan.weather.clone(), trace.clone());
        let cluster = Cluster::new(plan, network, trace);
        let world = World::new(cluster.clone(), plan);
        Life { plan: plan.clone(), cluster, world }
    }

    /// Lives; returns what was wrong at the end.
    async fn run(&self) -> Vec<String> {
        for node in self.cluster.nodes.values() {
            self.cluster.boot(node);
        }
        self.watch();
        let mut first = Client::new(self.world.clone(), &self.plan, 0);
        for number in 0..self.plan.rooms {
            let slug = format!("room-{number}");
            if !first.create(&slug).await {
                return vec![
                    "no room could be created at the start, where nothing goes wrong".into(),
                ];
            }
        }
        let mut clients = vec![Sim::spawn(first.run())];
        for number in 1..self.plan.clients {
            let client = Client::new(self.world.clone(), &self.plan, number);
            clients.push(Sim::spawn(client.run()));
        }
        let followers: Vec<_> = (0..self.plan.subscribers)
            .map(|number| {
                let follower = Follower::new(self.world.clone(), &self.plan, number);
                Sim::spawn(follower.run())
            })
            .collect();
        let nemesis = Nemesis::new(self.world.clone(), &self.plan);
        let raging = Sim::spawn(async move { nemesis.run().await });
        Sim::sleep(self.plan.time.saturating_sub(elapsed())).await;
        // A strike lasts as long as it was to.
        let _: Result<(), _> = raging.await;
        self.heal();
        let ending = async {
            let mut wrong = self.end(clients).await;
            if !wrong.is_empty() {
                // Whoever waits for what is wrong would only hide it.
                return wrong;
            }
            for follower in followers {
                if follower.await.is_err() {
                    wrong.push("a follower panicked".into());
                }
            }
            wrong
        };
        let ended = Sim::timeout(END_WITHIN, ending).await;
        ended.unwrap_or_else(|_| {
            let waits = self.unwell().unwrap_or_else(|| "a client".into());
            let seconds = END_WITHIN.as_secs();
            vec![format!(
                "liveness: {seconds} s after the last fault something still waits: {waits}{}",
                self.standing()
            )]
        })
    }

    /// Looks at everything, every few milliseconds, and restarts what an error took down.
    fn watch(&self) {
        let (cluster, world) = (self.cluster.clone(), self.world.clone());
        let mut invariants = Invariants::default();
        runtime::spawn_outside(async move {
            loop {
                Sim::sleep(LOOK_EVERY).await;
                invariants.look(&cluster);
                if invariants.looks().is_multiple_of(COMPARE_LOOKS) {
                    let sent = world.sent();
                    let latest = &sent[sent.len().saturating_sub(COMPARE_SENT)..];
                    let wrong = equal::replicas(&cluster, latest, false);
                    wrong.into_iter().for_each(|wrong| cluster.violation(wrong));
                }
                cluster.sweep();
            }
        });
    }

    fn heal(&self) {
        self.cluster.trace.say(format_args!("heal"));
        self.cluster.network.heal();
        self.cluster.network.set_weather(self.plan.weather.clone());
        runtime::set_fsync(self.plan.machine.fsync);
        self.cluster.sweep();
        for node in self.cluster.nodes.values() {
            node.disk.heal();
            node.disk.capacity(None);
            node.clock.set_skew_ms(0);
            if let Some(process) = node.process() {
                process.pause(false);
            }
            if let Some(running) = node.running() {
                running.router.set_disk_full(false);
            }
            self.cluster.boot(node);
        }
    }

    fn running(&self) -> Vec<(Arc<Node>, Running)> {
        let nodes = self.cluster.nodes.values();
        nodes.filter_map(|node| Some((node.clone(), node.running()?))).collect()
    }

    /// How every replica stands, a line each.
    fn standing(&self) -> String {
        let mut lines = String::new();
        for (node, running) in self.running() {
            for shard in running.router.host().all() {
                let (id, s) = (shard.id(), shard.status());
                let leader = s.leader.map_or("nobody".into(), |leader| leader.to_string());
                lines += &format!(
                    "\n    node {} shard {id}: {} of term {}, leader {leader}, log to {}, commit {}, \
                     applied {}, durable {}",
                    node.id, s.state, s.term, s.last_log, s.commit, s.applied, s.durable
                );
            }
        }
        lines
    }

    /// Switches off what was removed from the cluster, as its operator does.
    fn discard_removed(&self) {
        let Some(map) = self.cluster.newest_map().filter(|_| self.plan.changes()) else { return };
        let removed = map.removed().filter_map(|id| self.cluster.nodes.get(&id));
        for node in removed.filter(|node| !node.is_gone()) {
            self.cluster.kill(node);
            node.discard();
        }
    }

    /// What is not ready yet; what is down is started, and what nobody goes on with an operator takes
    /// in hand.
    fn unready(&self) -> Option<String> {
        self.discard_removed();
        if let Some(stuck) = placement::stuck(&self.cluster) {
            operator::resume(&self.world, stuck);
            return Some(format!("node {stuck} is to be resumed"));
        }
        let there = |node: &&Arc<Node>| !node.is_gone() && !self.cluster.is_unborn(node);
        for node in self.cluster.nodes.values().filter(there) {
            let Some(running) = node.running() else {
                self.cluster.boot(node);
                return Some(format!("node {} is not up", node.id));
            };
            let own = running.router.map().node(node.id);
            if own.is_some_and(|own| own.state == NodeState::Draining) {
                continue;
            }
            let readiness = running.router.readiness();
            if !readiness.ready && (node.id.0 <= self.plan.replicas || self.plan.moves()) {
                return Some(format!("node {}: {}", node.id, readiness.reason));
            }
        }
        None
    }

    /// Whether no message was acknowledged that was sent since then.
    fn unserved(&self, since: Duration) -> Option<String> {
        let served = self.world.served_last().is_some_and(|sent| sent >= since);
        (!served).then(|| "no message that was sent since then has been acknowledged".into())
    }

    /// What is not ready, or differs between replicas.
    fn unwell(&self) -> Option<String> {
        let unready = self.unready();
        if unready.is_some() {
            return unready;
        }
        let changing = self.plan.changes().then(|| placement::unsettled(&self.cluster)).flatten();
        if changing.is_some() {
            return changing;
        }
        let mut applied: BTreeMap<ShardId, u64> = BTreeMap::new();
        for (node, running) in self.running() {
            let map = running.router.map();
            if let Some(moving) = map.placements().find(|placement| !placement.is_settled()) {
                return Some(format!("node {} still knows of a move: {moving:?}", node.id));
            }
            let mut lost = self.cluster.nodes.values().filter(|_| self.plan.moves());
            let stays = |node: &&Arc<Node>| {
                node.is_gone()
                    && !map.is_removed(node.id)
                    && !placement::cannot_be_replaced(&self.cluster, &map, node.id)
            };
            if let Some(lost) = lost.find(stays) {
                return Some(format!("node {} does not know that {} is removed", node.id, lost.id));
            }
            let wanted: Vec<ShardId> = map
                .placements()
                .filter(|placement| placement.settled.contains(&node.id))
                .map(|placement| placement.shard)
                .collect();
            let here: Vec<ShardId> =
                running.router.host().all().iter().map(|shard| shard.id()).collect();
            if here != wanted {
                return Some(format!(
                    "node {} is to have replicas of shards {wanted:?}, and has {here:?}",
                    node.id
                ));
            }
            for shard in running.router.host().all() {
                let here = shard.status();
                let first = *applied.entry(shard.id()).or_insert(here.applied);
                if here.applied != first || here.last_log != here.applied {
                    return Some(format!(
                        "node {} has applied entry {} of shard {}, its log ends at {}, another \
                         has applied {first}",
                        node.id,
                        here.applied,
                        shard.id(),
                        here.last_log
                    ));
                }
            }
        }
        // A learner that is not wanted any more goes when its group's leader looks next.
        placement::misplaced(&self.cluster).into_iter().next()
    }

    /// Waits until nothing is wrong any more; for so long that it is a failure, what still is.
    async fn mends(&self, mut wrong: impl FnMut() -> Option<String>) -> Result<(), String> {
        let deadline = elapsed() + HEAL_WITHIN;
        while let Some(why) = wrong() {
            if elapsed() > deadline {
                return Err(why);
            }
            Sim::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits for the cluster to be well, then looks at what it has.
    async fn end(&self, clients: Vec<runtime::JoinHandle<()>>) -> Vec<String> {
        let (seconds, healed) = (HEAL_WITHIN.as_secs(), elapsed());
        // Clients go on until all is well: it must serve again.
        let unwell = || self.unready().or_else(|| self.unserved(healed));
        if let Err(why) = self.mends(unwell).await {
            return vec![format!("liveness: {seconds} s after the last fault, {why}")];
        }
        self.world.finish();
        for client in clients {
            if client.await.is_err() {
                return vec!["a client panicked".into()];
            }
        }
        let unanswered = self.resolve().await;
        if !unanswered.is_empty() {
            return unanswered;
        }
        if let Err(why) = self.mends(|| self.unwell()).await {
            return vec![format!("convergence: {seconds} s after the last request, {why}")];
        }
        let mut wrong = equal::replicas(&self.cluster, &self.world.sent(), true);
        wrong.extend(placement::amiss(&self.cluster));
        wrong.extend(self.send_again().await);
        self.world.fall_quiet();
        self.final_reads().await;
        wrong
    }
}
