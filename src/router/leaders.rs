//! Who leads a shard: what was heard, and when to give up one that was asked.
//!
//! A node that lost its power, or is cut off, refuses nothing: until its connection is taken for
//! broken, seconds later, what was asked of it waits. By then the others have long elected another.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, future};
use prost::Message;

use crate::error::{Code, Error};
use crate::id::{NodeId, ShardId};
use crate::proto::internal as pb;
use crate::proto::v1;
use crate::router::{Router, forward};
use crate::shard::Refused;
use crate::shard::runtime::Runtime;

/// How long a node without a replica waits for a leader until it asks who leads, and between asking.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a node may take to say who leads.
const LOOK_TIMEOUT: Duration = Duration::from_millis(300);

/// The refusal of a leader that was given up: it may have taken the request.
pub(super) fn given_up(newer: NodeId) -> Refused {
    let error = Error::new(Code::Unavailable, "the shard's leader changed before it answered");
    Refused { error: error.maybe_applied(), leader: Some(newer) }
}

impl<R: Runtime> Router<R> {
    pub(super) fn noted_leader(&self, shard: ShardId) -> Option<NodeId> {
        self.leaders.lock().expect("no holder of the lock panics").get(&shard).copied()
    }

    pub(super) fn note_leader(&self, shard: ShardId, leader: Option<NodeId>) {
        let mut leaders = self.leaders.lock().expect("no holder of the lock panics");
        match leader {
            Some(leader) => leaders.insert(shard, leader),
            None => leaders.remove(&shard),
        };
    }

    /// Waits until another node than the one asked is known to lead a shard, and returns it.
    pub(super) async fn outranked(&self, shard: ShardId, asked: NodeId) -> NodeId {
        if self.node_id() == Some(asked) {
            // This node answers as soon as it knows.
            return future::pending().await;
        }
        if let Some(replica) = self.voting(shard) {
            return replica.outranked(asked).await;
        }
        loop {
            R::sleep(LOOK_EVERY).await;
            // One look serves all that wait.
            if let Ok(_looking) = self.looking.try_lock() {
                self.look_for_leader(shard).await;
            }
            if let Some(leader) = self.noted_leader(shard).filter(|leader| *leader != asked) {
                return leader;
            }
        }
    }

    /// Asks the other nodes who leads what, until enough have answered to say it of this shard.
    async fn look_for_leader(&self, wanted: ShardId) {
        let map = self.map();
        let peers = map.nodes().filter(|peer| Some(peer.id) != self.node_id());
        let mut asked: FuturesUnordered<_> = peers
            .map(|peer| async move {
                let forwarder = self.forwarder(peer.id);
                let status = forward::Request::Status(pb::PeerStatus {});
                match R::timeout(LOOK_TIMEOUT, forwarder.ask(ShardId::META, status)).await {
                    Ok(Ok(forward::Reply::Status(bytes))) => v1::StatusResponse::decode(bytes).ok(),
                    _ => None,
                }
            })
            .collect();
        let mut said = Vec::new();
        while let Some(answer) = asked.next().await {
            said.extend(answer.into_iter().flat_map(|answer| answer.shards));
            let led = map.placements().filter_map(|placement| {
                let replicas = placement.settled.len();
                Some((placement.shard, leader_of(placement.shard, replicas, &said)?))
            });
            let led: BTreeMap<ShardId, NodeId> = led.collect();
            if led.contains_key(&wanted) {
                led.into_iter().for_each(|(shard, leader)| self.note_leader(shard, Some(leader)));
                return;
            }
        }
    }
}

/// Who leads a shard by the word of those of its replicas that have something to say: the leader of
/// the latest term, if a majority was heard. Fewer may all have missed an election.
fn leader_of(shard: ShardId, replicas: usize, said: &[v1::ShardStatus]) -> Option<NodeId> {
    let of_shard = said.iter().filter(|status| status.shard == u32::from(shard.0));
    let by_node: BTreeMap<_, _> = of_shard.map(|status| (status.node, status)).collect();
    if by_node.len() <= replicas / 2 {
        return None;
    }
    let latest = by_node.values().filter(|status| status.leader != 0);
    latest.max_by_key(|status| status.term).map(|status| NodeId(status.leader))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nodes say of shard 1, as (node, term, leader), and who leads.
    fn check(said: &[(u64, u64, u64)], leader: Option<u64>) {
        let status = |(node, term, leader): &(u64, u64, u64)| v1::ShardStatus {
            shard: 1,
            node: *node,
            term: *term,
            leader: *leader,
            ..Default::default()
        };
        let mut all: Vec<_> = said.iter().map(status).collect();
        // Another shard's affairs.
        all.push(v1::ShardStatus { shard: 2, node: 1, term: 99, leader: 9, ..Default::default() });
        assert_eq!(leader_of(ShardId(1), 3, &all), leader.map(NodeId), "{said:?}");
    }

    #[test]
    fn a_majority_s_latest_term_says_who_leads() {
        check(&[], None);
        check(&[(2, 7, 2)], None);
        check(&[(2, 7, 2), (2, 7, 2)], None);
        check(&[(2, 7, 2), (3, 7, 2)], Some(2));
        // One lags; one asks for votes, and knows of no leader.
        check(&[(2, 7, 2), (3, 6, 1)], Some(2));
        check(&[(2, 8, 0), (3, 7, 1)], Some(1));
        check(&[(1, 6, 1), (2, 7, 2), (3, 7, 2)], Some(2));
        check(&[(2, 8, 0), (3, 8, 0)], None);
    }
}
