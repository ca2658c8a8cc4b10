//! A provider of OpenID Connect as far as tests need one, which does as it is told, also wrong.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::server::NOW_MS;
use crate::config::Setting;
use crate::config::oidc::{Provider as Settings, Secret};
use crate::gateway::limits::{AccountLimits, GatewayLimits};
use crate::gateway::oidc::Providers;

/// Signs tokens.
pub struct Signer(EcdsaKeyPair);

impl Signer {
    pub fn new() -> Signer {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Signer(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap())
    }

    pub fn jwk(&self, kid: &str) -> Value {
        let point = self.0.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": x, "y": y })
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    pub fn token(&self, kid: &str, claims: &Value) -> String {
        self.sign(&json!({ "alg": "ES256", "kid": kid }), claims)
    }
}

/// Header and claims of a token.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// What the provider does.
pub struct Told {
    pub down: bool,
    /// What ID tokens say, beside what they must.
    pub claims: Value,
    pub keys: Vec<Value>,
    /// How often its keys were asked for.
    pub keys_asked: usize,
    /// The codes that were taken.
    pub codes: Vec<String>,
    /// What it answers to who asks for a token, if it refuses; with a status.
    pub refusal: Option<(StatusCode, &'static str)>,
    /// What it says to a device, if it has such a sign-in.
    pub device: Option<Value>,
    /// What it says outside ID tokens, if it says anything.
    pub user_info: Option<Value>,
}

/// A provider on a real port.
pub struct Provider {
    pub issuer: String,
    pub signer: Signer,
    pub told: Mutex<Told>,
}

type Answer = (StatusCode, Json<Value>);

fn answer(value: Value) -> Answer {
    (StatusCode::OK, Json(value))
}

impl Provider {
    pub async fn start() -> Arc<Provider> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let signer = Signer::new();
        let told = Told {
            down: false,
            claims: json!({ "sub": "7", "preferred_username": "cid", "name": "Cid" }),
            keys: vec![signer.jwk("k1")],
            keys_asked: 0,
            codes: Vec::new(),
            refusal: None,
            device: None,
            user_info: None,
        };
        let provider = Arc::new(Provider { issuer, signer, told: Mutex::new(told) });
        let routes = Router::new()
            .route("/.well-known/openid-configuration", get(Provider::discover))
            .route("/keys", get(Provider::keys))
            .route("/token", post(Provider::token))
            .route("/device", post(Provider::device))
            .route("/me", get(Provider::user_info))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        provider
    }

    async fn discover(State(provider): State<Arc<Provider>>) -> Answer {
        if provider.told.lock().unwrap().down {
            return (StatusCode::BAD_GATEWAY, Json(json!({})));
        }
        let issuer = &provider.issuer;
        let told = provider.told.lock().unwrap();
        let (has_device, has_user_info) = (told.device.is_some(), told.user_info.is_some());
        answer(json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/auth"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/keys"),
            "userinfo_endpoint": has_user_info.then(|| format!("{issuer}/me")),
            "device_authorization_endpoint": has_device.then(|| format!("{issuer}/device")),
            // What no provider should say, some do, and nobody looks at.
            "op_tos_uri": "",
            "id_token_signing_alg_values_supported": "ES256",
        }))
    }

    async fn device(State(provider): State<Arc<Provider>>) -> Answer {
        answer(provider.told.lock().unwrap().device.clone().unwrap())
    }

    async fn user_info(State(provider): State<Arc<Provider>>) -> Answer {
        answer(provider.told.lock().unwrap().user_info.clone().unwrap())
    }

    async fn keys(State(provider): State<Arc<Provider>>) -> Answer {
        let mut told = provider.told.lock().unwrap();
        told.keys_asked += 1;
        answer(json!({ "keys": told.keys }))
    }

    /// A code is the nonce, which a real provider has noted, and is taken once.
    async fn token(State(provider): State<Arc<Provider>>, form: String) -> Answer {
        let mut told = provider.told.lock().unwrap();
        let code = form.split('&').find_map(|field| field.strip_prefix("code="));
        let code = code.unwrap_or_default().to_owned();
        let again = (StatusCode::BAD_REQUEST, "invalid_grant");
        let refusal = told.refusal.or(told.codes.contains(&code).then_some(again));
        if let Some((status, word)) = refusal {
            return (status, Json(json!({ "error": word })));
        }
        told.codes.push(code.clone());
        let claims = with(provider.claims("chat"), &json!({ "nonce": code }));
        let id_token = provider.signer.token("k1", &with(claims, &told.claims));
        // A lifetime is a number, but not everywhere.
        answer(json!({ "id_token": id_token, "access_token": "x", "expires_in": "300" }))
    }

    /// What every token says.
    pub fn claims(&self, audience: &str) -> Value {
        let now_s = NOW_MS / 1000;
        json!({ "iss": self.issuer, "aud": audience, "iat": now_s, "exp": now_s + 300 })
    }

    /// Limits of a gateway where people sign in by it.
    pub fn limits(&self, change: impl FnOnce(&mut Settings)) -> GatewayLimits {
        let mut settings = Settings {
            issuer: self.issuer.clone(),
            client_id: "chat".into(),
            secret: Secret::parse("0123456789abcdef").unwrap(),
            bearer_audience: Some("api".into()),
            admin_group: Some("ops".into()),
            ..Settings::default()
        };
        change(&mut settings);
        let by_name = [("kc".to_owned(), Arc::new(settings))].into();
        let oidc = Arc::new(Providers { public_url: "http://127.0.0.1".into(), by_name });
        let accounts = AccountLimits { oidc, ..AccountLimits::default() };
        GatewayLimits { accounts, ..GatewayLimits::default() }
    }
}

/// An object with the fields of another one, too.
pub fn with(mut value: Value, more: &Value) -> Value {
    for (name, field) in more.as_object().unwrap() {
        value[name] = field.clone();
    }
    value
}
