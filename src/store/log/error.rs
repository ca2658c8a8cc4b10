//! Why a log does not open, and what a failed call means.

use std::io;
use std::path::{Path, PathBuf};

use super::state::Unreadable;

/// Why a log was not opened. Nothing on disk was changed, except that a torn end may be cut off.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Something is missing that had been acknowledged. Fatal for the node under its id: it might
    /// vote against its own earlier vote, or help a leader that lacks a committed entry.
    #[error(
        "the Raft log in {} is damaged: {why}. Something that this node had acknowledged is lost, \
         so it must not vote again under its id. The other nodes have the data: remove this node \
         from the cluster, move its data directory away, and let it join again under a new id",
        directory.display()
    )]
    Lost {
        /// The log's directory.
        directory: PathBuf,
        /// What was found.
        why: String,
    },
    /// A later release wrote here.
    #[error(
        "the Raft log in {} was written by a newer release: {why}. Start that release, or a later \
         one, here",
        directory.display()
    )]
    Newer {
        /// The log's directory.
        directory: PathBuf,
        /// What was found.
        why: String,
    },
    /// The disk or the file system failed.
    #[error(
        "cannot read the Raft log: {}: {source}. Nothing in it was changed: mend the cause, and \
         start again. If the disk has failed, the other nodes have the data: remove this node from \
         the cluster, and let it join again under a new id on another disk",
        path.display()
    )]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is wrong with a log that raft-engine holds or should hold.
#[derive(Debug)]
pub(super) enum Problem {
    /// What is there is not what should be.
    Damaged(String),
    /// What is there could not be read.
    Io(io::Error),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Problem {
        match error.kind() {
            io::ErrorKind::InvalidData => Problem::Damaged(error.to_string()),
            _ => Problem::Io(error),
        }
    }
}

impl From<Problem> for io::Error {
    fn from(problem: Problem) -> io::Error {
        match problem {
            Problem::Damaged(why) => io::Error::new(io::ErrorKind::InvalidData, why),
            Problem::Io(error) => error,
        }
    }
}

impl OpenError {
    pub(super) fn from_problem(directory: &Path, problem: Problem) -> OpenError {
        match problem {
            Problem::Damaged(why) => OpenError::lost(directory, why),
            Problem::Io(source) => OpenError::Io { path: directory.into(), source },
        }
    }

    pub(super) fn lost(directory: &Path, why: impl ToString) -> OpenError {
        OpenError::Lost { directory: directory.into(), why: why.to_string() }
    }

    pub(super) fn unreadable(directory: &Path, why: &Unreadable) -> OpenError {
        match why {
            Unreadable::Newer(_) => {
                OpenError::Newer { directory: directory.into(), why: why.to_string() }
            }
            Unreadable::Malformed(_) => OpenError::lost(directory, why),
        }
    }
}

/// Whether a call failed for want of disk space: then the same call may succeed later. Any other
/// failure of the log is fatal.
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What raft-engine says, as the kind of error that callers can tell apart.
pub(super) fn from_engine(error: raft_engine::Error) -> io::Error {
    use raft_engine::Error;
    match error {
        Error::Io(e) => e,
        // Only said when a second file, too, had no room.
        Error::TryAgain(e) => io::Error::new(io::ErrorKind::StorageFull, e),
        Error::Corruption(e) => io::Error::new(io::ErrorKind::InvalidData, e),
        Error::Full => io::Error::new(io::ErrorKind::InvalidInput, "a batch is over 2 GiB"),
        other => io::Error::other(other.to_string()),
    }
}

/// A call that contradicts the log; nothing was written.
pub(super) fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        assert!(is_no_space(&io::Error::from_raw_os_error(28)));
        assert!(is_no_space(&from_engine(raft_engine::Error::TryAgain("nospace".into()))));
        assert!(!is_no_space(&io::Error::from_raw_os_error(5)));
        assert!(!is_no_space(&from_engine(raft_engine::Error::Corruption("x".into()))));
    }

    #[test]
    fn a_lost_log_says_what_to_do() {
        let text = OpenError::lost(Path::new("/d/log"), "it ends early").to_string();
        assert!(text.contains("/d/log is damaged: it ends early."), "{text}");
        assert!(text.contains("join again under a new id"), "{text}");
    }
}
