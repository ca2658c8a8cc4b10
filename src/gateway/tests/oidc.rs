//! Signing in by a provider, and its tokens: what is taken, and all that is not. tests/oidc.rs does it
//! with a real provider.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::provider::{Provider, Signer, with};
use super::server::{NOW_MS, Reply, Server};
use crate::config::oidc::Provider as Settings;

pub(super) struct World {
    pub server: Server,
    pub provider: Arc<Provider>,
}

/// A browser that was sent to the provider.
struct Browser {
    cookie: String,
    state: String,
    nonce: String,
}

fn header<'a>(reply: &'a Reply, name: &str) -> Vec<&'a str> {
    let lines = reply.head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(found, _)| *found == name).map(|(_, value)| value).collect()
}

/// The value of a field in a query.
fn field(query: &str, name: &str) -> String {
    let fields = query.split(['?', '&']).filter_map(|field| field.split_once('='));
    fields.into_iter().find(|(found, _)| *found == name).unwrap().1.to_owned()
}

impl World {
    pub async fn start(change: impl FnOnce(&mut Settings)) -> World {
        let provider = Provider::start().await;
        let server = Server::with_limits(provider.limits(change)).await;
        World { server, provider }
    }

    pub fn say(&self, claims: &Value) {
        let mut told = self.provider.told.lock().unwrap();
        told.claims = with(told.claims.clone(), claims);
    }

    async fn begin(&self) -> Browser {
        let begun = self.server.send_raw("GET", "/v1/oidc/kc/login", "", b"").await;
        assert_eq!(begun.status, 303, "{begun:?}");
        let location = header(&begun, "location")[0];
        assert!(location.starts_with(&format!("{}/auth?", self.provider.issuer)), "{location}");
        assert_eq!(field(location, "code_challenge_method"), "S256");
        let cookie = header(&begun, "set-cookie")[0].split(';').next().unwrap().to_owned();
        Browser { cookie, state: field(location, "state"), nonce: field(location, "nonce") }
    }

    async fn come_back(&self, cookie: &str, query: &str) -> Reply {
        let path = format!("/v1/oidc/kc/callback?{query}");
        self.server.send_raw("GET", &path, &format!("cookie: {cookie}\r\n"), b"").await
    }

    async fn finish(&self, browser: &Browser) -> Reply {
        let query = format!("code={}&state={}", browser.nonce, browser.state);
        self.come_back(&browser.cookie, &query).await
    }

    pub async fn sign_in(&self) -> Reply {
        self.finish(&self.begin().await).await
    }

    /// Who a session's cookie is of.
    pub async fn me(&self, signed_in: &Reply) -> Value {
        assert_eq!((signed_in.status, header(signed_in, "location")), (303, vec!["/"]));
        let cookies = header(signed_in, "set-cookie");
        assert!(cookies[0].contains("HttpOnly; SameSite=Strict"), "{cookies:?}");
        assert!(cookies[1].starts_with("folkmoot_sign_in=; Path=/; Max-Age=0"), "{cookies:?}");
        self.whose(signed_in).await.json()
    }

    async fn whose(&self, signed_in: &Reply) -> Reply {
        let session = header(signed_in, "set-cookie")[0].split(';').next().unwrap();
        self.server.send_raw("GET", "/v1/me", &format!("cookie: {session}\r\n"), b"").await
    }

    pub fn jwt(&self, more: &Value) -> String {
        let claims = with(self.provider.claims("api"), &json!({ "sub": "7" }));
        self.provider.signer.token("k1", &with(claims, more))
    }

    pub async fn refuses(&self, token: &str, why: &str) {
        let refused = self.server.get(token, "/v1/me").await;
        assert_eq!((refused.status, refused.code().as_str()), (401, "unauthenticated"), "{why}");
        let message = refused.json()["error"]["message"].to_string();
        assert!(message.contains(why), "{message}: {why}");
    }
}

#[tokio::test]
async fn a_first_sign_in_makes_an_account_and_the_next_one_finds_it() {
    let world = World::start(|_| ()).await;
    let me = world.me(&world.sign_in().await).await;
    assert_eq!(
        (&me["user"], &me["display_name"], &me["admin"]),
        (&json!("cid"), &json!("Cid"), &json!(false))
    );
    // Who somebody is does not depend on what they are called; groups are looked at each time.
    world.say(&json!({ "preferred_username": "ann", "groups": ["staff", "ops"] }));
    let me = world.me(&world.sign_in().await).await;
    assert_eq!((&me["user"], &me["admin"]), (&json!("cid"), &json!(true)));
    world.say(&json!({ "groups": [] }));
    assert_eq!(world.me(&world.sign_in().await).await["admin"], json!(false));
}

#[tokio::test]
async fn a_name_that_is_somebody_elses_is_not_given_away() {
    let world = World::start(|_| ()).await;
    for name in ["ann", "ANN", "ann@example.org", "admin", "cluster"] {
        world.say(&json!({ "preferred_username": name }));
        let refused = world.sign_in().await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "already_exists"), "{name}");
        assert!(header(&refused, "set-cookie").is_empty());
    }
    world.say(&json!({ "preferred_username": "@" }));
    assert_eq!(world.sign_in().await.code(), "forbidden");
    // An administrator may give it.
    let link = r#"{"provider":"kc","subject":"7"}"#;
    let path = "/v1/users/ann/link";
    assert_eq!(world.server.send(&world.server.ann, "PUT", path, link).await.code(), "forbidden");
    assert_eq!(world.server.send(&world.server.root, "PUT", path, link).await.status, 200);
    let me = world.me(&world.sign_in().await).await;
    assert_eq!(me["user"], "ann");
    let taken = world.server.send(&world.server.root, "PUT", "/v1/users/bob/link", link).await;
    assert_eq!(taken.code(), "already_exists");
}

#[tokio::test]
async fn without_accounts_of_their_own_only_those_who_are_linked_sign_in() {
    let world = World::start(|settings| settings.create_accounts = false).await;
    assert_eq!(world.sign_in().await.code(), "forbidden");
    let link = r#"{"provider":"kc","subject":"7"}"#;
    let linked = world.server.send(&world.server.root, "PUT", "/v1/users/bob/link", link).await;
    assert_eq!(linked.status, 200);
    assert_eq!(world.me(&world.sign_in().await).await["user"], "bob");
}

#[tokio::test]
async fn only_the_browser_that_was_sent_comes_back_and_once() {
    let world = World::start(|_| ()).await;
    let (browser, other) = (world.begin().await, world.begin().await);
    let refused = |reply: Reply| (reply.status, reply.code());
    let expected = (401, "unauthenticated".to_owned());
    let good = format!("code={}&state={}", browser.nonce, browser.state);
    for (cookie, query, why) in [
        ("", &*good, "no cookie"),
        ("folkmoot_sign_in=AAAA", &good, "a made-up cookie"),
        (&other.cookie, &good, "another sign-in's cookie: the state does not match"),
        (&browser.cookie, &format!("code={}&state=x", browser.nonce), "another state"),
        (&browser.cookie, &format!("code={}", browser.nonce), "no state"),
        (&browser.cookie, &format!("{good}&iss=https%3A%2F%2Fevil.example"), "another provider"),
        (
            &browser.cookie,
            &format!("code={}&state={}", other.nonce, browser.state),
            "another nonce",
        ),
        (&browser.cookie, &format!("error=access_denied&state={}", browser.state), "refused"),
        (&browser.cookie, &format!("error=x&state={}", browser.state), "refused"),
    ] {
        assert_eq!(refused(world.come_back(cookie, query).await), expected, "{why}");
    }
    let query = format!("state={}", browser.state);
    assert_eq!(
        world.come_back(&browser.cookie, &query).await.code(),
        "invalid_argument",
        "no code"
    );
    let named =
        format!("{good}&iss={}", world.provider.issuer.replace(':', "%3A").replace('/', "%2F"));
    world.me(&world.come_back(&browser.cookie, &named).await).await;
    assert_eq!(refused(world.finish(&browser).await), expected, "the code was taken before");
    // A person is sent to the page, which says it.
    let cookie = format!("{}\r\naccept: text/html,*/*", browser.cookie);
    let sent = world.come_back(&cookie, &good).await;
    assert_eq!((sent.status, header(&sent, "location")), (303, vec!["/?sign_in=unauthenticated"]));
}

#[tokio::test]
async fn an_id_token_that_is_not_as_it_should_be_signs_nobody_in() {
    let world = World::start(|_| ()).await;
    let now_s = NOW_MS / 1000;
    for (claims, why) in [
        (json!({ "nonce": "x" }), "another nonce"),
        (json!({ "nonce": null }), "no nonce"),
        (json!({ "aud": "other" }), "another client's"),
        (json!({ "aud": ["chat", "other"] }), "several clients', and none is named"),
        (json!({ "aud": ["chat", "other"], "azp": "other" }), "several clients'"),
        (json!({ "iss": "https://evil.example" }), "another issuer"),
        (json!({ "exp": now_s - 31 }), "expired"),
        (json!({ "exp": null }), "no end"),
        (json!({ "exp": "soon" }), "no end"),
        (json!({ "iat": now_s + 31 }), "from the future"),
        (json!({ "sub": "" }), "nobody's"),
        (json!({ "sub": 7 }), "nobody's"),
        (json!({ "sub": "x".repeat(256) }), "too long"),
    ] {
        let before = world.provider.told.lock().unwrap().claims.clone();
        world.say(&claims);
        let refused = world.sign_in().await;
        assert_eq!((refused.status, refused.code().as_str()), (401, "unauthenticated"), "{why}");
        world.provider.told.lock().unwrap().claims = before;
    }
    world.provider.told.lock().unwrap().keys = vec![Signer::new().jwk("k1")];
    let world = World { server: Server::with_limits(world.provider.limits(|_| ())).await, ..world };
    assert_eq!(world.sign_in().await.code(), "unauthenticated", "another key's signature");
}

#[tokio::test]
async fn who_is_disabled_does_not_come_in() {
    let world = World::start(|_| ()).await;
    let session = world.sign_in().await;
    world.me(&session).await;
    let (root, path) = (&world.server.root, "/v1/users/cid");
    assert_eq!(world.server.send(root, "PATCH", path, r#"{"disabled":true}"#).await.status, 200);
    assert_eq!(world.sign_in().await.code(), "forbidden");
    world.refuses(&world.jwt(&json!({})), "not valid").await;
}

#[tokio::test]
async fn a_provider_that_is_down_is_said_to_be() {
    let world = World::start(|_| ()).await;
    world.provider.told.lock().unwrap().down = true;
    let down = world.server.send_raw("GET", "/v1/oidc/kc/login", "", b"").await;
    assert_eq!((down.status, down.code().as_str()), (503, "unavailable"));
    assert!(down.head.contains("retry-after: 3"), "{}", down.head);
    let html = "accept: text/html\r\n";
    let down = world.server.send_raw("GET", "/v1/oidc/kc/login", html, b"").await;
    assert_eq!((down.status, header(&down, "location")), (303, vec!["/?sign_in=unavailable"]));
    let token = world.server.get(&world.jwt(&json!({})), "/v1/me").await;
    assert_eq!((token.status, token.code().as_str()), (503, "unavailable"));
    assert_eq!(world.server.get(&world.server.ann, "/v1/me").await.status, 200);
    let other = world.server.send_raw("GET", "/v1/oidc/nobody/login", "", b"").await;
    assert_eq!(other.code(), "not_found");
}

#[tokio::test]
async fn another_site_signs_nobody_in() {
    let world = World::start(|_| ()).await;
    let cross = "sec-fetch-site: cross-site\r\n";
    let refused = world.server.send_raw("GET", "/v1/oidc/kc/login", cross, b"").await;
    assert_eq!(refused.code(), "forbidden");
    let person = format!("{cross}accept: text/html\r\n");
    let sent = world.server.send_raw("GET", "/v1/oidc/kc/login", &person, b"").await;
    assert_eq!((sent.status, header(&sent, "location")), (303, vec!["/"]));
    assert!(header(&sent, "set-cookie").is_empty());
}

#[tokio::test]
async fn what_an_id_token_lacks_is_looked_for_outside_it() {
    let world = World::start(|_| ()).await;
    world.say(&json!({ "preferred_username": null, "name": null }));
    let name = json!({ "sub": "8", "preferred_username": "eve", "groups": ["ops"], "address": 7 });
    world.provider.told.lock().unwrap().user_info = Some(name.clone());
    let refused = world.sign_in().await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "unavailable"), "another's");
    world.provider.told.lock().unwrap().user_info = Some(with(name, &json!({ "sub": "7" })));
    let me = world.me(&world.sign_in().await).await;
    assert_eq!((&me["user"], &me["admin"]), (&json!("eve"), &json!(true)));
}

#[tokio::test]
async fn a_provider_that_refuses_a_code_is_told_from_one_that_fails() {
    let world = World::start(|_| ()).await;
    for (status, word, code) in [
        (400, "invalid_grant", "unauthenticated"),
        (403, "something", "unauthenticated"),
        (401, "invalid_client", "unavailable"),
        (500, "invalid_grant", "unavailable"),
        (302, "invalid_grant", "unavailable"),
        (200, "invalid_grant", "unavailable"), // and no ID token
    ] {
        let refusal = Some((StatusCode::from_u16(status).unwrap(), word));
        world.provider.told.lock().unwrap().refusal = refusal;
        assert_eq!(world.sign_in().await.code(), code, "{status} {word}");
    }
}

#[tokio::test]
async fn another_account_puts_out_who_signed_in_by_the_former_one() {
    let world = World::start(|_| ()).await;
    let former = world.sign_in().await;
    assert_eq!(world.me(&former).await["user"], "cid");
    let link = r#"{"provider":"kc","subject":"another"}"#;
    let linked = world.server.send(&world.server.root, "PUT", "/v1/users/cid/link", link).await;
    assert_eq!(linked.status, 200);
    let begin = Instant::now();
    while world.whose(&former).await.status != 401 {
        assert!(begin.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_device_waits_for_the_provider() {
    let world = World::start(|_| ()).await;
    let begun = world.server.send_raw("POST", "/v1/oidc/kc/device", "", b"").await;
    assert_eq!(begun.code(), "invalid_argument", "this provider has no such sign-in");
    let headers = "content-type: application/json\r\n";
    let body = br#"{"handle":"AAAA"}"#;
    let polled = world.server.send_raw("POST", "/v1/oidc/kc/device/poll", headers, body).await;
    assert_eq!((polled.status, polled.code().as_str()), (401, "unauthenticated"));
    // What was sealed for a browser is of no use to a device.
    let cookie = world.begin().await.cookie;
    let body = json!({ "handle": cookie.split_once('=').unwrap().1 }).to_string();
    let path = "/v1/oidc/kc/device/poll";
    let polled = world.server.send_raw("POST", path, headers, body.as_bytes()).await;
    assert_eq!(polled.code(), "unauthenticated");
}

#[tokio::test]
async fn a_device_is_told_how_it_stands() {
    let world = World::start(|_| ()).await;
    let shown = json!({
        "device_code": "secret", "user_code": "AB", "verification_uri": "https://a.example/device",
        "expires_in": 9000, "interval": null, "odd": [7],
    });
    world.provider.told.lock().unwrap().device = Some(shown);
    let begun = world.server.send_raw("POST", "/v1/oidc/kc/device", "", b"").await.json();
    let said = [&begun["user_code"], &begun["verification_uri"]];
    assert_eq!(said, ["AB", "https://a.example/device"]);
    assert_eq!([&begun["expires_in_ms"], &begun["interval_ms"]], [3_600_000, 5000]);
    let body = json!({ "handle": begun["handle"] }).to_string();
    let poll = async |refusal: Option<(u16, &'static str)>| {
        let refusal = refusal.map(|(status, word)| (StatusCode::from_u16(status).unwrap(), word));
        world.provider.told.lock().unwrap().refusal = refusal;
        let (path, headers) = ("/v1/oidc/kc/device/poll", "content-type: application/json\r\n");
        world.server.send_raw("POST", path, headers, body.as_bytes()).await
    };
    for _ in 0..40 {
        // Many may wait behind one address, and passwords are tried there nevertheless.
        assert_eq!(poll(Some((400, "authorization_pending"))).await.status, 202);
    }
    for (word, slow_down) in [("authorization_pending", false), ("slow_down", true)] {
        let waiting = poll(Some((400, word))).await;
        assert_eq!((waiting.status, &waiting.json()["slow_down"]), (202, &json!(slow_down)));
    }
    for (status, word, code) in [
        (400, "access_denied", "unauthenticated"),
        (400, "expired_token", "unauthenticated"),
        (401, "invalid_client", "unavailable"),
        (500, "authorization_pending", "unavailable"),
    ] {
        assert_eq!(poll(Some((status, word))).await.code(), code, "{status} {word}");
    }
    let done = poll(None).await;
    assert_eq!((done.status, &done.json()["user"]), (200, &json!("cid")));
    for odd in ["javascript:alert(1)", "https:///", "x"] {
        let shown = json!({ "verification_uri": odd });
        let told = &world.provider.told;
        let changed = with(told.lock().unwrap().device.clone().unwrap(), &shown);
        told.lock().unwrap().device = Some(changed);
        let begun = world.server.send_raw("POST", "/v1/oidc/kc/device", "", b"").await;
        assert_eq!(begun.code(), "unavailable", "{odd}");
    }
}
