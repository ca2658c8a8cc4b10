//! Builds and joins every layer; the only file that knows all.
//!
//! ```text
//!  data directory ─► listeners ─► formation ─► log, base ─► shards ─► checkpointer, guards
//!                        │                                     │
//!                        └── gateway, peers ──► router ◄───────┘
//! ```
//!
//! Clients and peers are answered from the first moment on; until the groups are there, with
//! `not_ready`. Stopping goes the other way: load balancers hear of it and streams end at once,
//! leadership is handed over while requests are still served, then connections end, then a last
//! checkpoint is taken.

mod base;
mod compaction;
mod drain;
mod formation;
pub mod groups;
mod guard;
mod limits;
mod membership_file;
mod placement;
pub mod recover;
mod registration;
mod repair;
mod storage;
pub mod systemd;
mod trimming;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::clock::SystemClock;
use crate::config::Config;
use crate::gateway::drain::Drain as ClientDrain;
use crate::gateway::limits::SharedLimits;
use crate::gateway::{Gateway, metrics};
use crate::id::ShardId;
use crate::meta::release;
use crate::node::compaction::Compactor;
use crate::node::drain::Drain;
use crate::node::formation::{Formation, Join, Receptionist};
use crate::node::groups::{Groups, Membership};
use crate::node::membership_file::{MembershipError, MembershipFile};
use crate::node::systemd::Supervisor;
use crate::proto::internal as pb;
use crate::router::serve::Server;
use crate::router::{self, Control, Router};
use crate::shard::host::Host;
use crate::shard::runtime::{TokioRuntime, tick_together};
use crate::shard::snapshot::Pace;
use crate::shard::transport::tcp::{Local, Tcp};
use crate::shard::{Timing, checkpointer};
use crate::store::identity::{DataDir, Expected, Refusal};
use crate::store::sled_base::SledOptions;

/// Why a node could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] Refusal),
    /// What the data directory says of the cluster cannot be used.
    #[error(transparent)]
    Membership(#[from] MembershipError),
    /// A port cannot be listened on.
    #[error(
        "cannot listen on {address}: {error}. Stop what uses that port, or give {setting} another"
    )]
    Listen {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The log or the base cannot be opened.
    #[error(transparent)]
    Storage(#[from] storage::StorageError),
    /// A group failed.
    #[error(transparent)]
    Groups(#[from] groups::GroupsError),
    /// The data directory is of one cluster, the nodes to join of another.
    #[error(
        "the node at {address} is of cluster {theirs}, but the data directory {} is of another \
         one: give this node its own data directory, or the right addresses to join",
        directory.display()
    )]
    OtherCluster {
        /// The data directory.
        directory: std::path::PathBuf,
        /// The neighbour.
        address: String,
        /// Its cluster.
        theirs: String,
    },
    /// The data directory is of a cluster that is no more.
    #[error(
        "the data directory {} is of a cluster that was lost: it was recovered from another node, as \
         cluster {theirs}, to which {address} belongs. Nothing here is of use to that: move the \
         directory away, and let this node join with an empty one",
        directory.display()
    )]
    Recovered {
        /// The data directory.
        directory: std::path::PathBuf,
        /// A node of the cluster that it has become.
        address: String,
        /// That cluster.
        theirs: String,
    },
    /// The data directory is of a node that runs already, at another address.
    #[error(
        "the data directory {} is that of node {node}, which runs at {address}: no node may run \
         twice; give this node its own data directory, or stop the other one",
        directory.display()
    )]
    RunsElsewhere {
        /// The data directory.
        directory: std::path::PathBuf,
        /// Where the node runs.
        address: String,
        /// Its id.
        node: u64,
    },
    /// A neighbour runs a release that this one does not work with.
    #[error(
        "this is release {ours}, and node {node} at {address} runs {theirs}: only neighbouring series of \
         releases work together; upgrade one series after another, each node in turn"
    )]
    TooFar {
        /// The other node's id.
        node: u64,
        /// Where it runs.
        address: String,
        /// Its release.
        theirs: String,
        /// This node's release.
        ours: String,
    },
    /// A recovery was begun here, and not finished.
    #[error(
        "`folkmoot cluster recover` was interrupted in {}: run it again, which finishes it",
        .0.display()
    )]
    RecoveryInterrupted(PathBuf),
    /// The process's metrics were set up before.
    #[error("cannot set up metrics: {0}")]
    Metrics(String),
}

/// Runs a node until `shutdown` is cancelled. `supervisor` hears how it stands. What may change
/// while a node runs is taken from `configs` whenever that changes.
///
/// # Errors
/// Why it could not start, or had to stop. Nothing on disk is changed by a start that fails.
pub async fn run(
    configs: watch::Receiver<Config>,
    shutdown: CancellationToken,
    supervisor: Supervisor,
) -> Result<(), Error> {
    let config = configs.borrow().clone();
    let directory = DataDir::open(&config.node.data_dir, &Expected::default())?;
    let data_dir = directory.path().to_path_buf();
    recover::check_finished(&data_dir)?;
    let clients = listen("node.client_listen", config.node.client_listen).await?;
    let peers = listen("node.peer_listen", config.node.peer_listen).await?;
    let metrics = metrics::install().map_err(|error| Error::Metrics(error.to_string()))?;

    let file = MembershipFile::new(directory);
    let membership = file.read()?;
    let hello = hello(&config, &clients, &peers, file.instance()?)?;
    let tasks = TaskTracker::new();
    // Peers are served until the last group has stopped.
    let peers_stop = CancellationToken::new();
    let tcp = Tcp::new(peers_stop.clone());
    let host = Arc::new(Host::<TokioRuntime>::default());
    let options = router_options(&config);
    let router = Router::new(host.clone(), tcp.clone(), Arc::new(SystemClock), options);
    host.set_upper(Arc::new(Server(Arc::downgrade(&router))));
    let supervised = AbortOnDropHandle::new(tokio::spawn(supervisor.clone().watch(router.clone())));
    let formation = Formation::new(hello, join(&config), file, router.clone(), shutdown.clone());
    let is_new = membership.is_none();
    if let Some(membership) = membership {
        formation.resume(membership);
    }
    let groups = groups(&config, &router, &tcp, &shutdown);
    let compactor = compactor(&config, &groups, data_dir);
    let gateway_stop = CancellationToken::new();
    let clients_drain = ClientDrain::new(gateway_stop.clone());
    let control = NodeControl(formation.clone(), compactor.clone(), clients_drain.clone());
    router.set_control(Arc::new(control));
    let receptionist = Arc::new(Receptionist(formation.clone()));
    let serving_peers = tokio::spawn(tcp.clone().serve(peers, host, receptionist));
    let drain = Drain::new(clients_drain.clone(), groups.clone());
    let limits = SharedLimits::new(limits::of_gateway(&config));
    let gateway =
        Gateway::new(router.clone(), Arc::new(SystemClock), limits.clone(), metrics, clients_drain);
    let reloading = reload(limits, groups.clone(), configs.clone());
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(reloading));
    let following = drain.clone().follow_map(router.clone());
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(following));
    tracing::info!(client = %config.node.client_listen, peer = %config.node.peer_listen,
        "listening");
    let serving_clients = tokio::spawn(gateway.serve(clients));

    if is_new {
        supervisor.ready(); // a cluster is formed, or joined, of nodes that run
    }
    let started = || supervisor.ready();
    let outcome =
        take_part(&config, &shutdown, &router, &tcp, &formation, compactor, &tasks, started).await;
    supervisor.stopping();

    let config = configs.borrow().clone();
    stop(&config, &router, &groups, drain, gateway_stop, serving_clients).await;
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    peers_stop.cancel();
    if serving_peers.await.is_err() {
        tracing::error!("serving peers ended with a panic");
    }
    drop(supervised);
    outcome
}

/// Takes part in the cluster once this node is of one, until a group fails or the node is to stop.
/// `started` is called when the groups have.
#[expect(clippy::too_many_arguments, reason = "the wiring of a node, called once")]
async fn take_part(
    config: &Config,
    shutdown: &CancellationToken,
    router: &Arc<Router>,
    tcp: &Arc<Tcp>,
    formation: &Arc<Formation>,
    compactor: Compactor,
    tasks: &TaskTracker,
    started: impl FnOnce(),
) -> Result<(), Error> {
    let Some(membership) = formation.membership().await else { return Ok(()) };
    if let Some((address, theirs)) = formation.odd_neighbour().await {
        return Err(odd_neighbour(config, &membership.cluster_id, address, theirs));
    }
    tcp.set_local(Local { cluster_id: membership.cluster_id.clone(), node_id: membership.node_id });
    let groups = compactor.groups.clone();
    let space = guard::Guard::new(config, &compactor.data_dir, router.clone());
    let disk = storage::open(config, &compactor, space.clone()).await?;
    groups.start(membership.clone(), disk).await?;
    groups.register(formation.own_hello());
    started();
    tasks.spawn(guard::run(space, shutdown.clone()));
    for task in watchers(config, router, compactor, formation, &membership) {
        tasks.spawn(shutdown.clone().run_until_cancelled_owned(task));
    }
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        error = groups.failed() => Err(error.into()),
    }
}

fn join(config: &Config) -> Join {
    Join {
        addresses: config.node.join.clone(),
        token: config.node.join_token.clone().unwrap_or_default(),
    }
}

fn router_options(config: &Config) -> router::Options {
    router::Options {
        request_timeout: config.limits.request_timeout,
        stall_after: router::Options::stall_after(config.raft.election_timeout_max),
    }
}

fn compactor(config: &Config, groups: &Arc<Groups>, data_dir: PathBuf) -> Compactor {
    let cache_bytes = config.store.sled_cache.0;
    Compactor {
        groups: groups.clone(),
        data_dir,
        base_options: SledOptions { cache_bytes, ..SledOptions::default() },
        base: Arc::default(),
    }
}

fn groups(
    config: &Config,
    router: &Arc<Router>,
    tcp: &Arc<Tcp>,
    stop: &CancellationToken,
) -> Arc<Groups> {
    tick_together(config.raft.heartbeat_interval);
    let options = groups::Options {
        timing: Timing {
            heartbeat_interval: config.raft.heartbeat_interval,
            election_timeout_min: config.raft.election_timeout_min,
            election_timeout_max: config.raft.election_timeout_max,
        },
        checkpoints: checkpointer::Options {
            interval: config.store.checkpoint_interval,
            overlay_bytes_max: config.store.overlay_bytes.as_usize(),
        },
        pace: Pace::new(config.store.snapshot_bytes_per_second.0),
        replace_after: config.placement.replace_after,
    };
    Groups::new(options, router.clone(), tcp.clone(), Arc::new(SystemClock), stop.clone())
}

/// What a node does beside its groups, until it stops.
fn watchers(
    config: &Config,
    router: &Arc<Router>,
    compactor: Compactor,
    formation: &Arc<Formation>,
    membership: &Membership,
) -> Vec<BoxFuture<'static, ()>> {
    let over = config.store.compact_over.0;
    let mut tasks: Vec<BoxFuture<'static, ()>> = vec![
        Box::pin(guard::report(router.clone())),
        Box::pin(trimming::run(router.clone())),
        Box::pin(router.clone().tell_presence()),
        Box::pin(compaction::run_when_outgrown(compactor, over)),
    ];
    if let Some(seed) = &membership.seed
        && groups::initializer(&membership.map, ShardId::META) == Some(membership.node_id)
    {
        tasks.push(Box::pin(formation.clone().tell_founders(seed.clone())));
    }
    tasks.push(Box::pin(formation.clone().keep_map()));
    tasks
}

/// What the router asks of the node as a whole.
struct NodeControl(Arc<Formation>, Compactor, ClientDrain);

impl Control for NodeControl {
    fn init_cluster(
        &self,
        nodes: usize,
        shards: u16,
    ) -> BoxFuture<'_, Result<String, crate::error::Error>> {
        Box::pin(self.0.found(nodes, shards))
    }

    fn compact(&self) -> BoxFuture<'_, Result<(u64, u64), crate::error::Error>> {
        Box::pin(compaction::run(self.1.clone()))
    }

    fn set_aside_at_start(&self, shard: ShardId) -> BoxFuture<'_, Result<(), crate::error::Error>> {
        Box::pin(repair::note(self.1.data_dir.clone(), shard))
    }

    fn disk_bytes(&self) -> u64 {
        base::directory_bytes(&self.1.data_dir)
    }

    fn streams(&self) -> usize {
        self.2.streams()
    }
}

async fn listen(setting: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let listening = TcpListener::bind(address).await;
    listening.map_err(|error| Error::Listen { setting, address, error })
}

fn hello(
    config: &Config,
    clients: &TcpListener,
    peers: &TcpListener,
    instance: String,
) -> Result<pb::Hello, Error> {
    let at = |advertised: &Option<String>, listener: &TcpListener, setting, address| {
        let own = listener.local_addr();
        let own = own.map_err(|error| Error::Listen { setting, address, error })?;
        Ok::<_, Error>(advertised.clone().unwrap_or_else(|| own.to_string()))
    };
    let node = &config.node;
    Ok(pb::Hello {
        instance,
        node_id: 0,
        cluster_id: String::new(),
        client_address: at(
            &node.client_advertise,
            clients,
            "node.client_listen",
            node.client_listen,
        )?,
        peer_address: at(&node.peer_advertise, peers, "node.peer_listen", node.peer_listen)?,
        version: env!("CARGO_PKG_VERSION").into(),
        gateway: node.gateway,
        join_token: String::new(),
        former_cluster_ids: Vec::new(),
    })
}

fn odd_neighbour(config: &Config, ours: &str, address: String, theirs: pb::Hello) -> Error {
    let directory = config.node.data_dir.clone();
    let release = env!("CARGO_PKG_VERSION");
    if !release::work_together(release, &theirs.version) {
        let ours = release.to_owned();
        Error::TooFar { node: theirs.node_id, address, theirs: theirs.version, ours }
    } else if theirs.cluster_id == ours {
        Error::RunsElsewhere { directory, address, node: theirs.node_id }
    } else if theirs.former_cluster_ids.iter().any(|former| former == ours) {
        Error::Recovered { directory, address, theirs: theirs.cluster_id }
    } else {
        Error::OtherCluster { directory, address, theirs: theirs.cluster_id }
    }
}

/// Puts the settings of a changed configuration in force.
async fn reload(limits: SharedLimits, groups: Arc<Groups>, mut configs: watch::Receiver<Config>) {
    while configs.changed().await.is_ok() {
        let config = configs.borrow_and_update().clone();
        limits.set(limits::of_gateway(&config));
        groups.set_replace_after(config.placement.replace_after);
        groups.set_pace(config.store.snapshot_bytes_per_second.0);
    }
}

/// Stops serving so that clients notice as little as can be: begins as a drain does.
async fn stop(
    config: &Config,
    router: &Arc<Router>,
    groups: &Arc<Groups>,
    drain: Drain,
    gateway_stop: CancellationToken,
    serving_clients: tokio::task::JoinHandle<()>,
) {
    let begin = tokio::time::Instant::now();
    let deadline = begin + config.node.shutdown_timeout;
    let draining = tokio::time::timeout_at(deadline, drain.start());
    let grace = tokio::time::sleep_until(begin + config.node.drain_grace);
    let (drained, ()) = tokio::join!(draining, grace);
    if drained.is_err() {
        tracing::warn!("leadership could not be handed over in time");
    }
    router.stop();
    gateway_stop.cancel();
    match tokio::time::timeout_at(deadline, serving_clients).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => tracing::error!("serving clients ended with a panic"),
        Err(_) => tracing::warn!("some clients' requests did not end in time"),
    }
    groups.stop().await;
}
