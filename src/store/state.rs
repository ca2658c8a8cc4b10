//! A shard's replicated state: overlay over base, as `chat` sees it and as `shard` keeps it.
//!
//! `shard` owns one [`ShardState`] for each Raft group, behind a lock: `apply` changes it through
//! `chat`'s traits, reads look at it, and the node's checkpoint thread writes what it froze
//! (`checkpoint.rs`). Everything is synchronous; only the first look at a row reads the base.
//!
//! ```text
//!  rows    Table per kind          ┐ active │ frozen │ clean
//!  events  Tails, per room         │ ───────┴────────┴──────► base
//!  dedup   Dedup, by minute        ┘ changed  written  read
//! ```
//!
//! Invariants:
//! - What is pinned in memory, and the base below it, are together the state after
//!   [`ShardState::applied`]; the base alone is the state after [`ShardState::durable`].
//! - A room's events up to its durable head are in the base, those above it in memory.
//! - Reads depend on what was applied only, not on what was checkpointed, evicted or expired.
//!
//! The base failing is fatal: reads panic then, and the node stops. A replica that went on with
//! part of its state would diverge.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::chat::event::Event;
use crate::chat::state::{Notes, Participant, Room, Scope, Sent, State, StateMut, User};
use crate::id::{RequestId, RoomId, Seq, ShardId, UserId};
use crate::limits;
use crate::proto::internal::AppliedRow;
use crate::store::base::Base;
use crate::store::checkpoint::{Checkpoint, Shared, Written};
use crate::store::codec;
use crate::store::dedup::{BucketId, Dedup};
use crate::store::dedup_part::Outcome;
use crate::store::key::{Key, Space};
use crate::store::overlay::Table;
use crate::store::recovery;
use crate::store::tail::{Erase, Tails};

/// Up to where the Raft log is in the state.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// Term and index of the last applied entry; `None` before the first.
    pub log_id: Option<(u64, u64)>,
    /// The Raft membership then, in `shard`'s encoding.
    pub membership: Bytes,
}

/// How much memory a shard's state takes for what the base has too, and other choices.
#[derive(Debug, Clone)]
pub struct StateOptions {
    /// Clean rows of each large kind (rooms, participants, users, notes), in bytes.
    pub rows_bytes: usize,
    /// Durable events kept for subscribers who catch up, in bytes.
    pub events_bytes: usize,
    /// The index over remembered requests, in bytes.
    pub dedup_bytes: usize,
    /// How long a request is remembered, in milliseconds of log time. The same on every replica.
    pub dedup_horizon_ms: u64,
}

impl Default for StateOptions {
    fn default() -> StateOptions {
        StateOptions {
            rows_bytes: 4 * 1024 * 1024,
            events_bytes: 8 * 1024 * 1024,
            dedup_bytes: 8 * 1024 * 1024,
            dedup_horizon_ms: limits::DEDUP_HORIZON_MS,
        }
    }
}

/// One shard's state.
pub struct ShardState {
    pub(super) base: Arc<dyn Base>,
    pub(crate) space: Space,
    options: StateOptions,
    pub(crate) shared: Arc<Shared>,
    pub(crate) lineages: Arc<BTreeMap<RoomId, u32>>,
    applied: Applied,
    durable: Applied,
    /// The base's counters as of the last checkpoint that began.
    row: AppliedRow,
    pub(super) log_time_ms: u64,
    pub(super) revocations: u64,
    /// `applied` or log time changed since the last freeze.
    moved: bool,
    checkpointing: bool,
    retry: bool,
    pub(super) rooms: Mutex<Table<RoomId, Arc<Room>>>,
    pub(super) participants: Mutex<Table<(RoomId, UserId), Participant>>,
    pub(super) users: Mutex<Table<UserId, Arc<User>>>,
    pub(super) notes: Mutex<Table<(RoomId, Seq), Arc<Notes>>>,
    pub(super) marks: Mutex<Table<(RoomId, String), u64>>,
    pub(super) blobs: Mutex<Table<String, Bytes>>,
    pub(super) dedup: Mutex<Dedup>,
    pub(super) tails: Tails,
    /// Erased since the last freeze.
    erased: Vec<(RoomId, Seq)>,
    erased_frozen: Vec<(RoomId, Seq)>,
    /// Erased, and not yet so in the base's blocks.
    pub(super) erasing: BTreeMap<RoomId, BTreeSet<Seq>>,
    /// Rooms whose blocks below this seq the base may still have.
    trimming: BTreeMap<RoomId, Seq>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// Stops the node: without its base it cannot go on, and must not guess.
fn fatal(shard: ShardId, error: &io::Error) -> ! {
    panic!(
        "shard {}: the state on disk cannot be read: {error}. Look at the disk and its free space, \
         then start the node again",
        shard.0
    )
}

impl ShardState {
    /// Opens a shard's state in a base, empty if there is none yet, and removes what a crash left
    /// unfinished.
    ///
    /// # Errors
    /// When the base cannot be read or written, or holds rows that this release does not know.
    pub fn open(
        base: Arc<dyn Base>,
        shard: ShardId,
        options: StateOptions,
    ) -> io::Result<ShardState> {
        ShardState::open_shared(base, shard, options, Arc::default())
    }

    fn open_shared(
        base: Arc<dyn Base>,
        shard: ShardId,
        options: StateOptions,
        shared: Arc<Shared>,
    ) -> io::Result<ShardState> {
        let found = recovery::recover(base.as_ref(), shard)?;
        let log_id = found.row.term.map(|term| (term, found.row.index));
        let applied = Applied { log_id, membership: found.row.membership.clone() };
        let known_minutes = if mutant!(DedupForgotten) { 0 } else { found.row.sent_minute_max };
        let mut state = ShardState {
            space: found.space,
            shared,
            lineages: Arc::new(found.lineages),
            durable: applied.clone(),
            applied,
            log_time_ms: 0,
            revocations: found.row.revocations,
            moved: false,
            checkpointing: false,
            retry: false,
            rooms: Mutex::new(Table::new(options.rows_bytes)),
            participants: Mutex::new(Table::new(options.rows_bytes)),
            users: Mutex::new(Table::new(options.rows_bytes)),
            notes: Mutex::new(Table::new(options.rows_bytes)),
            marks: Mutex::new(Table::new(options.rows_bytes / 8)),
            blobs: Mutex::new(Table::new(options.rows_bytes)),
            dedup: Mutex::new(Dedup::new(known_minutes, options.dedup_bytes)),
            tails: Tails::new(options.events_bytes),
            erased: Vec::new(),
            erased_frozen: Vec::new(),
            erasing: found.erasing,
            trimming: BTreeMap::new(),
            row: found.row,
            options,
            base,
        };
        if !mutant!(LogTimeForgotten) {
            state.advance_log_time(state.row.log_time_ms);
        }
        state.moved = false;
        Ok(state)
    }

    /// The base below.
    pub fn base(&self) -> &Arc<dyn Base> {
        &self.base
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.space.shard
    }

    /// Up to where the log is applied.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// Says up to where the log is applied, with what was changed since.
    pub fn set_applied(&mut self, applied: Applied) {
        self.applied = applied;
        self.moved = true;
    }

    /// Up to where the log was applied at the last durable checkpoint: what a crash leaves.
    pub fn durable(&self) -> &Applied {
        &self.durable
    }

    /// An opaque value.
    pub fn blob(&self, name: &str) -> Option<Bytes> {
        let key = name.to_string();
        self.read(&self.blobs, &key, |name| Key::Blob(name.clone()), |_, v| codec::blob_from(v))
    }

    /// Writes an opaque value.
    pub fn put_blob(&mut self, name: &str, value: Bytes) {
        own(&mut self.blobs).put(&name.to_string(), Some(value));
    }

    /// Memory of what is not durable yet, in bytes: what a checkpoint would write or is writing.
    pub fn overlay_bytes(&self) -> usize {
        lock(&self.rooms).pinned_bytes()
            + lock(&self.participants).pinned_bytes()
            + lock(&self.users).pinned_bytes()
            + lock(&self.notes).pinned_bytes()
            + lock(&self.marks).pinned_bytes()
            + lock(&self.blobs).pinned_bytes()
            + lock(&self.dedup).pinned_bytes()
            + self.tails.pinned_bytes()
    }

    /// All memory that the state takes, in bytes, roughly.
    pub fn memory_bytes(&self) -> usize {
        lock(&self.rooms).bytes()
            + lock(&self.participants).bytes()
            + lock(&self.users).bytes()
            + lock(&self.notes).bytes()
            + lock(&self.marks).bytes()
            + lock(&self.blobs).bytes()
            + lock(&self.dedup).bytes()
            + self.tails.bytes()
    }

    /// Whether there is something to checkpoint.
    pub fn dirty(&self) -> bool {
        self.moved
            || self.tails.is_dirty()
            || lock(&self.rooms).is_dirty()
            || lock(&self.participants).is_dirty()
            || lock(&self.users).is_dirty()
            || lock(&self.notes).is_dirty()
            || lock(&self.marks).is_dirty()
            || lock(&self.blobs).is_dirty()
            || lock(&self.dedup).is_dirty()
    }

    /// Events and dedup rows of this shard in the base, in bytes; approximate, and cheap to ask.
    pub fn size_bytes(&self) -> u64 {
        self.row.bytes
    }

    /// Freezes what changed since the last checkpoint, for its writing elsewhere.
    ///
    /// `None` while another one is under way, and when nothing changed. Give its outcome to
    /// [`ShardState::finish_checkpoint`] or [`ShardState::abort_checkpoint`].
    pub fn begin_checkpoint(&mut self) -> Option<Checkpoint> {
        let cleaning = !self.erasing.is_empty() || !self.trimming.is_empty();
        if self.checkpointing || !self.dirty() && !cleaning {
            return None;
        }
        self.checkpointing = true;
        self.moved = false;
        self.erased_frozen = std::mem::take(&mut self.erased);
        let dedup = own(&mut self.dedup);
        let row = AppliedRow {
            term: self.applied.log_id.map(|(term, _)| term),
            index: self.applied.log_id.map_or(0, |(_, index)| index)
                + u64::from(mutant!(CheckpointAhead)),
            membership: match mutant!(MembershipForgotten) {
                true => self.row.membership.clone(),
                false => self.applied.membership.clone(),
            },
            log_time_ms: self.log_time_ms,
            revocations: self.revocations,
            generation: self.row.generation + 1,
            sent_minute_max: dedup.minute_max(),
            bytes: self.row.bytes,
        };
        let erasing = self.erasing.iter();
        let erasing = erasing.flat_map(|(room, seqs)| seqs.iter().map(|seq| (room.clone(), *seq)));
        Some(Checkpoint {
            base: self.base.clone(),
            space: self.space,
            shared: self.shared.clone(),
            lineages: self.lineages.clone(),
            retry: self.retry,
            applied: self.applied.clone(),
            row,
            events: self.tails.freeze(),
            rooms: own(&mut self.rooms).freeze(),
            participants: own(&mut self.participants).freeze(),
            users: own(&mut self.users).freeze(),
            notes: own(&mut self.notes).freeze(),
            marks: own(&mut self.marks).freeze(),
            blobs: own(&mut self.blobs).freeze(),
            sent: dedup.freeze(),
            erased: self.erased_frozen.clone(),
            erasing: erasing.collect(),
            trimming: self.trimming.clone().into_iter().collect(),
            expired_before: expired_before(self.log_time_ms, self.options.dedup_horizon_ms),
        })
    }

    /// Takes note that a checkpoint is durable.
    ///
    /// Returns memory that is needed no longer: there may be much of it, so drop it once the lock
    /// on the state is released.
    pub fn finish_checkpoint(&mut self, written: Written) -> Retired {
        assert!(self.checkpointing, "a checkpoint ends that has not begun");
        self.checkpointing = false;
        self.retry = false;
        self.durable = written.applied;
        self.row = written.row;
        self.erased_frozen.clear();
        for (room, seq) in &written.cleaned {
            if let Some(seqs) = self.erasing.get_mut(room) {
                seqs.remove(seq);
                if seqs.is_empty() {
                    self.erasing.remove(room);
                }
            }
        }
        for (room, first) in &written.trimmed {
            if self.trimming.get(room) == Some(first) {
                self.trimming.remove(room);
            }
        }
        own(&mut self.rooms).thaw();
        own(&mut self.participants).thaw();
        own(&mut self.users).thaw();
        own(&mut self.notes).thaw();
        own(&mut self.marks).thaw();
        own(&mut self.blobs).thaw();
        Retired {
            _events: self.tails.thaw(),
            _outcomes: own(&mut self.dedup).thaw(&written.parts),
            _parts: written.parts,
        }
    }

    /// Takes back what a checkpoint could not write: the next one will.
    pub fn abort_checkpoint(&mut self) {
        assert!(self.checkpointing, "a checkpoint ends that has not begun");
        self.checkpointing = false;
        self.retry = true;
        self.moved = true;
        // What was written before the failure is replaced, and must not look like an older one.
        self.row.generation += 1;
        self.erased.append(&mut self.erased_frozen);
        self.tails.unfreeze();
        own(&mut self.rooms).unfreeze();
        own(&mut self.participants).unfreeze();
        own(&mut self.users).unfreeze();
        own(&mut self.notes).unfreeze();
        own(&mut self.marks).unfreeze();
        own(&mut self.blobs).unfreeze();
        own(&mut self.dedup).unfreeze();
    }

    /// Has the next checkpoint look for blocks of trimmed events in all rooms: which ones have any is
    /// not remembered across restarts.
    pub fn look_for_trimmed(&mut self) {
        let rooms = self.rooms(None, usize::MAX);
        let trimmed = rooms.iter().filter(|room| room.first_seq.0 > 1);
        self.trimming.extend(trimmed.map(|room| (room.id.clone(), room.first_seq)));
    }

    /// Whether blocks of trimmed events stay in the base because the state is being sent.
    pub fn trimming_waits(&self) -> bool {
        !self.trimming.is_empty() && self.shared.sources.load(Ordering::SeqCst) > 0
    }

    /// Whether a checkpoint has begun and not ended.
    pub fn checkpointing(&self) -> bool {
        self.checkpointing
    }

    /// Opens the state anew after the base was changed under it: a snapshot was installed.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        assert!(!self.checkpointing, "a snapshot is installed during a checkpoint");
        let (base, shard) = (self.base.clone(), self.space.shard);
        let shared = self.shared.clone();
        shared.forget();
        let mut opened = ShardState::open_shared(base, shard, self.options.clone(), shared)?;
        if mutant!(SnapshotKeepsDedup) {
            std::mem::swap(&mut opened.dedup, &mut self.dedup);
        }
        *self = opened;
        Ok(())
    }

    pub(super) fn or_fatal<T>(&self, result: io::Result<T>) -> T {
        result.unwrap_or_else(|error| fatal(self.space.shard, &error))
    }
}

/// What a finished checkpoint has freed.
#[derive(Debug)]
pub struct Retired {
    _events: Vec<Arc<Event>>,
    _outcomes: Vec<Arc<Vec<Outcome>>>,
    _parts: Vec<(BucketId, Vec<u32>)>,
}

/// The first minute of request ids that is not wholly beyond the horizon.
fn expired_before(log_time_ms: u64, horizon_ms: u64) -> u32 {
    u32::try_from(log_time_ms.saturating_sub(horizon_ms) / 60_000).unwrap_or(u32::MAX)
}

impl StateMut for ShardState {
    fn advance_log_time(&mut self, ms: u64) {
        if ms > self.log_time_ms {
            self.log_time_ms = ms;
            self.moved = true;
            own(&mut self.dedup).expire(expired_before(ms, self.options.dedup_horizon_ms));
        }
    }

    fn note_revocation(&mut self) {
        self.revocations += 1;
        self.moved = true;
    }

    fn put_room(&mut self, room: Room) {
        let room = Arc::new(room);
        own(&mut self.rooms).put(&room.id.clone(), Some(room));
    }

    fn put_participant(&mut self, room: &RoomId, user: &UserId, participant: Option<Participant>) {
        own(&mut self.participants).put(&(room.clone(), user.clone()), participant);
    }

    fn put_user(&mut self, user: User) {
        let user = Arc::new(user);
        own(&mut self.users).put(&user.id.clone(), Some(user));
    }

    fn put_sent(&mut self, scope: &Scope, id: RequestId, sent: Sent) {
        let result = own(&mut self.dedup).put(self.base.as_ref(), self.space, scope, id, sent);
        self.or_fatal(result);
    }

    fn put_notes(&mut self, room: &RoomId, seq: Seq, notes: Notes) {
        own(&mut self.notes).put(&(room.clone(), seq), Some(Arc::new(notes)));
    }

    fn put_import_mark(&mut self, room: &RoomId, source: &str, line: u64) {
        own(&mut self.marks).put(&(room.clone(), source.to_string()), Some(line));
    }

    fn append_event(&mut self, room: &RoomId, event: Arc<Event>) {
        self.tails.append(room, event);
    }

    fn erase_body(&mut self, room: &RoomId, seq: Seq) {
        if self.tails.erase(room, seq) == Erase::InBase {
            self.erasing.entry(room.clone()).or_default().insert(seq);
        }
        self.erased.push((room.clone(), seq));
    }

    fn forget_events(&mut self, room: &RoomId, first: Seq) {
        for (seq, _) in self.notes_in(room, Seq(0), Seq(first.0.saturating_sub(1))) {
            own(&mut self.notes).put(&(room.clone(), seq), None);
        }
        self.trimming.insert(room.clone(), first);
    }
}
