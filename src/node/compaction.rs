//! `folkmoot node compact`: rewrites the base into a fresh sled and the log into fresh files, so
//! that erased and trimmed data is physically gone, and the space it took is free again. A base that
//! has outgrown what lives in it is rewritten without being asked.
//!
//! Reads and posts go on. While the base is copied no checkpoint is taken; the last step renames
//! two directories, and a start after a crash in between finishes or undoes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{Code, Error};
use crate::node::base::{NodeBase, directory_bytes};
use crate::node::groups::Groups;
use crate::shard::checkpointer;
use crate::shard::runtime::TokioRuntime;
use crate::store::ballast;
use crate::store::base::Base;
use crate::store::compact::rewrite;
use crate::store::sled_base::{OpenError, SledBase, SledOptions};

/// The base, in the data directory.
pub(super) const ROOMS: &str = "rooms";
/// How long a closed base is waited for until it is tried again, and how many times.
const REOPEN_WAIT: Duration = Duration::from_millis(5);
const REOPEN_ATTEMPTS: u32 = 2000;
/// How often it is looked whether the base has outgrown what lives in it.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The base has outgrown what lives in it when its files are this many times as large.
const OUTGROWN: u64 = 3;

fn fresh(rooms: &Path) -> PathBuf {
    rooms.with_extension("new")
}

fn replaced(rooms: &Path) -> PathBuf {
    rooms.with_extension("old")
}

/// Cleans up after a crash during a compaction.
///
/// # Errors
/// When the directories cannot be renamed or removed.
pub(super) fn finish_interrupted(rooms: &Path) -> io::Result<()> {
    let (fresh, replaced) = (fresh(rooms), replaced(rooms));
    if replaced.exists() {
        let complete = fresh.exists() && !rooms.join("db").exists();
        if complete {
            // The crash came between the two renames: the fresh one was whole by then.
            remove(rooms)?;
            fs::rename(&fresh, rooms)?;
        }
        remove(&replaced)?;
    }
    remove(&fresh)?;
    match rooms.parent() {
        Some(parent) => fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What is compacted.
#[derive(Clone)]
pub(super) struct Compactor {
    pub groups: Arc<Groups>,
    pub data_dir: PathBuf,
    pub base_options: SledOptions,
    /// There once the groups are.
    pub base: Arc<OnceLock<Arc<NodeBase>>>,
}

impl Compactor {
    fn rooms(&self) -> PathBuf {
        self.data_dir.join(ROOMS)
    }
}

/// Compacts this node; returns what its data took on disk before and after.
pub(super) async fn run(node: Compactor) -> Result<(u64, u64), Error> {
    let failed = |error: io::Error| {
        tracing::error!(%error, "compaction failed");
        match error.kind() {
            io::ErrorKind::StorageFull => Error::new(Code::DiskFull, error.to_string()),
            io::ErrorKind::TimedOut => {
                Error::new(Code::Overloaded, error.to_string()).retry_after(5000)
            }
            _ => Error::new(Code::Internal, format!("compaction failed: {error}")),
        }
    };
    let before = directory_bytes(&node.data_dir);
    // What was erased must be rewritten in the base, and leave the log.
    for shard in node.groups.router().host().all() {
        // So must what was erased elsewhere, of which this node may not have heard.
        node.groups.router().catch_up(&shard).await?;
        shard.replica().look_for_trimmed();
        checkpointer::checkpoint::<TokioRuntime>(&shard).await.map_err(failed)?;
        if shard.replica().read().trimming_waits() {
            let message = "the state of a shard is being sent to another node, which needs what is to go: \
                try again later";
            return Err(Error::new(Code::Overloaded, message).retry_after(5000));
        }
        shard.purge_log().await.map_err(failed)?;
    }
    rewrite_base(&node).await.map_err(failed)?;
    if let Some(writer) = node.groups.writer() {
        let log = writer.log().clone();
        let compacting = tokio::task::spawn_blocking(move || log.compact_fully());
        compacting.await.map_err(io::Error::other).flatten().map_err(failed)?;
    }
    Ok((before, directory_bytes(&node.data_dir)))
}

/// Compacts the base, for ever, whenever it is larger than `over` bytes and has outgrown what lives
/// in it: sled gives little of its file back by itself.
pub(super) async fn run_when_outgrown(node: Compactor, over: u64) {
    let rooms = node.rooms();
    let mut smallest = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let shards = node.groups.router().host().all();
        let live: u64 = shards.iter().map(|shard| shard.replica().read().size_bytes()).sum();
        let before = directory_bytes(&rooms);
        // Twice what the last time could not do without, as `live` is only about right.
        if before < over.max(2 * smallest) || before / OUTGROWN < live {
            continue;
        }
        match rewrite_base(&node).await {
            Ok(()) => {
                smallest = directory_bytes(&rooms);
                tracing::info!(before, after = smallest, "compacted the base");
            }
            Err(error) => {
                smallest = before;
                tracing::warn!(%error, "cannot compact the base");
            }
        }
    }
}

/// Puts a compacted base in the place of this node's.
async fn rewrite_base(node: &Compactor) -> io::Result<()> {
    let arranging = node.groups.arranging.clone().lock_owned().await;
    let mut guards = Vec::new();
    for shard in node.groups.router().host().all() {
        guards.push(shard.replica().no_checkpoints().await);
    }
    let node = node.clone();
    // What keeps checkpoints away goes with the work, and so stays when whoever asked for it goes.
    let compacting = tokio::task::spawn_blocking(move || {
        let _held = (arranging, guards);
        compact(&node)
    });
    compacting.await.map_err(io::Error::other).flatten()
}

fn compact(node: &Compactor) -> io::Result<()> {
    let Some(base) = node.base.get() else { return Ok(()) };
    let rooms = node.rooms();
    let (fresh, replaced) = (fresh(&rooms), replaced(&rooms));
    let needed = directory_bytes(&rooms);
    if ballast::free_space(&rooms)? < needed {
        let why = format!("compacting needs {needed} bytes of free space");
        return Err(io::Error::new(io::ErrorKind::StorageFull, why));
    }
    remove(&fresh)?;
    {
        let new = SledBase::open(&fresh, &node.base_options).map_err(io::Error::other)?;
        rewrite(&*base.current(), &new, &mut |_bytes| {})?;
        new.flush()?;
    }
    base.replace(|old| {
        drop(old);
        fs::rename(&rooms, &replaced)?;
        fs::rename(&fresh, &rooms)?;
        Ok(Arc::new(reopen(&rooms, &node.base_options)?) as Arc<dyn Base>)
    });
    finish_interrupted(&rooms)
}

/// Opens a base that was closed just now. sled's own threads keep its files, and its lock, for a
/// moment longer than its handle lives.
fn reopen(rooms: &Path, options: &SledOptions) -> io::Result<SledBase> {
    // Everybody waits, and what it holds was written just now.
    let options = &SledOptions { check: false, ..options.clone() };
    for _ in 1..REOPEN_ATTEMPTS {
        match SledBase::open(rooms, options) {
            Err(OpenError::InUse { .. }) => std::thread::sleep(REOPEN_WAIT),
            opened => return opened.map_err(io::Error::other),
        }
    }
    SledBase::open(rooms, options).map_err(io::Error::other)
}
