//! All nodes stop or are killed at once: everything acknowledged is there afterwards.

use std::time::{Duration, Instant};

use crate::common::cluster::{Options, TestCluster};
use crate::common::load::{self, Load};
use crate::common::settings;

#[test]
fn everything_acknowledged_survives_a_kill_of_all_nodes() {
    let mut cluster = TestCluster::start(3);
    let rooms: Vec<_> = (0..6).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let mut acked = vec![];
    for round in 0..3 {
        let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 12);
        // From a few messages, still in memory, to many, across checkpoints.
        load.wait_more([20, 300, 1500][round]);
        for i in 0..3 {
            cluster.kill(i);
        }
        // The workers go on retrying until somebody acknowledges what they hold.
        for i in 0..3 {
            cluster.restart(i);
        }
        let begin = Instant::now();
        cluster.wait_ready();
        crate::common::say!("round {round}: ready again after {:?}", begin.elapsed());
        load.wait_more(10);
        acked.extend(load.finish());
        load::check_everywhere(&cluster, &rooms, &acked);
    }
}

#[test]
fn a_clean_stop_of_one_node_keeps_everything() {
    let mut cluster = TestCluster::start(1);
    cluster.room("general");
    let rooms = [String::from("general")];
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 8);
    load.wait_more(500);
    let acked = load.finish();
    let before = load::read_room(&cluster.admin(0), "general", "linearizable");
    for _ in 0..3 {
        let status = cluster.stop(0);
        assert!(status.success(), "it stops with {status}");
        cluster.restart(0);
        cluster.wait_ready();
        assert_eq!(load::read_room(&cluster.admin(0), "general", "linearizable"), before);
    }
    load::check_log(&before, &acked);
}

#[test]
fn the_last_node_does_not_wait_for_a_successor() {
    let arguments = settings(&["node.shutdown_timeout=60s"]);
    let mut cluster = TestCluster::start_with(3, Options { arguments, ..Options::default() });
    cluster.room("general");
    for i in 0..3 {
        let begin = Instant::now();
        assert!(cluster.stop(i).success());
        // Far below `node.shutdown_timeout`.
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(20), "node {i} took {took:?} to stop");
    }
}

#[test]
fn a_node_that_was_away_catches_up() {
    let mut cluster = TestCluster::start(3);
    cluster.room("general");
    let rooms = [String::from("general")];
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 8);
    load.wait_more(50);
    cluster.kill(2);
    load.wait_more(1000);
    cluster.restart(2);
    cluster.wait_ready_node(2);
    load.wait_more(50);
    let acked = load.finish();
    load::check_everywhere(&cluster, &rooms, &acked);
}
