//! WebSockets: signing in, frames, followed rooms and posts.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::server::{Server, read_until, soon, until};
use crate::gateway::limits::{FRAME_BYTES_MAX, GatewayLimits};

/// A client.
pub(super) struct Socket {
    pub(super) stream: WebSocketStream<TcpStream>,
}

/// What a client hears.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    Frame(Value),
    Closed(u16, String),
    /// Without a close frame.
    Lost,
}

impl Socket {
    /// Connects without signing in.
    pub(super) async fn connect(server: &Server) -> Socket {
        Socket::try_connect(server, None).await.unwrap()
    }

    pub(super) async fn try_connect(server: &Server, token: Option<&str>) -> Result<Socket, u16> {
        let mut request = format!("ws://{}/v1/ws", server.address).into_client_request().unwrap();
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", value);
        }
        match soon(client_async(request, server.connect().await)).await {
            Ok((stream, _)) => Ok(Socket { stream }),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// Connects, signs in, and hears the greeting.
    pub(super) async fn open(server: &Server, token: &str) -> Socket {
        let mut socket = Socket::connect(server).await;
        socket.say(json!({ "type": "sign_in", "token": token })).await;
        assert_eq!(socket.frame().await["type"], "hello");
        socket
    }

    pub(super) async fn say(&mut self, frame: Value) {
        self.send(Message::text(frame.to_string())).await;
    }

    pub(super) async fn send(&mut self, message: Message) {
        soon(self.stream.send(message)).await.unwrap();
    }

    pub(super) async fn hear(&mut self) -> Heard {
        loop {
            match soon(self.stream.next()).await {
                Some(Ok(Message::Text(text))) => {
                    return Heard::Frame(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Heard::Closed(frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("{other:?}"),
                Some(Err(_)) | None => return Heard::Lost,
            }
        }
    }

    pub(super) async fn frame(&mut self) -> Value {
        match self.hear().await {
            Heard::Frame(frame) => frame,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn follow(&mut self, room: &str, after: Value) {
        let rooms = json!([{ "room": room, "after": after }]);
        self.say(json!({ "type": "follow", "rooms": rooms })).await;
    }

    /// Hears until a followed room has caught up; returns the seqs of its events.
    pub(super) async fn catch_up(&mut self) -> Vec<u64> {
        let mut seqs = Vec::new();
        loop {
            let frame = self.frame().await;
            match frame["type"].as_str().unwrap() {
                "event" => seqs.push(frame["event"]["seq"].as_u64().unwrap()),
                "followed" => {}
                "caught_up" => return seqs,
                _ => panic!("{frame}"),
            }
        }
    }

    /// Hears an error that ends the connection, and the close code.
    pub(super) async fn ends_with(&mut self, code: &str, closed: u16) {
        let frame = self.frame().await;
        assert_eq!((&frame["type"], &frame["error"]["code"]), (&json!("error"), &json!(code)));
        assert_eq!(self.hear().await, Heard::Closed(closed, code.into()));
    }
}

pub(super) fn post(tag: u64, text: &str) -> Value {
    json!({ "type": "post", "ref": tag, "room": "general", "text": text })
}

#[tokio::test]
async fn whoever_signs_in_is_greeted() {
    let server = Server::start().await;
    for in_header in [true, false] {
        let token = in_header.then_some(server.ann.as_str());
        let mut socket = Socket::try_connect(&server, token).await.unwrap();
        if !in_header {
            socket.say(json!({ "type": "sign_in", "token": server.ann, "mood": "good" })).await;
        }
        let hello = socket.frame().await;
        assert_eq!((&hello["type"], &hello["user"]), (&json!("hello"), &json!("ann")));
        assert_eq!((&hello["protocol"], &hello["node"]), (&json!(1), &json!(1)));
        assert_eq!(hello["limits"]["frame_bytes"], FRAME_BYTES_MAX);
        assert_eq!(hello["ping_interval_ms"], 20_000);
        socket.say(json!({ "type": "sign_in", "ref": 1, "token": server.bob })).await;
        let error = socket.frame().await;
        assert_eq!(
            (&error["ref"], &error["error"]["code"]),
            (&json!(1), &json!("invalid_argument"))
        );
    }
}

#[tokio::test]
async fn nobody_gets_in_without_a_token() {
    let server = Server::start().await;
    assert_eq!(Socket::try_connect(&server, Some("fm_ann_0")).await.err(), Some(401));
    let other = server.ann.replace("fm_ann_", "fm_bob_");
    assert_eq!(Socket::try_connect(&server, Some(&other)).await.err(), Some(401));
    for (frame, code, closed) in [
        (json!({ "type": "sign_in", "token": other }), "unauthenticated", 4401),
        (json!({ "type": "sign_in", "token": "x" }), "unauthenticated", 4401),
        (json!({ "type": "sign_in" }), "invalid_argument", 4400),
        (json!({ "type": "sign_in", "token": "x".repeat(17_000) }), "too_large", 4400),
        (post(1, "x"), "unauthenticated", 4401),
        (json!({ "type": "ping" }), "unauthenticated", 4401),
        (json!([]), "unauthenticated", 4401),
    ] {
        let mut socket = Socket::connect(&server).await;
        socket.say(frame).await;
        socket.ends_with(code, closed).await;
    }
    let mut socket = Socket::connect(&server).await;
    socket.send(Message::binary(server.ann.clone().into_bytes())).await;
    socket.ends_with("invalid_argument", 4400).await;
    let header_read_timeout = Duration::from_millis(500);
    server.limits.set(GatewayLimits { header_read_timeout, ..Default::default() });
    Socket::connect(&server).await.ends_with("timeout", 4100).await;
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn what_is_no_upgrade_is_refused() {
    let server = Server::start().await;
    let upgrade = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (path, headers) in [
        ("/v1/ws", ""),
        ("/v1/ws", "connection: Upgrade\r\nupgrade: h2c\r\n"),
        ("/v1/ws", &upgrade.replace("13", "8")),
        ("/v1/ws", &upgrade.replace("sec-websocket-key", "key")),
        (&format!("/v1/ws?token={}", server.ann), upgrade),
    ] {
        let reply = server.send_raw("GET", path, headers, b"").await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "invalid_argument"), "{headers}");
        assert!(!String::from_utf8_lossy(&reply.body).contains(&server.ann));
    }
    let reply = server.send_raw("POST", "/v1/ws", upgrade, b"").await;
    assert_eq!(reply.code(), "method_not_allowed");
}

#[tokio::test]
async fn a_room_gives_history_then_a_mark_then_live_events() {
    let server = Server::start().await;
    server.post("one").await;
    let mut socket = Socket::open(&server, &server.bob).await;
    let rooms = json!([{ "room": "general", "after": 0 }]);
    socket.say(json!({ "type": "follow", "ref": "f", "rooms": rooms })).await;
    let followed = socket.frame().await;
    assert_eq!((&followed["type"], &followed["ref"]), (&json!("followed"), &json!("f")));
    assert_eq!((&followed["head"], &followed["recovered"]), (&json!(2), &json!(true)));
    assert_eq!(socket.catch_up().await, [1, 2]);
    server.post("two\nlines \"quoted\"").await;
    let event = socket.frame().await;
    assert_eq!((&event["type"], &event["room"]), (&json!("event"), &json!("general")));
    assert_eq!(event["event"]["text"], "two\nlines \"quoted\"");
    // It goes on from a cursor.
    let epoch = followed["epoch"].as_str().unwrap();
    socket.follow("general", json!(format!("{epoch}:1"))).await;
    assert_eq!(socket.catch_up().await, [2, 3]);
    socket.follow("general", json!("other:1")).await;
    assert_eq!(socket.frame().await["recovered"], false);
    assert_eq!(socket.catch_up().await, [1, 2, 3]);
    socket.say(json!({ "type": "unfollow", "ref": 9, "rooms": ["general"] })).await;
    let ended = socket.frame().await;
    assert_eq!(ended, json!({ "type": "ended", "ref": 9, "room": "general", "seq": 3 }));
    server.post("unheard").await;
    socket.say(json!({ "type": "ping" })).await;
    assert_eq!(socket.frame().await, json!({ "type": "pong" }));
    socket.follow("general", json!(4)).await;
    assert_eq!(socket.catch_up().await, [0_u64; 0]);
    drop(socket);
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn posts_are_pipelined_in_order_up_to_a_limit() {
    let in_flight_max = 7;
    let limits =
        GatewayLimits { posts_in_flight_per_session_max: in_flight_max, ..Default::default() };
    let server = Server::with_limits(limits).await;
    server.fake.posts_allowed.forget_permits(usize::MAX);
    let mut socket = Socket::open(&server, &server.ann).await;
    for tag in 1..=500 {
        socket.stream.feed(Message::text(post(tag, &tag.to_string()).to_string())).await.unwrap();
    }
    socket.stream.flush().await.unwrap();
    let begun = || server.fake.posts_begun.load(Ordering::SeqCst);
    until(|| begun() == in_flight_max).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(begun(), in_flight_max);
    server.fake.posts_allowed.add_permits(500);
    for tag in 1..=500_u64 {
        let ack = socket.frame().await;
        assert_eq!((&ack["type"], &ack["ref"]), (&json!("ack"), &json!(tag)));
        assert_eq!(ack["seq"], tag + 1);
    }
}

#[tokio::test]
async fn what_was_posted_is_edited_and_reacted_to_and_repeated_once() {
    let server = Server::start().await;
    let mut socket = Socket::open(&server, &server.ann).await;
    let id = crate::id::RequestId::mint(super::server::NOW_MS, [7; 10]).to_string();
    let mut message = post(1, "hello");
    message["client_msg_id"] = json!(id);
    for duplicate in [false, true] {
        socket.say(message.clone()).await;
        let ack = socket.frame().await;
        assert_eq!((&ack["seq"], &ack["duplicate"]), (&json!(2), &json!(duplicate)), "{ack}");
        assert_eq!((&ack["client_msg_id"], &ack["ref"]), (&json!(id), &json!(1)));
    }
    for (frame, seq) in [
        (json!({ "type": "edit", "room": "general", "target": 2, "text": "hello!" }), 3),
        (json!({ "type": "react", "room": "general", "target": 2, "symbol": "+1" }), 4),
        (json!({ "type": "redact", "room": "general", "target": 2 }), 5),
    ] {
        socket.say(frame).await;
        let ack = socket.frame().await;
        assert_eq!((&ack["type"], &ack["seq"]), (&json!("ack"), &json!(seq)), "{ack}");
    }
}

#[tokio::test]
async fn refused_frames_do_not_end_the_connection() {
    let server = Server::start().await;
    let mut socket = Socket::open(&server, &server.bob).await;
    let room = |room: &str, after: Value| json!([{ "room": room, "after": after }]);
    for (frame, code) in [
        (post(0, "x"), "not_participant"),
        (post(0, ""), "invalid_argument"),
        (post(0, &"x".repeat(70_000)), "too_large"),
        (json!({ "type": "follow", "rooms": room("A", json!(0)) }), "invalid_argument"),
        (json!({ "type": "follow", "rooms": room("nowhere", json!(0)) }), "room_not_found"),
        (json!({ "type": "follow", "rooms": room("general", json!(99)) }), "invalid_cursor"),
        (json!({ "type": "follow", "rooms": room("general", json!("::")) }), "invalid_cursor"),
        (json!({ "type": "unfollow", "rooms": ["general"] }), "invalid_argument"),
        (json!({ "type": "knock" }), "invalid_argument"),
        (json!({ "no": "type" }), "invalid_argument"),
    ] {
        let mut frame = frame;
        frame["ref"] = json!("r");
        socket.say(frame.clone()).await;
        let error = socket.frame().await;
        assert_eq!((&error["type"], &error["ref"]), (&json!("error"), &json!("r")), "{frame}");
        assert_eq!(error["error"]["code"], code, "{frame}");
        assert!(error["error"]["temporary"].is_boolean() && error["error"]["message"].is_string());
    }
    socket.say(json!({ "type": "ping", "ref": 7 })).await;
    assert_eq!(socket.frame().await, json!({ "type": "pong", "ref": 7 }));
}

#[tokio::test]
async fn what_is_no_frame_ends_the_connection() {
    let server = Server::start().await;
    let long = post(1, &"x".repeat(FRAME_BYTES_MAX)).to_string();
    for (message, code) in [
        (Message::text("hello?"), "invalid_argument"),
        (Message::text("[".repeat(1000)), "invalid_argument"),
        (Message::binary(post(1, "x").to_string().into_bytes()), "invalid_argument"),
        (Message::text(long), "too_large"),
    ] {
        let mut socket = Socket::open(&server, &server.ann).await;
        let _ = socket.stream.send(message).await; // it may be closed before all of it is sent
        socket.ends_with(code, 4400).await;
    }
    // What was asked before is done.
    let mut socket = Socket::open(&server, &server.ann).await;
    socket.stream.feed(Message::text(post(1, "kept").to_string())).await.unwrap();
    socket.stream.feed(Message::Close(None)).await.unwrap();
    socket.stream.flush().await.unwrap();
    until(|| server.fake.posts_begun.load(Ordering::SeqCst) == 1).await;
    soon(async {
        loop {
            let path = "/v1/rooms/general/events?limit=1";
            if server.get(&server.ann, path).await.json()["events"][0]["text"] == "kept" {
                return;
            }
        }
    })
    .await;
}

/// A connection that has signed in, and the bytes of RFC 6455 by hand.
pub(super) async fn raw(server: &Server) -> TcpStream {
    let mut stream = server.connect().await;
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         authorization: Bearer {}\r\n\r\n",
        server.ann
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let text = read_until(&mut stream, |text| text.contains("\"hello\"")).await;
    assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
    stream
}

/// A frame as a client sends it, with a mask of zeros.
pub(super) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test]
async fn frames_arrive_however_they_are_cut() {
    let server = Server::start().await;
    let mut stream = raw(&server).await;
    let text = br#"{"type":"ping","ref":"cut"}"#;
    for byte in client_frame(0x81, text) {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
    }
    read_until(&mut stream, |text| text.contains("\"cut\"")).await;
    let text = br#"{"type":"ping","ref":"in two"}"#;
    let parts = [
        client_frame(0x01, &text[..5]),
        client_frame(0x89, b"between"),
        client_frame(0x80, &text[5..]),
    ];
    stream.write_all(&parts.concat()).await.unwrap();
    read_until(&mut stream, |text| text.contains("between") && text.contains("in two")).await;
}

#[tokio::test]
async fn what_breaks_the_websocket_protocol_ends_the_connection() {
    let server = Server::start().await;
    for bytes in [
        client_frame(0x81, b"\xff\xfe"),                         // not UTF-8
        client_frame(0x80, b"{}"),                               // goes on from nothing
        client_frame(0xc1, b"{}"),                               // a reserved bit
        client_frame(0x83, b"{}"),                               // an unknown opcode
        vec![0x81, 0x02, b'{', b'}'],                            // no mask
        client_frame(0x89, &[0; 126]),                           // a ping that is too long
        vec![0x81, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // 2^63 bytes
    ] {
        let mut stream = raw(&server).await;
        stream.write_all(&bytes).await.unwrap();
        let mut rest = Vec::new();
        let _ = soon(stream.read_to_end(&mut rest)).await;
        let closed =
            rest.windows(4).any(|four| four[0] == 0x88 && four[2..] == 4400_u16.to_be_bytes());
        assert!(closed, "{bytes:?}: {}", String::from_utf8_lossy(&rest));
    }
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 0).await;
}
