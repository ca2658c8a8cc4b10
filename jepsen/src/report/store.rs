//! What a run left in its directory: the history, what ran (`test.json`), and what was found
//! (`results.json`). Both JSON files may be missing or of another version: whatever they do not
//! say is measured from the history, or said to be missing.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::check::{self, Options};
use crate::history::{self, History, ReadError};
use crate::report::timeline::Violation;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The directory is not one of a run.
    #[error(
        "{}: there is no history.jsonl in it: name the directory of one run, as in STORE/TEST/TIME",
        .0.display()
    )]
    NoHistory(PathBuf),
    /// A page shows one run.
    #[error(
        "a page shows one run, and {0} directories are named: leave the others away, or use --row"
    )]
    Several(usize),
    /// The directory has no results.
    #[error("{}: {why}: a row is made of test.json and results.json, which a run writes", directory.display())]
    NoResults {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with them.
        why: String,
    },
    /// The history is malformed; without it there is nothing to show.
    #[error("{}: {error}", path.display())]
    History {
        /// The history's file.
        path: PathBuf,
        /// What is wrong, and where.
        error: ReadError,
    },
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// A run, as its directory has it.
#[derive(Debug)]
pub struct Run {
    /// What clients saw.
    pub history: History,
    /// `test.json`: what ran; null when nobody knows.
    pub test: Value,
    /// `results.json`: what was found.
    pub results: Value,
    /// What the reader should know of how this came to be.
    pub notes: Vec<String>,
}

impl Run {
    /// Reads a run's directory. Judges the history when nobody has.
    ///
    /// # Errors
    ///
    /// [`ReportError`] when there is no history, or it is malformed.
    pub fn read(directory: &Path) -> Result<Run, ReportError> {
        let path = directory.join("history.jsonl");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(ReportError::NoHistory(directory.into()));
            }
            Err(error) => return Err(ReportError::File { path, error }),
        };
        let history = history::read(BufReader::with_capacity(1 << 20, file));
        let history = history.map_err(|error| ReportError::History { path, error })?;
        let mut notes = Vec::new();
        let test = object(directory, "test.json").unwrap_or_else(|why| {
            notes.push(format!("{why}: what ran, with which seed and which faults, is not known."));
            Value::Null
        });
        let results =
            object(directory, "results.json").and_then(|results| match results["counts"]["lines"]
                .as_u64()
            {
                Some(lines) if lines == history.len() as u64 => Ok(results),
                _ => Err("results.json is not of this history".into()),
            });
        let results = results.unwrap_or_else(|why: String| {
            notes.push(format!("{why}: the history was judged anew for this report."));
            judge(&history)
        });
        Ok(Run { history, test, results, notes })
    }

    /// A run that was just judged: `results` has at least what `check --json` writes.
    #[must_use]
    pub fn new(history: History, test: Value, results: Value) -> Run {
        Run { history, test, results, notes: vec![] }
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        let violations = self.results["violations"].as_array();
        let each = violations.into_iter().flatten();
        each.filter_map(|violation| serde_json::from_value(violation.clone()).ok()).collect()
    }

    /// How often an anomaly occurs.
    pub(super) fn anomaly(&self, name: &str) -> u64 {
        self.results["anomalies"][name].as_u64().unwrap_or(0)
    }
}

fn judge(history: &History) -> Value {
    json!(check::check(history, &Options::default()))
}

/// A file with a JSON object, or why there is none.
pub(super) fn object(directory: &Path, name: &str) -> Result<Value, String> {
    let text = match std::fs::read(directory.join(name)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("There is no {name}"));
        }
        Err(error) => return Err(format!("{name} cannot be read ({error})")),
    };
    match serde_json::from_slice(&text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(format!("{name} is no JSON object")),
        Err(error) => Err(format!("{name} is malformed ({error})")),
    }
}
