//! What one gateway takes from its clients: the operator's side of `crate::limits`.
//!
//! Made by `node.rs` from the configuration; every bound on memory or time that a client could
//! stretch is here or in `crate::limits`.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::gateway::oidc::Providers;
use crate::gateway::rates::RateLimits;
use crate::limits;

/// One request of a session, in bytes: enough to tell a text that is too long from abuse.
pub const SESSION_MESSAGE_BYTES_MAX: usize = 2 * limits::TEXT_BYTES_MAX;
/// One frame that a client sends over a WebSocket, in bytes: the longest text with every character
/// outside ASCII escaped (12 bytes of JSON for 4 of UTF-8), and the fields around it.
pub const FRAME_BYTES_MAX: usize = 3 * limits::TEXT_BYTES_MAX + 8 * 1024;
/// What a client sends over a WebSocket before it has signed in, in bytes: a token may be a JWT with many
/// groups.
pub const FIRST_FRAME_BYTES_MAX: usize = 16 * 1024;
/// What a WebSocket reads at once, in bytes. The buffer is there even when nothing comes.
pub const WEBSOCKET_READ_BYTES: usize = 2 * 1024;
/// What a WebSocket gathers before it writes, in bytes. The buffer stays as large as it was once.
pub const WEBSOCKET_WRITE_BYTES: usize = 4 * 1024;
/// What a WebSocket sends as one piece, in bytes: longer messages go out in several.
pub const WEBSOCKET_PIECE_BYTES: usize = 4 * 1024;
/// What a WebSocket holds encoded that its client does not take, in bytes.
pub const WEBSOCKET_UNSENT_BYTES_MAX: usize = 64 * 1024;
/// A frame's `ref`, in bytes.
pub const REF_BYTES_MAX: usize = 64;
/// Batches of responses between a session and its HTTP/2 stream.
pub const SESSION_BATCHES_MAX: usize = 4;
/// Events in one `Delivery`.
pub const DELIVERY_EVENTS_MAX: usize = 256;
/// Encoded events in one `Delivery`, in bytes; a delivery holds at least one event.
pub const DELIVERY_BYTES_MAX: usize = 256 * 1024;
/// Events in one `ExportResponse`.
pub const EXPORT_EVENTS_MAX: usize = 500;
/// Requests at once on one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 256;
/// What a client may send ahead on one HTTP/2 stream, in bytes.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// What a client may send ahead on one HTTP/2 connection, in bytes.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// Response bytes that one HTTP/2 stream may buffer.
pub const HTTP2_SEND_BYTES_MAX: usize = 256 * 1024;
/// Bodies of all requests that are arriving at one time, in bytes.
pub const BODIES_BYTES_MAX: usize = 128 * 1024 * 1024;
/// A request's headers, in bytes.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Connections beyond the limit that get an answer at once; the others are just closed.
pub const REFUSALS_MAX: usize = 64;
/// Verified tokens that are remembered.
pub const TOKEN_CACHE_MAX: usize = 16 * 1024;
/// One that was not used for this long makes room for another.
pub const TOKEN_UNUSED_MAX: Duration = Duration::from_secs(10);
/// Passwords that are hashed at once; each takes 19 MiB, and a core for some 20 ms.
pub const PASSWORDS_AT_ONCE: usize = 2;
/// Passwords that wait for that; one more is answered `overloaded`.
pub const PASSWORDS_WAITING_MAX: usize = 64;
/// Uses of sessions that are being told to their shards.
pub const TOUCHES_MAX: usize = 32;

/// Who may make an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// Nobody: administrators create users.
    Closed,
    /// Whoever has an invite.
    Invite,
    /// Everybody.
    Open,
}

/// What an operator may set about accounts.
#[derive(Debug, Clone)]
pub struct AccountLimits {
    /// Who may make an account.
    pub registration: Registration,
    /// A session ends after so much time without use.
    pub session_idle: Duration,
    /// A session ends after so much time.
    pub session_max: Duration,
    /// Whether a proxy's word counts for where a request came from: `X-Forwarded-For` and
    /// `X-Forwarded-Proto`.
    pub behind_proxy: bool,
    /// By whom people may sign in.
    pub oidc: Arc<Providers>,
}

impl AccountLimits {
    /// A session's time, in milliseconds.
    pub fn session_max_ms(&self) -> u64 {
        u64::try_from(self.session_max.as_millis()).unwrap_or(u64::MAX)
    }

    /// A session's time without use, in milliseconds.
    pub fn session_idle_ms(&self) -> u64 {
        u64::try_from(self.session_idle.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for AccountLimits {
    fn default() -> AccountLimits {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        AccountLimits {
            registration: Registration::Closed,
            session_idle: 30 * DAY,
            session_max: 91 * DAY,
            behind_proxy: false,
            oidc: Arc::default(),
        }
    }
}

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct GatewayLimits {
    /// Client connections at once; one more is answered `too_many_connections`.
    pub connections_max: usize,
    /// Sessions, WebSockets, event streams and long polls at once; one more is answered
    /// `too_many_connections`.
    pub sessions_max: usize,
    /// Rooms that one session may follow; one more is answered `limit_reached`.
    pub follows_per_session_max: usize,
    /// Responses that may be owed to a session at once: posts in flight, follows that are
    /// starting, and answers not yet taken. Nothing more is read from it meanwhile.
    pub posts_in_flight_per_session_max: usize,
    /// How often requests may be made; one more is answered `rate_limited`.
    pub rates: RateLimits,
    /// A message's text, in bytes; at most [`limits::TEXT_BYTES_MAX`].
    pub text_bytes_max: usize,
    /// For how long a request's headers may take to arrive; also the time for which an HTTP/1
    /// connection may idle, and for which a WebSocket may be open before its client signs in.
    pub header_read_timeout: Duration,
    /// For how long a request's body may take to arrive. Sessions have no such bound.
    pub body_read_timeout: Duration,
    /// After which silence an HTTP/2 connection, or a WebSocket, is asked whether it is alive, and
    /// how long the answer may take. A WebSocket whose client takes nothing is closed after twice
    /// as long.
    pub keep_alive: Duration,
    /// Time between heartbeats on an event stream.
    pub heartbeat: Duration,
    /// For how long requests may go on after a shutdown began.
    pub drain_timeout: Duration,
    /// Accounts.
    pub accounts: AccountLimits,
}

impl Default for GatewayLimits {
    fn default() -> GatewayLimits {
        GatewayLimits {
            connections_max: 10_000,
            sessions_max: 20_000,
            follows_per_session_max: 1_000,
            posts_in_flight_per_session_max: 256,
            rates: RateLimits::default(),
            text_bytes_max: limits::TEXT_BYTES_MAX,
            header_read_timeout: Duration::from_secs(30),
            body_read_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(20),
            heartbeat: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(5),
            accounts: AccountLimits::default(),
        }
    }
}

/// The limits in force, which an operator may change while the gateway serves. New connections and
/// requests heed a change; what is under way, or followed, beyond a smaller limit goes on.
#[derive(Debug, Clone, Default)]
pub struct SharedLimits(Arc<RwLock<Arc<GatewayLimits>>>);

impl SharedLimits {
    /// Begins with these.
    pub fn new(limits: GatewayLimits) -> SharedLimits {
        SharedLimits(Arc::new(RwLock::new(Arc::new(limits))))
    }

    /// Those in force now.
    pub fn get(&self) -> Arc<GatewayLimits> {
        self.0.read().expect("no holder of the lock panics").clone()
    }

    /// Puts others in force.
    pub fn set(&self, limits: GatewayLimits) {
        *self.0.write().expect("no holder of the lock panics") = Arc::new(limits);
    }
}

const _: () = assert!(EXPORT_EVENTS_MAX <= limits::PAGE_ITEMS_MAX);
// Between two looks at whether the client takes anything.
const _: () =
    assert!(WEBSOCKET_UNSENT_BYTES_MAX > 2 * (WEBSOCKET_WRITE_BYTES + WEBSOCKET_PIECE_BYTES));
