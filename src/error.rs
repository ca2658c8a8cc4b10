//! What can go wrong with a request: one table of codes, and the error that carries one.
//!
//! Three fates (ARCHITECTURE, "Errors"). A *rejection* is a deterministic no from `chat`, the same
//! on every replica. An *error* failed here: it says whether the request may have been applied all
//! the same, and whether trying again can help. *Fatal* is storage or a broken invariant: the node
//! stops. HTTP status, gRPC status, the client's retry and the harness's `fail` or `info` all
//! follow from this table (`gateway/status.rs` has the wire side).

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, temporary: $temporary:literal;)*) => {
        /// What went wrong, as clients and scripts match on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The code on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// Whether the same request may succeed later.
            pub fn temporary(self) -> bool {
                match self { $(Code::$name => $temporary,)* }
            }
        }
    };
}

codes! {
    // Rejections, decided by `chat`, and by the gateway before anything is proposed.
    /// A field is missing, malformed or out of range.
    InvalidArgument = "invalid_argument", temporary: false;
    /// A cursor is malformed or beyond the room's head.
    InvalidCursor = "invalid_cursor", temporary: false;
    /// The text or body is over the limit.
    TooLarge = "too_large", temporary: false;
    /// There is no such room, or the caller may not know of it.
    RoomNotFound = "room_not_found", temporary: false;
    /// There is no such user.
    UserNotFound = "user_not_found", temporary: false;
    /// There is no such event in the room.
    EventNotFound = "event_not_found", temporary: false;
    /// There is no such resource.
    NotFound = "not_found", temporary: false;
    /// The id is taken, by something that differs from the request.
    AlreadyExists = "already_exists", temporary: false;
    /// The caller must join the room first.
    NotParticipant = "not_participant", temporary: false;
    /// The caller is muted in the room.
    Muted = "muted", temporary: false;
    /// The caller is banned from the room.
    Banned = "banned", temporary: false;
    /// The caller's role does not allow it.
    Forbidden = "forbidden", temporary: false;
    /// The room is archived: it can be read, and nothing is added to it.
    Archived = "archived", temporary: false;
    /// The room is of a kind for which this makes no sense.
    WrongRoomKind = "wrong_room_kind", temporary: false;
    /// The request id was used before, with another body.
    IdReused = "id_reused", temporary: false;
    /// The request id is older than the dedup horizon.
    Expired = "expired", temporary: false;
    /// The request id's time is more than 5 minutes ahead: correct the clock and mint a new one.
    ClockSkew = "clock_skew", temporary: false;
    /// The event's body has been erased.
    Redacted = "redacted", temporary: false;
    /// A limit on how many there may be is reached.
    LimitReached = "limit_reached", temporary: false;
    /// The cluster exists already.
    AlreadyInitialized = "already_initialized", temporary: false;

    // The edge.
    /// The token is missing, malformed or unknown.
    Unauthenticated = "unauthenticated", temporary: false;
    /// The resource does not know this method.
    MethodNotAllowed = "method_not_allowed", temporary: false;
    /// The body is not of a type that is understood here.
    UnsupportedMediaType = "unsupported_media_type", temporary: false;

    // Errors: this attempt failed; another may not.
    /// The replica asked is not the shard's leader. Between nodes only.
    NotLeader = "not_leader", temporary: true;
    /// No leader or no replica of the shard can be reached.
    Unavailable = "unavailable", temporary: true;
    /// The deadline passed.
    Timeout = "timeout", temporary: true;
    /// A queue is full.
    Overloaded = "overloaded", temporary: true;
    /// The leader's disk is nearly full; reads go on.
    DiskFull = "disk_full", temporary: true;
    /// The node has not joined a cluster, or is not caught up.
    NotReady = "not_ready", temporary: true;
    /// The node is drained or stops.
    ShuttingDown = "shutting_down", temporary: true;
    /// The node has as many connections, or sessions and streams, as it takes.
    TooManyConnections = "too_many_connections", temporary: true;
    /// Too many requests, or attempts to sign in, in too short a time.
    RateLimited = "rate_limited", temporary: true;

    // Fatal for the node, or a bug.
    /// Something that should not happen; the node's log has more.
    Internal = "internal", temporary: false;
}

impl Code {
    /// The code with this wire text.
    pub fn parse(text: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

/// A request that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub code: Code,
    /// For a person: what, and what to do about it. Constant where it can be; never a secret.
    pub message: String,
    /// Whether the request may have taken effect all the same.
    pub may_have_applied: bool,
    /// When to try again, in milliseconds; `None` leaves it to the caller.
    pub retry_after_ms: Option<u64>,
    /// [`Code::ClockSkew`] only: the node's time, milliseconds since the Unix epoch.
    pub server_time_ms: Option<u64>,
}

impl Error {
    /// An error of an attempt that certainly had no effect.
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error {
            code,
            message: message.into(),
            may_have_applied: false,
            retry_after_ms: None,
            server_time_ms: None,
        }
    }

    /// The same error, of an attempt that may have had its effect.
    pub fn maybe_applied(mut self) -> Error {
        self.may_have_applied = true;
        self
    }

    /// The same error, with a time to try again.
    pub fn retry_after(mut self, ms: u64) -> Error {
        self.retry_after_ms = Some(ms);
        self
    }

    /// Whether the same request may succeed later.
    pub fn temporary(&self) -> bool {
        self.code.temporary()
    }

    /// A field that does not fit.
    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(Code::InvalidArgument, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.as_str())
    }
}

impl std::error::Error for Error {}

impl From<crate::id::InvalidId> for Error {
    fn from(invalid: crate::id::InvalidId) -> Error {
        let code = match invalid {
            crate::id::InvalidId::Cursor(_) => Code::InvalidCursor,
            _ => Code::InvalidArgument,
        };
        Error::new(code, invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip_and_are_distinct() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
        assert_eq!(Code::parse("nonsense"), None);
    }
}
