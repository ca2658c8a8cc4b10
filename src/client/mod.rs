//! The Rust client: typed calls with safe retries, and live sessions that survive failover.
//!
//! Used by the command line, the tests and the harness. It knows the wire (`proto`) and the
//! leaves, nothing of the server.
//!
//! ```text
//! Client ──► Retrier ──► one attempt on one server ──► ok │ rejection ──► caller
//!   │           ▲                                          │
//!   │           └── same request id, next server, backoff ◄┘ temporary error, until the deadline
//!   └─► Session ──► driver task ──► one bidirectional stream on one server
//!          posts: resent with the same id on the next stream    follows: resumed by cursor
//! ```
//!
//! A request id (UUIDv7) is minted once for a call and stays the same however often the call is
//! tried, so a retry never applies twice. The one exception is `clock_skew` before any attempt
//! that may have been applied: then the clock offset is corrected and a new id minted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;

use crate::error::Error;

mod accounts;
mod admin;
mod cluster;
mod mint;
mod moderation;
mod retry;
mod rooms;
mod servers;
pub mod session;
mod users;
mod wire;

pub use rooms::{Export, Post};
pub use session::{Delivered, Follow, Session};

/// How a client finds its cluster and how long it tries.
#[derive(Clone)]
pub struct ClientOptions {
    /// Client addresses of nodes, `http://host:port` or `host:port`; the first is tried first.
    pub servers: Vec<String>,
    /// The bearer token; `None` for calls that need none.
    pub token: Option<String>,
    /// How long a call is retried before its last error is returned. Default 30 s.
    pub deadline: Duration,
    /// How long one attempt may take before another server is tried. Default 6 s.
    pub attempt_timeout: Duration,
    /// The first delay between attempts; it doubles, with jitter. Default 20 ms.
    pub backoff_min: Duration,
    /// The longest delay between attempts. Default 1 s.
    pub backoff_max: Duration,
    /// A session whose server says nothing for this long, not even to pings, moves to the next
    /// one. Default 3 s.
    pub silence_max: Duration,
    /// Unacknowledged posts of one session; further ones wait. Default 1,024.
    pub posts_in_flight_max: usize,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            servers: Vec::new(),
            token: None,
            deadline: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(6),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            silence_max: Duration::from_secs(3),
            posts_in_flight_max: 1024,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("servers", &self.servers)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// A client of one cluster. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    token: Option<MetadataValue<Ascii>>,
}

struct Shared {
    options: ClientOptions,
    servers: servers::Servers,
    mint: mint::Mint,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client; each server is connected to when it is first needed. Needs to be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// `invalid_argument` when there is no server, an address is not one, or the token is not
    /// printable ASCII.
    pub fn connect(options: ClientOptions) -> Result<Client, Error> {
        let servers = servers::Servers::new(&options)?;
        let token = options.token.as_deref().map(bearer).transpose()?;
        let shared = Shared { options, servers, mint: mint::Mint::default() };
        Ok(Client { shared: Arc::new(shared), token })
    }

    /// The same connections with another token.
    ///
    /// # Errors
    /// `invalid_argument` when the token is not printable ASCII.
    pub fn with_token(&self, token: &str) -> Result<Client, Error> {
        Ok(Client { shared: self.shared.clone(), token: Some(bearer(token)?) })
    }

    /// The options that this client was made with.
    pub fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    /// A request id that no other call has; its time is corrected for clock skew once that is
    /// known.
    pub fn mint_id(&self) -> crate::id::RequestId {
        self.shared.mint.next()
    }

    /// Wraps a message with what every request carries.
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }

    fn channel(&self, server: usize) -> Channel {
        self.shared.servers.channel(server)
    }
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, Error> {
    let mut value = MetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Error::invalid("a token is printable ASCII; this one is not"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
