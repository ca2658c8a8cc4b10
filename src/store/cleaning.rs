//! The last step of a checkpoint: what must go from the base, goes.
//!
//! Called by `checkpoint.rs` once a checkpoint is durable: after a crash before that, the log is
//! applied once more, and must find what it found the first time. A checkpoint whose cleaning was
//! cut short is as good as any; the next one cleans again.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering;

use crate::chat::codec::EventReader;
use crate::id::{RoomId, Seq};
use crate::store::base::Batch;
use crate::store::block::{Packer, Run};
use crate::store::checkpoint::{Checkpoint, Written};
use crate::store::codec::damaged;
use crate::store::key::{Key, tag};

/// Erased events whose blocks one checkpoint rewrites; more wait for the next.
const CLEANED_MAX: usize = 4096;

/// One kind of cleaning that did not come to its end.
#[derive(Debug)]
pub struct Uncleaned {
    /// What is left in the base.
    pub what: &'static str,
    /// The first thing that went wrong.
    pub error: io::Error,
}

impl Checkpoint {
    /// Removes erased bodies, trimmed events and expired dedup rows: each kind, and each room, as far as
    /// it goes, whatever becomes of the others.
    pub(super) fn clean(&self, written: &mut Written) -> Vec<Uncleaned> {
        let kinds = [
            ("erased texts", self.clean_erased(written)),
            ("trimmed events", self.clean_trimmed(written)),
            ("expired request ids", self.clean_expired(written)),
        ];
        let failed = |(what, done): (&'static str, io::Result<()>)| {
            done.err().map(|error| Uncleaned { what, error })
        };
        kinds.into_iter().filter_map(failed).collect()
    }

    fn clean_erased(&self, written: &mut Written) -> io::Result<()> {
        let mut rooms: BTreeMap<&RoomId, Vec<Seq>> = BTreeMap::new();
        for (room, seq) in self.erasing.iter().take(CLEANED_MAX) {
            rooms.entry(room).or_default().push(*seq);
        }
        let mut all = Ok(());
        for (room, mut seqs) in rooms {
            seqs.sort_unstable();
            self.shared.lock_small().remove(room);
            all = all.and(self.erase_in_room(room, &seqs, written));
        }
        all
    }

    fn erase_in_room(&self, room: &RoomId, seqs: &[Seq], written: &mut Written) -> io::Result<()> {
        let (mut rest, mut all) = (seqs, Ok(()));
        while let Some(seq) = rest.first() {
            let count = match self.erase_in_block(room, *seq, rest) {
                Ok(count) => {
                    written.cleaned.extend(rest[..count].iter().map(|seq| (room.clone(), *seq)));
                    count
                }
                // What is in other blocks goes all the same.
                Err(error) => {
                    all = all.and(Err(error));
                    1
                }
            };
            rest = &rest[count..];
        }
        all
    }

    fn clean_trimmed(&self, written: &mut Written) -> io::Result<()> {
        let mut all = Ok(());
        for (room, first) in &self.trimming {
            if self.shared.sources.load(Ordering::SeqCst) > 0 {
                break; // they read what was there when they began
            }
            let (removed, done) = self.trim_blocks(room, *first);
            written.row.bytes = written.row.bytes.saturating_sub(removed);
            all = all.and(done.map(|()| written.trimmed.push((room.clone(), *first))));
        }
        all
    }

    fn clean_expired(&self, written: &mut Written) -> io::Result<()> {
        let done = self.shared.expired_before.load(Ordering::SeqCst);
        if self.expired_before > done && self.shared.sources.load(Ordering::SeqCst) == 0 {
            let range = self.space.sent_before(self.expired_before);
            let removed = self.base.delete_range(&range)?;
            written.row.bytes = written.row.bytes.saturating_sub(removed);
            self.shared.expired_before.store(self.expired_before, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Removes a room's events below `first` from the base; says how many bytes that were, and whether it
    /// is all.
    fn trim_blocks(&self, room: &RoomId, first: Seq) -> (u64, io::Result<()>) {
        self.shared.lock_small().remove(room);
        let of_room = self.blocks(room);
        let (mut removed, mut last, mut all) = (0, Seq(first.0.saturating_sub(1)), Ok(()));
        let floor = match of_room.floor(self.base.as_ref(), first) {
            Ok(floor) => floor.filter(|(begin, _)| *begin < first),
            Err(error) => return (0, Err(error)),
        };
        if let Some((begin, row)) = floor {
            match self.trim_block(room, first, (begin, row)) {
                Ok(bytes) => removed += bytes,
                // The whole blocks below it go all the same.
                Err(error) => (last, all) = (Seq(begin.0.saturating_sub(1)), Err(error)),
            }
        }
        for tag in [tag::BLOCK, tag::BLOCK_PART] {
            let below = self.space.blocks(tag, room, of_room.lineage, Seq(0), last);
            match self.base.delete_range(&below) {
                Ok(bytes) => removed += bytes,
                Err(error) => all = all.and(Err(error)),
            }
        }
        (removed, all)
    }

    /// Rewrites a block without its events below `first`; says how many bytes that made less.
    fn trim_block(
        &self,
        room: &RoomId,
        first: Seq,
        (begin, row): (Seq, Vec<u8>),
    ) -> io::Result<u64> {
        let of_room = self.blocks(room);
        let mut batch = Batch::new();
        of_room.delete(&mut batch, begin, &row)?;
        let mut removed = row.len() as u64;
        let run = of_room.decode(self.base.as_ref(), (begin, row))?;
        let mut rest = Run::new(first);
        run.events(first).for_each(|(_, event)| rest.push_encoded(event));
        if rest.next() > first {
            for block in Packer::default().pack(&rest) {
                removed = removed.saturating_sub(block.value.len() as u64);
                of_room.put(&mut batch, &block);
            }
        }
        self.base.write(batch)?;
        Ok(removed)
    }

    /// Rewrites the block of `seq` without the bodies of `seqs` that are in it; says how many of
    /// these, from the first on, are done.
    fn erase_in_block(&self, room: &RoomId, seq: Seq, seqs: &[Seq]) -> io::Result<usize> {
        let of_room = self.blocks(room);
        let mut batch = Batch::new();
        let mut count = 1;
        if let Some((first, row)) = of_room.floor(self.base.as_ref(), seq)? {
            of_room.delete(&mut batch, first, &row)?;
            let run = of_room.decode(self.base.as_ref(), (first, row))?;
            if run.next() <= seq {
                batch = Batch::new(); // not there: trimmed
            } else {
                count = seqs.partition_point(|seq| *seq < run.next());
                let erased = erase(&run, &seqs[..count])?;
                let blocks = Packer::default().pack(&erased);
                blocks.iter().for_each(|block| of_room.put(&mut batch, block));
            }
        }
        for seq in &seqs[..count] {
            batch.delete(self.space.key(&Key::Erasing(room.clone(), *seq)));
        }
        self.base.write(batch)?;
        Ok(count)
    }
}

/// The events of a run, without the bodies of `seqs`, which are sorted.
///
/// # Errors
/// When an event is damaged.
pub(crate) fn erase(run: &Run, seqs: &[Seq]) -> io::Result<Run> {
    let mut reader = EventReader::default();
    let mut erased = Run::new(run.first());
    for (seq, event) in run.events(run.first()) {
        if seqs.binary_search(&seq).is_ok() {
            let event = reader.read(event).map_err(|_| damaged("an event"))?;
            erased.push(&event.erased());
        } else {
            erased.push_encoded(event);
        }
    }
    Ok(erased)
}
