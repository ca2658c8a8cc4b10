//! A gateway on a real port, and HTTP/1.1 spoken by hand.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::fake::Fake;
use crate::chat::command::{Actor, Command, Request};
use crate::chat::event::EventKind;
use crate::clock::Clock;
use crate::gateway::Gateway;
use crate::gateway::auth::mint_token;
use crate::gateway::drain::Drain;
use crate::gateway::limits::{GatewayLimits, SharedLimits};
use crate::gateway::metrics;
use crate::id::{RequestId, RoomId, UserId};

/// The time at which these tests begin.
pub const NOW_MS: u64 = 1_700_000_000_000;

/// Stands, but for [`Server::pass`] and [`Server::set_clock`].
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn recorder() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| metrics::install().unwrap()).clone()
}

/// A running gateway with users `root` (an administrator), `ann` and `bob`, and room `general`,
/// which `ann` owns.
pub struct Server {
    pub address: SocketAddr,
    pub fake: Arc<Fake>,
    pub shutdown: CancellationToken,
    pub drain: Drain,
    pub limits: SharedLimits,
    pub root: String,
    pub ann: String,
    pub bob: String,
    pub serving: JoinHandle<()>,
    clock: Arc<TestClock>,
}

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of an error, after checking its shape.
    pub fn code(&self) -> String {
        let json = self.json();
        let error = json["error"].as_object().unwrap_or_else(|| panic!("no error: {json}"));
        assert!(error["message"].is_string() && error["temporary"].is_boolean());
        assert!(error["may_have_applied"].is_boolean());
        assert!(self.head.contains("content-type: application/json"));
        error["code"].as_str().unwrap().to_owned()
    }
}

impl Server {
    pub async fn start() -> Server {
        Server::with_limits(GatewayLimits::default()).await
    }

    pub async fn with_limits(limits: GatewayLimits) -> Server {
        let fake = Fake::new();
        let root = add_user(&fake, "root", true);
        let ann = add_user(&fake, "ann", false);
        let bob = add_user(&fake, "bob", false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let drain = Drain::new(shutdown.clone());
        let limits = SharedLimits::new(limits);
        let clock = Arc::new(TestClock(AtomicU64::new(NOW_MS)));
        let gateway = Gateway::new(
            Arc::new(fake.clone()),
            clock.clone(),
            limits.clone(),
            recorder(),
            drain.clone(),
        );
        let serving = tokio::spawn(gateway.serve(listener));
        let server =
            Server { address, fake, shutdown, drain, limits, root, ann, bob, serving, clock };
        let created = server
            .send(&server.ann, "POST", "/v1/rooms", r#"{"room":"general","kind":"public"}"#)
            .await;
        assert_eq!(created.status, 201);
        server
    }

    /// So much time passes, for the gateway and for the accounts.
    pub fn pass(&self, time: Duration) {
        let ms = time.as_millis() as u64;
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
        self.fake.pass(ms);
    }

    /// The gateway's clock is wrong from now on.
    pub fn set_clock(&self, now_ms: u64) {
        self.clock.0.store(now_ms, Ordering::SeqCst);
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a request with a JSON body, or none when it is empty.
    pub async fn send(&self, token: &str, method: &str, path: &str, body: &str) -> Reply {
        let mut headers = format!("authorization: Bearer {token}\r\n");
        if !body.is_empty() {
            headers.push_str("content-type: application/json\r\n");
        }
        self.send_raw(method, path, &headers, body.as_bytes()).await
    }

    pub async fn get(&self, token: &str, path: &str) -> Reply {
        self.send(token, "GET", path, "").await
    }

    /// Sends a request with these headers, on a connection of its own.
    pub async fn send_raw(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        let mut stream = self.connect().await;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may answer, and close, before it has read everything.
        let _ = stream.write_all(body).await;
        read_reply(&mut stream).await
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    /// Revokes all tokens of a user.
    pub fn revoke(&self, user: &str) {
        let user = UserId::parse(user).unwrap();
        let actor = Actor { user: user.clone(), admin: true };
        for token_hash in self.fake.tokens(&user) {
            let command = Command::RevokeToken { user: user.clone(), token_hash };
            let id = RequestId::mint(NOW_MS, rand::random());
            self.fake.apply(Request { actor: actor.clone(), id, command }).unwrap();
        }
    }

    /// Posts as `ann`; returns the seq.
    pub async fn post(&self, text: &str) -> u64 {
        let body = serde_json::json!({ "text": text }).to_string();
        let reply = self.send(&self.ann, "POST", "/v1/rooms/general/messages", &body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["seq"].as_u64().unwrap()
    }
}

fn add_user(fake: &Fake, user: &str, admin: bool) -> String {
    let user = UserId::parse(user).unwrap();
    let (token, hash) = mint_token(&user);
    let actor = Actor { user: user.clone(), admin: true };
    let command =
        Command::CreateUser { display_name: user.to_string(), user, admin, token_hash: Some(hash) };
    let id = RequestId::mint(NOW_MS, rand::random());
    fake.apply(Request { actor, id, command }).unwrap();
    token
}

/// A message of `ann`'s to `general`, past the gateway.
pub fn posted(text: &str) -> Request {
    let actor = Actor { user: UserId::parse("ann").unwrap(), admin: false };
    let command = Command::Post {
        room: RoomId::parse("general").unwrap(),
        kind: EventKind::Message,
        text: text.into(),
        reply_to: None,
        salt: [0; 16],
    };
    Request { actor, id: RequestId::mint(NOW_MS, rand::random()), command }
}

/// Reads a response until the server closes the connection.
pub async fn read_reply(stream: &mut TcpStream) -> Reply {
    let mut bytes = Vec::new();
    soon(async {
        let mut part = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut part).await {
            bytes.extend_from_slice(&part[..n]);
        }
    })
    .await;
    let text = String::from_utf8_lossy(&bytes);
    let end = text.find("\r\n\r\n").unwrap_or_else(|| panic!("no response: {text}"));
    let head = text[..end].to_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = bytes[end + 4..].to_vec();
    Reply { status, head, body }
}

/// Reads until the text so far fits.
pub async fn read_until(stream: &mut TcpStream, fits: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    soon(async {
        let mut part = [0; 4096];
        while !fits(&text) {
            let n = stream.read(&mut part).await.unwrap();
            assert!(n > 0, "closed after: {text}");
            text.push_str(&String::from_utf8_lossy(&part[..n]));
        }
    })
    .await;
    text
}

/// Fails when something takes longer than any of these tests should.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("this takes too long")
}

/// Waits until a condition holds.
pub async fn until(holds: impl Fn() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
