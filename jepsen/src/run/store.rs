//! The directory of a run: `DIR/<test>/<time>/{history.jsonl,test.json,results.json,logs/}`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Test {
    /// The test's name.
    pub name: String,
    /// The command line that repeats it.
    pub command: Vec<String>,
    /// The version of the program under test, as it says itself.
    pub version: String,
    /// The commit that this program was started in, if any.
    pub commit: String,
    /// When it began.
    pub date: String,
    /// What decided everything random.
    pub seed: u64,
    /// The nodes.
    pub nodes: Vec<TestNode>,
    /// `root` or `local`.
    pub mode: String,
    /// How much of what.
    pub options: serde_json::Value,
    /// The kinds of attack.
    pub nemeses: Vec<String>,
    /// Those that were asked for and could not be had.
    pub missing: Vec<Missing>,
}

/// A node of a test.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TestNode {
    /// `n1`, …
    pub name: String,
    /// Where clients reach it.
    pub client: String,
    /// Where its peers reach it.
    pub peer: String,
}

/// A kind of attack that does not work here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Its name.
    pub fault: String,
    /// What is missing, and how to get it.
    pub why: String,
}

/// The directory of one run.
#[derive(Clone, Debug)]
pub struct Store {
    /// Where it is.
    pub directory: PathBuf,
}

impl Store {
    /// Makes a new one.
    ///
    /// # Errors
    ///
    /// When it is there already, or cannot be made.
    pub fn create(root: &Path, test: &str, time: &str) -> Result<Store, String> {
        let directory = root.join(test).join(time);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => format!(
                "{} is there already, and is not overwritten: take another --store",
                directory.display()
            ),
            _ => format!("{}: {error}", directory.display()),
        };
        fs::create_dir_all(root.join(test)).map_err(failed)?;
        fs::create_dir(&directory).map_err(failed)?;
        let directory = fs::canonicalize(&directory).map_err(failed)?;
        Ok(Store { directory })
    }

    /// The history.
    #[must_use]
    pub fn history(&self) -> PathBuf {
        self.directory.join("history.jsonl")
    }

    /// Writes a JSON file.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, name: &str, value: &impl Serialize) -> Result<(), String> {
        let path = self.directory.join(name);
        let text = serde_json::to_string_pretty(value).map_err(|error| error.to_string())?;
        fs::write(&path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))
    }
}
