//! WebSockets: their limits, and how they end.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::server::{Server, soon, until};
use super::websockets::{Heard, Socket, client_frame, post, raw};
use crate::error::{Code, Error};
use crate::gateway::limits::GatewayLimits;

#[tokio::test]
async fn a_room_beyond_the_limit_is_refused_until_another_is_unfollowed() {
    let limits = GatewayLimits { follows_per_session_max: 1, ..Default::default() };
    let server = Server::with_limits(limits).await;
    server.send(&server.ann, "POST", "/v1/rooms", r#"{"room":"tea","kind":"public"}"#).await;
    let mut socket = Socket::open(&server, &server.ann).await;
    socket.follow("general", json!(0)).await;
    assert_eq!(socket.catch_up().await, [1]);
    socket.follow("tea", json!(0)).await;
    let refused = socket.frame().await;
    assert_eq!(
        (&refused["room"], &refused["error"]["code"]),
        (&json!("tea"), &json!("limit_reached"))
    );
    socket.say(json!({ "type": "follow", "rooms": [{ "room": "tea" }, { "room": "x" }] })).await;
    assert_eq!(socket.frame().await["error"]["code"], "limit_reached");
    socket.say(json!({ "type": "unfollow", "rooms": ["general"] })).await;
    assert_eq!(socket.frame().await["type"], "ended");
    socket.follow("tea", json!(0)).await;
    assert_eq!(socket.catch_up().await, [1]);
}

#[tokio::test]
async fn a_room_that_is_followed_again_in_vain_is_followed_as_before() {
    let server = Server::start().await;
    let mut socket = Socket::open(&server, &server.ann).await;
    socket.follow("general", json!(0)).await;
    assert_eq!(socket.catch_up().await, [1]);
    socket.follow("general", json!(99)).await;
    assert_eq!(socket.frame().await["error"]["code"], "invalid_cursor");
    let seq = server.post("still there?").await;
    assert_eq!(socket.frame().await["event"]["seq"], json!(seq));
    // Where it is not in vain, there is one stream: the new one.
    socket.follow("general", json!(0)).await;
    assert_eq!(socket.catch_up().await, [1, seq]);
    let seq = server.post("once").await;
    assert_eq!(socket.frame().await["event"]["seq"], json!(seq));
    socket.say(json!({ "type": "unfollow", "rooms": ["general"] })).await;
    let ended = socket.frame().await;
    assert_eq!((&ended["type"], &ended["seq"]), (&json!("ended"), &json!(seq)));
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn many_rooms_are_followed_with_one_frame() {
    let server = Server::with_limits(GatewayLimits {
        posts_in_flight_per_session_max: 4,
        ..Default::default()
    });
    let server = server.await;
    let rooms: Vec<String> = (0..50).map(|i| format!("room-{i}")).collect();
    for room in &rooms {
        let body = json!({ "room": room, "kind": "public" }).to_string();
        server.send(&server.ann, "POST", "/v1/rooms", &body).await;
    }
    let mut socket = Socket::open(&server, &server.ann).await;
    let asked: Vec<Value> = rooms.iter().map(|room| json!({ "room": room, "after": 0 })).collect();
    socket.say(json!({ "type": "follow", "rooms": asked })).await;
    let (mut events, mut caught_up) = (0, 0);
    while caught_up < rooms.len() {
        match socket.frame().await["type"].as_str().unwrap() {
            "event" => events += 1,
            "caught_up" => caught_up += 1,
            other => assert_eq!(other, "followed"),
        }
    }
    assert_eq!(events, rooms.len());
    assert_eq!(server.fake.feeds.load(Ordering::SeqCst), 50);
}

#[tokio::test]
async fn websockets_are_connections_and_sessions_and_have_their_limits() {
    let limits = GatewayLimits { sessions_max: 1, connections_max: 3, ..Default::default() };
    let server = Server::with_limits(limits).await;
    let first = Socket::open(&server, &server.ann).await;
    assert_eq!(Socket::try_connect(&server, Some(&server.bob)).await.err(), Some(503));
    let mut second = Socket::connect(&server).await;
    second.say(json!({ "type": "sign_in", "token": server.bob })).await;
    second.ends_with("too_many_connections", 4101).await;
    drop(second);
    // They count for as long as they are open, though hyper has done its part.
    let third = Socket::connect(&server).await;
    let fourth = Socket::connect(&server).await;
    assert_eq!(Socket::try_connect(&server, None).await.err(), Some(503));
    drop((first, third, fourth));
    soon(async { while Socket::try_connect(&server, Some(&server.bob)).await.is_err() {} }).await;
}

#[tokio::test]
async fn a_drain_ends_rooms_then_the_connection_with_what_is_in_flight_acknowledged() {
    let server = Server::start().await;
    for shuts_down in [false, true] {
        let mut stranger = Socket::connect(&server).await;
        let mut socket = Socket::open(&server, &server.ann).await;
        socket.follow("general", Value::Null).await;
        socket.catch_up().await;
        let begun = server.fake.posts_begun.load(Ordering::SeqCst);
        server.fake.posts_allowed.forget_permits(usize::MAX);
        socket.say(post(2, "last")).await;
        until(|| server.fake.posts_begun.load(Ordering::SeqCst) > begun).await;
        if shuts_down {
            server.shutdown.cancel()
        } else {
            server.drain.begin()
        }
        let ended = socket.frame().await;
        assert_eq!((&ended["type"], &ended["room"]), (&json!("ended"), &json!("general")));
        assert_eq!(ended["error"]["code"], "shutting_down");
        server.fake.posts_allowed.add_permits(1);
        let ack = socket.frame().await;
        assert_eq!((&ack["type"], &ack["ref"]), (&json!("ack"), &json!(2)));
        socket.ends_with("shutting_down", 4000).await;
        stranger.ends_with("shutting_down", 4000).await;
        assert_eq!(Socket::try_connect(&server, Some(&server.ann)).await.err(), Some(503));
        server.drain.end();
    }
    soon(server.serving).await.unwrap();
}

fn with_keep_alive(ms: u64) -> GatewayLimits {
    GatewayLimits { keep_alive: Duration::from_millis(ms), ..Default::default() }
}

#[tokio::test]
async fn a_client_that_answers_pings_stays_and_one_that_does_not_is_closed() {
    let server = Server::with_limits(with_keep_alive(500)).await;
    let mut there = Socket::open(&server, &server.ann).await;
    let mut gone = raw(&server).await;
    let begin = Instant::now();
    let mut rest = Vec::new();
    let ends = async { gone.read_to_end(&mut rest).await.unwrap() };
    let hears = async {
        while begin.elapsed() < Duration::from_secs(3) {
            // The library answers pings while it reads.
            let _ = tokio::time::timeout(Duration::from_millis(20), there.stream.next()).await;
        }
    };
    soon(async { tokio::join!(ends, hears) }).await;
    // A ping, then the close: two bytes each of header, and 4002.
    assert_eq!(rest[..2], [0x89, 0]);
    assert_eq!((rest[2], &rest[4..6]), (0x88, &4002_u16.to_be_bytes()[..]));
    there.say(json!({ "type": "ping" })).await;
    assert_eq!(there.frame().await["type"], "pong");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_closed_and_resumes_where_it_was() {
    let server = Server::with_limits(with_keep_alive(300)).await;
    let text = "x".repeat(60_000);
    let mut slow = Socket::open(&server, &server.bob).await;
    slow.follow("general", json!(0)).await;
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 1).await;
    for _ in 0..200 {
        soon(server.post(&text)).await; // more than sockets hold
    }
    until(|| server.fake.feeds.load(Ordering::SeqCst) == 0).await;
    let mut seqs = Vec::new();
    let end = loop {
        match slow.hear().await {
            Heard::Frame(frame) if frame["type"] == "event" => {
                seqs.push(frame["event"]["seq"].as_u64().unwrap());
            }
            Heard::Frame(frame) => assert_ne!(frame["type"], "ended", "{frame}"),
            end => break end,
        }
    };
    let last = *seqs.last().unwrap();
    assert_eq!(seqs, (1..=last).collect::<Vec<_>>());
    assert!(last < 201 && matches!(end, Heard::Lost | Heard::Closed(4001, _)), "{end:?}");
    let mut again = Socket::open(&server, &server.bob).await;
    again.follow("general", json!(last)).await;
    assert_eq!(again.catch_up().await, (last + 1..=201).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_and_misses_nothing() {
    let server = Server::with_limits(with_keep_alive(2000)).await;
    let mut slow = Socket::open(&server, &server.bob).await;
    slow.follow("general", json!(0)).await;
    let text = "x".repeat(60_000);
    let posting = async {
        for _ in 0..150 {
            soon(server.post(&text)).await;
        }
    };
    // It never stops reading, as who takes nothing for so long is ended; all of it takes longer than that.
    let mut seqs = Vec::new();
    let reading = async {
        while seqs.last() != Some(&151) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let frame = slow.frame().await;
            seqs.extend(frame["event"]["seq"].as_u64());
        }
    };
    tokio::join!(posting, reading);
    assert_eq!(seqs, (1..=151).collect::<Vec<_>>());
}

#[tokio::test]
async fn pings_that_are_not_read_are_not_answered_for_ever() {
    let server = Server::with_limits(with_keep_alive(200)).await;
    let mut stream = raw(&server).await;
    let pings = client_frame(0x89, &[b'p'; 125]).repeat(1000);
    let flood = async {
        let mut sent = 0;
        while stream.write_all(&pings).await.is_ok() {
            sent += pings.len();
            assert!(sent < 500_000_000, "it is read without end");
        }
    };
    soon(flood).await; // closed, as it takes nothing
}

#[tokio::test]
async fn a_revoked_token_ends_even_an_idle_connection() {
    let server = Server::with_limits(with_keep_alive(200)).await;
    let mut socket = Socket::open(&server, &server.bob).await;
    socket.follow("general", Value::Null).await;
    socket.catch_up().await;
    server.revoke("bob");
    socket.ends_with("unauthenticated", 4401).await;
}

#[tokio::test]
async fn a_ban_ends_the_room_and_not_the_connection() {
    let server = Server::start().await;
    let mut socket = Socket::open(&server, &server.bob).await;
    socket.follow("general", Value::Null).await;
    socket.catch_up().await;
    let path = "/v1/rooms/general/participants/bob";
    server.send(&server.ann, "PUT", path, r#"{"role":"banned"}"#).await;
    assert_eq!(socket.frame().await["event"]["role"], "banned");
    let ended = socket.frame().await;
    assert_eq!((&ended["type"], &ended["seq"]), (&json!("ended"), &json!(2)));
    assert_eq!(ended["error"]["code"], "banned");
    socket.follow("general", json!(0)).await;
    assert_eq!(socket.frame().await["error"]["code"], "banned");
    socket.say(json!({ "type": "ping" })).await;
    assert_eq!(socket.frame().await["type"], "pong");
}

#[tokio::test]
async fn a_room_goes_on_elsewhere_when_its_replica_is_lost() {
    let server = Server::start().await;
    let mut socket = Socket::open(&server, &server.bob).await;
    socket.follow("general", json!(0)).await;
    assert_eq!(socket.catch_up().await, [1]);
    let lost = Error::new(Code::Unavailable, "the replica is lost");
    for seq in 2..5 {
        server.fake.feeds_end.send_replace(Some(lost.clone()));
        server.post("one more").await;
        assert_eq!(socket.frame().await["event"]["seq"], seq);
    }
}
