//! `folkmoot node compact`: rewrites the base into a fresh sled and the log into fresh files, so
//! that erased and trimmed data is physically gone, and the space it took is free again.
//!
//! Reads and posts go on. While the base is copied no checkpoint is taken; the last step renames
//! two directories, and a start after a crash in between finishes or undoes it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Code, Error};
use crate::node::base::directory_bytes;
use crate::node::groups::Groups;
use crate::shard::checkpointer;
use crate::shard::runtime::TokioRuntime;
use crate::store::ballast;
use crate::store::base::Base;
use crate::store::compact::rewrite;
use crate::store::sled_base::{OpenError, SledBase, SledOptions};

/// How long a closed base is waited for until it is tried again, and how many times.
const REOPEN_WAIT: Duration = Duration::from_millis(5);
const REOPEN_ATTEMPTS: u32 = 2000;

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

/// Compacts this node; returns what its data took on disk before and after.
pub(super) async fn run(groups: Arc<Groups>) -> Result<(u64, u64), Error> {
    let failed = |error: io::Error| {
        tracing::error!(%error, "compaction failed");
        match error.kind() {
            io::ErrorKind::StorageFull => Error::new(Code::DiskFull, error.to_string()),
            _ => Error::new(Code::Internal, format!("compaction failed: {error}")),
        }
    };
    let arranging = groups.arranging.lock().await;
    let before = directory_bytes(groups.data_dir());
    let shards = groups.router().host().all();
    // What was erased must be rewritten in the base, and leave the log.
    for shard in &shards {
        checkpointer::checkpoint::<TokioRuntime>(shard).await.map_err(failed)?;
        shard.purge_log().await.map_err(failed)?;
    }
    let mut guards = Vec::new();
    for shard in &shards {
        guards.push(shard.replica().no_checkpoints().await);
    }
    let work = groups.clone();
    let compacting = tokio::task::spawn_blocking(move || compact(&work));
    compacting.await.map_err(io::Error::other).flatten().map_err(failed)?;
    drop((guards, arranging));
    Ok((before, directory_bytes(groups.data_dir())))
}

fn compact(groups: &Groups) -> io::Result<()> {
    let Some(opened) = groups.opened() else { return Ok(()) };
    let rooms = groups.data_dir().join("rooms");
    let (fresh, replaced) = (fresh(&rooms), replaced(&rooms));
    let needed = directory_bytes(&rooms);
    if ballast::free_space(&rooms)? < needed {
        let why = format!("compacting needs {needed} bytes of free space");
        return Err(io::Error::new(io::ErrorKind::StorageFull, why));
    }
    remove(&fresh)?;
    {
        let new = SledBase::open(&fresh, &groups.sled_options()).map_err(io::Error::other)?;
        rewrite(&*opened.base.current(), &new, &mut |_bytes| {})?;
        new.flush()?;
    }
    opened.base.replace(|old| {
        drop(old);
        fs::rename(&rooms, &replaced)?;
        fs::rename(&fresh, &rooms)?;
        Ok(Arc::new(reopen(&rooms, &groups.sled_options())?) as Arc<dyn Base>)
    });
    finish_interrupted(&rooms)?;
    opened.writer.log().compact_fully()
}

/// Opens a base that was closed just now. sled's own threads keep its files, and its lock, for a
/// moment longer than its handle lives.
fn reopen(rooms: &Path, options: &SledOptions) -> io::Result<SledBase> {
    for _ in 1..REOPEN_ATTEMPTS {
        match SledBase::open(rooms, options) {
            Err(OpenError::InUse { .. }) => std::thread::sleep(REOPEN_WAIT),
            opened => return opened.map_err(io::Error::other),
        }
    }
    SledBase::open(rooms, options).map_err(io::Error::other)
}
