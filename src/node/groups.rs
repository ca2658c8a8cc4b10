//! This node's groups: started, initialised, watched, handed over and stopped.
//!
//! Like the layers below, this takes runtime, clock, network and disk as parameters: a simulated
//! node is wired by the same code.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{self, BoxFuture};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::error::Error;
use crate::id::{NodeId, ShardId};
use crate::meta::{self, ClusterMap, NodeState};
use crate::node::placement::replicas;
use crate::node::{placement, registration};
use crate::proto::internal as pb;
use crate::router::Router;
use crate::shard::log_writer::{LogWriter, Space};
use crate::shard::retire::Halted;
use crate::shard::runtime::{Runtime, TokioRuntime};
use crate::shard::snapshot::Pace;
use crate::shard::transport::Transport;
use crate::shard::types::{Member, Members};
use crate::shard::{Parts, Shard, Timing, checkpointer, retire, watch};
use crate::store::base::Base;
use crate::store::log::Log;
use crate::store::state::{ShardState, StateOptions};

/// How often groups are looked at for a failure.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why groups could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum GroupsError {
    /// A group cannot be started.
    #[error("shard {shard} cannot start: {error}")]
    Start {
        /// Which.
        shard: ShardId,
        /// Why.
        error: io::Error,
    },
    /// A group stopped by itself.
    #[error("shard {shard} failed: {why}")]
    Failed {
        /// Which.
        shard: ShardId,
        /// Why.
        why: String,
    },
}

/// What a node starts from once it belongs to a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Membership {
    /// The cluster.
    pub cluster_id: String,
    /// This node.
    pub node_id: NodeId,
    /// The first map; the meta group's state has a newer one, on nodes that have a replica of it.
    pub map: ClusterMap,
    /// Set on founders.
    pub seed: Option<pb::Seed>,
}

/// What a node's groups share on its disk.
pub struct Disk {
    /// The log of all groups.
    pub log: Log,
    /// The base of all groups.
    pub base: Arc<dyn Base>,
    /// What to do when the disk is full.
    pub space: Arc<dyn Space>,
}

/// How a node's groups go about their work.
#[derive(Debug, Clone)]
pub struct Options {
    /// Raft's timing.
    pub timing: Timing,
    /// When to take checkpoints.
    pub checkpoints: checkpointer::Options,
    /// How fast snapshots are sent.
    pub pace: Pace,
    /// How long a node may be away until it is replaced; zero: for ever.
    pub replace_after: Duration,
}

/// What every group of this node starts from.
struct Ground {
    node: NodeId,
    cluster_id: String,
    base: Arc<dyn Base>,
}

/// The groups of this node, with what they share.
pub struct Groups<R: Runtime = TokioRuntime> {
    options: Options,
    router: Arc<Router<R>>,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    writer: OnceLock<LogWriter>,
    /// What every group of this node starts from.
    ground: OnceLock<Ground>,
    replace_after: watch::Sender<Duration>,
    /// A replica that could not be removed.
    stuck: OnceLock<(ShardId, String)>,
    /// Held while groups start, and while the base is replaced under those that have.
    pub(super) arranging: Arc<tokio::sync::Mutex<()>>,
    /// Ends what watches the groups.
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Ends what starts, stops and moves groups.
    placing_stop: CancellationToken,
    placing: TaskTracker,
    /// Ends the checkpointer, which then takes a last checkpoint.
    checkpoints_stop: CancellationToken,
    checkpoints: TaskTracker,
}

impl<R: Runtime> Groups<R> {
    /// No group yet. `stop` ends what watches them, though not the groups.
    pub fn new(
        options: Options,
        router: Arc<Router<R>>,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Arc<Groups<R>> {
        Arc::new(Groups {
            replace_after: watch::Sender::new(options.replace_after),
            options,
            router,
            transport,
            clock,
            writer: OnceLock::new(),
            ground: OnceLock::new(),
            stuck: OnceLock::new(),
            arranging: Arc::default(),
            stop,
            tasks: TaskTracker::new(),
            placing_stop: CancellationToken::new(),
            placing: TaskTracker::new(),
            checkpoints_stop: CancellationToken::new(),
            checkpoints: TaskTracker::new(),
        })
    }

    /// Sends snapshots at so many bytes a second from now on; 0 = as fast as can be.
    pub fn set_pace(&self, bytes_per_second: u64) {
        self.options.pace.set(bytes_per_second);
    }

    /// Changes how long a node may be away until it is replaced.
    pub fn set_replace_after(&self, replace_after: Duration) {
        self.replace_after.send(replace_after);
    }

    /// The log's writer, once groups have started.
    pub fn writer(&self) -> Option<&LogWriter> {
        self.writer.get()
    }

    /// What routes requests to the groups.
    pub fn router(&self) -> &Arc<Router<R>> {
        &self.router
    }

    fn shards(&self) -> Vec<Arc<Shard<R>>> {
        self.router.host().all()
    }

    /// Starts every group that has a replica here, and what watches them. Once only.
    ///
    /// # Errors
    /// When a group's log or state cannot be read.
    pub async fn start(
        self: &Arc<Self>,
        membership: Membership,
        disk: Disk,
    ) -> Result<(), GroupsError> {
        let _arranging = self.arranging.lock().await;
        let node = membership.node_id;
        self.router.set_node_id(node);
        let writer = LogWriter::start::<R>(Arc::new(disk.log), disk.space);
        assert!(self.writer.set(writer.clone()).is_ok(), "groups start once");
        let cluster_id = membership.cluster_id.clone();
        let ground = Ground { node, cluster_id, base: disk.base };
        assert!(self.ground.set(ground).is_ok(), "groups start once");
        // Boxed, since the compiler cannot see by itself that it is Send (rust#100013).
        let starting: BoxFuture<'_, _> = Box::pin(self.start_groups(membership.map.clone()));
        let map = starting.await?;
        self.router.set_map(map);
        self.watch(self.router.clone().watch_leaders());
        self.watch(self.router.clone().watch_clock());
        let (host, options) = (self.router.host().clone(), self.options.checkpoints.clone());
        let stop = self.checkpoints_stop.clone();
        let checkpointing = checkpointer::run::<R>(host, writer, options, stop);
        let _task = R::spawn(self.checkpoints.track_future(checkpointing));
        self.join_cluster(&membership);
        Ok(())
    }

    /// Tells the meta group of this node's addresses and version, in case they changed.
    pub fn register(&self, hello: pb::Hello) {
        self.watch(registration::enter_self(self.router.clone(), hello));
    }

    /// Admits another node that shows a join token.
    ///
    /// # Errors
    /// The rules' refusal; or why the meta group could not be reached.
    pub async fn admit(&self, hello: pb::Hello) -> Result<pb::AdmitReply, Error> {
        registration::admit(&self.router, hello).await
    }

    /// Runs a task until the node stops.
    fn watch(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let task = async move {
            // It was to end early.
            let _: Option<()> = stop.run_until_cancelled(task).await;
        };
        let _task = R::spawn(self.tasks.track_future(task));
    }

    fn ground(&self) -> &Ground {
        self.ground.get().expect("groups have started")
    }

    fn log_writer(&self) -> &LogWriter {
        self.writer.get().expect("groups have started")
    }

    /// Starts the groups that have a replica here; returns the newest map that is here. Those that are
    /// to come, or are to go, are the mover's affair (`placement/`).
    async fn start_groups(&self, mut map: ClusterMap) -> Result<ClusterMap, GroupsError> {
        let Ground { node, base, .. } = self.ground();
        let node = *node;
        for peer in map.nodes().filter(|peer| peer.id != node) {
            self.transport.set_peer(peer.id, &peer.peer_address);
        }
        // A killed process may have left in the system's cache what counts as durable once read.
        let flushing = base.clone();
        let flushed = R::blocking(move || flushing.flush()).await.flatten();
        flushed.map_err(|error| GroupsError::Start { shard: ShardId::META, error })?;
        let log = self.log_writer().log().clone();
        for shard in log.groups().into_iter().filter(|shard| log.group(*shard).forgotten) {
            let cleared = retire::clear::<R>(base.clone(), shard).await;
            cleared.map_err(|error| GroupsError::Start { shard, error })?;
        }
        let mut waiting = replicas::here(&log, &map, node);
        while let Some(shard) = waiting.pop_first() {
            let counts = replicas::counts(&map, shard, node);
            match self.start_replica(shard, &mut map).await {
                Ok(false) => {}
                Ok(true) => {
                    waiting = replicas::here(&log, &map, node);
                    waiting.remove(&shard);
                }
                Err(error) if counts => return Err(GroupsError::Start { shard, error }),
                Err(error) => tracing::warn!(%shard, %error,
                    "cannot start a replica; trying again if a newer map wants it"),
            }
        }
        Ok(map)
    }

    /// Starts a group that has a replica here; whether it has brought a newer map. One whose state is lost is
    /// left alone unless the map says that it votes: it may be that nobody else has it any more.
    async fn start_replica(&self, shard: ShardId, map: &mut ClusterMap) -> io::Result<bool> {
        let state = self.open_state(shard).await?;
        let lost = self.log_writer().log().group(shard).purged.is_some()
            && state.applied().log_id.is_none();
        if lost && !replicas::counts(map, shard, self.ground().node) {
            return Ok(false);
        }
        let mut is_newer = false;
        if shard == ShardId::META
            && let Some(blob) = state.blob(meta::MAP_BLOB)
            && let Ok(newer) = ClusterMap::decode(&blob)
            && newer.is_formed()
            && newer.version() > map.version()
        {
            *map = newer;
            is_newer = true;
        }
        self.start_group(shard, state, map).await?;
        Ok(is_newer)
    }

    async fn open_state(&self, shard: ShardId) -> io::Result<ShardState> {
        let (base, options) = (self.ground().base.clone(), StateOptions::default());
        R::blocking(move || ShardState::open(base, shard, options)).await.flatten()
    }

    async fn start_group(
        &self,
        shard: ShardId,
        state: ShardState,
        map: &ClusterMap,
    ) -> io::Result<()> {
        let ground = self.ground();
        // Those that have a replica come first: they can give it to one that lacks it.
        let mut peers = map.replicas(shard);
        peers
            .extend(map.nodes().map(|peer| peer.id).filter(|id| !map.replicas(shard).contains(id)));
        peers.retain(|id| *id != ground.node);
        let parts = Parts {
            node: ground.node,
            cluster_id: ground.cluster_id.clone(),
            writer: self.log_writer().clone(),
            peers,
            transport: self.transport.clone(),
            clock: self.clock.clone(),
            timing: self.options.timing.clone(),
            pace: self.options.pace.clone(),
        };
        let feed = self.router.feed(shard);
        let started = Shard::start(shard, &parts, state, feed).await?;
        self.router.host().insert(started);
        Ok(())
    }

    /// Starts a replica that this node is to have now. One that was here before begins anew.
    pub(super) async fn add_replica(&self, shard: ShardId, map: &ClusterMap) -> io::Result<()> {
        let _arranging = self.arranging.lock().await;
        if self.log_writer().log().group(shard).forgotten {
            retire::clear::<R>(self.ground().base.clone(), shard).await?;
        }
        let state = self.open_state(shard).await?;
        self.start_group(shard, state, map).await
    }

    /// Takes a replica out of service; what it has stays until [`Groups::forget_replica`].
    pub(super) async fn halt_replica(&self, shard: ShardId) -> Option<(Arc<Shard<R>>, Halted)> {
        let _arranging = self.arranging.lock().await;
        let replica = self.router.host().remove(shard)?;
        self.router.drop_feed(shard);
        let halted = replica.halt().await;
        halted.map_err(|error| self.stick(shard, &error)).ok().map(|halted| (replica, halted))
    }

    /// Removes what a replica has that was taken out of service.
    pub(super) async fn forget_replica(&self, replica: &Shard<R>, halted: Halted) {
        let _arranging = self.arranging.lock().await;
        if let Err(error) = replica.retire(halted).await {
            self.stick(replica.id(), &error);
        }
    }

    fn stick(&self, shard: ShardId, error: &io::Error) {
        tracing::error!(%shard, %error, "cannot remove a replica; the node stops");
        // Only the first one matters: the node stops.
        let _: Result<(), _> = self.stuck.set((shard, error.to_string()));
    }

    /// Initialises what this node is to initialise, and keeps the map up to date.
    fn join_cluster(self: &Arc<Self>, membership: &Membership) {
        if let Some(seed) = &membership.seed {
            let first = ClusterMap::of_seed(seed);
            // Not those that a move starts here later: their groups are there already.
            let started = self.shards();
            self.watch(initialize(started, first.clone(), membership.node_id));
            if initializer(&first, ShardId::META) == Some(membership.node_id) {
                self.watch(registration::enter_map(self.router.clone(), seed.clone()));
            }
        }
        self.watch(self.router.clone().follow_map());
        self.watch(self.clone().watch_peers());
        self.place(placement::replicas::run(self.clone()));
        self.place(placement::steward::run(self.router.clone()));
        self.place(placement::planner::run(self.router.clone(), self.replace_after.subscribe()));
    }

    /// Runs a task that starts, stops or moves groups, until the groups are to stop.
    fn place(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.placing_stop.clone();
        let task: BoxFuture<'static, ()> = Box::pin(task);
        let task = async move {
            // It was to end early.
            let _: Option<()> = stop.run_until_cancelled(task).await;
        };
        let _task = R::spawn(self.placing.track_future(task));
    }

    /// Connects to every node that the map knows.
    async fn watch_peers(self: Arc<Self>) {
        let mut map = self.router.watch_map();
        loop {
            let known = map.borrow_and_update().clone();
            let node = self.router.node_id();
            for peer in known.nodes().filter(|peer| Some(peer.id) != node) {
                self.transport.set_peer(peer.id, &peer.peer_address);
            }
            if map.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits for a group to fail.
    pub async fn failed(&self) -> GroupsError {
        loop {
            R::sleep(LOOK_EVERY).await;
            if let Some((shard, why)) = self.stuck.get() {
                return GroupsError::Failed { shard: *shard, why: why.clone() };
            }
            for shard in self.shards() {
                if let Some(why) = shard.failure() {
                    tracing::error!(shard = %shard.id(), why, "a group failed; the node stops");
                    return GroupsError::Failed { shard: shard.id(), why };
                }
            }
        }
    }

    /// Hands the lead of every group to another voter, while requests are still served.
    pub async fn hand_over(&self) {
        let map = self.router.map();
        future::join_all(self.shards().into_iter().map(|shard| hand_over(shard, &map))).await;
    }

    /// Takes a last checkpoint, then stops the groups and the log.
    pub async fn stop(&self) {
        self.placing_stop.cancel();
        self.placing.close();
        self.placing.wait().await;
        self.checkpoints_stop.cancel();
        self.checkpoints.close();
        self.checkpoints.wait().await;
        future::join_all(self.shards().into_iter().map(stop)).await;
        if let Some(writer) = self.writer() {
            writer.stop();
        }
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Initialises those of a founder's groups that are this node's to initialise.
async fn initialize<R: Runtime>(started: Vec<Arc<Shard<R>>>, map: ClusterMap, node: NodeId) {
    let addresses: std::collections::BTreeMap<NodeId, String> =
        map.nodes().map(|node| (node.id, node.peer_address)).collect();
    for here in started {
        let shard = here.id();
        if initializer(&map, shard) != Some(node) && !mutant!(FoundersAlone) {
            continue;
        }
        let members: Members = map
            .replicas(shard)
            .into_iter()
            .filter(|id| !mutant!(FoundersAlone) || *id == node)
            .map(|id| {
                let address = addresses.get(&id).cloned().unwrap_or_default();
                (id.0, Member::new(address))
            })
            .collect();
        if let Err(error) = here.initialize(members).await {
            tracing::error!(%shard, %error, "cannot initialise a group");
        }
    }
}

async fn stop<R: Runtime>(shard: Arc<Shard<R>>) {
    shard.stop().await;
}

/// Until it is done, or nobody is left to take over.
async fn hand_over<R: Runtime>(shard: Arc<Shard<R>>, map: &ClusterMap) {
    // One that drains or leaves would hand it on at once.
    let stays = |node| map.node(node).is_some_and(|node| node.state == NodeState::Active);
    while shard.is_leader() {
        let may = |node| stays(node) && shard.reaches(node) && shard.trails(node.0).is_none();
        let to = shard.successor(may);
        let Some(to) = to.or_else(|| shard.successor(|node| shard.reaches(node))) else { return };
        shard.hand_over_to(to).await;
    }
}

/// The founder that initialises a group, so that leaders start out spread.
pub(super) fn initializer(map: &ClusterMap, shard: ShardId) -> Option<NodeId> {
    let replicas = map.replicas(shard);
    let count = replicas.len().max(1);
    replicas.get(usize::from(shard.0) % count).copied()
}
