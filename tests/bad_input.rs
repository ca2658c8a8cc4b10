//! What malformed, forbidden and oversized requests get, and that they change nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use common::cluster::TestCluster;
use common::new_id;
use serde_json::{Value, json};

/// A UUIDv7 whose own time is `unix_ms`.
fn id_at(unix_ms: u64) -> String {
    uuid::Builder::from_unix_timestamp_millis(unix_ms, &[7; 10]).into_uuid().to_string()
}

fn now_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the test needs ids near the present")]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

#[test]
fn every_bad_request_gets_its_code_and_changes_nothing() {
    let cluster = TestCluster::start(1);
    cluster.room("general");
    let admin = cluster.admin(0);
    let stranger = cluster.http(0).with_token(&cluster.user("mallory"));
    let before = admin.get("/v1/rooms/general").unwrap().expect(200);

    let messages = "/v1/rooms/general/messages";
    let post = |body: Value| admin.post(messages, &body).unwrap();
    let minutes = 60 * 1000;
    post(json!({})).expect_error(400, "invalid_argument");
    post(json!({ "text": "" })).expect_error(400, "invalid_argument");
    post(json!({ "text": 7 })).expect_error(400, "invalid_argument");
    post(json!({ "text": "x", "client_msg_id": "x" })).expect_error(400, "invalid_argument");
    let v4 = "00000000-0000-4000-8000-000000000000";
    post(json!({ "text": "x", "client_msg_id": v4 })).expect_error(400, "invalid_argument");
    post(json!({ "text": "x".repeat(64 * 1024 + 1) })).expect_error(413, "too_large");
    let ahead = post(json!({ "text": "x", "client_msg_id": id_at(now_ms() + 10 * minutes) }));
    assert!(ahead.expect_error(409, "clock_skew")["server_time_ms"].is_u64());
    let old =
        post(json!({ "text": "x", "client_msg_id": id_at(now_ms() - 8 * 24 * 60 * minutes) }));
    old.expect_error(409, "expired");
    let nowhere = admin.post("/v1/rooms/nowhere/messages", &json!({ "text": "x" })).unwrap();
    nowhere.expect_error(404, "room_not_found");
    stranger.post(messages, &json!({ "text": "x" })).unwrap().expect_error(403, "not_participant");
    let json_type = [("content-type", "application/json")];
    for body in [&b"{"[..], b"", b"[1,2]", b"{\"text\":\"\xff\"}", "[".repeat(100_000).as_bytes()] {
        let answer = admin.send("POST", messages, &json_type, body).unwrap();
        answer.expect_error(400, "invalid_argument");
    }
    let huge = "x".repeat(3 * 1024 * 1024);
    // The node may hang up before it has read all of it.
    if let Ok(answer) = admin.send("POST", messages, &json_type, huge.as_bytes()) {
        answer.expect_error(413, "too_large");
    }

    for room in ["General", "a%20b", &"a".repeat(65)] {
        let answer = admin.get(&format!("/v1/rooms/{room}")).unwrap();
        answer.expect_error(400, "invalid_argument");
    }
    let events = |query: &str| admin.get(&format!("/v1/rooms/general/events?{query}")).unwrap();
    for cursor in ["x", "-1", "1:2:3", "18446744073709551616", "999999"] {
        events(&format!("after={cursor}")).expect_error(400, "invalid_cursor");
    }
    for query in ["limit=0", "limit=1001", "limit=x", "wait=never", "consistency=strong"] {
        events(query).expect_error(400, "invalid_argument");
    }
    events("after=1&before=2").expect_error(400, "invalid_argument");

    let anonymous = cluster.http(0);
    anonymous.get("/v1/rooms").unwrap().expect_error(401, "unauthenticated");
    let wrong = anonymous.with_token("wrong");
    wrong.get("/v1/rooms").unwrap().expect_error(401, "unauthenticated");
    let user = json!({ "user": "eve" });
    stranger.post("/v1/users", &user).unwrap().expect_error(403, "forbidden");
    admin.get("/v1/nothing").unwrap().expect_error(404, "not_found");
    let deleted = admin.send("DELETE", "/v1/rooms", &[], b"").unwrap();
    deleted.expect_error(405, "method_not_allowed");

    assert_eq!(admin.get("/v1/rooms/general").unwrap().expect(200), before);
}

#[test]
fn a_repeated_id_with_another_body_is_refused() {
    let cluster = TestCluster::start(1);
    cluster.room("general");
    let admin = cluster.admin(0);
    let id = new_id();
    let post = |text: &str| {
        let body = json!({ "client_msg_id": id, "text": text });
        admin.post("/v1/rooms/general/messages", &body).unwrap()
    };
    post("one").expect(200);
    post("two").expect_error(409, "id_reused");
    assert_eq!(post("one").expect(200)["duplicate"], true);
}

#[test]
fn half_sent_requests_and_silent_connections_leave_the_node_serving() {
    let cluster = TestCluster::start(1);
    let address = cluster.url(0).trim_start_matches("http://").to_owned();
    let mut open = vec![];
    for part in ["", "POST", "POST /v1/rooms HTTP/1.1\r\ncontent-length: 100\r\n\r\n{"] {
        for _ in 0..20 {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(part.as_bytes()).unwrap();
            open.push(stream);
        }
    }
    for garbage in [&b"\x00\x01\x02\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff"] {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(garbage).unwrap();
        open.push(stream);
    }
    let admin = cluster.admin(0).with_timeout(Duration::from_secs(5));
    admin.get("/v1/rooms").unwrap().expect(200);
    drop(open);
    admin.get("/v1/rooms").unwrap().expect(200);
}
