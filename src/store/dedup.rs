//! Dedup: the remembered outcomes of requests, by minute of the request id and group of scopes.
//!
//! A *bucket* has the outcomes of one minute and one of [`GROUPS`] groups of scopes. In the base it
//! is rows of many outcomes each (*parts*, numbered as they were written); in memory an index over
//! all of them, and the outcomes themselves only until they are durable. So a fresh id is decided
//! in memory, with about 24 bytes for each remembered request of the last minutes, and a repeat
//! costs one row read. A bucket for each room would make as many rows as messages where many rooms
//! say little; one bucket for all would be long to load after a restart.
//!
//! Minutes that lie wholly before the horizon read as empty, by log time alone and whatever the
//! base still has, so that all replicas agree.
//!
//! Used by `state.rs` and `checkpoint.rs`. Hash order decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::io;
use std::sync::Arc;

use crate::chat::state::{Scope, Sent};
use crate::id::{RequestId, UserId};
use crate::store::base::{Base, Order};
use crate::store::dedup_part::{Outcome, decode_part, scope_parts};
use crate::store::key::{Key, Space};

/// Into how many buckets the scopes of a minute go.
pub const GROUPS: u8 = 16;

/// The group of a scope: FNV-1a of its kind and id, folded. It is in keys on disk.
pub fn group_of(scope: &Scope) -> u8 {
    let (kind, id) = scope_parts(scope);
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = id.bytes().fold(mix(0xcbf2_9ce4_8422_2325, kind), mix);
    ((hash ^ hash >> 32) % u64::from(GROUPS)) as u8
}

/// Names a bucket: its minute and group.
pub type BucketId = (u32, u8);

/// The minute an id belongs to.
pub fn minute_of(id: RequestId) -> u32 {
    u32::try_from(id.unix_ms() / 60_000).unwrap_or(u32::MAX)
}

/// Passes on what is a good hash already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Instead of an index: several outcomes share a fingerprint, look at them all.
const SEVERAL: u32 = u32::MAX;
/// What a remembered request costs in the index, in bytes.
const INDEXED_BYTES: usize = 24;
/// What a request that is not durable costs besides, in bytes.
const FRESH_BYTES: usize = 112;
/// What a bucket costs, in bytes.
const BUCKET_BYTES: usize = 320;
/// How many evicted buckets are remembered.
const EVICTED_MAX: usize = 1 << 16;

/// One minute and group. Outcomes are numbered as they were put: first those in parts, then the
/// frozen ones, then the fresh ones.
#[derive(Debug, Default)]
struct Bucket {
    index: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    /// The number of each part's first outcome.
    part_starts: Vec<u32>,
    frozen: Arc<Vec<Outcome>>,
    frozen_start: u32,
    fresh: Vec<Outcome>,
    fresh_start: u32,
    touched: bool,
    queued: bool,
}

impl Bucket {
    fn add(&mut self, fingerprint: u64, number: u32) {
        self.index.entry(fingerprint).and_modify(|known| *known = SEVERAL).or_insert(number);
    }

    fn is_clean(&self) -> bool {
        self.fresh.is_empty() && self.frozen.is_empty()
    }

    fn bytes(&self) -> usize {
        BUCKET_BYTES + self.index.len() * INDEXED_BYTES
    }
}

/// A bucket's new outcomes, for a checkpoint to write.
#[derive(Debug)]
pub struct FrozenBucket {
    /// Which bucket.
    pub id: BucketId,
    /// The number of the first part to write.
    pub part: u32,
    /// Outcomes in order.
    pub outcomes: Arc<Vec<Outcome>>,
}

/// The dedup state of a shard.
#[derive(Debug)]
pub struct Dedup {
    fingerprints: RandomState,
    buckets: BTreeMap<BucketId, Bucket>,
    active: Vec<BucketId>,
    frozen: Vec<BucketId>,
    clock: VecDeque<BucketId>,
    /// From this minute on, a bucket that is neither in memory nor in `evicted` is empty.
    known_from: u32,
    evicted: BTreeSet<BucketId>,
    /// No outcome has a later minute.
    minute_max: u32,
    /// Minutes before this one are beyond the horizon.
    expired_before: u32,
    fresh_bytes: usize,
    clean_bytes: usize,
    clean_bytes_max: usize,
}

impl Dedup {
    /// Nothing in memory, over a base without outcomes after `minute_max`.
    pub fn new(minute_max: u32, clean_bytes_max: usize) -> Dedup {
        Dedup {
            fingerprints: RandomState::new(),
            buckets: BTreeMap::new(),
            active: Vec::new(),
            frozen: Vec::new(),
            clock: VecDeque::new(),
            known_from: minute_max.saturating_add(1),
            evicted: BTreeSet::new(),
            minute_max,
            expired_before: 0,
            fresh_bytes: 0,
            clean_bytes: 0,
            clean_bytes_max,
        }
    }

    fn fingerprint(&self, scope: &Scope, sender: &UserId, id: RequestId) -> u64 {
        self.fingerprints.hash_one((scope, sender, id))
    }

    /// Brings a bucket into memory, if there may be one.
    fn load(&mut self, base: &dyn Base, space: Space, id: BucketId) -> io::Result<()> {
        if self.buckets.contains_key(&id) {
            return Ok(());
        }
        if id.0 >= self.known_from && !self.evicted.remove(&id) {
            return Ok(());
        }
        let mut bucket = Bucket { queued: true, ..Bucket::default() };
        let mut number = 0;
        let mut result = Ok(());
        base.scan(&space.sent(id.0, id.1), Order::Forward, &mut |_, value| match decode_part(
            id.0, value,
        ) {
            Ok((_, outcomes)) => {
                bucket.part_starts.push(number);
                for (scope, request, sent) in outcomes {
                    bucket.add(self.fingerprint(&scope, &sent.sender, request), number);
                    number += 1;
                }
                std::ops::ControlFlow::Continue(())
            }
            Err(error) => {
                result = Err(error);
                std::ops::ControlFlow::Break(())
            }
        })?;
        result?;
        bucket.frozen_start = number;
        bucket.fresh_start = number;
        self.clean_bytes += bucket.bytes();
        self.evict(); // before it can be evicted itself: the caller needs it now
        self.clock.push_back(id);
        self.buckets.insert(id, bucket);
        Ok(())
    }

    /// The remembered outcome of a request.
    ///
    /// # Errors
    /// When the base cannot be read.
    pub fn get(
        &mut self,
        base: &dyn Base,
        space: Space,
        scope: &Scope,
        sender: &UserId,
        request: RequestId,
    ) -> io::Result<Option<Sent>> {
        let id = (minute_of(request), group_of(scope));
        if id.0 < self.expired_before {
            return Ok(None);
        }
        self.load(base, space, id)?;
        let fingerprint = self.fingerprint(scope, sender, request);
        let Some(bucket) = self.buckets.get_mut(&id) else { return Ok(None) };
        bucket.touched = true;
        let Some(number) = bucket.index.get(&fingerprint).copied() else { return Ok(None) };
        let find = |outcomes: &[Outcome]| {
            let mut outcomes = outcomes.iter().rev();
            let found =
                outcomes.find(|(s, r, sent)| *r == request && s == scope && sent.sender == *sender);
            found.map(|(_, _, sent)| sent.clone())
        };
        if number == SEVERAL {
            if let Some(sent) = find(&bucket.fresh).or_else(|| find(&bucket.frozen)) {
                return Ok(Some(sent));
            }
            for part in (0..bucket.part_starts.len()).rev() {
                if let Some(sent) = find(&read_part(base, space, id, part as u32)?) {
                    return Ok(Some(sent));
                }
            }
            return Ok(None);
        }
        if let Some(at) = number.checked_sub(bucket.fresh_start) {
            return Ok(find(&bucket.fresh[at as usize..=at as usize]));
        }
        if let Some(at) = number.checked_sub(bucket.frozen_start) {
            return Ok(find(&bucket.frozen[at as usize..=at as usize]));
        }
        let part = bucket.part_starts.partition_point(|start| *start <= number) - 1;
        Ok(find(&read_part(base, space, id, part as u32)?))
    }

    /// Remembers an outcome.
    ///
    /// # Errors
    /// When the base cannot be read.
    pub fn put(
        &mut self,
        base: &dyn Base,
        space: Space,
        scope: &Scope,
        request: RequestId,
        sent: Sent,
    ) -> io::Result<()> {
        let id = (minute_of(request), group_of(scope));
        if id.0 < self.expired_before {
            return Ok(());
        }
        self.load(base, space, id)?;
        self.minute_max = self.minute_max.max(id.0);
        let fingerprint = self.fingerprint(scope, &sent.sender, request);
        let bucket = self.buckets.entry(id).or_insert_with(|| {
            self.clean_bytes += BUCKET_BYTES;
            Bucket::default()
        });
        if bucket.fresh.is_empty() {
            self.active.push(id);
        }
        let number = bucket.fresh_start + bucket.fresh.len() as u32;
        let known = bucket.index.len();
        bucket.add(fingerprint, number);
        self.clean_bytes += (bucket.index.len() - known) * INDEXED_BYTES;
        bucket.fresh.push((scope.clone(), request, sent));
        bucket.touched = true;
        self.fresh_bytes += FRESH_BYTES;
        Ok(())
    }

    /// No outcome has a later minute.
    pub fn minute_max(&self) -> u32 {
        self.minute_max
    }

    /// Forgets minutes before this one.
    pub fn expire(&mut self, before: u32) {
        if before <= self.expired_before {
            return;
        }
        self.expired_before = before;
        let kept = self.buckets.split_off(&(before, 0));
        for bucket in std::mem::replace(&mut self.buckets, kept).into_values() {
            self.clean_bytes -= bucket.bytes();
            self.fresh_bytes -= (bucket.fresh.len() + bucket.frozen.len()) * FRESH_BYTES;
        }
        self.active.retain(|id| id.0 >= before);
    }

    /// Whether anything was put since the last freeze.
    pub fn is_dirty(&self) -> bool {
        !self.active.is_empty()
    }

    /// Memory of outcomes that are not durable, in bytes.
    pub fn pinned_bytes(&self) -> usize {
        self.fresh_bytes
    }

    /// All memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.fresh_bytes + self.clean_bytes + self.evicted.len() * 16
    }

    /// Hands out what was put since the last freeze, for a checkpoint to write.
    pub fn freeze(&mut self) -> Vec<FrozenBucket> {
        self.frozen = std::mem::take(&mut self.active);
        let mut buckets = Vec::with_capacity(self.frozen.len());
        for id in &self.frozen {
            let Some(bucket) = self.buckets.get_mut(id) else { continue };
            bucket.frozen = Arc::new(std::mem::take(&mut bucket.fresh));
            bucket.frozen_start = bucket.fresh_start;
            bucket.fresh_start += bucket.frozen.len() as u32;
            buckets.push(FrozenBucket {
                id: *id,
                part: bucket.part_starts.len() as u32,
                outcomes: bucket.frozen.clone(),
            });
        }
        buckets
    }

    /// What was frozen is durable now, in parts of these lengths for each bucket. Returns what
    /// memory needs no longer, to be dropped where that keeps nobody waiting.
    pub fn thaw(&mut self, parts: &[(BucketId, Vec<u32>)]) -> Vec<Arc<Vec<Outcome>>> {
        self.frozen.clear();
        let mut retired = Vec::with_capacity(parts.len());
        for (id, lengths) in parts {
            let Some(bucket) = self.buckets.get_mut(id) else { continue }; // expired meanwhile
            self.fresh_bytes -= bucket.frozen.len() * FRESH_BYTES;
            retired.push(std::mem::take(&mut bucket.frozen));
            let mut start = bucket.frozen_start;
            for length in lengths {
                bucket.part_starts.push(start);
                start += length;
            }
            bucket.frozen_start = bucket.fresh_start;
            if !bucket.queued {
                bucket.queued = true;
                self.clock.push_back(*id);
            }
        }
        self.evict();
        retired
    }

    /// What was frozen could not be written: it counts as put since.
    pub fn unfreeze(&mut self) {
        for id in std::mem::take(&mut self.frozen) {
            let Some(bucket) = self.buckets.get_mut(&id) else { continue };
            let mut outcomes = Arc::unwrap_or_clone(std::mem::take(&mut bucket.frozen));
            if bucket.fresh.is_empty() && !outcomes.is_empty() {
                self.active.push(id);
            }
            outcomes.append(&mut bucket.fresh);
            bucket.fresh = outcomes;
            bucket.fresh_start = bucket.frozen_start;
        }
    }

    fn evict(&mut self) {
        // Twice round: the first time may only take away marks.
        let mut left = self.clock.len() * 2;
        while self.clean_bytes > self.clean_bytes_max && left > 0 {
            left -= 1;
            let Some(id) = self.clock.pop_front() else { return };
            let Some(bucket) = self.buckets.get_mut(&id) else { continue };
            if !bucket.is_clean() {
                bucket.queued = false;
            } else if std::mem::take(&mut bucket.touched) {
                self.clock.push_back(id);
            } else {
                self.clean_bytes -= bucket.bytes();
                self.buckets.remove(&id);
                if id.0 >= self.known_from {
                    self.evicted.insert(id);
                }
            }
        }
        if self.evicted.len() > EVICTED_MAX {
            self.evicted.clear();
            self.known_from = self.minute_max.saturating_add(1);
        }
    }
}

fn read_part(base: &dyn Base, space: Space, id: BucketId, part: u32) -> io::Result<Vec<Outcome>> {
    let value = base.get(&space.key(&Key::Sent(id.0, id.1, part)))?;
    // A range delete of expired minutes may have been quicker.
    value.map_or(Ok(Vec::new()), |value| decode_part(id.0, &value).map(|(_, outcomes)| outcomes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{RoomId, Seq, ShardId};
    use crate::store::base::{Batch, MemoryBase};
    use crate::store::dedup_part::encode_parts;
    use crate::store::key::Bank;

    const SPACE: Space = Space { shard: ShardId(1), bank: Bank(0) };
    const MINUTE: u32 = 28_333_333;

    fn write(base: &MemoryBase, dedup: &mut Dedup, generation: u64) {
        let mut batch = Batch::new();
        let mut lengths = Vec::new();
        for bucket in dedup.freeze() {
            let parts = encode_parts(bucket.id.0, generation, &bucket.outcomes);
            for (part, (_, value)) in (bucket.part..).zip(&parts) {
                batch.put(SPACE.key(&Key::Sent(bucket.id.0, bucket.id.1, part)), value.clone());
            }
            lengths.push((bucket.id, parts.iter().map(|(length, _)| *length).collect()));
        }
        base.write(batch).unwrap();
        dedup.thaw(&lengths);
    }

    fn request(n: u64) -> (Scope, UserId, RequestId) {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&n.to_be_bytes());
        let scope = Scope::Room(RoomId::parse(&format!("room{}", n % 50)).unwrap());
        let id = RequestId::mint(u64::from(MINUTE) * 60_000 + n * 7, random);
        (scope, UserId::parse(&format!("user{}", n % 7)).unwrap(), id)
    }

    fn sent(n: u64) -> Sent {
        Sent { sender: request(n).1, seq: Seq(n), at_ms: n, body_hash: [n as u8; 16] }
    }

    /// Puts and finds `0..count` with a checkpoint every 300, in a memory of `bytes`.
    fn check(count: u64, bytes: usize) -> MemoryBase {
        let base = MemoryBase::new();
        let mut dedup = Dedup::new(0, bytes);
        for n in 0..count {
            let (scope, sender, id) = request(n);
            assert_eq!(dedup.get(&base, SPACE, &scope, &sender, id).unwrap(), None);
            dedup.put(&base, SPACE, &scope, id, sent(n)).unwrap();
            let old = n / 3;
            let (scope, sender, id) = request(old);
            assert_eq!(dedup.get(&base, SPACE, &scope, &sender, id).unwrap(), Some(sent(old)));
            if n % 300 == 299 {
                write(&base, &mut dedup, n);
                assert_eq!(dedup.pinned_bytes(), 0);
            }
        }
        base
    }

    #[test]
    fn requests_are_remembered_in_little_memory_as_in_much() {
        check(30_000, 1 << 30);
        let base = check(30_000, 20_000);
        // After a restart everything is found, and a fresh id in a known minute is not.
        let mut dedup = Dedup::new(MINUTE + 4, 20_000);
        for n in 0..29_700 {
            let (scope, sender, id) = request(n);
            assert_eq!(dedup.get(&base, SPACE, &scope, &sender, id).unwrap(), Some(sent(n)));
        }
        let (scope, sender, id) = request(30_001);
        assert_eq!(dedup.get(&base, SPACE, &scope, &sender, id).unwrap(), None);
    }

    #[test]
    fn a_later_outcome_of_the_same_request_wins() {
        let base = MemoryBase::new();
        let mut dedup = Dedup::new(0, 1 << 20);
        let (scope, sender, id) = request(1);
        for seq in 1..5 {
            let sent = Sent { seq: Seq(seq), ..sent(1) };
            dedup.put(&base, SPACE, &scope, id, sent.clone()).unwrap();
            assert_eq!(dedup.get(&base, SPACE, &scope, &sender, id).unwrap(), Some(sent.clone()));
            write(&base, &mut dedup, seq);
            assert_eq!(dedup.get(&base, SPACE, &scope, &sender, id).unwrap(), Some(sent));
        }
    }

    #[test]
    fn a_fresh_minute_needs_no_look_into_the_base() {
        let base = MemoryBase::new();
        let mut dedup = Dedup::new(MINUTE - 1, 1 << 20);
        let (scope, sender, id) = request(1);
        assert_eq!(dedup.get(&base, SPACE, &scope, &sender, id).unwrap(), None);
        assert!(dedup.buckets.is_empty(), "nothing was loaded");
    }

    #[test]
    fn groups_are_pinned() {
        // A change here would lose what was remembered.
        let room = Scope::Room(RoomId::parse("general").unwrap());
        let user = Scope::User(UserId::parse("general").unwrap());
        assert_eq!((group_of(&room), group_of(&user)), (2, 13));
    }
}
