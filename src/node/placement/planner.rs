//! Carries out what `meta/planner.rs` decides, on the node that leads the meta group.

use std::sync::Arc;
use std::time::Duration;

use crate::id::ShardId;
use crate::meta::planner::{self, Action};
use crate::router::Router;
use crate::shard::runtime::Runtime;

/// How often it is looked whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Plans, for as long as it is let; does nothing while another node leads the meta group.
pub(in crate::node) async fn run<R: Runtime>(router: Arc<Router<R>>) {
    loop {
        R::sleep(LOOK_EVERY).await;
        while step(&router).await {}
    }
}

/// Carries out one step; false when there is none, or it failed and is to be decided anew.
async fn step<R: Runtime>(router: &Router<R>) -> bool {
    let leads = router.host().get(ShardId::META).is_some_and(|meta| meta.is_leader());
    if !leads || planner::is_idle(&router.map()) {
        return false;
    }
    let facts = router.facts().await;
    let map = router.map();
    let Some(action) = planner::next(&map, &facts) else { return false };
    let done = match (&action, action.command(map.version())) {
        (_, Some(command)) => router.propose_meta(command).await.map(|_| ()),
        (Action::TransferLeader { shard, to }, None) => router.transfer_leader(*shard, *to).await,
        (_, None) => return false,
    };
    match done {
        Ok(()) => {
            tracing::info!(%action, "planned");
            true
        }
        Err(error) => {
            tracing::debug!(%action, %error, "a step was not taken");
            false
        }
    }
}
