//! Compaction: a base copied into a fresh one.
//!
//! Run by `folkmoot node compact`, on a stopped node. sled reclaims little by itself, and keeps
//! what was erased in freed segments. Afterwards no byte of an erased body is in the new directory.

use std::collections::BTreeSet;
use std::io;
use std::ops::ControlFlow;

use crate::id::{RoomId, Seq, ShardId};
use crate::store::base::{BATCH_BYTES, Base, Batch, Order};
use crate::store::block::{Packer, RoomBlocks, Run};
use crate::store::checkpoint;
use crate::store::codec::{self, damaged};
use crate::store::key::{self, Bank, Key, Space, tag};
use crate::store::recovery::{self, Recovered};

/// Copies what lives in `old`, of all shards, into `new`, which is empty, and makes it durable.
/// `progress` is told the bytes written so far.
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

    /// The rows of the bank that counts, into bank 0.
    fn rows(&mut self, old: &dyn Base, found: &Recovered) -> io::Result<()> {
        let target = Space { bank: Bank(0), ..found.space };
        let mut result = Ok(());
        old.scan(&found.space.bank_range(), Order::Forward, &mut |key, value| {
            let suffix = key::suffix(key);
            // Blocks are written without what is being erased, and under lineage 0.
            if !matches!(suffix.first(), Some(&tag::ERASING | &tag::LINEAGE)) {
                match target.key_from_suffix(&suffix) {
                    Some(key) => self.batch.put(key, value.to_vec()),
                    None => result = Err(damaged("a key")),
                }
                if result.is_ok() {
                    result = self.write_if_full();
                }
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
        for (room, first, head) in rooms {
            self.room(old, found, &room, first, head)?;
        }
        Ok(())
    }

    fn room(
        &mut self,
        old: &dyn Base,
        found: &Recovered,
        room: &RoomId,
        first: Seq,
        head: Seq,
    ) -> io::Result<()> {
        let lineage = found.lineages.get(room).copied().unwrap_or(0);
        let source = RoomBlocks { space: found.space, room, lineage };
        let target = RoomBlocks { lineage: 0, ..source };
        let none = BTreeSet::new();
        let erasing = found.erasing.get(room).unwrap_or(&none);
        let erasing: Vec<Seq> = erasing.iter().copied().collect();
        let mut packer = Packer::default();
        let mut next = first;
        while next <= head {
            let mut run = Run::new(next);
            let rows = source.rows(old, next, head, u64::MAX, BATCH_BYTES as u64)?;
            for row in rows {
                let part = source.decode(old, row)?;
                if part.first() > run.next() {
                    break;
                }
                let part = checkpoint::erase(&part, &erasing)?;
                for (seq, event) in part.events(run.next()) {
                    if seq <= head {
                        run.push_encoded(event);
                    }
                }
            }
            if run.is_empty() {
                return Err(damaged(&format!("event {next} of room {room}")));
            }
            next = run.next();
            for block in packer.pack(&run) {
                target.put(&mut self.batch, &block);
                self.write_if_full()?;
            }
        }
        Ok(())
    }
}
