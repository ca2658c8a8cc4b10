//! The data directory, and whose it is.
//!
//! ```text
//!  <data>/LOCK                 held while a node runs; its content is the process id
//!  <data>/log/identity.json    cluster and node; written once, when the node learns them
//!  <data>/log/                 the Raft log
//!  <data>/rooms/               sled
//! ```
//!
//! The identity lies with the log, since it vouches for the votes there: what one is worth without
//! the other, [`Refusal`] tells. `node.rs` opens the directory first of all, before any port.
//!
//! **Invariant:** a known id never comes with a log that is not its own. [`DataDir::adopt`] creates
//! the empty log before the identity, so that an identity without a log means that the log is lost.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::log;
use crate::id::NodeId;

/// Version of the whole directory's layout. A release reads its own and older ones.
const VERSION: u32 = 1;

const LOCK: &str = "LOCK";
const IDENTITY: &str = "identity.json";

/// Whose a data directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster, by its random id; not empty.
    pub cluster_id: String,
    /// The node's id there, from 1.
    pub node_id: NodeId,
}

/// What the caller knows of the identity beforehand; `None` accepts any.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// The cluster that it must be.
    pub cluster_id: Option<String>,
    /// The node that it must be.
    pub node_id: Option<NodeId>,
}

/// Why a data directory is not used. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Another process has it.
    #[error(
        "another folkmoot process{} uses {}. Stop it, or give this node a data directory of its own",
        pid.map_or(String::new(), |pid| format!(" (pid {pid})")), directory.display()
    )]
    InUse {
        /// The data directory.
        directory: PathBuf,
        /// The other process, if it has said so.
        pid: Option<u32>,
    },
    /// The identity is there and the log is not.
    #[error(
        "{} belongs to node {} of cluster {}, but its Raft log is missing. Something that this node \
         had acknowledged may be lost, so it must not vote again under its id. If the log was moved, \
         put it back; else remove this node from the cluster, move its data directory away, and let \
         it join again under a new id",
        directory.display(), identity.node_id, identity.cluster_id
    )]
    LogLost {
        /// The data directory.
        directory: PathBuf,
        /// Whose it is.
        identity: Identity,
    },
    /// There is data, and no identity.
    #[error(
        "{} has data in {what}, but no {IDENTITY} in log/ that says whose. If it was moved, put it \
         back; else move the directory away, and let this node join under a new id", directory.display()
    )]
    IdentityLost {
        /// The data directory.
        directory: PathBuf,
        /// Where data was found.
        what: &'static str,
    },
    /// It is another node's, or another cluster's.
    #[error(
        "{} belongs to node {} of cluster {}, not to {wanted}. Give this node the right data \
         directory, or an empty one", directory.display(), found.node_id, found.cluster_id
    )]
    NotOurs {
        /// The data directory.
        directory: PathBuf,
        /// Whose it is.
        found: Identity,
        /// Whose it should be.
        wanted: String,
    },
    /// A later release wrote it.
    #[error(
        "{} was written by a newer release (format {found}; this one reads up to {VERSION}). Start \
         that release, or a later one, here", directory.display()
    )]
    Newer {
        /// The data directory.
        directory: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The identity file is not one.
    #[error(
        "{} does not say whose this directory is: {why}. Restore the file from a backup; if there \
         is none, remove this node from the cluster, move its data directory away, and let it join \
         again under a new id", path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file system refused.
    #[error(
        "cannot use {}: {source}. Check that it belongs to the user that runs the node, and that \
         the disk has free space", path.display()
    )]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A data directory, locked as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Option<Identity>,
    _lock: File,
}

/// The identity file, version 1.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Persisted {
    version: u32,
    cluster_id: String,
    node_id: u64,
}

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl DataDir {
    /// Opens a data directory, or makes one of an empty or missing directory, and locks it.
    ///
    /// # Errors
    /// [`Refusal`], whenever the directory may not be, or not wholly be, this node's.
    pub fn open(path: &Path, expected: &Expected) -> Result<DataDir, Refusal> {
        create_directory(path)?;
        let lock = lock(path)?;
        let mut dir = DataDir { path: path.into(), identity: None, _lock: lock };
        create_directory(&dir.log())?;
        create_directory(&dir.rooms())?;
        dir.identity = dir.read_identity()?;
        dir.check(expected)?;
        Ok(dir)
    }

    /// The data directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the Raft log is.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the state is.
    pub fn rooms(&self) -> PathBuf {
        self.path.join("rooms")
    }

    /// Whose it is; `None` until the node learns its id.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// Makes the directory this node's, durably. Called when the node learns its id, before it opens
    /// its log for the first time.
    ///
    /// # Errors
    /// [`Refusal::NotOurs`] when it is another's already.
    pub fn adopt(&mut self, identity: Identity) -> Result<(), Refusal> {
        if let Some(found) = &self.identity {
            return match *found == identity {
                true => Ok(()),
                false => Err(self.not_ours(found, &identity.describe())),
            };
        }
        let log = self.log();
        log::create(&log).map_err(|e| io_error(&log, e))?;
        self.write_identity(&identity)?;
        self.identity = Some(identity);
        Ok(())
    }

    /// Makes the directory another cluster's, durably: what it has is a new cluster's from here on,
    /// as after `cluster recover`.
    ///
    /// # Errors
    /// [`Refusal::Io`].
    pub fn rename(&mut self, identity: Identity) -> Result<(), Refusal> {
        self.write_identity(&identity)?;
        self.identity = Some(identity);
        Ok(())
    }

    fn check(&self, expected: &Expected) -> Result<(), Refusal> {
        let log = self.log();
        let Some(found) = &self.identity else { return self.check_fresh() };
        let other_cluster = expected.cluster_id.as_ref().is_some_and(|id| *id != found.cluster_id);
        let other_node = expected.node_id.is_some_and(|id| id != found.node_id);
        if other_cluster || other_node {
            return Err(self.not_ours(found, &expected.describe()));
        }
        if log::is_missing(&log).map_err(|e| io_error(&log, e))? {
            let (directory, identity) = (self.path.clone(), found.clone());
            return Err(Refusal::LogLost { directory, identity });
        }
        Ok(())
    }

    /// Without an identity there must be nothing, but what an interrupted [`DataDir::adopt`] left.
    fn check_fresh(&self) -> Result<(), Refusal> {
        let (log, rooms) = (self.log(), self.rooms());
        let lost = |what| Err(Refusal::IdentityLost { directory: self.path.clone(), what });
        if log::is_written(&log).map_err(|e| io_error(&log, e))? {
            return lost("log/");
        }
        let mut rows = std::fs::read_dir(&rooms).map_err(|e| io_error(&rooms, e))?;
        if rows.next().is_some() { lost("rooms/") } else { Ok(()) }
    }

    fn read_identity(&self) -> Result<Option<Identity>, Refusal> {
        let path = self.log().join(IDENTITY);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_error(&path, e)),
        };
        let unreadable = |why: String| Refusal::Unreadable { path: path.clone(), why };
        let Versioned { version } =
            serde_json::from_slice(&text).map_err(|e| unreadable(e.to_string()))?;
        if version > VERSION {
            return Err(Refusal::Newer { directory: self.path.clone(), found: version });
        }
        let file: Persisted =
            serde_json::from_slice(&text).map_err(|e| unreadable(e.to_string()))?;
        if file.version == 0 || file.cluster_id.is_empty() || file.node_id == 0 {
            return Err(unreadable("a field is empty or 0".into()));
        }
        Ok(Some(Identity { cluster_id: file.cluster_id, node_id: NodeId(file.node_id) }))
    }

    fn write_identity(&self, identity: &Identity) -> Result<(), Refusal> {
        let log = self.log();
        let file = Persisted {
            version: VERSION,
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id.0,
        };
        let text = serde_json::to_string_pretty(&file).map_err(|e| io_error(&log, e.into()))?;
        replace(&log, IDENTITY, format!("{text}\n").as_bytes())
    }

    fn not_ours(&self, found: &Identity, wanted: &str) -> Refusal {
        Refusal::NotOurs {
            directory: self.path.clone(),
            found: found.clone(),
            wanted: wanted.into(),
        }
    }
}

impl Identity {
    fn describe(&self) -> String {
        format!("node {} of cluster {}", self.node_id, self.cluster_id)
    }
}

impl Expected {
    fn describe(&self) -> String {
        let node = self.node_id.map(|id| format!("node {id}"));
        let cluster = self.cluster_id.as_ref().map(|id| format!("cluster {id}"));
        match (node, cluster) {
            (Some(node), Some(cluster)) => format!("{node} of {cluster}"),
            (node, cluster) => node.or(cluster).unwrap_or_default(),
        }
    }
}

/// Creates a directory that only the node's own user can look into, and makes its name durable.
fn create_directory(path: &Path) -> Result<(), Refusal> {
    let create = || {
        if path.is_dir() {
            return Ok(());
        }
        if path.exists() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    };
    create().map_err(|e| io_error(path, e))
}

fn lock(directory: &Path) -> Result<File, Refusal> {
    let path = directory.join(LOCK);
    // Not truncated: it may be another's, and is read then.
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = file.map_err(|e| io_error(&path, e))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(Refusal::InUse { directory: directory.into(), pid });
        }
        Err(e) => return Err(io_error(&path, e.into())),
    }
    let mut note = || {
        file.set_len(0)?;
        file.write_all(format!("{}\n", std::process::id()).as_bytes())
    };
    match note() {
        // The lock counts, the number is a courtesy.
        Err(e) if !log::is_no_space(&e) => Err(io_error(&path, e)),
        _ => Ok(file),
    }
}

/// Replaces a file, durably: a crash leaves the old one or the new one.
///
/// # Errors
/// [`Refusal::Io`].
pub fn replace(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
    let path = directory.join(name);
    let new = directory.join(format!("{name}.new"));
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|e| io_error(&path, e))
}

fn io_error(path: &Path, source: io::Error) -> Refusal {
    Refusal::Io { path: path.into(), source }
}

#[cfg(test)]
mod tests;
