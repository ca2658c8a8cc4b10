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
    /// The cluster said no, or could not be reached.
    Call(Error),
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

    /// Says on standard error what is wrong, and returns the exit code. `json`: for a program.
    pub(super) fn report(&self, json: bool) -> ExitCode {
        match self {
            Failure::OutputClosed => return ExitCode::SUCCESS,
            failure if json => eprintln!("{}", serde_json::json!({ "error": failure.to_json() })),
            failure => eprintln!("folkmoot: {failure}"),
        }
        match self {
            Failure::Usage(_) => ExitCode::from(EXIT_USAGE),
            Failure::Interrupted(_) => ExitCode::from(EXIT_INTERRUPTED),
            _ => ExitCode::FAILURE,
        }
    }

    /// As an object: `code` and `message` always.
    fn to_json(&self) -> serde_json::Value {
        let code = match self {
            Failure::Call(error) => return error_json(error),
            Failure::Usage(_) => "usage",
            Failure::Interrupted(_) => "interrupted",
            Failure::Failed(_) | Failure::OutputClosed => "failed",
        };
        serde_json::json!({ "code": code, "message": self.to_string() })
    }
}

fn error_json(error: &Error) -> serde_json::Value {
    let mut object = serde_json::json!({
        "code": error.code.as_str(),
        "message": error.message,
        "temporary": error.temporary(),
        "may_have_applied": error.may_have_applied,
    });
    let times =
        [("retry_after_ms", error.retry_after_ms), ("server_time_ms", error.server_time_ms)];
    for (field, ms) in times {
        if let Some(ms) = ms {
            object[field] = ms.into();
        }
    }
    object
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(message) | Failure::Failed(message) | Failure::Interrupted(message) => {
                f.write_str(message)
            }
            Failure::Call(error) => {
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
        Failure::Call(error)
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
