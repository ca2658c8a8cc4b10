//! What no map of a cluster may say, whoever has it.

use std::collections::BTreeSet;

use folkmoot::id::SLOTS;
use folkmoot::meta::ClusterMap;
use folkmoot::proto::internal as pb;
use prost::Message;

/// What is wrong with a map by itself.
pub fn nonsense(map: &ClusterMap) -> Vec<String> {
    let Ok(raw) = pb::ClusterMap::decode(map.encode()) else { return vec!["undecodable".into()] };
    let mut wrong = vec![];
    let twice = |ids: &[u64]| ids.iter().collect::<BTreeSet<_>>().len() != ids.len();
    let shards: Vec<u64> = raw.shards.iter().map(|placement| placement.shard.into()).collect();
    if twice(&shards) {
        wrong.push(format!("a shard is there twice: {shards:?}"));
    }
    if raw.slots.len() != usize::from(SLOTS) {
        wrong.push(format!("{} slots have an owner, of {SLOTS}", raw.slots.len()));
    }
    for (slot, owner) in raw.slots.iter().enumerate() {
        let owned = *owner != 0 && shards.contains(&u64::from(*owner));
        if !owned {
            wrong.push(format!("slot {slot} is of shard {owner}, which there is not"));
        }
    }
    for placement in &raw.shards {
        let settled = placement.settled.as_ref().map_or(&[][..], |settled| &settled.voters);
        for nodes in [&placement.replicas, settled] {
            if twice(nodes) {
                let shard = placement.shard;
                wrong.push(format!("shard {shard} has two replicas on one node: {nodes:?}"));
            }
            let unknown = nodes.iter().find(|id| !raw.nodes.iter().any(|node| node.id == **id));
            if let Some(unknown) = unknown {
                let shard = placement.shard;
                wrong.push(format!("shard {shard} is on node {unknown}, which there is not"));
            }
        }
    }
    for (at, node) in raw.nodes.iter().enumerate() {
        let same = |other: &&pb::ClusterNode| {
            other.id == node.id
                || other.instance == node.instance
                || other.peer_address == node.peer_address
        };
        if let Some(other) = raw.nodes[..at].iter().find(same) {
            wrong.push(format!("nodes {} and {} are one", other.id, node.id));
        }
        if raw.removed.iter().any(|removed| removed.id == node.id) {
            wrong.push(format!("node {} was removed, and is there", node.id));
        }
    }
    wrong
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A map of four nodes and two shards.
    pub fn map() -> pb::ClusterMap {
        let node = |id: u64| pb::SeedNode {
            id,
            instance: format!("i{id}"),
            client_address: format!("c{id}"),
            peer_address: format!("p{id}"),
            ..Default::default()
        };
        let nodes = (1..=4).map(node).collect();
        let seed = pb::Seed { cluster_id: "c".into(), shards: 2, nodes };
        pb::ClusterMap::decode(ClusterMap::of_seed(&seed).encode()).expect("it was encoded")
    }

    type Change<'a> = &'a dyn Fn(&mut pb::ClusterMap);

    fn said(change: impl Fn(&mut pb::ClusterMap)) -> String {
        let mut map = map();
        change(&mut map);
        let map = ClusterMap::decode(&map.encode_to_vec()).expect("it was encoded");
        nonsense(&map).join("; ")
    }

    #[test]
    fn a_map_that_makes_no_sense_is_found_out() {
        assert_eq!(said(|_| {}), "");
        let settled = |voters: &[u64]| pb::Settled { voters: voters.into(), log_index: 5, term: 1 };
        let cases: [(Change<'_>, &str); 10] = [
            (&|map| map.slots[7] = 9, "slot 7 is of shard 9"),
            (&|map| map.slots[7] = 0, "slot 7 is of shard 0"),
            (&|map| map.slots.truncate(map.slots.len() - 1), "1023 slots have an owner"),
            (&|map| map.shards[2].shard = 1, "twice"),
            (&|map| map.shards[1].replicas = vec![1, 2, 2], "two replicas on one node: [1, 2, 2]"),
            (&|map| map.shards[1].settled = Some(settled(&[3, 3])), "two replicas on one node"),
            (&|map| map.shards[1].replicas = vec![1, 2, 9], "is on node 9, which there is not"),
            (&|map| map.nodes[2].instance = "i1".into(), "nodes 1 and 3 are one"),
            (&|map| map.nodes[2].peer_address = "p2".into(), "nodes 2 and 3 are one"),
            (
                &|map| map.removed.push(pb::RemovedNode { id: 2, instance: "i2".into() }),
                "node 2 was removed, and is there",
            ),
        ];
        for (change, why) in cases {
            let found = said(change);
            assert!(found.contains(why), "{why}: {found}");
        }
    }
}
