//! Dedup: the remembered outcomes of requests, by minute of the request id and group of scopes.
//!
//! A *bucket* has the outcomes of one minute and one of [`GROUPS`] groups of scopes. In the base it
//! is rows of many outcomes each (*parts*, numbered as they were written); in memory an index over
//! all of them, and the outcomes themselves only until they are durable. So a fresh id is decided
//! in memory, with about 24 bytes for each remembered request of the last minutes, and a repeat
//! costs one row read. A bucket for each room would make as many rows as messages where many rooms
//! say little; one bucket for all would be long to load after a restart.
//!
//! A part's value is
//!
//! ```text
//! version u8 = 1 │ generation varint │ count varint │ count × outcome
//! outcome: scope │ ms of the id after its minute varint │ the id's other 10 bytes │ sender │
//!          seq, less the scope's one before, zigzag │ log time, less the one before, zigzag │
//!          body hash, 16 bytes
//! scope:   varint n > 0: the n-th different one of this part; 0: a new one, as room = 1 or user = 2
//!          u8, length u8, bytes
//! sender:  the same, without kind
//! ```
//!
//! The generation is that of the checkpoint that wrote it: a snapshot sends parts up to its own.
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
use crate::id::{RequestId, RoomId, Seq, UserId};
use crate::store::base::{Base, Order};
use crate::store::codec::{self, VALUE_BYTES_MAX, VERSION, damaged};
use crate::store::key::{Key, Space};

/// A request and its outcome.
pub type Outcome = (Scope, RequestId, Sent);

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

fn zigzag(from: u64, to: u64) -> u64 {
    let difference = to.wrapping_sub(from) as i64;
    ((difference << 1) ^ (difference >> 63)) as u64
}

fn unzigzag(from: u64, zigzag: u64) -> u64 {
    let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    from.wrapping_add(difference as u64)
}

fn scope_parts(scope: &Scope) -> (u8, &str) {
    match scope {
        Scope::Room(room) => (1, room.as_str()),
        Scope::User(user) => (2, user.as_str()),
    }
}

/// Encodes outcomes into values of parts, each no longer than a row; with each, how many it has.
pub fn encode_parts(minute: u32, generation: u64, outcomes: &[Outcome]) -> Vec<(u32, Vec<u8>)> {
    let mut parts = Vec::new();
    let mut rest = outcomes;
    while !rest.is_empty() {
        let mut writer = PartWriter::new(minute);
        let count = rest.iter().take_while(|outcome| writer.push(outcome)).count();
        let mut value = Vec::with_capacity(16 + writer.body.len());
        value.push(VERSION);
        codec::put_varint(&mut value, generation);
        codec::put_varint(&mut value, count as u64);
        value.extend_from_slice(&writer.body);
        parts.push((count as u32, value));
        rest = &rest[count..];
    }
    parts
}

struct PartWriter<'a> {
    body: Vec<u8>,
    start_ms: u64,
    at_ms: u64,
    /// With the last seq of each.
    scopes: Vec<(&'a Scope, u64)>,
    senders: Vec<&'a UserId>,
}

impl<'a> PartWriter<'a> {
    fn new(minute: u32) -> PartWriter<'a> {
        let start_ms = u64::from(minute) * 60_000;
        let body = Vec::with_capacity(VALUE_BYTES_MAX);
        PartWriter { body, start_ms, at_ms: start_ms, scopes: Vec::new(), senders: Vec::new() }
    }

    /// Adds an outcome, if there is room for it.
    fn push(&mut self, (scope, id, sent): &'a Outcome) -> bool {
        let (kind, scope_id) = scope_parts(scope);
        let name = sent.sender.as_str();
        // 100 = what the longest outcome has besides names, and the part's header.
        if self.body.len() + scope_id.len() + name.len() + 100 > VALUE_BYTES_MAX {
            return false;
        }
        let known = self.scopes.iter().position(|(known, _)| *known == scope);
        let known = known.unwrap_or_else(|| {
            self.body.extend_from_slice(&[0, kind, scope_id.len() as u8]);
            self.body.extend_from_slice(scope_id.as_bytes());
            self.scopes.push((scope, 0));
            usize::MAX
        });
        let last_seq = match self.scopes.get_mut(known) {
            Some((_, seq)) => {
                codec::put_varint(&mut self.body, known as u64 + 1);
                std::mem::replace(seq, sent.seq.0)
            }
            None => self.scopes.last_mut().map_or(0, |(_, seq)| std::mem::replace(seq, sent.seq.0)),
        };
        codec::put_varint(&mut self.body, id.unix_ms() - self.start_ms);
        self.body.extend_from_slice(&id.as_bytes()[6..]);
        match self.senders.iter().position(|known| **known == sent.sender) {
            Some(known) => codec::put_varint(&mut self.body, known as u64 + 1),
            None => {
                self.body.extend_from_slice(&[0, name.len() as u8]);
                self.body.extend_from_slice(name.as_bytes());
                self.senders.push(&sent.sender);
            }
        }
        codec::put_varint(&mut self.body, zigzag(last_seq, sent.seq.0));
        codec::put_varint(&mut self.body, zigzag(self.at_ms, sent.at_ms));
        self.body.extend_from_slice(&sent.body_hash);
        self.at_ms = sent.at_ms;
        true
    }
}

/// Decodes a part's value: its generation and outcomes.
///
/// # Errors
/// When the bytes are no part.
pub fn decode_part(minute: u32, value: &[u8]) -> io::Result<(u64, Vec<Outcome>)> {
    let what = "a dedup row";
    let body = codec::unversioned(value, what)?;
    parse_part(minute, body).ok_or_else(|| damaged(what))
}

fn parse_part(minute: u32, mut body: &[u8]) -> Option<(u64, Vec<Outcome>)> {
    let rest = &mut body;
    let generation = codec::take_varint(rest)?;
    let count = codec::take_varint(rest)?;
    let mut outcomes = Vec::new();
    let mut scopes: Vec<(Scope, u64)> = Vec::new();
    let mut senders: Vec<UserId> = Vec::new();
    let start = u64::from(minute) * 60_000;
    let mut at_ms = start;
    for _ in 0..count {
        let (scope, seq) = match codec::take_varint(rest)? {
            0 => {
                let kind = codec::take_bytes(rest, 1)?[0];
                let id = take_name(rest)?;
                let scope = match kind {
                    1 => Scope::Room(RoomId::parse(id).ok()?),
                    2 => Scope::User(UserId::parse(id).ok()?),
                    _ => return None,
                };
                scopes.push((scope, 0));
                scopes.last_mut()?
            }
            known => scopes.get_mut(usize::try_from(known - 1).ok()?)?,
        };
        let mut id = [0; 16];
        let ms = start.checked_add(codec::take_varint(rest)?)?;
        id[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        id[6..].copy_from_slice(codec::take_bytes(rest, 10)?);
        let sender = match codec::take_varint(rest)? {
            0 => {
                senders.push(UserId::parse(take_name(rest)?).ok()?);
                senders.last()?
            }
            known => senders.get(usize::try_from(known - 1).ok()?)?,
        };
        *seq = unzigzag(*seq, codec::take_varint(rest)?);
        at_ms = unzigzag(at_ms, codec::take_varint(rest)?);
        let body_hash = codec::take_bytes(rest, 16)?.try_into().ok()?;
        let sent = Sent { sender: sender.clone(), seq: Seq(*seq), at_ms, body_hash };
        outcomes.push((scope.clone(), RequestId::from_slice(&id).ok()?, sent));
    }
    rest.is_empty().then_some((generation, outcomes))
}

fn take_name<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let len = codec::take_bytes(rest, 1)?[0];
    std::str::from_utf8(codec::take_bytes(rest, len.into())?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::ShardId;
    use crate::store::base::{Batch, MemoryBase};
    use crate::store::key::Bank;

    const SPACE: Space = Space { shard: ShardId(1), bank: Bank(0) };
    const MINUTE: u32 = 28_333_333;

    fn outcome() -> impl Strategy<Value = Outcome> {
        let scope = prop_oneof![
            (0..40u32).prop_map(|n| Scope::Room(RoomId::parse(&format!("room{n}")).unwrap())),
            (0..9u32).prop_map(|n| Scope::User(UserId::parse(&format!("user{n}")).unwrap())),
        ];
        let sender = (0..300u32).prop_map(|n| UserId::parse(&format!("sender{n}")).unwrap());
        (scope, 0..60_000u64, any::<[u8; 10]>(), sender, any::<(u64, u64)>(), any::<[u8; 16]>())
            .prop_map(|(scope, ms, random, sender, (seq, at_ms), body_hash)| {
                let id = RequestId::mint(u64::from(MINUTE) * 60_000 + ms, random);
                (scope, id, Sent { sender, seq: Seq(seq >> (at_ms % 64)), at_ms, body_hash })
            })
    }

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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn parts_round_trip_and_fit_rows(outcomes in proptest::collection::vec(outcome(), 1..400)) {
            let mut decoded = Vec::new();
            for (count, value) in encode_parts(MINUTE, 7, &outcomes) {
                prop_assert!(value.len() <= VALUE_BYTES_MAX);
                let (generation, part) = decode_part(MINUTE, &value).unwrap();
                prop_assert_eq!((generation, part.len()), (7, count as usize));
                decoded.extend(part);
            }
            prop_assert_eq!(decoded, outcomes);
        }

        #[test]
        fn arbitrary_bytes_are_no_part(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_part(MINUTE, &bytes);
            bytes.insert(0, VERSION);
            let _ = decode_part(u32::MAX, &bytes);
        }
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
