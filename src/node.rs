//! Builds and joins every layer; the only file that knows all.
//!
//! ```text
//!  data directory ─► listeners ─► formation ─► log, base ─► shards ─► checkpointer, guards
//!                        │                                     │
//!                        └── gateway, peers ──► router ◄───────┘
//! ```
//!
//! Clients and peers are answered from the first moment on; until the groups are there, with
//! `not_ready`. Stopping goes the other way: leadership is handed over while requests are still
//! served, then streams end, then connections, then a last checkpoint is taken.

mod base;
mod compaction;
mod formation;
mod groups;
mod guard;
mod membership_file;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::SystemClock;
use crate::config::Config;
use crate::gateway::limits::GatewayLimits;
use crate::gateway::{Gateway, metrics};
use crate::node::formation::{Formation, Receptionist};
use crate::node::groups::Groups;
use crate::node::membership_file::{MembershipError, MembershipFile};
use crate::proto::internal as pb;
use crate::router::serve::Server;
use crate::router::{self, Router};
use crate::shard::host::Host;
use crate::shard::runtime::TokioRuntime;
use crate::shard::transport::tcp::Tcp;
use crate::store::identity::{DataDir, Expected, Refusal};

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
    #[error("cannot listen on {address} ({setting}): {error}")]
    Listen {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The log, the base or a group failed.
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
    /// The process's metrics were set up before.
    #[error("cannot set up metrics: {0}")]
    Metrics(String),
}

/// Runs a node until `shutdown` is cancelled.
///
/// # Errors
/// Why it could not start, or had to stop. Nothing on disk is changed by a start that fails.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let directory = DataDir::open(&config.node.data_dir, &Expected::default())?;
    let data_dir = directory.path().to_path_buf();
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
    let options = router::Options {
        request_timeout: config.limits.request_timeout,
        stall_after: config.raft.election_timeout_max + config.raft.heartbeat_interval,
    };
    let router = Router::new(host.clone(), tcp.clone(), Arc::new(SystemClock), options);
    host.set_upper(Arc::new(Server(router.clone())));
    let join = config.node.join.clone();
    let formation = Formation::new(hello, join, file, router.clone(), shutdown.clone());
    if let Some(membership) = membership {
        formation.resume(membership);
    }

    let groups = Groups::new(config.clone(), data_dir, router.clone(), tcp.clone());
    router.set_control(Arc::new(groups::NodeControl(formation.clone(), groups.clone())));
    let receptionist = Arc::new(Receptionist(formation.clone()));
    let serving_peers = tokio::spawn(tcp.clone().serve(peers, host, receptionist));
    let gateway_stop = CancellationToken::new();
    let gateway = Gateway::new(
        router.clone(),
        Arc::new(SystemClock),
        gateway_limits(&config),
        metrics,
        gateway_stop.clone(),
    );
    tracing::info!(client = %config.node.client_listen, peer = %config.node.peer_listen,
        "listening");
    let serving_clients = tokio::spawn(gateway.serve(clients));

    let outcome = async {
        let Some(membership) = formation.membership().await else { return Ok(()) };
        groups.start(membership, &formation, &tasks).await?;
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            error = groups.failed() => Err(error.into()),
            (address, theirs) = formation.foreign_neighbour() => {
                Err(Error::OtherCluster { directory: config.node.data_dir.clone(), address, theirs })
            }
        }
    }
    .await;

    stop(&config, &router, &groups, gateway_stop, serving_clients).await;
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    peers_stop.cancel();
    if serving_peers.await.is_err() {
        tracing::error!("serving peers ended with a panic");
    }
    outcome
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
    })
}

fn gateway_limits(config: &Config) -> GatewayLimits {
    GatewayLimits {
        connections_max: config.limits.connections_max,
        sessions_max: config.limits.sessions_max,
        follows_per_session_max: config.limits.follows_per_session_max,
        posts_in_flight_per_session_max: config.limits.posts_in_flight_per_session_max,
        text_bytes_max: config.limits.text_bytes_max.as_usize(),
        drain_timeout: config.node.shutdown_timeout.min(Duration::from_secs(5)),
        ..GatewayLimits::default()
    }
}

/// Stops serving so that clients notice as little as can be.
async fn stop(
    config: &Config,
    router: &Arc<Router>,
    groups: &Arc<Groups>,
    gateway_stop: CancellationToken,
    serving_clients: tokio::task::JoinHandle<()>,
) {
    let deadline = tokio::time::Instant::now() + config.node.shutdown_timeout;
    let handing_over = tokio::time::timeout_at(deadline, groups.hand_over());
    if handing_over.await.is_err() {
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
