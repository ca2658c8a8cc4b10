//! One Raft group: orders, replicates and applies the commands of the rooms and users of its slots.
//!
//! ```text
//!  propose ──► queue ──► one log entry of many commands ──► openraft ──► log writer (fsync) ─┐
//!                                                              │ AppendEntries               │
//!                                                              ▼                             ▼
//!                                                            peers ──── quorum on disk ──► commit
//!  reply ◄── state machine: chat::apply on the overlay, events to the hub ◄──────────────────┘
//! ```
//!
//! This layer is the only one that names openraft. It knows nothing of clients, rooms' followers
//! or other shards. Every replica applies the same entries in the same order, so `chat` decides
//! everything that must agree; here is only what makes an entry durable on a quorum.
//!
//! Who votes is changed by the group's leader (`membership.rs`), towards what the cluster map says.
//!
//! Left out: log entries are not compressed.

pub mod checkpointer;
mod confirm;
pub mod host;
mod inspect;
pub mod log_store;
pub mod log_writer;
mod lost;
pub mod membership;
pub mod network;
pub mod proposer;
pub mod reader;
mod rebuild;
pub mod recover;
pub mod retire;
pub mod runtime;
pub mod snapshot;
mod stamps;
pub mod state_machine;
#[cfg(test)]
mod tests;
pub mod transport;
pub mod types;
pub mod watch;
pub mod wire;

use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::{RaftServerMetrics, WaitError};
use openraft::{RaftMetrics, SnapshotPolicy};
use tokio::sync::mpsc;

use crate::chat::command::Reply;
use crate::clock::Clock;
use crate::error::{Code, Error};
use crate::id::{NodeId, ShardId};
pub use crate::shard::inspect::{Stamp, Status};
use crate::shard::log_store::GroupLog;
use crate::shard::log_writer::LogWriter;
use crate::shard::network::NetworkFactory;
use crate::shard::proposer::Proposal;
use crate::shard::runtime::{Instant, Runtime};
use crate::shard::snapshot::Pace;
use crate::shard::stamps::Stamps;
use crate::shard::state_machine::{CommitSink, Replica, StateMachine};
use crate::shard::transport::Transport;
use crate::shard::types::{Members, Types};
use crate::store::state::ShardState;

/// How long a purge is waited for until it is asked for again, and how many times.
const PURGE_WAIT: Duration = Duration::from_millis(20);
const PURGE_ATTEMPTS: u32 = 500;

/// openraft's handle on a group.
pub type Raft<R> = openraft::Raft<Types<R>, StateMachine>;

/// Raft's timing. Failover takes about `election_timeout_max` plus once more between minimum and
/// maximum.
#[derive(Debug, Clone)]
pub struct Timing {
    /// How often an idle leader shows that it is there.
    pub heartbeat_interval: Duration,
    /// The shortest election timeout.
    pub election_timeout_min: Duration,
    /// The longest election timeout; also the leader lease.
    pub election_timeout_max: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(300),
            election_timeout_max: Duration::from_millis(500),
        }
    }
}

/// What a group needs of its node.
pub struct Parts {
    /// This node.
    pub node: NodeId,
    /// Names the cluster in logs.
    pub cluster_id: String,
    /// The node's log.
    pub writer: LogWriter,
    /// The other nodes.
    pub peers: Vec<NodeId>,
    /// Reaches them.
    pub transport: Arc<dyn Transport>,
    /// Stamps commands.
    pub clock: Arc<dyn Clock>,
    /// Raft's timing.
    pub timing: Timing,
    /// How fast snapshots are sent.
    pub pace: Pace,
}

/// A request that a shard could not answer, with who might.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// The leader, if it is known and is not this node.
    pub leader: Option<NodeId>,
}

/// One replica of one Raft group on this node. Cheap to share; stops with [`Shard::stop`].
pub struct Shard<R: Runtime> {
    id: ShardId,
    node: NodeId,
    raft: Raft<R>,
    log: GroupLog,
    /// Why the log counts as lost, if it does.
    lost: OnceLock<String>,
    replica: Arc<Replica>,
    transport: Arc<dyn Transport>,
    pace: Pace,
    stamps: Arc<Stamps<R>>,
    proposals: mpsc::Sender<Proposal>,
    reads: mpsc::Sender<reader::Waiting>,
    /// When a leader of the group was last answered that it is one.
    heard: Mutex<Option<R::Instant>>,
    /// A leader that is not heard for this long is none any more.
    silence_max: Duration,
}

impl<R: Runtime> Shard<R> {
    /// Opens a group's log and starts its replica: replays what was committed, then takes part.
    ///
    /// # Errors
    /// When the log cannot be read, or does not reach back to the state's last checkpoint and the
    /// state cannot be had from a peer.
    pub async fn start(
        id: ShardId,
        parts: &Parts,
        state: ShardState,
        sink: Arc<dyn CommitSink>,
    ) -> io::Result<Arc<Shard<R>>> {
        let mut log = GroupLog::open(id, parts.writer.clone())?;
        let state = rebuild::complete::<R>(id, parts, state, log.purged()).await?;
        if parts.writer.log().group(id).forgotten {
            retire::recall(&parts.writer, id).await?;
        }
        if let Some((term, index)) = state.applied().log_id {
            log.reconcile::<R>(types::log_id(term, index)).await?;
        }
        let replica = Replica::new(id, state, sink);
        let acknowledged = replica.acknowledged.clone();
        let network =
            NetworkFactory::new(id, parts.transport.clone(), acknowledged, parts.pace.clone());
        let config = config(id, parts)?;
        let patience = parts.timing.election_timeout_max;
        let voters = confirm::Voters::new(parts.node, network.clone(), patience);
        let raft = Raft::<R>::new(
            parts.node.0,
            Arc::new(config),
            network,
            log.clone(),
            StateMachine(replica.clone()),
        )
        .await
        .map_err(io::Error::other)?;
        let stamps = Arc::new(Stamps::new(parts.clock.clone()));
        let proposals = proposer::spawn::<R>(raft.clone(), stamps.clone());
        let reads = reader::spawn::<R>(raft.clone(), voters);
        Ok(Arc::new(Shard {
            id,
            node: parts.node,
            raft,
            log,
            lost: OnceLock::new(),
            replica,
            transport: parts.transport.clone(),
            pace: parts.pace.clone(),
            stamps,
            proposals,
            reads,
            heard: Mutex::new(None),
            silence_max: 2 * patience,
        }))
    }

    /// Forms the group out of its first members. Harmless once it is formed.
    ///
    /// # Errors
    /// When the group's log or state failed.
    pub async fn initialize(&self, members: Members) -> io::Result<()> {
        use openraft::errors::{InitializeError, RaftError};
        match self.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Which group this is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// This node's replica of the state.
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    pub(crate) fn raft(&self) -> &Raft<R> {
        &self.raft
    }

    /// Proposes one encoded request; answers once it is durable on a quorum and applied here.
    ///
    /// # Errors
    /// Refused when this replica does not lead, or loses the lead meanwhile; the error says
    /// whether the request may have been applied all the same.
    pub async fn propose(&self, request: Bytes) -> Result<Reply, Refused> {
        self.check_leader()?;
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.proposals.try_send(Proposal { request, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused {
                error: Error::new(Code::Overloaded, "the shard has too many requests waiting")
                    .retry_after(100),
                leader: None,
            },
            mpsc::error::TrySendError::Closed(_) => self.stopped(),
        })?;
        answer.await.unwrap_or_else(|_| {
            Err(Refused { error: self.stopped().error.maybe_applied(), leader: None })
        })
    }

    /// The index that a linearizable read must have applied (ReadIndex, Raft dissertation §6.4).
    /// Reads that wait at the same time share one round.
    ///
    /// # Errors
    /// Refused when this replica does not lead, or a quorum does not confirm it.
    pub async fn read_index(&self) -> Result<u64, Refused> {
        self.check_leader()?;
        let (answer, index) = tokio::sync::oneshot::channel();
        self.reads.try_send(answer).map_err(|_| Refused {
            error: Error::new(Code::Overloaded, "the shard has too many reads waiting")
                .retry_after(100),
            leader: None,
        })?;
        index.await.unwrap_or_else(|_| Err(self.stopped()))
    }

    /// Waits until this replica has applied up to an index.
    ///
    /// # Errors
    /// [`Code::ShuttingDown`] when the replica stops first.
    pub async fn wait_applied(&self, index: u64) -> Result<(), Error> {
        let mut applied = self.replica.watch_applied();
        let reached = applied.wait_for(|applied| *applied >= index).await;
        reached.map_err(|_| self.stopped().error)
    }

    fn check_leader(&self) -> Result<(), Refused> {
        match self.leader() {
            Some(leader) if leader == self.node => Ok(()),
            leader => Err(not_leader(leader)),
        }
    }

    fn stopped(&self) -> Refused {
        Refused { error: Error::new(Code::ShuttingDown, "the shard has stopped"), leader: None }
    }

    /// The group's leader, as far as this replica knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.raft.server_metrics().borrow_watched().current_leader.map(NodeId)
    }

    /// Waits until this replica hears of another leader than `asked`, and returns it. What it knows
    /// when this begins does not count: `asked` may have been named by somebody who knows more.
    pub async fn outranked(&self, asked: NodeId) -> NodeId {
        let mut metrics = self.raft.server_metrics();
        let standing = |metrics: &RaftServerMetrics<Types<R>>| {
            (metrics.vote.leader_id().term, metrics.current_leader.map(NodeId))
        };
        let known = standing(&metrics.borrow_and_update());
        while metrics.changed().await.is_ok() {
            let now = standing(&metrics.borrow_and_update());
            if let (_, Some(leader)) = now
                && now != known
                && leader != asked
            {
                return leader;
            }
        }
        std::future::pending().await
    }

    /// Whether this replica leads its group, as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.leader() == Some(self.node)
    }

    /// Asks another voter to take the lead. Returns at once; a lost request changes nothing.
    pub async fn transfer_leader(&self, to: NodeId) {
        if let Err(error) = self.raft.trigger().transfer_leader(to.0).await {
            tracing::warn!(shard = %self.id, %to, %error, "cannot transfer leadership");
        }
    }

    /// The voter to hand the lead to: of those that may, the one with the most of the log. Only a
    /// leader knows.
    pub fn successor(&self, may: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        let voters = self.voters();
        let replication = self.raft.metrics().borrow_watched().replication.clone()?;
        let others = replication
            .into_iter()
            .map(|(node, matched)| (NodeId(node), matched))
            .filter(|(node, _)| *node != self.node && voters.contains(node) && may(*node));
        others.max_by_key(|(_, matched)| *matched).map(|(node, _)| node)
    }

    /// Lets go of the log as far as the base has it, keeping nothing for slow followers.
    ///
    /// # Errors
    /// When the group has stopped, or does not let go within ten seconds.
    pub async fn purge_log(&self) -> io::Result<()> {
        let durable = self.replica.read().durable().log_id;
        let Some((_, index)) = durable else { return Ok(()) };
        let reached = |log_id: Option<types::LogId>| log_id.is_some_and(|id| id.index() >= index);
        // openraft purges up to its snapshot only, takes snapshots in its own time, and puts a
        // purge off while entries are being sent; so it is asked until it is done.
        for _ in 0..PURGE_ATTEMPTS {
            let (purged, snapshot) = {
                let metrics = self.raft.metrics();
                let metrics = metrics.borrow_watched();
                (metrics.purged, metrics.snapshot)
            };
            if reached(purged) {
                // openraft counts a purge as done once it is queued.
                return self.log.settle().await;
            }
            let covered = reached(snapshot);
            let asked = match covered {
                true => self.raft.trigger().purge_log(index).await,
                false => self.raft.trigger().snapshot().await,
            };
            asked.map_err(io::Error::other)?;
            let done = |metrics: &RaftMetrics<Types<R>>| match covered {
                true => reached(metrics.purged),
                false => reached(metrics.snapshot),
            };
            match self.raft.wait(Some(PURGE_WAIT)).metrics(done, "the log is purged").await {
                Ok(_) | Err(WaitError::Timeout(..)) => {}
                Err(stopped) => return Err(io::Error::other(stopped)),
            }
        }
        let why = format!("shard {} does not let go of its log: try again later", self.id);
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    }

    /// Whether the group has a leader, as far as this replica can tell: it is connected to it and
    /// has heard it lately, or to enough voters to be it.
    ///
    /// openraft goes on naming a leader that is gone until another is elected: one that has started
    /// again meanwhile is connected, and leads no more.
    pub fn has_leader(&self) -> bool {
        let leader = self.raft.metrics().borrow_watched().current_leader.map(NodeId);
        match leader {
            Some(leader) if leader == self.node => self.is_majority(|voter| self.reaches(voter)),
            Some(leader) => self.reaches(leader) && self.hears_leader(),
            None => false,
        }
    }

    /// Notes that a leader of the group was answered that it is one.
    fn note_leader(&self) {
        *self.heard.lock().expect("no holder of the lock panics") = Some(R::Instant::now());
    }

    /// Whether a leader was heard within two election timeouts, in which those who do not hear it
    /// elect another.
    fn hears_leader(&self) -> bool {
        let heard = *self.heard.lock().expect("no holder of the lock panics");
        heard.is_some_and(|at| at.elapsed() < self.silence_max)
    }

    /// Whether another node is connected.
    pub fn reaches(&self, node: NodeId) -> bool {
        self.transport.reachable(node, transport::Lane::Control)
    }

    /// Whether this node and the other voters that `counts` takes are a majority of the voters.
    fn is_majority(&self, counts: impl Fn(NodeId) -> bool) -> bool {
        let voters = self.voters();
        let counted = voters.iter().filter(|voter| **voter == self.node || counts(**voter));
        counted.count() > voters.len() / 2
    }

    /// Returns once the group's core has taken a turn, or has ended: one that hangs takes none.
    pub async fn turn(&self) {
        // Why it ended is `failure`'s to tell.
        let _ended = self.raft.with_raft_state(|_| ()).await;
    }

    /// Commands that wait for an entry.
    pub fn proposals_waiting(&self) -> usize {
        self.proposals.max_capacity() - self.proposals.capacity()
    }

    fn voters(&self) -> Vec<NodeId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().voter_ids().map(NodeId).collect()
    }

    /// The error that stopped the group, if one did.
    pub fn failure(&self) -> Option<String> {
        if let Some(why) = self.lost.get() {
            return Some(why.clone());
        }
        match &self.raft.metrics().borrow_watched().running_state {
            Ok(()) => None,
            Err(fatal) => Some(fatal.to_string()),
        }
    }

    /// Stops the replica. What was proposed and not answered may have been applied.
    pub async fn stop(&self) {
        if let Err(error) = self.raft.shutdown().await {
            tracing::error!(shard = %self.id, %error, "the group did not stop cleanly");
        }
    }
}

/// The refusal of a replica that does not lead.
pub(crate) fn not_leader(leader: Option<NodeId>) -> Refused {
    Refused { error: Error::new(Code::NotLeader, "this replica does not lead the shard"), leader }
}

fn config(id: ShardId, parts: &Parts) -> io::Result<openraft::Config> {
    let ms = |duration: Duration| duration.as_millis() as u64;
    let timing = &parts.timing;
    let config = openraft::Config {
        cluster_name: format!("{}/{id}", parts.cluster_id),
        heartbeat_interval: ms(timing.heartbeat_interval),
        // Replication shows as much as a heartbeat does.
        heartbeat_min_interval: Some(ms(timing.heartbeat_interval)),
        election_timeout_min: ms(timing.election_timeout_min),
        election_timeout_max: ms(timing.election_timeout_max),
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(2 * ms(timing.election_timeout_max)),
        // A restarted leader asks for votes like anybody else: it may have lost its lead.
        enable_leader_restore: Some(false),
        install_snapshot_timeout: 10 * 60 * 1000,
        // The log's reader bounds a request by bytes.
        max_payload_entries: 256,
        // Only a log that was purged calls for a snapshot.
        replication_lag_threshold: u64::MAX / 2,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 64,
        ..Default::default()
    };
    config.validate().map_err(io::Error::other)
}
