//! Asks a majority of a group's voters whether they know of a later leader.
//!
//! openraft does so as well, but takes an answer for later than it is: behind entries that wait for
//! their answer it queues a request that only says what is committed, and the answer to the entries
//! counts as one to that request, from the time at which it was queued (`InflightAppendQueue::
//! drain_acked`, 0.10.0-alpha.37). What a follower said before the read began, and before it voted
//! for somebody else, would then confirm the read. Here an answer answers one question.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::id::NodeId;
use crate::shard::network::NetworkFactory;
use crate::shard::runtime::Runtime;
use crate::shard::transport::Lane;
use crate::shard::types::{Membership, Vote};

/// The voters of a group, as its leader asks them.
pub(crate) struct Voters {
    node: NodeId,
    network: NetworkFactory,
    patience: Duration,
}

impl Voters {
    /// As `node` asks them, waiting for as long as `patience`.
    pub fn new(node: NodeId, network: NetworkFactory, patience: Duration) -> Voters {
        Voters { node, network, patience }
    }

    /// Whether `vote` makes this node the leader, and a majority of the voters, in each half of a
    /// joint membership, has answered since this was called that it knows of no later vote.
    pub async fn confirm<R: Runtime>(&self, vote: Vote, membership: &Membership) -> bool {
        if !vote.committed || vote.leader_id.voted_for != self.node.0 {
            return false;
        }
        // This node itself would not have been asked had it voted for somebody else by then.
        let mut confirmed = vec![self.node.0];
        let mut answers: FuturesUnordered<_> = membership
            .voter_ids()
            .filter(|voter| *voter != self.node.0)
            .map(|voter| async move {
                let client = self.network.client(voter, Lane::Control);
                client.knows_no_later::<R>(vote).await.then_some(voter)
            })
            .collect();
        let asking = async {
            while !is_quorum(membership, &confirmed) {
                match answers.next().await {
                    Some(answer) => confirmed.extend(answer),
                    None => return false,
                }
            }
            true
        };
        R::timeout(self.patience, asking).await.unwrap_or(false)
    }
}

fn is_quorum(membership: &Membership, nodes: &[u64]) -> bool {
    membership.get_joint_config().iter().all(|voters| {
        voters.iter().filter(|voter| nodes.contains(voter)).count() > voters.len() / 2
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    #[test]
    fn a_joint_membership_takes_a_majority_of_each_half() {
        let sets = [[1, 2, 3], [3, 4, 5]].map(BTreeSet::from);
        let nodes: BTreeMap<u64, openraft::BasicNode> =
            (1..=5).map(|id| (id, openraft::BasicNode::default())).collect();
        let membership = Membership::new(sets.to_vec(), nodes).expect("every voter has its node");
        for (nodes, is) in [
            (vec![1, 2], false),
            (vec![1, 3], false),
            (vec![3, 4, 1], true),
            (vec![3, 2, 5], true),
            (vec![1, 2, 4, 5], true),
            (vec![], false),
        ] {
            assert_eq!(is_quorum(&membership, &nodes), is, "{nodes:?}");
        }
    }
}
