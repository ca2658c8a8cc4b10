//! The Raft log of a node: the entries and votes of all its groups, in one raft-engine.
//!
//! ```text
//!  shard's writer thread ── write(&[Write]) ──► one batch ── one fsync ──► watermark ──► returns
//!  shard's reads         ── group(), entries() ──► what is durable
//!  shard's checkpoints   ── Purge, sync_watermark(), maintain()
//! ```
//!
//! The log is synchronous and opaque: its calls return when all is done, and it knows of votes, log
//! ids and entries only that they are bytes. What is not written yet, the caller keeps in memory.
//!
//! **Invariant:** when [`Log::write`] returns `Ok`, all its writes are on disk, with every earlier
//! batch. Batches are atomic and never reordered: a vote is not lost while a later entry is kept.
//!
//! **Invariant:** [`Log::open`] gives back exactly what was last durable, or fails. It never opens a
//! log from which acknowledged data is missing (`scan.rs` says how it knows), since a node that
//! votes on such a log can undo a commit. Nor does it change one that it fails to read
//! (`careful_fs.rs`).
//!
//! # Caveats
//!
//! - A group is never forgotten wholly: its vote outlives its replica here, should it come back.
//! - Damage to a *live* entry or to the newest files is found at open; to purged ones, never.
//! - A failed fsync aborts the process. At the next start the kernel may still show the pages that
//!   it failed to write; such a batch was not acknowledged, but counts from then on.
//! - raft-engine has a thread of its own, for its metrics, which go nowhere here. Where a process has
//!   several logs, each may have another that reads (`engine.rs`).

mod batch;
mod careful_fs;
mod engine;
mod error;
mod format;
mod lost;
mod recover;
mod scan;
pub mod state;
#[cfg(test)]
mod tests;
mod watermark;

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use raft_engine::env::{DefaultFileSystem, FileSystem};

use crate::id::ShardId;
use careful_fs::Careful;
use error::Problem;
pub use error::{OpenError, is_no_space};
pub use recover::{create, is_missing, is_written};
pub use state::GroupState;
use state::{Groups, Stamp, State};

/// Entries asked of raft-engine at once; it makes room for as many before it looks.
const FETCH_ENTRIES: u64 = 1024;
/// Tries of a read that a purge moves under its feet.
const READ_ATTEMPTS: usize = 5;

/// Where and how to keep a log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The directory; created when missing. Nothing else may write there, but for the identity.
    pub directory: PathBuf,
    /// Size of the log at which [`Log::maintain`] begins to drop old files; at least one file's.
    pub purge_threshold_bytes: u64,
    /// Size at which a new file is begun.
    pub target_file_bytes: u64,
    /// Threads that read files while opening, at least 1; with 1 they are read in a fixed order.
    pub recovery_threads: usize,
}

impl LogOptions {
    /// The defaults, 10 GiB in files of 128 MiB, for a directory.
    pub fn new(directory: impl Into<PathBuf>) -> LogOptions {
        LogOptions {
            directory: directory.into(),
            purge_threshold_bytes: 10 << 30,
            target_file_bytes: 128 << 20,
            recovery_threads: 4,
        }
    }
}

/// One thing to write. What it contains is opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Appends entries with consecutive indexes. Whatever is at and above the first index goes; it
    /// must lie in the log or just after its end.
    Append {
        /// The group.
        group: ShardId,
        /// Index and payload of each.
        entries: Vec<(u64, Bytes)>,
    },
    /// Removes all entries after an index.
    TruncateAfter {
        /// The group.
        group: ShardId,
        /// The last index that stays, not before the last purged one; `None` removes all.
        kept: Option<u64>,
    },
    /// Removes all entries up to an index, and remembers its log id. The index may be beyond the
    /// last entry, as after a snapshot: then the next append begins just after it.
    Purge {
        /// The group.
        group: ShardId,
        /// The last index that goes; not less than in an earlier purge.
        upto: u64,
        /// The id of the entry there.
        log_id: Bytes,
    },
    /// Replaces the vote.
    Vote {
        /// The group.
        group: ShardId,
        /// The vote.
        vote: Bytes,
    },
    /// Empties the group's log, as its replica is removed from this node on purpose: all entries go,
    /// and it counts as purged up to what the replica had applied. The vote stays, as its term may
    /// go on. [`GroupState::forgotten`] holds until [`Write::Recall`].
    Forget {
        /// The group.
        group: ShardId,
        /// Index and id of the last applied entry, not before the last purged one; `None` when
        /// nothing was applied.
        applied: Option<(u64, Bytes)>,
    },
    /// Takes back a [`Write::Forget`], when the node gets a replica of the group again.
    Recall {
        /// The group.
        group: ShardId,
    },
    /// Notes that an entry was committed. A hint for the next start; it may be old.
    Committed {
        /// The group.
        group: ShardId,
        /// The entry's id.
        log_id: Bytes,
    },
}

/// What a write cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Size of the batch.
    pub bytes: usize,
    /// How long it took, fsync included.
    pub took: Duration,
}

/// An open log. Shared between the one thread that writes and those that read.
pub struct Log {
    options: LogOptions,
    /// `None` after a failed [`Log::compact_fully`]: every call fails.
    engine: RwLock<Option<engine::Cached>>,
    reopen: Box<dyn Fn() -> Result<engine::Cached, Problem> + Send + Sync>,
    mark_lost: Box<MarkLost>,
    /// As of the last durable batch.
    groups: RwLock<Groups>,
    writer: Mutex<Writer>,
    /// Held by whoever moves files.
    maintenance: Mutex<()>,
}

/// [`Log::mark_lost`], without the file system's type.
type MarkLost = dyn Fn(&str) -> io::Result<()> + Send + Sync;

struct Writer {
    /// Number of the last durable batch.
    number: u64,
    /// Whether the next batch must repeat every group's state.
    full: bool,
    /// The append file that the last batch went to.
    file: u64,
    watermark: Box<dyn watermark::Mark>,
}

impl Log {
    /// Opens the log in a directory, or creates one where nothing is. Reads every live entry once,
    /// and after an unclean stop all of the newest file.
    ///
    /// # Errors
    /// [`OpenError`]; what could be saved before still can.
    pub fn open(options: LogOptions) -> Result<Log, OpenError> {
        Log::open_with_file_system(options, Arc::new(DefaultFileSystem))
    }

    /// As [`Log::open`], on another file system. Directories are listed and synced by `std::fs` all
    /// the same, raft-engine's way, so names must exist there.
    ///
    /// # Errors
    /// [`OpenError`]; what could be saved before still can.
    pub fn open_with_file_system<F: FileSystem + 'static>(
        options: LogOptions,
        fs: Arc<F>,
    ) -> Result<Log, OpenError> {
        let directory = options.directory.clone();
        let io_error = |source| OpenError::Io { path: directory.clone(), source };
        if let Some(why) = lost::read(&directory, &*fs).map_err(io_error)? {
            return Err(OpenError::lost(&directory, why));
        }
        let found = scan::scan(&directory, &Careful::new(fs.clone(), BTreeSet::new()))?;
        if !found.exists {
            recover::create_directory(&directory).map_err(io_error)?;
        }
        let watermark = watermark::open(&directory, &*fs, !found.exists).map_err(io_error)?;
        // Nothing failed to be read, or there would be no `found`: they are what they seem.
        for path in &found.headless {
            fs.delete(path).map_err(io_error)?;
        }
        let mark_lost = {
            let (directory, fs) = (directory.clone(), fs.clone());
            move |why: &str| lost::mark(&directory, &*fs, why)
        };
        recover::sync_written(&directory, &*fs).map_err(io_error)?;
        let reopen = {
            let options = options.clone();
            move || engine::open(&options, &fs)
        };
        let problem = |problem| OpenError::from_problem(&directory, problem);
        let engine = reopen().map_err(problem)?;
        let groups = match found.groups {
            Some(groups) => groups,
            None => recover::recall(&engine, &directory)?,
        };
        recover::verify(&engine, &groups).map_err(problem)?;
        let writer = Writer {
            number: found.number,
            full: true,
            file: engine.engine().append_file(),
            watermark,
        };
        Ok(Log {
            options,
            engine: RwLock::new(Some(engine)),
            reopen: Box::new(reopen),
            mark_lost: Box::new(mark_lost),
            groups: RwLock::new(groups),
            writer: Mutex::new(writer),
            maintenance: Mutex::new(()),
        })
    }

    /// Every group that was ever written to, ascending.
    pub fn groups(&self) -> Vec<ShardId> {
        read(&self.groups).keys().copied().collect()
    }

    /// What is durable of a group; empty if it was never written to.
    pub fn group(&self, group: ShardId) -> GroupState {
        read(&self.groups).get(&group).map(State::told).unwrap_or_default()
    }

    /// Where what is durable of a group ends, purged or not, and up to where it is purged; 0 where there never
    /// was an entry.
    pub fn extent(&self, group: ShardId) -> (u64, u64) {
        read(&self.groups).get(&group).map(State::extent).unwrap_or_default()
    }

    /// Marks the log as one that has lost acknowledged data: it never opens again.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn mark_lost(&self, why: &str) -> io::Result<()> {
        (self.mark_lost)(why)
    }

    /// Reads the durable entries of a range, in order: as many as fit into `max_bytes`, but at least
    /// one if there is any. Indexes outside the log are left out.
    ///
    /// # Errors
    /// `InvalidData` when an entry is damaged; fatal for the group.
    pub fn entries(
        &self,
        group: ShardId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> io::Result<Vec<(u64, Bytes)>> {
        let guard = self.engine();
        let engine = opened(&guard)?;
        let (mut entries, mut room, mut next) = (Vec::new(), max_bytes, range.start);
        loop {
            let mut chunk = self.chunk(engine, group, next..range.end, room)?;
            let full = chunk.len() as u64 == FETCH_ENTRIES;
            let bytes: usize = chunk.iter().map(|(_, payload)| payload.len()).sum();
            let Some((last, _)) = chunk.last() else { return Ok(entries) };
            next = last + 1;
            if bytes <= room || entries.is_empty() {
                entries.append(&mut chunk);
            }
            // A chunk that is not full was cut by its bytes, or by the end.
            match room.checked_sub(bytes) {
                Some(rest) if full => room = rest,
                _ => return Ok(entries),
            }
        }
    }

    fn chunk(
        &self,
        engine: &engine::Cached,
        group: ShardId,
        range: Range<u64>,
        max_bytes: usize,
    ) -> io::Result<Vec<(u64, Bytes)>> {
        let mut attempt = 1;
        loop {
            let span = read(&self.groups).get(&group).and_then(|state| state.span);
            let Some((first, last)) = span else { return Ok(Vec::new()) };
            let from = range.start.max(first);
            let to = range.end.min(last + 1).min(from.saturating_add(FETCH_ENTRIES));
            if from >= to {
                return Ok(Vec::new());
            }
            match recover::fetch(engine, group, from..to, max_bytes) {
                // Purged, or moved, between two steps of raft-engine's; or by a batch that ends here.
                Err(e) if attempt < READ_ATTEMPTS && e.kind() != io::ErrorKind::StorageFull => {
                    drop(self.writer());
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Writes a batch and syncs it; when this returns, all of it is durable and readable.
    ///
    /// Writes take effect in order, all or none. Call it from one thread.
    ///
    /// # Errors
    /// If [`is_no_space`], nothing was written, and the same call may be tried again: that retries a
    /// write, never an fsync. `InvalidInput`: nothing was written, as a write contradicts the log,
    /// which is a bug. Anything else: the disk failed, which is fatal.
    ///
    /// # Panics
    /// When the fsync fails: raft-engine's doing, and right, since the kernel may have dropped what
    /// it could not write. **The process must abort**; the log is unusable after any panic here.
    pub fn write(&self, writes: &[Write]) -> io::Result<Written> {
        if writes.is_empty() {
            return Ok(Written::default());
        }
        let guard = self.engine();
        self.write_batch(&mut self.writer(), opened(&guard)?, writes)
    }

    fn write_batch(
        &self,
        writer: &mut Writer,
        engine: &engine::Cached,
        writes: &[Write],
    ) -> io::Result<Written> {
        let started = Instant::now();
        let stamp = Stamp { number: writer.number + 1, full: writer.full };
        let built = batch::build(&read(&self.groups), stamp, writes)?;
        let mut batch = built.batch;
        let bytes = engine.engine().write(&mut batch).map_err(error::from_engine)?;
        self.groups.write().expect(UNPOISONED).extend(built.changed);
        let file = engine.engine().append_file();
        // A batch that began a file without having been meant to leaves that to the next.
        writer.full = file != writer.file && !stamp.full;
        writer.file = file;
        writer.number = stamp.number;
        match writer.watermark.note(writer.number) {
            // The batch is durable all the same; only less damage will be noticed.
            Err(e) if is_no_space(&e) => tracing::warn!("no space to note the watermark"),
            result => result?,
        }
        if writer.number == 1 {
            writer.watermark.sync()?;
        }
        Ok(Written { bytes, took: started.elapsed() })
    }

    /// Makes the watermark survive a power cut. Called with each checkpoint: the more recent it is,
    /// the more damage is noticed after a power cut.
    ///
    /// # Errors
    /// Fatal, as for a failed fsync.
    pub fn sync_watermark(&self) -> io::Result<()> {
        self.writer().watermark.sync()
    }

    /// Drops files that are not needed, once the log is over its threshold. Returns the groups that
    /// keep old files in use: a checkpoint and a purge of theirs help. Slow; not for the writer's
    /// thread.
    ///
    /// # Errors
    /// [`is_no_space`], when moving live entries found no room; anything else is fatal.
    ///
    /// # Panics
    /// As [`Log::write`].
    pub fn maintain(&self) -> io::Result<Vec<ShardId>> {
        let _alone = self.maintenance.lock().expect(UNPOISONED);
        let guard = self.engine();
        let engine = opened(&guard)?;
        self.repeat_states(engine)?;
        let groups = engine.read(|engine| engine.purge()).map_err(error::from_engine)?;
        let mut shards: Vec<_> =
            groups.into_iter().filter_map(|group| u16::try_from(group).ok().map(ShardId)).collect();
        shards.sort();
        Ok(shards)
    }

    /// Has the newest file tell what the log holds, if it does not yet: all others may be dropped.
    fn repeat_states(&self, engine: &engine::Cached) -> io::Result<()> {
        let mut writer = self.writer();
        if writer.full || engine.engine().append_file() != writer.file {
            writer.full = true;
            self.write_batch(&mut writer, engine, &[])?;
        }
        Ok(())
    }

    /// Makes everything purged or truncated disappear from the disk, physically: copies what is live
    /// into new files, deletes all others, and begins anew. raft-engine else keeps old files for
    /// recycling, full of what they held, since overwriting is cheaper than allocating.
    ///
    /// For `folkmoot node compact`, after every group was purged. Other calls wait meanwhile.
    ///
    /// # Errors
    /// [`is_no_space`]: the log is as before. Anything else is fatal, and the log unusable.
    ///
    /// # Panics
    /// As [`Log::write`].
    pub fn compact_fully(&self) -> io::Result<()> {
        let _alone = self.maintenance.lock().expect(UNPOISONED);
        let mut guard = self.engine.write().expect(UNPOISONED);
        let mut writer = self.writer();
        // raft-engine panics on a full disk here; live entries, by now, fit into few files.
        let needed = 4 * self.options.target_file_bytes;
        if crate::store::ballast::free_space(&self.options.directory)? < needed {
            let why = format!("compacting the log needs {needed} bytes of free space");
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        opened(&guard)?.read(|engine| engine.rewrite_everything());
        // Closing renames the files kept for recycling, and opening deletes them.
        *guard = None;
        let engine = (self.reopen)()?;
        engine.engine().delete_strays()?;
        recover::verify(&engine, &read(&self.groups))?;
        writer.file = engine.engine().append_file();
        writer.full = true;
        // Else no append file would tell what the log holds.
        self.write_batch(&mut writer, &engine, &[])?;
        *guard = Some(engine);
        Ok(())
    }

    /// Bytes that the log takes on disk, files in use being counted whole.
    ///
    /// # Errors
    /// After a failed [`Log::compact_fully`].
    pub fn used_bytes(&self) -> io::Result<u64> {
        Ok(opened(&self.engine())?.engine().used_bytes() as u64)
    }

    fn engine(&self) -> RwLockReadGuard<'_, Option<engine::Cached>> {
        read(&self.engine)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().expect(UNPOISONED)
    }
}

const UNPOISONED: &str = "whoever panics in the log aborts the process";

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().expect(UNPOISONED)
}

fn opened(engine: &Option<engine::Cached>) -> io::Result<&engine::Cached> {
    engine.as_ref().ok_or_else(|| io::Error::other("the log failed to open after compaction"))
}
