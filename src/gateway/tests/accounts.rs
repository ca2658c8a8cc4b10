//! Signing in and out, as clients see it: passwords, sessions, cookies, scopes, invites.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::server::{Reply, Server, read_until, soon};
use super::streams::stream;
use crate::gateway::http::ROUTES;
use crate::gateway::limits::{AccountLimits, GatewayLimits, Registration};

pub(super) const PASSWORD: &str = "correct horse";

/// Gives a user, whose token this is, a password.
pub(super) async fn set_password(server: &Server, token: &str, user: &str) {
    let path = format!("/v1/users/{user}/password");
    let body = json!({ "password": PASSWORD }).to_string();
    assert_eq!(server.send(token, "PUT", &path, &body).await.status, 200);
}

async fn open_to(registration: Registration) -> Server {
    let accounts = AccountLimits { registration, ..AccountLimits::default() };
    Server::with_limits(GatewayLimits { accounts, ..GatewayLimits::default() }).await
}

impl Server {
    /// A request with a JSON body and these headers, without a token.
    pub(super) async fn post_with(&self, path: &str, headers: &str, body: Value) -> Reply {
        let headers = format!("content-type: application/json\r\n{headers}");
        self.send_raw("POST", path, &headers, body.to_string().as_bytes()).await
    }

    async fn login(&self, user: &str, password: &str) -> Reply {
        self.post_with("/v1/login", "", json!({ "user": user, "password": password })).await
    }

    /// A session's token.
    pub(super) async fn session(&self, user: &str) -> String {
        let reply = self.login(user, PASSWORD).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["token"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_password_begins_a_session_which_works_as_any_token() {
    let server = Server::start().await;
    set_password(&server, &server.ann, "ann").await;
    let begun = server.login("ann", PASSWORD).await;
    assert_eq!((begun.status, &begun.json()["user"]), (200, &"ann".into()));
    assert!(begun.json()["expires_at"].is_string());
    assert!(begun.head.contains("cache-control: no-store") && !begun.head.contains("set-cookie"));
    let token = begun.json()["token"].as_str().unwrap().to_owned();
    let me = server.get(&token, "/v1/me").await.json();
    assert_eq!(me["scopes"], json!(["read", "post", "rooms", "account", "admin"]));
    assert!(me["expires_at"].is_string());
    let post = server.send(&token, "POST", "/v1/rooms/general/messages", r#"{"text":"hi"}"#).await;
    assert_eq!(post.status, 200);
    assert_eq!(server.send(&token, "POST", "/v1/logout", "").await.status, 204);
    let gone = server.get(&token, "/v1/me").await;
    assert_eq!((gone.status, gone.code().as_str()), (401, "unauthenticated"));
    let kept = server.send(&server.ann, "POST", "/v1/logout", "").await;
    assert_eq!(kept.code(), "invalid_argument", "a token is no session");
}

#[tokio::test]
async fn who_does_not_know_the_password_is_not_told_why() {
    let server = Server::start().await;
    set_password(&server, &server.ann, "ann").await;
    let wrong = server.login("ann", "incorrect horse").await;
    let unknown = server.login("nobody", PASSWORD).await;
    let without = server.login("bob", PASSWORD).await;
    server.send(&server.root, "PATCH", "/v1/users/ann", r#"{"disabled":true}"#).await;
    let disabled = server.login("ann", PASSWORD).await;
    for refused in [&unknown, &without, &disabled] {
        assert_eq!(refused.status, 401);
        assert_eq!(refused.json(), wrong.json());
    }
    for body in [
        json!({ "user": "ann" }),
        json!({ "user": "Ann", "password": PASSWORD }),
        json!({ "user": "ann", "password": 7 }),
        json!({ "user": "ann", "password": PASSWORD, "more": 1 }),
    ] {
        let bad = server.post_with("/v1/login", "", body).await;
        assert_eq!((bad.status, bad.code().as_str()), (400, "invalid_argument"));
    }
    let huge = "x".repeat(100_000);
    assert_eq!(server.login("ann", &huge).await.status, 401);
}

#[tokio::test]
async fn somebody_unknown_takes_as_long_as_a_wrong_password() {
    let server = Server::start().await;
    set_password(&server, &server.ann, "ann").await;
    let alike = |[known, unknown]: [Duration; 2]| unknown > known / 2 && known > unknown / 2;
    let (mut best, mut rounds) = ([Duration::MAX; 2], 0);
    while rounds < 4 || (rounds < 10 && !alike(best)) {
        rounds += 1; // nobody is refused before the eleventh
        for (best, user) in best.iter_mut().zip(["ann", "nobody"]) {
            let begin = Instant::now();
            assert_eq!(server.login(user, "incorrect horse").await.status, 401);
            *best = begin.elapsed().min(*best);
        }
    }
    assert!(alike(best), "{best:?}");
}

#[tokio::test]
async fn passwords_are_tried_only_so_often() {
    let server = Server::start().await;
    set_password(&server, &server.ann, "ann").await;
    let mut tries = 0;
    let refused = loop {
        let reply = server.login("ann", "incorrect horse").await;
        if reply.status != 401 {
            break reply;
        }
        tries += 1;
        assert!(tries < 30);
    };
    assert!(tries >= 10, "{tries}");
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"));
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    assert_eq!(server.login("ann", PASSWORD).await.status, 429, "the right one, too");
    set_password(&server, &server.bob, "bob").await;
    assert_eq!(server.login("bob", PASSWORD).await.status, 200, "another user");
}

#[tokio::test]
async fn a_browser_gets_a_cookie_that_only_its_own_pages_can_use() {
    let server = Server::start().await;
    set_password(&server, &server.ann, "ann").await;
    let body = json!({ "user": "ann", "password": PASSWORD, "cookie": true });
    let foreign = server.post_with("/v1/login", "origin: http://evil\r\n", body.clone()).await;
    assert_eq!(foreign.code(), "forbidden");
    let begun = server.post_with("/v1/login", "origin: http://x\r\n", body.clone()).await;
    assert_eq!(begun.status, 200);
    assert!(begun.json().get("token").is_none(), "scripts do not see it");
    let set = begun.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(set.ends_with("; HttpOnly; SameSite=Strict"), "{set}");
    let cookie = format!("cookie: {}\r\n", set.split(';').next().unwrap());

    let send = async |method: &str, path: &str, headers: &str, body: &str| {
        let headers = format!("{cookie}content-type: application/json\r\n{headers}");
        server.send_raw(method, path, &headers, body.as_bytes()).await.status
    };
    let room = "/v1/rooms/general/messages";
    let text = r#"{"text":"hi"}"#;
    assert_eq!(send("GET", "/v1/me", "", "").await, 200);
    assert_eq!(send("GET", "/v1/me", "sec-fetch-site: cross-site\r\n", "").await, 403);
    assert_eq!(send("POST", room, "", text).await, 403, "who says where it comes from?");
    assert_eq!(send("POST", room, "origin: http://evil\r\n", text).await, 403);
    assert_eq!(send("POST", room, "sec-fetch-site: same-site\r\n", text).await, 403);
    assert_eq!(send("POST", room, "origin: http://x\r\n", text).await, 200);
    assert_eq!(send("POST", room, "sec-fetch-site: same-origin\r\n", text).await, 200);
    let events = "/v1/rooms/general/events";
    let sse = "accept: text/event-stream\r\norigin: http://evil\r\n";
    assert_eq!(send("GET", events, sse, "").await, 403);
    // A token wins over a cookie, and needs no origin.
    let headers = format!("{cookie}authorization: Bearer {}\r\n", server.bob);
    let me = server.send_raw("GET", "/v1/me", &headers, b"").await.json();
    assert_eq!(me["user"], "bob");

    let headers = format!("{cookie}origin: http://x\r\n");
    let out = server.send_raw("POST", "/v1/logout", &headers, b"").await;
    assert_eq!(out.status, 204);
    assert!(out.head.contains("Max-Age=0"), "{}", out.head);
    assert_eq!(send("GET", "/v1/me", "", "").await, 401);
}

#[tokio::test]
async fn behind_a_proxy_the_cookie_is_secure_and_the_address_the_clients() {
    let server = Server::start().await;
    set_password(&server, &server.ann, "ann").await;
    let body = json!({ "user": "ann", "password": PASSWORD, "cookie": true });
    let headers = "sec-fetch-site: same-origin\r\nx-forwarded-proto: https\r\n\
                   x-forwarded-for: 203.0.113.9, 192.0.2.7\r\nuser-agent: a\u{e4} browser\r\n";
    for behind_proxy in [false, true] {
        let accounts = AccountLimits { behind_proxy, ..AccountLimits::default() };
        server.limits.set(GatewayLimits { accounts, ..GatewayLimits::default() });
        let begun = server.post_with("/v1/login", headers, body.clone()).await;
        assert_eq!(begun.head.contains("; Secure"), behind_proxy);
    }
    let token = server.session("ann").await;
    let sessions = server.get(&token, "/v1/sessions").await.json();
    let from = |n: usize| sessions["sessions"][n]["address"].as_str().unwrap().to_owned();
    assert_eq!([from(0), from(1)], ["127.0.0.1", "192.0.2.7"]);
    assert_eq!(sessions["sessions"][2]["current"], true);
}

#[tokio::test]
async fn sessions_are_listed_and_ended() {
    let server = Server::start().await;
    set_password(&server, &server.ann, "ann").await;
    let mut tokens = Vec::new();
    for _ in 0..3 {
        tokens.push(server.session("ann").await);
    }
    let list = server.get(&tokens[0], "/v1/sessions").await.json();
    let id = |n: usize| list["sessions"][n]["id"].as_str().unwrap().to_owned();
    assert_eq!(list["sessions"][0]["current"], true);
    assert!(!list.to_string().contains(&tokens[1][tokens[1].len() - 64..]));
    let path = format!("/v1/sessions/{}", id(1));
    assert_eq!(server.send(&server.bob, "DELETE", &path, "").await.code(), "not_found");
    assert_eq!(server.send(&tokens[0], "DELETE", &path, "").await.status, 204);
    assert_eq!(server.get(&tokens[1], "/v1/me").await.status, 401);
    assert_eq!(server.get(&tokens[2], "/v1/me").await.status, 200);
    assert_eq!(server.send(&tokens[0], "DELETE", "/v1/sessions", "").await.status, 204);
    assert_eq!(server.get(&tokens[2], "/v1/me").await.status, 401);
    assert_eq!(server.get(&tokens[0], "/v1/me").await.status, 200);
    assert_eq!(server.get(&server.ann, "/v1/me").await.status, 200, "a token is no session");
}

#[tokio::test]
async fn a_new_password_needs_the_old_one_and_ends_other_sessions() {
    let server = Server::start().await;
    let path = "/v1/users/ann/password";
    for short in ["", "1234567"] {
        let body = json!({ "password": short }).to_string();
        let refused = server.send(&server.ann, "PUT", path, &body).await;
        assert_eq!(refused.code(), "invalid_argument");
    }
    set_password(&server, &server.ann, "ann").await;
    let (mine, other) = (server.session("ann").await, server.session("ann").await);
    let change =
        |old: Option<&str>| json!({ "password": "another horse", "old_password": old }).to_string();
    let refused = server.send(&mine, "PUT", path, &change(None)).await;
    assert_eq!(refused.code(), "invalid_argument");
    let refused = server.send(&mine, "PUT", path, &change(Some("wrong one"))).await;
    assert_eq!(refused.code(), "forbidden");
    let stranger = server.send(&server.bob, "PUT", path, &change(Some(PASSWORD))).await;
    assert_eq!(stranger.code(), "forbidden");
    let changed = server.send(&mine, "PUT", path, &change(Some(PASSWORD))).await;
    assert_eq!((changed.status, changed.json()), (200, json!({})));
    assert_eq!(server.get(&other, "/v1/me").await.status, 401);
    assert_eq!(server.get(&mine, "/v1/me").await.status, 200);
    assert_eq!(server.login("ann", PASSWORD).await.status, 401);
    assert_eq!(server.login("ann", "another horse").await.status, 200);
}

#[tokio::test]
async fn an_administrator_resets_a_password_and_locks_users_out() {
    let server = Server::start().await;
    set_password(&server, &server.ann, "ann").await;
    let session = server.session("ann").await;
    let reset = server.send(&server.root, "PUT", "/v1/users/ann/password", "").await;
    let chosen = reset.json()["password"].as_str().unwrap().to_owned();
    assert!(chosen.len() >= 16 && reset.head.contains("no-store"));
    assert_eq!(server.get(&session, "/v1/me").await.status, 401);
    assert_eq!(server.login("ann", &chosen).await.status, 200);
    let own = server.send(&server.root, "PUT", "/v1/users/root/password", "").await;
    assert_eq!(own.code(), "invalid_argument");
    let records = server.fake.audit.lock().unwrap().clone();
    assert_eq!(records.last().unwrap().action, "set the password of ann");
    assert!(!format!("{records:?}").contains(&chosen));

    let disable = |on: bool| json!({ "disabled": on }).to_string();
    let refused = server.send(&server.bob, "PATCH", "/v1/users/ann", &disable(true)).await;
    assert_eq!(refused.code(), "forbidden");
    let disabled = server.send(&server.root, "PATCH", "/v1/users/ann", &disable(true)).await;
    assert_eq!(disabled.json()["disabled"], true);
    assert_eq!(server.get(&server.ann, "/v1/me").await.status, 401, "tokens, too");
    server.send(&server.root, "PATCH", "/v1/users/ann", &disable(false)).await;
    assert_eq!(server.get(&server.ann, "/v1/me").await.status, 200);
}

#[tokio::test]
async fn a_profile_is_changed_by_its_user() {
    let server = Server::start().await;
    let path = "/v1/users/ann";
    let body = r#"{"display_name":"Ann A.","status":"at lunch"}"#;
    assert_eq!(server.send(&server.ann, "PATCH", path, body).await.status, 200);
    let seen = server.get(&server.bob, path).await.json();
    assert_eq!((&seen["display_name"], &seen["status"]), (&"Ann A.".into(), &"at lunch".into()));
    assert_eq!(server.send(&server.bob, "PATCH", path, body).await.code(), "forbidden");
    for (bad, code) in [
        ("{}".to_owned(), "invalid_argument"),
        (r#"{"status":"a\nb"}"#.to_owned(), "invalid_argument"),
        (json!({ "status": "x".repeat(257) }).to_string(), "too_large"),
        (r#"{"status":"x","disabled":true}"#.to_owned(), "invalid_argument"),
        (r#"{"admin":true}"#.to_owned(), "invalid_argument"),
    ] {
        assert_eq!(server.send(&server.ann, "PATCH", path, &bad).await.code(), code, "{bad}");
    }
}

#[tokio::test]
async fn a_token_is_good_for_its_scopes_and_no_more() {
    let server = Server::start().await;
    let issue = async |token: &str, body: Value| {
        server.send(token, "POST", "/v1/users/root/tokens", &body.to_string()).await
    };
    let reader = issue(&server.root, json!({ "scopes": ["read"], "ttl": "30d" })).await.json();
    let reader = reader["token"].as_str().unwrap().to_owned();
    // Every route, as its table has it: what needs another scope is forbidden, whatever else.
    for (method, route) in ROUTES {
        let method = method.to_uppercase();
        let open = ["/health", "/metrics", "/v1/openapi", "/v1/cluster", "/v1/login", "/v1/oidc"];
        if open.iter().any(|open| route.starts_with(open)) || *route == "/v1/register" {
            continue;
        }
        let account = ["/v1/sessions", "/v1/invites", "/v1/logout", "/v1/node"];
        let reads = method == "GET" || ["/read", "/presence"].iter().any(|it| route.ends_with(it));
        let readable = reads
            && !account.iter().any(|prefix| route.starts_with(prefix))
            && !route.ends_with("/tokens");
        let path = route.replace("{room}", "general").replace("{user}", "ann");
        let path = path.replace("{seq}", "1").replace("{symbol}", "x").replace("{id}", "1");
        let status = server.send(&reader, &method, &path, "").await.status;
        assert_eq!(status != 403, readable, "{method} {route} answers {status}");
    }
    let me = server.get(&reader, "/v1/me").await.json();
    assert_eq!((&me["scopes"], &me["admin"]), (&json!(["read"]), &true.into()));
    assert!(me["expires_at"].is_string());

    let account = issue(&server.root, json!({ "scopes": ["account", "read"] })).await.json();
    let account = account["token"].as_str().unwrap().to_owned();
    for more in [json!({}), json!({ "scopes": ["admin"] }), json!({ "scopes": [], "ttl": "1d" })] {
        assert_eq!(issue(&account, more).await.code(), "forbidden", "no more than it is itself");
    }
    assert_eq!(issue(&account, json!({ "scopes": ["read"] })).await.status, 201);
    let users = server.send(&account, "PATCH", "/v1/users/ann", r#"{"status":"x"}"#).await;
    assert_eq!(users.code(), "forbidden", "it is not an administrator's without `admin`");
    for bad in [json!({ "scopes": ["fly"] }), json!({ "ttl": "0s" }), json!({ "ttl": "soon" })] {
        assert_eq!(issue(&server.root, bad).await.code(), "invalid_argument");
    }
}

#[tokio::test]
async fn what_a_token_makes_is_good_for_no_more_and_no_longer() {
    let server = Server::start().await;
    let issue = async |token: &str, body: Value| {
        let path = "/v1/users/ann/tokens";
        server.send(token, "POST", path, &body.to_string()).await.json()["token"].clone()
    };
    let ends = async |token: &Value| {
        server.get(token.as_str().unwrap(), "/v1/me").await.json()["expires_at"].clone()
    };
    // A first password is as good as everything.
    let first = json!({ "password": PASSWORD }).to_string();
    for wish in [json!({ "scopes": ["account"] }), json!({ "ttl": "1h" })] {
        let token = issue(&server.ann, wish).await;
        let path = "/v1/users/ann/password";
        let refused = server.send(token.as_str().unwrap(), "PUT", path, &first).await;
        assert_eq!(refused.code(), "forbidden", "{refused:?}");
    }
    let short = issue(&server.ann, json!({ "ttl": "1h" })).await;
    let end = ends(&short).await;
    for wish in [json!({}), json!({ "ttl": "30d" }), json!({ "scopes": ["read"], "ttl": "2h" })] {
        let made = issue(short.as_str().unwrap(), wish).await;
        assert!(ends(&made).await.as_str().unwrap() <= end.as_str().unwrap(), "not later");
    }
}

#[tokio::test]
async fn one_use_of_an_invite_makes_one_account_however_it_is_tried() {
    let server = open_to(Registration::Invite).await;
    let made = server.send(&server.root, "POST", "/v1/invites", r#"{"uses":1}"#).await.json();
    let register = async |user: &str| {
        let body = json!({ "user": user, "password": PASSWORD, "invite": made["invite"] });
        server.post_with("/v1/register", "", body).await.status
    };
    let both = tokio::join!(register("cid"), register("cid"));
    assert!([both.0, both.1].contains(&201), "{both:?}");
    assert_eq!(register("dan").await, 403, "{both:?}");
}

#[tokio::test]
async fn tokens_are_listed_and_revoked_by_their_ids() {
    let server = Server::start().await;
    let body = r#"{"label":"bot","scopes":["read","post"]}"#;
    let bot = server.send(&server.ann, "POST", "/v1/users/ann/tokens", body).await.json();
    let bot = bot["token"].as_str().unwrap().to_owned();
    let list = server.get(&server.ann, "/v1/users/ann/tokens").await.json();
    let tokens = list["tokens"].as_array().unwrap().clone();
    assert_eq!(tokens.len(), 2);
    assert_eq!(tokens[1]["scopes"], json!(["read", "post"]));
    assert_eq!(tokens[1]["label"], "bot");
    let path = format!("/v1/users/ann/tokens/{}", tokens[1]["id"].as_str().unwrap());
    assert_eq!(server.get(&server.bob, "/v1/users/ann/tokens").await.code(), "forbidden");
    assert_eq!(server.send(&server.bob, "DELETE", &path, "").await.code(), "forbidden");
    assert_eq!(server.get(&bot, "/v1/rooms").await.status, 200);
    assert_eq!(server.send(&server.root, "DELETE", &path, "").await.status, 204);
    assert_eq!(server.send(&server.root, "DELETE", &path, "").await.code(), "not_found");
    let revoked = Instant::now();
    while server.get(&bot, "/v1/rooms").await.status == 200 {
        assert!(revoked.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn people_register_where_they_may() {
    let server = open_to(Registration::Closed).await;
    let body = json!({ "user": "cid", "password": PASSWORD, "display_name": "Cid" });
    assert_eq!(server.post_with("/v1/register", "", body.clone()).await.code(), "forbidden");
    let accounts = AccountLimits { registration: Registration::Open, ..AccountLimits::default() };
    server.limits.set(GatewayLimits { accounts, ..GatewayLimits::default() });
    let made = server.post_with("/v1/register", "", body.clone()).await;
    assert_eq!((made.status, &made.json()["display_name"]), (201, &"Cid".into()));
    let token = made.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&token, "/v1/me").await.json()["admin"], false);
    assert_eq!(server.post_with("/v1/register", "", body).await.code(), "already_exists");
    for (bad, code) in [
        (json!({ "user": "dan", "password": "short" }), "invalid_argument"),
        (json!({ "user": "Dan", "password": PASSWORD }), "invalid_argument"),
        (json!({ "user": "admin", "password": PASSWORD }), "already_exists"),
        (json!({ "user": "dan", "password": PASSWORD, "admin": true }), "invalid_argument"),
        (
            json!({ "user": "dan", "password": PASSWORD, "display_name": "x".repeat(129) }),
            "too_large",
        ),
    ] {
        assert_eq!(server.post_with("/v1/register", "", bad).await.code(), code);
    }
    assert_eq!(server.get(&token, "/v1/users/dan").await.code(), "user_not_found");
}

#[tokio::test]
async fn an_invite_lets_in_whom_it_is_for() {
    let server = open_to(Registration::Invite).await;
    assert_eq!(server.send(&server.ann, "POST", "/v1/invites", "").await.code(), "forbidden");
    let made = server.send(&server.root, "POST", "/v1/invites", r#"{"uses":1}"#).await;
    assert_eq!(made.status, 201);
    let invite = made.json()["invite"].as_str().unwrap().to_owned();
    assert!(invite.starts_with("fmi_root_"));
    let register = async |user: &str, invite: Option<&str>| {
        let body = json!({ "user": user, "password": PASSWORD, "invite": invite });
        server.post_with("/v1/register", "", body).await
    };
    assert_eq!(register("cid", None).await.code(), "forbidden");
    assert_eq!(register("cid", Some("fmi_root_1")).await.code(), "invalid_argument");
    let other = format!("fmi_root_{}", "0".repeat(64));
    assert_eq!(register("cid", Some(&other)).await.code(), "forbidden");
    assert_eq!(register("ann", Some(&other)).await.code(), "forbidden", "not even whether she is");
    assert_eq!(register("ann", Some(&invite)).await.code(), "already_exists");
    assert_eq!(register("cid", Some(&invite)).await.status, 201, "that use did not count");
    assert_eq!(register("dan", Some(&invite)).await.code(), "forbidden", "used up");
    let list = server.get(&server.root, "/v1/invites").await.json();
    assert_eq!(list["invites"][0]["used_by"], json!(["cid"]));
    assert!(!list.to_string().contains(&invite));
    let path = format!("/v1/invites/{}", list["invites"][0]["id"].as_str().unwrap());
    assert_eq!(server.send(&server.root, "DELETE", &path, "").await.status, 204);
    assert_eq!(server.send(&server.root, "DELETE", &path, "").await.code(), "not_found");
    for bad in [r#"{"uses":0}"#, r#"{"uses":101}"#, r#"{"ttl":"never"}"#] {
        let refused = server.send(&server.root, "POST", "/v1/invites", bad).await;
        assert_eq!(refused.code(), "invalid_argument", "{bad}");
    }
}

#[tokio::test]
async fn an_open_stream_and_a_long_poll_end_with_their_session() {
    let server = Server::start().await;
    set_password(&server, &server.bob, "bob").await;
    let session = server.session("bob").await;
    let mut events = stream(&server, &session, "?after=0", "").await;
    read_until(&mut events, |text| text.contains("event: caught_up")).await;
    let poll = server.get(&session, "/v1/rooms/general/events?after=1&wait=60s");
    let end = async {
        // Both are open by the time that these have been answered.
        server.get(&session, "/v1/me").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(server.send(&session, "POST", "/v1/logout", "").await.status, 204);
        Instant::now()
    };
    let (polled, ended) = soon(async { tokio::join!(poll, end) }).await;
    assert_eq!((polled.status, polled.code().as_str()), (401, "unauthenticated"));
    let text = read_until(&mut events, |text| text.contains("event: ended")).await;
    assert!(text.contains("unauthenticated"), "{text}");
    assert!(ended.elapsed() < Duration::from_secs(1), "{:?}", ended.elapsed());
}

#[tokio::test]
async fn who_cannot_be_made_sure_of_is_told_nothing_but_what_may_be_old() {
    let server = Server::start().await;
    let mut events = stream(&server, &server.bob, "?after=0", "").await;
    read_until(&mut events, |text| text.contains("event: caught_up")).await;
    let cut = Instant::now();
    server.fake.accounts_cut_off.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    server.fake.apply(super::server::posted("not for bob")).unwrap();
    let local = "/v1/rooms/general/events?consistency=local";
    let (post, local, text) = tokio::join!(
        server.send(&server.ann, "POST", "/v1/rooms/general/messages", r#"{"text":"x"}"#),
        server.get(&server.ann, local),
        read_until(&mut events, |text| text.contains("event: ended")),
    );
    assert!(cut.elapsed() > Duration::from_secs(4), "a failover is waited for");
    assert_eq!((post.status, post.code().as_str()), (503, "unavailable"));
    assert_eq!(local.status, 200);
    assert!(text.contains("unavailable") && !text.contains("not for bob"), "{text}");
    let waited = "/v1/rooms/general/events?consistency=local&after=2&wait=1s";
    assert_eq!(server.get(&server.ann, waited).await.status, 503, "a wait is no old page");
    server.fake.accounts_cut_off.store(false, Ordering::SeqCst);
    let begin = Instant::now();
    while server.get(&server.ann, "/v1/me").await.status != 200 {
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}
