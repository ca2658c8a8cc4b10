//! Where replicas are, and where they are to be: every node's map, the groups' own memberships and what
//! is on the nodes, held against each other. At every step what may never be otherwise; at the end of a
//! life, that all is done that was ordered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use folkmoot::chat::state::{Room, State};
use folkmoot::id::{NodeId, RoomId, SLOTS, ShardId, Slot};
use folkmoot::limits::CAUGHT_UP_LAG_MAX;
use folkmoot::meta::{ClusterMap, MAP_BLOB, NodeState, Placement};
use folkmoot::shard::Shard;

use crate::cluster::Cluster;
use crate::node::{Excuse, Node};
use crate::nonsense::nonsense;
use crate::runtime::Sim;

/// Sets of voters, of which an entry needs a majority each: one; two while they change.
pub type Voters = Vec<BTreeSet<NodeId>>;

/// The term of an entry that was seen to be committed.
type TermOf<'a> = &'a dyn Fn((ShardId, u64)) -> Option<u64>;

/// A group has so many voters at least, in a cluster that was founded by as many nodes.
const VOTERS_MIN: usize = 3;
/// By so many entries a replica may seem to trail more than its leader thought when it let it vote: they
/// were on their way.
const ON_THEIR_WAY: u64 = 64;

/// What was seen so far.
#[derive(Default)]
pub struct Placements {
    /// Each version of the map, and who was seen with it first.
    maps: BTreeMap<u64, (Arc<ClusterMap>, NodeId)>,
    /// The map in the meta group's state once an entry (term, index) was applied, and where.
    states: BTreeMap<(u64, u64), (Option<bytes::Bytes>, NodeId)>,
    /// The membership that each committed entry set.
    memberships: BTreeMap<(ShardId, u64), Voters>,
    /// Memberships on their way to others, and those of their new voters that were looked at.
    joint: BTreeSet<(ShardId, u64, NodeId)>,
    /// Rooms that are where they belong.
    rooms: BTreeSet<(RoomId, ShardId)>,
    /// What each node's replica of the meta group had applied when its map was looked at.
    applied: BTreeMap<NodeId, (u64, u64)>,
}

impl Placements {
    /// Looks at the maps of all nodes, and at who is to vote; also at what seems to be as it was, if `anew`.
    pub fn look(&mut self, cluster: &Cluster, term_of: TermOf<'_>, anew: bool) {
        if anew {
            self.applied.clear();
        }
        for node in cluster.nodes.values() {
            let Some(running) = node.running() else { continue };
            self.map(cluster, node.id, running.router.map());
            for shard in running.router.host().all() {
                self.promoted(cluster, &shard);
            }
            if let Some(meta) = running.router.host().get(ShardId::META) {
                self.state(cluster, node, &meta);
            }
        }
        if let Some((map, _)) = self.maps.values().next_back() {
            let wrong = self.contradictions(map, term_of);
            wrong.into_iter().for_each(|wrong| cluster.violation(wrong));
        }
    }

    /// Equal version, equal map, on every node at any time; and none that makes no sense.
    fn map(&mut self, cluster: &Cluster, node: NodeId, map: Arc<ClusterMap>) {
        if !map.is_formed() {
            return;
        }
        if let Some((known, first)) = self.maps.get(&map.version()) {
            if !Arc::ptr_eq(known, &map) && **known != *map {
                cluster.violation(format!(
                    "placement: nodes {first} and {node} have different maps of version {}",
                    map.version()
                ));
            }
            return;
        }
        let mut wrong = nonsense(&map);
        let first = self.maps.values().next();
        if first.is_some_and(|(first, _)| slots(first) != slots(&map)) {
            wrong.push("slots have moved, and nothing moves slots".into());
        }
        for wrong in wrong {
            cluster.violation(format!("placement: map {} of node {node}: {wrong}", map.version()));
        }
        self.maps.insert(map.version(), (map, node));
    }

    /// What has applied the same of the meta group has the same map.
    fn state(&mut self, cluster: &Cluster, node: &Node, meta: &Shard<Sim>) {
        let known = self.applied.get(&node.id).copied();
        let image = || {
            let state = meta.replica().read();
            let applied = state.applied().log_id.filter(|applied| known != Some(*applied))?;
            Some((applied, state.blob(MAP_BLOB)))
        };
        let Some(Some((applied, map))) = cluster.look(node, image) else { return };
        let node = node.id;
        self.applied.insert(node, applied);
        let (known, first) = self.states.entry(applied).or_insert((map.clone(), node));
        if *known != map {
            cluster.violation(format!(
                "placement: nodes {first} and {node} have applied entry {} of the meta group, and \
                 have different maps",
                applied.1
            ));
        }
    }

    /// Nobody is made a voter who has not caught up; looked at when it is first seen on its way.
    fn promoted(&mut self, cluster: &Cluster, shard: &Shard<Sim>) {
        if !shard.is_joint() {
            return;
        }
        let [(index, voters), _] = shard.memberships();
        let [before, after] = &voters[..] else { return };
        for new in after.difference(before) {
            // It has what it had, also while it is down.
            let Some(running) = cluster.nodes.get(new).and_then(|node| node.running()) else {
                continue;
            };
            // And while its replica starts: that is looked at once it has.
            let Some(replica) = running.router.host().get(shard.id()) else { continue };
            if !self.joint.insert((shard.id(), index, *new)) {
                continue;
            }
            // One that has just started has not looked at its log yet; a snapshot is in no log.
            let has = replica.last_on_disk().max(replica.status().last_log);
            if has == 0 || has + CAUGHT_UP_LAG_MAX + ON_THEIR_WAY < index {
                cluster.violation(format!(
                    "placement: node {new} is to vote in shard {} by entry {index}, and its log \
                     ends at {has}: it has not caught up",
                    shard.id()
                ));
            }
        }
    }

    /// A membership that is committed follows on the last one. `known` says whether the log was read
    /// from there on.
    pub fn committed(
        &mut self,
        cluster: &Cluster,
        (shard, index): (ShardId, u64),
        voters: Voters,
        known: impl Fn(u64) -> bool,
    ) {
        if self.memberships.contains_key(&(shard, index)) {
            return;
        }
        if let Some(small) = voters.iter().find(|set| set.len() < VOTERS_MIN) {
            cluster.violation(format!(
                "placement: by entry {index} of shard {shard} only nodes {small:?} vote"
            ));
        }
        self.memberships.insert((shard, index), voters.clone());
        let before = self.memberships.range((shard, 0)..(shard, index)).next_back();
        if let Some((&(_, last), before)) = before
            && (last..index).all(known)
            && !follows(before, &voters)
        {
            cluster.violation(format!(
                "placement: entry {index} of shard {shard} changes the voters from {before:?} to \
                 {voters:?} at once"
            ));
        }
    }

    /// What the map says is settled, and the groups' committed memberships say otherwise.
    fn contradictions(&self, map: &ClusterMap, term_of: TermOf<'_>) -> Vec<String> {
        let mut wrong = vec![];
        for placement in map.placements() {
            let shard = placement.shard;
            // Before the first report it is by no entry.
            let other = |term: &u64| placement.log_index > 0 && *term != placement.term;
            if let Some(term) = term_of((shard, placement.log_index)).filter(other) {
                wrong.push(format!(
                    "placement: shard {shard} is said to be settled by entry {} of term {}, and that of \
                     term {term} is committed",
                    placement.log_index, placement.term
                ));
            }
            let reported = self.memberships.get(&(shard, placement.log_index));
            let settled = BTreeSet::from_iter(placement.settled);
            if reported.is_some_and(|voters| *voters != [settled.clone()]) {
                wrong.push(format!(
                    "placement: shard {shard} is said to be settled on nodes {settled:?} by entry \
                     {}, which says {reported:?}",
                    placement.log_index
                ));
            }
            // One from before the last report may have nodes that were removed since.
            let last = self.memberships.range((shard, placement.log_index)..=(shard, u64::MAX));
            for voter in last.flat_map(|(_, voters)| voters.iter().flatten()) {
                if map.node(*voter).is_none() {
                    wrong.push(format!(
                        "placement: node {voter} votes in shard {shard}, and is not of the cluster"
                    ));
                }
            }
        }
        wrong
    }

    /// Rooms that a replica has belong to its shard.
    pub fn rooms(
        &mut self,
        cluster: &Cluster,
        map: &ClusterMap,
        shard: ShardId,
        rooms: &[Arc<Room>],
    ) {
        for room in rooms {
            let key = (room.id.clone(), shard);
            if self.rooms.contains(&key) {
                continue;
            }
            match map.shard_of_room(&room.id) {
                Some(owner) if owner == shard => drop(self.rooms.insert(key)),
                None => {}
                owner => cluster.violation(format!(
                    "placement: shard {shard} has rows of room {}, which is shard {owner:?}'s",
                    room.id
                )),
            }
        }
    }
}

fn slots(map: &ClusterMap) -> Vec<Option<ShardId>> {
    (0..SLOTS).map(|slot| map.shard_of(Slot(slot))).collect()
}

/// Whether a membership may come right after another one: every majority of the one meets every majority
/// of the other, since they have a set of voters in common.
fn follows(before: &Voters, after: &Voters) -> bool {
    before.iter().any(|set| after.contains(set))
}

/// Whether there is no node that could take a node's place in some group.
fn lacks_spare(cluster: &Cluster, map: &ClusterMap, id: NodeId) -> bool {
    let is_gone = |id| cluster.nodes.get(&id).is_none_or(|node| node.is_gone());
    let spares: Vec<NodeId> = map
        .nodes()
        .filter(|node| node.takes_replicas() && !is_gone(node.id))
        .map(|node| node.id)
        .collect();
    let mut its = map.placements().filter(|placement| placement.members().contains(&id));
    its.any(|placement| spares.iter().all(|spare| placement.members().contains(spare)))
}

/// A node that is on its way out, and stays so until an operator resumes it: it was away, came back, and
/// the one that was to take its place is gone meanwhile, or has taken another one's.
pub fn stuck(cluster: &Cluster) -> Option<NodeId> {
    let map = cluster.newest_map().filter(|_| cluster.replaces())?;
    let is_stuck = |node: &folkmoot::meta::Node| {
        let its = map.placements().filter(|placement| placement.members().contains(&node.id));
        node.state == NodeState::Leaving
            && its.into_iter().all(|placement| placement.is_settled())
            && lacks_spare(cluster, &map, node.id)
    };
    map.nodes().find(is_stuck).map(|node| node.id)
}

/// Whether nobody replaces a lost node unasked: it has no replica, or there is no node that could take its
/// place in some group.
pub fn cannot_be_replaced(cluster: &Cluster, map: &ClusterMap, lost: NodeId) -> bool {
    let has_none = || map.placements().all(|placement| !placement.members().contains(&lost));
    cluster.replaces() && (has_none() || lacks_spare(cluster, map, lost))
}

/// What is ordered, and not done yet.
pub fn unsettled(cluster: &Cluster) -> Option<String> {
    if let Some(open) = cluster.orders.open("") {
        return Some(format!("an operator waits: {open}"));
    }
    let map = cluster.newest_map()?;
    for node in cluster.nodes.values() {
        let Some(running) = node.running() else { continue };
        let here = running.router.map().version();
        if here != map.version() {
            return Some(format!(
                "node {} has map {here}, another one has {}",
                node.id,
                map.version()
            ));
        }
        let drains = map.node(node.id).is_some_and(|node| node.state == NodeState::Draining);
        let leads = running.router.host().all().into_iter().find(|shard| shard.is_leader());
        if let Some(shard) = leads.filter(|_| drains) {
            return Some(format!("node {} drains, and leads shard {}", node.id, shard.id()));
        }
    }
    let stays = |id| cannot_be_replaced(cluster, &map, id);
    if let Some(leaving) = map.nodes().find(|node| node.state == NodeState::Leaving) {
        return Some(format!("node {} is to be removed", leaving.id));
    }
    // Nothing is spread without a node that may be starting.
    let mut waited = map
        .nodes()
        .map(|node| node.id)
        .filter(|id| cluster.nodes.get(id).is_some_and(|node| node.is_gone()) && stays(*id));
    (map.rebalance() != (false, false) && waited.next().is_none())
        .then(|| "replicas or leaders are to be spread evenly".into())
}

/// Which groups are not where the map wants them, each on enough nodes, each of which there is.
pub fn misplaced(cluster: &Cluster) -> Vec<String> {
    let Some(map) = cluster.newest_map() else {
        return vec!["placement: no node has a map".into()];
    };
    let placements = map.placements();
    let wrong = placements.flat_map(|placement| misplaced_in(cluster, &map, &placement));
    wrong.map(|wrong| format!("placement: {wrong}")).collect()
}

/// What is wrong once nothing is left to be done: what is misplaced, groups or rows.
pub fn amiss(cluster: &Cluster) -> Vec<String> {
    let mut wrong = misplaced(cluster);
    let Some(map) = cluster.newest_map() else { return wrong };
    for node in cluster.nodes.values() {
        let Some(running) = node.running() else { continue };
        for shard in running.router.host().all() {
            let state = shard.replica().read();
            let strange = |owner: Option<ShardId>| owner != Some(shard.id());
            let rooms = state.rooms(None, usize::MAX).into_iter();
            let rooms = rooms.filter(|room| strange(map.shard_of_room(&room.id)));
            wrong.extend(rooms.map(|room| {
                format!("placement: shard {} has rows of room {}", shard.id(), room.id)
            }));
            let users = state.users(None, usize::MAX).into_iter();
            let users = users.filter(|user| strange(map.shard_of_user(&user.id)));
            wrong.extend(users.map(|user| {
                format!("placement: shard {} has rows of user {}", shard.id(), user.id)
            }));
        }
    }
    wrong
}

fn misplaced_in(cluster: &Cluster, map: &ClusterMap, placement: &Placement) -> Vec<String> {
    let (shard, mut wrong) = (placement.shard, vec![]);
    let settled = BTreeSet::from_iter(placement.settled.iter().copied());
    if !placement.is_settled() || settled.len() < VOTERS_MIN {
        wrong.push(format!("shard {shard} is on too few nodes, or to move: {placement:?}"));
    }
    for node in cluster.nodes.values() {
        // One that was damaged is lost for good, and nobody was told to replace it.
        let stays = node.excused(Excuse::Damage) && !cluster.replaces();
        let gone = node.is_gone() && !stays && !cannot_be_replaced(cluster, map, node.id);
        if settled.contains(&node.id) && gone {
            wrong.push(format!("shard {shard} is on node {}, which is gone", node.id));
        }
        let replica = node.running().and_then(|running| running.router.host().get(shard));
        if replica.is_some() != (settled.contains(&node.id) && node.running().is_some()) {
            wrong.push(format!("node {} has a replica of shard {shard}, or lacks it", node.id));
        }
        let Some(replica) = replica else { continue };
        let [_, (index, voters)] = replica.memberships();
        if voters != [settled.clone()] || !replica.status().learners.is_empty() {
            wrong.push(format!(
                "shard {shard} is to be on nodes {settled:?}; by node {} those vote by entry \
                 {index}: {voters:?}, and {:?} learn",
                node.id,
                replica.status().learners
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use folkmoot::proto::internal as pb;
    use prost::Message;

    use super::*;
    use crate::nonsense::tests::map;

    fn voters(sets: &[&[u64]]) -> Voters {
        sets.iter().map(|set| set.iter().copied().map(NodeId).collect()).collect()
    }

    #[test]
    fn voters_change_by_a_joint_membership() {
        let (old, new) = (voters(&[&[1, 2, 3]]), voters(&[&[1, 2, 4]]));
        let joint = voters(&[&[1, 2, 3], &[1, 2, 4]]);
        assert!(follows(&old, &joint) && follows(&joint, &new) && follows(&joint, &old));
        assert!(follows(&old, &old), "learners come and go");
        assert!(!follows(&old, &new));
    }

    #[test]
    fn what_is_settled_is_what_was_committed() {
        let mut raw = map();
        let settled = pb::Settled { voters: vec![1, 2, 4], log_index: 9, term: 1 };
        (raw.shards[1].replicas, raw.shards[1].settled) = (vec![1, 2, 4], Some(settled));
        let map = ClusterMap::decode(&raw.encode_to_vec()).expect("it was encoded");
        let said = |index, sets: &[&[u64]]| {
            let mut seen = Placements::default();
            seen.memberships.insert((ShardId(1), index), voters(sets));
            seen.contradictions(&map, &|_| Some(1)).join("; ")
        };
        assert_eq!(said(9, &[&[1, 2, 4]]), "");
        assert!(said(9, &[&[1, 2, 3], &[1, 2, 4]]).contains("said to be settled"));
        assert_eq!(said(8, &[&[1, 2, 7]]), "", "it was removed since");
        assert!(said(10, &[&[1, 2, 7]]).contains("node 7 votes in shard 1, and is not of"));
        let other = Placements::default().contradictions(&map, &|_| Some(2)).join("; ");
        assert!(other.contains("by entry 9 of term 1, and that of term 2 is committed"), "{other}");
    }
}
