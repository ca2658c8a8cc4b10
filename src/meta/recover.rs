//! A cluster is recovered from one node, as a majority of the others is lost for good.

use crate::chat::command::Rejection;
use crate::id::NodeId;
use crate::meta::ClusterMap;
use crate::meta::apply::{Change, Outcome};
use crate::proto::internal as pb;

impl ClusterMap {
    /// The clusters that this one was recovered from, oldest first. Their nodes are none of this one's.
    pub fn former_cluster_ids(&self) -> &[String] {
        &self.0.former_cluster_ids
    }

    /// Leaves one node, and every group on it alone, under another cluster id.
    ///
    /// The other nodes are removed for good: their ids and data directories are not taken again,
    /// and the new id keeps whichever of them still runs, or is started again, from ever talking
    /// Raft with this one. What is known to be settled is 0, before everything that a leader may
    /// report: a group that begins anew begins its log anew.
    pub(super) fn recover(&mut self, request: &pb::RecoverCluster) -> Outcome {
        if request.cluster_id.is_empty() {
            return Err(Rejection::Undecodable);
        }
        if self.0.cluster_id == request.cluster_id {
            return Ok(Change::None(request.node));
        }
        let known = ClusterMap::decode(&request.known_map)?;
        if known.version() > u64::MAX / 2 {
            // No cluster comes so far; and where versions end, no change could be applied any more.
            return Err(Rejection::Undecodable);
        }
        let newest = if known.version() > self.version() { &known } else { &*self };
        let Some(at) = newest.0.nodes.iter().position(|node| node.id == request.node) else {
            let id = NodeId(request.node);
            return Err(Rejection::InvalidArgument(format!("node {id} is not of this cluster")));
        };
        let mut map = newest.0.clone();
        let survivor = pb::ClusterNode {
            state: pb::NodeState::Active.into(),
            successor: 0,
            gateway: false,
            ..map.nodes.remove(at)
        };
        let gone = |node: pb::ClusterNode| pb::RemovedNode { id: node.id, instance: node.instance };
        map.removed.extend(map.nodes.drain(..).map(gone));
        map.nodes = vec![survivor];
        let former = std::mem::replace(&mut map.cluster_id, request.cluster_id.clone());
        map.former_cluster_ids.push(former);
        map.rebalance = None;
        for placement in &mut map.shards {
            placement.replicas = vec![request.node];
            let voters = placement.replicas.clone();
            placement.settled = Some(pb::Settled { voters, log_index: 0, term: 0 });
            placement.given_up.clear();
        }
        self.0 = map;
        Ok(Change::Made(request.node))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chat::command::Reply;
    use crate::id::ShardId;
    use crate::meta::planner;
    use crate::proto::internal::request::Command;

    fn map() -> ClusterMap {
        let node = |id: u64| pb::SeedNode {
            id,
            instance: format!("i{id}"),
            client_address: format!("c{id}"),
            peer_address: format!("p{id}"),
            ..Default::default()
        };
        let nodes = (1..=3).map(node).collect();
        ClusterMap::of_seed(&pb::Seed { cluster_id: "old".into(), shards: 2, nodes })
    }

    fn recover(map: &mut ClusterMap, node: u64, known: &ClusterMap) -> Reply {
        let request =
            pb::RecoverCluster { cluster_id: "new".into(), node, known_map: known.encode() };
        map.carry_out(Command::RecoverCluster(request))
    }

    fn register(map: &mut ClusterMap, node_id: u64, instance: &str) -> Reply {
        map.carry_out(Command::RegisterNode(pb::RegisterNode {
            node_id,
            client_address: format!("c-{instance}"),
            peer_address: format!("p-{instance}"),
            instance: instance.into(),
            ..Default::default()
        }))
    }

    #[test]
    fn one_node_is_left_with_everything_and_the_others_stay_removed() {
        let mut map = map();
        register(&mut map, 0, "i4").unwrap();
        map.carry_out(Command::SetTarget(pb::SetTarget {
            shard: 1,
            target: vec![1, 3, 4],
            expected_version: map.version(),
        }))
        .unwrap();
        let report = |shard, voters, log_index| {
            Command::ReportSettled(pb::ReportSettled { shard, voters, log_index, term: 1 })
        };
        map.carry_out(report(2, vec![1, 2, 3], 900)).unwrap();
        let leaving = pb::SetNodeState { node: 2, state: 1, successor: 0 };
        map.carry_out(Command::SetNodeState(leaving)).unwrap();
        let (slots, version) = (map.0.slots.clone(), map.version());

        recover(&mut map, 2, &ClusterMap::default()).unwrap();
        assert!(map.version() > version);
        assert_eq!((map.cluster_id(), &map.0.slots), ("new", &slots));
        assert_eq!(map.former_cluster_ids(), ["old"]);
        let nodes: Vec<_> = map.nodes().map(|node| (node.id, node.state.name())).collect();
        assert_eq!(nodes, [(NodeId(2), "active")]);
        for placement in map.placements() {
            assert_eq!(
                (&placement.target, &placement.settled),
                (&vec![NodeId(2)], &vec![NodeId(2)])
            );
        }
        for (id, instance) in [(1, "i1"), (0, "i3"), (4, "i4")] {
            let refused = register(&mut map, id, instance).unwrap_err().to_string();
            assert!(refused.contains("was removed"), "{refused}");
        }
        // Leaders of groups that began anew are heard, and new nodes get new ids.
        map.carry_out(report(2, vec![2], 1)).unwrap();
        assert_eq!(map.placement(ShardId(2)).unwrap().log_index, 1);
        assert_eq!(register(&mut map, 0, "i5").unwrap().seq.0, 5);
        assert!(recover(&mut map, 2, &ClusterMap::default()).unwrap().duplicate);
    }

    #[test]
    fn the_newest_map_counts_and_one_that_is_gone_is_taken_from_the_other() {
        let old = map();
        let mut newer = old.clone();
        register(&mut newer, 0, "i4").unwrap();
        for mut mine in [old.clone(), ClusterMap::default()] {
            recover(&mut mine, 1, &newer).unwrap();
            assert!(mine.is_removed(NodeId(4)) && mine.version() > newer.version());
        }
        let mut mine = newer.clone();
        recover(&mut mine, 4, &old).unwrap();
        assert_eq!(mine.nodes().count(), 1);
        let before = newer.clone();
        assert!(recover(&mut newer, 9, &old).is_err(), "it is no node");
        assert!(recover(&mut ClusterMap::default(), 1, &ClusterMap::default()).is_err());
        assert_eq!(newer, before);
    }

    #[test]
    fn a_map_whose_version_no_cluster_reaches_is_refused() {
        let mut known = map();
        known.0.version = u64::MAX - 1;
        let (mut mine, before) = (map(), map());
        assert_eq!(recover(&mut mine, 1, &known), Err(Rejection::Undecodable));
        assert_eq!(mine, before);
    }

    #[test]
    fn two_nodes_that_join_get_every_group_back_to_three_voters() {
        let mut map = map();
        recover(&mut map, 3, &ClusterMap::default()).unwrap();
        register(&mut map, 0, "a").unwrap();
        register(&mut map, 0, "b").unwrap();
        let wanted = Some(pb::Rebalance { replicas: true, leaders: true });
        map.carry_out(Command::SetRebalance(pb::SetRebalance { wanted, expected_version: 0 }))
            .unwrap();
        let reachable: BTreeSet<_> = map.nodes().map(|node| node.id).collect();
        let leaders = map.placements().map(|p| (p.shard, NodeId(3))).collect();
        let steps =
            planner::preview(&map, &planner::Facts { reachable, leaders, ..Default::default() });
        let grown = steps.iter().filter(
            |step| matches!(step, planner::Action::SetTarget { target, .. } if target.len() == 3),
        );
        assert_eq!(grown.count(), 3, "{steps:?}");
    }
}
