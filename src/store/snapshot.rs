//! Snapshots of a shard's state, from one base to another.
//!
//! `shard` carries the chunks between nodes; both ends run on threads that may block.
//!
//! **Sender.** [`SnapshotSource`] is the state at a durable checkpoint. Mutable rows are copied when
//! it begins, under the lock that checkpoints take for their rows. Dedup rows and event blocks only
//! ever grow, so they are read from the base as they are sent, in bounded memory: dedup rows up to
//! the checkpoint's generation, blocks up to its heads, and only what the receiver lacks. While a
//! source lives, nothing it may still read is removed.
//!
//! **Receiver.** [`SnapshotSink`](crate::store::snapshot_sink::SnapshotSink) writes blocks where no head covers them, and rows into the bank
//! that does not count. Installing is one small batch that makes that bank count. A crash before
//! it leaves the old state, a crash after it the new one; opening removes the rest of the other. The
//! receiver should not write a checkpoint between `SnapshotSink::new` and
//! [`ShardState::install`](crate::store::state::ShardState::install): what was received is then
//! removed, and installing it refused.
//!
//! A room that the receiver has under another epoch is received beside the old one, as another
//! lineage. A body that the receiver still has, and that was erased since, is masked by what the
//! sender says of erased events, and rewritten by the next checkpoint.
//!
//! Chunks, each after a version byte:
//! ```text
//! rows:   (key length u16 │ key without shard and bank │ value length u32 │ value)*
//! blocks: room length u8 │ room │ epoch length u8 │ epoch │ (first u64 │ value length u32 │ value)*
//! ```

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::chat::event::Hash;
use crate::chat::state::Room;
use crate::id::{Epoch, RoomId, Seq};
use crate::limits::ROW_BYTES_MAX;
use crate::store::base::{BATCH_BYTES, Base, Batch, KeyRange, Order};
use crate::store::block::{Block, Packer, RoomBlocks, Run};
use crate::store::checkpoint::Shared;
use crate::store::codec::{self, VERSION, damaged};
use crate::store::key::{self, Key, Space, tag};
use crate::store::recovery;
use crate::store::snapshot_sink::Received;
use crate::store::state::{Applied, ShardState};

/// What one side has of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomHead {
    /// The room.
    pub room: RoomId,
    /// Which history of it.
    pub epoch: Epoch,
    /// The oldest kept event.
    pub first_seq: Seq,
    /// The last durable event.
    pub head: Seq,
    /// The hash chain there.
    pub chain: Hash,
}

impl RoomHead {
    fn of(room: Room) -> RoomHead {
        let Room { id, epoch, first_seq, head, chain, .. } = room;
        RoomHead { room: id, epoch, first_seq, head, chain }
    }
}

pub(super) fn room_heads(base: &dyn Base, space: Space) -> io::Result<Vec<RoomHead>> {
    let mut heads = Vec::new();
    recovery::each(base, space, tag::ROOM, |key, value| {
        let Key::Room(id) = key else { return Err(damaged("a key")) };
        heads.push(RoomHead::of(codec::room_from(&id, value)?));
        Ok(())
    })?;
    Ok(heads)
}

/// A shard's state at a durable checkpoint, to be sent.
pub struct SnapshotSource {
    base: Arc<dyn Base>,
    space: Space,
    shared: Arc<Shared>,
    lineages: Arc<BTreeMap<RoomId, u32>>,
    applied: Applied,
    generation: u64,
    rows: Vec<Bytes>,
    rooms: Vec<RoomHead>,
}

impl Drop for SnapshotSource {
    fn drop(&mut self) {
        self.shared.sources.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Begins snapshots of a shard.
pub struct Snapshots {
    base: Arc<dyn Base>,
    space: Space,
    shared: Arc<Shared>,
    lineages: Arc<BTreeMap<RoomId, u32>>,
}

impl Snapshots {
    /// Begins to send the state at the last durable checkpoint, see [`ShardState::begin_snapshot`].
    ///
    /// # Errors
    /// When the base cannot be read, or has no checkpoint yet.
    pub fn begin(self) -> io::Result<SnapshotSource> {
        let Snapshots { base, space, shared, lineages } = self;
        shared.sources.fetch_add(1, Ordering::SeqCst);
        let guard = shared.clone();
        let mut source = SnapshotSource {
            base,
            space,
            shared,
            lineages,
            applied: Applied::default(),
            generation: 0,
            rows: Vec::new(),
            rooms: Vec::new(),
        };
        let _guard = guard.lock_rows();
        source.copy()?;
        Ok(source)
    }
}

impl ShardState {
    /// Begins to send the state at the last durable checkpoint. May wait for the checkpoint that is
    /// being made durable.
    ///
    /// # Errors
    /// When the base cannot be read, or has no checkpoint yet.
    pub fn begin_snapshot(&self) -> io::Result<SnapshotSource> {
        self.snapshots().begin()
    }

    /// A handle that begins snapshots without a lock on the state: copying the rows of a large shard
    /// takes a while. It is good until a snapshot is installed.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots {
            base: self.base().clone(),
            space: self.space,
            shared: self.shared.clone(),
            lineages: self.lineages.clone(),
        }
    }

    /// Replaces the state by what a sink has received. Whatever was not durable is discarded.
    ///
    /// # Errors
    /// When the base fails, or a checkpoint came between. The state is then to be opened anew: it is
    /// the old or the new one.
    ///
    /// # Panics
    /// When a checkpoint is under way.
    pub fn install(&mut self, received: Received) -> io::Result<()> {
        assert!(!self.checkpointing(), "a snapshot is installed during a checkpoint");
        assert_eq!(self.shard(), received.space.shard, "a snapshot of another shard");
        received.check(self.base().as_ref())?;
        let mut batch = Batch::new();
        let bank = codec::number_value(received.space.bank.0.into());
        batch.put(received.space.key(&Key::Bank), bank);
        self.base().write(batch)?;
        self.base().flush()?;
        self.reopen()
    }
}

impl SnapshotSource {
    fn copy(&mut self) -> io::Result<()> {
        let base = self.base.as_ref();
        let applied = codec::get_row(base, self.space, &Key::Applied)?.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "there is no durable checkpoint to send yet")
        })?;
        let row = codec::applied_from(&applied)?;
        self.applied.log_id = row.term.map(|term| (term, row.index));
        self.applied.membership = row.membership;
        self.generation = row.generation;
        self.rooms = room_heads(base, self.space)?;
        let mut chunk = RowChunk::new();
        let mut chunks = Vec::new();
        base.scan(&self.space.bank_range(), Order::Forward, &mut |key, value| {
            let suffix = key::suffix(key);
            if !matches!(suffix.first(), Some(&tag::SENT | &tag::LINEAGE)) {
                chunk.push(&suffix, value);
                chunks.extend(chunk.take_if_full());
            }
            ControlFlow::Continue(())
        })?;
        chunks.extend(chunk.take());
        self.rows = chunks;
        Ok(())
    }

    /// Up to where the log is in the snapshot.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// The rooms in it.
    pub fn rooms(&self) -> &[RoomHead] {
        &self.rooms
    }

    /// Chunks of rows, each of about 256 KiB.
    pub fn rows(&self) -> impl Iterator<Item = io::Result<Bytes>> {
        let mut rest = self.space.all(tag::SENT);
        let mut failed = false;
        let sent = std::iter::from_fn(move || {
            if failed {
                return None;
            }
            let chunk = self.sent_chunk(&mut rest);
            failed = chunk.is_err();
            chunk.transpose()
        });
        self.rows.iter().cloned().map(Ok).chain(sent)
    }

    fn sent_chunk(&self, rest: &mut KeyRange) -> io::Result<Option<Bytes>> {
        let mut chunk = RowChunk::new();
        let mut result = Ok(None);
        let mut start = rest.end.clone();
        self.base.scan(rest, Order::Forward, &mut |key, value| {
            let mut body = value.get(1..).unwrap_or_default();
            match codec::take_varint(&mut body) {
                Some(generation) if generation > self.generation => {}
                Some(_) => chunk.push(&key::suffix(key), value),
                None => result = Err(damaged("a dedup row")),
            }
            if let Some(full) = chunk.take_if_full() {
                start = key.to_vec();
                start.push(0);
                result = Ok(Some(full));
            }
            if matches!(result, Ok(None)) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        rest.start = start;
        match result {
            Ok(None) => Ok(chunk.take()),
            other => other,
        }
    }

    /// Chunks of a room's events above `above`, each of about 256 KiB. The receiver's head is to be
    /// given as `above` when its epoch is the same, and 0 otherwise.
    pub fn blocks<'a>(
        &'a self,
        room: &'a RoomHead,
        above: Seq,
    ) -> impl Iterator<Item = io::Result<Bytes>> + use<'a> {
        let mut next = Seq(room.first_seq.0.max(above.0.saturating_add(1)).max(1));
        let mut failed = false;
        std::iter::from_fn(move || {
            if failed || next > room.head {
                return None;
            }
            let chunk = self.block_chunk(room, &mut next);
            failed = chunk.is_err();
            Some(chunk)
        })
    }

    fn block_chunk(&self, room: &RoomHead, next: &mut Seq) -> io::Result<Bytes> {
        let lineage = self.lineages.get(&room.room).copied().unwrap_or(0);
        let blocks = RoomBlocks { space: self.space, room: &room.room, lineage };
        let mut chunk = vec![VERSION];
        for text in [room.room.as_str(), room.epoch.as_str()] {
            chunk.push(text.len() as u8);
            chunk.extend_from_slice(text.as_bytes());
        }
        let mut packer = Packer::default();
        let mut failures = 0;
        while *next <= room.head && chunk.len() < BATCH_BYTES {
            // One block at a time, found by its seq: a checkpoint may rewrite blocks meanwhile.
            let read = self.read_block(&blocks, *next, room.head, &mut packer);
            let Ok((found, after)) = read else {
                failures += 1;
                if failures > 16 {
                    return Err(read.err().unwrap_or_else(|| damaged("a block of events")));
                }
                continue;
            };
            let bytes: usize = found.iter().map(|block| 12 + block.value.len()).sum();
            if chunk.len() > BATCH_BYTES / 2 && chunk.len() + bytes > BATCH_BYTES {
                break; // a long event goes alone
            }
            for block in &found {
                chunk.extend_from_slice(&block.first.0.to_be_bytes());
                chunk.extend_from_slice(&(block.value.len() as u32).to_be_bytes());
                chunk.extend_from_slice(&block.value);
            }
            *next = after;
        }
        Ok(chunk.into())
    }

    /// The events from `next` up to the end of the block it is in, or to `head`.
    fn read_block(
        &self,
        blocks: &RoomBlocks<'_>,
        next: Seq,
        head: Seq,
        packer: &mut Packer,
    ) -> io::Result<(Vec<Block>, Seq)> {
        let base = self.base.as_ref();
        let missing = || damaged(&format!("event {next} of room {}", blocks.room));
        let (first, row) = blocks.floor(base, next)?.ok_or_else(missing)?;
        let value = blocks.join(base, first, row)?;
        let run = Run::decode(first, &value)?;
        if run.next() <= next {
            return Err(missing());
        }
        if first == next && run.next().0 <= head.0 + 1 {
            return Ok((vec![Block { first, value }], run.next()));
        }
        let mut cut = Run::new(next);
        for (_, event) in run.events(next).take_while(|(seq, _)| *seq <= head) {
            cut.push_encoded(event);
        }
        Ok((packer.pack(&cut), cut.next()))
    }
}

/// A part of a snapshot on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chunk {
    /// For the sink's `put_blocks`.
    Blocks(Bytes),
    /// For the sink's `put_rows`.
    Rows(Bytes),
}

/// A source being sent, a chunk at a time: first the blocks that the receiver lacks, then rows.
pub struct Sending {
    source: SnapshotSource,
    have: BTreeMap<RoomId, (Epoch, Seq)>,
    /// The room whose blocks are next, and the next event of it.
    room: usize,
    next: Option<Seq>,
    /// The copied rows that are next.
    rows: usize,
    /// The dedup rows that were not sent yet.
    sent: KeyRange,
}

impl Sending {
    /// Begins to send a source to a receiver that has nothing.
    pub fn new(source: SnapshotSource) -> Sending {
        let sent = source.space.all(tag::SENT);
        Sending { source, have: BTreeMap::new(), room: 0, next: None, rows: 0, sent }
    }

    /// Up to where the log is in the snapshot.
    pub fn applied(&self) -> &Applied {
        self.source.applied()
    }

    /// Leaves out what the receiver has: rooms with their epoch and durable head.
    pub fn skip(&mut self, have: impl IntoIterator<Item = (RoomId, Epoch, Seq)>) {
        let have = have.into_iter().map(|(room, epoch, head)| (room, (epoch, head)));
        self.have = have.collect();
    }

    /// Reads the next chunk; `None` after the last one.
    ///
    /// # Errors
    /// When the base cannot be read.
    pub fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        while let Some(room) = self.source.rooms.get(self.room) {
            let mut next = self.next.unwrap_or_else(|| {
                let above = match self.have.get(&room.room) {
                    Some((epoch, head)) if *epoch == room.epoch => *head,
                    _ => Seq(0),
                };
                Seq(room.first_seq.0.max(above.0.saturating_add(1)))
            });
            let left_out = if mutant!(SnapshotWithoutTail) { 5 } else { 0 };
            if next.0 + left_out > room.head.0 {
                self.room += 1;
                self.next = None;
                continue;
            }
            let chunk = self.source.block_chunk(room, &mut next)?;
            self.next = Some(next);
            return Ok(Some(Chunk::Blocks(chunk)));
        }
        if let Some(rows) = self.source.rows.get(self.rows) {
            self.rows += 1;
            return Ok(Some(Chunk::Rows(rows.clone())));
        }
        if mutant!(SnapshotWithoutDedup) {
            return Ok(None);
        }
        Ok(self.source.sent_chunk(&mut self.sent)?.map(Chunk::Rows))
    }
}

struct RowChunk(Vec<u8>);

impl RowChunk {
    fn new() -> RowChunk {
        RowChunk(vec![VERSION])
    }

    fn push(&mut self, suffix: &[u8], value: &[u8]) {
        self.0.extend_from_slice(&(suffix.len() as u16).to_be_bytes());
        self.0.extend_from_slice(suffix);
        self.0.extend_from_slice(&(value.len() as u32).to_be_bytes());
        self.0.extend_from_slice(value);
    }

    fn take(&mut self) -> Option<Bytes> {
        (self.0.len() > 1).then(|| std::mem::replace(&mut self.0, vec![VERSION]).into())
    }

    fn take_if_full(&mut self) -> Option<Bytes> {
        if self.0.len() > BATCH_BYTES - ROW_BYTES_MAX { self.take() } else { None }
    }
}
