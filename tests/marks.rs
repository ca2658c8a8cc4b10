//! Read marks: the same from every node and on every interface, counted right, and kept.

use serde_json::{Value, json};

use crate::common::cluster::{TestCluster, succeed};
use crate::common::http::Http;
use crate::common::verified;
use crate::common::ws::Ws;

/// What somebody has in each of their rooms: id, mark, unread messages, mentions.
fn own(http: &Http) -> Vec<(String, u64, u64, u64)> {
    let list = http.get("/v1/me/rooms").unwrap().expect(200);
    assert_eq!(list["next"], Value::Null);
    let number = |value: &Value| value.as_u64().unwrap();
    let rooms = list["rooms"].as_array().unwrap().iter();
    rooms
        .map(|room| {
            let unread = &room["unread"];
            assert_eq!(unread["more"], false);
            (
                room["room"].as_str().unwrap().to_owned(),
                number(&room["own"]["read"]),
                number(&unread["messages"]),
                number(&unread["mentions"]),
            )
        })
        .collect()
}

fn say(http: &Http, room: &str, text: &str) {
    http.post(&format!("/v1/rooms/{room}/messages"), &json!({ "text": text })).unwrap().expect(200);
}

fn mark(http: &Http, room: &str, seq: u64) -> Value {
    let json_type = [("content-type", "application/json")];
    let body = json!({ "seq": seq }).to_string();
    let path = format!("/v1/rooms/{room}/read");
    http.send("PUT", &path, &json_type, body.as_bytes()).unwrap().json()
}

#[test]
fn marks_are_the_same_everywhere_and_outlive_a_crash() {
    let mut cluster = TestCluster::start(3);
    let tokens = ["ann", "bob"].map(|user| cluster.user(user));
    // In several shards.
    let rooms: Vec<String> = (0..6).map(|n| format!("room-{n}")).collect();
    let http = |cluster: &TestCluster, node: usize, user: usize| {
        cluster.http(node).with_token(&tokens[user])
    };
    for room in &rooms {
        let ann = http(&cluster, 0, 0);
        ann.post("/v1/rooms", &json!({ "room": room })).unwrap().expect_made();
        http(&cluster, 1, 1)
            .post(&format!("/v1/rooms/{room}/join"), &json!({}))
            .unwrap()
            .expect(200);
        say(&ann, room, "hi @bob");
        say(&ann, room, "and more");
    }
    let bobs = |read: &dyn Fn(usize) -> (u64, u64, u64)| -> Vec<(String, u64, u64, u64)> {
        let row = |(n, room): (usize, &String)| {
            let (seq, messages, mentions) = read(n);
            (room.clone(), seq, messages, mentions)
        };
        rooms.iter().enumerate().map(row).collect()
    };
    for node in 0..3 {
        assert_eq!(own(&http(&cluster, node, 1)), bobs(&|_| (2, 2, 1)), "node {node}");
        let mine = own(&http(&cluster, node, 0));
        assert!(
            mine.iter().all(|(_, _, messages, _)| *messages == 0),
            "ann said it herself: {mine:?}"
        );
    }

    // Over each interface, from each node; it does not go back.
    assert_eq!(mark(&http(&cluster, 0, 1), "room-0", 3)["seq"], 3);
    let mut socket = Ws::open(&cluster.url(1), &tokens[1]).unwrap();
    socket.say(&json!({ "type": "mark_read", "ref": 1, "room": "room-1", "seq": 4 })).unwrap();
    let ack = socket.expect("ack");
    assert_eq!((&ack["ref"], &ack["seq"]), (&json!(1), &json!(4)));
    socket.say(&json!({ "type": "mark_read", "room": "room-1", "seq": 3 })).unwrap();
    let ack = socket.expect("ack");
    assert_eq!((&ack["seq"], &ack["duplicate"]), (&json!(4), &json!(true)));
    socket.say(&json!({ "type": "mark_read", "room": "room-1", "seq": 5 })).unwrap();
    assert_eq!(socket.expect("error")["error"]["code"], "event_not_found");
    let cli = |arguments: &[&str]| {
        let mut command = cluster.cli(2, arguments);
        command.env("FOLKMOOT_TOKEN", &tokens[1]);
        String::from_utf8(succeed(&mut command)).unwrap()
    };
    assert_eq!(cli(&["room", "read", "room-2"]).trim(), "read room-2 up to #4");
    let listed: Value = serde_json::from_str(&cli(&["room", "mine", "--json"])).unwrap();
    let over_rest = http(&cluster, 2, 1).get("/v1/me/rooms").unwrap().json();
    assert_eq!(listed["rooms"], over_rest["rooms"]);
    let expected = bobs(&|n| match n {
        0 => (3, 1, 0),
        1 | 2 => (4, 0, 0),
        _ => (2, 2, 1),
    });
    for node in 0..3 {
        assert_eq!(own(&http(&cluster, node, 1)), expected, "node {node}");
    }

    // Those in the room see how far others have read; outsiders do not.
    let read = |token: &str| {
        let room = cluster.http(0).with_token(token).get("/v1/rooms/room-1").unwrap().expect(200);
        let people = room["participants"].as_array().unwrap().clone();
        people.iter().find(|one| one["user"] == "bob").unwrap()["read"].clone()
    };
    assert_eq!((read(&tokens[0]), read(&cluster.user("eve"))), (json!(4), json!(0)));

    for node in 0..3 {
        cluster.kill(node);
    }
    for node in 0..3 {
        cluster.restart(node);
    }
    cluster.wait_ready();
    for node in 0..3 {
        assert_eq!(own(&http(&cluster, node, 1)), expected, "node {node}, after the crash");
    }
    verified::verify(&cluster, 0);
}
