//! This node's replicas: started when the map wants them here, removed when it does not.
//!
//! **Invariant:** a replica is removed only if it has stopped, the map, read from the meta group after
//! that, wants it here no more, and the membership that the group's leader has reported without this node is a
//! later one than the replica knows of, if by that one it votes. Else it may be one that a quorum
//! counts on. Later is what has a higher term, or the same and a higher index: the reported one is committed,
//! and whoever leads in its term or a later one has it (Leader Completeness, Raft, section 5.4.3), so an entry
//! of a lower term that does not come before it is in no leader's log, and never was or will be committed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{NodeId, ShardId};
use crate::meta::{ClusterMap, Placement};
use crate::node::groups::Groups;
use crate::shard::Shard;
use crate::shard::runtime::Runtime;
use crate::store::log::Log;

/// How often replicas are compared with the map, if it does not change.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Starts and removes replicas, one at a time, for as long as it is let.
pub(in crate::node) async fn run<R: Runtime>(groups: Arc<Groups<R>>) {
    let router = groups.router().clone();
    let mut map = router.watch_map();
    loop {
        if let Some(node) = router.node_id() {
            let known = router.map();
            remove(&groups, &known, node).await;
            add(&groups, &known, node).await;
        }
        // Both mean that it is time to look again.
        let _: Result<_, _> = R::timeout(LOOK_EVERY, map.changed()).await;
    }
}

/// Starts what is missing.
async fn add<R: Runtime>(groups: &Groups<R>, map: &ClusterMap, node: NodeId) {
    let router = groups.router();
    for placement in map.placements() {
        let wanted = placement.members().contains(&node);
        if !wanted || router.host().get(placement.shard).is_some() {
            continue;
        }
        match groups.add_replica(placement.shard, map).await {
            Ok(()) => tracing::info!(shard = %placement.shard, "started a replica"),
            Err(error) => tracing::warn!(shard = %placement.shard, %error,
                "cannot start a replica yet; trying again"),
        }
    }
}

/// Removes what is not wanted.
async fn remove<R: Runtime>(groups: &Groups<R>, map: &ClusterMap, node: NodeId) {
    let router = groups.router();
    let here = router.host().all().into_iter();
    let unwanted: Vec<_> = here.filter(|shard| may_go(map, shard, node)).collect();
    if unwanted.is_empty() {
        return;
    }
    // What is known here may be old.
    let map = match router.read_map().await {
        Ok(map) => map,
        Err(error) => return tracing::debug!(%error, "the map cannot be read just now"),
    };
    for replica in unwanted.into_iter().filter(|shard| may_go(&map, shard, node)) {
        remove_one(groups, replica.id(), node).await;
    }
}

/// Stops a replica; removes it if it may go then, and else starts it again.
async fn remove_one<R: Runtime>(groups: &Groups<R>, shard: ShardId, node: NodeId) {
    let router = groups.router();
    let Some((replica, halted)) = groups.halt_replica(shard).await else { return };
    // Only from here on nothing more can be acknowledged.
    let map = router.read_map().await;
    if map.as_ref().is_ok_and(|map| may_go(map, &replica, node)) {
        tracing::info!(%shard, "removing a replica: it has moved to other nodes");
        return groups.forget_replica(&replica, halted).await;
    }
    let map = map.unwrap_or_else(|_| router.map());
    while let Err(error) = groups.add_replica(shard, &map).await {
        tracing::warn!(%shard, %error, "cannot start a replica again yet; trying again");
        R::sleep(LOOK_EVERY).await;
    }
}

fn may_go<R: Runtime>(map: &ClusterMap, replica: &Shard<R>, node: NodeId) -> bool {
    let Some(placement) = map.placement(replica.id()) else { return false };
    if mutant!(RemovedAtOnce) {
        return !placement.target.contains(&node);
    }
    is_past(&placement, node, replica.is_voter().then(|| replica.membership_at()))
}

/// Whether a node's replica is not wanted, and not counted on: `votes_by` is where the membership is by
/// which it votes, term and index.
fn is_past(placement: &Placement, node: NodeId, votes_by: Option<(u64, u64)>) -> bool {
    !placement.members().contains(&node)
        && votes_by.is_none_or(|at| (placement.term, placement.log_index) > at)
}

/// The groups that a start finds here: those in which a node votes by its map, and those whose log it has.
/// It may vote in them, too: while it was away its map has grown old.
pub(in crate::node) fn here(log: &Log, map: &ClusterMap, node: NodeId) -> BTreeSet<ShardId> {
    let voting = map.placements().filter(|placement| placement.settled.contains(&node));
    let voting = voting.map(|placement| placement.shard);
    let mut here: BTreeSet<_> = voting.chain(log.groups()).collect();
    here.retain(|shard| !log.group(*shard).forgotten);
    here
}

/// Whether a node votes in a group by the map.
pub(in crate::node) fn counts(map: &ClusterMap, shard: ShardId, node: NodeId) -> bool {
    map.placement(shard).is_some_and(|placement| placement.settled.contains(&node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::internal as pb;
    use crate::store::log::{LogOptions, Write};

    #[test]
    fn a_replica_that_votes_goes_only_by_a_later_membership() {
        let nodes = [1, 2, 3].map(|id| pb::SeedNode { id, ..Default::default() });
        let seed = pb::Seed { cluster_id: "c".into(), shards: 1, nodes: nodes.to_vec() };
        let mut placement = ClusterMap::of_seed(&seed).placement(ShardId(1)).unwrap();
        (placement.term, placement.log_index) = (5, 100);
        assert!(is_past(&placement, NodeId(4), None));
        assert!(is_past(&placement, NodeId(4), Some((5, 99))));
        // It was never committed: whoever led in term 5 had no such entry.
        assert!(is_past(&placement, NodeId(4), Some((4, 170))));
        assert!(!is_past(&placement, NodeId(4), Some((5, 101))));
        assert!(!is_past(&placement, NodeId(4), Some((6, 90))));
        assert!(!is_past(&placement, NodeId(1), None), "it is wanted");
    }

    #[test]
    fn a_start_finds_what_votes_by_the_map_and_what_has_a_log_and_nothing_that_was_removed() {
        let node = |id: u64| pb::SeedNode { id, ..Default::default() };
        let nodes = vec![node(1), node(2), node(3)];
        let mut map = ClusterMap::of_seed(&pb::Seed { cluster_id: "c".into(), shards: 4, nodes });
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(LogOptions::new(directory.path().to_owned())).unwrap();
        let all = BTreeSet::from([0, 1, 2, 3, 4].map(ShardId));
        assert_eq!(here(&log, &map, NodeId(1)), all);
        assert_eq!(here(&log, &map, NodeId(4)), BTreeSet::new());
        let vote = |group| Write::Vote { group: ShardId(group), vote: vec![1].into() };
        log.write(&[vote(1), vote(2), vote(3)]).unwrap();
        log.write(&[Write::Forget { group: ShardId(3), applied: None }]).unwrap();
        assert_eq!(here(&log, &map, NodeId(4)), BTreeSet::from([1, 2].map(ShardId)));
        assert!(!here(&log, &map, NodeId(1)).contains(&ShardId(3)), "it was removed from here");
        // What has moved away by the map, and is here still, is the mover's to remove.
        let away = pb::ReportSettled { shard: 1, voters: vec![2, 3], log_index: 1, term: 1 };
        map.carry_out(pb::request::Command::ReportSettled(away)).unwrap();
        assert!(!counts(&map, ShardId(1), NodeId(1)));
        assert!(here(&log, &map, NodeId(1)).contains(&ShardId(1)));
    }
}
