//! The Rust client's sessions while leaders are killed: posts are pipelined, rooms followed many
//! at a time, and nobody loses, repeats or waits for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use folkmoot::client::{Client, ClientOptions, Delivered, Follow, Post, Session};
use folkmoot::id::{Cursor, Epoch, RequestId, RoomId, Seq};
use folkmoot::proto::v1::Event;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use crate::common::cluster::TestCluster;
use crate::common::load::{self, Acked};
use crate::common::wait_for;

const KILLS: usize = 7;
/// From one kill to the next one, at the least.
const KILL_EVERY: Duration = Duration::from_millis(2500);
/// Each has a session of its own, a third of them on each node at first.
const WRITERS: usize = 6;
const FOLLOWERS: usize = 3;
/// Posts in flight of one writer, at the most; and how many more it posts at each tick.
const IN_FLIGHT: usize = 64;
const AT_ONCE: usize = 4;
/// A follower that does not stay goes away, and comes back with its cursor, after so many events.
const STAY: u64 = 150;
/// Nothing may take longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many posts are acknowledged at the least.
const POSTS_MIN: u64 = 3000;
/// The last text of each room.
const THE_END: &str = "the end";

fn options(cluster: &TestCluster) -> ClientOptions {
    ClientOptions {
        servers: cluster.client_urls(),
        token: Some(cluster.admin_token().to_owned()),
        ..ClientOptions::default()
    }
}

async fn open(options: ClientOptions, server: usize) -> Session {
    Session::open_on(&Client::connect(options).unwrap(), server).await.unwrap()
}

async fn post(session: Session, room: RoomId, text: String) -> Acked {
    let id = RequestId::parse(&crate::common::new_id()).unwrap();
    let post = Post { id: Some(id), ..Post::message(&room, text.clone()) };
    let ack = session.post(post).await.unwrap_or_else(|e| panic!("{room}: {text}: {e:?}"));
    let (room, id) = (room.to_string(), id.to_string());
    Acked { room, id, text, seq: ack.seq, when: Instant::now() }
}

/// Posts to the rooms in turn, many at a time, until told to stop; returns what was acknowledged.
async fn write(
    options: ClientOptions,
    writer: usize,
    rooms: Vec<RoomId>,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> Vec<Acked> {
    let session = open(options, writer).await;
    let mut ticks = interval(Duration::from_millis(20));
    let (mut in_flight, mut acked, mut n) = (FuturesUnordered::new(), vec![], writer);
    while !stop.load(Ordering::Acquire) {
        tokio::select! {
            _ = ticks.tick(), if in_flight.len() < IN_FLIGHT => {
                for _ in 0..AT_ONCE {
                    let text = format!("message {n} of writer {writer}");
                    in_flight.push(post(session.clone(), rooms[n % rooms.len()].clone(), text));
                    n += 1;
                }
            }
            Some(done) = in_flight.next() => {
                acked.push(done);
                count.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
    acked.extend(in_flight.collect::<Vec<_>>().await);
    acked
}

/// What a follower of one room saw: `(id, text)` of each seq from 1 on.
struct Seen {
    room: RoomId,
    events: Vec<(String, String)>,
    /// How often delivery began: at first, and again after each interruption.
    beginnings: usize,
}

impl Seen {
    fn take(&mut self, event: &Event) {
        let seq = self.events.len() as u64 + 1;
        assert_eq!(event.seq, seq, "no gap and no repeat in {}", self.room);
        let id = RequestId::from_slice(&event.client_msg_id).unwrap();
        self.events.push((id.to_string(), event.text.clone()));
    }

    fn head(&self) -> u64 {
        self.events.len() as u64
    }

    /// Takes what a follow delivers until the room's end, or so many events.
    async fn read(&mut self, follow: &mut Follow, at_most: u64) -> bool {
        let last = self.head().saturating_add(at_most);
        while self.head() < last {
            let next = timeout(PATIENCE, follow.next()).await;
            let next = next.unwrap_or_else(|_| panic!("{} hangs at {}", self.room, self.head()));
            match next.expect("a follow goes on").unwrap() {
                Delivered::Event(event) => self.take(&event),
                Delivered::CaughtUp(seq) => {
                    assert_eq!(seq.0, self.head(), "the mark's place in {}", self.room);
                    self.beginnings += 1;
                }
                lost @ Delivered::Lost { .. } => panic!("{}: {lost:?}", self.room),
            }
            if self.events.last().is_some_and(|(_, text)| text == THE_END) {
                return true;
            }
        }
        false
    }
}

/// Follows a room from its first event to its end; with `stay`, over one follow after another.
async fn follow(session: Session, room: RoomId, epoch: Epoch, stay: u64) -> Seen {
    let mut seen = Seen { room: room.clone(), events: vec![], beginnings: 0 };
    loop {
        let cursor = Cursor { epoch: Some(epoch.clone()), seq: Seq(seen.head()) };
        let mut follow = session.follow(&room, Some(cursor)).await.unwrap();
        if seen.read(&mut follow, stay).await {
            return seen;
        }
    }
}

async fn follow_all(
    options: ClientOptions,
    follower: usize,
    rooms: BTreeMap<RoomId, Epoch>,
) -> Vec<Seen> {
    let session = open(options, follower).await;
    // The last one comes and goes.
    let stay = if follower + 1 == FOLLOWERS { STAY } else { u64::MAX };
    let follow = |(room, epoch)| tokio::spawn(follow(session.clone(), room, epoch, stay));
    let seen = join_all(rooms.into_iter().map(follow)).await;
    seen.into_iter().map(|seen| seen.expect("no follower failed")).collect()
}

/// The shards that a node leads, as another one sees it.
fn led_by(cluster: &TestCluster, via: usize, node: u64) -> Vec<u64> {
    let shards = cluster.shards(via);
    let leads = |s: &&Value| s["node"] == node && s["state"] == "leader";
    shards.iter().filter(leads).map(|s| s["shard"].as_u64().unwrap()).collect()
}

/// How many sessions a node has.
fn sessions_at(cluster: &TestCluster, node: usize) -> usize {
    cluster.http(node).metric("folkmoot_sessions") as usize
}

/// What the kills hit.
#[derive(Debug, Default)]
struct Hit {
    shards_led: usize,
    sessions: usize,
    /// From each kill to the next one.
    acks: Vec<u64>,
}

/// Kills the node that has the most sessions of those that lead shards, waits until each of these
/// is led by another one, and starts the node again.
fn kill_a_leader(cluster: &mut TestCluster, hit: &mut Hit) {
    let nodes: Vec<_> = (0..cluster.len()).map(|node| (node, cluster.node_id(0, node))).collect();
    let (sessions, led, victim, id) = wait_for("a leader", PATIENCE, || {
        let candidates = nodes.iter().map(|(node, id)| {
            (sessions_at(cluster, *node), led_by(cluster, *node, *id), *node, *id)
        });
        let leader = candidates.filter(|(_, led, ..)| !led.is_empty()).max();
        leader.ok_or_else(|| "nobody leads".into())
    });
    let via = (victim + 1) % cluster.len();
    cluster.kill(victim);
    wait_for("new leaders", PATIENCE, || {
        let shards = cluster.shards(via);
        let leads = |s: &Value| s["node"] != id && s["state"] == "leader";
        let has_leader = |shard: &u64| shards.iter().any(|s| s["shard"] == *shard && leads(s));
        match led.iter().find(|shard| !has_leader(shard)) {
            None => Ok(()),
            Some(shard) => Err(format!("nobody leads shard {shard}")),
        }
    });
    cluster.restart(victim);
    cluster.wait_ready_node(victim);
    hit.shards_led += led.len();
    hit.sessions += sessions;
}

/// Kills and restarts leaders, while posts go on.
fn kill_leaders(cluster: &mut TestCluster, acked: &AtomicU64) -> Hit {
    let mut hit = Hit::default();
    let more = |than: u64, at_least: Duration| {
        let begin = Instant::now();
        wait_for("posts to go on", PATIENCE, || {
            let more = acked.load(Ordering::Acquire) - than;
            let over = begin.elapsed() >= at_least && more >= 100;
            if over { Ok(more) } else { Err(format!("{more} acknowledged")) }
        })
    };
    more(0, Duration::ZERO);
    for _ in 0..KILLS {
        let (begin, before) = (Instant::now(), acked.load(Ordering::Acquire));
        kill_a_leader(cluster, &mut hit);
        hit.acks.push(more(before, KILL_EVERY.saturating_sub(begin.elapsed())));
    }
    hit
}

fn check_seen(cluster: &TestCluster, seen: &[Seen]) {
    for seen in seen {
        let log = load::read_room(&cluster.admin(0), seen.room.as_str(), "linearizable");
        let log: Vec<_> = log.into_iter().map(|event| (event.id, event.text)).collect();
        assert_eq!(log.len(), seen.events.len(), "{}: the head was reached", seen.room);
        assert!(log == seen.events, "{}: what was delivered is what is kept", seen.room);
    }
}

#[test]
fn sessions_lose_and_repeat_nothing_while_leaders_are_killed() {
    let mut cluster = TestCluster::start(3);
    let names: Vec<_> = (0..16).map(|i| format!("room-{i}")).collect();
    names.iter().for_each(|room| cluster.room(room));
    let epoch = |room: &String| {
        let room = cluster.admin(0).get(&format!("/v1/rooms/{room}")).unwrap().expect(200);
        Epoch::parse(room["epoch"].as_str().unwrap()).unwrap()
    };
    let rooms: BTreeMap<_, _> =
        names.iter().map(|room| (RoomId::parse(room).unwrap(), epoch(room))).collect();
    let ids: Vec<_> = rooms.keys().cloned().collect();

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let start = |writer| {
        let (stop, count) = (stop.clone(), count.clone());
        runtime.spawn(write(options(&cluster), writer, ids.clone(), stop, count))
    };
    let writers: Vec<JoinHandle<Vec<Acked>>> = (0..WRITERS).map(start).collect();
    let start = |i| runtime.spawn(follow_all(options(&cluster), i, rooms.clone()));
    let followers: Vec<JoinHandle<Vec<Seen>>> = (0..FOLLOWERS).map(start).collect();

    let hit = kill_leaders(&mut cluster, &count);
    wait_for("enough posts", PATIENCE, || match count.load(Ordering::Acquire) {
        POSTS_MIN.. => Ok(()),
        few => Err(format!("{few} acknowledged")),
    });
    stop.store(true, Ordering::Release);
    let finished = async {
        let mut acked: Vec<Acked> = vec![];
        for writer in writers {
            acked.extend(writer.await.expect("no writer failed"));
        }
        let session = open(options(&cluster), 0).await;
        let ends = ids.iter().map(|room| post(session.clone(), room.clone(), THE_END.into()));
        acked.extend(join_all(ends).await);
        let mut seen: Vec<Vec<Seen>> = vec![];
        for follower in followers {
            seen.push(follower.await.expect("no follower failed"));
        }
        (acked, seen)
    };
    let finished = runtime.block_on(async { timeout(PATIENCE, finished).await });
    let (acked, seen) = finished.expect("nobody hangs");

    let beginnings = |seen: &Vec<Seen>| seen.iter().map(|seen| seen.beginnings).sum::<usize>();
    crate::common::say!(
        "{KILLS} kills, {hit:?}; {} posts acknowledged; each follower's {} rooms began {:?} times",
        acked.len(),
        ids.len(),
        seen.iter().map(beginnings).collect::<Vec<_>>(),
    );
    assert!(acked.len() as u64 >= POSTS_MIN, "too few posts: {}", acked.len());
    assert!(hit.sessions >= KILLS, "too few sessions were hit: {hit:?}");
    // One that stays begins each room once, and all of them again when its session moves.
    let begun: usize = seen[..FOLLOWERS - 1].iter().map(beginnings).sum();
    assert!(begun > (FOLLOWERS - 1) * ids.len(), "no follower's session moved");
    load::check_everywhere(&cluster, &names, &acked);
    seen.iter().for_each(|seen| check_seen(&cluster, seen));
}
