//! Keeps nodes whose clock is wrong from leading.
//!
//! A leader stamps commands, and log time never goes back, so a clock that is far ahead makes
//! requests expire, and ids of right clocks look old. Once a second each node asks its peers what
//! time they have. One that differs from a majority hands the lead of its groups to a node that
//! agrees with one, and says so; it goes on looking, and hands over again what it is elected to.
//! It stays a voter: clocks play no part in safety.
//!
//! The same answers tell each group whether a majority of its voters confirms this node's clock,
//! without which nothing is stamped (`shard/stamps.rs`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future;

use crate::clock::DIFFERENCE_MAX_MS;
use crate::id::{NodeId, ShardId};
use crate::proto::internal as pb;
use crate::router::{Router, forward};
use crate::shard::runtime::Runtime;

/// How often peers are asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often at first, while a group waits for its first stamp.
const ASK_FIRST: Duration = Duration::from_millis(100);
/// How long a peer may take to answer; half of it is how far a reading can be off.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// A clock counts as wrong when it was so as many times in a row: one reading may have been taken
/// while a clock was being set.
const WRONG_TIMES: u32 = 2;

/// What this node's clock is compared with the others'.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Comparison {
    /// How far this clock is ahead of the median of the peers that answered, in milliseconds.
    ahead_ms: i64,
    /// It differs from a majority of all nodes.
    wrong: bool,
    /// Peers that agree with a majority of all nodes.
    right: Vec<NodeId>,
}

fn agree(a_ms: i64, b_ms: i64) -> bool {
    a_ms.abs_diff(b_ms) <= DIFFERENCE_MAX_MS
}

/// Compares this node's clock with its peers', given how far each of those that answered is ahead
/// of it, in a cluster of `nodes` nodes.
fn compare(nodes: usize, peers_ahead_ms: &BTreeMap<NodeId, i64>) -> Comparison {
    let majority = nodes / 2 + 1;
    let agreeing_with = |clock: i64| {
        let peers = peers_ahead_ms.values().filter(|other| agree(clock, **other)).count();
        peers + usize::from(agree(clock, 0))
    };
    let mut sorted: Vec<i64> = peers_ahead_ms.values().copied().collect();
    sorted.sort_unstable();
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
    let differing = sorted.iter().filter(|ahead| !agree(**ahead, 0)).count();
    let right = peers_ahead_ms.iter().filter(|(_, ahead)| agreeing_with(**ahead) >= majority);
    Comparison {
        ahead_ms: -median,
        wrong: differing >= majority,
        right: right.map(|(node, _)| *node).collect(),
    }
}

impl<R: Runtime> Router<R> {
    /// Watches this node's clock for as long as the router lives.
    pub async fn watch_clock(self: Arc<Self>) {
        let gauge = metrics::gauge!("folkmoot_clock_offset_seconds");
        let mut wrong_times = 0;
        let mut confirmed_once = false;
        loop {
            R::sleep(if confirmed_once { ASK_EVERY } else { ASK_FIRST }).await;
            let before = self.clock.now_ms();
            let Some((nodes, answers)) = self.ask_clocks().await else { continue };
            // The earlier reading, in case the clock was set back meanwhile.
            let now_ms = before.min(self.clock.now_ms());
            confirmed_once |= self.confirm_clock(now_ms, &answers);
            if answers.is_empty() {
                continue;
            }
            let comparison = compare(nodes, &answers);
            gauge.set(comparison.ahead_ms as f64 / 1000.0);
            if !comparison.wrong {
                if wrong_times >= WRONG_TIMES {
                    tracing::info!("this node's clock agrees with the others' again");
                }
                wrong_times = 0;
                continue;
            }
            wrong_times += 1;
            if wrong_times < WRONG_TIMES {
                continue;
            }
            let given = self.give_up_leading(&comparison.right).await;
            if wrong_times == WRONG_TIMES || given > 0 {
                tracing::error!(
                    groups = given,
                    "this node's clock differs by {} s from a majority of nodes: leadership handed \
                     over; set the clock",
                    comparison.ahead_ms as f64 / 1000.0
                );
            }
        }
    }

    /// Asks every peer for its time: how many nodes there are, and how far each peer that answered
    /// is ahead, in milliseconds. `None` while this node does not know who it is.
    async fn ask_clocks(&self) -> Option<(usize, BTreeMap<NodeId, i64>)> {
        let node = self.node_id()?;
        let map = self.map();
        let peers: Vec<NodeId> = map.nodes().map(|peer| peer.id).filter(|id| *id != node).collect();
        let asked = peers.iter().map(|peer| self.peer_ahead_ms(*peer));
        let answers = future::join_all(asked).await;
        let answers = peers
            .iter()
            .zip(answers)
            .filter_map(|(peer, answer)| answer.map(|ahead| (*peer, ahead)))
            .collect();
        Some((peers.len() + 1, answers))
    }

    /// Tells the groups which voters confirm this node's clock; whether a majority of each does.
    fn confirm_clock(&self, now_ms: u64, peers_ahead_ms: &BTreeMap<NodeId, i64>) -> bool {
        let agrees = |node| peers_ahead_ms.get(&node).is_some_and(|ahead| agree(*ahead, 0));
        let groups = self.host().all();
        let confirmed = groups.iter().filter(|group| group.confirm_clock(now_ms, agrees)).count();
        confirmed == groups.len()
    }

    /// How far a peer's clock is ahead of this node's, in milliseconds.
    async fn peer_ahead_ms(&self, peer: NodeId) -> Option<i64> {
        let before = self.clock.now_ms();
        let request = forward::Request::Clock(pb::ReadClock {});
        let forwarder = self.forwarder(peer);
        let asking = forwarder.ask(ShardId::META, request);
        let Ok(Ok(forward::Reply::ClockMs(theirs))) = R::timeout(ASK_TIMEOUT, asking).await else {
            return None;
        };
        let after = self.clock.now_ms();
        // It was read at about the middle of the round trip.
        let here = before / 2 + after / 2;
        Some(theirs.cast_signed().saturating_sub(here.cast_signed()))
    }

    /// Hands over the groups that this node leads; how many there were with somebody to take them.
    async fn give_up_leading(&self, right: &[NodeId]) -> usize {
        let mut given = 0;
        for shard in self.host().all().iter().filter(|shard| shard.is_leader()) {
            let Some(to) = shard.successor(|node| right.contains(&node)) else { continue };
            shard.transfer_leader(to).await;
            given += 1;
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Peers 2, 3, … with how far they are ahead, in seconds, of node 1, whose clock is compared.
    fn check(nodes: usize, peers: &[Option<i64>], wrong: bool, ahead: i64, right: &[u64]) {
        let answered = peers.iter().zip(2..).filter_map(|(s, id)| Some((NodeId(id), (*s)? * 1000)));
        let found = compare(nodes, &answered.collect());
        let right = right.iter().map(|id| NodeId(*id)).collect();
        assert_eq!(found, Comparison { ahead_ms: ahead * 1000, wrong, right }, "{peers:?}");
    }

    #[test]
    fn clocks_that_agree_are_right() {
        check(3, &[Some(0), Some(0)], false, 0, &[2, 3]);
        check(3, &[Some(10), Some(-10)], false, -10, &[2, 3]);
        check(5, &[Some(1), Some(2), Some(3), Some(4)], false, -3, &[2, 3, 4, 5]);
    }

    #[test]
    fn a_clock_that_differs_from_a_majority_is_wrong() {
        check(3, &[Some(60), Some(61)], true, -61, &[2, 3]);
        check(3, &[Some(-3600), Some(-3600)], true, 3600, &[2, 3]);
        check(5, &[Some(60), Some(60), Some(60), Some(0)], true, -60, &[2, 3, 4]);
    }

    #[test]
    fn a_clock_that_only_a_minority_contradicts_is_right() {
        check(3, &[Some(60), Some(0)], false, -60, &[3]);
        check(5, &[Some(60), Some(60), Some(0), Some(0)], false, -60, &[4, 5]);
        check(2, &[Some(60)], false, -60, &[]);
        check(1, &[], false, 0, &[]);
    }

    #[test]
    fn those_that_do_not_answer_contradict_nobody() {
        check(3, &[Some(60), None], false, -60, &[]);
        check(3, &[None, None], false, 0, &[]);
        check(5, &[Some(60), Some(60), None, None], false, -60, &[]);
    }

    #[test]
    fn when_no_clocks_agree_nobody_is_right() {
        check(3, &[Some(60), Some(120)], true, -120, &[]);
    }
}
