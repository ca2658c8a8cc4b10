//! Which nodes a group should be on, and which it is on.

use crate::chat::command::Rejection;
use crate::id::{NodeId, ShardId};
use crate::meta::apply::{Change, Outcome};
use crate::meta::{ClusterMap, NodeState};
use crate::proto::internal as pb;

/// The numbers of voters that a group may be given. An even one adds a node that can fail without
/// adding a failure that is survived.
const SIZES: [usize; 3] = [1, 3, 5];

/// Where a group is, and where it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The group.
    pub shard: ShardId,
    /// Who should vote, ascending.
    pub target: Vec<NodeId>,
    /// Who votes by the last report, ascending.
    pub settled: Vec<NodeId>,
    /// The log index of the membership that was reported; 0 before the first report.
    pub log_index: u64,
    /// That entry's term.
    pub term: u64,
    /// Those to whom a move was taken back, ascending: they may vote, as far as the map knows, until the
    /// group's leader reports a later membership in which vote those that are wanted.
    pub given_up: Vec<NodeId>,
}

impl Placement {
    pub(super) fn of(placement: &pb::ShardPlacement) -> Placement {
        let target = sorted(&placement.replicas);
        let settled = placement.settled.as_ref();
        Placement {
            shard: ShardId(placement.shard as u16),
            settled: settled.map_or_else(|| target.clone(), |settled| sorted(&settled.voters)),
            log_index: settled.map_or(0, |settled| settled.log_index),
            term: settled.map_or(0, |settled| settled.term),
            given_up: sorted(&placement.given_up),
            target,
        }
    }

    /// Whether the group is where it should be, as far as its leader has said.
    pub fn is_settled(&self) -> bool {
        self.target == self.settled && self.given_up.is_empty()
    }

    /// Who may have a replica: those that vote, then those that are to, then those that may.
    pub fn members(&self) -> Vec<NodeId> {
        let mut members = self.settled.clone();
        for node in self.target.iter().chain(&self.given_up) {
            if !members.contains(node) {
                members.push(*node);
            }
        }
        members
    }

    /// Those that are to vote and do not yet.
    pub fn incoming(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.target.iter().copied().filter(|node| !self.settled.contains(node))
    }

    /// The target with one node in the place of another.
    pub fn replaced(&self, from: NodeId, to: NodeId) -> Vec<NodeId> {
        let mut target: Vec<_> =
            self.target.iter().map(|node| if *node == from { to } else { *node }).collect();
        target.sort_unstable();
        target
    }
}

fn sorted(ids: &[u64]) -> Vec<NodeId> {
    let mut nodes: Vec<_> = ids.iter().copied().map(NodeId).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Ids as text: `1, 2 and 3` would be nicer, `1, 2, 3` can be copied.
pub(super) fn list(ids: &[impl ToString]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl ClusterMap {
    /// The shard that a node is being caught up for, if it is.
    pub fn incoming(&self, node: NodeId) -> Option<ShardId> {
        let mut placements = self.placements();
        placements.find(|p| p.incoming().any(|id| id == node)).map(|placement| placement.shard)
    }

    /// Whether a group may be given a target, and why not.
    ///
    /// # Errors
    /// The rejection that applying it would answer.
    pub fn check_target(&self, shard: ShardId, target: &[NodeId]) -> Result<(), Rejection> {
        let Some(placement) = self.placement(shard) else {
            let last = self.0.shards.len().saturating_sub(1);
            return Err(Rejection::InvalidArgument(format!(
                "there is no shard {shard}: they are 0 (meta) to {last}"
            )));
        };
        if !target.is_sorted_by(|a, b| a < b || (mutant!(TwoOnOneNode) && a == b)) {
            return Err(Rejection::InvalidArgument(format!(
                "nodes {} are not in order, or there is one twice",
                list(target)
            )));
        }
        let settled = &placement.settled;
        if target == placement.target || target == settled {
            // A repeat; or a change is given up, which the group's leader then takes back.
            return Ok(());
        }
        if !placement.is_settled() {
            let way = match placement.target == *settled {
                true => format!("back to nodes {}", list(settled)),
                false => {
                    format!("from nodes {} to nodes {}", list(settled), list(&placement.target))
                }
            };
            return Err(Rejection::Forbidden(format!(
                "shard {shard} is on its way {way}: one change at a time"
            )));
        }
        if !SIZES.contains(&target.len()) && target.len() != settled.len() {
            return Err(Rejection::InvalidArgument(format!(
                "shard {shard} cannot have {} replicas: 1, 3 or 5",
                target.len()
            )));
        }
        let stay = settled.iter().filter(|node| target.contains(node)).count();
        if settled.len() - stay > 1 && stay <= settled.len() / 2 {
            return Err(Rejection::Forbidden(format!(
                "shard {shard} would lose a majority of nodes {} at once: replace one at a time",
                list(settled)
            )));
        }
        target
            .iter()
            .filter(|id| !settled.contains(id))
            .try_for_each(|id| self.check_incoming(shard, *id))
    }

    /// Whether a node may be given a replica.
    fn check_incoming(&self, shard: ShardId, id: NodeId) -> Result<(), Rejection> {
        match self.node(id) {
            None if self.is_removed(id) => {
                Err(Rejection::InvalidArgument(format!("node {id} was removed from the cluster")))
            }
            None => Err(Rejection::InvalidArgument(format!("there is no node {id}"))),
            Some(node) if node.state == NodeState::Leaving => {
                Err(Rejection::Forbidden(format!("node {id} is being removed")))
            }
            Some(node) if node.gateway => Err(Rejection::Forbidden(format!(
                "node {id} is a gateway, which has no replicas (its `node.gateway`)"
            ))),
            Some(_) => match self.incoming(id) {
                Some(other) if other != shard => Err(Rejection::Forbidden(format!(
                    "node {id} is being caught up for shard {other}: one shard at a time"
                ))),
                _ => Ok(()),
            },
        }
    }

    /// Whether the map is still the one that a decision was made on.
    fn check_version(&self, expected: u64) -> Result<(), Rejection> {
        if expected == self.0.version {
            return Ok(());
        }
        Err(Rejection::Forbidden(format!(
            "the cluster has changed meanwhile (its map has version {}, not {expected}): look \
             again",
            self.0.version
        )))
    }

    pub(super) fn set_target(&mut self, request: &pb::SetTarget) -> Outcome {
        let shard = u16::try_from(request.shard).map_err(|_| Rejection::Undecodable)?;
        let target: Vec<_> = request.target.iter().copied().map(NodeId).collect();
        let at = self.0.shards.iter().position(|placement| placement.shard == request.shard);
        if let Some(at) = at
            && Placement::of(&self.0.shards[at]).target == target
        {
            return Ok(Change::None(0));
        }
        self.check_version(request.expected_version)?;
        self.check_target(ShardId(shard), &target)?;
        let placement = &mut self.0.shards[at.expect("check_target has found it")];
        if placement.settled.is_none() {
            let voters = placement.replicas.clone();
            placement.settled = Some(pb::Settled { voters, log_index: 0, term: 0 });
        }
        // Its leader may have gone ahead.
        let before = Placement::of(placement);
        let given_up = before.incoming().filter(|node| !target.contains(node)).map(|node| node.0);
        if !mutant!(GivenUpForgotten) {
            placement.given_up.extend(given_up);
        }
        placement.replicas.clone_from(&request.target);
        Ok(Change::Made(0))
    }

    pub(super) fn report_settled(&mut self, report: pb::ReportSettled) -> Outcome {
        let mut placements = self.0.shards.iter_mut();
        let Some(placement) = placements.find(|placement| placement.shard == report.shard) else {
            return Err(Rejection::InvalidArgument(format!("there is no shard {}", report.shard)));
        };
        if report.voters.is_empty() {
            return Err(Rejection::Undecodable);
        }
        let known = placement.settled.as_ref().map_or(0, |settled| settled.log_index);
        if report.log_index <= known {
            // A leader of old, or a repeat.
            return Ok(Change::None(0));
        }
        let pb::ReportSettled { voters, log_index, term, .. } = report;
        // The first report may be of the membership that the group began with, from before a move; one of
        // other voters than are wanted is of a move that is to be undone.
        if known > 0 && sorted(&voters) == sorted(&placement.replicas) {
            placement.given_up.clear();
        }
        placement.settled = Some(pb::Settled { voters, log_index, term });
        Ok(Change::Made(0))
    }

    pub(super) fn set_rebalance(&mut self, request: pb::SetRebalance) -> Outcome {
        let wanted = request.wanted.filter(|wanted| wanted.replicas || wanted.leaders);
        if self.0.rebalance == wanted {
            return Ok(Change::None(0));
        }
        if request.expected_version != 0 {
            self.check_version(request.expected_version)?;
        }
        self.0.rebalance = wanted;
        Ok(Change::Made(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::command::Reply;
    use crate::proto::internal::request::Command;
    use prost::Message;

    fn map(nodes: u64) -> ClusterMap {
        let node = |id: u64| pb::SeedNode {
            id,
            instance: format!("i{id}"),
            client_address: format!("c{id}"),
            peer_address: format!("p{id}"),
            ..Default::default()
        };
        let nodes = (1..=nodes).map(node).collect();
        ClusterMap::of_seed(&pb::Seed { cluster_id: "c".into(), shards: 2, nodes })
    }

    fn apply(map: &mut ClusterMap, command: Command) -> Reply {
        let request = pb::Request { command: Some(command), ..Default::default() };
        map.apply(&request.encode_to_vec().into(), 1)
    }

    fn add(map: &mut ClusterMap, name: &str) {
        let node = pb::RegisterNode {
            client_address: name.into(),
            peer_address: name.into(),
            instance: name.into(),
            ..Default::default()
        };
        apply(map, Command::RegisterNode(node)).unwrap();
    }

    fn set(map: &mut ClusterMap, shard: u32, target: &[u64]) -> Reply {
        let expected_version = map.version();
        let set = pb::SetTarget { shard, target: target.to_vec(), expected_version };
        apply(map, Command::SetTarget(set))
    }

    fn report(map: &mut ClusterMap, shard: u32, voters: &[u64], log_index: u64) -> Reply {
        let report = pb::ReportSettled { shard, voters: voters.to_vec(), log_index, term: 1 };
        apply(map, Command::ReportSettled(report))
    }

    fn nodes(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn a_move_is_a_target_until_it_is_reported() {
        let mut map = map(3);
        add(&mut map, "four");
        set(&mut map, 1, &[1, 2, 4]).unwrap();
        let placement = map.placement(ShardId(1)).unwrap();
        assert_eq!((placement.settled, placement.target), (nodes(&[1, 2, 3]), nodes(&[1, 2, 4])));
        assert_eq!(map.replicas(ShardId(1)), nodes(&[1, 2, 3, 4]));
        assert!(!report(&mut map, 1, &[1, 2, 4], 7).unwrap().duplicate);
        // A leader of old tells nothing new.
        assert!(report(&mut map, 1, &[1, 2, 3], 6).unwrap().duplicate);
        assert_eq!(map.replicas(ShardId(1)), nodes(&[1, 2, 4]));
        assert_eq!(ClusterMap::decode(&map.encode()), Ok(map));
    }

    #[test]
    fn what_would_hurt_is_refused_with_a_reason_and_changes_nothing() {
        let mut map = map(3);
        for name in ["four", "five", "six"] {
            add(&mut map, name);
        }
        for (shard, target, why) in [
            (9, &[1, 2, 3][..], "no shard 9"),
            (1, &[1, 2, 9], "no node 9"),
            (1, &[1, 2, 2], "twice"),
            (1, &[3, 2, 1], "order"),
            (1, &[1, 2], "1, 3 or 5"),
            (1, &[], "1, 3 or 5"),
            (1, &[1], "majority"),
            (1, &[1, 4, 5], "majority"),
            (1, &[4, 5, 6], "majority"),
        ] {
            let before = map.clone();
            let refused = set(&mut map, shard, target).unwrap_err().to_string();
            assert!(refused.contains(why), "{target:?}: {refused}");
            assert_eq!(map, before);
        }
        set(&mut map, 1, &[1, 2, 4]).unwrap();
        let refused = set(&mut map, 1, &[1, 2, 5]).unwrap_err().to_string();
        assert!(refused.contains("one change at a time"), "{refused}");
        // It may be given up, though; then the group's leader has to say so.
        set(&mut map, 1, &[1, 2, 3]).unwrap();
        let refused = set(&mut map, 1, &[1, 2, 3, 4, 5]).unwrap_err().to_string();
        assert!(refused.contains("on its way back to nodes 1, 2, 3: one change"), "{refused}");
        report(&mut map, 1, &[1, 2, 3], 1).unwrap();
        assert!(set(&mut map, 1, &[1, 2, 3, 4, 5]).is_err(), "the first report may be an old one");
        report(&mut map, 1, &[1, 2, 3], 2).unwrap();
        set(&mut map, 1, &[1, 2, 3, 4, 5]).unwrap();
        assert!(report(&mut map, 9, &[1], 1).is_err());
        assert!(report(&mut map, 1, &[], 1).is_err());
    }

    #[test]
    fn a_node_to_which_a_move_was_taken_back_stays_until_the_leader_has_said_who_votes() {
        let mut map = map(3);
        add(&mut map, "four");
        set(&mut map, 1, &[1, 2, 4]).unwrap();
        let leaving = pb::SetNodeState { node: 4, state: 2, successor: 0 };
        apply(&mut map, Command::SetNodeState(leaving)).unwrap();
        set(&mut map, 1, &[1, 2, 3]).unwrap();
        let placement = map.placement(ShardId(1)).unwrap();
        assert_eq!(placement.settled, placement.target);
        assert!(!placement.is_settled(), "its leader may have let node 4 vote");
        assert_eq!(map.replicas(ShardId(1)), nodes(&[1, 2, 3, 4]));
        assert_eq!(ClusterMap::decode(&map.encode()), Ok(map.clone()));
        let remove = || Command::RemoveNode(pb::RemoveNode { node: 4 });
        let refused = apply(&mut map, remove()).unwrap_err().to_string();
        assert!(refused.contains("replica of shard 1"), "{refused}");
        // It had, and goes back.
        report(&mut map, 1, &[1, 2, 4], 7).unwrap();
        assert!(apply(&mut map, remove()).is_err(), "it votes");
        report(&mut map, 1, &[1, 2, 3], 9).unwrap();
        assert!(map.placement(ShardId(1)).unwrap().is_settled());
        apply(&mut map, remove()).unwrap();
    }

    #[test]
    fn a_move_that_ended_before_it_was_taken_back_stays_if_the_way_back_is_closed() {
        let mut map = map(3);
        add(&mut map, "four");
        report(&mut map, 1, &[1, 2, 3], 1).unwrap();
        set(&mut map, 1, &[1, 2, 4]).unwrap();
        set(&mut map, 1, &[1, 2, 3]).unwrap();
        // Node 3 does not answer, so its leader says that node 4 votes.
        report(&mut map, 1, &[1, 2, 4], 7).unwrap();
        let placement = map.placement(ShardId(1)).unwrap();
        assert_eq!(placement.incoming().collect::<Vec<_>>(), nodes(&[3]));
        assert_eq!(placement.given_up, nodes(&[4]), "it is to go, and has not");
        let leaving = pb::SetNodeState { node: 3, state: 2, successor: 0 };
        apply(&mut map, Command::SetNodeState(leaving)).unwrap();
        set(&mut map, 1, &[1, 2, 4]).unwrap();
        let placement = map.placement(ShardId(1)).unwrap();
        assert_eq!(placement.target, placement.settled);
        assert_eq!(placement.given_up, nodes(&[3, 4]), "a leader may have let node 3 vote");
        report(&mut map, 1, &[1, 2, 4], 9).unwrap();
        assert!(map.placement(ShardId(1)).unwrap().is_settled());
        assert_eq!(map.replicas(ShardId(1)), nodes(&[1, 2, 4]));
    }

    #[test]
    fn a_node_is_removed_once_nothing_has_it_and_never_comes_back() {
        let mut map = map(3);
        add(&mut map, "four");
        let remove = || Command::RemoveNode(pb::RemoveNode { node: 3 });
        let refused = apply(&mut map, remove()).unwrap_err().to_string();
        assert!(refused.contains("active"), "{refused}");
        let leaving = pb::SetNodeState { node: 3, state: 2, successor: 0 };
        apply(&mut map, Command::SetNodeState(leaving)).unwrap();
        assert!(apply(&mut map, Command::SetNodeState(leaving)).unwrap().duplicate);
        for shard in 0..3 {
            let refused = apply(&mut map, remove()).unwrap_err().to_string();
            assert!(refused.contains(&format!("replica of shard {shard}")), "{refused}");
            set(&mut map, shard, &[1, 2, 4]).unwrap();
            assert!(apply(&mut map, remove()).is_err(), "it still votes");
            report(&mut map, shard, &[1, 2, 4], 5).unwrap();
        }
        apply(&mut map, remove()).unwrap();
        assert!(apply(&mut map, remove()).unwrap().duplicate);
        for (id, instance) in [(3, "i3"), (0, "i3"), (3, "other")] {
            let node = pb::RegisterNode {
                node_id: id,
                client_address: "x".into(),
                peer_address: "x".into(),
                instance: instance.into(),
                ..Default::default()
            };
            let refused = apply(&mut map, Command::RegisterNode(node)).unwrap_err().to_string();
            assert!(refused.contains("was removed"), "{refused}");
        }
    }
}
