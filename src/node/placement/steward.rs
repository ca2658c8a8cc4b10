//! What this node does for the groups that it leads: takes their voters to the target, reports what
//! is settled, and gives up the lead of what it should not lead.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future;

use crate::id::NodeId;
use crate::meta::{ClusterMap, NodeState};
use crate::proto::internal as pb;
use crate::proto::internal::request::Command;
use crate::router::Router;
use crate::shard::Shard;
use crate::shard::membership::{Settled, Step};
use crate::shard::runtime::Runtime;

/// How often groups are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Steps of one group in a row, until others are looked at again.
const STEPS_MAX: usize = 8;

/// Looks after the groups that this node leads, for as long as it is let.
pub(in crate::node) async fn run<R: Runtime>(router: Arc<Router<R>>) {
    loop {
        R::sleep(LOOK_EVERY).await;
        let led = router.host().all().into_iter().filter(|shard| shard.is_leader());
        future::join_all(led.map(|shard| look_after(router.clone(), shard))).await;
    }
}

async fn look_after<R: Runtime>(router: Arc<Router<R>>, shard: Arc<Shard<R>>) {
    let map = router.map();
    let Some(placement) = map.placement(shard.id()) else { return };
    if let Some(node) = router.node_id()
        && !may_lead(&map, node)
        && let Some(to) = shard.successor(|other| may_lead(&map, other) && shard.reaches(other))
    {
        shard.hand_over_to(to).await;
        return;
    }
    let rests = |settled: Settled| {
        placement.given_up.is_empty()
            && settled.voters == placement.target
            && settled.log_index <= placement.log_index
    };
    if shard.settled().is_some_and(rests) {
        return;
    }
    // What is known here may be old, and an old target is none to go to.
    let map = match router.read_map().await {
        Ok(map) => map,
        Err(error) => return tracing::debug!(%error, "the map cannot be read just now"),
    };
    let Some(placement) = map.placement(shard.id()) else { return };
    let mut target = Vec::new();
    for id in &placement.target {
        // A map that does not know a node that it wants is none to act on.
        let Some(node) = map.node(*id) else { return };
        target.push((*id, node.peer_address));
    }
    for _ in 0..STEPS_MAX {
        match shard.step_to(&target, &|node| may_lead(&map, node)).await {
            Step::Taken => {}
            Step::Waits(why) => {
                tracing::debug!(shard = %shard.id(), why, "a move waits");
                // It may have come to an end before it was taken back, and the way back be closed: that
                // is known only when it is said.
                let gone_ahead = |voting: &Settled| {
                    voting.voters != placement.target && voting.log_index > placement.log_index
                };
                let voting = shard.voting().filter(|_| !placement.given_up.is_empty());
                if let Some(voting) = voting.filter(gone_ahead) {
                    report(&router, &shard, voting).await;
                }
                return;
            }
            Step::Settled(settled) if settled.log_index > placement.log_index => {
                return report(&router, &shard, settled).await;
            }
            // Nothing was changed before the move was taken back. From this entry on nothing of it can be.
            Step::Settled(_) if !placement.given_up.is_empty() => {
                if let Step::Waits(why) = shard.state_voters().await {
                    return tracing::debug!(shard = %shard.id(), why, "a move back waits");
                }
            }
            Step::Settled(_) => return,
        }
    }
}

/// Whether a node keeps the lead of a group that it gets.
fn may_lead(map: &ClusterMap, id: NodeId) -> bool {
    let ignored = |state| mutant!(DrainIgnored) && state == NodeState::Draining;
    map.node(id).is_some_and(|node| node.state == NodeState::Active || ignored(node.state))
}

async fn report<R: Runtime>(router: &Router<R>, shard: &Shard<R>, settled: Settled) {
    let report = Command::ReportSettled(pb::ReportSettled {
        shard: shard.id().0.into(),
        voters: settled.voters.iter().map(|node| node.0).collect(),
        log_index: settled.log_index,
        term: settled.term,
    });
    match router.propose_meta(report).await {
        Ok(_) => tracing::info!(shard = %shard.id(), "reported where it is"),
        Err(error) => tracing::debug!(shard = %shard.id(), %error, "cannot report"),
    }
}
