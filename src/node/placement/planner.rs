//! Carries out what `meta/planner.rs` decides, on the node that leads the meta group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{NodeId, ShardId};
use crate::meta::planner::{self, Action, Facts};
use crate::meta::{ClusterMap, audit};
use crate::router::Router;
use crate::shard::runtime::{Instant, Runtime};

/// How often it is looked whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// For how long a node that does not answer may be starting.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Plans, for as long as it is let; does nothing while another node leads the meta group.
pub(in crate::node) async fn run<R: Runtime>(router: Arc<Router<R>>) {
    let mut absences = Absences::<R>::default();
    loop {
        R::sleep(LOOK_EVERY).await;
        while step(&router, &mut absences).await {}
    }
}

/// Since when nodes have not answered, as far as this node knows: it looks only while it leads the
/// meta group and there is something to plan, and begins anew after that.
struct Absences<R: Runtime>(BTreeMap<NodeId, R::Instant>);

impl<R: Runtime> Default for Absences<R> {
    fn default() -> Self {
        Absences(BTreeMap::new())
    }
}

impl<R: Runtime> Absences<R> {
    /// Takes note of who answers, and adds to the facts what follows from that.
    fn note(&mut self, map: &ClusterMap, facts: &mut Facts) {
        let now = R::Instant::now();
        let away = map.nodes().map(|node| node.id).filter(|id| !facts.reachable.contains(id));
        self.0 = away.map(|id| (id, self.0.get(&id).copied().unwrap_or(now))).collect();
        let starting = self.0.iter().filter(|(_, since)| since.elapsed() < STARTS_WITHIN);
        facts.expected = starting.map(|(id, _)| *id).collect();
    }
}

/// Carries out one step; false when there is none, or it failed and is to be decided anew.
async fn step<R: Runtime>(router: &Router<R>, absences: &mut Absences<R>) -> bool {
    let leads = router.host().get(ShardId::META).is_some_and(|meta| meta.is_leader());
    if !leads || planner::is_idle(&router.map()) {
        *absences = Absences::default();
        return false;
    }
    let mut facts = router.facts().await;
    let map = router.map();
    absences.note(&map, &mut facts);
    let Some(action) = planner::next(&map, &facts) else { return false };
    let done = match (&action, action.command(map.version())) {
        (_, Some(command)) => router.propose_planned(command, &action).await,
        (Action::TransferLeader { shard, to }, None) => {
            let done = router.transfer_leader(*shard, *to).await;
            if done.is_ok() {
                router.try_record(audit::CLUSTER, &action.to_string(), "done").await;
            }
            done
        }
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
