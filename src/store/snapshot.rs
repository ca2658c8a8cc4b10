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
//! **Receiver.** [`SnapshotSink`] writes blocks where no head covers them, and rows into the bank
//! that does not count. Installing is one small batch that makes that bank count. A crash before
//! it leaves the old state, a crash after it the new one; opening removes the rest of the other. The
//! receiver must not begin a checkpoint between [`SnapshotSink::new`] and
//! [`ShardState::install`](crate::store::state::ShardState::install).
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
use crate::id::{Epoch, RoomId, Seq, ShardId};
use crate::store::base::{BATCH_BYTES, Base, Batch, KeyRange, Order};
use crate::store::block::{Block, Packer, RoomBlocks, Run};
use crate::store::checkpoint::Shared;
use crate::store::codec::{self, VERSION, damaged, take_bytes};
use crate::store::key::{self, Key, Space, tag};
use crate::store::recovery;
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

fn room_heads(base: &dyn Base, space: Space) -> io::Result<Vec<RoomHead>> {
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

impl ShardState {
    /// Begins to send the state at the last durable checkpoint. May wait for the checkpoint that is
    /// being made durable.
    ///
    /// # Errors
    /// When the base cannot be read, or has no checkpoint yet.
    pub fn begin_snapshot(&self) -> io::Result<SnapshotSource> {
        let (base, space) = (self.base().clone(), self.space);
        self.shared.sources.fetch_add(1, Ordering::SeqCst);
        let mut source = SnapshotSource {
            base,
            space,
            shared: self.shared.clone(),
            lineages: self.lineages.clone(),
            applied: Applied::default(),
            generation: 0,
            rows: Vec::new(),
            rooms: Vec::new(),
        };
        let _guard = self.shared.lock_rows();
        source.copy()?;
        Ok(source)
    }

    /// Replaces the state by what a sink has received. Whatever was not durable is discarded.
    ///
    /// # Errors
    /// When the base fails. The state is then to be opened anew: it is the old or the new one.
    ///
    /// # Panics
    /// When a checkpoint is under way.
    pub fn install(&mut self, received: Received) -> io::Result<()> {
        assert!(!self.checkpointing(), "a snapshot is installed during a checkpoint");
        assert_eq!(self.shard(), received.space.shard, "a snapshot of another shard");
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
            if !found.is_empty() && chunk.len() + found[0].value.len() > 2 * BATCH_BYTES {
                if chunk.len() > BATCH_BYTES / 2 {
                    break; // a very long event goes alone
                }
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
        if self.0.len() > BATCH_BYTES - crate::limits::ROW_BYTES_MAX { self.take() } else { None }
    }
}

/// What a sink has received whole, for [`ShardState::install`].
#[derive(Debug)]
pub struct Received {
    space: Space,
}

/// Receives a snapshot into a base.
pub struct SnapshotSink {
    base: Arc<dyn Base>,
    current: Space,
    target: Space,
    own: BTreeMap<RoomId, RoomHead>,
    lineages: BTreeMap<RoomId, u32>,
    /// The next event of each room that blocks were received for, and the room's epoch.
    received: BTreeMap<RoomId, (Epoch, Seq)>,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a snapshot was received with {what}"))
}

impl SnapshotSink {
    /// Begins to receive. No checkpoint of this shard may begin from here on until the snapshot is
    /// installed or the state is opened anew.
    ///
    /// # Errors
    /// When the base cannot be read or written.
    pub fn new(base: Arc<dyn Base>, shard: ShardId) -> io::Result<SnapshotSink> {
        let found = recovery::recover(base.as_ref(), shard)?;
        let current = found.space;
        let heads = room_heads(base.as_ref(), current)?;
        let mut batch = Batch::new();
        batch.put(current.key(&Key::Unfinished), vec![VERSION]);
        base.write(batch)?;
        Ok(SnapshotSink {
            base,
            current,
            target: Space { bank: current.bank.other(), ..current },
            own: heads.into_iter().map(|head| (head.room.clone(), head)).collect(),
            lineages: found.lineages,
            received: BTreeMap::new(),
        })
    }

    /// What is here already, for the sender to leave out.
    pub fn have(&self) -> impl Iterator<Item = &RoomHead> {
        self.own.values()
    }

    /// The lineage of a room's new blocks, and the last event that is here already.
    fn place(&self, room: &RoomId, epoch: &Epoch) -> (u32, Seq) {
        let lineage = self.lineages.get(room).copied().unwrap_or(0);
        match self.own.get(room) {
            Some(own) if own.epoch == *epoch => (lineage, own.head),
            Some(_) => (lineage + 1, Seq(0)),
            None => (lineage, Seq(0)),
        }
    }

    /// Takes a chunk of events. A room's chunks come in order.
    ///
    /// # Errors
    /// When the chunk is not what it should be, or the base cannot be written.
    pub fn put_blocks(&mut self, chunk: &[u8]) -> io::Result<()> {
        let mut rest = codec::unversioned(chunk, "a chunk of events")?;
        let broken = || invalid("a damaged chunk of events");
        let text = |rest: &mut &[u8]| -> Option<String> {
            let len = take_bytes(rest, 1)?[0];
            String::from_utf8(take_bytes(rest, len.into())?.to_vec()).ok()
        };
        let room = text(&mut rest).and_then(|room| RoomId::parse(&room).ok()).ok_or_else(broken)?;
        let epoch = text(&mut rest).and_then(|e| Epoch::parse(&e).ok()).ok_or_else(broken)?;
        let (lineage, have) = self.place(&room, &epoch);
        let blocks = RoomBlocks { space: self.target, room: &room, lineage };
        let mut expected = match self.received.get(&room) {
            Some((known, next)) if *known == epoch => Some(*next),
            Some(_) => return Err(invalid("two epochs of one room")),
            None if have.0 > 0 => Some(have.next()),
            None => None, // trimmed rooms begin where they begin
        };
        let mut batch = Batch::new();
        while !rest.is_empty() {
            let first = take_bytes(&mut rest, 8).and_then(|b| b.try_into().ok());
            let first = Seq(u64::from_be_bytes(first.ok_or_else(broken)?));
            let len = take_bytes(&mut rest, 4).and_then(|b| b.try_into().ok());
            let len = u32::from_be_bytes(len.ok_or_else(broken)?);
            let value = take_bytes(&mut rest, len.into()).ok_or_else(broken)?.to_vec();
            if first.0 == 0 || expected.is_some_and(|expected| expected != first) {
                return Err(invalid("events that do not follow each other"));
            }
            expected = Some(Run::decode(first, &value)?.next());
            blocks.put(&mut batch, &Block { first, value });
            if batch.bytes() > BATCH_BYTES {
                self.base.write(std::mem::take(&mut batch))?;
            }
        }
        self.base.write(batch)?;
        if let Some(next) = expected {
            self.received.insert(room, (epoch, next));
        }
        Ok(())
    }

    /// Takes a chunk of rows.
    ///
    /// # Errors
    /// When the chunk is not what it should be, or the base cannot be written.
    pub fn put_rows(&mut self, chunk: &[u8]) -> io::Result<()> {
        let mut rest = codec::unversioned(chunk, "a chunk of rows")?;
        let broken = || invalid("a damaged chunk of rows");
        let mut batch = Batch::new();
        while !rest.is_empty() {
            let len = take_bytes(&mut rest, 2).and_then(|b| b.try_into().ok());
            let len = u16::from_be_bytes(len.ok_or_else(broken)?);
            let suffix = take_bytes(&mut rest, len.into()).ok_or_else(broken)?;
            let len = take_bytes(&mut rest, 4).and_then(|b| b.try_into().ok());
            let len = u32::from_be_bytes(len.ok_or_else(broken)?);
            let value = take_bytes(&mut rest, len.into()).ok_or_else(broken)?;
            let key = self.target.key_from_suffix(suffix).ok_or_else(broken)?;
            match key::decode(&key) {
                Some((_, Key::Lineage(_))) | None => return Err(broken()),
                Some(_) if key.len() + value.len() > crate::limits::ROW_BYTES_MAX => {
                    return Err(broken());
                }
                Some(_) => batch.put(key, value.to_vec()),
            }
        }
        self.base.write(batch)
    }

    /// Ends receiving: checks that nothing is missing, and makes it durable.
    ///
    /// # Errors
    /// When something is missing, or the base cannot be read or written.
    pub fn finish(self) -> io::Result<Received> {
        let base = self.base.as_ref();
        if codec::get_row(base, self.target, &Key::Applied)?.is_none() {
            return Err(invalid("no applied position"));
        }
        let mut batch = Batch::new();
        let heads = room_heads(base, self.target)?;
        let mut kept = BTreeMap::new();
        for head in heads {
            let (lineage, have) = self.place(&head.room, &head.epoch);
            let reached = match self.received.get(&head.room) {
                Some((epoch, next)) if *epoch == head.epoch => Seq(next.0 - 1),
                _ => have,
            };
            if reached != head.head && head.first_seq <= head.head {
                let (room, wanted) = (&head.room, head.head);
                return Err(invalid(&format!("room {room} up to {reached} and not {wanted}")));
            }
            if lineage != 0 {
                let key = self.target.key(&Key::Lineage(head.room.clone()));
                batch.put(key, codec::number_value(lineage.into()));
            }
            if have.0 > 0 {
                kept.insert(head.room, have);
            }
        }
        self.mask_erased(&kept, &mut batch)?;
        self.base.write(batch)?;
        self.base.flush()?;
        Ok(Received { space: self.target })
    }

    /// Masks what was erased of the events that were here already.
    fn mask_erased(&self, kept: &BTreeMap<RoomId, Seq>, batch: &mut Batch) -> io::Result<()> {
        let mut erased = Vec::new();
        recovery::each(self.base.as_ref(), self.target, tag::ERASED, |key, _| {
            let Key::Erased(room, seq) = key else { return Err(damaged("a key")) };
            if kept.get(&room).is_some_and(|have| seq <= *have) {
                erased.push((room, seq));
            }
            Ok(())
        })?;
        for (room, seq) in erased {
            let key = |kind: fn(RoomId, Seq) -> Key| self.current.key(&kind(room.clone(), seq));
            let known = self.base.get(&key(Key::Erased))?.is_some();
            if !known || self.base.get(&key(Key::Erasing))?.is_some() {
                batch.put(self.target.key(&Key::Erasing(room, seq)), vec![VERSION]);
            }
        }
        Ok(())
    }
}
