//! The rules of the meta group: which nodes there are, and which shard lives where.
//!
//! Pure and deterministic like `chat`. The whole state is one [`ClusterMap`], a few kilobytes,
//! kept as one value; every node holds a copy and routes by it.

use bytes::Bytes;
use prost::Message;

use crate::chat::command::{Done, Rejection, Reply};
use crate::id::{NodeId, RoomId, SLOTS, Seq, ShardId, Slot, UserId};
use crate::proto::internal as pb;

/// The name under which the state keeps the map.
pub const MAP_BLOB: &str = "cluster-map";

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
                version: String::new(),
                instance: node.instance.clone(),
            })
            .collect();
        map.form(pb::FormCluster {
            cluster_id: seed.cluster_id.clone(),
            shards: seed.shards,
            nodes,
        });
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
        })
    }

    /// Every group with its replicas, the meta group first.
    pub fn shards(&self) -> impl Iterator<Item = (ShardId, Vec<NodeId>)> + '_ {
        self.0.shards.iter().map(|placement| {
            (
                ShardId(placement.shard as u16),
                placement.replicas.iter().map(|id| NodeId(*id)).collect(),
            )
        })
    }

    /// The data shards' ids, ascending.
    pub fn data_shards(&self) -> impl Iterator<Item = ShardId> + '_ {
        self.shards().map(|(shard, _)| shard).filter(|shard| *shard != ShardId::META)
    }

    /// A group's replicas.
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

    fn form(&mut self, form: pb::FormCluster) {
        let replicas: Vec<u64> = form.nodes.iter().take(5).map(|node| node.id).collect();
        self.0.last_node_id = form.nodes.iter().map(|node| node.id).max().unwrap_or(0);
        self.0.cluster_id = form.cluster_id;
        self.0.nodes = form.nodes;
        self.0.shards = (0..=form.shards)
            .map(|shard| pb::ShardPlacement { shard, replicas: replicas.clone() })
            .collect();
        self.0.slots = (0..u32::from(SLOTS)).map(|slot| 1 + slot % form.shards.max(1)).collect();
        self.0.version = 1;
    }

    /// Applies one encoded request to the map. A repeat changes nothing and succeeds.
    pub fn apply(&mut self, request: &Bytes, log_time_ms: u64) -> Reply {
        let request = pb::Request::decode(request.clone()).map_err(|_| Rejection::Undecodable)?;
        let done = |seq: u64, duplicate| Done {
            seq: Seq(seq),
            epoch: None,
            at_ms: log_time_ms,
            duplicate,
            imported: None,
        };
        match request.command {
            Some(pb::request::Command::FormCluster(form)) => {
                if self.is_formed() {
                    return if self.0.cluster_id == form.cluster_id {
                        Ok(done(0, true))
                    } else {
                        Err(Rejection::AlreadyExists("the cluster".into()))
                    };
                }
                if form.cluster_id.is_empty() || form.nodes.is_empty() {
                    return Err(Rejection::Undecodable);
                }
                if form.shards == 0 || form.shards > u32::from(SHARDS_MAX) {
                    return Err(Rejection::InvalidArgument(format!(
                        "shards must be 1 to {SHARDS_MAX}"
                    )));
                }
                self.form(form);
                Ok(done(0, false))
            }
            Some(pb::request::Command::RegisterNode(node)) => self.register(node, done),
            _ => Err(Rejection::Undecodable),
        }
    }

    /// Adds a node, or takes a known node's new addresses. Answers its id as the `seq`.
    fn register(&mut self, node: pb::RegisterNode, done: impl Fn(u64, bool) -> Done) -> Reply {
        if !self.is_formed() {
            return Err(Rejection::Forbidden("the cluster is not formed yet".into()));
        }
        if node.client_address.is_empty() || node.peer_address.is_empty() {
            return Err(Rejection::InvalidArgument("a node needs two addresses".into()));
        }
        let taken = self.0.nodes.iter().find(|known| {
            known.id != node.node_id
                && (known.instance == node.instance || known.peer_address == node.peer_address)
        });
        if let Some(taken) = taken {
            return if node.node_id == 0 && taken.instance == node.instance {
                // The answer to an earlier request was lost.
                Ok(done(taken.id, true))
            } else {
                Err(Rejection::AlreadyExists(format!(
                    "peer address {} or its data directory, of node {},",
                    node.peer_address, taken.id
                )))
            };
        }
        let entry = pb::ClusterNode {
            id: node.node_id,
            client_address: node.client_address,
            peer_address: node.peer_address,
            version: node.version,
            instance: node.instance,
        };
        if node.node_id == 0 {
            let Some(id) = self.0.last_node_id.checked_add(1) else {
                return Err(Rejection::InvalidArgument("all node ids are used up".into()));
            };
            self.0.last_node_id = id;
            self.0.nodes.push(pb::ClusterNode { id, ..entry });
            self.0.version += 1;
            return Ok(done(id, false));
        }
        let Some(known) = self.0.nodes.iter_mut().find(|known| known.id == node.node_id) else {
            return Err(Rejection::InvalidArgument(format!(
                "node {} is not of this cluster; its id is never reused",
                node.node_id
            )));
        };
        if known.instance != entry.instance {
            return Err(Rejection::Forbidden(format!(
                "node {} had another data directory; a wiped node joins under a new id",
                node.node_id
            )));
        }
        if *known == entry {
            return Ok(done(node.node_id, true));
        }
        *known = entry;
        self.0.version += 1;
        Ok(done(node.node_id, false))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::testing::{damaged, hex};

    fn seed() -> pb::Seed {
        let node = |id: u64| pb::SeedNode {
            id,
            instance: format!("i{id}"),
            client_address: format!("127.0.0.1:{}", 7400 + id),
            peer_address: format!("127.0.0.1:{}", 7500 + id),
        };
        pb::Seed { cluster_id: "c".into(), shards: 8, nodes: vec![node(1), node(2), node(3)] }
    }

    fn register(node_id: u64, port: u16, instance: &str) -> Bytes {
        let command = pb::request::Command::RegisterNode(pb::RegisterNode {
            node_id,
            client_address: format!("127.0.0.1:{port}"),
            peer_address: format!("127.0.0.1:{}", port + 1),
            version: "0.1.0".into(),
            instance: instance.into(),
        });
        pb::Request { command: Some(command), ..Default::default() }.encode_to_vec().into()
    }

    #[test]
    fn every_slot_has_a_shard_and_every_shard_its_slots() {
        let map = ClusterMap::of_seed(&seed());
        let mut counts = std::collections::BTreeMap::new();
        for slot in 0..SLOTS {
            *counts.entry(map.shard_of(Slot(slot)).unwrap()).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 8);
        assert!(counts.values().all(|count| *count == 128));
        assert_eq!(map.replicas(ShardId::META), [NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!(ClusterMap::decode(&map.encode()), Ok(map));
    }

    #[test]
    fn a_node_id_is_given_once_and_a_repeat_gets_the_same() {
        let mut map = ClusterMap::of_seed(&seed());
        assert_eq!(map.apply(&register(0, 9000, "a"), 1).unwrap().seq, Seq(4));
        let again = map.apply(&register(0, 9000, "a"), 2).unwrap();
        assert_eq!((again.seq, again.duplicate), (Seq(4), true));
        assert_eq!(map.apply(&register(0, 9010, "b"), 3).unwrap().seq, Seq(5));
        let version = map.version();
        assert!(!map.apply(&register(5, 9030, "b"), 6).unwrap().duplicate);
        assert_eq!(map.version(), version + 1);
    }

    #[test]
    fn a_wiped_or_unknown_node_is_refused() {
        let mut map = ClusterMap::of_seed(&seed());
        map.apply(&register(0, 9000, "a"), 1).unwrap();
        for request in [
            register(77, 9020, "x"),    // no such id
            register(0, 9000, "wiped"), // the address of a node that has another directory
            register(4, 9000, "wiped"), // and under its id
            register(4, 9000, "i1"),    // a founder's directory under another id
        ] {
            let reply = map.apply(&request, 5);
            assert!(reply.is_err(), "{request:?} {reply:?}");
        }
    }

    #[test]
    fn garbage_is_rejected_and_changes_nothing() {
        let mut map = ClusterMap::of_seed(&seed());
        let before = map.clone();
        assert!(map.apply(&Bytes::from_static(b"\xff\xff"), 1).is_err());
        assert!(map.apply(&Bytes::new(), 1).is_err());
        assert_eq!(map, before);
    }

    fn any_map() -> impl Strategy<Value = ClusterMap> {
        let node = (any::<u64>(), any::<[String; 4]>()).prop_map(|(id, texts)| {
            let [client_address, peer_address, version, instance] = texts;
            pb::ClusterNode { id, client_address, peer_address, version, instance }
        });
        let placement = (any::<u32>(), vec(any::<u64>(), 0..6))
            .prop_map(|(shard, replicas)| pb::ShardPlacement { shard, replicas });
        let lists = (vec(node, 0..6), vec(placement, 0..9), vec(any::<u32>(), 0..30));
        (any::<String>(), lists, any::<(u64, u64)>()).prop_map(|(cluster_id, lists, numbers)| {
            let (nodes, shards, slots) = lists;
            let (version, last_node_id) = numbers;
            ClusterMap(pb::ClusterMap { cluster_id, nodes, shards, slots, version, last_node_id })
        })
    }

    /// What anybody does with a map.
    fn look_at(map: &ClusterMap) {
        let _ = (map.is_formed(), map.version(), map.nodes().count(), map.data_shards().count());
        let _ = (map.replicas(ShardId::META), map.shard_of(Slot(SLOTS - 1)));
    }

    proptest! {
        #[test]
        fn maps_round_trip(map in any_map()) {
            look_at(&map);
            prop_assert_eq!(ClusterMap::decode(&map.encode()), Ok(map));
        }

        #[test]
        fn arbitrary_and_damaged_bytes_give_an_error_or_a_map(
            rubbish in any::<Vec<u8>>(), map in any_map(),
            at in any::<Index>(), to in any::<u8>(), cut in any::<Index>(),
        ) {
            let [changed, short] = damaged(&map.encode(), at, to, cut);
            for bytes in [rubbish, changed, short] {
                let _ = ClusterMap::decode(&bytes).as_ref().map(look_at);
            }
        }
    }

    #[test]
    fn the_map_is_pinned() {
        let mut map = ClusterMap::of_seed(&pb::Seed { shards: 1, ..seed() });
        map.0.slots.truncate(3);
        map.0.nodes.truncate(1);
        assert_eq!(
            hex(&map.encode()),
            "0a016312260801120e3132372e302e302e313a373430311a0e3132372e302e302e313a373530312a\
             0269311a0512030102031a0708011203010203220301010128013003"
        );
    }
}
