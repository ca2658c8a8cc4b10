//! The receiving end of a snapshot: see `snapshot.rs`.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::{Epoch, RoomId, Seq, ShardId};
use crate::limits::ROW_BYTES_MAX;
use crate::store::base::{BATCH_BYTES, Base, Batch};
use crate::store::block::{self, Block, RoomBlocks};
use crate::store::codec::{self, VERSION, damaged, take_bytes};
use crate::store::key::{self, Key, Space, tag};
use crate::store::recovery;
use crate::store::snapshot::{RoomHead, room_heads};

/// What a sink has received whole, for [`ShardState::install`](crate::store::state::ShardState::install).
#[derive(Debug)]
pub struct Received {
    pub(super) space: Space,
    /// The marker as the sink wrote it.
    pub(super) marker: Vec<u8>,
}

impl Received {
    /// Checks that no checkpoint has come between, which has removed what was received.
    ///
    /// # Errors
    /// When one has.
    pub(super) fn check(&self, base: &dyn Base) -> io::Result<()> {
        check_marker(base, self.space, &self.marker)
    }
}

/// Tells sinks of this process apart.
static SINKS: AtomicU64 = AtomicU64::new(1);

fn check_marker(base: &dyn Base, space: Space, marker: &[u8]) -> io::Result<()> {
    if base.get(&space.key(&Key::Unfinished))?.as_deref() == Some(marker) {
        return Ok(());
    }
    Err(io::Error::other(
        "a checkpoint or another snapshot came between: this one must be received again",
    ))
}

/// Receives a snapshot into a base.
pub struct SnapshotSink {
    base: Arc<dyn Base>,
    current: Space,
    target: Space,
    own: BTreeMap<RoomId, RoomHead>,
    lineages: BTreeMap<RoomId, u32>,
    marker: Vec<u8>,
    received: BTreeMap<RoomId, Run>,
}

/// The events that were received of a room, without a hole.
struct Run {
    epoch: Epoch,
    /// The first of them.
    begin: Seq,
    /// The one after the last of them.
    next: Seq,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a snapshot was received with {what}"))
}

impl SnapshotSink {
    /// Begins to receive. No checkpoint of this shard should be written from here on until the
    /// snapshot is installed or given up: it removes what was received, and the sink, or the
    /// installation, fails. A sink that is given up needs nothing: the next checkpoint, or the next
    /// open, removes what it has left.
    ///
    /// # Errors
    /// When the base cannot be read or written.
    pub fn new(base: Arc<dyn Base>, shard: ShardId) -> io::Result<SnapshotSink> {
        let found = recovery::recover(base.as_ref(), shard)?;
        let current = found.space;
        let heads = room_heads(base.as_ref(), current)?;
        let mut batch = Batch::new();
        let mut marker = vec![VERSION];
        marker.extend_from_slice(&SINKS.fetch_add(1, Ordering::SeqCst).to_le_bytes());
        batch.put(current.key(&Key::Unfinished), marker.clone());
        base.write(batch)?;
        Ok(SnapshotSink {
            base,
            current,
            target: Space { bank: current.bank.other(), ..current },
            own: heads.into_iter().map(|head| (head.room.clone(), head)).collect(),
            lineages: found.lineages,
            marker,
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
        check_marker(self.base.as_ref(), self.current, &self.marker)?;
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
            Some(known) if known.epoch == epoch => Some(known.next),
            Some(_) => return Err(invalid("two epochs of one room")),
            // Trimmed rooms begin where they begin; `finish` looks whether that is right.
            None => None,
        };
        let mut batch = Batch::new();
        let mut begin = None;
        while !rest.is_empty() {
            let first = take_bytes(&mut rest, 8).and_then(|b| b.try_into().ok());
            let first = Seq(u64::from_be_bytes(first.ok_or_else(broken)?));
            let len = take_bytes(&mut rest, 4).and_then(|b| b.try_into().ok());
            let len = u32::from_be_bytes(len.ok_or_else(broken)?);
            let value = take_bytes(&mut rest, len.into()).ok_or_else(broken)?.to_vec();
            let follows = match expected {
                Some(expected) => first == expected,
                None => first > have,
            };
            if first.0 == 0 || !follows {
                return Err(invalid("events that do not follow each other"));
            }
            begin = begin.or(Some(first));
            expected = Some(block::Run::decode(first, &value)?.next());
            blocks.put(&mut batch, &Block { first, value });
            if batch.bytes() > BATCH_BYTES {
                self.base.write(std::mem::take(&mut batch))?;
            }
        }
        self.base.write(batch)?;
        if let Some(next) = expected {
            let begin = match self.received.get(&room) {
                Some(known) => known.begin,
                None => begin.unwrap_or(next),
            };
            self.received.insert(room, Run { epoch, begin, next });
        }
        Ok(())
    }

    /// Takes a chunk of rows.
    ///
    /// # Errors
    /// When the chunk is not what it should be, or the base cannot be written.
    pub fn put_rows(&mut self, chunk: &[u8]) -> io::Result<()> {
        check_marker(self.base.as_ref(), self.current, &self.marker)?;
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
                Some(_) if key.len() + value.len() > ROW_BYTES_MAX => {
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
        check_marker(base, self.current, &self.marker)?;
        if codec::get_row(base, self.target, &Key::Applied)?.is_none() {
            return Err(invalid("no applied position"));
        }
        let mut batch = Batch::new();
        let heads = room_heads(base, self.target)?;
        let mut kept = BTreeMap::new();
        for head in heads {
            let (lineage, have) = self.place(&head.room, &head.epoch);
            let (begin, reached) = match self.received.get(&head.room) {
                Some(run) if run.epoch == head.epoch => (run.begin, Seq(run.next.0 - 1)),
                _ => (have.next(), have),
            };
            // Between what was here and what was received, only trimmed events may be missing.
            let gap = begin > have.next() && begin > head.first_seq;
            let looked_at = !mutant!(SnapshotWithoutTail);
            if (gap || reached != head.head) && head.first_seq <= head.head && looked_at {
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
        Ok(Received { space: self.target, marker: self.marker })
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
