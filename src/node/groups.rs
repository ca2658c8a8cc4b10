//! This node's groups: opened, initialised, watched, handed over and stopped.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::{self, BoxFuture};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::error::Error;
use crate::id::{NodeId, ShardId};
use crate::meta::{self, ClusterMap};
use crate::node::base::{NodeBase, directory_bytes};
use crate::node::formation::{Formation, Membership};
use crate::node::{compaction, guard};
use crate::router::{Control, Router};
use crate::shard::log_writer::LogWriter;
use crate::shard::runtime::TokioRuntime;
use crate::shard::transport::tcp::{Local, Tcp};
use crate::shard::types::{Member, Members};
use crate::shard::{Parts, Shard, Timing, checkpointer};
use crate::store::log::{Log, LogOptions, OpenError};
use crate::store::sled_base::{self, SledBase, SledOptions};
use crate::store::state::{ShardState, StateOptions};

/// How often a group that leads is asked whether it still does, while it is handed over.
const HAND_OVER_LOOK: Duration = Duration::from_millis(5);
/// How long a handed over group may take to find its leader before the next attempt.
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(500);
/// How often groups are looked at for a failure.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why groups could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum GroupsError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// The base cannot be opened.
    #[error(transparent)]
    Base(#[from] sled_base::OpenError),
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

/// The groups of this node, with what they share.
pub(super) struct Groups {
    config: Config,
    data_dir: PathBuf,
    router: Arc<Router>,
    tcp: Arc<Tcp>,
    opened: OnceLock<Opened>,
    /// Held while groups start, and while the base is replaced under those that have.
    pub(super) arranging: Arc<tokio::sync::Mutex<()>>,
    /// Ends the checkpointer, which then takes a last checkpoint.
    checkpoints_stop: CancellationToken,
    checkpoints: TaskTracker,
}

/// What is there once the node belongs to a cluster.
pub(super) struct Opened {
    pub writer: LogWriter,
    pub base: Arc<NodeBase>,
}

impl Groups {
    pub fn new(
        config: Config,
        data_dir: PathBuf,
        router: Arc<Router>,
        tcp: Arc<Tcp>,
    ) -> Arc<Groups> {
        Arc::new(Groups {
            config,
            data_dir,
            router,
            tcp,
            opened: OnceLock::new(),
            arranging: Arc::default(),
            checkpoints_stop: CancellationToken::new(),
            checkpoints: TaskTracker::new(),
        })
    }

    pub fn opened(&self) -> Option<&Opened> {
        self.opened.get()
    }

    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    pub fn data_dir(&self) -> &PathBuf {
        &self.data_dir
    }

    pub fn sled_options(&self) -> SledOptions {
        SledOptions { cache_bytes: self.config.store.sled_cache.0 }
    }

    fn shards(&self) -> Vec<Arc<Shard<TokioRuntime>>> {
        self.router.host().all()
    }

    /// Opens what is on disk, starts every group that has a replica here, and what watches them.
    pub async fn start(
        self: &Arc<Self>,
        membership: Membership,
        formation: &Arc<Formation>,
        tasks: &TaskTracker,
    ) -> Result<(), GroupsError> {
        let _arranging = self.arranging.lock().await;
        let node = membership.node_id;
        self.tcp.set_local(Local { cluster_id: membership.cluster_id.clone(), node_id: node });
        self.router.set_node_id(node);
        let space = guard::Guard::new(&self.config, &self.data_dir, self.router.clone());
        let (log, base) = self.open_disk().await?;
        let writer = LogWriter::start::<TokioRuntime>(Arc::new(log), space.clone());
        let parts = Parts {
            node,
            cluster_id: membership.cluster_id.clone(),
            writer: writer.clone(),
            peers: membership.map.nodes().map(|peer| peer.id).filter(|id| *id != node).collect(),
            transport: self.tcp.clone(),
            clock: Arc::new(SystemClock),
            timing: Timing {
                heartbeat_interval: self.config.raft.heartbeat_interval,
                election_timeout_min: self.config.raft.election_timeout_min,
                election_timeout_max: self.config.raft.election_timeout_max,
            },
        };
        let opened = Opened { writer: writer.clone(), base: base.clone() };
        assert!(self.opened.set(opened).is_ok(), "groups start once");

        let map = self.start_groups(&membership, &parts, &base).await?;
        self.router.set_map(map);
        tasks.spawn(guard::run(space, formation.shutdown().clone()));
        tasks.spawn(until(formation.shutdown().clone(), self.router.clone().watch_leaders()));
        tasks.spawn(until(formation.shutdown().clone(), self.router.clone().watch_clock()));
        tasks.spawn(until(formation.shutdown().clone(), guard::report(self.router.clone())));
        let outgrown =
            compaction::run_when_outgrown(self.clone(), self.config.store.compact_over.0);
        tasks.spawn(until(formation.shutdown().clone(), outgrown));
        let options = checkpointer::Options {
            interval: self.config.store.checkpoint_interval,
            overlay_bytes_max: self.config.store.overlay_bytes.as_usize(),
        };
        let host = self.router.host().clone();
        let stop = self.checkpoints_stop.clone();
        self.checkpoints.spawn(checkpointer::run::<TokioRuntime>(host, writer, options, stop));
        self.join_cluster(membership, formation, tasks);
        Ok(())
    }

    async fn open_disk(&self) -> Result<(Log, Arc<NodeBase>), GroupsError> {
        let log_options = LogOptions {
            purge_threshold_bytes: self.config.store.log_purge_threshold.0,
            ..LogOptions::new(self.data_dir.join("log"))
        };
        let (rooms, sled_options) = (self.data_dir.join("rooms"), self.sled_options());
        let opening = tokio::task::spawn_blocking(move || {
            compaction::finish_interrupted(&rooms)
                .map_err(|error| GroupsError::Start { shard: ShardId::META, error })?;
            let log = Log::open(log_options)?;
            let base = SledBase::open(&rooms, &sled_options)?;
            Ok((log, NodeBase::new(Arc::new(base))))
        });
        opening.await.expect("opening the disk does not panic")
    }

    /// Starts the groups; returns the newest map that is here.
    async fn start_groups(
        &self,
        membership: &Membership,
        parts: &Parts,
        base: &Arc<NodeBase>,
    ) -> Result<ClusterMap, GroupsError> {
        let node = membership.node_id;
        for peer in membership.map.nodes().filter(|peer| peer.id != node) {
            self.tcp.set_peer(peer.id, &peer.peer_address);
        }
        let mut map = membership.map.clone();
        let here = |map: &ClusterMap| {
            let shards = map.shards().filter(|(_, replicas)| replicas.contains(&node));
            shards.map(|(shard, _)| shard).collect::<Vec<_>>()
        };
        let mut waiting = here(&map);
        waiting.reverse();
        while let Some(shard) = waiting.pop() {
            let failed = |error| GroupsError::Start { shard, error };
            let (base, options) = (base.clone(), StateOptions::default());
            let opening =
                tokio::task::spawn_blocking(move || ShardState::open(base, shard, options));
            let state = opening.await.expect("opening a shard does not panic").map_err(failed)?;
            if shard == ShardId::META
                && let Some(blob) = state.blob(meta::MAP_BLOB)
                && let Ok(newer) = ClusterMap::decode(&blob)
                && newer.is_formed()
            {
                map = newer;
                waiting = here(&map).into_iter().filter(|id| *id != shard).rev().collect();
            }
            let feed = self.router.feed(shard);
            let started = Shard::start(shard, parts, state, feed).await.map_err(failed)?;
            self.router.host().insert(started);
        }
        Ok(map)
    }

    /// Initialises what this node is to initialise, and keeps the map up to date.
    fn join_cluster(
        self: &Arc<Self>,
        membership: Membership,
        formation: &Arc<Formation>,
        tasks: &TaskTracker,
    ) {
        let shutdown = formation.shutdown().clone();
        let has_meta = self.router.host().get(ShardId::META).is_some();
        if let Some(seed) = membership.seed {
            let first = ClusterMap::of_seed(&seed);
            tasks.spawn(initialize(self.clone(), first.clone(), membership.node_id));
            if initializer(&first, ShardId::META) == Some(membership.node_id) {
                tasks.spawn(formation.clone().tell_founders(seed.clone()));
                tasks.spawn(formation.clone().enter_map(seed));
            }
        }
        if has_meta {
            tasks.spawn(until(shutdown.clone(), self.clone().watch_map()));
        } else {
            tasks.spawn(formation.clone().follow_map());
        }
        tasks.spawn(until(shutdown.clone(), self.clone().watch_peers()));
        tasks.spawn(formation.clone().enter_self());
    }

    /// Takes the map from this node's replica of the meta group whenever that applies something.
    async fn watch_map(self: Arc<Self>) {
        let Some(meta) = self.router.host().get(ShardId::META) else { return };
        let mut applied = meta.replica().watch_applied();
        loop {
            let blob = meta.replica().read().blob(meta::MAP_BLOB);
            if let Some(map) = blob.and_then(|blob| ClusterMap::decode(&blob).ok()) {
                self.router.set_map(map);
            }
            if applied.changed().await.is_err() {
                return;
            }
        }
    }

    /// Dials every node that the map knows.
    async fn watch_peers(self: Arc<Self>) {
        let mut map = self.router.watch_map();
        loop {
            let known = map.borrow_and_update().clone();
            let node = self.router.node_id();
            for peer in known.nodes().filter(|peer| Some(peer.id) != node) {
                self.tcp.set_peer(peer.id, &peer.peer_address);
            }
            if map.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits for a group to fail.
    pub async fn failed(&self) -> GroupsError {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
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
        future::join_all(self.shards().iter().map(|shard| hand_over(shard))).await;
    }

    /// Takes a last checkpoint, then stops the groups and the log.
    pub async fn stop(&self) {
        self.checkpoints_stop.cancel();
        self.checkpoints.close();
        self.checkpoints.wait().await;
        future::join_all(self.shards().iter().map(|shard| shard.stop())).await;
        if let Some(opened) = self.opened() {
            opened.writer.stop();
        }
    }
}

/// Until it is done, or nobody is left to take over.
async fn hand_over(shard: &Shard<TokioRuntime>) {
    while shard.is_leader() {
        let Some(to) = shard.successor(|node| shard.reaches(node)) else { return };
        shard.transfer_leader(to).await;
        let gone = async {
            while shard.is_leader() {
                tokio::time::sleep(HAND_OVER_LOOK).await;
            }
        };
        if tokio::time::timeout(HAND_OVER_PATIENCE, gone).await.is_err() {
            tracing::warn!(shard = %shard.id(), %to, "leadership was not taken; trying again");
        }
    }
}

/// The founder that initialises a group, so that leaders start out spread.
fn initializer(map: &ClusterMap, shard: ShardId) -> Option<NodeId> {
    let replicas = map.replicas(shard);
    let count = replicas.len().max(1);
    replicas.get(usize::from(shard.0) % count).copied()
}

async fn initialize(groups: Arc<Groups>, map: ClusterMap, node: NodeId) {
    let addresses: std::collections::BTreeMap<NodeId, String> =
        map.nodes().map(|node| (node.id, node.peer_address)).collect();
    for (shard, replicas) in map.shards() {
        let Some(here) = groups.router.host().get(shard) else { continue };
        if initializer(&map, shard) != Some(node) {
            continue;
        }
        let members: Members = replicas
            .into_iter()
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

/// Runs a task that has no end of its own until shutdown.
async fn until(shutdown: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = task => {}
    }
}

/// What the router asks of the node as a whole.
pub(super) struct NodeControl(pub Arc<Formation>, pub Arc<Groups>);

impl Control for NodeControl {
    fn init_cluster(&self, nodes: usize, shards: u16) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(self.0.found(nodes, shards))
    }

    fn compact(&self) -> BoxFuture<'_, Result<(u64, u64), Error>> {
        Box::pin(compaction::run(self.1.clone()))
    }

    fn disk_bytes(&self) -> u64 {
        directory_bytes(&self.1.data_dir)
    }
}
