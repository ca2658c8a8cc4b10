//! A checkpoint: what a shard's overlay holds, written to the base.
//!
//! `ShardState::begin_checkpoint` makes one, the node's checkpoint thread writes it without a lock on
//! the state, and `finish_checkpoint` or `abort_checkpoint` takes the outcome. The order of writes
//! is what makes a crash harmless at any point:
//!
//! 1. Event blocks above the durable heads, in moderate batches. No head covers them, so nobody
//!    sees them; the marker [`Key::Unfinished`] makes the next open remove them. In the same
//!    batches, small durable blocks are merged where they fill one; that changes nothing that a
//!    reader can tell.
//! 2. One atomic batch: heads and all other rows, dedup outcomes, `applied`, and the marker's end.
//! 3. `flush`. Only now the checkpoint is durable.
//! 4. Cleaning, which a later checkpoint makes up for if it is cut short: blocks with erased bodies
//!    are rewritten (until then [`Key::Erasing`] masks them), expired dedup rows are removed, and the
//!    blocks of trimmed events.
//!
//! Erased bodies must not go before step 3: after a crash the redaction is applied once more, and
//! must find what it found the first time.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::chat::event::Event;
use crate::chat::state::{Notes, Participant, Room, User};
use crate::id::{RoomId, Seq, UserId};
use crate::proto::internal::AppliedRow;
use crate::store::base::{BATCH_BYTES, Base, Batch, Order};
use crate::store::block::{self, Block, Header, MERGE_BYTES, Packer, RoomBlocks, Run, SMALL_BYTES};
use crate::store::cleaning::Uncleaned;
use crate::store::codec::{self, VALUE_BYTES_MAX, VERSION, damaged};
use crate::store::dedup::{BucketId, FrozenBucket};
use crate::store::dedup_part;
use crate::store::key::{Key, Space, tag};
use crate::store::recovery;
use crate::store::state::Applied;

/// Small blocks that are looked for when it is not known how many there are.
const SMALL_BLOCKS_MAX: usize = 64;
/// Rooms whose small blocks are kept in mind.
const SMALL_ROOMS_MAX: usize = 128 * 1024;

/// What checkpoints, snapshots and the state of one shard share across threads.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Held while rows are made durable, and while a snapshot copies them.
    rows: Mutex<()>,
    small: Mutex<HashMap<RoomId, Small>>,
    /// Snapshots being sent: nothing that they may still read is removed.
    pub(crate) sources: AtomicUsize,
    /// Dedup rows of minutes before this one are gone.
    pub(super) expired_before: AtomicU32,
}

impl Shared {
    pub(crate) fn lock_rows(&self) -> MutexGuard<'_, ()> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was known of the base, which has been changed otherwise.
    pub(crate) fn forget(&self) {
        self.lock_small().clear();
        self.expired_before.store(0, Ordering::SeqCst);
    }

    pub(super) fn lock_small(&self) -> MutexGuard<'_, HashMap<RoomId, Small>> {
        self.small.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The small blocks at the end of a room: they hold the events `first..next`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Small {
    first: Seq,
    next: Seq,
    bytes: usize,
}

/// Frozen rows of one kind; `None` = removed.
pub(crate) type Rows<K, V> = Vec<(K, Option<V>)>;

/// A frozen overlay, to be written.
pub struct Checkpoint {
    pub(crate) base: Arc<dyn Base>,
    pub(crate) space: Space,
    pub(crate) shared: Arc<Shared>,
    pub(crate) lineages: Arc<BTreeMap<RoomId, u32>>,
    /// An earlier one failed, so blocks may lie where no head covers them.
    pub(crate) retry: bool,
    pub(crate) applied: Applied,
    pub(crate) row: AppliedRow,
    pub(crate) events: Vec<(RoomId, Vec<Arc<Event>>)>,
    pub(crate) rooms: Rows<RoomId, Arc<Room>>,
    pub(crate) participants: Rows<(RoomId, UserId), Participant>,
    pub(crate) users: Rows<UserId, Arc<User>>,
    pub(crate) notes: Rows<(RoomId, Seq), Arc<Notes>>,
    pub(crate) marks: Rows<(RoomId, String), u64>,
    pub(crate) blobs: Rows<String, Bytes>,
    pub(crate) sent: Vec<FrozenBucket>,
    /// Bodies erased since the last checkpoint.
    pub(crate) erased: Vec<(RoomId, Seq)>,
    /// Erased bodies that blocks still have, those of `erased` among them.
    pub(crate) erasing: Vec<(RoomId, Seq)>,
    /// Rooms that have been trimmed, each with the first event that is kept.
    pub(crate) trimming: Vec<(RoomId, Seq)>,
    /// Dedup minutes before this one are beyond the horizon.
    pub(crate) expired_before: u32,
}

/// The outcome of a durable checkpoint, for `finish_checkpoint`.
#[derive(Debug)]
pub struct Written {
    pub(crate) applied: Applied,
    pub(crate) row: AppliedRow,
    pub(crate) parts: Vec<(BucketId, Vec<u32>)>,
    pub(crate) cleaned: Vec<(RoomId, Seq)>,
    pub(crate) trimmed: Vec<(RoomId, Seq)>,
    uncleaned: Vec<Uncleaned>,
}

impl Written {
    /// What kept cleaning (step 4) from its end. The checkpoint is durable all the same, and the next
    /// one cleans again.
    pub fn uncleaned(&self) -> &[Uncleaned] {
        &self.uncleaned
    }
}

impl Checkpoint {
    /// Writes the checkpoint and makes it durable. To be called once, on a thread that may block.
    ///
    /// # Errors
    /// When the base fails. Give the state `abort_checkpoint` then; a failed flush should stop the
    /// node.
    pub fn write(&self) -> io::Result<Written> {
        if self.base.get(&self.space.key(&Key::Unfinished))?.is_some() {
            // Of a failed checkpoint, or a snapshot that was not received to its end.
            recovery::clean(self.base.as_ref(), self.space, &self.lineages)?;
        }
        let mut row = self.row.clone();
        let early =
            if mutant!(HeadsBeforeBlocks) { Some(self.write_rows(&mut row)?) } else { None };
        row.bytes = row.bytes.saturating_add_signed(self.write_blocks()?);
        let parts = early.map_or_else(|| self.write_rows(&mut row), Ok)?;
        let mut written = Written {
            applied: self.applied.clone(),
            row,
            parts,
            cleaned: Vec::new(),
            trimmed: Vec::new(),
            uncleaned: Vec::new(),
        };
        written.uncleaned = self.clean(&mut written);
        Ok(written)
    }

    pub(super) fn blocks<'a>(&self, room: &'a RoomId) -> RoomBlocks<'a> {
        let lineage = self.lineages.get(room).copied().unwrap_or(0);
        RoomBlocks { space: self.space, room, lineage }
    }

    /// Step 1. Returns by how many bytes the blocks have grown.
    fn write_blocks(&self) -> io::Result<i64> {
        if self.events.is_empty() {
            return Ok(0);
        }
        let mut small = self.shared.lock_small();
        if self.retry || small.len() > SMALL_ROOMS_MAX {
            small.clear();
        }
        let mut packer = Packer::default();
        let mut run = Run::new(Seq(1));
        let mut grown = 0;
        let mut batch = Batch::new();
        batch.put(self.space.key(&Key::Unfinished), vec![VERSION]);
        for (room, events) in &self.events {
            let Some(first) = events.first() else { continue };
            run.restart(first.seq);
            events.iter().for_each(|event| run.push(event));
            let blocks = packer.pack(&run);
            grown += blocks.iter().map(|block| block.value.len() as i64).sum::<i64>();
            if self.retry {
                self.write_batch(&mut batch)?;
                batch = self.replace_blocks(room, first.seq, &blocks)?;
                self.write_batch(&mut batch)?;
                continue;
            }
            let mut tail = match small.get(room) {
                Some(known) if known.next == first.seq => *known,
                _ => self.find_small(room, first.seq)?,
            };
            if tail.bytes >= MERGE_BYTES && self.shared.sources.load(Ordering::SeqCst) == 0 {
                let mut merge = Batch::new();
                grown += self.merge(room, &mut tail, &mut packer, &mut merge)?;
                if batch.bytes() + merge.bytes() > BATCH_BYTES {
                    self.write_batch(&mut batch)?;
                }
                batch.append(merge);
            }
            small.insert(room.clone(), tail.followed_by(&blocks, run.next()));
            for block in &blocks {
                if batch.bytes() + block.value.len() > BATCH_BYTES {
                    self.write_batch(&mut batch)?;
                }
                self.blocks(room).put(&mut batch, block);
            }
        }
        self.write_batch(&mut batch)?;
        Ok(grown)
    }

    fn write_batch(&self, batch: &mut Batch) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        self.base.write(std::mem::take(batch))
    }

    /// After a failed checkpoint, whose blocks and even heads may be there: one batch that replaces
    /// whatever follows the durable head.
    fn replace_blocks(&self, room: &RoomId, first: Seq, blocks: &[Block]) -> io::Result<Batch> {
        let of_room = self.blocks(room);
        let mut batch = Batch::new();
        for tag in [tag::BLOCK, tag::BLOCK_PART] {
            let stale = self.space.blocks(tag, room, of_room.lineage, first, Seq(u64::MAX));
            self.base.scan(&stale, Order::Forward, &mut |key, _| {
                batch.delete(key.to_vec());
                ControlFlow::Continue(())
            })?;
        }
        blocks.iter().for_each(|block| of_room.put(&mut batch, block));
        Ok(batch)
    }

    fn find_small(&self, room: &RoomId, next: Seq) -> io::Result<Small> {
        let mut small = Small { first: next, next, bytes: 0 };
        if next.0 == 1 {
            return Ok(small);
        }
        let before = Seq(next.0 - 1);
        let lineage = self.blocks(room).lineage;
        let range = self.space.blocks(tag::BLOCK, room, lineage, Seq(0), before);
        let mut rows = 0;
        self.base.scan(&range, Order::Reverse, &mut |key, value| {
            rows += 1;
            match (block::first_of(key), Header::of(value)) {
                (Some(first), Ok(header))
                    if rows <= SMALL_BLOCKS_MAX
                        // Else between them there were events that are trimmed.
                        && first.0 + header.count == small.first.0
                        && value.len() < SMALL_BYTES
                        && !header.is_in_parts() =>
                {
                    small.first = first;
                    small.bytes += value.len();
                    ControlFlow::Continue(())
                }
                _ => ControlFlow::Break(()),
            }
        })?;
        Ok(small)
    }

    /// Packs the small blocks of a room anew. Returns by how much they have grown: not much.
    fn merge(
        &self,
        room: &RoomId,
        small: &mut Small,
        packer: &mut Packer,
        batch: &mut Batch,
    ) -> io::Result<i64> {
        let of_room = self.blocks(room);
        let last = Seq(small.next.0 - 1);
        let rows = of_room.rows(self.base.as_ref(), small.first, last, u64::MAX, u64::MAX)?;
        let mut run = Run::new(small.first);
        let mut shrunk = 0;
        for (first, row) in rows {
            if first != run.next() {
                return Err(damaged("the order of blocks"));
            }
            of_room.delete(batch, first, &row)?;
            shrunk += row.len() as i64;
            let part = of_room.decode(self.base.as_ref(), (first, row))?;
            part.events(first).for_each(|(_, event)| run.push_encoded(event));
        }
        if run.next() != small.next {
            return Err(damaged("the order of blocks"));
        }
        let blocks = packer.pack(&run);
        blocks.iter().for_each(|block| of_room.put(batch, block));
        let none = Small { first: small.first, next: small.first, bytes: 0 };
        *small = none.followed_by(&blocks, run.next());
        Ok(blocks.iter().map(|block| block.value.len() as i64).sum::<i64>() - shrunk)
    }

    /// Steps 2 and 3. Returns how the outcomes of each bucket were divided into parts.
    fn write_rows(&self, row: &mut AppliedRow) -> io::Result<Vec<(BucketId, Vec<u32>)>> {
        let mut batch = Batch::new();
        self.put_table(
            &mut batch,
            &self.rooms,
            |id| Key::Room(id.clone()),
            |room| codec::room_value(room),
        )?;
        self.put_table(
            &mut batch,
            &self.participants,
            |(room, user)| Key::Participant(room.clone(), user.clone()),
            codec::participant_value,
        )?;
        self.put_table(
            &mut batch,
            &self.users,
            |id| Key::User(id.clone()),
            |user| codec::user_value(user),
        )?;
        self.put_table(
            &mut batch,
            &self.notes,
            |(room, seq)| Key::Notes(room.clone(), *seq),
            |notes| codec::notes_value(notes),
        )?;
        self.put_table(
            &mut batch,
            &self.marks,
            |(room, source)| Key::ImportMark(room.clone(), source.clone()),
            |line| codec::number_value(*line),
        )?;
        self.put_table(
            &mut batch,
            &self.blobs,
            |name| Key::Blob(name.clone()),
            |blob| codec::blob_value(blob),
        )?;
        let parts = self.put_sent(&mut batch, row);
        for (room, seq) in &self.erased {
            batch.put(self.space.key(&Key::Erased(room.clone(), *seq)), vec![VERSION]);
        }
        for (room, seq) in &self.erasing {
            batch.put(self.space.key(&Key::Erasing(room.clone(), *seq)), vec![VERSION]);
        }
        let applied = Some(codec::applied_value(row));
        codec::put_row(self.base.as_ref(), &mut batch, self.space, &Key::Applied, applied)?;
        batch.delete(self.space.key(&Key::Unfinished));
        let _guard = self.shared.lock_rows();
        self.base.write(batch)?;
        if !mutant!(CheckpointNotFlushed) {
            self.base.flush()?;
        }
        Ok(parts)
    }

    fn put_table<K, V>(
        &self,
        batch: &mut Batch,
        rows: &Rows<K, V>,
        to_key: impl Fn(&K) -> Key,
        to_value: impl Fn(&V) -> Vec<u8>,
    ) -> io::Result<()> {
        for (key, value) in rows {
            let value = value.as_ref().map(&to_value);
            codec::put_row(self.base.as_ref(), batch, self.space, &to_key(key), value)?;
        }
        Ok(())
    }

    fn put_sent(&self, batch: &mut Batch, row: &mut AppliedRow) -> Vec<(BucketId, Vec<u32>)> {
        let put = |bucket: &FrozenBucket| {
            let parts = dedup_part::encode_parts(bucket.id.0, row.generation, &bucket.outcomes);
            let mut lengths = Vec::with_capacity(parts.len());
            for (part, (length, value)) in (bucket.part..).zip(parts) {
                row.bytes += value.len() as u64;
                lengths.push(length);
                let key = Key::Sent(bucket.id.0, bucket.id.1, part);
                batch.put(self.space.key(&key), value);
            }
            (bucket.id, lengths)
        };
        self.sent.iter().map(put).collect()
    }
}

impl Small {
    /// The small blocks at the end once `blocks` have been added.
    fn followed_by(self, blocks: &[Block], next: Seq) -> Small {
        match blocks {
            [.., last] if last.value.len() >= SMALL_BYTES => Small { first: next, next, bytes: 0 },
            [only] => Small { first: self.first, next, bytes: self.bytes + only.value.len() },
            [.., last] => Small { first: last.first, next, bytes: last.value.len() },
            [] => self,
        }
    }
}

const _: () = assert!(SMALL_BYTES < VALUE_BYTES_MAX);
