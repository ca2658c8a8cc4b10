//! Raft's structures as bytes, in the log and between nodes (`proto/folkmoot/internal/v1`).
//!
//! Decoding checks everything: these bytes cross a network and a disk.

use std::collections::BTreeSet;

use bytes::Bytes;
use openraft::BasicNode;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, VoteRequest, VoteResponse};
use prost::Message;

use crate::proto::internal as pb;
use crate::shard::runtime::Runtime;
use crate::shard::types::{
    Batch, Entry, LeaderId, LogId, Membership, Payload, StoredMembership, Types, Vote, log_id,
    log_id_parts,
};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

impl From<Malformed> for std::io::Error {
    fn from(malformed: Malformed) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, malformed)
    }
}

/// The version byte that every persisted Raft structure begins with.
const VERSION: u8 = 1;

fn sealed(message: &impl Message) -> Bytes {
    let mut out = Vec::with_capacity(1 + message.encoded_len());
    out.push(VERSION);
    message.encode(&mut out).expect("a Vec grows");
    out.into()
}

fn open<M: Message + Default>(mut bytes: Bytes, what: &'static str) -> Result<M, Malformed> {
    if bytes.first() != Some(&VERSION) {
        return Err(Malformed(what));
    }
    let _version = bytes.split_to(1);
    M::decode(bytes).map_err(|_| Malformed(what))
}

pub(crate) fn log_id_to(log_id: &LogId) -> pb::LogId {
    let (term, index) = log_id_parts(log_id);
    pb::LogId { term, index }
}

pub(crate) fn log_id_from(p: pb::LogId) -> LogId {
    log_id(p.term, p.index)
}

pub(crate) fn vote_to(vote: &Vote) -> pb::Vote {
    let leader = pb::LeaderId { term: vote.leader_id.term, node_id: vote.leader_id.voted_for };
    pb::Vote { leader: Some(leader), committed: vote.committed }
}

pub(crate) fn vote_from(p: Option<pb::Vote>) -> Result<Vote, Malformed> {
    let p = p.ok_or(Malformed("vote"))?;
    let leader = p.leader.ok_or(Malformed("vote"))?;
    let leader_id = LeaderId { term: leader.term, voted_for: leader.node_id };
    Ok(Vote { leader_id, committed: p.committed })
}

pub(crate) fn membership_to(membership: &Membership) -> pb::Membership {
    pb::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .skip(if mutant!(JointForgotten) { membership.get_joint_config().len() - 1 } else { 0 })
            .map(|set| pb::NodeSet { nodes: set.iter().copied().collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(id, node)| pb::Member { node_id: *id, peer_address: node.addr.clone() })
            .collect(),
    }
}

pub(crate) fn membership_from(p: pb::Membership) -> Result<Membership, Malformed> {
    let configs: Vec<BTreeSet<u64>> =
        p.configs.into_iter().map(|set| set.nodes.into_iter().collect()).collect();
    if configs.is_empty() && p.members.is_empty() {
        return Ok(Membership::default());
    }
    let members: std::collections::BTreeMap<u64, BasicNode> =
        p.members.into_iter().map(|m| (m.node_id, BasicNode::new(m.peer_address))).collect();
    Membership::new(configs, members).map_err(|_| Malformed("membership"))
}

pub(crate) fn stored_membership_to(stored: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to),
        membership: Some(membership_to(stored.membership())),
    }
}

pub(crate) fn stored_membership_from(
    p: Option<pb::StoredMembership>,
) -> Result<StoredMembership, Malformed> {
    let p = p.ok_or(Malformed("stored membership"))?;
    let membership = membership_from(p.membership.ok_or(Malformed("stored membership"))?)?;
    Ok(StoredMembership::new(p.log_id.map(log_id_from), membership))
}

pub(crate) fn entry_to(entry: &Entry) -> pb::Entry {
    let payload = match &entry.payload {
        Payload::Blank => None,
        Payload::Normal(batch) => {
            let batch = pb::Batch { stamp_ms: batch.stamp_ms, requests: batch.requests.clone() };
            Some(pb::entry::Payload::Normal(batch.encode_to_vec().into()))
        }
        Payload::Membership(membership) => {
            Some(pb::entry::Payload::Membership(membership_to(membership)))
        }
    };
    pb::Entry { log_id: Some(log_id_to(&entry.log_id)), payload }
}

pub(crate) fn entry_from(p: pb::Entry) -> Result<Entry, Malformed> {
    let log_id = log_id_from(p.log_id.ok_or(Malformed("entry"))?);
    let payload = match p.payload {
        None => Payload::Blank,
        Some(pb::entry::Payload::Normal(bytes)) => {
            let batch = pb::Batch::decode(bytes).map_err(|_| Malformed("batch"))?;
            Payload::Normal(Batch { stamp_ms: batch.stamp_ms, requests: batch.requests })
        }
        Some(pb::entry::Payload::Membership(membership)) => {
            Payload::Membership(membership_from(membership)?)
        }
    };
    Ok(Entry { log_id, payload })
}

/// An entry as the log keeps it.
pub fn encode_entry(entry: &Entry) -> Bytes {
    sealed(&entry_to(entry))
}

/// An entry from the log.
///
/// # Errors
/// [`Malformed`].
pub fn decode_entry(bytes: Bytes) -> Result<Entry, Malformed> {
    entry_from(open(bytes, "entry")?)
}

/// A vote as the log keeps it.
pub fn encode_vote(vote: &Vote) -> Bytes {
    sealed(&vote_to(vote))
}

/// A vote from the log.
///
/// # Errors
/// [`Malformed`].
pub fn decode_vote(bytes: Bytes) -> Result<Vote, Malformed> {
    vote_from(Some(open(bytes, "vote")?))
}

/// A log id as the log keeps it.
pub fn encode_log_id(log_id: &LogId) -> Bytes {
    sealed(&log_id_to(log_id))
}

/// A log id from the log.
///
/// # Errors
/// [`Malformed`].
pub fn decode_log_id(bytes: Bytes) -> Result<LogId, Malformed> {
    Ok(log_id_from(open(bytes, "log id")?))
}

/// A membership as the base keeps it.
pub fn encode_stored_membership(stored: &StoredMembership) -> Bytes {
    sealed(&stored_membership_to(stored))
}

/// A membership from the base; no bytes are the empty membership.
///
/// # Errors
/// [`Malformed`].
pub fn decode_stored_membership(bytes: Bytes) -> Result<StoredMembership, Malformed> {
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    stored_membership_from(Some(open(bytes, "stored membership")?))
}

pub(crate) fn append_request_to<R: Runtime>(
    request: &AppendEntriesRequest<Types<R>>,
) -> pb::AppendEntriesRequest {
    pb::AppendEntriesRequest {
        vote: Some(vote_to(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id_to),
        entries: request.entries.iter().map(entry_to).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to),
    }
}

pub(crate) fn append_request_from<R: Runtime>(
    p: pb::AppendEntriesRequest,
) -> Result<AppendEntriesRequest<Types<R>>, Malformed> {
    Ok(AppendEntriesRequest {
        vote: vote_from(p.vote)?,
        prev_log_id: p.prev_log_id.map(log_id_from),
        entries: p.entries.into_iter().map(entry_from).collect::<Result<_, _>>()?,
        leader_commit: p.leader_commit.map(log_id_from),
    })
}

/// What a follower answers to one AppendEntries request.
pub(crate) type AppendResult<R> = Result<Option<LogId>, StreamAppendError<Types<R>>>;

pub(crate) fn append_result_to<R: Runtime>(result: &AppendResult<R>) -> pb::AppendEntriesResponse {
    use pb::append_entries_response::Result as Wire;
    let result = match result {
        Ok(matched) => Wire::Matched(pb::MaybeLogId { log_id: matched.as_ref().map(log_id_to) }),
        Err(StreamAppendError::Conflict(log_id)) => Wire::Conflict(log_id_to(log_id)),
        Err(StreamAppendError::HigherVote(vote)) => Wire::HigherVote(vote_to(vote)),
    };
    pb::AppendEntriesResponse { result: Some(result) }
}

pub(crate) fn append_result_from<R: Runtime>(
    p: pb::AppendEntriesResponse,
) -> Result<AppendResult<R>, Malformed> {
    use pb::append_entries_response::Result as Wire;
    Ok(match p.result.ok_or(Malformed("append response"))? {
        Wire::Matched(matched) => Ok(matched.log_id.map(log_id_from)),
        Wire::Conflict(log_id) => Err(StreamAppendError::Conflict(log_id_from(log_id))),
        Wire::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from(Some(vote))?)),
    })
}

pub(crate) fn vote_request_to<R: Runtime>(
    request: &VoteRequest<Types<R>>,
    pre_vote: bool,
) -> pb::VoteRequest {
    pb::VoteRequest {
        vote: Some(vote_to(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to),
        pre_vote,
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from<R: Runtime>(
    p: pb::VoteRequest,
) -> Result<VoteRequest<Types<R>>, Malformed> {
    let mut request = VoteRequest::new(vote_from(p.vote)?, p.last_log_id.map(log_id_from));
    request.leadership_transfer = p.leadership_transfer;
    Ok(request)
}

pub(crate) fn vote_response_to<R: Runtime>(response: &VoteResponse<Types<R>>) -> pb::VoteResponse {
    pb::VoteResponse {
        vote: Some(vote_to(&response.vote)),
        last_log_id: response.last_log_id.as_ref().map(log_id_to),
        granted: response.vote_granted,
    }
}

pub(crate) fn vote_response_from<R: Runtime>(
    p: pb::VoteResponse,
) -> Result<VoteResponse<Types<R>>, Malformed> {
    let vote = vote_from(p.vote)?;
    Ok(VoteResponse::new(vote, p.last_log_id.map(log_id_from), p.granted))
}

#[cfg(test)]
mod tests;
