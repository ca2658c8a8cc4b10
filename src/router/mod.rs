//! From a request to the replica that can answer it: room → slot → shard → leader, with safe
//! retries.
//!
//! A node without a replica of a shard serves its rooms all the same, by forwarding. A command is
//! retried with the same bytes, and so the same request id, until the deadline: that is safe, since
//! `apply` recognises repeats.

mod audit;
mod clock_watch;
pub mod feed;
mod forward;
mod leaders;
mod map;
pub mod operator;
mod placement;
mod read;
mod relay;
pub mod serve;
mod status;
pub mod verify;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::chat::codec;
use crate::chat::command::{Done, Reply, Request};
use crate::clock::Clock;
use crate::delivery::hub::Hub;
use crate::error::{Code, Error};
use crate::id::{NodeId, RequestId, ShardId};
use crate::meta::ClusterMap;
use crate::presence::{self, Presence};
use crate::router::feed::Feed;
use crate::router::forward::Forwarder;
use crate::shard::Refused;
use crate::shard::host::Host;
use crate::shard::runtime::{Runtime, Select2, TokioRuntime};
use crate::shard::transport::Transport;
use crate::shard::watch;

pub use crate::router::status::Readiness;

/// Waits between attempts, in milliseconds; the last one repeats.
const BACKOFF_MS: [u64; 5] = [2, 5, 10, 20, 40];

/// What a read must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Everything acknowledged before the read began.
    Linearizable,
    /// What the replica asked has applied.
    Local,
}

/// What the router asks of the node as a whole.
pub trait Control: Send + Sync + 'static {
    /// Forms a cluster of the nodes that have joined; returns its id.
    fn init_cluster(&self, nodes: usize, shards: u16) -> BoxFuture<'_, Result<String, Error>>;
    /// Rewrites this node's base; returns its size in bytes before and after.
    fn compact(&self) -> BoxFuture<'_, Result<(u64, u64), Error>>;
    /// Notes that this node's state of a shard is to be set aside at its next start.
    fn set_aside_at_start(&self, shard: ShardId) -> BoxFuture<'_, Result<(), Error>>;
    /// Bytes that this node's data takes on disk.
    fn disk_bytes(&self) -> u64;
    /// Sessions, WebSockets, event streams and long polls of this node's clients.
    fn streams(&self) -> usize;
}

/// The router's settings.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a request may take, retries included.
    pub request_timeout: Duration,
    /// A replica that sees no leader for this long ends its streams.
    pub stall_after: Duration,
}

impl Options {
    /// How long a replica may see no leader before its streams had better go on elsewhere: a first
    /// election takes less than two of the longest election timeouts.
    pub fn stall_after(election_timeout_max: Duration) -> Duration {
        3 * election_timeout_max
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            request_timeout: Duration::from_secs(10),
            stall_after: Options::stall_after(Duration::from_millis(500)),
        }
    }
}

/// Routes requests from this node to wherever they can be answered.
pub struct Router<R: Runtime = TokioRuntime> {
    host: Arc<Host<R>>,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    presence: Arc<Presence>,
    options: Options,
    node: OnceLock<NodeId>,
    map: watch::Sender<Arc<ClusterMap>>,
    leaders: Mutex<BTreeMap<ShardId, NodeId>>,
    /// Held by whoever asks the other nodes who leads.
    looking: tokio::sync::Mutex<()>,
    forwarders: Mutex<BTreeMap<NodeId, Forwarder>>,
    feeds: RwLock<BTreeMap<ShardId, Arc<Feed>>>,
    control: OnceLock<Arc<dyn Control>>,
    stopping: AtomicBool,
    /// Why the cluster does not take this node, if it does not.
    refused: Mutex<Option<String>>,
    /// When each shard was last seen to have a leader.
    led: Mutex<BTreeMap<ShardId, R::Instant>>,
    disk_full: AtomicBool,
    /// How many requests to the meta group there were; tells them apart.
    meta_requests: AtomicU32,
}

impl<R: Runtime> std::fmt::Debug for Router<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("node", &self.node).finish_non_exhaustive()
    }
}

impl<R: Runtime> Router<R> {
    /// A router that knows no cluster yet.
    pub fn new(
        host: Arc<Host<R>>,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Arc<Router<R>> {
        Arc::new(Router {
            host,
            transport,
            presence: Presence::new(clock.clone()),
            clock,
            options,
            node: OnceLock::new(),
            map: watch::Sender::new(Arc::default()),
            leaders: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            forwarders: Mutex::default(),
            feeds: RwLock::default(),
            control: OnceLock::new(),
            stopping: AtomicBool::new(false),
            refused: Mutex::default(),
            led: Mutex::default(),
            disk_full: AtomicBool::new(false),
            meta_requests: AtomicU32::new(0),
        })
    }

    /// Says who acts for the node as a whole; once.
    pub fn set_control(&self, control: Arc<dyn Control>) {
        assert!(self.control.set(control).is_ok(), "node wires the router once");
    }

    /// Says which node this is; once.
    pub fn set_node_id(&self, node: NodeId) {
        assert!(self.node.set(node).is_ok(), "a node's id never changes");
    }

    /// What this node knows of who is there.
    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// Tells the other nodes of who is here, for as long as this is polled.
    pub async fn tell_presence(self: Arc<Self>) {
        let (presence, transport) = (self.presence.clone(), self.transport.clone());
        let peers = move || {
            let map = self.map();
            let others = map.nodes().map(|node| node.id).filter(|id| Some(*id) != self.node_id());
            others.collect()
        };
        presence::peers::run::<R>(presence, transport, peers).await;
    }

    /// The groups of this node.
    pub fn host(&self) -> &Arc<Host<R>> {
        &self.host
    }

    /// What feeds a shard's followers on this node, made when first asked for.
    pub fn feed(&self, shard: ShardId) -> Arc<Feed> {
        let mut feeds = self.feeds.write().expect("no holder of the lock panics");
        feeds.entry(shard).or_default().clone()
    }

    /// Ends the subscriptions at a replica that was removed from this node, which go on elsewhere. A
    /// later replica of the shard gets another feed.
    pub fn drop_feed(&self, shard: ShardId) {
        let dropped = self.feeds.write().expect("no holder of the lock panics").remove(&shard);
        if let Some(feed) = dropped {
            let moved = Error::new(Code::Unavailable, "this replica has moved: follow elsewhere");
            feed.hub().close(&moved);
        }
    }

    fn hubs(&self) -> Vec<(ShardId, Hub)> {
        let feeds = self.feeds.read().expect("no holder of the lock panics");
        feeds.iter().map(|(shard, feed)| (*shard, feed.hub().clone())).collect()
    }

    /// This node's id, once it has one.
    pub fn node_id(&self) -> Option<NodeId> {
        self.node.get().copied()
    }

    /// Refuses new commands while the disk is nearly full.
    pub fn set_disk_full(&self, full: bool) {
        if self.disk_full.swap(full, Ordering::Relaxed) != full {
            match full {
                true => tracing::error!("the disk is nearly full: posts are refused, reads go on"),
                false => tracing::info!("there is space on the disk again: posts are accepted"),
            }
        }
    }

    /// Ends every stream and takes no more; for a node that stops.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let error = Error::new(Code::ShuttingDown, "the node is stopping: follow again elsewhere");
        for (_, hub) in self.hubs() {
            hub.close(&error);
        }
    }

    /// Forms a cluster of the nodes that have joined; returns its id.
    ///
    /// # Errors
    /// [`Code::AlreadyInitialized`]; [`Code::Unavailable`] when fewer nodes than asked for have
    /// joined.
    pub async fn init_cluster(&self, nodes: usize, shards: u16) -> Result<String, Error> {
        self.control()?.init_cluster(nodes, shards).await
    }

    /// Rewrites this node's base; returns its size in bytes before and after.
    ///
    /// # Errors
    /// When the disk has no room for it, or fails.
    pub async fn compact(&self) -> Result<(u64, u64), Error> {
        self.control()?.compact().await
    }

    fn control(&self) -> Result<&Arc<dyn Control>, Error> {
        let starting = || Error::new(Code::NotReady, "the node is starting");
        self.control.get().ok_or_else(starting)
    }

    /// Executes a command on its target's shard, retrying safely until the request deadline.
    ///
    /// # Errors
    /// The rules' rejection; or why no leader could be reached in time, which leaves open whether
    /// the command was applied if the error says so.
    pub async fn execute(&self, request: Request) -> Result<Done, Error> {
        let shard = self.shard_of(&request.command)?;
        self.propose(shard, codec::encode_request(&request)).await
    }

    /// Proposes an encoded request to a shard, wherever its leader is.
    pub(crate) async fn propose(&self, shard: ShardId, request: Bytes) -> Result<Done, Error> {
        let mut maybe_applied = false;
        let mut tries = 0;
        let ask = |leader| {
            tries += 1;
            let mut request = request.clone();
            if mutant!(RetriesWithNewId)
                && tries > 1
                && let Ok(mut other) = codec::decode_request(&request)
            {
                other.id = RequestId::mint(other.id.unix_ms(), [tries; 10]);
                request = codec::encode_request(&other);
            }
            self.propose_at(shard, leader, request)
        };
        let reply = self.at_leader(shard, &mut maybe_applied, ask).await;
        let flag = |error: Error| match maybe_applied {
            true => error.maybe_applied(),
            false => error,
        };
        reply?.map_err(|rejection| flag(Error::from(rejection)))
    }

    async fn propose_at(
        &self,
        shard: ShardId,
        node: NodeId,
        request: Bytes,
    ) -> Result<Reply, Refused> {
        if Some(node) == self.node_id() {
            let replica = self.host.get(shard).ok_or_else(|| crate::shard::not_leader(None))?;
            self.check_space()?;
            return replica.propose(request).await;
        }
        let forward = forward::Request::Propose(request);
        match self.forwarder(node).ask(shard, forward).await? {
            forward::Reply::Reply(reply) => codec::decode_reply(reply).map_err(|_| odd_reply()),
            _ => Err(odd_reply()),
        }
    }

    pub(crate) fn check_space(&self) -> Result<(), Refused> {
        if !self.disk_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let error = Error::new(Code::DiskFull, "the leader's disk is nearly full; reads go on");
        Err(Refused { error: error.retry_after(1000), leader: None })
    }

    /// Asks a shard's leader, wherever it is, until one answers or the deadline passes. A leader is
    /// given up once another is known: one that lost its power answers nothing, not even that.
    async fn at_leader<T, F>(
        &self,
        shard: ShardId,
        maybe_applied: &mut bool,
        mut ask: impl FnMut(NodeId) -> F + Send,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Refused>> + Send,
        T: Send,
    {
        let mut last = Error::new(Code::Unavailable, "the shard has no leader");
        let mut asked = false;
        let attempts = async {
            let mut hint = None;
            for attempt in 0.. {
                if let Some(leader) = self.candidate(shard, hint.take(), attempt) {
                    asked = true;
                    let answer = match R::select2(ask(leader), self.outranked(shard, leader)).await
                    {
                        Select2::First(answer) => answer,
                        Select2::Second(newer) => Err(leaders::given_up(newer)),
                    };
                    match answer {
                        Ok(answer) => {
                            self.note_leader(shard, Some(leader));
                            return Ok(answer);
                        }
                        Err(refused) => {
                            *maybe_applied |= refused.error.may_have_applied;
                            if !self.worth_a_retry(&refused.error) {
                                return Err(refused.error);
                            }
                            last = refused.error;
                            hint = refused.leader;
                            self.note_leader(shard, hint);
                        }
                    }
                }
                let wait = BACKOFF_MS[(attempt as usize).min(BACKOFF_MS.len() - 1)];
                R::sleep(Duration::from_millis(wait)).await;
            }
            unreachable!("the loop above has no end")
        };
        let error = match R::timeout(self.options.request_timeout, attempts).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            // The attempt that was cut off may have been applied.
            Err(_) => {
                *maybe_applied |= asked && !mutant!(TimeoutMeansRefused);
                match last.code {
                    Code::NotLeader => Error::new(Code::Unavailable, "the shard has no leader"),
                    _ => last,
                }
            }
        };
        Err(if *maybe_applied { error.maybe_applied() } else { error })
    }

    fn worth_a_retry(&self, error: &Error) -> bool {
        let here = matches!(error.code, Code::NotLeader | Code::Unavailable | Code::ShuttingDown);
        here && !self.stopping.load(Ordering::Relaxed)
    }

    fn forwarder(&self, node: NodeId) -> Forwarder {
        let mut forwarders = self.forwarders.lock().expect("no holder of the lock panics");
        let start = || Forwarder::start::<R>(node, self.transport.clone());
        forwarders.entry(node).or_insert_with(start).clone()
    }
}

fn odd_reply() -> Refused {
    let error = Error::new(Code::Internal, "a peer's reply makes no sense").maybe_applied();
    Refused { error, leader: None }
}
