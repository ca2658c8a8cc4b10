//! Opens what a node has on its disk.

use std::io;
use std::sync::Arc;

use crate::config::Config;
use crate::node::base::NodeBase;
use crate::node::compaction::{self, Compactor};
use crate::node::groups::Disk;
use crate::shard::log_writer::Space;
use crate::store::log::{self, Log, LogOptions};
use crate::store::sled_base::{self, SledBase};

/// Why a node's log or base cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] log::OpenError),
    /// The base cannot be opened.
    #[error(transparent)]
    Base(#[from] sled_base::OpenError),
    /// A compaction that was interrupted cannot be finished.
    #[error("the compaction that was interrupted cannot be finished: {0}")]
    Compaction(io::Error),
}

/// Opens the log and the base, which the compactor then knows too.
///
/// # Errors
/// Why they cannot be used; they are as they were.
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
    let opening = tokio::task::spawn_blocking(move || {
        compaction::finish_interrupted(&rooms).map_err(StorageError::Compaction)?;
        let log = Log::open(log_options)?;
        let base = SledBase::open(&rooms, &base_options)?;
        Ok::<_, StorageError>((log, NodeBase::new(Arc::new(base))))
    });
    let (log, base) = opening.await.expect("opening the disk does not panic")?;
    assert!(compactor.base.set(base.clone()).is_ok(), "a node opens its disk once");
    Ok(Disk { log, base, space })
}
