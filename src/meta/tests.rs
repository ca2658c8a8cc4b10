//! Tests of the map as a whole: its encoding, and the life of nodes in it.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::chat::command::Reply;
use crate::id::{SLOTS, Seq};
use crate::testing::{damaged, hex};

impl ClusterMap {
    /// What an encoded request does to the map.
    pub(super) fn apply(&mut self, request: &Bytes, log_time_ms: u64) -> Reply {
        let mut state = Memory::default();
        state.put_blob(MAP_BLOB, self.encode());
        let reply = apply_batch(&mut state, std::slice::from_ref(request), log_time_ms).remove(0);
        *self = ClusterMap::decode(&state.blob(MAP_BLOB).unwrap()).unwrap();
        reply
    }
}

/// A state in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Memory(BTreeMap<String, Bytes>);

impl Memory {
    /// The meta group's state when a cluster of three nodes has just been formed.
    pub(super) fn formed() -> Memory {
        let mut state = Memory::default();
        state.put_blob(MAP_BLOB, ClusterMap::of_seed(&seed()).encode());
        state
    }

    pub(super) fn map(&self) -> ClusterMap {
        ClusterMap::decode(&self.blob(MAP_BLOB).unwrap()).unwrap()
    }

    /// Applies one request.
    pub(super) fn apply(&mut self, request: pb::Request, log_time_ms: u64) -> Reply {
        apply_batch(self, &[request.encode_to_vec().into()], log_time_ms).remove(0)
    }
}

impl Blobs for Memory {
    fn blob(&self, name: &str) -> Option<Bytes> {
        self.0.get(name).cloned()
    }

    fn put_blob(&mut self, name: &str, value: Bytes) {
        self.0.insert(name.into(), value);
    }
}

fn seed() -> pb::Seed {
    let node = |id: u64| pb::SeedNode {
        id,
        instance: format!("i{id}"),
        client_address: format!("127.0.0.1:{}", 7400 + id),
        peer_address: format!("127.0.0.1:{}", 7500 + id),
        ..Default::default()
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
        spread: false,
        gateway: false,
        join_token: None,
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
fn nobody_gets_the_client_address_of_another_node() {
    let mut map = ClusterMap::of_seed(&seed());
    let with = |node_id: u64, client: &str, instance: &str| -> Bytes {
        let command = pb::request::Command::RegisterNode(pb::RegisterNode {
            node_id,
            client_address: client.into(),
            peer_address: format!("127.0.0.1:{}", 9000 + node_id),
            instance: instance.into(),
            ..Default::default()
        });
        pb::Request { command: Some(command), ..Default::default() }.encode_to_vec().into()
    };
    for request in [with(0, "127.0.0.1:7401", "new"), with(2, "127.0.0.1:7401", "i2")] {
        let before = map.clone();
        let refused = map.apply(&request, 1).unwrap_err().to_string();
        assert!(refused.contains("127.0.0.1:7401, of node 1"), "{refused}");
        assert_eq!(map, before);
    }
    map.apply(&with(0, "127.0.0.1:7409", "new"), 1).unwrap();
    // Two that have shared one since before it was refused stay as they are.
    let mut seed = seed();
    seed.nodes[1].client_address = "127.0.0.1:7401".into();
    let mut map = ClusterMap::of_seed(&seed);
    map.apply(&with(2, "127.0.0.1:7401", "i2"), 1).unwrap();
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
    let node =
        (any::<(u64, u64, i32, bool)>(), any::<[String; 4]>()).prop_map(|(numbers, texts)| {
            let [client_address, peer_address, version, instance] = texts;
            let (id, successor, state, gateway) = numbers;
            pb::ClusterNode {
                id,
                client_address,
                peer_address,
                version,
                instance,
                state,
                successor,
                gateway,
            }
        });
    let settled = (vec(any::<u64>(), 0..6), any::<(u64, u64)>())
        .prop_map(|(voters, (log_index, term))| pb::Settled { voters, log_index, term });
    let placement = (any::<u32>(), vec(any::<u64>(), 0..6), proptest::option::of(settled))
        .prop_map(|(shard, replicas, settled)| pb::ShardPlacement {
            shard,
            replicas,
            settled,
            given_up: vec![],
        });
    let removed =
        any::<(u64, String)>().prop_map(|(id, instance)| pb::RemovedNode { id, instance });
    let rebalance = any::<Option<(bool, bool)>>()
        .prop_map(|w| w.map(|(replicas, leaders)| pb::Rebalance { replicas, leaders }));
    let lists =
        (vec(node, 0..6), vec(placement, 0..9), vec(any::<u32>(), 0..30), vec(removed, 0..3));
    let ids = (any::<String>(), vec(any::<String>(), 0..3));
    (ids, lists, any::<(u64, u64)>(), rebalance).prop_map(
        |(ids, (nodes, shards, slots, removed), (version, last_node_id), rebalance)| {
            let (cluster_id, former_cluster_ids) = ids;
            ClusterMap(pb::ClusterMap {
                cluster_id,
                nodes,
                shards,
                slots,
                version,
                last_node_id,
                removed,
                rebalance,
                former_cluster_ids,
            })
        },
    )
}

/// What anybody does with a map.
fn look_at(map: &ClusterMap) {
    let _ = (map.is_formed(), map.version(), map.nodes().count(), map.data_shards().count());
    let _ = (map.replicas(ShardId::META), map.shard_of(Slot(SLOTS - 1)));
    let facts = planner::Facts::default();
    let _ = (planner::is_idle(map), planner::next(map, &facts));
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

#[test]
fn a_release_that_is_too_old_or_too_new_is_refused_until_the_others_have_moved_on() {
    let mut seed = seed();
    seed.nodes.iter_mut().for_each(|node| node.version = "0.1.0".into());
    let mut map = ClusterMap::of_seed(&seed);
    let come = |map: &mut ClusterMap, id: u64, version: &str| {
        let node = pb::RegisterNode {
            node_id: id,
            client_address: format!("127.0.0.1:{}", 7400 + id),
            peer_address: format!("127.0.0.1:{}", 7500 + id),
            instance: format!("i{id}"),
            version: version.into(),
            ..Default::default()
        };
        map.carry_out(pb::request::Command::RegisterNode(node))
    };
    // What the founders run is known from the first.
    let refused = come(&mut map, 3, "0.3.0").unwrap_err().to_string();
    assert!(refused.contains("too new"), "{refused}");
    for id in 1..=3 {
        come(&mut map, id, "0.2.0").unwrap();
    }
    for (version, why) in [("0.4.0", "too new"), ("0.0.9", "too old"), ("new", "no version")] {
        let before = map.clone();
        let refused = come(&mut map, 3, version).unwrap_err().to_string();
        assert!(refused.contains(why), "{version}: {refused}");
        assert_eq!(map, before);
    }
    // A rolling upgrade goes from one series to the next.
    for version in ["0.3.1", "0.4.0"] {
        for id in 1..=3 {
            come(&mut map, id, version).unwrap();
        }
    }
}

#[test]
fn somebody_is_left_to_lead_where_a_group_is_and_where_it_is_to_be() {
    use pb::request::Command;
    let mut map = ClusterMap::of_seed(&seed());
    let four = pb::RegisterNode {
        client_address: "four:7400".into(),
        peer_address: "four:7500".into(),
        instance: "i4".into(),
        ..Default::default()
    };
    map.carry_out(Command::RegisterNode(four)).unwrap();
    let expected_version = map.version();
    let target = vec![1, 2, 4];
    map.carry_out(Command::SetTarget(pb::SetTarget { shard: 1, target, expected_version }))
        .unwrap();
    let drain = |map: &mut ClusterMap, node| {
        let state = pb::NodeState::Draining.into();
        map.carry_out(Command::SetNodeState(pb::SetNodeState { node, state, successor: 0 }))
    };
    drain(&mut map, 1).unwrap();
    drain(&mut map, 2).unwrap();
    // Node 3 leads until node 4 can.
    for (node, why) in
        [(3, "shard 0 then: of nodes 1, 2, 3"), (4, "shard 1 then: of nodes 1, 2, 4")]
    {
        let refused = drain(&mut map, node).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(map.check_lead(ShardId(1), &[1, 2, 4].map(NodeId), None), Ok(()));
    assert!(map.check_lead(ShardId(1), &[1, 2].map(NodeId), None).is_err());
}
