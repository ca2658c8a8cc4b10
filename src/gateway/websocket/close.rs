//! How a WebSocket ends, and what its client should do then.
//!
//! The hundreds of a close code say when to come back: 40xx at once, 41xx later, 44xx not before
//! something has changed. docs/protocol.md has the table; a test compares.

use crate::error::{Code, Error};

/// The node stops, or is drained: come back at once, to another node.
pub const DRAINED: u16 = 4000;
/// The client took nothing for too long: come back at once, with its cursors.
pub const TOO_SLOW: u16 = 4001;
/// Nothing was heard of the client for too long.
pub const SILENT: u16 = 4002;
/// Something the client needs does not work now: come back after `retry_after_ms`, or a while.
pub const UNAVAILABLE: u16 = 4100;
/// The node has as many clients as it takes: come back later, elsewhere.
pub const LIMIT: u16 = 4101;
/// The client does not speak the protocol.
pub const BAD_FRAME: u16 = 4400;
/// The token is missing, malformed, unknown, revoked, or not good for reading.
pub const UNAUTHENTICATED: u16 = 4401;

/// Every code, with the reason that goes with it unless there is an error.
#[cfg(test)]
pub const ALL: &[u16] =
    &[DRAINED, TOO_SLOW, SILENT, UNAVAILABLE, LIMIT, BAD_FRAME, UNAUTHENTICATED];

/// Why a WebSocket ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The client has closed it, or is gone.
    Gone,
    /// The client took nothing for too long.
    TooSlow,
    /// Nothing was heard of the client for too long.
    Silent,
    /// As the last frame says.
    Error(Error),
}

impl Ending {
    /// The close code; `None` when there is nobody to tell.
    pub fn code(&self) -> Option<u16> {
        match self {
            Ending::Gone => None,
            Ending::TooSlow => Some(TOO_SLOW),
            Ending::Silent => Some(SILENT),
            Ending::Error(error) => Some(match error.code {
                Code::ShuttingDown => DRAINED,
                Code::TooManyConnections => LIMIT,
                Code::Unauthenticated | Code::Forbidden => UNAUTHENTICATED,
                Code::Internal => UNAVAILABLE,
                _ if error.temporary() => UNAVAILABLE,
                _ => BAD_FRAME,
            }),
        }
    }

    /// The close frame's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Ending::Gone => "",
            Ending::TooSlow => "too_slow",
            Ending::Silent => "silent",
            Ending::Error(error) => error.code.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_a_code_that_says_when_to_come_back() {
        for code in Code::ALL {
            let closed = Ending::Error(Error::new(*code, "x")).code().unwrap();
            assert!(ALL.contains(&closed));
            let again = code.temporary() || *code == Code::Internal;
            assert_eq!(closed < 4400, again, "{code:?}");
        }
    }

    #[test]
    fn the_protocols_table_has_every_code() {
        let text = include_str!("../../../docs/protocol.md");
        let rows: Vec<u16> = text
            .lines()
            .filter_map(|line| line.strip_prefix("| 4")?.split(' ').next()?.parse().ok())
            .map(|rest: u16| 4000 + rest)
            .collect();
        assert_eq!(rows, ALL);
    }
}
