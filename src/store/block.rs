//! Blocks: a room's events, packed in seq order into rows of the base.
//!
//! Written by checkpoints, snapshots and compaction, read by `state.rs`. A block's value is
//!
//! ```text
//! version u8 = 1 │ encoding u8 │ count varint │ raw bytes varint │ payload
//! ```
//!
//! where the payload is `count` times an event's length (varint) and the event (`chat/codec`), as it
//! is (encoding 0) or LZ4 compressed (1). The key has the first event's seq; the others follow
//! densely. So the raw payloads of neighbours can be joined without decoding an event.
//!
//! An event too long for a row is a block of its own. Its row has encoding `10` or `11` and, in
//! place of the payload, its length; the payload itself is in [`Key::BlockPart`] rows, each after
//! a version byte.
//!
//! Invariant: blocks of a room and lineage never overlap, and leave no gap between `first_seq` and
//! the durable head.

use std::io;
use std::ops::ControlFlow;

use lz4_flex::block as lz4;

use crate::chat::codec::put_event;
use crate::chat::event::Event;
use crate::id::{RoomId, Seq};
use crate::store::base::{Base, Batch, Order};
use crate::store::codec::{self, VALUE_BYTES_MAX, VERSION, damaged};
use crate::store::key::{Key, Space, tag};

const PLAIN: u8 = 0;
const LZ4: u8 = 1;
/// Added to the encoding when the payload is in parts.
const IN_PARTS: u8 = 0x10;

/// Events in one block together before compression, in bytes, unless it is one event: bounds what a
/// read of one event decompresses.
const RAW_BYTES_MAX: usize = 16 * 1024;
/// What a decoded block may take, in bytes: arbitrary bytes must not make us allocate more.
const RAW_BYTES_LIMIT: u64 = 4 * 1024 * 1024;
/// A last block shorter than this counts as small, and is merged once there are enough of them.
pub const SMALL_BYTES: usize = VALUE_BYTES_MAX * 3 / 4;
/// Small blocks are merged once they have this much together, in bytes.
pub const MERGE_BYTES: usize = VALUE_BYTES_MAX * 5 / 4;

/// Encoded events of one room, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    first: Seq,
    raw: Vec<u8>,
    /// Where in `raw` each event ends.
    ends: Vec<usize>,
}

impl Run {
    /// A run that will begin with `first`.
    pub fn new(first: Seq) -> Run {
        Run { first, raw: Vec::new(), ends: Vec::new() }
    }

    /// Empties it, keeping its memory.
    pub fn restart(&mut self, first: Seq) {
        self.first = first;
        self.raw.clear();
        self.ends.clear();
    }

    /// The seq of the first event.
    pub fn first(&self) -> Seq {
        self.first
    }

    /// The seq after the last event.
    pub fn next(&self) -> Seq {
        Seq(self.first.0 + self.ends.len() as u64)
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Length of the encoded events.
    pub fn bytes(&self) -> usize {
        self.raw.len()
    }

    /// Adds an event, which must be the next one.
    pub fn push(&mut self, event: &Event) {
        assert_eq!(event.seq, self.next(), "events of a room are dense");
        let start = self.raw.len();
        // Most events are shorter than 16 KiB: two bytes of length. Longer ones move up.
        self.raw.extend_from_slice(&[0, 0]);
        put_event(&mut self.raw, event);
        let len = self.raw.len() - start - 2;
        if len < 1 << 14 {
            self.raw[start] = len as u8 & 0x7f | 0x80;
            self.raw[start + 1] = (len >> 7) as u8;
        } else {
            let mut prefix = Vec::new();
            codec::put_varint(&mut prefix, len as u64);
            self.raw.splice(start..start + 2, prefix);
        }
        self.ends.push(self.raw.len());
    }

    /// Adds an event in its encoded form.
    pub fn push_encoded(&mut self, event: &[u8]) {
        let len = event.len();
        if len < 1 << 14 {
            self.raw.extend_from_slice(&[len as u8 & 0x7f | 0x80, (len >> 7) as u8]);
        } else {
            codec::put_varint(&mut self.raw, len as u64);
        }
        self.raw.extend_from_slice(event);
        self.ends.push(self.raw.len());
    }

    /// Encoded events from `first` on; those before are skipped without being looked at.
    pub fn events(&self, first: Seq) -> impl Iterator<Item = (Seq, &[u8])> {
        let skip = usize::try_from(first.0.saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        (skip..self.ends.len()).map(|i| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            let mut event = &self.raw[start..self.ends[i]];
            codec::take_varint(&mut event);
            (Seq(self.first.0 + i as u64), event)
        })
    }

    /// Decodes a block's value, whose parts have been joined.
    ///
    /// # Errors
    /// When the bytes are no block.
    pub fn decode(first: Seq, value: &[u8]) -> io::Result<Run> {
        Header::parse(value)
            .and_then(|(header, payload)| header.decode(first, payload))
            .ok_or_else(|| damaged("a block of events"))
    }
}

/// What is known of a block without its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    encoding: u8,
    /// How many events are in the block.
    pub count: u64,
    /// How long they are together, uncompressed.
    pub raw_bytes: u64,
    part_bytes: u64,
}

impl Header {
    fn parse(value: &[u8]) -> Option<(Header, &[u8])> {
        let (&VERSION, rest) = value.split_first()? else { return None };
        let (&encoding, mut rest) = rest.split_first()?;
        let count = codec::take_varint(&mut rest)?;
        let raw_bytes = codec::take_varint(&mut rest)?;
        let mut header = Header { encoding, count, raw_bytes, part_bytes: 0 };
        if encoding & IN_PARTS != 0 {
            header.part_bytes = codec::take_varint(&mut rest)?;
        }
        let valid = encoding & !IN_PARTS <= LZ4
            && raw_bytes <= RAW_BYTES_LIMIT
            && header.part_bytes <= RAW_BYTES_LIMIT
            && (1..=raw_bytes).contains(&count);
        valid.then_some((header, rest))
    }

    /// Reads the header of a block's row.
    ///
    /// # Errors
    /// When the bytes are no block.
    pub fn of(value: &[u8]) -> io::Result<Header> {
        Header::parse(value).map(|(header, _)| header).ok_or_else(|| damaged("a block of events"))
    }

    /// Whether the payload is in parts: one long event.
    pub fn is_in_parts(&self) -> bool {
        self.encoding & IN_PARTS != 0
    }

    fn parts(&self) -> u64 {
        self.part_bytes.div_ceil(VALUE_BYTES_MAX as u64 - 1)
    }

    fn decode(&self, first: Seq, payload: &[u8]) -> Option<Run> {
        let raw = match self.encoding {
            PLAIN => payload.to_vec(),
            LZ4 => {
                let mut raw = vec![0; self.raw_bytes as usize];
                let len = lz4::decompress_into(payload, &mut raw).ok()?;
                raw.truncate(len);
                raw
            }
            _ => return None,
        };
        if raw.len() as u64 != self.raw_bytes || first.0.checked_add(self.count).is_none() {
            return None;
        }
        let mut ends = Vec::with_capacity(self.count as usize);
        let mut rest = raw.as_slice();
        while !rest.is_empty() {
            let len = codec::take_varint(&mut rest)?;
            codec::take_bytes(&mut rest, len)?;
            ends.push(raw.len() - rest.len());
        }
        (ends.len() as u64 == self.count).then_some(Run { first, raw, ends })
    }
}

/// An encoded block, of any length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its first event.
    pub first: Seq,
    /// The value, as the module describes it, not in parts.
    pub value: Vec<u8>,
}

/// Packs events into blocks that fill rows, by what compression has lately achieved.
#[derive(Debug)]
pub struct Packer {
    /// Raw bytes per 1,000 bytes of value, as expected of the next block.
    permille: usize,
    scratch: Vec<u8>,
}

impl Default for Packer {
    fn default() -> Packer {
        Packer { permille: 1000, scratch: Vec::new() }
    }
}

impl Packer {
    /// Packs a run; all blocks but the last are about full.
    pub fn pack(&mut self, run: &Run) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut index = 0;
        while index < run.len() {
            let (block, count) = self.pack_one(run, index);
            blocks.push(block);
            index += count;
        }
        blocks
    }

    fn pack_one(&mut self, run: &Run, index: usize) -> (Block, usize) {
        let start = if index == 0 { 0 } else { run.ends[index - 1] };
        let target = (VALUE_BYTES_MAX * self.permille / 1000).min(RAW_BYTES_MAX);
        let fits = run.ends[index..].partition_point(|end| end - start <= target);
        let mut count = fits.max(1);
        loop {
            let raw = &run.raw[start..run.ends[index + count - 1]];
            let value = self.encode(raw, count);
            let (raw_bytes, bytes) = (raw.len(), value.len());
            if bytes > VALUE_BYTES_MAX && count > 1 {
                // Compressed worse than expected: take in proportion, and a little less.
                self.permille = (raw_bytes * 1000 / bytes).max(900);
                count = (count * VALUE_BYTES_MAX * 31 / (bytes * 32)).clamp(1, count - 1);
                continue;
            }
            if raw_bytes > VALUE_BYTES_MAX / 2 {
                let seen = (raw_bytes * 1000 / bytes).clamp(900, 8000);
                self.permille = if seen < self.permille { seen } else { seen * 31 / 32 };
            }
            return (Block { first: Seq(run.first.0 + index as u64), value }, count);
        }
    }

    fn encode(&mut self, raw: &[u8], count: usize) -> Vec<u8> {
        self.scratch.resize(lz4::get_maximum_output_size(raw.len()).max(self.scratch.len()), 0);
        let compressed = match lz4::compress_into(raw, &mut self.scratch) {
            Ok(len) if len < raw.len() => Some(&self.scratch[..len]),
            _ => None,
        };
        let payload = compressed.unwrap_or(raw);
        let mut value = Vec::with_capacity(12 + payload.len());
        value.extend_from_slice(&[VERSION, if compressed.is_some() { LZ4 } else { PLAIN }]);
        codec::put_varint(&mut value, count as u64);
        codec::put_varint(&mut value, raw.len() as u64);
        value.extend_from_slice(payload);
        value
    }
}

/// The blocks of one room under one lineage.
#[derive(Debug, Clone, Copy)]
pub struct RoomBlocks<'a> {
    /// The shard's keys.
    pub space: Space,
    /// The room.
    pub room: &'a RoomId,
    /// Tells histories of the room apart.
    pub lineage: u32,
}

impl RoomBlocks<'_> {
    fn key(&self, first: Seq) -> Vec<u8> {
        self.space.key(&Key::Block(self.room.clone(), self.lineage, first))
    }

    fn part_key(&self, first: Seq, part: u64) -> Vec<u8> {
        self.space.key(&Key::BlockPart(self.room.clone(), self.lineage, first, part as u16))
    }

    /// Adds a block to a batch.
    pub fn put(&self, batch: &mut Batch, block: &Block) {
        if block.value.len() <= VALUE_BYTES_MAX {
            batch.put(self.key(block.first), block.value.clone());
            return;
        }
        let (head, payload) =
            Header::parse(&block.value).expect("a packer made this block, and not in parts");
        let mut row = vec![VERSION, head.encoding | IN_PARTS];
        codec::put_varint(&mut row, head.count);
        codec::put_varint(&mut row, head.raw_bytes);
        codec::put_varint(&mut row, payload.len() as u64);
        batch.put(self.key(block.first), row);
        for (part, bytes) in payload.chunks(VALUE_BYTES_MAX - 1).enumerate() {
            let mut row = Vec::with_capacity(1 + bytes.len());
            row.push(VERSION);
            row.extend_from_slice(bytes);
            batch.put(self.part_key(block.first, part as u64), row);
        }
    }

    /// Adds a block of `base` to a batch as it lies there; `row` is its row's value.
    ///
    /// # Errors
    /// When the base cannot be read, or the block is damaged.
    pub fn copy(
        &self,
        base: &dyn Base,
        batch: &mut Batch,
        first: Seq,
        row: Vec<u8>,
    ) -> io::Result<()> {
        for part in 0..Header::of(&row)?.parts() {
            let key = self.part_key(first, part);
            let value = base.get(&key)?.ok_or_else(|| damaged("a long event"))?;
            batch.put(key, value);
        }
        batch.put(self.key(first), row);
        Ok(())
    }

    /// Adds the removal of a block, and of its parts, to a batch; `row` is its row's value.
    ///
    /// # Errors
    /// When the bytes are no block.
    pub fn delete(&self, batch: &mut Batch, first: Seq, row: &[u8]) -> io::Result<()> {
        batch.delete(self.key(first));
        for part in 0..Header::of(row)?.parts() {
            batch.delete(self.part_key(first, part));
        }
        Ok(())
    }

    /// The value of the block with this row, its parts joined.
    ///
    /// # Errors
    /// When the base cannot be read, or the block is damaged.
    pub fn join(&self, base: &dyn Base, first: Seq, row: Vec<u8>) -> io::Result<Vec<u8>> {
        let header = Header::of(&row)?;
        if !header.is_in_parts() {
            return Ok(row);
        }
        let mut value = vec![VERSION, header.encoding & !IN_PARTS];
        codec::put_varint(&mut value, header.count);
        codec::put_varint(&mut value, header.raw_bytes);
        let start = value.len() as u64;
        for part in 0..header.parts() {
            let row = base.get(&self.part_key(first, part))?.unwrap_or_default();
            value.extend_from_slice(codec::unversioned(&row, "a part of a long event")?);
        }
        if value.len() as u64 != start + header.part_bytes {
            return Err(damaged("a long event"));
        }
        Ok(value)
    }

    /// The row of the block that holds `seq`, if that is not above the last block: (first, value).
    ///
    /// # Errors
    /// When the base cannot be read.
    pub fn floor(&self, base: &dyn Base, seq: Seq) -> io::Result<Option<(Seq, Vec<u8>)>> {
        let range = self.space.blocks(tag::BLOCK, self.room, self.lineage, Seq(0), seq);
        let row = base.first(&range, Order::Reverse)?;
        Ok(row.and_then(|(key, value)| Some((first_of(&key)?, value))))
    }

    /// Reads the rows of blocks that hold events of `first..=last`, in order, until they have
    /// `count` of these or `raw_bytes` bytes; at least one if there is one.
    ///
    /// What a concurrent checkpoint merges meanwhile may make the rows overlap or leave a hole
    /// between them, which the caller must look for.
    ///
    /// # Errors
    /// When the base cannot be read, or a block is damaged.
    pub fn rows(
        &self,
        base: &dyn Base,
        first: Seq,
        last: Seq,
        count: u64,
        raw_bytes: u64,
    ) -> io::Result<Vec<(Seq, Vec<u8>)>> {
        let Some((floor, row)) = self.floor(base, first)? else { return Ok(Vec::new()) };
        let wanted_to = Seq(first.0.saturating_add(count - 1).min(last.0));
        let header = Header::of(&row)?;
        let (mut reached, mut bytes) = (floor.0 + header.count, header.raw_bytes);
        let mut rows = vec![(floor, row)];
        if reached > wanted_to.0 || bytes >= raw_bytes {
            return Ok(rows);
        }
        let mut failed = None;
        let rest = self.space.blocks(tag::BLOCK, self.room, self.lineage, floor.next(), wanted_to);
        base.scan(&rest, Order::Forward, &mut |key, value| {
            match (first_of(key), Header::of(value)) {
                (Some(first), Ok(header)) => {
                    reached = first.0 + header.count;
                    bytes += header.raw_bytes;
                    rows.push((first, value.to_vec()));
                }
                _ => failed = Some(damaged("a block of events")),
            }
            if failed.is_some() || reached > wanted_to.0 || bytes >= raw_bytes {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        failed.map_or(Ok(rows), Err)
    }

    /// Decodes what [`RoomBlocks::rows`] returned.
    ///
    /// # Errors
    /// When the base cannot be read, or a block is damaged.
    pub fn decode(&self, base: &dyn Base, row: (Seq, Vec<u8>)) -> io::Result<Run> {
        Run::decode(row.0, &self.join(base, row.0, row.1)?)
    }
}

/// The first seq in a block's key: its last eight bytes.
pub fn first_of(key: &[u8]) -> Option<Seq> {
    key.last_chunk::<8>().map(|bytes| Seq(u64::from_be_bytes(*bytes)))
}

#[cfg(test)]
mod tests;
