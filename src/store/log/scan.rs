//! Judges a log directory before raft-engine touches it: is everything there that was acknowledged?
//!
//! Reads the newest append files, back to the last batch that repeats every group's state, and
//! tells from them alone what the log must hold ([`Found`]); `Log::open` compares that with what
//! raft-engine then comes up with. The log counts as lost when
//!
//! - it ends before its watermark,
//! - a damaged batch is followed by a valid one (each is written after its predecessor's fsync, so
//!   that cannot be a torn write),
//! - any file but the newest is damaged, or batch numbers have a gap.
//!
//! A damaged end of the newest file, at or above the watermark, is a torn write: nobody was told
//! that it happened, and raft-engine cuts it off.

use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use raft_engine::env::FileSystem;

use super::error::OpenError;
use super::format::{self, Batch, Item, Queue, Reader};
use super::state::{Groups, OWN_GROUP, STAMP_KEY, STATE_KEY, Stamp, State, Unreadable};
use super::watermark;
use crate::id::ShardId;

/// What the files of a log say.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whether there is a log at all.
    pub exists: bool,
    /// Number of the last batch; 0 when there is none.
    pub number: u64,
    /// The groups' states after the last batch. `None` when no batch in the append files repeats
    /// them, as when everything has been rewritten: then raft-engine's word counts.
    pub groups: Option<Groups>,
    /// Files without a header, the newest of either queue: a rotation on a full disk leaves them,
    /// and makes raft-engine treat the file before them, torn or with preallocated space, as damaged.
    pub headless: Vec<PathBuf>,
}

/// Looks at a log directory, and changes nothing.
pub(super) fn scan<F: FileSystem>(directory: &Path, fs: &F) -> Result<Found, OpenError> {
    Scan { directory, fs }.run()
}

struct Scan<'a, F> {
    directory: &'a Path,
    fs: &'a F,
}

/// A batch of ours.
struct Stamped {
    stamp: Stamp,
    items: Vec<Item>,
}

impl<F: FileSystem> Scan<'_, F> {
    fn run(&self) -> Result<Found, OpenError> {
        let io_error = |e| self.io(self.directory, e);
        let mut files = format::list(self.directory, Queue::Append).map_err(io_error)?;
        let watermark = match watermark::read(self.directory, self.fs) {
            Ok(watermark) => watermark,
            // A power cut before it was first synced; nothing is written before that.
            Err(e) if e.kind() == io::ErrorKind::InvalidData && files.is_empty() => None,
            Err(e) if e.kind() == io::ErrorKind::InvalidData => return Err(self.lost(e)),
            Err(e) => return Err(self.io(&self.directory.join(watermark::FILE), e)),
        };
        let Some(watermark) = watermark else {
            return match files.is_empty() {
                true => Ok(Found::default()),
                false => Err(self.lost("there are log files, but no watermark file")),
            };
        };
        format::after_gap(&mut files);
        let mut found = Found { exists: true, ..Found::default() };
        let batches = self.newest_batches(&files, &mut found)?;
        self.find_headless_rewrites(&mut found)?;
        found.number = match batches.last() {
            Some(batch) => batch.stamp.number,
            None => self.rewritten_number()?,
        };
        if found.number < watermark && !mutant!(WatermarkIgnored) {
            return Err(self.lost(format_args!(
                "it ends with batch {}, but batch {watermark} had been written",
                found.number
            )));
        }
        found.groups = self.replay(&batches)?;
        Ok(found)
    }

    /// The batches from the last full one on; all there are when none is full.
    fn newest_batches(
        &self,
        files: &[(u64, PathBuf)],
        found: &mut Found,
    ) -> Result<Vec<Stamped>, OpenError> {
        let mut batches: Vec<Stamped> = Vec::new();
        let mut newest = true;
        for (number, path) in files.iter().rev() {
            let mut reader =
                format::open(self.fs, path, *number, newest).map_err(|e| self.io(path, e))?;
            if newest && !reader.has_header().map_err(|e| self.io(path, e))? {
                self.check_nothing_follows(&mut reader, path, 0, 0)?;
                found.headless.push(path.clone());
                continue;
            }
            let mut older = self.file(&mut reader, path, newest)?;
            older.append(&mut batches);
            batches = older;
            newest = false;
            if batches.iter().any(|batch| batch.stamp.full) {
                break;
            }
        }
        if let Some(pair) = batches.windows(2).find(|p| p[1].stamp.number != p[0].stamp.number + 1)
        {
            return Err(self.lost(format_args!(
                "batch {} follows batch {}",
                pair[1].stamp.number, pair[0].stamp.number
            )));
        }
        Ok(batches)
    }

    /// The newest rewrite files, as long as they have no header and hold nothing.
    fn find_headless_rewrites(&self, found: &mut Found) -> Result<(), OpenError> {
        for (number, path) in self.rewrite_files()?.into_iter().rev() {
            let io_error = |e| self.io(&path, e);
            let mut reader = format::open(self.fs, &path, number, false).map_err(io_error)?;
            if reader.has_header().map_err(io_error)? {
                break;
            }
            if reader.find_batch(0).map_err(io_error)?.is_some() {
                return Err(self.lost(format_args!("{} has no header", path.display())));
            }
            found.headless.push(path);
        }
        Ok(())
    }

    /// The batches of one file, which may end in a torn one if the file is the newest.
    fn file(
        &self,
        reader: &mut Reader<F::Reader>,
        path: &Path,
        newest: bool,
    ) -> Result<Vec<Stamped>, OpenError> {
        let mut batches = Vec::new();
        if !reader.has_header().map_err(|e| self.io(path, e))? {
            return Err(self.lost(format_args!("{} has no header", path.display())));
        }
        let mut at = format::FILE_HEADER_BYTES;
        while let Some(batch) = reader.batch(at).map_err(|e| self.io(path, e))? {
            at = batch.end;
            batches.push(self.stamped(batch, path)?);
        }
        if !reader.ends_at(at) {
            if !newest {
                return Err(self.lost(format_args!("{} is damaged at {at}", path.display())));
            }
            let last = batches.last().map_or(0, |batch| batch.stamp.number);
            self.check_nothing_follows(reader, path, at, last)?;
        }
        Ok(batches)
    }

    /// Fails if a batch with a number above `last` is found past a break.
    fn check_nothing_follows<R: Read + Seek>(
        &self,
        reader: &mut Reader<R>,
        path: &Path,
        at: u64,
        last: u64,
    ) -> Result<(), OpenError> {
        // A header that makes sense leads past the batch's content, which users choose.
        let end = reader.claimed_end(at).map_err(|e| self.io(path, e))?;
        let mut from = end.unwrap_or(at + 1);
        while let Some(batch) = reader.find_batch(from).map_err(|e| self.io(path, e))? {
            from = batch.end;
            let number = self.stamped(batch, path)?.stamp.number;
            if number > last {
                return Err(self.lost(format_args!(
                    "{} is damaged at {at}, and batch {number} follows",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    fn stamped(&self, batch: Batch, path: &Path) -> Result<Stamped, OpenError> {
        match stamp(&batch.items) {
            Some(stamp) => {
                Ok(Stamped { stamp: stamp.map_err(|e| self.unreadable(e))?, items: batch.items })
            }
            None => Err(self.lost(format_args!("{} has a foreign batch", path.display()))),
        }
    }

    /// The highest batch number that raft-engine carried over from files that are gone.
    fn rewritten_number(&self) -> Result<u64, OpenError> {
        let mut highest = 0;
        for (number, path) in self.rewrite_files()? {
            let mut reader =
                format::open(self.fs, &path, number, false).map_err(|e| self.io(&path, e))?;
            let mut at = format::FILE_HEADER_BYTES;
            while let Some(batch) = reader.batch(at).map_err(|e| self.io(&path, e))? {
                if let Some(stamp) = stamp(&batch.items) {
                    highest = highest.max(stamp.map_err(|e| self.unreadable(e))?.number);
                }
                at = batch.end;
            }
        }
        Ok(highest)
    }

    fn rewrite_files(&self) -> Result<Vec<(u64, PathBuf)>, OpenError> {
        format::list(self.directory, Queue::Rewrite).map_err(|e| self.io(self.directory, e))
    }

    fn replay(&self, batches: &[Stamped]) -> Result<Option<Groups>, OpenError> {
        let Some(start) = batches.iter().rposition(|batch| batch.stamp.full) else {
            return Ok(None);
        };
        let mut groups = Groups::new();
        for item in batches[start..].iter().flat_map(|batch| &batch.items) {
            match item {
                Item::Entries { group, first, last } => {
                    groups.entry(self.shard(*group)?).or_default().appended(*first, *last);
                }
                Item::Put { group, key, value } if *group != OWN_GROUP && key == STATE_KEY => {
                    let state = State::decode(value).map_err(|e| self.unreadable(e))?;
                    groups.insert(self.shard(*group)?, state);
                }
                _ => {}
            }
        }
        Ok(Some(groups))
    }

    fn shard(&self, group: u64) -> Result<ShardId, OpenError> {
        let shard = u16::try_from(group).map_err(|_| self.lost("it has a foreign group"))?;
        Ok(ShardId(shard))
    }

    fn lost(&self, why: impl ToString) -> OpenError {
        OpenError::lost(self.directory, why)
    }

    fn io(&self, path: &Path, source: io::Error) -> OpenError {
        OpenError::Io { path: path.into(), source }
    }

    fn unreadable(&self, why: Unreadable) -> OpenError {
        OpenError::unreadable(self.directory, &why)
    }
}

fn stamp(items: &[Item]) -> Option<Result<Stamp, Unreadable>> {
    items.iter().find_map(|item| match item {
        Item::Put { group: OWN_GROUP, key, value } if key == STAMP_KEY => {
            Some(Stamp::decode(value))
        }
        _ => None,
    })
}
