//! Nodes come, drain, leave, and are removed for good.

use crate::chat::command::Rejection;
use crate::id::{NodeId, ShardId};
use crate::meta::apply::{Change, Outcome};
use crate::meta::placement::list;
use crate::meta::{ClusterMap, Node, NodeState, Placement, planner};
use crate::proto::internal as pb;

impl ClusterMap {
    /// Adds a node, or takes a known node's new addresses. Answers its id.
    pub(super) fn register(&mut self, node: pb::RegisterNode) -> Outcome {
        if node.client_address.is_empty() || node.peer_address.is_empty() {
            return Err(Rejection::InvalidArgument("a node needs two addresses".into()));
        }
        let gone = |removed: &&pb::RemovedNode| {
            removed.id == node.node_id || removed.instance == node.instance
        };
        if let Some(removed) = self.0.removed.iter().find(gone) {
            return Err(Rejection::Forbidden(format!(
                "node {} was removed from the cluster: neither its id nor its data directory is \
                 taken again; give the node an empty data directory, and it joins as a new one",
                removed.id
            )));
        }
        let taken = self.0.nodes.iter().find(|known| {
            known.id != node.node_id
                && (known.instance == node.instance || known.peer_address == node.peer_address)
        });
        if let Some(taken) = taken {
            return if node.node_id == 0 && taken.instance == node.instance {
                // The answer to an earlier request was lost.
                Ok(Change::None(taken.id))
            } else {
                Err(taken_by(taken, &node.peer_address))
            };
        }
        // Two that are known by one address would be taken for each other, by clients and operators.
        let before = self.node(NodeId(node.node_id)).map(|known| known.client_address);
        let shared =
            self.0.nodes.iter().find(|known| {
                known.id != node.node_id && known.client_address == node.client_address
            });
        if let Some(shared) = shared
            && !node.client_address.is_empty()
            && before.as_ref() != Some(&node.client_address)
        {
            return Err(Rejection::AlreadyExists(format!(
                "client address {}, of node {},",
                node.client_address, shared.id
            )));
        }
        self.check_release(node.node_id, &node.version)?;
        match node.node_id {
            0 => self.add_node(node),
            _ => self.update_node(node),
        }
    }

    fn add_node(&mut self, node: pb::RegisterNode) -> Outcome {
        let Some(id) = self.0.last_node_id.checked_add(1) else {
            return Err(Rejection::InvalidArgument("all node ids are used up".into()));
        };
        self.0.last_node_id = id;
        if node.spread && !node.gateway {
            self.wish(true);
        }
        self.0.nodes.push(entry(id, pb::NodeState::Active, node));
        Ok(Change::Made(id))
    }

    fn update_node(&mut self, node: pb::RegisterNode) -> Outcome {
        let id = node.node_id;
        let has: Vec<_> =
            self.shards().filter(|(_, m)| m.contains(&NodeId(id))).map(|(s, _)| s).collect();
        let Some(known) = self.0.nodes.iter_mut().find(|known| known.id == id) else {
            return Err(Rejection::InvalidArgument(format!(
                "node {id} is not of this cluster; its id is never reused"
            )));
        };
        if known.instance != node.instance {
            return Err(Rejection::Forbidden(format!(
                "node {id} had another data directory; a wiped node joins under a new id"
            )));
        }
        if node.gateway && !has.is_empty() {
            return Err(Rejection::Forbidden(format!(
                "node {id} cannot become a gateway while it has replicas of shards {}: move them to \
                 other nodes first (`folkmoot shard move`)",
                list(&has)
            )));
        }
        let entry =
            pb::ClusterNode { successor: known.successor, ..entry(id, known.state(), node) };
        if *known == entry {
            return Ok(Change::None(id));
        }
        let was_gateway = known.gateway;
        *known = entry;
        if was_gateway && !known.gateway {
            self.wish(true);
        }
        Ok(Change::Made(id))
    }

    /// Asks for leaders to be spread evenly, and replicas, too, if there is somewhere new for them.
    fn wish(&mut self, replicas: bool) {
        let (so_far, _) = self.rebalance();
        self.0.rebalance = Some(pb::Rebalance { replicas: replicas || so_far, leaders: true });
    }

    /// Whether a node is of the cluster, or was.
    ///
    /// # Errors
    /// That there never was one.
    pub fn check_known(&self, id: NodeId) -> Result<(), Rejection> {
        match self.node(id).is_some() || self.is_removed(id) {
            true => Ok(()),
            false => Err(unknown(self, id)),
        }
    }

    /// Whether a node may be given a state, and why not.
    ///
    /// # Errors
    /// The rejection that applying it would answer.
    pub fn check_node_state(
        &self,
        id: NodeId,
        state: NodeState,
        successor: Option<NodeId>,
    ) -> Result<(), Rejection> {
        let Some(node) = self.node(id) else { return Err(unknown(self, id)) };
        if let Some(successor) = successor {
            let Some(named) = self.node(successor) else { return Err(unknown(self, successor)) };
            if !named.takes_replicas() || successor == id {
                return Err(Rejection::Forbidden(format!(
                    "node {successor}, which is {}, cannot take the place of node {id}",
                    named.standing()
                )));
            }
        }
        if node.state == NodeState::Leaving && state == NodeState::Draining {
            return Err(Rejection::Forbidden(format!(
                "node {id} is being removed, which drains it, too"
            )));
        }
        if state == NodeState::Draining && node.state != state {
            // Who leads now need not be among those that are to have the group.
            let groups =
                self.placements().flat_map(|p| [(p.shard, p.settled), (p.shard, p.target)]);
            groups
                .filter(|(_, nodes)| nodes.contains(&id))
                .try_for_each(|(shard, nodes)| self.check_lead(shard, &nodes, Some(id)))?;
        }
        if state == NodeState::Leaving && node.state != state {
            let may_stay = |n: &Node| n.state != NodeState::Leaving && !n.gateway && n.id != id;
            let stay = self.nodes().filter(may_stay).count();
            // Where it is only coming, that is taken back.
            let here = |p: &Placement| p.target.contains(&id) && p.settled.contains(&id);
            for placement in self.placements().filter(here) {
                // Whatever moves now will have moved by then.
                let then = Placement { settled: placement.target.clone(), ..placement.clone() };
                planner::without(self, &then, id).map_err(Rejection::Forbidden)?;
                if stay < placement.target.len().min(3) {
                    return Err(Rejection::Forbidden(format!(
                        "only {stay} nodes would stay, too few for the replicas of shard {}: add \
                         one first",
                        placement.shard
                    )));
                }
            }
        }
        Ok(())
    }

    /// Whether anybody could lead a group on these nodes, were one of them drained.
    ///
    /// # Errors
    /// That nobody could, and what to do.
    pub fn check_lead(
        &self,
        shard: ShardId,
        nodes: &[NodeId],
        drained: Option<NodeId>,
    ) -> Result<(), Rejection> {
        let is_active = |id| self.node(id).is_some_and(|node| node.state == NodeState::Active);
        if nodes.iter().any(|id| Some(*id) != drained && is_active(*id)) {
            return Ok(());
        }
        Err(Rejection::Forbidden(format!(
            "nobody could lead shard {shard} then: of nodes {}, none would be active; resume one first \
             (`folkmoot node resume`)",
            list(nodes)
        )))
    }

    pub(super) fn set_node_state(&mut self, request: pb::SetNodeState) -> Outcome {
        let id = NodeId(request.node);
        let state = match request.state() {
            pb::NodeState::Active => NodeState::Active,
            pb::NodeState::Draining => NodeState::Draining,
            pb::NodeState::Leaving => NodeState::Leaving,
        };
        if request.state != request.state() as i32 {
            return Err(Rejection::Undecodable);
        }
        let successor = (request.successor != 0).then_some(NodeId(request.successor));
        self.check_node_state(id, state, successor)?;
        let known = self.0.nodes.iter_mut().find(|node| node.id == id.0);
        let known = known.expect("check_node_state has found it");
        if (known.state, known.successor) == (request.state, request.successor) {
            return Ok(Change::None(id.0));
        }
        let was = NodeState::of(known);
        known.state = request.state;
        known.successor = request.successor;
        if state == NodeState::Active && !known.gateway {
            // It leads nothing. What has left it is to come back as well; and a group that could not
            // grow without it grows.
            self.wish(was == NodeState::Leaving || planner::could_grow(self));
        }
        Ok(Change::Made(id.0))
    }

    pub(super) fn remove_node(&mut self, id: NodeId) -> Outcome {
        if self.is_removed(id) {
            return Ok(Change::None(id.0));
        }
        let Some(node) = self.node(id) else { return Err(unknown(self, id)) };
        if node.state != NodeState::Leaving {
            return Err(Rejection::Forbidden(format!(
                "node {id} is {}, not leaving",
                node.state.name()
            )));
        }
        if let Some((shard, _)) = self.shards().find(|(_, members)| members.contains(&id))
            && !mutant!(RemovedTooSoon)
        {
            return Err(Rejection::Forbidden(format!(
                "node {id} still has a replica of shard {shard}"
            )));
        }
        let at = self.0.nodes.iter().position(|node| node.id == id.0);
        let node = self.0.nodes.remove(at.expect("the node was found above"));
        self.0.removed.push(pb::RemovedNode { id: node.id, instance: node.instance });
        Ok(Change::Made(id.0))
    }
}

fn entry(id: u64, state: pb::NodeState, node: pb::RegisterNode) -> pb::ClusterNode {
    pb::ClusterNode {
        id,
        client_address: node.client_address,
        peer_address: node.peer_address,
        version: node.version,
        instance: node.instance,
        state: state.into(),
        successor: 0,
        gateway: node.gateway,
    }
}

/// Of a node that comes without the id of the one whose address or data directory it has.
fn taken_by(owner: &pb::ClusterNode, peer_address: &str) -> Rejection {
    let id = owner.id;
    Rejection::Forbidden(match owner.peer_address == peer_address {
        true => format!(
            "peer address {peer_address} is that of node {id}: if that node has lost its data, start it \
             at another address as a new one, and `folkmoot node replace {id} NEW`"
        ),
        false => format!("this data directory is that of node {id}, which it does not say to be"),
    })
}

fn unknown(map: &ClusterMap, id: NodeId) -> Rejection {
    let known: Vec<String> = map.nodes().map(|node| node.id.to_string()).collect();
    Rejection::InvalidArgument(match map.is_removed(id) {
        true => format!("node {id} was removed from the cluster"),
        false => format!("there is no node {id}: the nodes are {}", known.join(", ")),
    })
}
