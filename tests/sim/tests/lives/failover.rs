//! A leader that loses its power refuses nothing, and its connections break only after seconds. Posts
//! go on all the same as soon as after a kill, on nodes with a replica and on one without.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use folkmoot::chat::command::{Actor, Command, Request};
use folkmoot::chat::event::EventKind;
use folkmoot::id::{NodeId, RequestId, RoomId, UserId};
use folkmoot::router;
use folkmoot::shard::runtime::AsyncRuntime;
use folkmoot_sim::cluster::{Cluster, Node, Running, true_ms};
use folkmoot_sim::network::Network;
use folkmoot_sim::plan::{Plan, Wishes};
use folkmoot_sim::runtime::{self, Sim, elapsed};
use folkmoot_sim::trace::Trace;
use folkmoot_sim::workload::{Client, Outcome, World};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const LIVES: u64 = 60;

/// How a leader goes.
#[derive(Debug, Clone, Copy)]
enum End {
    Killed,
    PowerCut,
}

/// How long it takes, in one life, until each node that is left acknowledges a post again.
fn outage(seed: u64, end: End) -> Duration {
    let wishes = Wishes { faults: Some(BTreeSet::new()), replicas: Some(3), ..Wishes::default() };
    let mut plan = Plan::draw(seed, &wishes);
    plan.gateway = true;
    plan.request_timeout = router::Options::default().request_timeout;
    // As the TCP transport has it.
    plan.weather.silence = Duration::from_secs(3);
    runtime::run(seed, plan.machine.clone(), async {
        let trace = Arc::new(Trace::new(false));
        let rng = SmallRng::seed_from_u64(seed);
        let network = Network::new(rng, plan.weather.clone(), trace.clone());
        let cluster = Cluster::new(&plan, network, trace);
        let world = World::new(cluster.clone(), &plan);
        cluster.nodes.values().for_each(|node| cluster.boot(node));
        let mut client = Client::new(world.clone(), &plan, 0);
        assert!(client.create("tea").await, "seed {seed}: the room is created");
        let room = RoomId::parse("tea").unwrap();
        let leader = leader(&cluster, &room).await;
        let others = cluster.nodes.values().filter(|node| node.id != leader);
        let posting: Vec<_> =
            others.map(|node| Sim::spawn(post_on(world.clone(), node.clone(), seed))).collect();
        Sim::sleep(Duration::from_millis(500)).await;
        let went = elapsed();
        match end {
            End::Killed => cluster.kill(&cluster.nodes[&leader]),
            End::PowerCut => cluster.cut_power(&cluster.nodes[&leader]),
        }
        let mut slowest = Duration::ZERO;
        for posting in posting {
            let acked = posting.await.unwrap();
            slowest = slowest.max(acked.saturating_sub(went));
        }
        cluster.nodes.values().for_each(|node| cluster.kill(node));
        slowest
    })
}

/// Who leads a room's shard, once all replicas agree.
async fn leader(cluster: &Cluster, room: &RoomId) -> NodeId {
    loop {
        Sim::sleep(Duration::from_millis(50)).await;
        let running = cluster.replicas().filter_map(|node| node.running());
        let known: BTreeSet<_> = running
            .filter_map(|running| {
                let shard = running.router.map().shard_of_room(room)?;
                Some(running.router.host().get(shard)?.leader())
            })
            .collect();
        if let (1, Some(Some(leader))) = (known.len(), known.first()) {
            return *leader;
        }
    }
}

/// Posts at one node, one post after the other, until one has waited for the next leader. When that
/// was acknowledged.
async fn post_on(world: Arc<World>, node: Arc<Node>, seed: u64) -> Duration {
    let mut rng = SmallRng::seed_from_u64(seed ^ node.id.0 << 8);
    loop {
        let began = elapsed();
        let command = Command::Post {
            room: RoomId::parse("tea").unwrap(),
            kind: EventKind::Message,
            text: "again".into(),
            reply_to: None,
            salt: rng.random(),
        };
        let actor = Actor { user: UserId::parse("u0").unwrap(), admin: false };
        let id = RequestId::mint(true_ms(), rng.random());
        let request = Request { actor, id, command };
        let ask = |running: Running| async move { running.router.execute(request).await };
        let outcome = Sim::timeout(Duration::from_secs(20), world.ask(&node, ask)).await.unwrap();
        assert!(matches!(outcome, Outcome::Ok(_)), "seed {seed}, node {}: {outcome:?}", node.id);
        if elapsed() - began > Duration::from_millis(250) {
            return elapsed();
        }
        Sim::sleep(Duration::from_millis(rng.random_range(0..10))).await;
    }
}

#[test]
fn a_leader_that_loses_its_power_is_replaced_as_fast_as_one_that_is_killed() {
    runtime::quiet_panics();
    for end in [End::Killed, End::PowerCut] {
        let mut outages: Vec<_> = (0..LIVES).map(|seed| outage(seed, end)).collect();
        outages.sort();
        let (median, worst) = (outages[outages.len() / 2], outages[outages.len() - 1]);
        println!("{end:?}: every node acknowledges again after {median:?} (median), {worst:?}");
        assert!(median <= Duration::from_millis(1200), "{end:?}: {median:?}");
        assert!(worst <= Duration::from_secs(2), "{end:?}: {worst:?}");
    }
}
