//! What malformed, forbidden and oversized requests get, and that they change nothing.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::common::cluster::TestCluster;
use crate::common::new_id;
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
    let misplaced = admin.post(&format!("{messages}?text=x"), &json!({ "text": "x" })).unwrap();
    misplaced.expect_error(400, "invalid_argument");
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
    let log = cluster.log(0);
    assert!(!log.contains("panicked"), "{log}");
    assert!(!log.contains(cluster.admin_token()), "a token is in the log");
    assert!(!log.contains("xxxx"), "a message's text is in the log");
}

#[test]
fn who_may_not_and_rooms_of_the_wrong_kind_get_their_codes() {
    let cluster = TestCluster::start(1);
    cluster.room("general");
    let admin = cluster.admin(0);
    let mallory = cluster.http(0).with_token(&cluster.user("mallory"));
    let json_type = [("content-type", "application/json")];
    let put = |path: &str, body: &[u8]| admin.send("PUT", path, &json_type, body).unwrap();
    put("/v1/rooms/general/participants/mallory", b"{\"role\":\"banned\"}").expect(200);
    let direct = json!({ "room": "dm:admin:mallory", "kind": "direct", "title": "" });
    let made = admin.post("/v1/rooms", &direct).unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    let state = || {
        ["general", "dm:admin:mallory"].map(|room| {
            let path = format!("/v1/rooms/{room}");
            let events = admin.get(&format!("{path}/events?after=0")).unwrap().expect(200);
            (admin.get(&path).unwrap().expect(200), events)
        })
    };
    let before = state();

    let text = json!({ "text": "x" });
    let banned = mallory.post("/v1/rooms/general/messages", &text).unwrap();
    banned.expect_error(403, "banned");
    mallory.post("/v1/rooms/general/join", &json!({})).unwrap().expect_error(403, "banned");
    mallory.get("/v1/rooms/general/events?after=0").unwrap().expect_error(403, "banned");
    for verb in ["join", "leave"] {
        let answer = admin.post(&format!("/v1/rooms/dm:admin:mallory/{verb}"), &json!({})).unwrap();
        answer.expect_error(409, "wrong_room_kind");
    }
    let role = put("/v1/rooms/dm:admin:mallory/participants/mallory", b"{\"role\":\"muted\"}");
    role.expect_error(409, "wrong_room_kind");

    // A cursor of another epoch is no error: all there is is to be read again.
    let foreign = admin.get("/v1/rooms/general/events?after=other:1").unwrap().expect(200);
    assert_eq!(foreign["recovered"], false);
    assert_eq!(foreign["events"][0]["seq"], 1);
    assert_eq!(state(), before);
}

/// A request of any method, as bytes that are no message of its.
async fn garbled(url: String, token: String, path: &'static str) -> tonic::Status {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Garbled {
        #[prost(bytes = "vec", tag = "1")]
        field: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        other: Vec<u8>,
    }
    let channel = tonic::transport::Channel::from_shared(url).unwrap().connect().await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let message = Garbled { field: vec![0xff; 9], other: vec![0xff; 9] };
    // A session goes on until its client ends it.
    let mut request = tonic::Request::new(tokio_stream::iter([message]));
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let codec = tonic_prost::ProstCodec::<Garbled, Garbled>::default();
    let path = axum::http::uri::PathAndQuery::from_static(path);
    match grpc.streaming(request, path, codec).await {
        Err(status) => status,
        Ok(response) => response.into_inner().message().await.unwrap_err(),
    }
}

#[test]
fn malformed_protobuf_gets_its_code_and_changes_nothing() {
    let cluster = TestCluster::start(1);
    cluster.room("general");
    let admin = cluster.admin(0);
    let before = admin.get("/v1/rooms/general").unwrap().expect(200);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for path in [
        "/folkmoot.v1.Rooms/Post",
        "/folkmoot.v1.Rooms/Join",
        "/folkmoot.v1.Rooms/Events",
        "/folkmoot.v1.Rooms/Session",
        "/folkmoot.v1.Users/CreateUser",
    ] {
        let call = garbled(cluster.url(0), cluster.admin_token().into(), path);
        let status = runtime.block_on(call);
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{path}: {status:?}");
        let error: folkmoot::proto::v1::Error = prost::Message::decode(status.details()).unwrap();
        assert_eq!(error.code, "invalid_argument", "{path}");
    }
    assert_eq!(admin.get("/v1/rooms/general").unwrap().expect(200), before);
    assert!(!cluster.log(0).contains("panicked"));
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
    let events = || admin.get("/v1/rooms/general/events?after=0").unwrap().expect(200);
    let before = events();
    post("two").expect_error(409, "id_reused");
    assert_eq!(events(), before);
    assert_eq!(post("one").expect(200)["duplicate"], true);
    assert_eq!(events(), before);
}

#[test]
fn half_sent_requests_and_silent_connections_leave_the_node_serving() {
    let cluster = TestCluster::start(1);
    let address = cluster.url(0).trim_start_matches("http://").to_owned();
    let before = cluster.admin(0).get("/v1/rooms").unwrap().expect(200);
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
    assert_eq!(admin.get("/v1/rooms").unwrap().expect(200), before);
    drop(open);
    assert_eq!(admin.get("/v1/rooms").unwrap().expect(200), before);
}
