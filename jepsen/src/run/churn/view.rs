//! The cluster as it tells an operator: its nodes, and where its groups are and should be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::run::proto as pb;
use crate::run::status::Placement;

/// What is to become of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It takes part.
    Active,
    /// It leads nothing.
    Draining,
    /// It is being removed.
    Leaving,
}

/// A node of the cluster.
#[derive(Clone, Debug)]
pub struct Known {
    /// The id that it has for good.
    pub id: u64,
    /// Its place in the run. A place has another id each time it comes back.
    pub place: usize,
    /// What is to become of it.
    pub state: State,
    /// Whether it answers.
    pub up: bool,
    /// How many groups it votes in, or is to vote in.
    pub replicas: u32,
}

/// A group: a shard, or the meta group, 0.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its number.
    pub shard: u32,
    /// Who should vote.
    pub target: BTreeSet<u64>,
    /// Who does, by the last report.
    pub settled: BTreeSet<u64>,
    /// Who leads; 0 when nobody knows.
    pub leader: u64,
}

impl Group {
    /// Whether it is where it should be.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.target == self.settled
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// In order of id.
    pub nodes: Vec<Known>,
    /// The meta group first.
    pub groups: Vec<Group>,
    /// Replicas or leads are being spread.
    pub rebalancing: bool,
    /// The ids of nodes that are gone for good.
    pub removed: BTreeSet<u64>,
}

impl View {
    /// What a node answered. Nodes at addresses that are not the run's are left out: there are none.
    pub(in crate::run) fn of(answer: &pb::PlacementResponse, addresses: &[SocketAddr]) -> View {
        let known = |node: &pb::PlacedNode| {
            let at = node.client_address.parse().ok()?;
            let state = match node.membership.as_str() {
                "draining" => State::Draining,
                "leaving" => State::Leaving,
                _ => State::Active,
            };
            Some(Known {
                id: node.id,
                place: addresses.iter().position(|address| *address == at)?,
                state,
                up: node.up,
                replicas: node.replicas,
            })
        };
        let group = |placed: &pb::PlacedShard| Group {
            shard: placed.shard,
            target: placed.target.iter().copied().collect(),
            settled: placed.settled.iter().copied().collect(),
            leader: placed.leader,
        };
        View {
            nodes: answer.nodes.iter().filter_map(known).collect(),
            groups: answer.shards.iter().map(group).collect(),
            rebalancing: answer.rebalancing,
            removed: answer.removed.iter().copied().collect(),
        }
    }

    /// The node with this id.
    #[must_use]
    pub fn node(&self, id: u64) -> Option<&Known> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// The node at this place.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<&Known> {
        self.nodes.iter().find(|node| node.place == place)
    }

    /// The group of this number.
    #[must_use]
    pub fn group(&self, shard: u32) -> Option<&Group> {
        self.groups.iter().find(|group| group.shard == shard)
    }

    /// Whether nothing follows any more from what was ordered.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.rebalancing
            && self.groups.iter().all(Group::is_settled)
            && self.nodes.iter().all(|node| node.state != State::Leaving)
    }

    /// The same, by places. Ids that are gone have none.
    #[must_use]
    pub fn placement(&self) -> Placement {
        let ids: BTreeMap<u64, usize> =
            self.nodes.iter().map(|node| (node.id, node.place)).collect();
        let places = |voters: &BTreeSet<u64>| -> BTreeSet<usize> {
            voters.iter().filter_map(|id| ids.get(id).copied()).collect()
        };
        let number = |group: &Group| u64::from(group.shard);
        let shards = self.groups.iter().map(|g| (number(g), places(&g.settled))).collect();
        let moving = self.groups.iter().filter(|group| !group.is_settled());
        let targets = moving.map(|g| (number(g), places(&g.target))).collect();
        Placement { shards, targets, ids }
    }
}
