//! What surrounds a log that is closed: whether there is one, and whether raft-engine, once open, has
//! what `scan.rs` says it must.

use std::io::{self, Read as _};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission};

use super::engine::Cached;
use super::error::{OpenError, Problem, from_engine};
use super::state::{Groups, OWN_GROUP, STAMP_KEY, STATE_KEY, Stamp, State, decode_entry};
use super::{FETCH_ENTRIES, batch, format, watermark};
use crate::id::ShardId;

/// Bytes asked of raft-engine at once; it sums in 32 bits.
const FETCH_BYTES: usize = 1 << 30;
/// Bytes read at once while opening.
const VERIFY_BYTES: usize = 8 << 20;

/// All of a small file beside the log; `None` when there is none.
pub(super) fn read_file<F: FileSystem>(path: &Path, fs: &F) -> io::Result<Option<Vec<u8>>> {
    let handle = match fs.open(path, Permission::ReadOnly) {
        Ok(handle) => Arc::new(handle),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = Vec::new();
    fs.new_reader(handle)?.read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Whether a directory that should have a log has none: no watermark file, or no log files although
/// batches were written.
///
/// # Errors
/// When the directory or the watermark file cannot be read.
pub fn is_missing(directory: &Path) -> io::Result<bool> {
    let files = format::list(directory, format::Queue::Append)?;
    match watermark::read(directory, &DefaultFileSystem) {
        Ok(None) => Ok(true),
        Ok(Some(number)) => Ok(number > 0 && files.is_empty()),
        // If there are files, not missing, but damaged: who opens the log will say more.
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(files.is_empty()),
        Err(e) => Err(e),
    }
}

/// Whether anything was ever written to a log in a directory, as far as its files tell.
///
/// # Errors
/// When the directory or the watermark file cannot be read.
pub fn is_written(directory: &Path) -> io::Result<bool> {
    let some = |queue| Ok::<_, io::Error>(!format::list(directory, queue)?.is_empty());
    if some(format::Queue::Append)? || some(format::Queue::Rewrite)? {
        return Ok(true);
    }
    match watermark::read(directory, &DefaultFileSystem) {
        Ok(number) => Ok(number.is_some_and(|number| number > 0)),
        // A power cut before it was first synced.
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Ok(false),
        Err(e) => Err(e),
    }
}

/// Creates an empty log, durably: from now on, [`is_missing`] tells if it is lost.
///
/// # Errors
/// When the directory cannot be written.
pub fn create(directory: &Path) -> io::Result<()> {
    watermark::open(directory, &DefaultFileSystem, true).map(drop)
}

/// The entries of a range that exists, as many as fit.
pub(super) fn fetch(
    engine: &Cached,
    group: ShardId,
    range: Range<u64>,
    max_bytes: usize,
) -> io::Result<Vec<(u64, Bytes)>> {
    let first = range.start;
    let max_bytes = max_bytes.min(FETCH_BYTES);
    let found = engine
        .read(move |engine| engine.fetch(u64::from(group.0), range, max_bytes))
        .map_err(from_engine)?;
    let entries = found.into_iter().zip(first..).map(|(entry, index)| match decode_entry(entry) {
        Some(entry) if entry.0 == index => Ok(entry),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "an entry has another's index")),
    });
    entries.collect()
}

/// The groups as raft-engine remembers them.
pub(super) fn recall(engine: &Cached, directory: &Path) -> Result<Groups, OpenError> {
    let engine = engine.engine();
    let mut groups = Groups::new();
    for group in engine.groups() {
        if group == OWN_GROUP {
            if let Some(stamp) = engine.get(group, STAMP_KEY) {
                Stamp::decode(&stamp).map_err(|e| OpenError::unreadable(directory, &e))?;
            }
            continue;
        }
        let shard =
            u16::try_from(group).map_err(|_| OpenError::lost(directory, "foreign group"))?;
        let state = batch::recall(engine.get(group, STATE_KEY), engine.span(group))
            .map_err(|e| OpenError::unreadable(directory, &e))?;
        groups.insert(ShardId(shard), state);
    }
    Ok(groups)
}

/// Checks that raft-engine has all that the groups should have, by reading every live entry.
pub(super) fn verify(engine: &Cached, groups: &Groups) -> Result<(), Problem> {
    groups.iter().try_for_each(|(group, state)| verify_group(engine, *group, state))
}

fn verify_group(engine: &Cached, group: ShardId, state: &State) -> Result<(), Problem> {
    let damaged = |why| Err(Problem::Damaged(format!("group {group}: {why}")));
    let Some((first, last)) = state.span else { return Ok(()) };
    if let Some((purged, _)) = &state.purged
        && first != purged + 1
    {
        return damaged(format!("entries {} to {} are missing", purged + 1, first - 1));
    }
    match engine.engine().span(u64::from(group.0)) {
        Some((low, high)) if low <= first && last <= high => {}
        found => {
            let found = found.map_or("none".into(), |(low, high)| format!("{low} to {high}"));
            return damaged(format!("entries {first} to {last} should be there, but are {found}"));
        }
    }
    let mut next = first;
    while next <= last {
        let to = (last + 1).min(next + FETCH_ENTRIES);
        let entries = fetch(engine, group, next..to, VERIFY_BYTES)?;
        match entries.last() {
            Some((index, _)) => next = index + 1,
            None => return damaged(format!("entry {next} is missing")),
        }
    }
    Ok(())
}

/// Syncs the newest file of each queue; older ones were synced when it was begun.
///
/// A process that was killed between a write and its fsync leaves entries that the next one reads
/// from the system's cache, and would count, and acknowledge again, as durable.
pub(super) fn sync_written<F: FileSystem>(directory: &Path, fs: &F) -> io::Result<()> {
    for queue in [format::Queue::Append, format::Queue::Rewrite] {
        let files = format::list(directory, queue)?;
        if let Some((_, path)) = files.into_iter().last() {
            fs.open(path, Permission::ReadWrite)?.sync()?;
        }
    }
    Ok(())
}

/// Creates the directory, and makes its name durable.
pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => std::fs::File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}
