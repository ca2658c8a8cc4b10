//! WebSockets on real nodes: history, live events and posts over one connection; nodes that are
//! killed or stopped under it; slow readers; what must not be seen; what an idle one takes.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::cluster::{Options, TestCluster};
use crate::common::load::{self, Load};
use crate::common::ws::{End, Ws};
use crate::common::{new_id, settings, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

fn start(nodes: usize, set: &[&str]) -> TestCluster {
    TestCluster::start_with(nodes, Options { arguments: settings(set), ..Options::default() })
}

fn post(room: &str, id: &str, text: &str) -> Value {
    json!({ "type": "post", "ref": id, "room": room, "client_msg_id": id, "text": text })
}

#[test]
fn one_connection_has_history_live_events_and_acknowledged_posts() {
    let cluster = start(3, &[]);
    cluster.room("tea");
    let (ann, bob) = (cluster.user("ann"), cluster.user("bob"));
    for token in [&ann, &bob] {
        let http = cluster.http(0).with_token(token);
        http.post("/v1/rooms/tea/join", &json!({})).unwrap().expect(200);
    }
    let mut here = Ws::open(&cluster.url(0), &ann).unwrap();
    assert_eq!((&here.hello["user"], &here.hello["protocol"]), (&json!("ann"), &json!(1)));
    assert_eq!(here.hello["node"], cluster.node_id(0, 0));
    let mut there = Ws::open(&cluster.url(1), &bob).unwrap();
    there.follow("tea", &json!(0)).unwrap();
    let followed = there.expect("followed");
    assert_eq!(there.catch_up(), [1, 2, 3]);
    let id = new_id();
    here.say(&post("tea", &id, "The kettle is on.")).unwrap();
    let ack = here.expect("ack");
    assert_eq!((&ack["ref"], &ack["seq"]), (&json!(id), &json!(4)));
    let event = there.expect("event");
    assert_eq!((&event["room"], &event["event"]["client_msg_id"]), (&json!("tea"), &json!(id)));
    // The same again, from another node: it is there once.
    let mut again = Ws::open(&cluster.url(2), &ann).unwrap();
    again.say(&post("tea", &id, "The kettle is on.")).unwrap();
    let ack = again.expect("ack");
    assert_eq!((&ack["seq"], &ack["duplicate"]), (&json!(4), &json!(true)));
    for (frame, seq) in [
        (json!({ "type": "edit", "room": "tea", "target": 4, "text": "The kettle was on." }), 5),
        (json!({ "type": "react", "room": "tea", "target": 4, "symbol": "🫖" }), 6),
        (json!({ "type": "redact", "room": "tea", "target": 4 }), 7),
    ] {
        again.say(&frame).unwrap();
        assert_eq!(again.expect("ack")["seq"], seq);
        assert_eq!(there.expect("event")["event"]["seq"], seq);
    }
    let epoch = followed["epoch"].as_str().unwrap();
    again.follow("tea", &json!(format!("{epoch}:5"))).unwrap();
    assert_eq!(again.expect("followed")["recovered"], true);
    assert_eq!(again.catch_up(), [6, 7]);
    again.follow("tea", &json!(8)).unwrap();
    assert_eq!(again.expect("error")["error"]["code"], "invalid_cursor");
}

/// A follower of all rooms who also posts, on one WebSocket after another.
struct Chatter {
    urls: Vec<String>,
    token: String,
    rooms: Vec<String>,
    /// Of each room: the epoch, and the ids of its events from the first one on.
    seen: Vec<(String, Vec<String>)>,
    posts: bool,
    /// What was posted and not acknowledged yet: the room, and the id.
    owed: Option<(String, String)>,
    acked: Vec<(String, String, u64)>,
    connections: usize,
}

impl Chatter {
    fn new(cluster: &TestCluster, rooms: &[String]) -> Chatter {
        Chatter {
            urls: cluster.client_urls(),
            token: cluster.admin_token().into(),
            rooms: rooms.to_vec(),
            seen: rooms.iter().map(|_| (String::new(), vec![])).collect(),
            posts: true,
            owed: None,
            acked: vec![],
            connections: 0,
        }
    }

    fn connect_once(&mut self, done: &dyn Fn(&Chatter) -> bool) -> Result<(), End> {
        let url = &self.urls[self.connections % self.urls.len()];
        self.connections += 1;
        let mut ws = Ws::open(url, &self.token)?;
        let follows: Vec<Value> = self
            .rooms
            .iter()
            .zip(&self.seen)
            .map(|(room, (epoch, ids))| match epoch.as_str() {
                "" => json!({ "room": room, "after": 0 }),
                epoch => json!({ "room": room, "after": format!("{epoch}:{}", ids.len()) }),
            })
            .collect();
        ws.say(&json!({ "type": "follow", "rooms": follows }))?;
        if let Some((room, id)) = self.owed.clone() {
            ws.say(&post(&room, &id, "from a chatter"))?;
        }
        while !done(self) {
            if self.posts && self.owed.is_none() {
                let (room, id) =
                    (self.rooms[self.acked.len() % self.rooms.len()].clone(), new_id());
                self.owed = Some((room.clone(), id.clone()));
                ws.say(&post(&room, &id, "from a chatter"))?;
            }
            let frame = ws.hear()?;
            self.take(&frame)?;
        }
        Ok(())
    }

    fn take(&mut self, frame: &Value) -> Result<(), End> {
        let place = self.rooms.iter().position(|room| frame["room"] == **room);
        match (frame["type"].as_str().unwrap(), place) {
            ("followed", Some(place)) => {
                assert_eq!(frame["recovered"], true, "{frame}");
                self.seen[place].0 = frame["epoch"].as_str().unwrap().into();
            }
            ("event", Some(place)) => {
                let ids = &mut self.seen[place].1;
                let seq = frame["event"]["seq"].as_u64().unwrap();
                assert_eq!(
                    seq,
                    ids.len() as u64 + 1,
                    "no gap and no repeat in {}",
                    self.rooms[place]
                );
                ids.push(frame["event"]["client_msg_id"].as_str().unwrap().into());
            }
            ("caught_up", _) => {}
            ("ack", _) => {
                let (room, id) = self.owed.take().expect("an ack for what was posted");
                assert_eq!(frame["ref"], id);
                self.acked.push((room, id, frame["seq"].as_u64().unwrap()));
            }
            ("error" | "ended", _) => {
                assert_eq!(frame["error"]["temporary"], true, "{frame}");
                return Err(End::Lost(frame["error"]["code"].to_string()));
            }
            _ => panic!("{frame}"),
        }
        Ok(())
    }

    /// Goes on until `done`, from node to node.
    fn run(mut self, done: impl Fn(&Chatter) -> bool) -> Chatter {
        let begin = Instant::now();
        while let Err(end) = self.connect_once(&done) {
            assert!(begin.elapsed() < 3 * PATIENCE, "stuck: {end}");
            std::thread::sleep(Duration::from_millis(50));
        }
        self
    }
}

#[test]
fn it_resumes_on_another_node_with_nothing_lost_or_repeated() {
    let mut cluster = start(3, &[]);
    let rooms: Vec<String> = (0..4).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 4);
    let stopped = Arc::new(AtomicBool::new(false));
    let chatters: Vec<_> = (0..3)
        .map(|i| {
            let mut chatter = Chatter::new(&cluster, &rooms);
            chatter.urls.rotate_left(i);
            let stopped = stopped.clone();
            std::thread::spawn(move || {
                chatter.run(|chatter| stopped.load(Ordering::Acquire) && chatter.owed.is_none())
            })
        })
        .collect();
    for i in 0..3 {
        load.wait_more(100);
        cluster.kill(i);
        load.wait_more(100);
        cluster.restart(i);
        cluster.wait_ready_node(i);
    }
    load.wait_more(50);
    stopped.store(true, Ordering::Release);
    let acked = load.finish();
    let chatters: Vec<Chatter> =
        chatters.into_iter().map(|chatter| chatter.join().unwrap()).collect();
    assert!(chatters.iter().all(|chatter| chatter.connections > 1 && !chatter.acked.is_empty()));
    let posted: Vec<_> = chatters.iter().flat_map(|chatter| chatter.acked.clone()).collect();
    let logs: Vec<Vec<load::Seen>> =
        rooms.iter().map(|room| load::read_room(&cluster.admin(0), room, "linearizable")).collect();
    let log = |room: &str| &logs[rooms.iter().position(|r| r == room).unwrap()];
    for (room, id, seq) in posted.iter() {
        assert_eq!(&log(room)[*seq as usize - 1].id, id, "lost, or elsewhere");
        assert_eq!(log(room).iter().filter(|seen| seen.id == *id).count(), 1, "repeated");
    }
    for message in &acked {
        assert_eq!(log(&message.room)[message.seq as usize - 1].id, message.id);
    }
    // What each has seen is what there is, once it has read to the end.
    for chatter in chatters {
        let all = |chatter: &Chatter| {
            chatter.seen.iter().zip(&logs).all(|((_, ids), log)| ids.len() >= log.len())
        };
        let chatter = Chatter { posts: false, ..chatter }.run(all);
        for ((_, ids), log) in chatter.seen.iter().zip(&logs) {
            assert!(log.iter().map(|seen| &seen.id).eq(ids));
        }
    }
}

#[test]
fn a_node_that_stops_sends_its_clients_elsewhere() {
    let mut cluster = start(3, &["node.drain_grace=2s"]);
    cluster.room("tea");
    let token = cluster.admin_token().to_owned();
    let mut ws = Ws::open(&cluster.url(0), &token).unwrap();
    ws.follow("tea", &json!(0)).unwrap();
    assert_eq!(ws.catch_up(), [1]);
    cluster.signal(0, Signal::TERM);
    let ended = ws.expect("ended");
    assert_eq!((&ended["seq"], &ended["error"]["code"]), (&json!(1), &json!("shutting_down")));
    assert_eq!(ws.expect("error")["error"]["code"], "shutting_down");
    assert_eq!(ws.end(), End::Closed(4000, "shutting_down".into()));
    assert!(Ws::open(&cluster.url(0), &token).is_err(), "nobody is let in any more");
    let mut ws = Ws::open(&cluster.url(1), &token).unwrap();
    ws.follow("tea", &json!(1)).unwrap();
    ws.say(&post("tea", &new_id(), "elsewhere")).unwrap();
    let mut kinds = vec![];
    while kinds.len() < 4 {
        kinds.push(ws.hear().unwrap()["type"].as_str().unwrap().to_owned());
    }
    kinds.sort();
    assert_eq!(kinds, ["ack", "caught_up", "event", "followed"]);
    assert!(cluster.wait_exit(0).success());
}

#[test]
fn a_client_that_takes_nothing_is_closed_and_resumes() {
    let cluster = start(1, &["limits.keep_alive=3s"]);
    cluster.room("tea");
    let token = cluster.admin_token().to_owned();
    let text = "x".repeat(60_000);
    let mut slow = Ws::open(&cluster.url(0), &token).unwrap();
    slow.follow("tea", &json!(0)).unwrap();
    let mut quick = Ws::open(&cluster.url(0), &token).unwrap();
    for _ in 0..300 {
        quick.say(&post("tea", &new_id(), &text)).unwrap(); // more than sockets hold
        quick.expect("ack");
    }
    wait_for("the slow one to be closed", PATIENCE, || {
        // The quick one stays, as it answers pings.
        quick.say(&json!({ "type": "ping" })).unwrap();
        quick.expect("pong");
        let closed = cluster.http(0).metric("folkmoot_websockets_closed_total{code=\"4001\"}");
        if closed == 1.0 { Ok(()) } else { Err("not counted".into()) }
    });
    let mut last = 0;
    while let Ok(frame) = slow.hear() {
        if let Some(seq) = frame["event"]["seq"].as_u64() {
            assert_eq!(seq, last + 1);
            last = seq;
        }
    }
    assert!(last < 301);
    let mut again = Ws::open(&cluster.url(0), &token).unwrap();
    again.follow("tea", &json!(last)).unwrap();
    assert_eq!(again.catch_up(), (last + 1..=301).collect::<Vec<_>>());
}

/// Everything that can be asked of a room, with `ROOM` for its name.
fn questions(room: &str) -> Vec<Value> {
    vec![
        json!({ "type": "follow", "ref": 1, "rooms": [{ "room": room }] }),
        json!({ "type": "follow", "ref": 2, "rooms": [{ "room": room, "after": 0 }] }),
        json!({ "type": "follow", "ref": 3, "rooms": [{ "room": room, "after": 1 }] }),
        json!({ "type": "follow", "ref": 4, "rooms": [{ "room": room, "after": 999 }] }),
        json!({ "type": "follow", "ref": 5, "rooms": [{ "room": room, "after": "x:1" }] }),
        json!({ "type": "unfollow", "ref": 6, "rooms": [room] }),
        json!({ "type": "post", "ref": 7, "room": room, "text": "hello?" }),
        json!({ "type": "post", "ref": 8, "room": room, "text": "hello?", "reply_to": 1 }),
        json!({ "type": "edit", "ref": 9, "room": room, "target": 2, "text": "hello?" }),
        json!({ "type": "redact", "ref": 10, "room": room, "target": 2 }),
        json!({ "type": "react", "ref": 11, "room": room, "target": 2, "symbol": "+1" }),
    ]
}

/// What is said to a question of the hidden room, and to the same of the absent one.
fn answers(ws: &mut Ws, hidden: &Value, absent: &Value) -> [Value; 2] {
    [(hidden, "hidden"), (absent, "absent")].map(|(question, room)| {
        ws.say(question).unwrap();
        let answer = ws.expect("error").to_string().replace(room, "ROOM");
        serde_json::from_str(&answer).unwrap()
    })
}

/// Whether answers differ only in that one of them leaves open whether it was done.
fn differ_in_doubt(answers: &[Value; 2]) -> bool {
    let [one, other] = answers.clone().map(|mut answer| {
        answer["error"]["may_have_applied"] = Value::Null;
        answer
    });
    answers[0] != answers[1] && one == other
}

#[test]
fn a_private_room_looks_like_one_that_is_not_there() {
    let cluster = start(3, &[]);
    let (bob, cy) = (cluster.user("bob"), cluster.user("cy"));
    let body = json!({ "room": "hidden", "title": "", "kind": "private" });
    cluster.admin(0).post("/v1/rooms", &body).unwrap().expect_made();
    let seq = |answer: crate::common::http::Response| answer.expect(200)["seq"].clone();
    let text = json!({ "text": "between us", "client_msg_id": new_id() });
    assert_eq!(seq(cluster.admin(0).post("/v1/rooms/hidden/messages", &text).unwrap()), 2);
    // One who never was there, and one who was banned.
    let ban = json!({ "role": "banned" }).to_string();
    let json_type = [("content-type", "application/json")];
    let put = |path: &str, body: &str| {
        cluster.admin(0).send("PUT", path, &json_type, body.as_bytes()).unwrap().expect(200)
    };
    put("/v1/rooms/hidden/participants/cy", &ban);
    for token in [&bob, &cy] {
        for i in 0..3 {
            let mut ws = Ws::open(&cluster.url(i), token).unwrap();
            for (hidden, absent) in questions("hidden").into_iter().zip(questions("absent")) {
                let mut answered = answers(&mut ws, &hidden, &absent);
                // It is left open where the room's shard has a leader elected just then.
                for _ in 0..3 {
                    if differ_in_doubt(&answered) {
                        answered = answers(&mut ws, &hidden, &absent);
                    }
                }
                assert_eq!(answered[0], answered[1], "{hidden}");
            }
        }
    }
    let mut ws = Ws::open(&cluster.url(1), cluster.admin_token()).unwrap();
    ws.follow("hidden", &json!(0)).unwrap();
    assert_eq!(ws.catch_up(), [1, 2, 3], "nothing that they asked has left a trace");
}

/// Resident memory of a node, in KiB.
#[cfg(target_os = "linux")]
fn resident(cluster: &TestCluster) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", cluster.pid(0))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// The target is 25 KiB a WebSocket, with 10,000 of them, each following a room. As many as this
/// process may open are opened.
#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_idle_websockets_take_little_memory() {
    const COUNT: u64 = 10_000;
    const EACH_MAX_KIB: f64 = 25.0;
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let count = files.map_or(COUNT, |files| COUNT.min(files.saturating_sub(500))) as usize;
    if count < 1_000 {
        crate::common::say!("SKIPPED: only {files:?} files may be open");
        return;
    }
    let connections = format!("limits.connections_max={}", count + 100);
    // None of these clients answers a ping.
    let cluster = start(1, &[&connections, "limits.keep_alive=10m"]);
    for i in 0..10 {
        cluster.room(&format!("room-{i}"));
    }
    let open = |i: usize| -> TcpStream {
        let mut ws = Ws::open(&cluster.url(0), cluster.admin_token()).unwrap();
        ws.follow(&format!("room-{}", i % 10), &json!(0)).unwrap();
        assert_eq!(ws.catch_up(), [1]);
        ws.into_stream()
    };
    // What a node needs for the first few it does not need again for the others.
    let mut held: Vec<TcpStream> = (0..100).map(open).collect();
    let before = resident(&cluster);
    held.extend((100..count).map(open));
    assert_eq!(cluster.http(0).metric("folkmoot_websockets"), count as f64);
    let each = (resident(&cluster) - before) / (count - 100) as f64;
    crate::common::say!("{each:.1} KiB for each of {count} idle WebSockets");
    assert!(each < EACH_MAX_KIB, "{each} KiB");
    drop(held);
    wait_for("all of them to be gone", PATIENCE, || {
        let left = cluster.http(0).metric("folkmoot_websockets");
        if left == 0.0 { Ok(()) } else { Err(format!("{left} are left")) }
    });
}
