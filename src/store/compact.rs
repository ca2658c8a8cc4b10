//! Compaction: a base copied into a fresh one.
//!
//! Run by `folkmoot node compact`. sled reclaims little by itself, and keeps what was erased in freed
//! segments. Afterwards no byte of an erased body is in the new directory.
//!
//! What lives is copied as it lies: the same rows, blocks, bank and lineages. So whoever has the old
//! base open can go on with the new one, without a look at it.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;

use crate::id::{Seq, ShardId};
use crate::store::base::{BATCH_BYTES, Base, Batch, Order};
use crate::store::block::{Header, Packer, RoomBlocks};
use crate::store::cleaning;
use crate::store::codec::{self, damaged};
use crate::store::key::{self, Key, Space, tag};
use crate::store::recovery::{self, Recovered};

/// Copies what lives in `old`, of all shards, into `new`, which is empty, and makes it durable.
/// `progress` is told the bytes written so far.
///
/// Nothing may write to `old` meanwhile.
///
/// # Errors
/// When a base fails, `old` is damaged, or `new` is not empty.
pub fn rewrite(old: &dyn Base, new: &dyn Base, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
    let everything = vec![0]..vec![u8::MAX; 8];
    if new.first(&everything, Order::Forward)?.is_some() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the directory to compact into already holds a state",
        ));
    }
    let mut rest = vec![0, 0]..everything.end;
    let mut copy = Copy { new, batch: Batch::new(), written: 0, progress };
    while let Some((key, _)) = old.first(&rest, Order::Forward)? {
        let shard = key.first_chunk::<2>().ok_or_else(|| damaged("a key"))?;
        let shard = ShardId(u16::from_be_bytes(*shard));
        let found = recovery::look(old, shard)?;
        copy.rows(old, &found)?;
        copy.events(old, &found)?;
        rest.start = Space::whole(shard).end;
    }
    copy.write()?;
    new.flush()
}

struct Copy<'a> {
    new: &'a dyn Base,
    batch: Batch,
    written: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Copy<'_> {
    fn write(&mut self) -> io::Result<()> {
        self.written += self.batch.bytes() as u64;
        self.new.write(std::mem::take(&mut self.batch))?;
        (self.progress)(self.written);
        Ok(())
    }

    fn write_if_full(&mut self) -> io::Result<()> {
        if self.batch.bytes() > BATCH_BYTES { self.write() } else { Ok(()) }
    }

    /// The rows of the bank that counts, and which one that is.
    fn rows(&mut self, old: &dyn Base, found: &Recovered) -> io::Result<()> {
        let bank = found.space.key(&Key::Bank);
        if let Some(value) = old.get(&bank)? {
            self.batch.put(bank, value);
        }
        let mut result = Ok(());
        old.scan(&found.space.bank_range(), Order::Forward, &mut |key, value| {
            // Blocks are written without what is being erased.
            if key::suffix(key).first() != Some(&tag::ERASING) {
                self.batch.put(key.to_vec(), value.to_vec());
                result = self.write_if_full();
            }
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result
    }

    fn events(&mut self, old: &dyn Base, found: &Recovered) -> io::Result<()> {
        let mut rooms = Vec::new();
        recovery::each(old, found.space, tag::ROOM, |key, value| {
            let Key::Room(id) = key else { return Err(damaged("a key")) };
            let room = codec::room_from(&id, value)?;
            rooms.push((id, room.first_seq.max(Seq(1)), room.head));
            Ok(())
        })?;
        let none = BTreeSet::new();
        for (room, first, head) in rooms {
            let lineage = found.lineages.get(&room).copied().unwrap_or(0);
            let blocks = RoomBlocks { space: found.space, room: &room, lineage };
            let erasing = found.erasing.get(&room).unwrap_or(&none);
            self.blocks(old, blocks, first..=head, erasing)?;
        }
        Ok(())
    }

    /// The blocks of a room that hold its events `events`.
    fn blocks(
        &mut self,
        old: &dyn Base,
        blocks: RoomBlocks<'_>,
        events: std::ops::RangeInclusive<Seq>,
        erasing: &BTreeSet<Seq>,
    ) -> io::Result<()> {
        let mut next = *events.start();
        while next <= *events.end() {
            let missing = || damaged(&format!("event {next} of room {}", blocks.room));
            let rows = blocks.rows(old, next, *events.end(), u64::MAX, BATCH_BYTES as u64)?;
            let mut copied = next;
            for (first, row) in rows {
                let end = Seq(first.0.saturating_add(Header::of(&row)?.count));
                if first > copied || end <= copied {
                    return Err(missing());
                }
                let erased: Vec<Seq> = erasing.range(first..end).copied().collect();
                if erased.is_empty() {
                    blocks.copy(old, &mut self.batch, first, row)?;
                } else {
                    let run = blocks.decode(old, (first, row))?;
                    let packed = Packer::default().pack(&cleaning::erase(&run, &erased)?);
                    packed.iter().for_each(|block| blocks.put(&mut self.batch, block));
                }
                self.write_if_full()?;
                copied = end;
            }
            if copied == next {
                return Err(missing());
            }
            next = copied;
        }
        Ok(())
    }
}
