//! What should move next: a pure function of the map, and of who can be reached and leads.
//!
//! Asked again and again by whoever leads the meta group (`node/placement/planner.rs`). It keeps
//! nothing, so that the next leader goes on where the last one was. In order:
//!
//! 1. A move to a node that is lost meanwhile is taken back.
//! 2. Nodes that leave lose their replicas, one shard at a time, then are removed.
//! 3. Where it is asked for (`placement.replace_after`), a node that has not answered for long leaves,
//!    if there is another one for each of its replicas.
//! 4. When it is asked for (by a join or an operator), groups get as many voters as they should
//!    have: three; the meta group five when there are as many nodes. Then replicas are spread until
//!    nodes differ by one at most, then leaders. Otherwise both stay where operators put them.

use std::collections::{BTreeMap, BTreeSet};

use crate::chat::command::Rejection;
use crate::id::{NodeId, ShardId};
use crate::meta::placement::list;
use crate::meta::{ClusterMap, Node, NodeState, Placement};
use crate::proto::internal as pb;
use crate::proto::internal::request::Command;

/// Steps that a preview has at most.
const PREVIEW_MAX: usize = 1000;

/// What is known of the cluster at the moment, beside its map.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The nodes that answer.
    pub reachable: BTreeSet<NodeId>,
    /// Who leads which group.
    pub leaders: BTreeMap<ShardId, NodeId>,
    /// Nodes that do not answer, but have not been away for long: they may be starting.
    pub expected: BTreeSet<NodeId>,
    /// Nodes that have not answered for so long that they are to be replaced, if they can be.
    pub lost: BTreeSet<NodeId>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Give a group another target.
    SetTarget {
        /// The group.
        shard: ShardId,
        /// Who is to vote.
        target: Vec<NodeId>,
    },
    /// Hand over the lead of a group.
    TransferLeader {
        /// The group.
        shard: ShardId,
        /// Who is to lead.
        to: NodeId,
    },
    /// Take a node's replicas to others, as it does not answer, then remove it.
    Replace(NodeId),
    /// Forget a node that has nothing any more.
    RemoveNode(NodeId),
    /// All is spread evenly: take back the wish for it.
    Balanced,
}

impl Action {
    /// The meta group's command for a step that was decided on a map of this version; `None` for a
    /// transfer, which is for the group itself.
    pub fn command(&self, version: u64) -> Option<Command> {
        Some(match self {
            Action::SetTarget { shard, target } => Command::SetTarget(pb::SetTarget {
                shard: shard.0.into(),
                target: target.iter().map(|id| id.0).collect(),
                expected_version: version,
            }),
            Action::Replace(node) => Command::SetNodeState(pb::SetNodeState {
                node: node.0,
                state: pb::NodeState::Leaving.into(),
                successor: 0,
            }),
            Action::RemoveNode(node) => Command::RemoveNode(pb::RemoveNode { node: node.0 }),
            Action::Balanced => {
                Command::SetRebalance(pb::SetRebalance { wanted: None, expected_version: version })
            }
            Action::TransferLeader { .. } => return None,
        })
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Action::SetTarget { shard, target } => {
                write!(f, "move shard {shard} to nodes {}", list(target))
            }
            Action::TransferLeader { shard, to } => {
                write!(f, "transfer the lead of shard {shard} to node {to}")
            }
            Action::Replace(node) => {
                write!(f, "replace node {node}, which has not answered for too long")
            }
            Action::RemoveNode(node) => write!(f, "remove node {node}"),
            Action::Balanced => write!(f, "replicas and leaders are spread evenly"),
        }
    }
}

/// Whether there is anything to decide at all; if not, nobody need be asked how they are.
pub fn is_idle(map: &ClusterMap) -> bool {
    map.rebalance() == (false, false) && map.nodes().all(|node| node.state != NodeState::Leaving)
}

/// What to do next, if anything can be done now.
pub fn next(map: &ClusterMap, facts: &Facts) -> Option<Action> {
    let steps = [give_up, leave, replace, spread];
    steps.into_iter().find_map(|step| step(map, facts))
}

/// All steps that would follow if nothing else happened, each as if it were done at once.
pub fn preview(map: &ClusterMap, facts: &Facts) -> Vec<Action> {
    let (mut map, mut facts) = (map.clone(), facts.clone());
    // What is on its way comes first.
    for Placement { shard, target, .. } in
        map.placements().filter(|p| !p.is_settled()).collect::<Vec<_>>()
    {
        let arrival = Action::SetTarget { shard, target };
        if imagine(&mut map, &mut facts, &arrival).is_err() {
            return Vec::new();
        }
    }
    // Nothing goes on before a named successor answers.
    facts.reachable.extend(map.nodes().filter_map(|node| map.successor(node.id)));
    let mut steps = Vec::new();
    while steps.len() < PREVIEW_MAX
        && let Some(action) = next(&map, &facts)
    {
        if imagine(&mut map, &mut facts, &action).is_err() {
            break;
        }
        if action != Action::Balanced {
            steps.push(action);
        }
    }
    steps
}

/// Does a step as if it took no time.
fn imagine(map: &mut ClusterMap, facts: &mut Facts, action: &Action) -> Result<(), Rejection> {
    if let Some(command) = action.command(map.version()) {
        map.carry_out(command)?;
    }
    match action {
        Action::SetTarget { shard, target } => {
            // A first report does not end a move back.
            while let Some(placement) = map.placement(*shard).filter(|p| !p.is_settled()) {
                let voters = target.iter().map(|id| id.0).collect();
                let log_index = placement.log_index + 1;
                let report =
                    pb::ReportSettled { shard: shard.0.into(), voters, log_index, term: 0 };
                map.carry_out(Command::ReportSettled(report))?;
            }
            if let Some(leader) = facts.leaders.get_mut(shard).filter(|l| !target.contains(l)) {
                *leader = target[0];
            }
        }
        Action::TransferLeader { shard, to } => {
            facts.leaders.insert(*shard, *to);
        }
        Action::Replace(_) | Action::RemoveNode(_) | Action::Balanced => {}
    }
    Ok(())
}

/// How many targets each node is in; every node that may get replicas has an entry.
fn loads(map: &ClusterMap) -> BTreeMap<NodeId, usize> {
    let mut loads: BTreeMap<NodeId, usize> = takers(map).map(|node| (node.id, 0)).collect();
    for node in map.placements().flat_map(|placement| placement.target) {
        *loads.entry(node).or_default() += 1;
    }
    loads
}

/// Nodes that may get replicas, and leads.
fn takers(map: &ClusterMap) -> impl Iterator<Item = Node> + '_ {
    map.nodes().filter(Node::takes_replicas)
}

/// Of the nodes that may get replicas, the one with the fewest that has none of this group and meets
/// a condition.
fn least_loaded(
    map: &ClusterMap,
    placement: &Placement,
    counts: impl Fn(NodeId) -> bool,
) -> Option<NodeId> {
    let loads = loads(map);
    let has_none = |id: &NodeId| !placement.members().contains(id) || mutant!(TwoOnOneNode);
    let free = takers(map).map(|node| node.id).filter(has_none);
    free.filter(|id| counts(*id)).min_by_key(|id| (loads[id], *id))
}

/// The target of a group without a node: with another one in its place, or smaller if there is none
/// and a smaller one survives as many failures as before but one.
///
/// # Errors
/// Why there is none, for a person.
pub fn without(
    map: &ClusterMap,
    placement: &Placement,
    node: NodeId,
) -> Result<Vec<NodeId>, String> {
    without_among(map, placement, node, |_| true, |_| true)
}

fn without_among(
    map: &ClusterMap,
    placement: &Placement,
    node: NodeId,
    answers: impl Fn(NodeId) -> bool,
    is_free: impl Fn(NodeId) -> bool,
) -> Result<Vec<NodeId>, String> {
    let counts = |id| answers(id) && is_free(id);
    if let Some(to) = map.successor(node)
        && map.node(to).is_some_and(|named| named.takes_replicas())
        && !placement.members().contains(&to)
    {
        return match counts(to) {
            true => Ok(placement.replaced(node, to)),
            false => Err(format!("node {to} cannot take it just now")),
        };
    }
    if let Some(to) = least_loaded(map, placement, counts) {
        return Ok(placement.replaced(node, to));
    }
    if least_loaded(map, placement, |_| true).is_none() && placement.target.len() > 3 {
        let loads = loads(map);
        let mut rest: Vec<_> = placement.target.iter().copied().filter(|id| *id != node).collect();
        // Those that leave, too, go first, then those that do not answer, then those that could not lead,
        // then those with the most to do.
        let is = |id: &NodeId, state| map.node(*id).is_some_and(|node| node.state == state);
        rest.sort_by_key(|id| {
            let (leaves, drains) = (is(id, NodeState::Leaving), is(id, NodeState::Draining));
            (leaves, !answers(*id), drains, loads[id], *id)
        });
        rest.truncate(3);
        rest.sort_unstable();
        return Ok(rest);
    }
    Err(format!(
        "shard {} is on nodes {}, and there is no other node to take the place of node {node}: add \
         one first",
        placement.shard,
        list(&placement.target)
    ))
}

/// A move to a node that was lost before it had caught up is taken back.
fn give_up(map: &ClusterMap, facts: &Facts) -> Option<Action> {
    let lost = |placement: &Placement| placement.incoming().any(|id| facts.lost.contains(&id));
    let placement = map.placements().find(lost)?;
    Some(Action::SetTarget { shard: placement.shard, target: placement.settled })
}

fn leave(map: &ClusterMap, facts: &Facts) -> Option<Action> {
    // Else the group would have no quorum, not even to go back.
    let survives = |target: &[NodeId]| {
        target.iter().filter(|id| facts.reachable.contains(id)).count() > target.len() / 2
    };
    for node in map.nodes().filter(|node| node.state == NodeState::Leaving) {
        let mut has_none = true;
        for placement in map.placements() {
            let going = mutant!(RemovedTooSoon) && !placement.target.contains(&node.id);
            if going || !placement.members().contains(&node.id) {
                continue;
            }
            has_none = false;
            if !placement.is_settled() {
                // Given up if the one that leaves is the one that comes.
                if placement.incoming().any(|id| id == node.id) {
                    return Some(Action::SetTarget {
                        shard: placement.shard,
                        target: placement.settled,
                    });
                }
                continue;
            }
            let answers = |id| facts.reachable.contains(&id);
            let is_free = |id| map.incoming(id).is_none();
            if let Ok(target) = without_among(map, &placement, node.id, answers, is_free)
                && survives(&target)
            {
                return Some(Action::SetTarget { shard: placement.shard, target });
            }
        }
        if has_none {
            return Some(Action::RemoveNode(node.id));
        }
    }
    None
}

/// A node that is lost, and whose every replica another one can take. One at a time, and only while
/// most nodes answer: else it is this side that is cut off, or something else is wrong than a node.
/// A node that drains is in an operator's hands.
fn replace(map: &ClusterMap, facts: &Facts) -> Option<Action> {
    let with_replicas = || map.nodes().filter(|node| !node.gateway);
    let answer = with_replicas().filter(|node| facts.reachable.contains(&node.id)).count();
    if map.nodes().any(|node| node.state == NodeState::Leaving)
        || answer <= with_replicas().count() / 2
    {
        return None;
    }
    let has_spare = |id: NodeId| {
        let mut placements = map.placements().filter(|placement| placement.target.contains(&id));
        placements.all(|placement| {
            // Whatever moves now will have moved by then.
            let then = Placement { settled: placement.target.clone(), ..placement };
            least_loaded(map, &then, |to| facts.reachable.contains(&to)).is_some()
        })
    };
    let has_replicas = |id| map.placements().any(|placement| placement.members().contains(&id));
    let lost = takers(map).map(|node| node.id).filter(|id| facts.lost.contains(id));
    lost.filter(|id| has_replicas(*id) && has_spare(*id))
        .find(|id| map.check_node_state(*id, NodeState::Leaving, None).is_ok())
        .map(Action::Replace)
}

/// How many voters a group should have.
fn size(map: &ClusterMap, placement: &Placement) -> usize {
    let nodes = takers(map).count();
    match placement.target.len() {
        1 | 2 if nodes >= 3 => 3,
        3 if placement.shard == ShardId::META && nodes >= 5 => 5,
        now => now,
    }
}

/// Whether a group has fewer voters than it should have.
pub(super) fn could_grow(map: &ClusterMap) -> bool {
    map.placements().any(|placement| placement.target.len() < size(map, &placement))
}

fn grow(map: &ClusterMap, facts: &Facts) -> Option<Action> {
    for placement in map.placements().filter(Placement::is_settled) {
        let size = size(map, &placement);
        let mut grown = placement.clone();
        while grown.target.len() < size {
            let free = |id| facts.reachable.contains(&id) && map.incoming(id).is_none();
            let Some(to) = least_loaded(map, &grown, free) else { break };
            grown.target.push(to);
        }
        if grown.target.len() == size && size > placement.target.len() {
            grown.target.sort_unstable();
            return Some(Action::SetTarget { shard: placement.shard, target: grown.target });
        }
    }
    None
}

fn spread(map: &ClusterMap, facts: &Facts) -> Option<Action> {
    let (replicas, leaders) = map.rebalance();
    if !replicas && !leaders {
        return None;
    }
    if takers(map).any(|node| facts.expected.contains(&node.id)) {
        // Else what is spread without it counts as done, and a node that has just joined, or was
        // restarted, gets nothing.
        return None;
    }
    if replicas && let Some(action) = grow(map, facts) {
        return Some(action);
    }
    if replicas && let Some(uneven) = spread_replicas(map, facts) {
        return match uneven {
            Uneven::Move(action) => Some(action),
            Uneven::Waits => None,
        };
    }
    if !map.placements().all(|placement| placement.is_settled()) {
        return None;
    }
    let action = leaders.then(|| spread_leaders(map, facts)).flatten();
    Some(action.unwrap_or(Action::Balanced))
}

enum Uneven {
    Move(Action),
    /// Until the moves that are under way are done.
    Waits,
}

/// A move from the node with the most replicas to the one with the fewest; `None` when they are
/// spread evenly.
fn spread_replicas(map: &ClusterMap, facts: &Facts) -> Option<Uneven> {
    let mut waits = false;
    let loads = loads(map);
    let mut nodes: Vec<NodeId> = takers(map).map(|node| node.id).collect();
    nodes.retain(|id| facts.reachable.contains(id));
    nodes.sort_by_key(|id| (loads[id], *id));
    for to in &nodes {
        for from in nodes.iter().rev().filter(|from| loads[from] > loads[to] + 1) {
            // What `from` does not lead is moved with less ado; the meta group last.
            let mut movable: Vec<Placement> = map
                .placements()
                .filter(|p| p.target.contains(from) && !p.members().contains(to))
                .collect();
            movable.sort_by_key(|p| {
                (p.shard == ShardId::META, facts.leaders.get(&p.shard) == Some(from), p.shard)
            });
            waits |= !movable.is_empty();
            if map.incoming(*to).is_some() {
                continue;
            }
            if let Some(placement) = movable.into_iter().find(Placement::is_settled) {
                let target = placement.replaced(*from, *to);
                return Some(Uneven::Move(Action::SetTarget { shard: placement.shard, target }));
            }
        }
    }
    waits.then_some(Uneven::Waits)
}

/// A transfer from a node that leads much to one that leads little, if that evens it out.
fn spread_leaders(map: &ClusterMap, facts: &Facts) -> Option<Action> {
    let mut leads: BTreeMap<NodeId, usize> = takers(map)
        .map(|node| (node.id, 0))
        .filter(|(id, _)| facts.reachable.contains(id))
        .collect();
    for leader in facts.leaders.values() {
        if let Some(leads) = leads.get_mut(leader) {
            *leads += 1;
        }
    }
    let mut moves: Vec<(usize, usize, ShardId, NodeId)> = Vec::new();
    for (shard, leader) in &facts.leaders {
        let (Some(from), Some(placement)) = (leads.get(leader), map.placement(*shard)) else {
            continue;
        };
        for to in &placement.settled {
            if let Some(fewest) = leads.get(to).filter(|fewest| *from > **fewest + 1) {
                moves.push((usize::MAX - from, *fewest, *shard, *to));
            }
        }
    }
    let (.., shard, to) = moves.into_iter().min()?;
    Some(Action::TransferLeader { shard, to })
}

#[cfg(test)]
mod tests;
