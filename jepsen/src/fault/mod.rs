//! Faults against running Folkmoot nodes: one file a fault, used by `folkmoot-jepsen run`, by
//! `folkmoot-jepsen fault`, and through that by `scripts/faults/`.
//!
//! ```text
//! a pid ──► Target ──► network::partition(…), power::cut(…), … ──► Plan ──► Active ──► healed
//!           is it a node?          says what it would do             inject   heal, or drop
//! ```
//!
//! Each fault is a function that makes a [`Plan`] and changes nothing, or refuses; a `probe` beside
//! it tries it for real on something that it makes for that purpose, and says what is missing. A
//! plan prints as exactly what it would do. What is injected is healed when its [`Active`] is
//! dropped, unless it is told to stay.
//!
//! Everything acts on one node: on a process known by its number and its start, in that process's
//! own network namespace, in an nft table of our own, on a file system that nothing else is on.
//! How many nodes may be hit at once is the caller's to decide.

pub mod clock;
pub mod delay;
pub mod disk;
pub mod files;
pub mod fsync;
pub mod full;
pub mod heal;
pub mod list;
pub mod minority;
pub mod network;
pub mod plan;
pub mod power;
pub mod signal;
pub mod stall;
pub mod target;
pub mod tool;

use std::io;

pub use plan::{Active, Plan, Step};
pub use target::Target;

/// What a fault needs and this machine has not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {how}")]
pub struct Missing {
    /// What is missing.
    pub what: String,
    /// How to get it.
    pub how: String,
}

impl Missing {
    pub(crate) fn new(what: impl Into<String>, how: impl Into<String>) -> Missing {
        Missing { what: what.into(), how: how.into() }
    }
}

/// Why a fault was not injected, or not healed.
#[derive(Debug, thiserror::Error)]
pub enum FaultError {
    /// It would hit something that it was not pointed at.
    #[error("refused: {0}")]
    Refused(String),
    /// This machine lacks something.
    #[error("missing: {0}")]
    Missing(#[from] Missing),
    /// A tool failed.
    #[error("{command}: {said}")]
    Tool {
        /// What was run.
        command: String,
        /// What it said.
        said: String,
    },
    /// A call of the system failed.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        error: io::Error,
    },
}

impl FaultError {
    /// For probes: what failed is missing, and this is how to get it.
    pub(crate) fn missing(self, how: &str) -> Missing {
        match self {
            FaultError::Missing(missing) => missing,
            FaultError::Tool { command, said } => {
                let first = said.lines().next().unwrap_or_default();
                Missing::new(format!("`{command}` failed: {first}"), how)
            }
            other => Missing::new(other.to_string(), how),
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> FaultError {
        let what = what.into();
        move |error| FaultError::Io { what, error }
    }
}
