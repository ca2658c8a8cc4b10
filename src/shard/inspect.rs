//! How a replica stands: for operators, and for checks that look at all of a cluster's replicas.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use prost::Message;

use crate::id::NodeId;
use crate::shard::Shard;
use crate::shard::runtime::Runtime;
use crate::shard::types::{Entry, LogId, Membership, Payload, log_id_parts};
use crate::shard::wire;

/// How a replica stands, for operators.
#[derive(Debug, Clone)]
pub struct Status {
    /// leader, follower, candidate, learner or stopped.
    pub state: &'static str,
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// The current term.
    pub term: u64,
    /// Index of the last log entry.
    pub last_log: u64,
    /// Index of the last entry here that is known to be committed.
    pub commit: u64,
    /// Index of the last entry that the leader has said is committed, here or not; `None` until it
    /// has said so.
    pub cluster_commit: Option<u64>,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Index of the last entry whose effect is durable in the base.
    pub durable: u64,
    /// Bytes in the base, about.
    pub size_bytes: u64,
    /// Voting members.
    pub voters: Vec<NodeId>,
    /// Learning members.
    pub learners: Vec<NodeId>,
}

/// By what to see whether anything about a replica has changed: what it says of itself, and where its log
/// and its state end. What is equal twice was the same in between, as far as a log only grows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    state: Option<ServerState>,
    term: u64,
    last_log: Option<u64>,
    committed: Option<LogId>,
    memberships: [Option<LogId>; 2],
    applied: Option<(u64, u64)>,
    durable: Option<(u64, u64)>,
    on_disk: u64,
    purged: u64,
}

impl<R: Runtime> Shard<R> {
    /// What to compare with an earlier look.
    pub fn stamp(&self) -> Stamp {
        let (applied, durable) = {
            let state = self.replica.read();
            (state.applied().log_id, state.durable().log_id)
        };
        let (on_disk, purged) = (self.last_on_disk(), self.purged_on_disk());
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let memberships = [&metrics.membership_config, &metrics.committed_membership_config];
        Stamp {
            state: metrics.running_state.is_ok().then_some(metrics.state),
            term: metrics.current_term,
            last_log: metrics.last_log_index,
            committed: metrics.local_committed,
            memberships: memberships.map(|config| *config.log_id()),
            applied,
            durable,
            on_disk,
            purged,
        }
    }

    /// How this replica stands.
    pub fn status(&self) -> Status {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index());
        let state = self.replica.read();
        let membership = metrics.membership_config.membership();
        Status {
            state: match (&metrics.running_state, metrics.state) {
                (Err(_), _) | (_, ServerState::Shutdown) => "stopped",
                (_, ServerState::Leader) => "leader",
                (_, ServerState::Follower) => "follower",
                (_, ServerState::Candidate) => "candidate",
                (_, ServerState::Learner) => "learner",
            },
            leader: metrics.current_leader.map(NodeId),
            term: metrics.current_term,
            last_log: metrics.last_log_index.unwrap_or(0),
            commit: index(metrics.local_committed),
            cluster_commit: metrics.cluster_committed.map(|id| id.index()),
            applied: state.applied().log_id.map_or(0, |(_, index)| index),
            durable: state.durable().log_id.map_or(0, |(_, index)| index),
            size_bytes: state.size_bytes(),
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.learner_ids().map(NodeId).collect(),
        }
    }

    /// Bytes of a snapshot that have been received so far; 0 while none is.
    pub fn receiving_bytes(&self) -> u64 {
        self.replica.receiving_bytes.load(Ordering::Relaxed)
    }

    /// The memberships that this replica knows: the one that it goes by, and the last one that is
    /// committed. Each as the index of the entry that set it, and the sets of voters of which an entry
    /// needs a majority each.
    pub fn memberships(&self) -> [(u64, Vec<BTreeSet<NodeId>>); 2] {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        [&metrics.membership_config, &metrics.committed_membership_config].map(|config| {
            let index = config.log_id().as_ref().map_or(0, |log_id| log_id.index());
            (index, voter_sets(config.membership()))
        })
    }

    /// Whether the voters that this replica goes by are just being changed.
    pub fn is_joint(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_joint_config().len() > 1
    }

    /// Term and index of the last entry here that is known to be committed.
    pub fn committed(&self) -> Option<(u64, u64)> {
        let committed = self.raft.metrics().borrow_watched().local_committed;
        committed.map(|log_id| log_id_parts(&log_id))
    }

    /// Where the log on disk ends; 0 when it never had an entry.
    pub fn last_on_disk(&self) -> u64 {
        self.log.last_on_disk()
    }

    /// Up to which entry the log on disk is purged; 0 when it never was.
    pub fn purged_on_disk(&self) -> u64 {
        self.log.purged_on_disk()
    }

    /// Whether an entry would survive a power cut of this node: it is in the synced log, or its
    /// effect in the base.
    pub fn has_on_disk(&self, index: u64, term: u64) -> bool {
        let durable = self.replica.read().durable().log_id;
        durable.is_some_and(|(_, durable)| durable >= index) || self.log.has_synced(index, term)
    }

    /// The entries from `first` to `last` as far as the log has them and can be read. A log that has
    /// purged some begins later.
    pub fn entries(&self, first: u64, last: u64) -> Vec<Seen> {
        let entries = self.log.read(first, last + 1, usize::MAX).unwrap_or_default();
        let seen = |entry: &Entry| {
            let carried = *blake3::hash(&wire::entry_to(entry).encode_to_vec()).as_bytes();
            let (term, index) = log_id_parts(&entry.log_id);
            let voters = match &entry.payload {
                Payload::Membership(membership) => Some(voter_sets(membership)),
                _ => None,
            };
            Seen { index, term, carried, voters }
        };
        entries.iter().map(seen).collect()
    }
}

/// An entry of a log, as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// A hash of what it carries.
    pub carried: [u8; 32],
    /// The sets of voters that it sets, if it is a membership.
    pub voters: Option<Vec<BTreeSet<NodeId>>>,
}

fn voter_sets(membership: &Membership) -> Vec<BTreeSet<NodeId>> {
    let sets = membership.get_joint_config().iter();
    sets.map(|set| set.iter().copied().map(NodeId).collect()).collect()
}
