//! One life of a cluster: it is born, clients talk, things go wrong, then all is well again, and
//! everything is looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::chat::state::{Scope, State};
use folkmoot::id::{Seq, ShardId};
use folkmoot::shard::runtime::AsyncRuntime;
use folkmoot_jepsen::check::{self, Verdict};
use folkmoot_jepsen::history::{F, History, Op, Value};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use crate::cluster::{Cluster, Node, Running};
use crate::follower::Follower;
use crate::invariants::Invariants;
use crate::nemesis::Nemesis;
use crate::network::Network;
use crate::plan::Plan;
use crate::record::{self, now};
use crate::runtime::{self, Sim, elapsed};
use crate::trace::{Trace, TraceHash};
use crate::workload::{Client, Outcome, World, name};

/// How often invariants are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a cluster may take to be well again once nothing goes wrong any more.
const HEAL_WITHIN: Duration = Duration::from_secs(20);
/// How long everything after that may take.
const END_WITHIN: Duration = Duration::from_secs(60);
/// Messages that are sent once more at the end.
const SENT_AGAIN: usize = 40;

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

/// Lives a life.
pub fn live(plan: &Plan, spoken: bool) -> Outcomes {
    let trace = Arc::new(Trace::new(spoken));
    let told = trace.clone();
    let (failures, history, polls, took) = runtime::run(plan.seed, plan.machine.clone(), async {
        let life = Life::new(plan, told);
        let ending = life.run().await;
        let history = life.world.recorder.take();
        let mut failures = life.cluster.violations();
        failures.extend(ending);
        for node in life.cluster.nodes.values() {
            life.cluster.kill(node);
        }
        failures.extend(runtime::take_panics().iter().map(ToString::to_string));
        (failures, history, runtime::polls(), elapsed())
    });
    let mut failures = failures;
    let report = check::check(
        &history,
        &check::Options { recover_within: END_WITHIN, ..Default::default() },
    );
    if report.verdict == Verdict::Invalid {
        failures.push(report.to_string());
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
    invariants: Arc<Mutex<Invariants>>,
}

impl Life {
    fn new(plan: &Plan, trace: Arc<Trace>) -> Life {
        trace.say(format_args!("{plan}"));
        let rng = SmallRng::seed_from_u64(plan.seed ^ 0xa17);
        let network = Network::new(rng, plan.weather.clone(), trace.clone());
        let cluster = Cluster::new(plan, network, trace);
        let world = World::new(cluster.clone(), plan);
        Life { plan: plan.clone(), cluster, world, invariants: Arc::default() }
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
        let (cluster, invariants) = (self.cluster.clone(), self.invariants.clone());
        runtime::spawn_outside(async move {
            loop {
                Sim::sleep(LOOK_EVERY).await;
                invariants.lock().expect("looking does not panic").look(&cluster);
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

    /// What is not well yet.
    fn unwell(&self) -> Option<String> {
        for node in self.cluster.nodes.values().filter(|node| !node.is_gone()) {
            let Some(running) = node.running() else {
                self.cluster.boot(node);
                return Some(format!("node {} is not up", node.id));
            };
            let readiness = running.router.readiness();
            if !readiness.ready && node.id.0 <= self.plan.replicas {
                return Some(format!("node {}: {}", node.id, readiness.reason));
            }
        }
        let mut applied: BTreeMap<ShardId, u64> = BTreeMap::new();
        for (node, running) in self.running() {
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
        None
    }

    /// Waits for the cluster to be well, then looks at what it has.
    async fn end(&self, clients: Vec<runtime::JoinHandle<()>>) -> Vec<String> {
        // Clients go on until all is well: it must serve again.
        let deadline = elapsed() + HEAL_WITHIN;
        while let Some(why) = self.unready() {
            if elapsed() > deadline {
                return vec![format!(
                    "liveness: {} s after the last fault, {why}",
                    HEAL_WITHIN.as_secs()
                )];
            }
            Sim::sleep(Duration::from_millis(20)).await;
        }
        self.world.finish();
        for client in clients {
            if client.await.is_err() {
                return vec!["a client panicked".into()];
            }
        }
        let deadline = elapsed() + HEAL_WITHIN;
        while let Some(why) = self.unwell() {
            if elapsed() > deadline {
                return vec![format!(
                    "convergence: {} s after the last request, {why}",
                    HEAL_WITHIN.as_secs()
                )];
            }
            Sim::sleep(Duration::from_millis(20)).await;
        }
        let mut wrong = self.equal();
        wrong.extend(self.send_again().await);
        self.final_reads().await;
        wrong
    }

    fn unready(&self) -> Option<String> {
        for node in self.cluster.replicas().filter(|node| !node.is_gone()) {
            let Some(running) = node.running() else {
                self.cluster.boot(node);
                return Some(format!("node {} is not up", node.id));
            };
            let readiness = running.router.readiness();
            if !readiness.ready {
                return Some(format!("node {}: {}", node.id, readiness.reason));
            }
        }
        None
    }

    /// Replicas must have the same, down to what they remember of requests.
    fn equal(&self) -> Vec<String> {
        let mut digests = BTreeMap::new();
        let mut wrong = vec![];
        for (node, running) in self.running() {
            for shard in running.router.host().all() {
                let state = shard.replica().read();
                let digest = state.rooms_digest();
                let mut remembered = vec![];
                for sent in self.world.sent().iter() {
                    let scope = Scope::Room(sent.room.clone());
                    let found = state.sent(&scope, &sent.request.actor.user, sent.request.id);
                    remembered.push(found.map(|found| (found.seq, found.body_hash, found.at_ms)));
                }
                let here = (digest, remembered);
                let (first, there) =
                    digests.entry(shard.id()).or_insert_with(|| (node.id, here.clone()));
                if there.0 != here.0 {
                    wrong.push(format!(
                        "replicas of shard {} differ on nodes {first} and {}",
                        shard.id(),
                        node.id
                    ));
                } else if there.1 != here.1 {
                    wrong.push(format!(
                        "dedup: nodes {first} and {} remember other requests of shard {}",
                        node.id,
                        shard.id()
                    ));
                }
            }
        }
        wrong
    }

    /// Whatever was acknowledged gets its first answer again, from anywhere.
    async fn send_again(&self) -> Vec<String> {
        let rng = &mut SmallRng::seed_from_u64(self.plan.seed ^ 0xa9a1);
        let mut acked: Vec<_> =
            self.world.sent().iter().filter(|s| s.seq.is_some()).cloned().collect();
        rand::seq::SliceRandom::shuffle(&mut acked[..], rng);
        let mut process = self.world.recorder.process();
        let mut wrong = vec![];
        for sent in acked.into_iter().take(SENT_AGAIN) {
            let node = loop {
                let node = self.world.any_node(rng);
                if node.running().is_some() {
                    break node;
                }
            };
            let id = record::id(&sent.request.id);
            let (seq, other_body) = (None, sent.other_body);
            let op = Op::invoke(now(), process, F::Resend, Value::Write { id, seq, other_body });
            let op = op.node(name(&node)).room(sent.room.as_str());
            self.world.push(op.clone());
            let request = sent.with_body(other_body);
            let outcome = self
                .world
                .ask(&node, |running| async move { running.router.execute(request).await })
                .await;
            process = self.world.end(&op, &outcome, |done| {
                let seq = Some(done.seq.0);
                Value::Write { id, seq, other_body }
            });
            match outcome {
                Outcome::Ok(done) if done.duplicate && Some(done.seq) == sent.seq => {}
                other => wrong.push(format!(
                    "idempotence: {} in {} was acknowledged as seq {:?}; sent again, at node {}: \
                     {other:?}",
                    sent.request.id,
                    sent.room,
                    sent.seq.map(|seq| seq.0),
                    node.id
                )),
            }
        }
        wrong
    }

    /// Every room, to its end, on every node.
    async fn final_reads(&self) {
        let mut process = self.world.recorder.process();
        for room in self.world.rooms() {
            for (node, running) in self.running() {
                let _page = self.world.read(&mut process, &node, F::FinalRead, &room, Seq(0)).await;
                let shard = running.router.map().shard_of_room(&room);
                let Some(replica) = shard.and_then(|shard| running.router.host().get(shard)) else {
                    continue;
                };
                let op = Op::invoke(now(), process, F::Chain, Value::None);
                let op = op.node(name(&node)).room(room.as_str());
                self.world.push(op.clone());
                let row = replica.replica().read().room(&room);
                match row {
                    Some(row) => {
                        let chain =
                            row.chain.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                        let value = Value::Chain { seq: row.head.0, chain: chain.into() };
                        self.world.push(op.ok(now(), value));
                    }
                    None => self.world.push(op.fail(now(), "no-room")),
                }
            }
        }
    }
}
