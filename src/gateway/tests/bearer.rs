//! A provider's access tokens: which are taken, of whom, and for how long.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::oidc::World;
use super::provider::{Signer, unsigned, with};
use super::server::{NOW_MS, read_until, soon};
use super::streams::stream;
use super::websockets::Socket;

#[tokio::test]
async fn a_token_of_the_provider_is_good_for_who_has_signed_in() {
    let world = World::start(|_| ()).await;
    world.refuses(&world.jwt(&json!({})), "nobody here signs in by this account").await;
    world.me(&world.sign_in().await).await;
    let me = world.server.get(&world.jwt(&json!({})), "/v1/me").await.json();
    assert_eq!(me["user"], "cid");
    assert_eq!(me["scopes"], json!(["read", "post", "rooms", "account", "admin"]));
    assert!(me["expires_at"].is_string());
    let narrow = world.jwt(&json!({ "scope": "openid folkmoot:read" }));
    assert_eq!(world.server.get(&narrow, "/v1/me").await.json()["scopes"], json!(["read"]));
    let post = world.server.send(&narrow, "POST", "/v1/rooms", r#"{"room":"x"}"#).await;
    assert_eq!(post.code(), "forbidden");
    world
        .refuses(&world.jwt(&json!({ "scope": "folkmoot:fly" })), "none of the token's scopes")
        .await;
}

#[tokio::test]
async fn a_forged_token_is_nobodys() {
    let world = World::start(|_| ()).await;
    world.me(&world.sign_in().await).await;
    let claims = with(world.provider.claims("api"), &json!({ "sub": "7" }));
    let now_s = NOW_MS / 1000;
    for (claims, why) in [
        (json!({ "aud": "other" }), "for somebody else"),
        (json!({ "aud": null }), "for somebody else"),
        (json!({ "exp": now_s - 31 }), "has expired"),
        (json!({ "exp": null }), "a time in the token is none"),
        (json!({ "nbf": now_s + 31 }), "not valid yet"),
        (json!({ "iss": "https://evil.example" }), "no tokens of this issuer"),
        (json!({ "sub": "8" }), "nobody here signs in by this account"),
    ] {
        world.refuses(&world.jwt(&claims), why).await;
    }
    let kid = |alg: &str| json!({ "alg": alg, "kid": "k1" });
    let none = unsigned(&kid("none"), &claims);
    world.refuses(&format!("{none}."), "algorithm").await;
    world.refuses(&format!("{none}.AAAA"), "algorithm").await;
    // The public key, which everybody knows, as the secret of an HMAC.
    let public = world.provider.signer.jwk("k1").to_string();
    let forged = unsigned(&kid("HS256"), &claims);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, public.as_bytes());
    let tag = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, forged.as_bytes()));
    world.refuses(&format!("{forged}.{tag}"), "algorithm").await;
    world.refuses(&Signer::new().token("k1", &claims), "signature is not its issuer's").await;
    world.refuses(&world.provider.signer.sign(&kid("RS256"), &claims), "not among").await;
    let crit = json!({ "alg": "ES256", "kid": "k1", "crit": ["x"] });
    world.refuses(&world.provider.signer.sign(&crit, &claims), "not a signed token").await;
    let typ = json!({ "alg": "ES256", "kid": "k1", "typ": "logout+jwt" });
    world.refuses(&world.provider.signer.sign(&typ, &claims), "not a signed token").await;
    let good = world.jwt(&json!({}));
    let (head, _) = good.rsplit_once('.').unwrap();
    world.refuses(&format!("{head}."), "signature").await;
    let swapped = unsigned(&kid("ES256"), &with(claims, &json!({ "sub": "9" })));
    let (_, signature) = good.rsplit_once('.').unwrap();
    world.refuses(&format!("{swapped}.{signature}"), "signature").await;
    for odd in ["eyJ.e30.", "ey..", &format!("ey.{}.x", "a".repeat(8192))] {
        world.refuses(odd, "").await;
    }
    assert_eq!(world.server.get(&good, "/v1/me").await.status, 200);
}

#[tokio::test]
async fn an_unknown_key_is_asked_for_once_in_a_while() {
    let world = World::start(|_| ()).await;
    world.me(&world.sign_in().await).await;
    let asked = || world.provider.told.lock().unwrap().keys_asked;
    assert_eq!(asked(), 1);
    let signer = Signer::new();
    let claims = with(world.provider.claims("api"), &json!({ "sub": "7" }));
    let token = signer.token("k2", &claims);
    for _ in 0..5 {
        world.refuses(&token, "not among its issuer's").await;
    }
    assert_eq!(asked(), 1, "they were asked for just now");
}

#[tokio::test]
async fn of_a_set_of_keys_those_are_taken_that_are_fit_for_it() {
    let world = World::start(|_| ()).await;
    // What nobody could verify with, or anybody could sign with, is as if it were not there.
    let secret =
        json!({ "kty": "oct", "kid": "s", "alg": "HS256", "k": URL_SAFE_NO_PAD.encode("s") });
    let weak = URL_SAFE_NO_PAD.encode([&[0; 128][..], &[255; 128]].concat());
    let weak = json!({ "kty": "RSA", "kid": "k1", "alg": "RS256", "n": weak, "e": "AQAB" });
    let (other, for_codes) = (Signer::new(), Signer::new());
    world.provider.told.lock().unwrap().keys = vec![
        json!({ "kty": "LATTICE", "kid": "k1" }),
        json!(7),
        secret,
        weak,
        with(for_codes.jwk("k3"), &json!({ "use": "enc" })),
        with(world.provider.signer.jwk("k4"), &json!({ "alg": "ES384" })),
        other.jwk("k2"),
        world.provider.signer.jwk("k1"),
    ];
    world.me(&world.sign_in().await).await;
    let claims = with(world.provider.claims("api"), &json!({ "sub": "7" }));
    let sign = |signer: &Signer, header: Value| signer.sign(&header, &claims);
    let mine = &world.provider.signer;
    for header in [
        json!({ "alg": "ES256" }), // no key is named, and two may be meant
        json!({ "alg": "ES256", "kid": "k1", "typ": "at+jwt" }),
        json!({ "alg": "ES256", "kid": "k1", "typ": "application/at+jwt" }),
        json!({ "alg": "ES256", "kid": "k1", "typ": "JWT" }),
    ] {
        let me = world.server.get(&sign(mine, header.clone()), "/v1/me").await;
        assert_eq!(me.status, 200, "{header}");
    }
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"s");
    let forged = unsigned(&json!({ "alg": "HS256", "kid": "s" }), &claims);
    let tag = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, forged.as_bytes()));
    world.refuses(&format!("{forged}.{tag}"), "algorithm").await;
    let es256 = |kid: &str| json!({ "alg": "ES256", "kid": kid });
    world.refuses(&sign(&for_codes, es256("k3")), "not among").await;
    world.refuses(&sign(mine, es256("k4")), "not among").await;
    world.refuses(&sign(mine, es256("k2")), "signature is not its issuer's").await;
    world.refuses(&sign(mine, json!({ "alg": "RS256", "kid": "k1" })), "not among").await;
    world.refuses(&sign(&Signer::new(), json!({ "alg": "ES256" })), "signature is not").await;
}

#[tokio::test]
async fn tokens_of_the_provider_are_taken_only_where_that_is_set() {
    let world = World::start(|settings| settings.bearer_audience = None).await;
    world.me(&world.sign_in().await).await;
    world.refuses(&world.jwt(&json!({})), "no tokens of this issuer are taken").await;
}

#[tokio::test]
async fn a_stream_ends_with_the_user_whose_token_it_is() {
    let world = World::start(|_| ()).await;
    world.me(&world.sign_in().await).await;
    let mut following = stream(&world.server, &world.jwt(&json!({})), "?after=0", "").await;
    read_until(&mut following, |text| text.contains("event")).await;
    let (root, path) = (&world.server.root, "/v1/users/cid");
    assert_eq!(world.server.send(root, "PATCH", path, r#"{"disabled":true}"#).await.status, 200);
    read_until(&mut following, |text| text.contains("unauthenticated")).await;
}

#[tokio::test]
async fn who_is_no_administrator_any_more_does_not_follow_on_as_one() {
    let world = World::start(|_| ()).await;
    world.say(&json!({ "groups": ["ops"] }));
    assert_eq!(world.me(&world.sign_in().await).await["admin"], json!(true));
    let jwt = world.jwt(&json!({}));
    let mut following = stream(&world.server, &jwt, "?after=0", "").await;
    read_until(&mut following, |text| text.contains("caught_up")).await;
    let mut socket = Socket::open(&world.server, &jwt).await;
    socket.follow("general", Value::Null).await;
    socket.catch_up().await;
    let poll = world.server.get(&jwt, "/v1/rooms/general/events?after=1&wait=60s");
    let demoted = async {
        world.server.get(&jwt, "/v1/me").await; // by then the poll has begun
        world.say(&json!({ "groups": [] }));
        assert_eq!(world.me(&world.sign_in().await).await["admin"], json!(false));
    };
    let (polled, ()) = soon(async { tokio::join!(poll, demoted) }).await;
    assert_eq!(polled.code(), "unavailable");
    read_until(&mut following, |text| text.contains("what you may do has changed")).await;
    socket.ends_with("unavailable", 4100).await;
}
