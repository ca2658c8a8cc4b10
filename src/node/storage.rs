//! Opens what a node has on its disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::node::base::NodeBase;
use crate::node::compaction::{self, Compactor};
use crate::node::groups::Disk;
use crate::node::repair;
use crate::shard::log_writer::Space;
use crate::store::log::{self, Log, LogOptions};
use crate::store::sled_base::{self, OpenError, SledBase, SledOptions};
use crate::store::{base, whole};

/// How many unreadable states are kept. An operator who has not looked by then has to.
const UNREADABLE_MAX: u32 = 9;

/// Why a node's log or base cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] log::OpenError),
    /// The base cannot be opened.
    #[error(transparent)]
    Base(#[from] sled_base::OpenError),
    /// The base can be opened, and not read.
    #[error("the state in rooms cannot be read: {0}")]
    Unread(io::Error),
    /// The base cannot be read, and not be set aside either.
    #[error("the state in rooms cannot be read ({why}), and cannot be set aside: {error}")]
    Aside {
        /// Why it cannot be read.
        why: String,
        /// Why it stays.
        error: io::Error,
    },
    /// A compaction that was interrupted cannot be finished.
    #[error("the compaction that was interrupted cannot be finished: {0}")]
    Compaction(io::Error),
    /// The state of a shard that is to be repaired cannot be set aside.
    #[error("the state of a shard that is to be repaired cannot be set aside: {0}")]
    Repair(io::Error),
}

/// Opens the log and the base, which the compactor then knows too.
///
/// # Errors
/// Why they cannot be used; they are as they were, but for a base that was set aside.
pub(super) async fn open(
    config: &Config,
    compactor: &Compactor,
    space: Arc<dyn Space>,
) -> Result<Disk, StorageError> {
    let log_options = LogOptions {
        purge_threshold_bytes: config.store.log_purge_threshold.0,
        ..LogOptions::new(compactor.data_dir.join("log"))
    };
    let rooms = compactor.data_dir.join(compaction::ROOMS);
    let base_options = compactor.base_options.clone();
    let data_dir = compactor.data_dir.clone();
    let opening = tokio::task::spawn_blocking(move || {
        compaction::finish_interrupted(&rooms).map_err(StorageError::Compaction)?;
        let log = Log::open(log_options)?;
        let base = open_base(&rooms, &base_options, &log)?;
        repair::carry_out(&data_dir, &base).map_err(StorageError::Repair)?;
        Ok::<_, StorageError>((log, NodeBase::new(Arc::new(base))))
    });
    let (log, base) = opening.await.expect("opening the disk does not panic")?;
    assert!(compactor.base.set(base.clone()).is_ok(), "a node opens its disk once");
    Ok(Disk { log, base, space })
}

/// Opens the base. One that cannot be read is set aside, and an empty one takes its place: the log
/// is whole, so the groups get back what it had from the log, or from another replica.
fn open_base(rooms: &Path, options: &SledOptions, log: &Log) -> Result<SledBase, StorageError> {
    let why = match SledBase::open(rooms, options) {
        Ok(found) => match whole::check(&found, log) {
            Ok(()) => return Ok(found),
            Err(error) if base::is_damage(&error) => error.to_string(),
            Err(error) => return Err(StorageError::Unread(error)),
        },
        Err(OpenError::Unreadable { reason, .. }) => reason,
        Err(error) => return Err(error.into()),
    };
    match set_aside(rooms) {
        Ok(aside) => {
            let aside = aside.display();
            tracing::warn!(
                %why, %aside,
                "the state cannot be read and was set aside; taking it from the log and other \
                 replicas. Remove what was set aside once this node is ready"
            );
        }
        Err(error) => return Err(StorageError::Aside { why, error }),
    }
    Ok(SledBase::open(rooms, options)?)
}

/// Renames the base. Nothing is ever removed: it may be the only one that there is.
fn set_aside(rooms: &Path) -> io::Result<PathBuf> {
    let names = (1..=UNREADABLE_MAX).map(|n| rooms.with_extension(format!("unreadable-{n}")));
    let mut free = names.filter(|path| !path.exists());
    let aside = free.next().ok_or_else(|| {
        io::Error::other(format!(
            "there are {UNREADABLE_MAX} already, rooms.unreadable-1 and so on; look into the disk, \
             and remove them"
        ))
    })?;
    fs::rename(rooms, &aside)?;
    if let Some(parent) = rooms.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(aside)
}
