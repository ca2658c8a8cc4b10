//! Plans, carried out at once, and checked at every step by the rules that the product has.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::chat::command::Reply;

/// A cluster whose moves are done as soon as they are asked for.
struct World {
    map: ClusterMap,
    facts: Facts,
}

impl World {
    fn founded_by(nodes: u64, shards: u32) -> World {
        let node = |id: u64| pb::SeedNode {
            id,
            instance: format!("i{id}"),
            client_address: format!("c{id}"),
            peer_address: format!("p{id}"),
            ..Default::default()
        };
        let seed =
            pb::Seed { cluster_id: "c".into(), shards, nodes: (1..=nodes).map(node).collect() };
        let map = ClusterMap::of_seed(&seed);
        let leaders =
            map.placements().map(|p| (p.shard, p.target[usize::from(p.shard.0) % p.target.len()]));
        let facts = Facts {
            reachable: map.nodes().map(|node| node.id).collect(),
            leaders: leaders.collect(),
            ..Facts::default()
        };
        World { map, facts }
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.map.carry_out(command)
    }

    fn join(&mut self) -> NodeId {
        self.register(false)
    }

    fn register(&mut self, gateway: bool) -> NodeId {
        let name = format!("new{}", self.map.version());
        let node = pb::RegisterNode {
            client_address: name.clone(),
            peer_address: name.clone(),
            instance: name,
            spread: true,
            gateway,
            ..Default::default()
        };
        let id = NodeId(self.apply(Command::RegisterNode(node)).unwrap().seq.0);
        self.facts.reachable.insert(id);
        id
    }

    /// What a node does when it starts again with another configuration.
    fn reregister(&mut self, id: NodeId, gateway: bool) -> Reply {
        let known = self.map.0.nodes.iter().find(|node| node.id == id.0).unwrap();
        let node = pb::RegisterNode {
            node_id: id.0,
            client_address: known.client_address.clone(),
            peer_address: known.peer_address.clone(),
            instance: known.instance.clone(),
            gateway,
            ..Default::default()
        };
        self.apply(Command::RegisterNode(node))
    }

    fn set_state(&mut self, node: u64, state: pb::NodeState, successor: u64) -> Reply {
        self.apply(Command::SetNodeState(pb::SetNodeState { node, state: state.into(), successor }))
    }

    /// Carries out one step.
    fn step(&mut self, action: &Action) {
        if let Action::TransferLeader { shard, to } = action {
            assert!(self.map.placement(*shard).unwrap().settled.contains(to));
        }
        imagine(&mut self.map, &mut self.facts, action).unwrap();
    }

    /// Goes on until there is nothing to do; returns how many steps it took.
    fn run(&mut self) -> usize {
        for steps in 0..2000 {
            match next(&self.map, &self.facts) {
                Some(action) => self.step(&action),
                None => return steps,
            }
        }
        panic!("the planner goes round in circles: {:?}", next(&self.map, &self.facts));
    }

    fn loads(&self) -> BTreeMap<NodeId, usize> {
        loads(&self.map)
    }

    fn leads(&self) -> Vec<usize> {
        let leads = |node: NodeId| self.facts.leaders.values().filter(|l| **l == node).count();
        self.map.nodes().filter(Node::takes_replicas).map(|node| leads(node.id)).collect()
    }

    fn check_even(&self) {
        let spread = |counts: &mut dyn Iterator<Item = usize>| {
            let counts: Vec<_> = counts.collect();
            counts.iter().max().unwrap() - counts.iter().min().unwrap()
        };
        assert!(spread(&mut self.loads().into_values()) <= 1, "{:?}", self.loads());
        assert!(spread(&mut self.leads().into_iter()) <= 1, "{:?}", self.leads());
    }
}

#[test]
fn a_new_node_gets_its_part_of_replicas_and_leaders() {
    let mut world = World::founded_by(3, 8);
    assert_eq!(world.run(), 0, "nothing moves by itself");
    world.join();
    assert!(!is_idle(&world.map));
    world.run();
    world.check_even();
    assert!(is_idle(&world.map));
    // What an operator then moves stays where it is.
    world.facts.leaders.values_mut().for_each(|leader| *leader = NodeId(1));
    assert_eq!(world.run(), 0);
}

#[test]
fn a_new_node_gets_its_part_also_if_it_takes_a_while_to_start() {
    let mut world = World::founded_by(3, 8);
    let four = world.join();
    world.facts.reachable.remove(&four);
    world.facts.expected.insert(four);
    assert_eq!(next(&world.map, &world.facts), None, "nothing is evened out without it");
    assert!(!is_idle(&world.map));
    world.facts.expected.clear();
    world.facts.reachable.insert(four);
    world.run();
    world.check_even();
    // Not for ever: one that stays away holds up nobody.
    let five = world.join();
    world.facts.reachable.remove(&five);
    world.run();
    assert!(is_idle(&world.map));
}

#[test]
fn a_gateway_gets_nothing_and_may_become_something_else() {
    let mut world = World::founded_by(3, 8);
    let gateway = world.register(true);
    assert!(is_idle(&world.map), "it is no reason to move anything");
    assert_eq!(world.map.node(gateway).unwrap().standing(), "gateway");
    world.join();
    world.run();
    assert!(world.map.placements().all(|p| !p.members().contains(&gateway)));
    for attempt in [vec![1, 2, gateway.0], vec![1, 2, 3, gateway.0, 5]] {
        let set =
            pb::SetTarget { shard: 1, target: attempt, expected_version: world.map.version() };
        let refused = world.apply(Command::SetTarget(set)).unwrap_err().to_string();
        assert!(refused.contains("is a gateway"), "{refused}");
    }
    let refused = world.set_state(2, pb::NodeState::Leaving, gateway.0).unwrap_err().to_string();
    assert!(refused.contains("which is gateway"), "{refused}");
    // Nor does it count when nodes are to be removed: three of four may stay.
    world.set_state(1, pb::NodeState::Leaving, 0).unwrap();
    world.run();
    assert!(world.set_state(2, pb::NodeState::Leaving, 0).is_err());
    // With another configuration it is one like all others, and back it may not while it has some.
    world.reregister(gateway, false).unwrap();
    assert!(!is_idle(&world.map));
    world.run();
    world.check_even();
    let before = world.map.clone();
    let refused = world.reregister(gateway, true).unwrap_err().to_string();
    assert!(refused.contains("has replicas of shards"), "{refused}");
    assert_eq!(world.map, before);
    // A gateway has nothing to wait for when it leaves.
    let second = world.register(true);
    world.set_state(second.0, pb::NodeState::Leaving, 0).unwrap();
    world.run();
    assert!(world.map.is_removed(second));
}

#[test]
fn a_lost_node_is_replaced_if_there_is_a_spare() {
    let lose = |world: &mut World, node: u64| {
        world.facts.reachable.remove(&NodeId(node));
        world.facts.lost.insert(NodeId(node));
    };
    // Three nodes have none to spare.
    let mut world = World::founded_by(3, 8);
    lose(&mut world, 2);
    assert_eq!(world.run(), 0);
    world.join();
    world.facts.reachable.remove(&NodeId(4));
    let wait = next(&world.map, &world.facts);
    assert!(
        !matches!(wait, Some(Action::Replace(_))),
        "the spare does not answer itself: {wait:?}"
    );
    world.facts.reachable.insert(NodeId(4));
    assert_eq!(next(&world.map, &world.facts), Some(Action::Replace(NodeId(2))));
    world.run();
    assert!(world.map.is_removed(NodeId(2)));
    let rest = [NodeId(1), NodeId(3), NodeId(4)];
    assert!(world.map.placements().all(|p| p.target == rest), "{:?}", world.map);
}

#[test]
fn lost_nodes_are_replaced_one_at_a_time_while_most_answer() {
    let mut world = World::founded_by(3, 8);
    // The meta group has five voters, and is to have a spare node for each that is lost.
    for _ in 0..4 {
        world.join();
    }
    let gateway = world.register(true);
    world.run();
    for node in [1, 2] {
        world.facts.reachable.remove(&NodeId(node));
        world.facts.lost.insert(NodeId(node));
    }
    // Nor is a gateway, which has nothing to be replaced.
    world.facts.reachable.remove(&gateway);
    world.facts.lost.insert(gateway);
    let mut replaced = vec![];
    for _ in 0..2000 {
        let Some(action) = next(&world.map, &world.facts) else { break };
        if let Action::Replace(node) = action {
            assert!(
                world.map.nodes().all(|node| node.state != NodeState::Leaving),
                "one at a time"
            );
            replaced.push(node.0);
        }
        world.step(&action);
    }
    assert_eq!(replaced, [1, 2]);
    assert!(world.map.is_removed(NodeId(1)) && world.map.is_removed(NodeId(2)));
    assert!(world.map.node(gateway).is_some());

    // Half of the nodes are no majority, and who drains is left alone.
    let mut world = World::founded_by(3, 8);
    world.join();
    world.run();
    world.facts.lost = [1, 2].map(NodeId).into();
    world.facts.reachable = [3, 4].map(NodeId).into();
    assert_eq!(next(&world.map, &world.facts), None);
    world.facts.reachable.insert(NodeId(2));
    world.facts.lost.remove(&NodeId(2));
    assert_eq!(next(&world.map, &world.facts), Some(Action::Replace(NodeId(1))));
    world.set_state(1, pb::NodeState::Draining, 0).unwrap();
    assert_eq!(next(&world.map, &world.facts), None);
}

#[test]
fn a_node_that_was_drained_leads_again() {
    let mut world = World::founded_by(3, 8);
    world.set_state(2, pb::NodeState::Draining, 0).unwrap();
    world.facts.leaders.values_mut().filter(|l| **l == NodeId(2)).for_each(|l| *l = NodeId(1));
    assert_eq!(world.run(), 0);
    world.set_state(2, pb::NodeState::Active, 0).unwrap();
    assert!(world.run() > 0);
    world.check_even();
    assert!(world.set_state(2, pb::NodeState::Active, 0).unwrap().duplicate);
    assert!(is_idle(&world.map), "a repeat changes nothing");
}

#[test]
fn three_become_five_and_three_again() {
    let mut world = World::founded_by(3, 8);
    world.join();
    world.join();
    world.run();
    world.check_even();
    assert_eq!(world.map.placement(ShardId::META).unwrap().target.len(), 5);
    for node in [2, 4] {
        world.set_state(node, pb::NodeState::Leaving, 0).unwrap();
        world.run();
        assert!(world.map.is_removed(NodeId(node)));
    }
    let rest = [NodeId(1), NodeId(3), NodeId(5)];
    assert!(world.map.placements().all(|p| p.target == rest), "{:?}", world.map);
}

#[test]
fn one_becomes_three() {
    let mut world = World::founded_by(1, 4);
    world.join();
    world.run();
    assert!(world.map.placements().all(|p| p.target.len() == 1), "two are no better than one");
    world.join();
    world.run();
    assert!(world.map.placements().all(|p| p.target.len() == 3));
}

#[test]
fn a_removal_below_a_quorum_is_refused() {
    let mut world = World::founded_by(3, 2);
    let refused = world.set_state(2, pb::NodeState::Leaving, 0).unwrap_err().to_string();
    assert!(refused.contains("add one first"), "{refused}");
    assert!(world.set_state(9, pb::NodeState::Leaving, 0).is_err());
    // Two of five may go, and then none.
    let mut world = World::founded_by(5, 2);
    world.set_state(2, pb::NodeState::Leaving, 0).unwrap();
    world.run();
    assert!(world.map.placements().all(|p| p.target.len() == 3));
    world.set_state(3, pb::NodeState::Leaving, 0).unwrap();
    world.run();
    assert!(world.set_state(4, pb::NodeState::Leaving, 0).is_err());
}

#[test]
fn a_dead_node_is_replaced_by_the_one_that_was_named() {
    let mut world = World::founded_by(3, 8);
    world.facts.reachable.remove(&NodeId(2));
    let (four, five) = (world.join(), world.join());
    assert!(world.set_state(2, pb::NodeState::Leaving, 2).is_err(), "it cannot replace itself");
    world.set_state(2, pb::NodeState::Leaving, five.0).unwrap();
    assert!(world.set_state(four.0, pb::NodeState::Leaving, 2).is_err(), "it leaves itself");
    let action = next(&world.map, &world.facts).unwrap();
    let target = vec![NodeId(1), NodeId(3), five];
    assert_eq!(action, Action::SetTarget { shard: ShardId::META, target });
    world.run();
    assert!(world.map.is_removed(NodeId(2)));
}

#[test]
fn a_node_that_is_being_caught_up_gets_nothing_more() {
    let mut world = World::founded_by(3, 8);
    let four = world.join();
    let Some(Action::SetTarget { shard, target }) = next(&world.map, &world.facts) else {
        panic!("the new node gets something")
    };
    let set = |shard: u32, expected_version| {
        let target = target.iter().map(|id| id.0).collect();
        Command::SetTarget(pb::SetTarget { shard, target, expected_version })
    };
    assert!(world.apply(set(shard.0.into(), 0)).is_err(), "decided on an old map");
    let version = world.map.version();
    assert!(!world.apply(set(shard.0.into(), version)).unwrap().duplicate);
    assert!(world.apply(set(shard.0.into(), version)).unwrap().duplicate, "a repeat");
    assert_eq!(world.map.incoming(four), Some(shard));
    assert_eq!(next(&world.map, &world.facts), None, "it waits");
    let before = world.map.clone();
    let other: u32 = if shard.0 == 8 { 7 } else { 8 };
    let refused = world.apply(set(other, version + 1)).unwrap_err().to_string();
    assert!(refused.contains("one shard at a time"), "{refused}");
    assert_eq!(world.map, before, "refused, and nothing changed");
    // Removing it takes the change back first.
    world.set_state(four.0, pb::NodeState::Leaving, 0).unwrap();
    let settled = world.map.placement(shard).unwrap().settled;
    let action = next(&world.map, &world.facts);
    assert_eq!(action, Some(Action::SetTarget { shard, target: settled }));
}

#[test]
fn a_move_to_a_node_that_is_lost_is_taken_back_and_another_spare_is_used() {
    let mut world = World::founded_by(3, 8);
    let (four, five) = (world.join(), world.join());
    world.run();
    let spare = world.join();
    // One of the cluster is lost, and while it is replaced the one that was to take a replica, too.
    let lose = |world: &mut World, node: NodeId| {
        world.facts.reachable.remove(&node);
        world.facts.lost.insert(node);
    };
    lose(&mut world, four);
    world.set_state(four.0, pb::NodeState::Leaving, spare.0).unwrap();
    let Some(Action::SetTarget { shard, target }) = next(&world.map, &world.facts) else {
        panic!("the spare one gets something")
    };
    assert!(target.contains(&spare));
    let command = Action::SetTarget { shard, target }.command(world.map.version()).unwrap();
    world.apply(command).unwrap();
    assert!(
        !matches!(next(&world.map, &world.facts), Some(Action::SetTarget { shard: s, .. }) if s == shard)
    );
    lose(&mut world, spare);
    let settled = world.map.placement(shard).unwrap().settled;
    let back = Action::SetTarget { shard, target: settled };
    assert_eq!(next(&world.map, &world.facts), Some(back.clone()));
    world.step(&back);
    assert!(world.map.placements().all(|p| p.is_settled()), "{:?}", world.map);
    assert!(world.facts.reachable.contains(&five));
}

#[test]
fn a_group_that_shrinks_keeps_those_that_answer() {
    let mut world = World::founded_by(5, 2);
    let meta = |world: &World| world.map.placement(ShardId::META).unwrap().target;
    assert_eq!(meta(&world).len(), 5);
    world.set_state(3, pb::NodeState::Leaving, 0).unwrap();
    let mut one_left = world.facts.clone();
    // Two that do not answer: the three that do but one are a majority of what is left.
    [4, 5].map(NodeId).iter().for_each(|id| assert!(world.facts.reachable.remove(id)));
    for _ in 0..100 {
        let Some(action) = next(&world.map, &world.facts) else { break };
        world.step(&action);
        for placement in world.map.placements() {
            let answer = placement.target.iter().filter(|id| world.facts.reachable.contains(id));
            assert!(answer.count() > placement.target.len() / 2, "{placement:?}");
        }
    }
    let kept = meta(&world);
    assert!(kept.starts_with(&[NodeId(1), NodeId(2)]) && kept.len() == 3, "{kept:?}");
    // Somebody is kept who may lead.
    let mut drained = World::founded_by(5, 2);
    for node in [1, 2, 3] {
        drained.set_state(node, pb::NodeState::Draining, 0).unwrap();
    }
    drained.set_state(4, pb::NodeState::Leaving, 0).unwrap();
    drained.run();
    assert_eq!(meta(&drained), [1, 2, 5].map(NodeId));
    // And with one more away, nothing is begun that could not be finished.
    let mut world = World::founded_by(5, 2);
    world.set_state(3, pb::NodeState::Leaving, 0).unwrap();
    one_left.reachable = [1, 3].map(NodeId).into();
    assert_eq!(next(&world.map, &one_left), None);
}

#[test]
fn somebody_is_left_to_lead_when_nodes_are_drained() {
    let mut world = World::founded_by(3, 4);
    for node in [1, 2] {
        world.set_state(node, pb::NodeState::Draining, 0).unwrap();
    }
    assert!(world.set_state(1, pb::NodeState::Draining, 0).unwrap().duplicate);
    let before = world.map.clone();
    let refused = world.set_state(3, pb::NodeState::Draining, 0).unwrap_err().to_string();
    assert!(refused.contains("nobody could lead shard 0 then"), "{refused}");
    assert_eq!(world.map, before);
    // A node without replicas leads nothing anyway.
    let gateway = world.register(true);
    world.set_state(gateway.0, pb::NodeState::Draining, 0).unwrap();
    let mut alone = World::founded_by(1, 4);
    assert!(alone.set_state(1, pb::NodeState::Draining, 0).is_err());
}

#[test]
fn the_meta_group_grows_when_the_fifth_node_is_there_again() {
    let mut world = World::founded_by(3, 4);
    world.join();
    world.run();
    world.set_state(4, pb::NodeState::Draining, 0).unwrap();
    world.join();
    world.run();
    assert_eq!(world.map.placement(ShardId::META).unwrap().target.len(), 3);
    world.set_state(4, pb::NodeState::Active, 0).unwrap();
    world.run();
    assert_eq!(world.map.placement(ShardId::META).unwrap().target.len(), 5);
    world.check_even();
}

proptest! {
    #[test]
    fn whatever_comes_and_goes_every_step_is_allowed_and_it_ends(
        founders in proptest::sample::select(vec![1u64, 3, 5]),
        shards in 1..12u32,
        events in proptest::collection::vec((0..5u8, any::<proptest::sample::Index>()), 1..12),
    ) {
        let mut world = World::founded_by(founders, shards);
        for (event, which) in events {
            let nodes: Vec<NodeId> = world.map.nodes().map(|node| node.id).collect();
            let node = *which.get(&nodes);
            match event {
                0 => { world.join(); }
                1 => { let _ = world.set_state(node.0, pb::NodeState::Leaving, 0); }
                4 => { world.register(true); }
                2 => { world.facts.reachable = nodes.iter().copied().filter(|id| *id != node).collect(); }
                _ => { let _ = world.set_state(node.0, pb::NodeState::Active, 0); }
            }
            // Stopped halfway by whatever comes next.
            for _ in 0..which.index(5) {
                if let Some(action) = next(&world.map, &world.facts) {
                    world.step(&action);
                }
            }
        }
        world.facts.reachable = world.map.nodes().map(|node| node.id).collect();
        world.run();
        for placement in world.map.placements() {
            let distinct: BTreeSet<_> = placement.target.iter().collect();
            prop_assert_eq!(distinct.len(), placement.target.len());
            prop_assert!(placement.target.iter().all(|id| world.map.node(*id).is_some()));
            prop_assert!(placement.target.len() >= founders.min(3) as usize);
        }
    }
}
