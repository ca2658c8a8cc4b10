//! The directory of a run: `DIR/<test>/<time>/{history.jsonl,test.json,results.json,logs/}`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::history::{self, History};

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
    /// Directories above it that were made for it, the outermost first.
    made: Vec<PathBuf>,
}

impl Store {
    /// One that is there already.
    #[must_use]
    pub fn open(directory: &Path) -> Store {
        Store { directory: directory.to_owned(), made: vec![] }
    }

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
        let above = std::path::absolute(root.join(test)).map_err(failed)?;
        let made = above.ancestors().take_while(|above| !above.exists()).map(Path::to_owned);
        let made: Vec<_> = made.collect();
        fs::create_dir_all(&above).map_err(failed)?;
        fs::create_dir(&directory).map_err(failed)?;
        let directory = fs::canonicalize(&directory).map_err(failed)?;
        Ok(Store { directory, made: made.into_iter().rev().collect() })
    }

    /// Removes the nodes' data, whose disks must be unmounted by now.
    pub fn remove_data(&self) {
        // Without nodes there is none; and what is left harms nobody.
        let _ = fs::remove_dir_all(self.directory.join("data"));
    }

    /// Removes all of it, where nothing was recorded that would say what happened: no history, and
    /// no word of a node. Whether it is gone.
    pub fn remove_if_empty(&self) -> bool {
        let says = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
        let logs = fs::read_dir(self.directory.join("logs")).into_iter().flatten().flatten();
        if says(&self.history()) || logs.into_iter().any(|entry| says(&entry.path())) {
            return false;
        }
        self.remove()
    }

    /// Removes all of it, and what was made above it if nothing else is there; whether it is gone.
    pub fn remove(&self) -> bool {
        let gone = fs::remove_dir_all(&self.directory).is_ok();
        for above in self.made.iter().rev() {
            // Another run may have come here meanwhile.
            let _ = fs::remove_dir(above);
        }
        gone
    }

    /// The history.
    #[must_use]
    pub fn history(&self) -> PathBuf {
        self.directory.join("history.jsonl")
    }

    /// What the history has.
    ///
    /// # Errors
    ///
    /// When it is not there, or malformed.
    pub fn read_history(&self) -> Result<History, String> {
        let path = self.history();
        let file = fs::File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        history::read(io::BufReader::with_capacity(1 << 20, file))
            .map_err(|error| format!("{}: {error}", path.display()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_there_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::create(root.path(), "calm", "now").unwrap();
        fs::write(store.history(), "x").unwrap();
        let said = Store::create(root.path(), "calm", "now").unwrap_err();
        assert!(said.contains("is there already") && said.contains("--store"), "{said}");
        assert_eq!(fs::read_to_string(store.history()).unwrap(), "x");
    }

    #[test]
    fn what_was_made_for_a_store_goes_with_it_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (deep, test) = (root.path().join("a/b"), root.path().join("a/b/calm"));
        let first = Store::create(&deep, "calm", "1").unwrap();
        let second = Store::create(&deep, "calm", "2").unwrap();
        assert!(first.remove_if_empty());
        assert!(test.is_dir(), "another run is there");
        fs::write(second.history(), "").unwrap();
        assert!(second.remove_if_empty());
        assert!(Store::create(&deep, "calm", "3").unwrap().remove());
        assert!(test.is_dir(), "the third did not make it");
        fs::remove_dir_all(root.path().join("a")).unwrap();
        assert!(Store::create(&deep, "calm", "4").unwrap().remove());
        assert!(!root.path().join("a").exists() && root.path().is_dir());
    }

    #[test]
    fn what_was_recorded_stays() {
        let root = tempfile::tempdir().unwrap();
        for (n, name) in ["history.jsonl", "logs/n1.log"].iter().enumerate() {
            let store = Store::create(root.path(), "calm", &n.to_string()).unwrap();
            fs::create_dir_all(store.directory.join("logs")).unwrap();
            fs::create_dir_all(store.directory.join("data")).unwrap();
            fs::write(store.directory.join(name), "x").unwrap();
            store.remove_data();
            assert!(!store.remove_if_empty() && store.directory.join(name).exists());
            assert!(!store.directory.join("data").exists());
        }
    }
}
