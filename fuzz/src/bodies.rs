//! Requests to the REST interface: nothing panics, nothing is answered 500, every refusal has the common shape,
//! and what was refused has changed nothing.
//!
//! An input is up to eight requests, one after the other, with `ff` between them. Each is five bytes (route,
//! method, caller, room and user, other segments of the path), the query up to a line feed, and the body. Where
//! the query has a tab, what is before it stands for segments of the path.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use folkmoot::gateway::Gateway;
use folkmoot::gateway::drain::Drain;
use folkmoot::gateway::http::ROUTES;
use folkmoot::gateway::limits::SharedLimits;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::backend::Node;
use super::input::Input;
use super::world::{FixedClock, ROOMS, USERS, World, token};

/// Requests in one input.
const REQUESTS_MAX: usize = 8;
/// Routes that hash a password, for 20 ms each: only tried where the method's byte says so.
const SLOW: [&str; 3] = ["/v1/users/{user}/password", "/v1/register", "/v1/login"];

/// A gateway over the world, that counts nothing.
pub fn gateway(world: &Arc<World>, drain: Drain) -> Gateway {
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    let node = Arc::new(Node(world.clone()));
    Gateway::new(node, Arc::new(FixedClock), SharedLimits::default(), metrics, drain)
}

/// What takes the inputs.
pub struct Bodies {
    world: Arc<World>,
    routes: Router,
    patience: Duration,
}

impl Bodies {
    /// A gateway whose answers are waited for so long; longer ones (long polls, streams) are cut off.
    pub fn new(patience: Duration) -> Bodies {
        let world = World::new();
        let routes = gateway(&world, Drain::new(CancellationToken::new())).into_routes();
        Bodies { world, routes, patience }
    }

    /// Runs one input.
    pub async fn run(&self, data: &[u8]) {
        self.world.reset();
        let mut input = Input(data);
        for _ in 0..REQUESTS_MAX {
            if input.is_empty() {
                return;
            }
            if let Some(request) = request(input.until(0xff)) {
                self.send(request).await;
            }
        }
    }

    async fn send(&self, request: Request<Body>) {
        let what = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
        let is_head = request.method() == Method::HEAD;
        let before = self.world.snapshot();
        let asked = async {
            let response = match self.routes.clone().oneshot(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let (parts, mut body) = response.into_parts();
            let mut bytes = Vec::new();
            while let Some(frame) = body.frame().await {
                bytes.extend(frame.ok().and_then(|f| f.into_data().ok()).unwrap_or_default());
            }
            (parts, bytes)
        };
        let Ok((parts, bytes)) = tokio::time::timeout(self.patience, asked).await else { return };
        let (status, text) = (parts.status, String::from_utf8_lossy(&bytes));
        assert!(!status.is_server_error(), "{what}: {status} {text}");
        let json_type = parts.headers.get(header::CONTENT_TYPE);
        let is_json = json_type.is_some_and(|value| value == "application/json");
        if is_json && !is_head {
            serde_json::from_slice::<Value>(&bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
        }
        if status.is_client_error() {
            assert!(is_json, "{what}: {status} {text}");
            if !is_head {
                check_error(&what, status, &bytes);
            }
            let after = self.world.snapshot();
            assert!(before == after, "{what}: refused with {status}, and changed something");
        }
    }
}

fn check_error(what: &str, status: StatusCode, bytes: &[u8]) {
    let json: Value = serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{what}: {e}"));
    let error = &json["error"];
    let has_shape = error["code"].is_string()
        && error["message"].is_string()
        && error["temporary"].is_boolean()
        && error["may_have_applied"].is_boolean();
    assert!(has_shape && error["code"] != "internal", "{what}: {status} {json}");
}

/// The request that bytes stand for; `None` when they stand for none that HTTP could carry.
fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let mut input = Input(bytes);
    let (route, how) = (input.byte(), input.byte());
    let mut at = usize::from(route) % ROUTES.len();
    while SLOW.contains(&ROUTES[at].1) && how & 7 != 7 {
        at = (at + 1) % ROUTES.len();
    }
    let (method, path) = ROUTES[at];
    let method = if how < 0xe0 { method.to_uppercase() } else { other_method(how).to_owned() };
    let who = input.byte();
    let (first, second) = (input.byte(), input.byte());
    let line = input.until(b'\n');
    let (raw, query) = match line.iter().position(|byte| *byte == b'\t') {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (&[][..], line),
    };
    let mut target = fill(path, first, second, raw);
    if !query.is_empty() {
        target.push('?');
        escape(&mut target, query, b"&=+%");
    }
    let request = Request::builder().method(&*method).uri(target.parse::<Uri>().ok()?);
    let request = match who >> 6 {
        0 | 1 => request.header(header::CONTENT_TYPE, "application/json"),
        2 => request.header(header::CONTENT_TYPE, "application/json; charset=utf-8"),
        _ => request.header(header::ACCEPT, "text/event-stream"),
    };
    let request = match who & 15 {
        0 => request,
        1 => request.header(header::AUTHORIZATION, "Bearer fm_bob_0"),
        2 => request.header(header::AUTHORIZATION, bearer("bob", 2)),
        3 => request.header(header::AUTHORIZATION, bearer("bob", 3)),
        4 => request
            .header(header::COOKIE, format!("folkmoot_session={}", token("bob", 1)))
            .header("sec-fetch-site", "same-origin"),
        other => request.header(
            header::AUTHORIZATION,
            bearer(USERS[(usize::from(other) - 5) % USERS.len()], 1),
        ),
    };
    request.body(Body::from(input.0.to_vec())).ok()
}

fn bearer(user: &str, kind: u8) -> String {
    format!("Bearer {}", token(user, kind))
}

fn other_method(how: u8) -> &'static str {
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE"][usize::from(how & 7)]
}

/// The path with its variable segments filled in: from what there is, or as the input has it.
fn fill(path: &str, first: u8, second: u8, raw: &[u8]) -> String {
    let mut filled = String::new();
    let mut rest = path;
    while let Some((before, (name, after))) =
        rest.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    {
        filled.push_str(before);
        let known = match name {
            "room" => ROOMS.get(usize::from(first & 7)).map(ToString::to_string),
            "user" => USERS.get(usize::from(first >> 3 & 7)).map(ToString::to_string),
            "seq" => (second & 15 < 15).then(|| (second & 15).to_string()),
            "symbol" => (second >> 4 < 8).then(|| "+1".to_owned()),
            "id" => (second >> 4 < 8).then(|| format!("{second:02x}").repeat(8)),
            _ => (second >> 4 < 8).then(|| "keycloak".to_owned()),
        };
        match known {
            Some(known) => filled.push_str(&known),
            None => escape(&mut filled, raw, b"%"),
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// Adds bytes as a URL may have them: letters, digits, a few others and `kept` as they are.
fn escape(target: &mut String, bytes: &[u8], kept: &[u8]) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~:@!$*,;".contains(byte) || kept.contains(byte) {
            target.push(char::from(*byte));
        } else {
            let _ = write!(target, "%{byte:02X}");
        }
    }
}
