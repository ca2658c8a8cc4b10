//! openraft's type parameters, as Folkmoot sets them.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use openraft::impls;

use crate::chat::command::Reply;
use crate::shard::runtime::Runtime;

/// openraft's types over a runtime.
pub struct Types<R>(PhantomData<fn() -> R>);

impl<R> Default for Types<R> {
    fn default() -> Self {
        Types(PhantomData)
    }
}
impl<R> Clone for Types<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for Types<R> {}
impl<R> fmt::Debug for Types<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Types")
    }
}
impl<R> PartialEq for Types<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<R> Eq for Types<R> {}
impl<R> PartialOrd for Types<R> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<R> Ord for Types<R> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// Who led a term. The standard form: one leader a term at most.
pub type LeaderId = impls::leader_id_std::LeaderId<u64, u64>;
/// A committed leader, known by its term.
pub type CommittedLeaderId = <LeaderId as openraft::vote::RaftLeaderId>::Committed;
/// A log entry's id.
pub type LogId = openraft::LogId<CommittedLeaderId>;
/// A vote.
pub type Vote = openraft::Vote<LeaderId>;
/// What an entry carries.
pub type Payload = openraft::EntryPayload<Batch, u64, openraft::BasicNode>;
/// A log entry.
pub type Entry = openraft::Entry<CommittedLeaderId, Payload>;
/// Who votes and who learns.
pub type Membership = openraft::Membership<u64, openraft::BasicNode>;
/// A membership with the entry that set it.
pub type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, openraft::BasicNode>;
/// A snapshot's metadata.
pub type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, openraft::BasicNode>;
/// The members of a group, by node id, with their peer addresses.
pub type Members = BTreeMap<u64, openraft::BasicNode>;

impl<R: Runtime> openraft::RaftTypeConfig for Types<R> {
    type D = Batch;
    type R = Replies;
    type NodeId = u64;
    type Node = openraft::BasicNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = R;
    type Responder<T>
        = impls::OneshotResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

/// What an entry is about: commands that one leader coalesced, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The leader's wall clock, milliseconds since the Unix epoch.
    pub stamp_ms: u64,
    /// Encoded requests.
    pub requests: Vec<Bytes>,
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} at {}", self.requests.len(), self.stamp_ms)
    }
}

/// What applying an entry answered, a reply for each request, in order.
#[derive(Debug, Default)]
pub struct Replies(pub Vec<Reply>);

/// `(term, index)` of a log id, for layers that do not name openraft.
pub fn log_id_parts(log_id: &LogId) -> (u64, u64) {
    (**log_id.committed_leader_id(), log_id.index())
}

/// The log id of a term and an index.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::from(term), index)
}

/// A snapshot, with what stands for its content.
pub type Snapshot = openraft::Snapshot<
    CommittedLeaderId,
    u64,
    openraft::BasicNode,
    crate::shard::snapshot::SnapshotData,
>;

/// A member of a group.
pub type Member = openraft::BasicNode;
