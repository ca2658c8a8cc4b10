//! A simulated cluster: nodes wired by the product's own code, on simulated parts.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use folkmoot::id::NodeId;
use folkmoot::meta::ClusterMap;
use folkmoot::node::groups::{self, Groups, Membership};
use folkmoot::proto::internal as pb;
use folkmoot::router::serve::Server;
use folkmoot::router::{self, Router};
use folkmoot::shard::checkpointer;
use folkmoot::shard::host::Host;
use folkmoot::shard::log_writer::Space;
use folkmoot::shard::runtime::AsyncRuntime;
use folkmoot::store::log::{Log, LogOptions};
use tokio_util::sync::CancellationToken;

use crate::disk::{Disk, DiskFault, Incarnation};
use crate::network::{Network, SimTransport};
pub use crate::node::{Excuse, Had, Node, Running, SimClock, true_ms};
use crate::operator::Orders;
use crate::plan::Plan;
use crate::runtime::{ABORTED, Panic, Process, Sim, panic_text, take_panics};
use crate::trace::Trace;

/// Log files of a size that a life fills several of.
const LOG_FILE_BYTES: u64 = 256 << 10;
/// The log's size at which old files go.
const LOG_PURGE_BYTES: u64 = 1 << 20;

/// What panics of a process say whose disk fails.
const DISK_ERRORS: [&str; 3] =
    ["Input/output error", "the power of the simulated node failed", "the simulated node is dead"];

/// Tells the router of a full disk, as the node's guard does.
struct SimSpace(Weak<Router<Sim>>);

impl Space for SimSpace {
    fn on_full(&self) {
        if let Some(router) = self.0.upgrade() {
            router.set_disk_full(true);
        }
    }
}

/// The nodes and what is between them.
pub struct Cluster {
    /// By their ids.
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    /// The network.
    pub network: Arc<Network>,
    /// What happens.
    pub trace: Arc<Trace>,
    /// What operators have begun.
    pub orders: Orders,
    plan: Plan,
    seed: pb::Seed,
    /// What must not have happened.
    violations: Mutex<Vec<String>>,
}

impl Cluster {
    /// A cluster of nodes that are off.
    pub fn new(plan: &Plan, network: Arc<Network>, trace: Arc<Trace>) -> Arc<Cluster> {
        let founder = |id: u64| pb::SeedNode {
            id,
            instance: format!("instance-{id}"),
            client_address: format!("10.0.0.{id}:7400"),
            peer_address: format!("10.0.0.{id}:7401"),
            ..Default::default()
        };
        let seed = pb::Seed {
            cluster_id: "simulated".into(),
            shards: plan.shards,
            nodes: (1..=plan.replicas).map(founder).collect(),
        };
        let nodes = (1..=plan.replicas + u64::from(plan.gateway) + plan.joiners).map(|id| {
            let disk = Disk::new(plan.seed.wrapping_mul(31).wrapping_add(id));
            disk.watch(NodeId(id), trace.clone());
            (NodeId(id), Arc::new(Node::new(NodeId(id), disk)))
        });
        Arc::new(Cluster {
            nodes: nodes.collect(),
            network,
            trace,
            orders: Orders::default(),
            plan: plan.clone(),
            seed,
            violations: Mutex::default(),
        })
    }

    /// The nodes that have replicas.
    pub fn replicas(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values().filter(|node| node.id.0 <= self.plan.replicas)
    }

    /// Notes what must not have happened.
    pub fn violation(&self, what: String) {
        self.trace.tell(format_args!("VIOLATION {what}"));
        self.violations.lock().expect("no holder of the lock panics").push(what);
    }

    /// What must not have happened, so far.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().expect("no holder of the lock panics").clone()
    }

    /// Whether a node is to join later, and was not admitted yet.
    pub fn is_unborn(&self, node: &Node) -> bool {
        node.id.0 > self.plan.replicas + u64::from(self.plan.gateway) && node.membership().is_none()
    }

    /// Whether nodes that are away for long are replaced unasked.
    pub fn replaces(&self) -> bool {
        !self.plan.replace_after.is_zero()
    }

    /// The newest map that any node has, if one runs.
    pub fn newest_map(&self) -> Option<Arc<ClusterMap>> {
        let running = self.nodes.values().filter_map(|node| node.running());
        running.map(|running| running.router.map()).max_by_key(|map| map.version())
    }

    /// Starts a node's process.
    pub fn boot(self: &Arc<Self>, node: &Arc<Node>) {
        if node.process().is_some() || node.is_gone() || node.is_held() || self.is_unborn(node) {
            return;
        }
        let process = {
            let mut state = node.lock();
            state.boots += 1;
            state.stopping = false;
            let process = Process::new(format!("n{}.{}", node.id.0, state.boots));
            state.process = Some(process.clone());
            process
        };
        self.trace.say(format_args!("boot {process:?}"));
        if self.plan.lying_disks {
            node.disk.arm(DiskFault::LyingSyncs);
        }
        let (cluster, booting, disk) = (self.clone(), node.clone(), node.disk.boot());
        drop(process.clone().spawn(async move {
            if let Err(why) = cluster.clone().serve(&booting, &process, disk).await {
                cluster.stopped(&booting, &why);
            }
            process.kill();
        }));
    }

    /// A node stopped by itself: fine if it was given a reason.
    fn stopped(&self, node: &Node, why: &str) {
        self.trace.tell(format_args!("n{} stopped: {why}", node.id.0));
        if node.excused(Excuse::Disk) || node.lock().stopping {
            return;
        }
        if node.excused(Excuse::Damage) {
            node.gone.store(true, Ordering::Relaxed);
        } else {
            self.violation(format!("node {} stopped without cause: {why}", node.id.0));
        }
    }

    /// Judges who has panicked since the last time: before what excuses it is taken back.
    pub fn judge_panics(&self) {
        for panic in take_panics() {
            self.panicked(&panic);
        }
    }

    /// A process panicked: fine if its disk failed, which is how reads of the state end then, and
    /// syncs of the log.
    fn panicked(&self, panic: &Panic) {
        self.trace.tell(format_args!("{panic}"));
        let node = self.nodes.values().find(|node| panic.is_of(&format!("n{}.", node.id.0)));
        let lost = DISK_ERRORS.iter().any(|error| panic.text.contains(error));
        if !(lost && node.is_some_and(|node| node.disk_may_fail())) {
            self.violation(panic.to_string());
        }
    }

    /// Looks at a node's state from outside; `None` if its disk fails just then, which ends the look by a
    /// panic, as it ends the process, wherever that reads; or if that has happened before, which leaves
    /// locks poisoned. Any other panic must not be.
    pub fn look<T>(&self, node: &Node, look: impl FnOnce() -> T) -> Option<T> {
        let panic = match catch_unwind(AssertUnwindSafe(look)) {
            Ok(seen) => return Some(seen),
            Err(panic) => panic_text(&*panic),
        };
        let mut lost = DISK_ERRORS.into_iter().chain([ABORTED]);
        let disk_failed = lost.any(|error| panic.contains(error)) && node.disk_may_fail();
        if disk_failed {
            node.note_broken();
        } else if !(panic.contains("PoisonError") && node.is_broken()) {
            let id = node.id;
            self.violation(format!("node {id} panicked while its state was looked at: {panic}"));
        }
        None
    }

    async fn serve(
        self: Arc<Self>,
        node: &Arc<Node>,
        process: &Arc<Process>,
        disk: Incarnation,
    ) -> Result<(), String> {
        let transport = SimTransport::new(node.id, process.clone(), self.network.clone());
        let host = Arc::new(Host::<Sim>::default());
        node.lock().host = Some(host.clone());
        let options = router::Options {
            request_timeout: self.plan.request_timeout,
            stall_after: router::Options::stall_after(self.plan.timing.election_timeout_max),
        };
        let router = Router::new(host.clone(), transport.clone(), node.clock.clone(), options);
        host.set_upper(Arc::new(Server(Arc::downgrade(&router))));
        self.network.attach(node.id, process.clone(), host);
        let log_options = LogOptions {
            target_file_bytes: LOG_FILE_BYTES,
            purge_threshold_bytes: LOG_PURGE_BYTES,
            recovery_threads: 1,
            ..LogOptions::new(&disk.directory)
        };
        let log = Log::open_with_file_system(log_options, disk.fs).map_err(|e| e.to_string())?;
        if node.must_refuse.load(Ordering::Relaxed) {
            self.violation(format!("node {} opened a log whose end is gone", node.id.0));
        }
        let options = groups::Options {
            timing: self.plan.timing.clone(),
            checkpoints: checkpointer::Options {
                interval: self.plan.checkpoint_interval,
                overlay_bytes_max: self.plan.overlay_bytes_max,
            },
            pace: Default::default(),
            replace_after: self.plan.replace_after,
        };
        let stop = CancellationToken::new();
        let clock = node.clock.clone();
        let groups = Groups::new(options, router.clone(), transport, clock, stop);
        let space = Arc::new(SimSpace(Arc::downgrade(&router)));
        let disk = groups::Disk { log, base: disk.base, space };
        let membership = self.membership(node);
        groups.start(membership.clone(), disk).await.map_err(|e| e.to_string())?;
        groups.register(self.hello(node));
        if self.plan.changes() {
            drop(process.spawn(keep_map(node.clone(), membership, router.clone())));
        }
        self.trace.say(format_args!("up {process:?}"));
        node.lock().running =
            Some(Running { process: process.clone(), router, groups: groups.clone() });
        Err(groups.failed().await.to_string())
    }

    fn membership(&self, node: &Node) -> Membership {
        let founder = node.id.0 <= self.plan.replicas;
        node.membership().unwrap_or_else(|| Membership {
            cluster_id: self.seed.cluster_id.clone(),
            node_id: node.id,
            map: ClusterMap::of_seed(&self.seed),
            seed: founder.then(|| self.seed.clone()),
        })
    }

    /// How a node introduces itself.
    pub fn hello(&self, node: &Node) -> pb::Hello {
        let id = node.id.0;
        // One that was not there at the start registers as a new one, or asks to be admitted.
        let knows = |known: Membership| known.map.node(node.id).is_some();
        let known = id <= self.plan.replicas || node.membership().is_some_and(knows);
        pb::Hello {
            instance: format!("instance-{id}"),
            node_id: if known { id } else { 0 },
            cluster_id: self.seed.cluster_id.clone(),
            client_address: format!("10.0.0.{id}:7400"),
            peer_address: format!("10.0.0.{id}:7401"),
            version: env!("CARGO_PKG_VERSION").into(),
            gateway: false,
            join_token: String::new(),
            former_cluster_ids: vec![],
        }
    }

    /// Kills a node's process (`kill -9`).
    pub fn kill(&self, node: &Arc<Node>) {
        if let Some(process) = node.process() {
            self.trace.say(format_args!("kill {process:?}"));
            self.note_had(node);
            process.kill();
            node.disk.stop_process();
            self.bury(node, false);
        }
    }

    /// Cuts a node's power.
    pub fn cut_power(&self, node: &Arc<Node>) {
        self.trace.say(format_args!("power cut of n{}", node.id.0));
        self.note_had(node);
        if let Some(process) = node.process() {
            process.kill();
        }
        node.disk.crash();
        self.bury(node, true);
    }

    /// Notes what those have on their disks whose processes have ended by themselves.
    pub fn note_ends(&self) {
        for node in self.nodes.values() {
            let process = node.lock().process.clone();
            if process.is_some_and(|process| process.is_dead()) {
                self.note_had(node);
            }
        }
    }

    /// Notes what a node has on its disk, as its process ends.
    fn note_had(&self, node: &Arc<Node>) {
        let host = node.lock().host.clone();
        for shard in host.map(|host| host.all()).unwrap_or_default() {
            let had = self.look(node, || Had::of(&shard)).unwrap_or(Had::UNKNOWN);
            node.lock().had.insert(shard.id(), had);
        }
    }

    /// Cleans up after a process that has ended.
    pub fn bury(&self, node: &Arc<Node>, silently: bool) {
        let (process, running, host) = {
            let mut state = node.lock();
            (state.process.take(), state.running.take(), state.host.take())
        };
        let Some(process) = process else { return };
        self.network.detach(node.id, silently);
        process.bury();
        // The last handle on the node's parts: what it drops was the process'.
        process.enter(|| drop((running, host)));
    }

    /// Stops a node as an operator does: leadership is handed over first.
    pub async fn stop(self: &Arc<Self>, node: &Arc<Node>) {
        let Some(running) = node.running() else { return };
        self.trace.say(format_args!("stop {:?}", running.process));
        node.lock().stopping = true;
        let (groups, router) = (running.groups.clone(), running.router.clone());
        let stopping = running.process.spawn(async move {
            groups.hand_over().await;
            router.stop();
            groups.stop().await;
        });
        // Cut short when it is killed meanwhile.
        let _: Result<_, _> = Sim::timeout(Duration::from_secs(10), stopping).await;
        self.note_had(node);
        running.process.kill();
        drop(running);
        if node.lock().process.is_some() {
            node.disk.stop_process();
            self.bury(node, false);
        }
    }

    /// Buries processes that ended by themselves, or lost power, now that nothing of theirs runs.
    pub fn sweep(&self) {
        self.judge_panics();
        for node in self.nodes.values() {
            let power = node.disk.has_power();
            let process = node.lock().process.clone();
            if let Some(process) = process.filter(|process| process.is_dead() || !power) {
                self.note_had(node);
                process.kill();
                self.trace.say(format_args!("{process:?} has ended, power {power}"));
                if power {
                    node.disk.stop_process();
                }
                self.bury(node, !power);
            }
        }
    }
}

/// Notes each newer map, for the next process, as a node does.
async fn keep_map(node: Arc<Node>, first: Membership, router: Arc<Router<Sim>>) {
    let mut maps = router.watch_map();
    loop {
        let map = maps.borrow_and_update().clone();
        let known = node.membership().unwrap_or_else(|| first.clone());
        if map.version() > known.map.version() {
            node.keep(Membership { map: ClusterMap::clone(&map), ..known });
        }
        if maps.changed().await.is_err() {
            return;
        }
    }
}
