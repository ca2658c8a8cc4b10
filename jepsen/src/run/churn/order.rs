//! What an operator orders next: drawn from the seed and from how the cluster stands, so that every
//! sort of order has its turn. What the cluster refuses on principle is not drawn.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

use crate::run::churn::view::{State, View};

/// Nodes that stay in the cluster, whatever is removed: groups have three voters.
const NODES_MIN: usize = 3;

/// A sort of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// A node that was away joins.
    Join,
    /// A replica moves from one node to another.
    Move,
    /// Another voter is to lead.
    TransferLeader,
    /// A node is to lead nothing.
    Drain,
    /// It may lead again.
    Resume,
    /// Replicas and leads are to be spread.
    Rebalance,
    /// A node is to go.
    Remove,
    /// One is to go, and another has its replicas.
    Replace,
    /// The same, of a node that was killed.
    ReplaceDead,
}

impl Verb {
    /// Each of them.
    pub const ALL: &[Verb] = &[
        Verb::Join,
        Verb::Move,
        Verb::TransferLeader,
        Verb::Drain,
        Verb::Resume,
        Verb::Rebalance,
        Verb::Remove,
        Verb::Replace,
        Verb::ReplaceDead,
    ];

    /// The name in the results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Verb::Join => "join",
            Verb::Move => "move",
            Verb::TransferLeader => "transfer-leader",
            Verb::Drain => "drain",
            Verb::Resume => "resume",
            Verb::Rebalance => "rebalance",
            Verb::Remove => "remove",
            Verb::Replace => "replace",
            Verb::ReplaceDead => "replace-dead",
        }
    }

    /// What makes one of the sort possible where there is nothing of it to order, though all is at rest.
    pub(super) const fn needs(self) -> Option<Verb> {
        match self {
            Verb::Resume => Some(Verb::Drain),
            Verb::Move | Verb::Remove | Verb::Replace | Verb::ReplaceDead => Some(Verb::Join),
            Verb::Join | Verb::TransferLeader | Verb::Drain | Verb::Rebalance => None,
        }
    }
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The node at this place joins.
    Join(usize),
    /// A replica moves.
    Move {
        /// Of which group.
        shard: u32,
        /// The id of the node that has it.
        from: u64,
        /// The id of the node that is to have it.
        to: u64,
    },
    /// A lead changes hands.
    TransferLeader {
        /// Of which group.
        shard: u32,
        /// The id of the node that is to have it.
        to: u64,
    },
    /// The node with this id is drained.
    Drain(u64),
    /// It is resumed.
    Resume(u64),
    /// Replicas, leads or both are spread.
    Rebalance(Option<&'static str>),
    /// The node with this id is removed.
    Remove(u64),
    /// It is replaced.
    Replace {
        /// The id of the one that goes.
        old: u64,
        /// The id of the one that takes its place.
        new: u64,
        /// Whether the one that goes is killed before.
        dead: bool,
    },
}

impl Order {
    /// Its sort.
    #[must_use]
    pub const fn verb(self) -> Verb {
        match self {
            Order::Join(_) => Verb::Join,
            Order::Move { .. } => Verb::Move,
            Order::TransferLeader { .. } => Verb::TransferLeader,
            Order::Drain(_) => Verb::Drain,
            Order::Resume(_) => Verb::Resume,
            Order::Rebalance(_) => Verb::Rebalance,
            Order::Remove(_) => Verb::Remove,
            Order::Replace { dead: false, .. } => Verb::Replace,
            Order::Replace { dead: true, .. } => Verb::ReplaceDead,
        }
    }

    /// As it is typed after `folkmoot`. A join is no command of the cluster's: the node is started.
    #[must_use]
    pub fn arguments(self) -> Vec<String> {
        let words = match self {
            Order::Join(place) => format!("serve # node {}", place + 1),
            Order::Move { shard, from, to } => format!("shard move {shard} {from} {to}"),
            Order::TransferLeader { shard, to } => format!("shard transfer-leader {shard} {to}"),
            Order::Drain(node) => format!("node drain {node}"),
            Order::Resume(node) => format!("node resume {node}"),
            Order::Rebalance(None) => "shard rebalance".into(),
            Order::Rebalance(Some(what)) => format!("shard rebalance {what}"),
            Order::Remove(node) => format!("node remove {node} --yes"),
            Order::Replace { old, new, .. } => format!("node replace {old} {new} --yes"),
        };
        words.split(' ').map(str::to_owned).collect()
    }

    /// The id of the node that is gone once it is done.
    #[must_use]
    pub const fn removes(self) -> Option<u64> {
        match self {
            Order::Remove(old) | Order::Replace { old, .. } => Some(old),
            _ => None,
        }
    }

    /// Whether the cluster says that it is done.
    #[must_use]
    pub fn is_done(self, view: &View) -> bool {
        match self {
            Order::Join(place) => view.at(place).is_some_and(|node| node.up),
            Order::Move { shard, from, to } => view
                .group(shard)
                .is_some_and(|group| group.settled.contains(&to) && !group.settled.contains(&from)),
            // The command returns once the lead is taken; by now somebody else may have it.
            Order::TransferLeader { .. } => true,
            Order::Resume(node) => view.node(node).is_some_and(|n| n.state == State::Active),
            Order::Drain(node) => view.groups.iter().all(|group| group.leader != node),
            Order::Rebalance(_) => !view.rebalancing,
            Order::Remove(node) | Order::Replace { old: node, .. } => view.removed.contains(&node),
        }
    }
}

/// What an order is drawn from.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The cluster.
    pub view: &'a View,
    /// Places where a node can join.
    pub away: &'a [usize],
    /// How often each sort was done so far.
    pub done: &'a BTreeMap<Verb, u64>,
    /// Nodes that are hit by something, by their place.
    pub struck: &'a BTreeSet<usize>,
}

impl Ground<'_> {
    /// An order; `None` when none makes sense as things are. Mostly of the sort that was done least.
    #[must_use]
    pub fn draw(&self, rng: &mut SmallRng) -> Option<Order> {
        let drawn: Vec<Order> =
            Verb::ALL.iter().filter_map(|verb| self.order(*verb, rng)).collect();
        let done = |order: &Order| self.done.get(&order.verb()).copied().unwrap_or(0);
        let least = drawn.iter().map(done).min()?;
        let rare: Vec<Order> = drawn.iter().copied().filter(|order| done(order) == least).collect();
        if rng.random_bool(0.6) { &rare } else { &drawn }.choose(rng).copied()
    }

    fn ids(&self, states: &[State]) -> Vec<u64> {
        let nodes = self.view.nodes.iter().filter(|node| states.contains(&node.state));
        nodes.map(|node| node.id).collect()
    }

    /// One of this sort; `None` when none makes sense as things are.
    pub(super) fn order(&self, verb: Verb, rng: &mut SmallRng) -> Option<Order> {
        let active = self.ids(&[State::Active]);
        let draining = self.ids(&[State::Draining]);
        match verb {
            Verb::Join => self.away.choose(rng).map(|place| Order::Join(*place)),
            Verb::Move => {
                let groups: Vec<_> = self.view.groups.iter().filter(|g| g.is_settled()).collect();
                let group = groups.choose(rng)?;
                // A node takes in one replica at a time.
                let busy = |id: &u64| {
                    let mut groups = self.view.groups.iter();
                    groups.any(|group| group.target.contains(id) && !group.settled.contains(id))
                };
                let free: Vec<u64> = active
                    .into_iter()
                    .filter(|id| !group.target.contains(id) && !busy(id))
                    .collect();
                let voters: Vec<u64> = group.target.iter().copied().collect();
                let (from, to) = (*voters.choose(rng)?, *free.choose(rng)?);
                Some(Order::Move { shard: group.shard, from, to })
            }
            Verb::TransferLeader => {
                let group = self.view.groups.choose(rng)?;
                let others: Vec<u64> = active
                    .into_iter()
                    .filter(|id| group.settled.contains(id) && *id != group.leader)
                    .collect();
                Some(Order::TransferLeader { shard: group.shard, to: *others.choose(rng)? })
            }
            Verb::Drain if draining.is_empty() && active.len() > 1 => {
                active.choose(rng).map(|id| Order::Drain(*id))
            }
            Verb::Drain => None,
            Verb::Resume => draining.choose(rng).map(|id| Order::Resume(*id)),
            Verb::Rebalance if self.view.rebalancing => None,
            Verb::Rebalance => {
                let what = [None, Some("--leaders"), Some("--replicas")];
                what.choose(rng).map(|what| Order::Rebalance(*what))
            }
            Verb::Remove => self.leaver(rng).map(Order::Remove),
            Verb::Replace | Verb::ReplaceDead => {
                let old = self.leaver(rng)?;
                // A spare one: with the fewest replicas.
                let heirs = self
                    .view
                    .nodes
                    .iter()
                    .filter(|node| node.state == State::Active && node.up && node.id != old);
                let new = heirs.min_by_key(|node| (node.replicas, node.id))?.id;
                let dead = verb == Verb::ReplaceDead;
                let mut broken = self.struck.clone();
                broken.insert(self.view.node(old)?.place);
                // Nobody is killed on top of a fault: who is left could not agree to go on.
                let may = self.struck.is_empty() && self.view.placement().has_majority(&broken);
                (!dead || may).then_some(Order::Replace { old, new, dead })
            }
        }
    }

    /// A node that may go: enough would stay that may have its replicas, and no other is going.
    fn leaver(&self, rng: &mut SmallRng) -> Option<u64> {
        let (active, draining) = (self.ids(&[State::Active]), self.ids(&[State::Draining]));
        let none_goes = active.len() + draining.len() == self.view.nodes.len();
        let enough = |id: &u64| active.iter().filter(|other| *other != id).count() >= NODES_MIN;
        let may: Vec<u64> = active.iter().chain(&draining).copied().filter(enough).collect();
        none_goes.then(|| may.choose(rng).copied())?
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::run::churn::view::{Group, Known};

    fn view(nodes: usize) -> View {
        let known = |place: usize| Known {
            id: place as u64 + 1,
            place,
            state: State::Active,
            up: true,
            replicas: if place < 3 { 2 } else { 0 },
        };
        let group = |shard| Group {
            shard,
            target: BTreeSet::from([1, 2, 3]),
            settled: BTreeSet::from([1, 2, 3]),
            leader: 1,
        };
        View {
            nodes: (0..nodes).map(known).collect(),
            groups: (0..2).map(group).collect(),
            ..View::default()
        }
    }

    /// Every sort that comes up within some draws, and every order.
    fn drawn(view: &View, away: &[usize], struck: &[usize]) -> (BTreeSet<Verb>, Vec<Order>) {
        let (done, struck) = (BTreeMap::new(), struck.iter().copied().collect());
        let ground = Ground { view, away, done: &done, struck: &struck };
        let orders: Vec<Order> =
            (0..300).filter_map(|seed| ground.draw(&mut SmallRng::seed_from_u64(seed))).collect();
        (orders.iter().map(|order| order.verb()).collect(), orders)
    }

    #[test]
    fn every_sort_of_order_has_its_turn() {
        let mut five = view(5);
        let (mut verbs, _) = drawn(&five, &[5], &[]);
        five.nodes[0].state = State::Draining;
        verbs.extend(drawn(&five, &[5], &[]).0);
        assert_eq!(verbs, Verb::ALL.iter().copied().collect());
    }

    #[test]
    fn three_nodes_stay_and_one_goes_at_a_time() {
        let (verbs, orders) = drawn(&view(3), &[], &[]);
        let none = [Verb::Join, Verb::Move, Verb::Remove, Verb::Replace, Verb::ReplaceDead];
        assert!(none.iter().all(|verb| !verbs.contains(verb)), "{orders:?}");
        let mut draining = view(4);
        draining.nodes[3].state = State::Draining;
        for order in drawn(&draining, &[], &[]).1 {
            assert!(order.removes().is_none_or(|id| id == 4), "two would be left: {order:?}");
        }
        let mut leaving = view(5);
        leaving.nodes[4].state = State::Leaving;
        assert!(drawn(&leaving, &[], &[]).1.iter().all(|order| order.removes().is_none()));
    }

    #[test]
    fn where_three_are_at_rest_every_sort_is_possible_or_can_be_made_so() {
        let (view, done, struck) = (view(3), BTreeMap::new(), BTreeSet::new());
        let ground = Ground { view: &view, away: &[3], done: &done, struck: &struck };
        for verb in Verb::ALL {
            let mut possible = |verb| ground.order(verb, &mut SmallRng::seed_from_u64(1)).is_some();
            let needs = verb.needs();
            assert_ne!(possible(*verb), needs.is_some_and(&mut possible), "{verb:?}");
        }
    }

    #[test]
    fn nobody_is_killed_on_top_of_a_fault_and_moves_go_to_who_has_none() {
        let (verbs, orders) = drawn(&view(5), &[], &[1]);
        assert!(!verbs.contains(&Verb::ReplaceDead) && verbs.contains(&Verb::Replace));
        for order in orders {
            if let Order::Move { from, to, .. } = order {
                assert!(from <= 3 && to > 3, "{order:?}");
            }
            if let Order::Replace { old, new, .. } = order {
                assert!(new != old && new > 3, "{order:?}");
            }
        }
    }

    #[test]
    fn an_order_is_done_when_the_cluster_says_so() {
        let mut view = view(4);
        let order = Order::Move { shard: 1, from: 1, to: 4 };
        view.groups[1].target = BTreeSet::from([2, 3, 4]);
        assert!(!order.is_done(&view) && !view.is_settled(), "it is on its way");
        assert!(!view.placement().has_majority(&BTreeSet::from([1, 3])), "nor by its target");
        view.groups[1].settled = BTreeSet::from([2, 3, 4]);
        assert!(order.is_done(&view) && view.is_settled());
        assert!(!Order::Drain(1).is_done(&view), "it leads shard 0");
        assert!(!Order::Remove(4).is_done(&view));
        view.removed.insert(4);
        assert!(Order::Remove(4).is_done(&view));
        assert!(!Order::Join(4).is_done(&view) && Order::Join(3).is_done(&view));
    }
}
