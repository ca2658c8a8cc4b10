//! This node's replicas: started when the map wants them here, removed when it does not.
//!
//! **Invariant:** a replica is removed only if it has stopped, the map, read from the meta group after
//! that, wants it here no more, and the membership that the group's leader has reported without this node is a
//! later one than the replica knows of, if by that one it votes. Else it may be one that a quorum
//! counts on.

use std::sync::Arc;
use std::time::Duration;

use crate::id::{NodeId, ShardId};
use crate::meta::ClusterMap;
use crate::node::groups::Groups;
use crate::shard::Shard;
use crate::shard::runtime::Runtime;

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
    !placement.members().contains(&node)
        && (!replica.is_voter() || placement.log_index > replica.membership_index())
}
