//! Faults of the network.

use std::time::{Duration, Instant};

use folkmoot_jepsen::fault::delay::{self, Delay};
use folkmoot_jepsen::fault::network::{self, Direction, Links};
use folkmoot_jepsen::fault::{Active, Plan, heal};
use serde_json::json;

use crate::common::cluster::Options;
use crate::common::load::{self, Load};
use crate::common::sse::Sse;
use crate::common::{new_id, say, wait_for};
use crate::world::{World, rooms, works};

const PATIENCE: Duration = Duration::from_secs(30);

/// Whether a node takes a post, as a client sees it who does not wait long.
fn posts(world: &World, i: usize) -> Result<(), String> {
    let http = world.cluster.admin(i).with_timeout(Duration::from_secs(2));
    let body = json!({ "client_msg_id": new_id(), "text": "a probe" });
    match http.post("/v1/rooms/probes/messages", &body) {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(format!("status {}", answer.status)),
        Err(error) => Err(error.to_string()),
    }
}

fn await_posts(world: &World, i: usize) -> Duration {
    let begin = Instant::now();
    wait_for("posts", PATIENCE, || posts(world, i));
    begin.elapsed()
}

/// Injects a fault in the middle node, and holds that it takes no posts while the others do.
fn cut_off(world: &World, plan: Plan) -> Active {
    let name = plan.fault;
    let active = plan.inject().unwrap();
    wait_for("the node to be cut off", PATIENCE, || match posts(world, 1) {
        Err(_) => Ok(()),
        Ok(()) => Err(format!("{name}: it takes posts")),
    });
    let took = [0, 2].map(|i| await_posts(world, i));
    posts(world, 1).unwrap_err();
    say!("{name}: the others took posts after {took:?}");
    active
}

fn others(world: &World) -> Vec<std::net::SocketAddr> {
    [0, 2].map(|i| world.cluster.peer(i)).to_vec()
}

#[test]
fn a_node_is_cut_off_and_comes_back() {
    if !works(&["partition", "loss"]) {
        return;
    }
    let world = World::start(3, 1024, Options::default());
    let rooms = rooms(&world.cluster);
    world.cluster.room("probes");
    let others = others(&world);
    let urls = [0, 2].map(|i| world.cluster.url(i));
    let load = Load::start(&urls, world.cluster.admin_token(), &rooms, 6);
    let target = world.target(1);
    let links = Links { peers: others.clone(), clients: false };
    let plans = [
        network::partition(&target, &others, Direction::Both).unwrap(),
        network::partition(&target, &others, Direction::In).unwrap(),
        network::partition(&target, &others, Direction::Out).unwrap(),
        network::loss(&target, &links, 100).unwrap(),
        network::clients(&target).unwrap(),
    ];
    for plan in plans {
        let name = plan.fault;
        let active = cut_off(&world, plan);
        assert!(world.inside(1, &["nft", "list", "ruleset"]).contains(name));
        active.heal().unwrap();
        assert!(!world.inside(1, &["nft", "list", "ruleset"]).contains("chain"));
        say!("{name}: healed, it took a post after {:?}", await_posts(&world, 1));
        load.wait_more(20);
    }
    // Two faults at once, which somebody else heals.
    let partition = network::partition(&target, &others, Direction::Both).unwrap();
    cut_off(&world, partition).stay();
    network::loss(&target, &links, 50).unwrap().inject().unwrap().stay();
    heal::everything(&target).unwrap().inject().unwrap().stay();
    assert!(!world.inside(1, &["nft", "list", "ruleset"]).contains("folkmoot"));
    await_posts(&world, 1);
    let acked = load.finish();
    load::check_everywhere(&world.cluster, &rooms, &acked);
}

#[test]
fn packets_wait_and_connections_break() {
    if !works(&["delay", "reset", "loss"]) {
        return;
    }
    let world = World::start(3, 1024, Options::default());
    let rooms = rooms(&world.cluster);
    world.cluster.room("probes");
    let target = world.target(1);
    let links = Links { peers: others(&world), clients: true };
    let health = || {
        let begin = Instant::now();
        let answer = world.cluster.http(1).get("/health/live");
        answer.map(|_| begin.elapsed())
    };
    let before = (0..5).map(|_| health().unwrap()).min().unwrap();
    let [base, jitter] = [Duration::from_millis(100), Duration::from_millis(50)];
    let plan = delay::delay(&target, &links, Delay { base, jitter, reorder_percent: 10 }).unwrap();
    let active = plan.inject().unwrap();
    let during = (0..5).map(|_| health().unwrap()).max().unwrap();
    assert!(during >= base, "{during:?}");
    await_posts(&world, 1);
    active.heal().unwrap();
    let after = (0..5).map(|_| health().unwrap()).min().unwrap();
    say!("an answer took {before:?}, delayed {during:?}, then {after:?}");
    assert!(after < base / 2, "{after:?}");
    assert!(!world.inside(1, &["iptables", "-t", "mangle", "-S"]).contains("folkmoot"));

    let load = Load::start(&world.cluster.client_urls(), world.cluster.admin_token(), &rooms, 6);
    let lossy = network::loss(&target, &links, 20).unwrap().inject().unwrap();
    load.wait_more(100);
    lossy.heal().unwrap();
    let mut stream = Sse::open(&world.cluster.admin(1), "probes", Some(0), None).unwrap();
    let reset = network::reset(&target, &links, 100).unwrap().inject().unwrap();
    // Its next event or heartbeat is answered by a reset.
    let begin = Instant::now();
    while stream.next().is_ok() {
        assert!(begin.elapsed() < PATIENCE, "the stream does not break");
    }
    health().unwrap_err();
    reset.heal().unwrap();
    await_posts(&world, 1);
    let acked = load.finish();
    load::check_everywhere(&world.cluster, &rooms, &acked);
}
