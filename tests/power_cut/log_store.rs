//! The Raft log of three groups that append, truncate, purge and vote, in files small enough that it
//! rotates, rewrites and recycles them all the time.
//!
//! An operation is one `write`. What it does follows from the seed and the operations before it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use folkmoot::id::ShardId;
use folkmoot::store::log::{Log, LogOptions, OpenError, Write};
use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission};

use crate::random::Random;

const GROUPS: u16 = 3;
/// Its vote is the number of the last operation.
const LAST: ShardId = ShardId(9);
/// Operations between checkpoints.
const CHECKPOINT: u64 = 50;

#[derive(Default)]
struct Group {
    entries: BTreeMap<u64, Bytes>,
    purged: Option<(u64, Bytes)>,
    vote: Option<Bytes>,
}

type Model = BTreeMap<ShardId, Group>;

pub fn write(path: &Path, seed: u64, sync: bool, mut acknowledge: impl FnMut(u64)) {
    let log = match sync {
        true => Log::open(options(path)),
        false => Log::open_with_file_system(options(path), Arc::new(Unsynced)),
    };
    let log = log.unwrap_or_else(|e| panic!("{e}"));
    let last = last(&log);
    let mut model = Model::new();
    for number in 1..=last {
        apply(&mut model, seed, number);
    }
    let stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stopped.load(Ordering::Relaxed) {
                log.maintain().unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        for number in last + 1.. {
            let mut writes = apply(&mut model, seed, number);
            writes.push(Write::Vote { group: LAST, vote: number.to_be_bytes().to_vec().into() });
            if log.write(&writes).is_err() {
                break;
            }
            if number % CHECKPOINT == 0 {
                log.sync_watermark().unwrap();
            }
            acknowledge(number);
        }
        stopped.store(true, Ordering::Relaxed);
    });
}

pub fn check(path: &Path, seed: u64) -> Result<u64, String> {
    let log = Log::open(options(path)).map_err(|e: OpenError| e.to_string())?;
    let last = last(&log);
    let mut model = Model::new();
    for number in 1..=last {
        apply(&mut model, seed, number);
    }
    for (id, group) in model {
        let state = log.group(id);
        let entries = log.entries(id, 0..u64::MAX, usize::MAX).map_err(|e| e.to_string())?;
        if state.vote != group.vote || state.purged != group.purged {
            return Err(format!("group {id} has another vote or purged id after {last}"));
        }
        if !entries.into_iter().eq(group.entries) {
            return Err(format!("group {id} has other entries after {last}"));
        }
    }
    Ok(last)
}

/// Applies an operation to the model, and returns its writes.
fn apply(model: &mut Model, seed: u64, number: u64) -> Vec<Write> {
    let mut random = Random::of(seed, number);
    let mut writes = Vec::new();
    for _ in 0..1 + random.below(2) {
        let id = ShardId(random.below(u64::from(GROUPS)) as u16);
        let group = model.entry(id).or_default();
        let next = group.entries.keys().next_back().map_or(0, |last| last + 1);
        let next = next.max(group.purged.as_ref().map_or(0, |(purged, _)| purged + 1));
        writes.push(match random.below(20) {
            0 if group.entries.len() > 10 => {
                let kept = next - 1 - random.below(10);
                group.entries.split_off(&(kept + 1));
                Write::TruncateAfter { group: id, kept: Some(kept) }
            }
            1 if next > 0 => {
                // Now and then beyond the end, as after a snapshot.
                let upto = next - 1 + if random.below(8) == 0 { 100 } else { 0 };
                let upto = upto.saturating_sub(random.below(30));
                let upto = group.purged.as_ref().map_or(upto, |(purged, _)| upto.max(*purged));
                group.entries = group.entries.split_off(&(upto + 1));
                let log_id = Bytes::from(random.bytes(16));
                group.purged = Some((upto, log_id.clone()));
                Write::Purge { group: id, upto, log_id }
            }
            2 => {
                let vote = Bytes::from(random.bytes(12));
                group.vote = Some(vote.clone());
                Write::Vote { group: id, vote }
            }
            _ => {
                let entries: Vec<_> = (next..next + 1 + random.below(20))
                    .map(|index| {
                        let len = random.below(400);
                        (index, Bytes::from(random.bytes(len)))
                    })
                    .collect();
                group.entries.extend(entries.iter().cloned());
                Write::Append { group: id, entries }
            }
        });
    }
    writes
}

fn options(path: &Path) -> LogOptions {
    LogOptions {
        target_file_bytes: 256 << 10,
        purge_threshold_bytes: 1 << 20,
        ..LogOptions::new(path)
    }
}

fn last(log: &Log) -> u64 {
    let vote = log.group(LAST).vote;
    vote.map_or(0, |bytes| u64::from_be_bytes((*bytes).try_into().unwrap()))
}

/// A file system that only says that it syncs.
struct Unsynced;

struct UnsyncedHandle(Arc<<DefaultFileSystem as FileSystem>::Handle>);

impl Handle for UnsyncedHandle {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        Handle::truncate(&*self.0, offset)
    }
    fn file_size(&self) -> io::Result<usize> {
        self.0.file_size()
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl FileSystem for Unsynced {
    type Handle = UnsyncedHandle;
    type Reader = <DefaultFileSystem as FileSystem>::Reader;
    type Writer = <DefaultFileSystem as FileSystem>::Writer;
    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<UnsyncedHandle> {
        DefaultFileSystem.create(path).map(|handle| UnsyncedHandle(handle.into()))
    }
    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<UnsyncedHandle> {
        DefaultFileSystem.open(path, permission).map(|handle| UnsyncedHandle(handle.into()))
    }
    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }
    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }
    fn new_reader(&self, handle: Arc<UnsyncedHandle>) -> io::Result<Self::Reader> {
        DefaultFileSystem.new_reader(handle.0.clone())
    }
    fn new_writer(&self, handle: Arc<UnsyncedHandle>) -> io::Result<Self::Writer> {
        DefaultFileSystem.new_writer(handle.0.clone())
    }
}
