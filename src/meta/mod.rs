//! The rules of the meta group: which nodes there are, and which shard lives where.
//!
//! Pure and deterministic like `chat`. The state is one [`ClusterMap`], a few kilobytes, kept as one
//! value, of which every node holds a copy and routes by it; beside it are the join tokens
//! (`join_token.rs`) and the last administrative actions (`audit.rs`), of no concern to other nodes.
//!
//! For each group the map has a *target*, the nodes that should vote, and what is *settled*: who
//! votes, as the group's leader last reported. A move is a target that differs; whoever leads the
//! group takes it there (`node/placement/`), and the rules allow one change a group at a time.
//! What should move is decided by `planner.rs`, from the map and from who can be reached alone.

mod apply;
pub mod audit;
pub mod join_token;
mod nodes;
mod placement;
pub mod planner;
mod recover;
pub mod release;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use prost::Message;

use crate::chat::command::Rejection;
use crate::id::{NodeId, RoomId, ShardId, Slot, UserId};
pub use crate::meta::apply::apply_batch;
pub use crate::meta::placement::Placement;
use crate::proto::internal as pb;

/// The name under which the state keeps the map.
pub const MAP_BLOB: &str = "cluster-map";

/// What the meta group's state is kept in: values by name.
pub trait Blobs {
    /// A value, if there is one of this name.
    fn blob(&self, name: &str) -> Option<Bytes>;
    /// Writes a value.
    fn put_blob(&mut self, name: &str, value: Bytes);
}

/// Data shards at most.
pub const SHARDS_MAX: u16 = 256;

/// The cluster's shape.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClusterMap(pb::ClusterMap);

/// A node, as the map knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Where clients reach it: host:port.
    pub client_address: String,
    /// Where peers reach it: host:port.
    pub peer_address: String,
    /// The version it last registered with.
    pub version: String,
    /// Whether it is to keep what it has.
    pub state: NodeState,
    /// Whether it serves clients only, and is given no replicas.
    pub gateway: bool,
}

impl Node {
    /// Whether it may be given replicas, and leads.
    pub fn takes_replicas(&self) -> bool {
        self.state == NodeState::Active && !self.gateway
    }

    /// What it is, as operators see it: `gateway`, or what is to become of it.
    pub fn standing(&self) -> &'static str {
        match self.state {
            NodeState::Active if self.gateway => "gateway",
            state => state.name(),
        }
    }
}

/// What is to become of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It has replicas and leads some.
    Active,
    /// It leads nothing, for it is to be stopped; it keeps its replicas.
    Draining,
    /// Its replicas are moved away, then it is removed.
    Leaving,
}

impl NodeState {
    fn of(node: &pb::ClusterNode) -> NodeState {
        match node.state() {
            pb::NodeState::Active => NodeState::Active,
            pb::NodeState::Draining => NodeState::Draining,
            pb::NodeState::Leaving => NodeState::Leaving,
        }
    }

    /// As operators see it.
    pub fn name(self) -> &'static str {
        match self {
            NodeState::Active => "active",
            NodeState::Draining => "draining",
            NodeState::Leaving => "leaving",
        }
    }
}

impl ClusterMap {
    /// Decodes a map; no bytes are the map before the cluster is formed.
    ///
    /// # Errors
    /// [`Rejection::Undecodable`] when the bytes are no map.
    pub fn decode(bytes: &[u8]) -> Result<ClusterMap, Rejection> {
        if bytes.is_empty() {
            return Ok(ClusterMap::default());
        }
        pb::ClusterMap::decode(bytes).map(ClusterMap).map_err(|_| Rejection::Undecodable)
    }

    /// The map as bytes.
    pub fn encode(&self) -> Bytes {
        self.0.encode_to_vec().into()
    }

    /// The map of a cluster that is being formed: every shard on every founder, up to five.
    pub fn of_seed(seed: &pb::Seed) -> ClusterMap {
        let mut map = ClusterMap::default();
        let nodes = seed
            .nodes
            .iter()
            .map(|node| pb::ClusterNode {
                id: node.id,
                client_address: node.client_address.clone(),
                peer_address: node.peer_address.clone(),
                version: node.version.clone(),
                instance: node.instance.clone(),
                state: 0,
                successor: 0,
                gateway: false,
            })
            .collect();
        map.form(pb::FormCluster {
            cluster_id: seed.cluster_id.clone(),
            shards: seed.shards,
            nodes,
        });
        map.0.version = 1;
        map
    }

    /// Whether the cluster has been formed.
    pub fn is_formed(&self) -> bool {
        !self.0.cluster_id.is_empty()
    }

    /// The cluster's id; empty before it is formed.
    pub fn cluster_id(&self) -> &str {
        &self.0.cluster_id
    }

    /// Rises with every change.
    pub fn version(&self) -> u64 {
        self.0.version
    }

    /// Every node, in order of id.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + '_ {
        self.0.nodes.iter().map(|node| Node {
            id: NodeId(node.id),
            client_address: node.client_address.clone(),
            peer_address: node.peer_address.clone(),
            version: node.version.clone(),
            state: NodeState::of(node),
            gateway: node.gateway,
        })
    }

    /// A node, if it is of the cluster.
    pub fn node(&self, id: NodeId) -> Option<Node> {
        self.nodes().find(|node| node.id == id)
    }

    /// The node that is to have the replicas of one that leaves, if an operator has named one.
    fn successor(&self, id: NodeId) -> Option<NodeId> {
        let node = self.0.nodes.iter().find(|node| node.id == id.0)?;
        (node.successor != 0).then_some(NodeId(node.successor))
    }

    /// Whether a node was of the cluster and has been removed.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.0.removed.iter().any(|node| node.id == id.0)
    }

    /// Every node that was removed, in order of removal.
    pub fn removed(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.0.removed.iter().map(|node| NodeId(node.id))
    }

    /// What is to be spread evenly: replicas, and leaders.
    pub fn rebalance(&self) -> (bool, bool) {
        self.0.rebalance.map_or((false, false), |wanted| (wanted.replicas, wanted.leaders))
    }

    /// Where every group is and should be, the meta group first.
    pub fn placements(&self) -> impl Iterator<Item = Placement> + '_ {
        self.0.shards.iter().map(Placement::of)
    }

    /// Where a group is and should be.
    pub fn placement(&self, shard: ShardId) -> Option<Placement> {
        self.0.shards.iter().find(|p| p.shard == u32::from(shard.0)).map(Placement::of)
    }

    /// Every group with the nodes that may have a replica, the meta group first: those that vote,
    /// then those that are to.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, Vec<NodeId>)> + '_ {
        self.placements().map(|placement| (placement.shard, placement.members()))
    }

    /// The data shards' ids, ascending.
    pub fn data_shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.shards().map(|(shard, _)| shard).filter(|shard| *shard != ShardId::META)
    }

    /// The nodes that may have a replica of a group: those that vote, then those that are to.
    pub fn replicas(&self, shard: ShardId) -> Vec<NodeId> {
        self.shards().find(|(id, _)| *id == shard).map(|(_, nodes)| nodes).unwrap_or_default()
    }

    /// The shard of a slot; `None` before the cluster is formed.
    pub fn shard_of(&self, slot: Slot) -> Option<ShardId> {
        self.0.slots.get(usize::from(slot.0)).map(|shard| ShardId(*shard as u16))
    }

    /// The shard that holds a room.
    pub fn shard_of_room(&self, room: &RoomId) -> Option<ShardId> {
        self.shard_of(Slot::of_room(room))
    }

    /// The shard that holds a user.
    pub fn shard_of_user(&self, user: &UserId) -> Option<ShardId> {
        self.shard_of(Slot::of_user(user))
    }
}
