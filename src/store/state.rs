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
use std::hash::Hash;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::chat::event::{self, Event};
use crate::chat::state::{Notes, Participant, Room, Scope, Sent, State, StateMut, User};
use crate::id::{RequestId, RoomId, Seq, ShardId, UserId};
use crate::limits;
use crate::proto::internal::AppliedRow;
use crate::store::base::{Base, KeyRange, Order};
use crate::store::block::RoomBlocks;
use crate::store::checkpoint::{Checkpoint, Shared, Written};
use crate::store::codec::{self, EventReader, damaged};
use crate::store::dedup::{BucketId, Dedup, Outcome};
use crate::store::key::{self, Key, Space, tag};
use crate::store::overlay::{Found, Merge, Table, Weigh};
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
    base: Arc<dyn Base>,
    pub(crate) space: Space,
    options: StateOptions,
    pub(crate) shared: Arc<Shared>,
    pub(crate) lineages: Arc<BTreeMap<RoomId, u32>>,
    applied: Applied,
    durable: Applied,
    /// The base's counters as of the last checkpoint that began.
    row: AppliedRow,
    log_time_ms: u64,
    /// `applied` or log time changed since the last freeze.
    moved: bool,
    checkpointing: bool,
    retry: bool,
    rooms: Mutex<Table<RoomId, Arc<Room>>>,
    participants: Mutex<Table<(RoomId, UserId), Participant>>,
    users: Mutex<Table<UserId, Arc<User>>>,
    notes: Mutex<Table<(RoomId, Seq), Arc<Notes>>>,
    marks: Mutex<Table<(RoomId, String), u64>>,
    blobs: Mutex<Table<String, Bytes>>,
    dedup: Mutex<Dedup>,
    tails: Tails,
    /// Erased since the last freeze.
    erased: Vec<(RoomId, Seq)>,
    erased_frozen: Vec<(RoomId, Seq)>,
    /// Erased, and not yet so in the base's blocks.
    erasing: BTreeMap<RoomId, BTreeSet<Seq>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own<T>(mutex: &mut Mutex<T>) -> &mut T {
    mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// Stops the node: without its base it cannot go on, and must not guess.
fn fatal(shard: ShardId, error: &io::Error) -> ! {
    panic!(
        "shard {}: the state on disk cannot be read: {error}. Look at the disk and its free space, \
         then start the node again; what cannot be read is rebuilt from another replica",
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
        let mut state = ShardState {
            space: found.space,
            shared,
            lineages: Arc::new(found.lineages),
            durable: applied.clone(),
            applied,
            log_time_ms: 0,
            moved: false,
            checkpointing: false,
            retry: false,
            rooms: Mutex::new(Table::new(options.rows_bytes)),
            participants: Mutex::new(Table::new(options.rows_bytes)),
            users: Mutex::new(Table::new(options.rows_bytes)),
            notes: Mutex::new(Table::new(options.rows_bytes)),
            marks: Mutex::new(Table::new(options.rows_bytes / 8)),
            blobs: Mutex::new(Table::new(options.rows_bytes)),
            dedup: Mutex::new(Dedup::new(found.row.sent_minute_max, options.dedup_bytes)),
            tails: Tails::new(options.events_bytes),
            erased: Vec::new(),
            erased_frozen: Vec::new(),
            erasing: found.erasing,
            row: found.row,
            options,
            base,
        };
        state.advance_log_time(state.row.log_time_ms);
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
        if self.checkpointing || !self.dirty() && self.erasing.is_empty() {
            return None;
        }
        self.checkpointing = true;
        self.moved = false;
        self.erased_frozen = std::mem::take(&mut self.erased);
        let dedup = own(&mut self.dedup);
        let row = AppliedRow {
            term: self.applied.log_id.map(|(term, _)| term),
            index: self.applied.log_id.map_or(0, |(_, index)| index),
            membership: self.applied.membership.clone(),
            log_time_ms: self.log_time_ms,
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
        *self = ShardState::open_shared(base, shard, self.options.clone(), shared)?;
        Ok(())
    }

    /// A digest of everything that replicas must agree on, wherever it lies: rooms, participants,
    /// events, notes, import marks, users, blobs and log time. Reads all of it: for tests and
    /// `verify`.
    pub fn rooms_digest(&self) -> event::Hash {
        let mut digest = Digest(blake3::Hasher::new());
        digest.add(&self.log_time_ms.to_le_bytes());
        for room in self.rooms(None, usize::MAX) {
            digest.add(room.id.as_str().as_bytes());
            digest.add(&codec::room_value(&room));
            for (user, participant) in self.participants(&room.id, None, usize::MAX) {
                digest.add(user.as_str().as_bytes());
                digest.add(&codec::participant_value(&participant));
            }
            let mut next = room.first_seq;
            while next <= room.head {
                let events = self.events(&room.id, next, room.head, 1000, usize::MAX);
                for event in &events {
                    let mut bytes = Vec::new();
                    codec::put_event(&mut bytes, event);
                    digest.add(&bytes);
                }
                next = events.last().map_or(Seq(u64::MAX), |event| event.seq.next());
            }
            for (seq, notes) in self.notes_in(&room.id, Seq(0), Seq(u64::MAX)) {
                digest.add(&seq.0.to_le_bytes());
                digest.add(&codec::notes_value(&notes));
            }
        }
        for user in self.users(None, usize::MAX) {
            digest.add(user.id.as_str().as_bytes());
            digest.add(&codec::user_value(&user));
        }
        let all = (Bound::Unbounded, Bound::Unbounded);
        let marks = self.scan(
            &self.marks,
            all,
            self.space.all(tag::IMPORT_MARK),
            usize::MAX,
            |key| if let Key::ImportMark(room, source) = key { Some((room, source)) } else { None },
            |(room, source)| Key::ImportMark(room.clone(), source.clone()),
            |_, value| codec::number_from(value),
        );
        for ((room, source), line) in marks {
            digest.add(room.as_str().as_bytes());
            digest.add(source.as_bytes());
            digest.add(&line.to_le_bytes());
        }
        *digest.0.finalize().as_bytes()
    }

    fn or_fatal<T>(&self, result: io::Result<T>) -> T {
        result.unwrap_or_else(|error| fatal(self.space.shard, &error))
    }

    fn read<K: Ord + Hash + Clone + Weigh, V: Clone + Weigh>(
        &self,
        table: &Mutex<Table<K, V>>,
        key: &K,
        to_key: impl Fn(&K) -> Key,
        from: impl Fn(&K, &[u8]) -> io::Result<V>,
    ) -> Option<V> {
        if let Some(known) = lock(table).get(key) {
            return known;
        }
        // Not pinned, so no checkpoint changes this row while it is read.
        let value = codec::get_row(self.base.as_ref(), self.space, &to_key(key));
        let value = self.or_fatal(value.and_then(|row| row.map(|row| from(key, &row)).transpose()));
        lock(table).remember(key, value.clone());
        value
    }

    #[expect(clippy::too_many_arguments, reason = "one place for what every kind of row needs")]
    fn scan<K: Ord + Hash + Clone + Weigh, V: Clone + Weigh>(
        &self,
        table: &Mutex<Table<K, V>>,
        bounds: (Bound<K>, Bound<K>),
        range: KeyRange,
        limit: usize,
        key_of: impl Fn(Key) -> Option<K>,
        to_key: impl Fn(&K) -> Key,
        from: impl Fn(&K, &[u8]) -> io::Result<V>,
    ) -> Vec<(K, V)> {
        if limit == 0 {
            return Vec::new();
        }
        let table = lock(table);
        let mut merge = Merge::new(table.pinned(bounds), limit);
        let mut foreign = false;
        let result =
            self.base.scan(&range, Order::Forward, &mut |key, value| match key::decode(key)
                .and_then(|(_, key)| key_of(key))
            {
                Some(key) => match merge.visit(key, value) {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                },
                None => {
                    foreign = true;
                    ControlFlow::Break(())
                }
            });
        self.or_fatal(if foreign { Err(damaged("a key")) } else { result });
        let rows = merge.finish();
        drop(table);
        let value = |(key, found): (K, Found<V>)| {
            let value = match found {
                Found::Pinned(value) => value,
                Found::Base(value) => {
                    let whole = if codec::is_long(&value) {
                        codec::join_parts(self.base.as_ref(), self.space, &to_key(&key), value)
                    } else {
                        Ok(value)
                    };
                    self.or_fatal(whole.and_then(|value| from(&key, &value)))
                }
            };
            (key, value)
        };
        rows.into_iter().map(value).collect()
    }

    /// Reads events of the base from `page.next` up to `last`, all of which are durable.
    fn base_events(&self, room: &RoomId, last: Seq, page: &mut Page) {
        let lineage = self.lineages.get(room).copied().unwrap_or(0);
        let blocks = RoomBlocks { space: self.space, room, lineage };
        let mut reader = EventReader::default();
        let mut failures = 0;
        while page.next <= last && !page.full {
            let from = page.next;
            let read = self.base_events_once(&blocks, last, page, &mut reader);
            if page.next > from {
                failures = 0;
                continue;
            }
            // A checkpoint may have merged or rewritten blocks between two reads: look again.
            failures += 1;
            if failures >= 16 {
                let missing = || Err(damaged(&format!("event {} of room {room}", page.next)));
                self.or_fatal(read.and_then(|()| missing()))
            }
        }
    }

    fn base_events_once(
        &self,
        blocks: &RoomBlocks<'_>,
        last: Seq,
        page: &mut Page,
        reader: &mut EventReader,
    ) -> io::Result<()> {
        let base = self.base.as_ref();
        let raw_bytes = page.bytes.max(1) as u64;
        let rows = blocks.rows(base, page.next, last, page.wanted() as u64, raw_bytes)?;
        let erasing = self.erasing.get(blocks.room);
        for row in rows {
            let run = blocks.decode(base, row)?;
            if run.first() > page.next {
                return Ok(());
            }
            for (seq, bytes) in run.events(page.next) {
                if seq > last || page.full {
                    return Ok(());
                }
                let mut event = reader.read(bytes).ok_or_else(|| damaged("an event"))?;
                if event.seq != seq {
                    return Err(damaged("the order of events"));
                }
                if erasing.is_some_and(|seqs| seqs.contains(&seq)) {
                    event = Arc::new(codec::erased(&event));
                }
                page.push(event);
            }
        }
        Ok(())
    }
}

/// What a finished checkpoint has freed.
#[derive(Debug)]
pub struct Retired {
    _events: Vec<Arc<Event>>,
    _outcomes: Vec<Arc<Vec<Outcome>>>,
    _parts: Vec<(BucketId, Vec<u32>)>,
}

/// A page of events being filled.
struct Page {
    events: Vec<Arc<Event>>,
    next: Seq,
    limit: usize,
    /// Of bodies, left to fill.
    bytes: usize,
    full: bool,
}

impl Page {
    fn wanted(&self) -> usize {
        self.limit - self.events.len()
    }

    fn push(&mut self, event: Arc<Event>) {
        let bytes = event.body.text().len();
        if bytes > self.bytes && !self.events.is_empty() {
            self.full = true;
            return;
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.next = event.seq.next();
        self.events.push(event);
        self.full = self.events.len() >= self.limit;
    }
}

struct Digest(blake3::Hasher);

impl Digest {
    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

/// The first minute of request ids that is not wholly beyond the horizon.
fn expired_before(log_time_ms: u64, horizon_ms: u64) -> u32 {
    u32::try_from(log_time_ms.saturating_sub(horizon_ms) / 60_000).unwrap_or(u32::MAX)
}

impl State for ShardState {
    fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    fn room(&self, room: &RoomId) -> Option<Arc<Room>> {
        let from = |id: &RoomId, value: &[u8]| codec::room_from(id, value).map(Arc::new);
        self.read(&self.rooms, room, |id| Key::Room(id.clone()), from)
    }

    fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Vec<Arc<Room>> {
        let mut range = self.space.all(tag::ROOM);
        if let Some(after) = after {
            range = Space::above(range, &self.space.key(&Key::Room(after.clone())));
        }
        let rooms = self.scan(
            &self.rooms,
            (above(after.cloned()), Bound::Unbounded),
            range,
            limit,
            |key| if let Key::Room(id) = key { Some(id) } else { None },
            |id| Key::Room(id.clone()),
            |id, value| codec::room_from(id, value).map(Arc::new),
        );
        rooms.into_iter().map(|(_, room)| room).collect()
    }

    fn participant(&self, room: &RoomId, user: &UserId) -> Option<Participant> {
        let key = (room.clone(), user.clone());
        let to_key = |(room, user): &(RoomId, UserId)| Key::Participant(room.clone(), user.clone());
        self.read(&self.participants, &key, to_key, |_, value| codec::participant_from(value))
    }

    fn participants(
        &self,
        room: &RoomId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Vec<(UserId, Participant)> {
        let mut range = self.space.of_room(tag::PARTICIPANT, room);
        if let Some(after) = after {
            let after = Key::Participant(room.clone(), after.clone());
            range = Space::above(range, &self.space.key(&after));
        }
        let from = match after {
            Some(after) => Bound::Excluded((room.clone(), after.clone())),
            None => Bound::Included((room.clone(), least_user())),
        };
        let rows = self.scan(
            &self.participants,
            (from, Bound::Included((room.clone(), greatest_user()))),
            range,
            limit,
            |key| if let Key::Participant(room, user) = key { Some((room, user)) } else { None },
            |(room, user)| Key::Participant(room.clone(), user.clone()),
            |_, value| codec::participant_from(value),
        );
        rows.into_iter().map(|((_, user), participant)| (user, participant)).collect()
    }

    fn user(&self, user: &UserId) -> Option<Arc<User>> {
        let from = |id: &UserId, value: &[u8]| codec::user_from(id, value).map(Arc::new);
        self.read(&self.users, user, |id| Key::User(id.clone()), from)
    }

    fn users(&self, after: Option<&UserId>, limit: usize) -> Vec<Arc<User>> {
        let mut range = self.space.all(tag::USER);
        if let Some(after) = after {
            range = Space::above(range, &self.space.key(&Key::User(after.clone())));
        }
        let users = self.scan(
            &self.users,
            (above(after.cloned()), Bound::Unbounded),
            range,
            limit,
            |key| if let Key::User(id) = key { Some(id) } else { None },
            |id| Key::User(id.clone()),
            |id, value| codec::user_from(id, value).map(Arc::new),
        );
        users.into_iter().map(|(_, user)| user).collect()
    }

    fn sent(&self, scope: &Scope, sender: &UserId, id: RequestId) -> Option<Sent> {
        let found = lock(&self.dedup).get(self.base.as_ref(), self.space, scope, sender, id);
        self.or_fatal(found)
    }

    fn notes(&self, room: &RoomId, seq: Seq) -> Option<Arc<Notes>> {
        let to_key = |(room, seq): &(RoomId, Seq)| Key::Notes(room.clone(), *seq);
        let from = |_: &_, value: &[u8]| codec::notes_from(value).map(Arc::new);
        self.read(&self.notes, &(room.clone(), seq), to_key, from)
    }

    fn notes_in(&self, room: &RoomId, first: Seq, last: Seq) -> Vec<(Seq, Arc<Notes>)> {
        if first > last {
            return Vec::new();
        }
        let start = self.space.key(&Key::Notes(room.clone(), first));
        let end = Space::above(
            start.clone()..start.clone(),
            &self.space.key(&Key::Notes(room.clone(), last)),
        );
        let rows = self.scan(
            &self.notes,
            (Bound::Included((room.clone(), first)), Bound::Included((room.clone(), last))),
            start..end.start,
            usize::MAX,
            |key| if let Key::Notes(room, seq) = key { Some((room, seq)) } else { None },
            |(room, seq)| Key::Notes(room.clone(), *seq),
            |_, value| codec::notes_from(value).map(Arc::new),
        );
        rows.into_iter().map(|((_, seq), notes)| (seq, notes)).collect()
    }

    fn import_mark(&self, room: &RoomId, source: &str) -> u64 {
        let key = (room.clone(), source.to_string());
        let to_key =
            |(room, source): &(RoomId, String)| Key::ImportMark(room.clone(), source.clone());
        self.read(&self.marks, &key, to_key, |_, value| codec::number_from(value)).unwrap_or(0)
    }

    fn events(
        &self,
        room: &RoomId,
        first: Seq,
        last: Seq,
        limit: usize,
        bytes: usize,
    ) -> Vec<Arc<Event>> {
        let Some(row) = self.room(room) else { return Vec::new() };
        let first = first.max(row.first_seq).max(Seq(1));
        let last = last.min(row.head);
        if limit == 0 || first > last {
            return Vec::new();
        }
        let mut page = Page { events: Vec::new(), next: first, limit, bytes, full: false };
        let in_memory = self.tails.first(room).unwrap_or(Seq(u64::MAX));
        if first < in_memory {
            self.base_events(room, last.min(Seq(in_memory.0 - 1)), &mut page);
        }
        if !page.full {
            for event in self.tails.events(room, page.next, last) {
                page.push(event.clone());
                if page.full {
                    break;
                }
            }
        }
        page.events
    }
}

fn least_user() -> UserId {
    UserId::parse("0").expect("a slug")
}

fn greatest_user() -> UserId {
    UserId::parse(&"z".repeat(limits::SLUG_BYTES_MAX)).expect("a slug")
}

fn above<K>(after: Option<K>) -> Bound<K> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}

impl StateMut for ShardState {
    fn advance_log_time(&mut self, ms: u64) {
        if ms > self.log_time_ms {
            self.log_time_ms = ms;
            self.moved = true;
            own(&mut self.dedup).expire(expired_before(ms, self.options.dedup_horizon_ms));
        }
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
}
