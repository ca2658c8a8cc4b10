//! How a command fails, and what the program then says and returns.

use std::fmt;
use std::process::ExitCode;

use crate::cli::{EXIT_INTERRUPTED, EXIT_USAGE};
use crate::error::{Code, Error};

/// What a command returns.
pub(super) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The arguments make no sense together.
    Usage(String),
    /// The cluster said no, or could not be reached. `json`: say it as JSON.
    Call { error: Error, json: bool },
    /// Anything else, in words for a person.
    Failed(String),
    /// A person, or another program, did not want to wait for the end.
    Interrupted(String),
    /// The reader of standard output went away; there is nobody to tell.
    OutputClosed,
}

impl Failure {
    /// A failure in words.
    pub(super) fn failed(message: impl Into<String>) -> Failure {
        Failure::Failed(message.into())
    }

    /// Says on standard error what is wrong, and returns the exit code.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Failure::OutputClosed => return ExitCode::SUCCESS,
            Failure::Call { error, json: true } => {
                let mut object = serde_json::json!({
                    "code": error.code.as_str(),
                    "message": error.message,
                    "temporary": error.temporary(),
                    "may_have_applied": error.may_have_applied,
                });
                for (field, ms) in [
                    ("retry_after_ms", error.retry_after_ms),
                    ("server_time_ms", error.server_time_ms),
                ] {
                    if let Some(ms) = ms {
                        object[field] = ms.into();
                    }
                }
                eprintln!("{}", serde_json::json!({ "error": object }));
            }
            other => eprintln!("folkmoot: {other}"),
        }
        match self {
            Failure::Usage(_) => ExitCode::from(EXIT_USAGE),
            Failure::Interrupted(_) => ExitCode::from(EXIT_INTERRUPTED),
            _ => ExitCode::FAILURE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(message) | Failure::Failed(message) | Failure::Interrupted(message) => {
                f.write_str(message)
            }
            Failure::Call { error, .. } => {
                write!(f, "{error}")?;
                if error.may_have_applied {
                    f.write_str("; it may have taken effect all the same")?;
                }
                f.write_str(hint(error.code))
            }
            Failure::OutputClosed => f.write_str("standard output was closed"),
        }
    }
}

/// What the user of the command line can do about it.
fn hint(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated => "\nGive a token with --token or FOLKMOOT_TOKEN.",
        Code::NotParticipant => "\nJoin with: folkmoot room join ROOM",
        Code::Unavailable => "\nIs the node running, and --server (or FOLKMOOT_SERVER) right?",
        _ => "",
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Call { error, json: false }
    }
}

impl From<std::io::Error> for Failure {
    /// Of writing to standard output; other operations say what they were about.
    fn from(error: std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Failed(format!("cannot write: {error}")),
        }
    }
}
