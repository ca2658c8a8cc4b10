//! How this node and the cluster stand, for operators and load balancers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use prost::Message;

use crate::error::{Code, Error};
use crate::id::{NodeId, ShardId};
use crate::limits::CAUGHT_UP_LAG_MAX;
use crate::meta::planner::Facts;
use crate::meta::{Node, NodeState, Placement};
use crate::proto::internal as pb;
use crate::proto::v1;
use crate::router::{Router, forward};
use crate::shard::runtime::{Instant, Runtime};

/// How long a peer may take to say how it stands.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often leaders are looked for.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// Whether this node can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Every group of this node has a leader, or had one a moment ago, and is caught up.
    pub ready: bool,
    /// For a person: what is missing.
    pub reason: String,
}

impl<R: Runtime> Router<R> {
    /// Whether this node can serve, for `/health/ready`.
    pub fn readiness(&self) -> Readiness {
        match self.unready() {
            None => Readiness { ready: true, reason: "ready".into() },
            Some(reason) => Readiness { ready: false, reason },
        }
    }

    /// Notes why the cluster does not take this node, which is not ready then; `None`: it does.
    pub fn set_refused(&self, why: Option<String>) {
        *self.refused.lock().expect("no holder of the lock panics") = why;
    }

    fn unready(&self) -> Option<String> {
        if self.stopping.load(std::sync::atomic::Ordering::Relaxed) {
            return Some("the node is stopping".into());
        }
        if let Some(why) = &*self.refused.lock().expect("no holder of the lock panics") {
            return Some(format!("the cluster refuses this node: {why}"));
        }
        let map = self.map();
        let Some(node) = self.node_id().filter(|_| map.is_formed()) else {
            return Some("the node is in no cluster yet".into());
        };
        if map.is_removed(node) {
            return Some("the node was removed from the cluster".into());
        }
        match map.node(node).map(|own| own.state) {
            None => return Some("the cluster's map does not have this node yet".into()),
            Some(NodeState::Draining) => return Some("the node is draining".into()),
            Some(NodeState::Leaving) => return Some("the node is being removed".into()),
            _ => {}
        }
        // A replica that is being caught up serves nothing yet.
        for placement in map.placements().filter(|p| p.settled.contains(&node)) {
            let shard = placement.shard;
            let Some(replica) = self.host().get(shard) else {
                return Some(format!("shard {shard} has not started"));
            };
            let status = replica.status();
            if status.state == "stopped" {
                return Some(format!("shard {shard} has stopped"));
            }
            if !replica.has_leader() && !self.was_led_lately(shard) {
                return Some(format!("shard {shard} has no leader"));
            }
            // Not `commit`: of entries that a lagging replica has yet to receive it knows nothing.
            let Some(committed) = status.cluster_commit else {
                return Some(format!("shard {shard} has not heard yet what is committed"));
            };
            if status.applied + CAUGHT_UP_LAG_MAX < committed {
                let lag = committed - status.applied;
                return Some(format!("shard {shard} has {lag} entries to apply"));
            }
        }
        None
    }

    /// Whether a shard had a leader a moment ago, and so is having one elected. Who waits for that is
    /// served; and one node's death must not make all others unready at once.
    fn was_led_lately(&self, shard: ShardId) -> bool {
        let led = self.led.lock().expect("no holder of the lock panics");
        led.get(&shard).is_some_and(|at| at.elapsed() < self.options.stall_after)
    }

    /// This node and its replicas.
    pub(crate) fn own_status(&self) -> v1::StatusResponse {
        let map = self.map();
        let Some(node) = self.node_id() else { return v1::StatusResponse::default() };
        let shards: Vec<v1::ShardStatus> = self
            .host()
            .all()
            .iter()
            .map(|shard| {
                let status = shard.status();
                v1::ShardStatus {
                    shard: u32::from(shard.id().0),
                    node: node.0,
                    state: status.state.into(),
                    leader: status.leader.filter(|_| shard.has_leader()).map_or(0, |id| id.0),
                    term: status.term,
                    last_log: status.last_log,
                    commit: status.commit,
                    applied: status.applied,
                    durable: status.durable,
                    lag: 0,
                    size_bytes: status.size_bytes,
                    voters: status.voters.iter().map(|id| id.0).collect(),
                    learners: status.learners.iter().map(|id| id.0).collect(),
                    receiving_bytes: shard.receiving_bytes(),
                }
            })
            .collect();
        let leaders = shards.iter().filter(|shard| shard.leader == node.0).count();
        let own = map.nodes().find(|known| known.id == node);
        let membership = own.as_ref().map_or("removed", |own| own.standing());
        let (client_address, peer_address) = own
            .as_ref()
            .map(|own| (own.client_address.clone(), own.peer_address.clone()))
            .unwrap_or_default();
        let status = v1::NodeStatus {
            id: node.0,
            client_address,
            peer_address,
            version: env!("CARGO_PKG_VERSION").into(),
            state: "up".into(),
            leaders: leaders as u32,
            replicas: shards.len() as u32,
            disk_bytes: self.control.get().map_or(0, |control| control.disk_bytes()),
            membership: membership.into(),
            lag: 0,
            streams: self.control.get().map_or(0, |control| control.streams() as u32),
        };
        v1::StatusResponse {
            cluster_id: map.cluster_id().into(),
            node_id: node.0,
            nodes: vec![status],
            shards,
            stale: false,
            leaderless: Vec::new(),
        }
    }

    /// The cluster as this node sees it: every peer that answers is asked.
    pub async fn status(&self) -> v1::StatusResponse {
        let mut status = self.own_status();
        let Some(node) = self.node_id() else { return status };
        let map = self.map();
        let peers: Vec<_> = map.nodes().filter(|peer| peer.id != node).collect();
        let answers = future::join_all(peers.iter().map(|peer| self.peer_status(peer.id))).await;
        for (peer, answer) in peers.into_iter().zip(answers) {
            match answer {
                Some(answer) => {
                    status.nodes.extend(answer.nodes);
                    status.shards.extend(answer.shards);
                }
                None => {
                    status.nodes.push(v1::NodeStatus {
                        id: peer.id.0,
                        membership: peer.standing().into(),
                        client_address: peer.client_address,
                        peer_address: peer.peer_address,
                        version: peer.version,
                        state: "down".into(),
                        ..Default::default()
                    });
                }
            }
        }
        status.nodes.sort_by_key(|node| node.id);
        status.shards.sort_by_key(|shard| (shard.shard, shard.node));
        let led = fill_lag(&mut status);
        let shards = map.shards().map(|(shard, _)| u32::from(shard.0));
        status.leaderless = shards.filter(|shard| !led.contains(shard)).collect();
        status.stale = !status.leaderless.is_empty();
        status
    }

    /// Who answers, and who leads what.
    pub async fn facts(&self) -> Facts {
        facts_of(&self.status().await)
    }

    /// Nodes and shards as they are now.
    ///
    /// # Errors
    /// Why the meta group could not be reached.
    pub async fn placement(&self) -> Result<v1::PlacementResponse, Error> {
        let map = self.read_map().await?;
        let status = self.status().await;
        let facts = facts_of(&status);
        let said =
            |id: NodeId| status.nodes.iter().find(|node| node.id == id.0 && node.state == "up");
        let node = |node: Node| v1::PlacedNode {
            id: node.id.0,
            membership: node.standing().into(),
            in_force: said(node.id).is_some_and(|said| said.membership == node.standing()),
            client_address: node.client_address,
            peer_address: node.peer_address,
            version: node.version,
            up: facts.reachable.contains(&node.id),
            replicas: map.shards().filter(|(_, members)| members.contains(&node.id)).count() as u32,
            leaders: facts.leaders.values().filter(|leader| **leader == node.id).count() as u32,
            streams: said(node.id).map_or(0, |said| said.streams),
        };
        let raw = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
        // Those to whom a move was taken back may vote until the leader has said who does.
        let may_vote = |placement: &Placement| {
            BTreeSet::from_iter(placement.settled.iter().chain(&placement.given_up).copied())
        };
        let shard = |placement: Placement| v1::PlacedShard {
            shard: placement.shard.0.into(),
            target: raw(&placement.target),
            settled: may_vote(&placement).into_iter().map(|node| node.0).collect(),
            leader: facts.leaders.get(&placement.shard).map_or(0, |leader| leader.0),
            coming: coming(&placement, &facts, &status),
        };
        Ok(v1::PlacementResponse {
            version: map.version(),
            nodes: map.nodes().map(node).collect(),
            shards: map.placements().map(shard).collect(),
            rebalancing: map.rebalance() != (false, false),
            removed: map.removed().map(|node| node.0).collect(),
        })
    }

    async fn peer_status(&self, peer: NodeId) -> Option<v1::StatusResponse> {
        let forwarder = self.forwarder(peer);
        let request = forward::Request::Status(pb::PeerStatus {});
        let answer = R::timeout(ASK_TIMEOUT, forwarder.ask(ShardId::META, request)).await;
        match answer {
            Ok(Ok(forward::Reply::Status(bytes))) => v1::StatusResponse::decode(bytes).ok(),
            _ => None,
        }
    }

    /// Ends the streams of shards that see no leader, and takes them again when there is one.
    /// Runs for as long as the router lives.
    pub async fn watch_leaders(self: Arc<Self>) {
        let stalled =
            Error::new(Code::Unavailable, "this replica sees no leader: follow elsewhere");
        let mut without = BTreeMap::new();
        loop {
            R::sleep(WATCH_EVERY).await;
            for shard in self.host().all() {
                let waited: &mut Duration = without.entry(shard.id()).or_default();
                let hub = self.feed(shard.id()).hub().clone();
                if shard.has_leader() {
                    if *waited >= self.options.stall_after {
                        hub.resume();
                    }
                    *waited = Duration::ZERO;
                    let mut led = self.led.lock().expect("no holder of the lock panics");
                    led.insert(shard.id(), R::Instant::now());
                } else {
                    let before = *waited;
                    *waited += WATCH_EVERY;
                    if before < self.options.stall_after && *waited >= self.options.stall_after {
                        tracing::warn!(shard = %shard.id(), "no leader in sight; streams end");
                        hub.stall(&stalled);
                    }
                }
            }
        }
    }
}

fn facts_of(status: &v1::StatusResponse) -> Facts {
    let up = status.nodes.iter().filter(|node| node.state == "up");
    let mut leading: Vec<&v1::ShardStatus> =
        status.shards.iter().filter(|shard| shard.state == "leader").collect();
    // Of two that think so, the one of the later term is right.
    leading.sort_by_key(|shard| shard.term);
    let leaders = leading
        .into_iter()
        .filter_map(|s| Some((ShardId(u16::try_from(s.shard).ok()?), NodeId(s.node))));
    Facts {
        reachable: up.map(|node| NodeId(node.id)).collect(),
        leaders: leaders.collect(),
        ..Facts::default()
    }
}

/// How far the nodes are that are to vote in a shard, and do not yet.
fn coming(placement: &Placement, facts: &Facts, status: &v1::StatusResponse) -> Vec<v1::CatchUp> {
    let replica = |node: NodeId| {
        let of = (u32::from(placement.shard.0), node.0);
        status.shards.iter().find(|replica| (replica.shard, replica.node) == of)
    };
    let leader = facts.leaders.get(&placement.shard).and_then(|leader| replica(*leader));
    let comes = placement.target.iter().filter(|node| !placement.settled.contains(node));
    let catch_up = |node: &NodeId| v1::CatchUp {
        node: node.0,
        received_bytes: replica(*node).map_or(0, |replica| replica.receiving_bytes),
        total_bytes: leader.map_or(0, |leader| leader.size_bytes),
        // Before it has a replica it trails by all there is.
        lag: match replica(*node) {
            Some(replica) => replica.lag,
            None => leader.map_or(0, |leader| leader.last_log),
        },
    };
    comes.map(catch_up).collect()
}

/// Fills in how far each replica, and each node, trails its shards' leaders; returns the shards whose leader
/// answered.
fn fill_lag(status: &mut v1::StatusResponse) -> BTreeSet<u32> {
    let mut last = BTreeMap::new();
    for shard in &status.shards {
        if shard.leader == shard.node && shard.state == "leader" {
            let known = last.entry(shard.shard).or_default();
            // One that was cut off may take itself for the leader still.
            *known = std::cmp::max(*known, (shard.term, shard.last_log));
        }
    }
    for shard in &mut status.shards {
        if let Some((_term, last)) = last.get(&shard.shard) {
            shard.lag = last.saturating_sub(shard.applied);
        }
    }
    for node in &mut status.nodes {
        let replicas = status.shards.iter().filter(|shard| shard.node == node.id);
        node.lag = replicas.map(|replica| replica.lag).max().unwrap_or(0);
    }
    last.into_keys().collect()
}
