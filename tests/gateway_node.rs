//! A node that has no replica serves every room all the same, also while a replica dies: it relays
//! from another one then, and its clients' streams go on.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use folkmoot::client::{Client, ClientOptions, Delivered, Session};
use folkmoot::id::{Cursor, RoomId, Seq};
use serde_json::Value;
use tokio::time::timeout;

use crate::common::cluster::TestCluster;
use crate::common::http::Http;
use crate::common::load::{self, Acked, Load};
use crate::common::sse::Sse;
use crate::common::{new_id, wait_for};

#[test]
fn a_node_without_replicas_posts_reads_and_streams() {
    let mut cluster = TestCluster::start(3);
    let rooms: Vec<_> = (0..8).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let gateway = cluster.add_gateway();
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

/// More bytes than sockets hold, and then more events than may be on their way to one follower.
const LARGE: usize = 200;
const SMALL: usize = 600;

#[test]
fn one_that_stops_reading_holds_up_nobody_else_on_a_node_without_replicas() {
    let mut cluster = TestCluster::start(3);
    cluster.room("general");
    let gateway = cluster.add_gateway();
    cluster.wait_ready_node(gateway);
    let http = cluster.admin(gateway).with_timeout(PATIENCE);
    let open = || Sse::open(&http, "general", Some(0), None).unwrap();
    let (_stuck, mut stream) = (open(), open());
    let (urls, token) = (cluster.client_urls(), cluster.admin_token());
    let mut last = 0;
    for n in 0..LARGE + SMALL {
        let text = if n < LARGE { "x".repeat(60_000) } else { "small".into() };
        last = load::post(&urls, token, "general", &new_id(), &text).seq;
        // As they come, so that each has a frame of its own.
        while stream.next().unwrap().seq() != Some(last) {}
    }
    let begin = Sse::open(&http, "general", Some(last - 1), None).unwrap().next().unwrap();
    assert_eq!(begin.seq(), Some(last), "and who comes now is served");
}

const KILLS: usize = 6;
const PATIENCE: Duration = Duration::from_secs(60);
/// The last text of each room.
const THE_END: &str = "the end";

/// How long nobody answers for a room, at least, when a gateway gives its streams up: it looks for 5 s.
const SILENCE: Duration = Duration::from_secs(4);

/// What was read of a room: the texts, and when it had to be followed anew.
type Read = (Vec<String>, Vec<Instant>);

/// Reads a room's events over one connection, from the first one to the end; over another one where the
/// client is told to.
fn stream_to_the_end(http: Http, room: String) -> JoinHandle<Read> {
    std::thread::spawn(move || {
        let open = |after: usize| {
            wait_for("a stream", PATIENCE, || {
                let opened = Sse::open(&http, &room, Some(after as u64), None);
                opened.map_err(|error| error.to_string())
            })
        };
        let (mut texts, mut marks, mut breaks): (Vec<String>, _, _) = (vec![], 0, vec![]);
        let mut stream = open(0);
        while texts.last().is_none_or(|text| text != THE_END) {
            let event = match stream.next() {
                Ok(event) => event,
                Err(ended) => {
                    let said: Value = serde_json::from_str(&ended.to_string()).unwrap_or_default();
                    assert_eq!(said["error"]["temporary"], true, "{room} broke off: {ended}");
                    breaks.push(Instant::now());
                    stream = open(texts.len());
                    continue;
                }
            };
            marks += usize::from(event.is_caught_up());
            if let Some(seq) = event.seq() {
                assert_eq!(seq, texts.len() as u64 + 1, "no gap and no repeat in {room}");
                texts.push(event.json()["text"].as_str().unwrap_or_default().to_owned());
            }
        }
        let once = (1..=1 + breaks.len()).contains(&marks);
        assert!(once, "the client is told once that it has caught up with {room}: {marks}");
        (texts, breaks)
    })
}

/// The same through a session, which says so when it had to begin anew.
async fn follow_to_the_end(session: Session, room: String) -> Read {
    let cursor = Cursor { epoch: None, seq: Seq(0) };
    let mut follow = session.follow(&RoomId::parse(&room).unwrap(), Some(cursor)).await.unwrap();
    let (mut texts, mut marks): (Vec<String>, _) = (vec![], vec![]);
    while texts.last().is_none_or(|text| text != THE_END) {
        let next = timeout(PATIENCE, follow.next()).await;
        match next.unwrap_or_else(|_| panic!("{room} hangs")).unwrap().unwrap() {
            Delivered::Event(event) => texts.push(event.text),
            Delivered::CaughtUp(_) => marks.push(Instant::now()),
            lost @ Delivered::Lost { .. } => panic!("{lost:?}"),
        }
    }
    assert!(!marks.is_empty(), "the client is told that it has caught up with {room}");
    (texts, marks.split_off(1))
}

/// Whether a room had been without an acknowledgement until a moment before, for so long that a gateway
/// gives its streams up.
fn was_silent(acked: &[Acked], room: &str, before: Instant) -> bool {
    let mut times: Vec<_> = acked.iter().filter(|a| a.room == room).map(|a| a.when).collect();
    times.sort_unstable();
    times.windows(2).any(|pair| {
        let is_then = pair[0] < before && before < pair[1] + SILENCE;
        is_then && pair[1].duration_since(pair[0]) > SILENCE
    })
}

#[test]
fn the_streams_of_a_node_without_replicas_are_kept_while_leaders_are_killed() {
    let mut cluster = TestCluster::start(3);
    let rooms: Vec<_> = (0..12).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let replicas = cluster.client_urls();
    let gateway = cluster.add_gateway();
    cluster.wait_ready_node(gateway);
    let http = cluster.admin(gateway).with_timeout(PATIENCE);
    let streams: Vec<_> =
        rooms.iter().map(|room| stream_to_the_end(http.clone(), room.clone())).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = ClientOptions {
        servers: vec![cluster.url(gateway)],
        token: Some(cluster.admin_token().to_owned()),
        ..ClientOptions::default()
    };
    let session = async { Session::open(&Client::connect(options).unwrap()).await.unwrap() };
    let session = runtime.block_on(session);
    let follow = |room: &String| runtime.spawn(follow_to_the_end(session.clone(), room.clone()));
    let follows: Vec<_> = rooms.iter().map(follow).collect();

    let load = Load::start(&replicas, cluster.admin_token(), &rooms, 12);
    for kill in 0..KILLS {
        load.wait_more(100);
        let victim = cluster.a_leader(kill);
        cluster.kill(victim);
        load.wait_more(100);
        cluster.restart(victim);
        cluster.wait_ready_node(victim);
    }
    let mut acked = load.finish();
    for room in &rooms {
        acked.push(load::post(&replicas, cluster.admin_token(), room, &new_id(), THE_END));
    }
    let moved = cluster.http(gateway).metric("folkmoot_follows_moved_total") as usize;
    crate::common::say!(
        "{KILLS} kills, {} posts; {moved} times a room went on elsewhere",
        acked.len()
    );
    // Each kill takes a leader, of which the gateway relays; each room is followed twice.
    assert!(moved >= 2 * KILLS, "the kills hit too few streams: {moved}");
    let mut again = 0;
    for (room, (stream, follow)) in rooms.iter().zip(streams.into_iter().zip(follows)) {
        let mine: Vec<_> = acked.iter().filter(|a| a.room == *room).cloned().collect();
        let log = load::read_room(&http, room, "linearizable");
        load::check_log(&log, &mine);
        let texts: Vec<_> = log.into_iter().map(|event| event.text).collect();
        let (streamed, breaks) = stream.join().expect("no stream broke off");
        let (followed, anew) = runtime.block_on(follow).expect("no follow broke off");
        assert!(streamed == texts && followed == texts, "{room} as kept");
        let served = breaks.iter().find(|at| !was_silent(&acked, room, **at));
        assert!(served.is_none(), "{room} broke off at {served:?}, though it was served");
        // A session has all its rooms on one stream.
        let silent = |at: Instant| rooms.iter().any(|room| was_silent(&acked, room, at));
        assert!(anew.iter().all(|at| silent(*at)), "the session began anew: {anew:?}");
        again += breaks.len() + anew.len();
    }
    crate::common::say!("{again} times a room was followed anew that had no leader for too long");
}
