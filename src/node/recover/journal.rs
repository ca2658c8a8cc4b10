//! Says that a recovery was begun: `recover.json` in the data directory, from before anything is
//! changed until all is.
//!
//! A node does not start while it is there, and who recovers again goes on with what it says.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::store::identity::{Refusal, replace};

const FILE: &str = "recover.json";
const VERSION: u32 = 1;

/// A recovery that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    version: u32,
    /// The new cluster's id: 32 hex digits.
    pub cluster_id: String,
    /// The id of the cluster that was lost.
    pub lost_cluster_id: String,
    /// Shards that begin empty, as the operator accepted.
    pub lost_shards: Vec<u16>,
}

impl Journal {
    /// One for a new cluster.
    pub fn new(lost_cluster_id: String, lost_shards: Vec<u16>) -> Journal {
        let cluster_id = uuid::Uuid::from_bytes(rand::random()).simple().to_string();
        Journal { version: VERSION, cluster_id, lost_cluster_id, lost_shards }
    }

    /// The new cluster's id, as bytes.
    pub fn recovery(&self) -> [u8; 16] {
        let id = uuid::Uuid::try_parse(&self.cluster_id);
        id.expect("checked when it was read").into_bytes()
    }

    /// The journal in a data directory, if there is one.
    ///
    /// # Errors
    /// `InvalidData` when it is damaged; or why it cannot be read.
    pub fn read(directory: &Path) -> io::Result<Option<Journal>> {
        let text = match fs::read(directory.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = |why: String| {
            let why = format!("{FILE} is damaged, or of a newer release: {why}");
            io::Error::new(io::ErrorKind::InvalidData, why)
        };
        let journal: Journal =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if journal.version != VERSION || uuid::Uuid::try_parse(&journal.cluster_id).is_err() {
            return Err(damaged(format!("version {}", journal.version)));
        }
        Ok(Some(journal))
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn write(&self, directory: &Path) -> Result<(), Refusal> {
        let text = serde_json::to_string_pretty(self).expect("strings and numbers are JSON");
        replace(directory, FILE, format!("{text}\n").as_bytes())
    }

    /// Removes it, durably.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn remove(directory: &Path) -> io::Result<()> {
        fs::remove_file(directory.join(FILE))?;
        File::open(directory)?.sync_all()
    }

    /// Whether there is one, readable or not.
    pub fn exists(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }
}
