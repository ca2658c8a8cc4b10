//! Who is there, who types, and how far others have read: over three nodes, right soon after a node's
//! death, at once when somebody leaves, and told to nobody who is not in the room.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::cluster::{TestCluster, succeed};
use crate::common::http::Http;
use crate::common::wait_for;
use crate::common::ws::Ws;

/// For what has no limit of its own.
const PATIENCE: Duration = Duration::from_secs(30);
/// Within which the dead are offline.
const AFTER_DEATH: Duration = Duration::from_secs(10);
/// Within which who leaves is gone, for those at other nodes: a tick here, one on the way, one there, and
/// what a small machine needs.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Somebody's view of one room, as their WebSocket tells it.
struct View {
    ws: Ws,
    people: BTreeMap<String, String>,
    present: u64,
    typing: Vec<String>,
    read: BTreeMap<String, u64>,
}

impl View {
    fn open(cluster: &TestCluster, node: usize, token: &str, room: &str) -> View {
        let mut ws = Ws::open(&cluster.url(node), token).unwrap();
        let rooms = json!([{ "room": room }]);
        ws.say(&json!({ "type": "follow", "rooms": rooms, "presence": true })).unwrap();
        let (people, typing, read) = Default::default();
        View { ws, people, present: 0, typing, read }
    }

    /// Takes frames until something holds.
    fn until(&mut self, what: &str, within: Duration, holds: impl Fn(&View) -> bool) -> Duration {
        let began = Instant::now();
        while !holds(self) {
            assert!(
                began.elapsed() < within,
                "{what}: not after {within:?}; people {:?}, typing {:?}, read {:?}",
                self.people,
                self.typing,
                self.read
            );
            let frame = self.ws.hear().unwrap();
            let texts = |list: &Value| -> Vec<String> {
                list.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
            };
            match frame["type"].as_str().unwrap() {
                "presence" => {
                    self.present = frame["present"].as_u64().unwrap();
                    for person in frame["people"].as_array().unwrap() {
                        let text = |field: &str| person[field].as_str().unwrap().to_owned();
                        self.people.insert(text("user"), text("status"));
                    }
                }
                "typing" => self.typing = texts(&frame["users"]),
                "receipts" => {
                    for mark in frame["marks"].as_array().unwrap() {
                        let user = mark["user"].as_str().unwrap().to_owned();
                        let seq = mark["seq"].as_u64().unwrap();
                        assert!(self.read.insert(user, seq).is_none_or(|before| before < seq));
                    }
                }
                _ => {}
            }
        }
        began.elapsed()
    }

    fn is(&self, user: &str, status: &str) -> bool {
        self.people.get(user).map_or("offline", String::as_str) == status
    }
}

fn tea_room(cluster: &TestCluster, kind: &str, tokens: &[String]) {
    let admin = cluster.admin(0);
    let room = json!({ "room": "tea", "kind": kind });
    admin.post("/v1/rooms", &room).unwrap().expect_made();
    for (n, token) in tokens.iter().enumerate() {
        let user = ["ann", "bob", "cid"][n];
        let invite = format!("/v1/rooms/tea/invitations/{user}");
        if kind != "public" {
            admin.send("PUT", &invite, &[], b"").unwrap().expect(200);
        }
        let http = cluster.http(n).with_token(token);
        http.post("/v1/rooms/tea/join", &json!({})).unwrap().expect(200);
    }
}

fn put(http: &Http, path: &str, body: &Value) -> Value {
    let json_type = [("content-type", "application/json")];
    http.send("PUT", path, &json_type, body.to_string().as_bytes()).unwrap().json()
}

/// How present somebody in the room is, as a node lists its participants to `http`.
fn listed(http: &Http, user: &str) -> Value {
    let list = http.get("/v1/rooms/tea/participants").unwrap().expect(200);
    let people = list["participants"].as_array().unwrap();
    people.iter().find(|it| it["user"] == user).unwrap()["status"].clone()
}

#[test]
fn people_are_seen_over_all_nodes_and_gone_when_they_leave_or_their_node_dies() {
    let mut cluster = TestCluster::start(3);
    let tokens: Vec<String> = ["ann", "bob", "cid"].iter().map(|it| cluster.user(it)).collect();
    tea_room(&cluster, "private", &tokens);
    let mut ann = View::open(&cluster, 0, &tokens[0], "tea");
    let bob = View::open(&cluster, 1, &tokens[1], "tea");
    let bobs_phone = View::open(&cluster, 2, &tokens[1], "tea");
    let mut cid = View::open(&cluster, 2, &tokens[2], "tea");
    ann.until("all are there", PATIENCE, |it| {
        it.present == 3 && ["ann", "bob", "cid"].iter().all(|user| it.is(user, "online"))
    });

    // Busy on one device, there on the other; then busy on the only one.
    let mut bob = bob;
    bob.ws.say(&json!({ "type": "presence", "status": "away" })).unwrap();
    drop(bobs_phone);
    ann.until("bob is busy", AT_ONCE, |it| it.is("bob", "away"));
    // Node 1 may hear later than node 0 that the phone is gone.
    wait_for("bob to be listed as busy", PATIENCE, || {
        let status = listed(&cluster.http(1).with_token(&tokens[0]), "bob");
        if status == "away" { Ok(()) } else { Err(status.to_string()) }
    });
    drop(bob);
    ann.until("bob has left", AT_ONCE, |it| it.is("bob", "offline") && it.present == 2);

    // Whoever has no session says so for a time.
    let http = cluster.http(1).with_token(&tokens[1]);
    let body = json!({ "status": "online", "for_ms": 3000 });
    assert_eq!(put(&http, "/v1/me/presence", &body)["status"], "online");
    ann.until("bob polls", AT_ONCE, |it| it.is("bob", "online"));
    ann.until("bob's lease has ended", Duration::from_secs(6), |it| it.is("bob", "offline"));

    cid.until("ann is there", PATIENCE, |it| it.is("ann", "online"));
    cluster.kill(2);
    let took = ann.until("cid's node is dead", AFTER_DEATH, |it| it.is("cid", "offline"));
    crate::common::say!("offline {:.1} s after the node was killed", took.as_secs_f64());
    drop(cid);
    // And is back, on another node.
    let _cid = View::open(&cluster, 1, &tokens[2], "tea");
    ann.until("cid is back", AT_ONCE, |it| it.is("cid", "online"));
}

#[test]
fn typing_and_receipts_are_told_live_and_only_to_those_in_the_room() {
    let cluster = TestCluster::start(3);
    let tokens: Vec<String> = ["ann", "bob", "cid"].iter().map(|it| cluster.user(it)).collect();
    tea_room(&cluster, "public", &tokens[..2]);
    let http = |user: usize| cluster.http(user).with_token(&tokens[user]);
    let message = json!({ "text": "hi" });
    let post = |user: usize| http(user).post("/v1/rooms/tea/messages", &message).unwrap();
    let seq = post(0).expect(200)["seq"].as_u64().unwrap();
    let mut ann = View::open(&cluster, 0, &tokens[0], "tea");
    let mut bob = View::open(&cluster, 1, &tokens[1], "tea");
    // Reads along, and is not in it: as of everything else, hears of the log only.
    let mut cid = View::open(&cluster, 2, &tokens[2], "tea");
    bob.until("both are there", PATIENCE, |it| it.is("ann", "online") && it.present == 2);

    ann.ws.say(&json!({ "type": "typing", "room": "tea", "typing": true })).unwrap();
    bob.until("ann types", AT_ONCE, |it| it.typing == ["ann"]);
    ann.ws.say(&json!({ "type": "post", "room": "tea", "text": "tea?" })).unwrap();
    bob.until("ann has posted", AT_ONCE, |it| it.typing.is_empty());
    ann.ws.say(&json!({ "type": "typing", "room": "tea", "typing": true })).unwrap();
    bob.until("ann types again", AT_ONCE, |it| it.typing == ["ann"]);
    bob.until("ann has stopped", Duration::from_secs(8), |it| it.typing.is_empty());

    assert_eq!(put(&http(1), "/v1/rooms/tea/read", &json!({ "seq": seq }))["seq"], seq);
    ann.until("bob has read", AT_ONCE, |it| it.read.get("bob") == Some(&seq));

    // A stranger to the room: no word of its people, neither live nor in a list; nor may they type.
    cid.ws.say(&json!({ "type": "typing", "room": "tea", "typing": true, "ref": 7 })).unwrap();
    cid.ws.say(&json!({ "type": "ping" })).unwrap();
    let mut refused = false;
    loop {
        let frame = cid.ws.hear().unwrap();
        match frame["type"].as_str().unwrap() {
            "pong" => break,
            "error" => refused = frame["ref"] == 7,
            kind => assert!(["hello", "followed", "event", "caught_up"].contains(&kind), "{frame}"),
        }
    }
    assert!(refused);
    assert_eq!(listed(&http(2), "ann"), Value::Null);
    assert_eq!(listed(&http(1), "ann"), "online");
    let shown = succeed(&mut cluster.cli(1, &["room", "people", "tea"]));
    let shown = String::from_utf8(shown).unwrap();
    let ann_is =
        |status: &str| shown.lines().any(|line| line.starts_with("ann ") && line.contains(status));
    assert!(ann_is("member") && ann_is("online"), "{shown}");
    assert_eq!(ann.people.get("cid"), None);

    // Once they join they are told, and once they are out they are not any more.
    http(2).post("/v1/rooms/tea/join", &json!({})).unwrap().expect(200);
    cid.until("cid is told", PATIENCE, |it| it.is("bob", "online") && it.present == 3);
    ann.until("cid is seen", PATIENCE, |it| it.is("cid", "online"));
    http(2).post("/v1/rooms/tea/leave", &json!({})).unwrap().expect(200);
    ann.until("cid is out", PATIENCE, |it| it.present == 2);
    // The administrator, who is in the room, sees what cid's node knows of it.
    let mut admin = View::open(&cluster, 2, cluster.admin_token(), "tea");
    admin.until("node 2 has heard so", PATIENCE, |it| it.is("admin", "online") && it.present == 3);
    drop(bob);
    admin.until("bob has left, at node 2", AT_ONCE, |it| it.is("bob", "offline"));
    ann.until("bob has left", AT_ONCE, |it| it.is("bob", "offline"));
    cid.ws.say(&json!({ "type": "ping" })).unwrap();
    loop {
        let frame = cid.ws.hear().unwrap();
        if frame["type"] == "pong" {
            break;
        }
        let told = frame["people"].as_array().into_iter().flatten();
        assert!(told.clone().all(|it| it["user"] != "bob" || it["status"] == "online"), "{frame}");
    }
}
