//! A drain: this node's clients go elsewhere, and so do its leaderships; the process goes on.
//!
//! `node.rs` stops with one. By itself it is for a node that is to be worked on: it still
//! replicates, votes, and answers whoever asks it.

use std::sync::Arc;

use crate::gateway::drain::Drain as ClientDrain;
use crate::meta::NodeState;
use crate::node::groups::Groups;
use crate::router::Router;

/// Drains this node, and undoes that.
#[derive(Clone)]
pub(super) struct Drain {
    clients: ClientDrain,
    groups: Arc<Groups>,
}

impl Drain {
    /// A drain of these groups, and of the gateway with this switch.
    pub fn new(clients: ClientDrain, groups: Arc<Groups>) -> Drain {
        Drain { clients, groups }
    }

    /// Says `draining` to load balancers and ends streams at once; then hands over the lead of
    /// every group, while requests are still served.
    ///
    /// Returns when this node leads no group, or leads some that nobody else could. It may be
    /// elected again. Where this is cancelled, clients still go elsewhere: [`Drain::stop`] takes
    /// them again. May be repeated.
    pub async fn start(&self) {
        self.clients.begin();
        self.groups.hand_over().await;
    }

    /// Sends clients elsewhere for as long as the cluster map says that this node drains, or is to
    /// leave, and once it has left; its leaderships are moved by `placement/`. Runs until it is dropped.
    pub async fn follow_map(self, router: Arc<Router>) {
        let mut maps = router.watch_map();
        let mut drains = false;
        loop {
            let map = maps.borrow_and_update().clone();
            let goes = |node| map.node(node).is_some_and(|own| own.state != NodeState::Active);
            let now = router.node_id().is_some_and(|node| map.is_removed(node) || goes(node));
            match (drains, now) {
                (false, true) => self.clients.begin(),
                (true, false) => self.stop(),
                _ => {}
            }
            drains = now;
            if maps.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes clients again, unless the node stops. Leaderships come back by themselves, or when an
    /// operator moves them.
    pub fn stop(&self) {
        self.clients.end();
    }
}
