//! REST, when everything is as it should be.

use super::server::Server;
use crate::gateway::http::ROUTES;
use crate::gateway::scope::OPEN;
use crate::id::RequestId;

#[tokio::test]
async fn users_are_created_listed_and_given_tokens() {
    let server = Server::start().await;
    let body = r#"{"user":"cy_d","display_name":"Cy"}"#;
    let created = server.send(&server.root, "POST", "/v1/users", body).await;
    assert_eq!(created.status, 201);
    let user = created.json();
    assert_eq!((&user["user"], &user["display_name"]), (&"cy_d".into(), &"Cy".into()));
    let token = user["token"].as_str().unwrap();
    let me = server.get(token, "/v1/users/cy_d").await;
    assert_eq!(me.status, 200);
    assert!(me.json().get("token").is_none());

    let again = server.send(&server.root, "POST", "/v1/users", body).await;
    assert_eq!(again.status, 200);
    let second = again.json()["token"].as_str().unwrap().to_owned();
    let issued = server.send(token, "POST", "/v1/users/cy_d/tokens", "").await;
    assert_eq!(issued.status, 201);
    let third = issued.json()["token"].as_str().unwrap().to_owned();
    for token in [second, third] {
        assert_eq!(server.get(&token, "/v1/rooms").await.status, 200);
    }

    let page = server.get(token, "/v1/users?limit=2&after=ann").await.json();
    assert_eq!(page["users"][0]["user"], "bob");
    assert_eq!(page["next"], "cy_d");
    let last = server.get(token, "/v1/users?after=cy_d").await.json();
    assert!(last["next"].is_null());
}

#[tokio::test]
async fn a_room_is_created_once() {
    let server = Server::start().await;
    let body = r#"{"room":"tea","title":"Tea","kind":"private"}"#;
    assert_eq!(server.send(&server.ann, "POST", "/v1/rooms", body).await.status, 201);
    let again = server.send(&server.ann, "POST", "/v1/rooms", body).await;
    assert_eq!(again.status, 200);
    let other = r#"{"room":"tea","title":"Coffee"}"#;
    let other = server.send(&server.ann, "POST", "/v1/rooms", other).await;
    assert_eq!((other.status, other.code().as_str()), (409, "already_exists"));

    let room = server.get(&server.ann, "/v1/rooms/tea").await.json();
    assert_eq!(room["kind"], "private");
    assert_eq!(room["head"], 1);
    assert_eq!(room["chain"].as_str().unwrap().len(), 64);
    assert_eq!(room["participants"][0]["role"], "owner");
    let rooms = server.get(&server.ann, "/v1/rooms?limit=1").await.json();
    assert_eq!(rooms["rooms"][0]["room"], "general");
    assert_eq!(rooms["next"], "general");
}

#[tokio::test]
async fn a_post_is_acknowledged_once_and_read_back() {
    let server = Server::start().await;
    let id = RequestId::mint(super::server::NOW_MS, [3; 10]).to_string();
    let body = format!(r#"{{"client_msg_id":"{id}","text":"héllo\n","kind":"action"}}"#);
    let path = "/v1/rooms/general/messages";
    let ack = server.send(&server.ann, "POST", path, &body).await.json();
    assert_eq!((&ack["seq"], &ack["duplicate"]), (&2.into(), &false.into()));
    assert_eq!(ack["client_msg_id"], id.as_str());
    assert!(ack["at"].as_str().unwrap().starts_with("1970-01-01T00:00:00."));
    let repeat = server.send(&server.ann, "POST", path, &body).await.json();
    assert_eq!((&repeat["seq"], &repeat["duplicate"]), (&2.into(), &true.into()));
    let other = format!(r#"{{"client_msg_id":"{id}","text":"else"}}"#);
    let other = server.send(&server.ann, "POST", path, &other).await;
    assert_eq!((other.status, other.code().as_str()), (409, "id_reused"));

    let epoch = ack["epoch"].as_str().unwrap();
    for after in ["1".to_owned(), format!("{epoch}:1")] {
        let path = format!("/v1/rooms/general/events?after={after}&consistency=local");
        let page = server.get(&server.bob, &path).await.json();
        assert_eq!((&page["head"], &page["recovered"]), (&2.into(), &true.into()));
        let event = &page["events"][0];
        assert_eq!((&event["text"], &event["kind"]), (&"héllo\n".into(), &"action".into()));
        assert_eq!(event["client_msg_id"], id.as_str());
        assert!(event.get("role").is_none() && event.get("redacted").is_none());
    }
}

#[tokio::test]
async fn pages_show_what_became_of_messages() {
    let server = Server::start().await;
    let seq = server.post("first").await;
    let secret = server.post("secret").await;
    let message = format!("/v1/rooms/general/messages/{seq}");
    let edit = server.send(&server.ann, "PATCH", &message, r#"{"text":"second"}"#).await;
    assert_eq!(edit.status, 200);
    let react = format!("{message}/reactions/%F0%9F%91%8D");
    assert_eq!(server.send(&server.ann, "PUT", &react, "").await.status, 200);
    let redact = format!("/v1/rooms/general/messages/{secret}");
    assert_eq!(server.send(&server.ann, "DELETE", &redact, "").await.status, 200);
    let role = r#"{"role":"banned"}"#;
    let ban = "/v1/rooms/general/participants/bob";
    assert_eq!(server.send(&server.ann, "PUT", ban, role).await.status, 200);

    let page = server.get(&server.ann, "/v1/rooms/general/events?after=1&limit=2").await.json();
    let (edited, redacted) = (&page["events"][0], &page["events"][1]);
    assert_eq!(edited["text"], "second");
    assert_eq!(edited["edits"][0]["text"], "second");
    assert_eq!(edited["reactions"][0]["symbol"], "👍");
    assert_eq!((&redacted["text"], &redacted["redacted"]), (&"".into(), &true.into()));
    let page = server.get(&server.ann, "/v1/rooms/general/events?before=4&limit=2").await;
    let seqs: Vec<_> =
        page.json()["events"].as_array().unwrap().iter().map(|e| e["seq"].clone()).collect();
    assert_eq!(seqs, [2, 3]);
}

#[tokio::test]
async fn a_gap_is_told() {
    let server = Server::start().await;
    for text in ["a", "b", "c"] {
        server.post(text).await;
    }
    server.fake.trim("general", 3);
    for after in ["1".to_owned(), format!("{}:4", super::fake::other_epoch())] {
        let path = format!("/v1/rooms/general/events?after={after}&wait=10s");
        let page = server.get(&server.ann, &path).await.json();
        assert_eq!((&page["recovered"], &page["first_seq"]), (&false.into(), &3.into()));
        assert_eq!(page["events"][0]["seq"], 3);
    }
}

#[tokio::test]
async fn the_cluster_is_initialised_once_without_a_token() {
    let server = Server::start().await;
    let json = "content-type: application/json\r\n";
    let init = |body| server.send_raw("POST", "/v1/cluster/init", json, body);
    assert_eq!(init(br#"{"nodes":2}"#).await.code(), "invalid_argument");
    assert_eq!(init(br#"{"nodes":3,"shards":257}"#).await.code(), "invalid_argument");
    let formed = init(br#"{"nodes":3}"#).await;
    assert_eq!(formed.status, 200);
    let token = formed.json()["admin_token"].as_str().unwrap().to_owned();
    let compacted = server.send(&token, "POST", "/v1/node/compact", "").await;
    assert_eq!(compacted.json()["bytes_after"], 40);
    let again = init(br#"{"nodes":3}"#).await;
    assert_eq!((again.status, again.code().as_str()), (409, "already_initialized"));
    let status = server.send_raw("GET", "/v1/cluster", "", b"").await;
    assert_eq!(status.json()["cluster_id"], "c1");
}

/// Who has chosen the token may ask again, and is answered as before; nobody else is.
#[tokio::test]
async fn whoever_has_chosen_the_first_token_may_initialise_again() {
    let server = Server::start().await;
    let json = "content-type: application/json\r\n";
    let init = async |token: &str| {
        let body = format!(r#"{{"nodes":3,"shards":2,"admin_token":"{token}"}}"#);
        server.send_raw("POST", "/v1/cluster/init", json, body.as_bytes()).await
    };
    let token = |user: &str, digit: &str| format!("fm_{user}_{}", digit.repeat(64));
    for bad in ["", "admin", "fm_admin_00", &token("alice", "0"), &token("admin", "x")] {
        let refused = init(bad).await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_argument"), "{bad}");
    }
    let ours = token("admin", "a");
    let formed = init(&ours).await;
    assert_eq!((formed.status, formed.json()["admin_token"].as_str()), (200, Some(ours.as_str())));
    let compacted = server.send(&ours, "POST", "/v1/node/compact", "").await;
    assert_eq!(compacted.json()["bytes_after"], 40);
    assert_eq!(init(&ours).await.json(), formed.json());
    assert_eq!(init(&token("admin", "b")).await.code(), "already_initialized");
    for other in
        [r#"{"nodes":3,"shards":2}"#.to_owned(), format!(r#"{{"nodes":3,"admin_token":"{ours}"}}"#)]
    {
        let refused = server.send_raw("POST", "/v1/cluster/init", json, other.as_bytes()).await;
        assert_eq!(refused.code(), "already_initialized", "{other}");
    }
}

#[tokio::test]
async fn health_and_metrics_need_no_token() {
    let server = Server::start().await;
    server.post("counted").await;
    let open = |path| server.send_raw("GET", path, "", b"");
    assert_eq!(open("/health/live").await.status, 200);
    assert_eq!(open("/health/ready").await.status, 200);
    server.fake.ready.store(false, std::sync::atomic::Ordering::SeqCst);
    let ready = open("/health/ready").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["reason"], "shard 3 has no leader");
    assert_eq!(open("/v1/openapi.json").await.json()["openapi"], "3.1.0");
    let metrics = String::from_utf8(open("/metrics").await.body).unwrap();
    for name in [
        "folkmoot_posts_total ",
        "folkmoot_post_duration_seconds_bucket",
        "folkmoot_connections ",
        "folkmoot_rejections_total{code=\"unauthenticated\"}",
        "folkmoot_http_requests_total{route=\"/v1/rooms/{room}/messages\",status=\"200\"}",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
}

#[tokio::test]
async fn every_route_answers() {
    let server = Server::start().await;
    for (method, path) in ROUTES {
        let path = path.replace("{room}", "general").replace("{user}", "ann");
        let path = path.replace("{seq}", "1").replace("{symbol}", "x");
        let reply = server.send("", &method.to_uppercase(), &path, "").await;
        if path.contains("{provider}") {
            // There is no provider here; what has a body is read first.
            assert!(["not_found", "unsupported_media_type"].contains(&&*reply.code()), "{reply:?}");
            continue;
        }
        assert!(![404, 405, 500].contains(&reply.status), "{method} {path}: {reply:?}");
    }
}

#[tokio::test]
async fn whoever_is_signed_in_no_more_is_refused_by_every_route() {
    let server = Server::start().await;
    let disable = r#"{"disabled":true}"#;
    assert_eq!(server.send(&server.root, "PATCH", "/v1/users/ann", disable).await.status, 200);
    server.revoke("bob");
    // Not a WebSocket, which asks for its upgrade first: see `websockets.rs`, `websocket_ends.rs`.
    let closed = ROUTES.iter().filter(|(_, path)| !OPEN.contains(path) && *path != "/v1/ws");
    for (method, path) in closed {
        let path = path.replace("{room}", "general").replace("{user}", "ann");
        let path = path.replace("{seq}", "1").replace("{symbol}", "x").replace("{id}", "1");
        for token in [&server.ann, &server.bob] {
            let reply = server.send(token, &method.to_uppercase(), &path, "").await;
            assert_eq!(reply.status, 401, "{method} {path}: {reply:?}");
        }
    }
}
