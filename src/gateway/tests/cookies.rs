//! The cookie of a browser's session, under TLS.

use serde_json::json;

use super::accounts::{PASSWORD, set_password};
use super::server::{Reply, Server};
use crate::gateway::limits::{AccountLimits, GatewayLimits};

/// As a proxy passes on what a page of the node's own asks for.
const TLS: &str = "sec-fetch-site: same-origin\r\nx-forwarded-proto: https\r\n";

fn behind(proxy: bool) -> GatewayLimits {
    let accounts = AccountLimits { behind_proxy: proxy, ..AccountLimits::default() };
    GatewayLimits { accounts, ..GatewayLimits::default() }
}

/// A server behind a proxy, where ann and bob have passwords.
async fn server() -> Server {
    let server = Server::with_limits(behind(true)).await;
    set_password(&server, &server.ann, "ann").await;
    set_password(&server, &server.bob, "bob").await;
    server
}

fn set_cookie(reply: &Reply) -> &str {
    reply.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap()
}

impl Server {
    /// Signs ann in; what her browser sends from then on.
    async fn cookie(&self) -> String {
        let body = json!({ "user": "ann", "password": PASSWORD, "cookie": true });
        let begun = self.post_with("/v1/login", TLS, body).await;
        assert_eq!(begun.status, 200, "{begun:?}");
        set_cookie(&begun).split(';').next().unwrap().to_owned()
    }

    async fn me(&self, cookie: &str) -> Reply {
        let headers = format!("{TLS}cookie: {cookie}\r\n");
        self.send_raw("GET", "/v1/me", &headers, b"").await
    }
}

#[tokio::test]
async fn under_tls_a_cookie_that_a_sibling_domain_can_set_signs_nobody_in() {
    let server = server().await;
    let planted = format!("folkmoot_session={}", server.session("bob").await);
    let refused = server.me(&planted).await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "unauthenticated"));
    let own = server.cookie().await;
    assert!(own.starts_with("__Host-folkmoot_session=fm_ann_"), "{own}");
    let me = server.me(&format!("{planted}; {own}")).await;
    assert_eq!((me.status, &me.json()["user"]), (200, &"ann".into()));
}

#[tokio::test]
async fn signing_out_takes_the_cookie_back_that_was_shown() {
    let server = server().await;
    for proxy in [true, false] {
        let cookie = server.cookie().await;
        // The callback of a provider sets the same one where no proxy is trusted.
        server.limits.set(behind(proxy));
        assert_eq!(server.me(&cookie).await.status, 200);
        let headers = format!("{TLS}cookie: {cookie}\r\n");
        let out = server.send_raw("POST", "/v1/logout", &headers, b"").await;
        assert_eq!(out.status, 204);
        let gone = "__Host-folkmoot_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict; Secure";
        assert_eq!(set_cookie(&out), gone);
        // One of before, without the prefix, would count again.
        let plain = "set-cookie: folkmoot_session=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict";
        assert!(out.head.lines().any(|line| line == plain), "{out:?}");
        assert_eq!(server.me(&cookie).await.status, 401);
    }
}
