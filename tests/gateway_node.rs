//! A node that has no replica serves every room all the same, also while a replica dies.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::time::Duration;

use common::cluster::TestCluster;
use common::load::{self, Load};
use common::new_id;
use common::sse::Sse;

#[test]
fn a_node_without_replicas_posts_reads_and_streams() {
    let mut cluster = TestCluster::start(3);
    let rooms: Vec<_> = (0..8).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let gateway = cluster.add_node();
    cluster.wait_ready_node(gateway);
    let (urls, token) = (vec![cluster.url(gateway)], cluster.admin_token().to_owned());
    let http = cluster.admin(gateway).with_timeout(Duration::from_secs(30));
    let mut acked = vec![];
    for room in &rooms {
        let mut stream = Sse::open(&http, room, Some(0), None).unwrap();
        let posted = load::post(&urls, &token, room, &new_id(), "through the gateway");
        let mut expected = 1;
        while expected <= posted.seq {
            if let Some(seq) = stream.next().unwrap().seq() {
                assert_eq!(seq, expected);
                expected += 1;
            }
        }
        acked.push(posted);
    }
    let load = Load::start(&urls, &token, &rooms, 8);
    load.wait_more(100);
    for victim in 0..3 {
        cluster.kill(victim);
        load.wait_more(50);
        cluster.restart(victim);
        cluster.wait_ready_node(victim);
    }
    acked.extend(load.finish());
    for room in &rooms {
        let mine: Vec<_> = acked.iter().filter(|a| a.room == *room).cloned().collect();
        let log = load::read_room(&http, room, "linearizable");
        load::check_log(&log, &mine);
        for i in 0..3 {
            assert_eq!(load::read_room(&cluster.admin(i), room, "linearizable"), log);
        }
    }
}
