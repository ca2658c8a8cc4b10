//! Followers see every message once, in order: while nodes are killed, from whatever offset and on
//! whatever node they begin, and however slowly they read.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::client::{Client, ClientOptions, Delivered, Session};
use folkmoot::id::{Cursor, RequestId, RoomId, Seq};
use tokio::time::timeout;

use crate::common::cluster::TestCluster;
use crate::common::follower::Follower;
use crate::common::http::Http;
use crate::common::load::{self, Load};
use crate::common::new_id;
use crate::common::sse::Sse;

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

/// Streams begin at each seq from 0 to this one.
const OFFSETS: usize = 300;
/// Events that each of them reads past the mark: those are live.
const LIVE: u64 = 3;
/// Threads that read streams, and sessions of each node.
const READERS: usize = 8;
const SESSIONS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(30);

/// The ids of a room's events by seq, as the first reader to meet each saw it.
#[derive(Default)]
struct Met(Mutex<Vec<Option<String>>>);

impl Met {
    /// Checks an event against what others saw.
    fn meet(&self, seq: u64, id: &str) {
        let mut met = self.0.lock().unwrap();
        let at = seq as usize - 1;
        if met.len() <= at {
            met.resize(at + 1, None);
        }
        assert_eq!(met[at].get_or_insert_with(|| id.to_owned()), id, "two ids at {seq}");
    }
}

/// Reads a stream from `after` until it is well past the mark; returns the last seq.
fn read_across_the_mark(http: &Http, after: u64, met: &Met) -> u64 {
    let mut stream = Sse::open(http, "general", Some(after), None).unwrap();
    let head = stream.followed["head"].as_u64().unwrap();
    let (mut last, mut mark) = (after, None);
    while mark.is_none_or(|mark| last < mark + LIVE) {
        let event = stream.next().unwrap_or_else(|e| panic!("after {after}, at {last}: {e}"));
        if event.is_caught_up() {
            assert_eq!(event.json()["seq"], last, "the mark is in its place");
            assert!(last >= head && mark.replace(last).is_none(), "one mark, past the history");
        } else {
            assert_eq!(event.seq(), Some(last + 1), "from {after}");
            last += 1;
            met.meet(last, event.json()["client_msg_id"].as_str().unwrap());
        }
    }
    last
}

/// The same through a session.
async fn follow_across_the_mark(session: &Session, after: u64, met: &Met) -> u64 {
    let cursor = Cursor { epoch: None, seq: Seq(after) };
    let mut follow =
        session.follow(&RoomId::parse("general").unwrap(), Some(cursor)).await.unwrap();
    let (mut last, mut mark) = (after, None);
    while mark.is_none_or(|mark| last < mark + LIVE) {
        let next = timeout(PATIENCE, follow.next()).await.expect("the follow goes on");
        match next.unwrap().unwrap_or_else(|e| panic!("after {after}, at {last}: {e:?}")) {
            Delivered::Event(event) => {
                assert_eq!(event.seq, last + 1, "from {after}");
                last += 1;
                met.meet(last, &RequestId::from_slice(&event.client_msg_id).unwrap().to_string());
            }
            Delivered::CaughtUp(seq) => {
                assert_eq!(seq.0, last, "the mark is in its place");
                assert_eq!(mark.replace(last), None, "one mark");
            }
            lost @ Delivered::Lost { .. } => panic!("{lost:?}"),
        }
    }
    last
}

/// Reads with threads from every offset on every node, and from wherever each stream was left.
fn read_from_every_offset(cluster: &TestCluster, met: &Met) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let (after, node) = (n / cluster.len(), n % cluster.len());
                    if after > OFFSETS {
                        return;
                    }
                    let last = read_across_the_mark(&cluster.admin(node), after as u64, met);
                    read_across_the_mark(&cluster.admin(node), last, met);
                }
            });
        }
    });
}

/// The same through sessions, several on each node.
async fn follow_from_every_offset(cluster: &TestCluster, met: &Arc<Met>) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..SESSIONS * cluster.len() {
        let options = ClientOptions {
            servers: vec![cluster.url(n / SESSIONS)],
            token: Some(cluster.admin_token().to_owned()),
            ..ClientOptions::default()
        };
        let met = met.clone();
        tasks.spawn(async move {
            let session = Session::open(&Client::connect(options).unwrap()).await.unwrap();
            for after in (n % SESSIONS..=OFFSETS).step_by(SESSIONS) {
                let last = follow_across_the_mark(&session, after as u64, &met).await;
                follow_across_the_mark(&session, last, &met).await;
            }
        });
    }
    tasks.join_all().await;
}

#[test]
fn streams_begin_at_every_offset_on_every_node_while_posts_go_on() {
    let mut cluster = TestCluster::start(3);
    cluster.room("general");
    let gateway = cluster.add_gateway();
    cluster.wait_ready_node(gateway);
    let (urls, token) = (cluster.client_urls(), cluster.admin_token());
    let (ended, met) = (AtomicBool::new(false), Arc::new(Met::default()));
    let acked = std::thread::scope(|scope| {
        let write = |worker: usize| {
            let (ended, urls) = (&ended, &urls[worker..=worker]);
            move || {
                let mut acked = vec![];
                while !ended.load(Ordering::Acquire) {
                    acked.push(load::post(urls, token, "general", &new_id(), "on and on"));
                    // Not so many that each stream has tens of thousands to read.
                    let pause = if acked.len() < OFFSETS { 1 } else { 20 };
                    std::thread::sleep(Duration::from_millis(pause));
                }
                acked
            }
        };
        let writers: Vec<_> = (0..4).map(|worker| scope.spawn(write(worker))).collect();
        crate::common::wait_for("the offsets", PATIENCE, || {
            let room = cluster.admin(0).get("/v1/rooms/general").unwrap().expect(200);
            let head = room["head"].as_u64().unwrap();
            if head >= OFFSETS as u64 { Ok(()) } else { Err(format!("head {head}")) }
        });
        let sessions = scope.spawn(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(follow_from_every_offset(&cluster, &met));
        });
        read_from_every_offset(&cluster, &met);
        sessions.join().expect("no session failed");
        ended.store(true, Ordering::Release);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
    });
    let log = load::read_room(&cluster.admin(0), "general", "linearizable");
    load::check_log(&log, &acked);
    let met = met.0.lock().unwrap();
    for (event, met) in log.iter().zip(met.iter()) {
        assert_eq!(met.as_ref(), Some(&event.id), "at {}", event.seq);
    }
    crate::common::say!(
        "{} streams and as many follows, across {} posts, {} of them seen",
        2 * (OFFSETS + 1) * cluster.len(),
        log.len(),
        met.len()
    );
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
