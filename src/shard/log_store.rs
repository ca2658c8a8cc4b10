//! One group's log, as openraft sees it, over the node's one log.
//!
//! **Invariants.** Entries are readable when `append` returns and durable when its callback is
//! called. `tail` holds every entry that is not flushed yet, contiguous and ending at `last`;
//! what is below it is on disk. Nothing is below `first`, which is above `purged`.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard};

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};

use crate::id::ShardId;
use crate::shard::log_writer::LogWriter;
use crate::shard::runtime::Runtime;
use crate::shard::types::{Entry, LogId, Payload, Types, Vote};
use crate::shard::wire;
use crate::store::log::Write;

/// Flushed entries kept in memory for replication and apply, in bytes a group.
const TAIL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Entries of one AppendEntries request together, in bytes; at least one entry goes.
const READ_BYTES_MAX: usize = 2 * 1024 * 1024;

/// One group's log. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct GroupLog {
    group: ShardId,
    writer: LogWriter,
    state: Arc<Mutex<State>>,
}

struct State {
    vote: Option<Vote>,
    committed: Option<LogId>,
    /// The committed log id that the log has, or will have with what is queued.
    committed_queued: Option<LogId>,
    purged: Option<LogId>,
    /// Index of the first entry there is, or of the next one when there is none.
    first: u64,
    last: Option<LogId>,
    tail: VecDeque<(Entry, usize)>,
    tail_bytes: usize,
    flushed: u64,
}

impl GroupLog {
    /// Opens a group's log.
    ///
    /// # Errors
    /// When what the log holds of the group cannot be read.
    pub fn open(group: ShardId, writer: LogWriter) -> io::Result<GroupLog> {
        let found = writer.log().group(group);
        let purged = found.purged.map(|(_, bytes)| wire::decode_log_id(bytes)).transpose()?;
        let last = match found.last {
            None => purged,
            Some(index) => {
                let entries = writer.log().entries(group, index..index + 1, usize::MAX)?;
                let (_, bytes) = entries.into_iter().next().ok_or_else(|| missing(index))?;
                Some(wire::decode_entry(bytes)?.log_id)
            }
        };
        let committed = found.committed.map(wire::decode_log_id).transpose()?;
        let first = found.first.unwrap_or(purged.map_or(0, |id| id.index() + 1));
        let state = State {
            vote: found.vote.map(wire::decode_vote).transpose()?,
            committed,
            committed_queued: committed,
            purged,
            first,
            last,
            tail: VecDeque::new(),
            tail_bytes: 0,
            flushed: last.map_or(0, |id| id.index()),
        };
        Ok(GroupLog { group, writer, state: Arc::new(Mutex::new(state)) })
    }

    /// The last entry that was purged, if any was.
    pub fn purged(&self) -> Option<LogId> {
        self.lock().purged
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Whether this log lacks an entry that it has acknowledged to the leader of a term. False
    /// when a later term is known here, whose leader may have removed it.
    pub(crate) fn lacks(&self, term: u64, acknowledged: LogId) -> bool {
        let state = self.lock();
        let known = state.vote.map_or(0, |vote| vote.leader_id.term);
        known <= term && state.last < Some(acknowledged)
    }

    /// Whether an entry of this term is in the log on disk, or was and has been purged.
    pub(crate) fn has_synced(&self, index: u64, term: u64) -> bool {
        let synced = self.writer.log().group(self.group);
        let purged = self.lock().purged.is_some_and(|purged| purged.index() >= index);
        let read = || self.read(index, index + 1, usize::MAX);
        purged
            || synced.last.is_some_and(|last| last >= index)
                && read().is_ok_and(|found| {
                    found.first().is_some_and(|entry| entry.log_id.leader_id.term == term)
                })
    }

    /// The last entry on disk, also one that was purged; 0 when there never was one.
    pub(crate) fn last_on_disk(&self) -> u64 {
        self.writer.log().extent(self.group).0
    }

    pub(crate) fn purged_on_disk(&self) -> u64 {
        self.writer.log().extent(self.group).1
    }

    /// Makes every later opening of the node's log fail.
    pub(crate) fn mark_lost(&self, why: &str) -> io::Result<()> {
        self.writer.log().mark_lost(why)
    }

    /// Empties the log durably, as the replica is removed from this node; the vote stays.
    pub(crate) async fn forget(&self, applied: Option<LogId>) -> io::Result<()> {
        let applied = applied.map(|id| (id.index(), wire::encode_log_id(&id)));
        self.writer.write(Write::Forget { group: self.group, applied }).await
    }

    /// Lets go of what a snapshot that the state has put another history in the place of.
    ///
    /// A snapshot is durable in the base first, and the log is truncated and purged after it; a
    /// crash in between leaves entries of a leader that lost, which openraft takes for corruption.
    pub(crate) async fn reconcile<R: Runtime>(&mut self, applied: LogId) -> io::Result<()> {
        let index = applied.index();
        let (first, purged) = {
            let state = self.lock();
            (state.first, state.purged)
        };
        if purged.is_some_and(|purged| purged.index() >= index) {
            return Ok(());
        }
        let below = index.saturating_sub(1);
        let entries = self.read(below, index + 1, usize::MAX)?;
        let id_at = |at| entries.iter().map(|entry| entry.log_id).find(|id| id.index() == at);
        if id_at(index) == Some(applied) {
            return Ok(());
        }
        if id_at(index).is_some() {
            let kept = if index > first { id_at(below) } else { purged };
            RaftLogStorage::<Types<R>>::truncate_after(self, kept).await?;
        }
        RaftLogStorage::<Types<R>>::purge(self, applied).await?;
        self.settle().await
    }

    /// Waits until what was written so far is on disk.
    pub(crate) async fn settle(&self) -> io::Result<()> {
        // The writer keeps the order, so an append of nothing comes after everything else.
        self.writer.write(Write::Append { group: self.group, entries: Vec::new() }).await
    }

    pub(crate) fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        // The disk is read without the lock: entries below the tail are immutable, except that a
        // purge may take them meanwhile, which the caller sees as a missing range.
        let (start, tail_start) = {
            let state = self.lock();
            let start = start.max(state.first);
            let next = state.last.map_or(0, |id| id.index() + 1);
            if start >= end.min(next) {
                return Ok(Vec::new());
            }
            let tail_start = state.tail_start();
            if start >= tail_start {
                return Ok(state.read_tail(start, end, max_bytes));
            }
            (start, tail_start)
        };
        let stop = end.min(tail_start);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (index, encoded) in self.writer.log().entries(self.group, start..stop, max_bytes)? {
            if index != start + entries.len() as u64 {
                return Err(missing(start + entries.len() as u64));
            }
            bytes += encoded.len();
            entries.push(wire::decode_entry(encoded)?);
        }
        let next = start + entries.len() as u64;
        if next == stop && next < end && bytes < max_bytes {
            let state = self.lock();
            if next >= state.tail_start() {
                entries.extend(state.read_tail(next, end, max_bytes - bytes));
            }
        }
        Ok(entries)
    }
}

impl State {
    fn tail_start(&self) -> u64 {
        let next = self.last.map_or(0, |id| id.index() + 1);
        next - self.tail.len() as u64
    }

    fn read_tail(&self, start: u64, end: u64, max_bytes: usize) -> Vec<Entry> {
        let skip = (start - self.tail_start()) as usize;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (entry, size) in self.tail.iter().skip(skip) {
            if entry.log_id.index() >= end || (!entries.is_empty() && bytes + size > max_bytes) {
                break;
            }
            bytes += size;
            entries.push(entry.clone());
        }
        entries
    }

    /// Forgets flushed entries beyond what is kept.
    fn trim(&mut self) {
        while self.tail_bytes > TAIL_BYTES_MAX
            && let Some((entry, size)) = self.tail.front()
            && entry.log_id.index() <= self.flushed
        {
            self.tail_bytes -= size;
            self.tail.pop_front();
        }
    }

    fn drop_tail_from(&mut self, index: u64) {
        while let Some((entry, size)) = self.tail.back()
            && entry.log_id.index() >= index
        {
            self.tail_bytes -= size;
            self.tail.pop_back();
        }
    }
}

fn missing(index: u64) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("log entry {index} is missing"))
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index + 1,
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

fn memory_size(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Normal(batch) => 64 + batch.requests.iter().map(|r| r.len() + 8).sum::<usize>(),
        Payload::Blank | Payload::Membership(_) => 128,
    }
}

impl<R: Runtime> RaftLogReader<Types<R>> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds(&range);
        self.read(start, end, usize::MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES_MAX)
    }
}

impl<R: Runtime> RaftLogStorage<Types<R>> for GroupLog {
    type LogReader = GroupLog;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types<R>>> {
        let state = self.lock();
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last })
    }

    async fn get_log_reader(&mut self) -> GroupLog {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        // Readable only once durable: openraft's leader-bounded reads compare with it.
        let write = Write::Vote { group: self.group, vote: wire::encode_vote(vote) };
        if mutant!(VoteNotAwaited) {
            self.writer.submit(write, None);
        } else if !mutant!(VoteInMemory) {
            self.writer.write(write).await?;
        }
        self.lock().vote = Some(*vote);
        Ok(())
    }

    /// Keeps it in memory; it rides with the next append. openraft awaits this before each apply.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let mut state = self.lock();
        state.committed = committed.or(state.committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        let state = self.lock();
        // A log that lost its unsynced end may end below what was noted.
        Ok(state.committed.min(state.last))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types<R>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let (first, last) = (first.log_id.index(), last.log_id);
        let encoded = entries.iter().map(|e| (e.log_id.index(), wire::encode_entry(e))).collect();
        let mut state = self.lock();
        assert!(
            state.last.is_none_or(|id| first <= id.index() + 1),
            "openraft never leaves a hole in the log"
        );
        state.drop_tail_from(first);
        state.flushed = state.flushed.min(first.saturating_sub(1));
        if state.last.is_none() {
            state.first = first;
        }
        for entry in entries {
            let size = memory_size(&entry);
            state.tail_bytes += size;
            state.tail.push_back((entry, size));
        }
        state.last = Some(last);
        if state.committed_queued != state.committed
            && let Some(committed) = state.committed
        {
            state.committed_queued = Some(committed);
            let log_id = wire::encode_log_id(&committed);
            self.writer.submit(Write::Committed { group: self.group, log_id }, None);
        }
        let shared = self.state.clone();
        let flushed = Box::new(move |result: io::Result<()>| {
            {
                let mut state = shared.lock().expect("no holder of the lock panics");
                // An overwritten entry's flush says nothing of its successor.
                let current = state.last.is_some_and(|id| id >= last);
                if result.is_ok() && current {
                    state.flushed = state.flushed.max(last.index());
                    state.trim();
                }
            }
            callback.io_completed(result);
        });
        // Under the state's lock, so that two appends cannot be queued out of order.
        self.writer.submit(Write::Append { group: self.group, entries: encoded }, Some(flushed));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let mut state = self.lock();
        if last.is_some() && last.map(|id| id.index()) >= state.last.map(|id| id.index()) {
            return Ok(());
        }
        let last = last.max(state.purged);
        state.drop_tail_from(last.map_or(0, |id| id.index() + 1));
        state.flushed = state.flushed.min(last.map_or(0, |id| id.index()));
        state.last = last;
        // openraft's indexes begin at 0, where initialisation puts the first membership.
        let write = Write::TruncateAfter { group: self.group, kept: last.map(|id| id.index()) };
        self.writer.submit(write, None);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.purged >= Some(log_id) {
            return Ok(());
        }
        state.purged = Some(log_id);
        state.first = state.first.max(log_id.index() + 1);
        while let Some((entry, size)) = state.tail.front()
            && entry.log_id.index() <= log_id.index()
        {
            state.tail_bytes -= size;
            state.tail.pop_front();
        }
        if state.last < Some(log_id) {
            state.last = Some(log_id);
            state.flushed = log_id.index();
        }
        let log_id = match state.committed {
            Some(committed) if mutant!(PurgedToCommit) => committed,
            _ => log_id,
        };
        let write = Write::Purge {
            group: self.group,
            upto: log_id.index(),
            log_id: wire::encode_log_id(&log_id),
        };
        self.writer.submit(write, None);
        Ok(())
    }
}
