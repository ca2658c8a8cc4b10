//! Followers over server-sent events see every message once, in order, while nodes are killed.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::cluster::TestCluster;
use common::follower::Follower;
use common::http::Http;
use common::load::{self, Load};
use common::new_id;
use common::sse::Sse;

#[test]
fn followers_see_no_gap_and_no_repeat_across_kills() {
    let mut cluster = TestCluster::start(3);
    let rooms: Vec<_> = (0..4).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let (urls, token) = (cluster.client_urls(), cluster.admin_token().to_owned());
    let load = Load::start(&urls, &token, &rooms, 8);
    let stopped = Arc::new(AtomicBool::new(false));
    let mut followers = vec![];
    for (i, room) in rooms.iter().cycle().take(12).enumerate() {
        let follower = Follower::new(&urls, &token, room, i % 3);
        let (stopped, probe) = (stopped.clone(), Http::new(&urls[1]).with_token(&token));
        let path = format!("/v1/rooms/{room}");
        followers.push(std::thread::spawn(move || {
            // Once the load has ended, the head that is left to reach is asked for once.
            let goal = std::sync::OnceLock::new();
            follower.run(|seen| {
                stopped.load(Ordering::Acquire)
                    && seen
                        >= *goal.get_or_init(|| {
                            probe.get(&path).unwrap().expect(200)["head"].as_u64().unwrap()
                        })
            })
        }));
    }
    for victim in [0, 1, 2, 0] {
        load.wait_more(150);
        cluster.kill(victim);
        load.wait_more(150);
        cluster.restart(victim);
        cluster.wait_ready_node(victim);
    }
    let acked = load.finish();
    stopped.store(true, Ordering::Release);
    // Wakes the streams that are at the end already.
    for room in &rooms {
        load::post(&urls, &token, room, &new_id(), "the end");
    }
    for follower in followers {
        let follower = follower.join().expect("no follower failed");
        let mine: Vec<_> = acked.iter().filter(|a| a.room == follower.room).collect();
        for message in mine {
            assert_eq!(follower.ids[message.seq as usize - 1], message.id);
        }
    }
}

#[test]
fn a_stream_may_begin_at_every_offset_on_every_node() {
    let cluster = TestCluster::start(3);
    cluster.room("general");
    let (urls, token) = (cluster.client_urls(), cluster.admin_token());
    for n in 0..20 {
        load::post(&urls, token, "general", &new_id(), &format!("{n}"));
    }
    let head = cluster.admin(0).get("/v1/rooms/general").unwrap().json()["head"].as_u64().unwrap();
    for node in 0..3 {
        let http = cluster.admin(node);
        for after in 0..=head {
            let mut stream = Sse::open(&http, "general", Some(after), None).unwrap();
            for expected in after + 1..=head {
                assert_eq!(stream.next().unwrap().seq(), Some(expected));
            }
            assert!(stream.next().unwrap().is_caught_up(), "after {after} on node {node}");
        }
        let beyond = Sse::open(&http, "general", Some(head + 1), None);
        assert!(beyond.is_err(), "a cursor beyond the head is refused");
    }
}

#[test]
fn a_reader_that_stops_reading_misses_nothing() {
    let cluster = TestCluster::start(3);
    cluster.room("general");
    let (urls, token) = (cluster.client_urls(), cluster.admin_token());
    let http = cluster.admin(0).with_timeout(Duration::from_secs(30));
    let mut stream = Sse::open(&http, "general", Some(0), None).unwrap();
    let mut seen = stream.next().unwrap().seq().unwrap();
    // More than socket buffers and the node's ring of recent events hold together.
    let text = "x".repeat(32 * 1024);
    for _ in 0..600 {
        load::post(&urls, token, "general", &new_id(), &text);
    }
    let head = http.get("/v1/rooms/general").unwrap().json()["head"].as_u64().unwrap();
    while seen < head {
        if let Some(seq) = stream.next().unwrap().seq() {
            assert_eq!(seq, seen + 1);
            seen = seq;
        }
    }
}
