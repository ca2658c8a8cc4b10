//! The base of real nodes: sled 0.34, in the one way it is safe to use.
//!
//! Opened by `node.rs`, and by `folkmoot node compact`. sled's own flush thread is off: the
//! checkpoint decides when to flush. Its `flush()` calls `sync_file_range` on Linux, which is no
//! sync; `store::durable_sync` gives it one. One tree holds everything, under tagged keys.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use crate::store::base::{Base, Batch, HOW_TO_REBUILD, KeyRange, Order, Visit};

/// How to open sled.
#[derive(Debug, Clone)]
pub struct SledOptions {
    /// Memory for sled's page cache, in bytes. sled's own default would be 1 GiB.
    pub cache_bytes: u64,
}

impl Default for SledOptions {
    fn default() -> SledOptions {
        SledOptions { cache_bytes: 64 * 1024 * 1024 }
    }
}

/// Why a base did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The files are there, and damaged. What they held is on the other replicas.
    #[error(
        "the state in {path} cannot be read ({reason}). {how}",
        how = HOW_TO_REBUILD
    )]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// In sled's words.
        reason: String,
    },
    /// Another process has it open.
    #[error("the state in {path} is in use by another process: stop that node first")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file system said no.
    #[error(
        "the state in {path} cannot be opened: {error}. Check that the directory exists, belongs \
         to the user that runs the node, and has free space"
    )]
    Io {
        /// The directory.
        path: PathBuf,
        /// In the system's words.
        error: io::Error,
    },
}

/// A base in a directory of its own, kept by sled.
#[derive(Debug)]
pub struct SledBase {
    db: sled::Db,
}

impl SledBase {
    /// Opens or creates the base in the directory `path`.
    ///
    /// # Errors
    /// [`OpenError`] says what can be done.
    pub fn open(path: &Path, options: &SledOptions) -> Result<SledBase, OpenError> {
        let config =
            sled::Config::new().path(path).cache_capacity(options.cache_bytes).flush_every_ms(None);
        // sled answers some kinds of damage with a panic. Nothing of ours is in the closure, and
        // the half-opened database is gone with it, so no broken state can leak.
        let opened = panic::catch_unwind(AssertUnwindSafe(|| config.open()));
        let unreadable = |reason| OpenError::Unreadable { path: path.to_path_buf(), reason };
        match opened {
            Ok(Ok(db)) => Ok(SledBase { db }),
            Ok(Err(sled::Error::Io(error))) if is_lock(&error) => {
                Err(OpenError::InUse { path: path.to_path_buf() })
            }
            Ok(Err(sled::Error::Io(error))) if error.kind() != io::ErrorKind::InvalidData => {
                Err(OpenError::Io { path: path.to_path_buf(), error })
            }
            Ok(Err(error)) => Err(unreadable(error.to_string())),
            Err(panic) => Err(unreadable(panic_text(panic.as_ref()))),
        }
    }
}

/// sled wraps a failed `flock` in an error of kind `Other` that only its text tells apart.
fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.to_string().contains("could not acquire lock")
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("sled panicked").to_string()
}

fn to_io(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        sled::Error::Corruption { .. } => io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the state on disk is damaged: {error}. {HOW_TO_REBUILD}"),
        ),
        other => io::Error::other(format!("sled failed: {other}")),
    }
}

impl Base for SledBase {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.db.get(key).map_err(to_io)?.map(|value| value.to_vec()))
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: &mut Visit<'_>) -> io::Result<()> {
        if range.start >= range.end {
            return Ok(());
        }
        let mut rows = self.db.range::<&[u8], _>(range.start.as_slice()..range.end.as_slice());
        loop {
            let row = match order {
                Order::Forward => rows.next(),
                Order::Reverse => rows.next_back(),
            };
            let Some(row) = row else { return Ok(()) };
            let (key, value) = row.map_err(to_io)?;
            if visit(&key, &value).is_break() {
                return Ok(());
            }
        }
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let mut sled_batch = sled::Batch::default();
        for (key, value) in batch.into_ops() {
            match value {
                Some(value) => sled_batch.insert(key, value),
                None => sled_batch.remove(key),
            }
        }
        self.db.apply_batch(sled_batch).map_err(to_io)
    }

    fn flush(&self) -> io::Result<()> {
        self.db.flush().map(|_| ()).map_err(to_io)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.db.size_on_disk().map_err(to_io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = SledBase::open(&path, &SledOptions::default()).unwrap();
        let second = SledBase::open(&path, &SledOptions::default()).unwrap_err();
        assert!(matches!(second, OpenError::InUse { .. }), "{second}");
        drop(first);
        let file = dir.path().join("file");
        std::fs::write(&file, "not a directory").unwrap();
        let error = SledBase::open(&file, &SledOptions::default()).unwrap_err();
        assert!(matches!(error, OpenError::Io { .. }), "{error}");
    }

    #[test]
    fn a_damaged_base_is_reported_as_unreadable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let base = SledBase::open(&path, &SledOptions::default()).unwrap();
        for i in 0..2000u32 {
            let mut batch = Batch::new();
            batch.put(i.to_be_bytes().to_vec(), vec![7; 1000]);
            base.write(batch).unwrap();
        }
        base.flush().unwrap();
        drop(base);
        std::fs::write(path.join("conf"), "garbage that is no configuration").unwrap();
        let error = SledBase::open(&path, &SledOptions::default()).unwrap_err();
        assert!(error.to_string().contains(HOW_TO_REBUILD), "{error}");
    }
}
