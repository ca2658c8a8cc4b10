//! Floods: refused with when to come back, on every interface, without harm to anybody else.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use super::server::Server;
use super::websockets::Socket;
use crate::gateway::limits::{AccountLimits, GatewayLimits};
use crate::gateway::rates::RateLimits;

/// How many of so many reads are answered, and what the others are told.
async fn good_of(server: &Server, token: &str, count: usize) -> usize {
    let mut good = 0;
    for _ in 0..count {
        let reply = server.send(token, "GET", "/v1/rooms/general", "").await;
        match reply.status {
            200 => good += 1,
            429 => {
                assert_eq!(reply.code(), "rate_limited");
                let error = &reply.json()["error"];
                assert_eq!(
                    (&error["temporary"], &error["may_have_applied"]),
                    (&json!(true), &json!(false))
                );
                assert!(
                    error["retry_after_ms"].as_u64().is_some_and(|ms| (1..=1001).contains(&ms))
                );
            }
            other => panic!("{other}"),
        }
    }
    good
}

async fn with(rates: RateLimits, behind_proxy: bool) -> Server {
    let accounts = AccountLimits { behind_proxy, ..AccountLimits::default() };
    let server = Server::start().await;
    server.limits.set(GatewayLimits { rates, accounts, ..GatewayLimits::default() });
    server
}

#[tokio::test]
async fn a_user_that_floods_is_refused_and_others_are_not() {
    let server = with(RateLimits { user: 2, ..RateLimits::default() }, false).await;
    let good = good_of(&server, &server.ann, 40).await;
    assert!((10..=20).contains(&good), "{good}: ten at once, and two a second");
    assert_eq!(good_of(&server, &server.bob, 5).await, 5);
    assert_eq!(good_of(&server, &server.root, 40).await, 40, "administrators are not limited");
}

#[tokio::test]
async fn a_token_that_floods_leaves_the_user_their_others() {
    let server = with(RateLimits { token: 2, ..RateLimits::default() }, false).await;
    let issued = server.send(&server.ann, "POST", "/v1/users/ann/tokens", r#"{"label":"b"}"#).await;
    let other = issued.json()["token"].as_str().unwrap().to_owned();
    assert!(good_of(&server, &server.ann, 40).await <= 20);
    assert_eq!(good_of(&server, &other, 5).await, 5);
}

#[tokio::test]
async fn frames_of_a_session_count_and_the_session_goes_on() {
    let server = following_few().await;
    let mut socket = Socket::open(&server, &server.ann).await;
    for n in 0..40 {
        socket.say(json!({ "type": "post", "ref": n, "room": "general", "text": "x" })).await;
    }
    let (mut good, mut refused) = (0, 0);
    for _ in 0..40 {
        let frame = socket.frame().await;
        match frame["type"].as_str().unwrap() {
            "ack" => good += 1,
            _ => {
                assert_eq!(frame["error"]["code"], "rate_limited", "{frame}");
                refused += 1;
            }
        }
    }
    assert!((8..=20).contains(&good) && refused >= 20, "{good} {refused}");
    // To follow as many rooms as one may at first is no flood; to follow one again and again is.
    for _ in 0..20 {
        socket.say(json!({ "type": "follow", "rooms": [{ "room": "general" }] })).await;
    }
    let mut followed = 0;
    for _ in 0..40 {
        let frame = socket.frame().await;
        match frame["type"].as_str().unwrap() {
            "followed" => followed += 1,
            "error" => break,
            _ => {}
        }
    }
    assert!((1..10).contains(&followed), "{followed}");
}

/// Two requests a second for a user, and three rooms for a connection.
async fn following_few() -> Server {
    let rates = RateLimits { user: 2, ..RateLimits::default() };
    let server = with(rates, false).await;
    server.limits.set(GatewayLimits {
        rates,
        follows_per_session_max: 3,
        ..GatewayLimits::default()
    });
    server
}

#[tokio::test]
async fn to_follow_rooms_that_are_not_there_is_a_flood_as_well() {
    let server = following_few().await;
    let mut socket = Socket::open(&server, &server.bob).await;
    let mut looked_for = 0;
    for n in 0..40 {
        let rooms = json!([{ "room": format!("nowhere-{n}") }]);
        socket.say(json!({ "type": "follow", "rooms": rooms })).await;
        match socket.frame().await["error"]["code"].as_str() {
            Some("room_not_found") => looked_for += 1,
            code => assert_eq!(code, Some("rate_limited")),
        }
    }
    assert!((10..=25).contains(&looked_for), "{looked_for}: three, and as many as are no flood");
}

#[tokio::test]
async fn ten_thousand_follows_are_refused_and_the_connection_goes_on() {
    let server = with(RateLimits { token: 100, ..RateLimits::default() }, false).await;
    let mut socket = Socket::open(&server, &server.bob).await;
    let follow = |from: usize, count: usize| {
        let rooms = (from..from + count).map(|n| json!({ "room": format!("nowhere-{n}") }));
        json!({ "type": "follow", "rooms": rooms.collect::<Vec<_>>() })
    };
    // More than a frame may name, then ten thousand by as many as it may.
    socket.say(follow(0, 1001)).await;
    assert_eq!(socket.frame().await["error"]["code"], "limit_reached");
    let mut codes = BTreeMap::<String, usize>::new();
    for n in 0..10 {
        socket.say(follow(n * 1000, 1000)).await;
        for _ in 0..1000 {
            let frame = socket.frame().await;
            let code = frame["error"]["code"].as_str().expect("there is no such room");
            *codes.entry(code.into()).or_default() += 1;
        }
    }
    let missing = codes["room_not_found"];
    assert!((1000..3000).contains(&missing), "{codes:?}");
    assert_eq!(missing + codes["rate_limited"], 10_000, "{codes:?}");
    let begin = Instant::now();
    loop {
        socket.say(json!({ "type": "ping" })).await;
        let frame = socket.frame().await;
        if frame["type"] == "pong" {
            break;
        }
        assert_eq!(frame["error"]["code"], "rate_limited", "that has been used up for a moment");
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn an_address_that_floods_is_refused_whoever_it_says_to_be_and_probes_are_not() {
    let server = with(RateLimits { address: 2, ..RateLimits::default() }, true).await;
    let ask = async |address: &str, path: &str| {
        let from = format!("x-forwarded-for: {address}\r\n");
        server.send_raw("GET", path, &from, b"").await.status
    };
    let mut good = 0;
    for _ in 0..40 {
        match ask("203.0.113.1", "/v1/openapi.json").await {
            200 => good += 1,
            other => assert_eq!(other, 429),
        }
    }
    assert!((10..=20).contains(&good), "{good}");
    // Where this was held up, there are some to use up first.
    let mut refused = false;
    for _ in 0..40 {
        refused = refused || ask("203.0.113.1", "/v1/rooms").await == 429;
    }
    assert!(refused, "signed in or not");
    assert_eq!(ask("203.0.113.1", "/health/live").await, 200);
    assert_eq!(ask("203.0.113.2", "/v1/openapi.json").await, 200);
}

#[tokio::test]
async fn this_machine_is_not_held_to_the_limit_of_addresses() {
    let server = with(RateLimits { address: 1, ..RateLimits::default() }, false).await;
    assert_eq!(good_of(&server, &server.ann, 30).await, 30);
}
