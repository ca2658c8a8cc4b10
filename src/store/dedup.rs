//! Dedup: the remembered outcomes of requests, by scope and minute of the request id.
//!
//! A *bucket* has the outcomes of one scope and minute. In the base it is rows of many outcomes
//! each (*parts*, numbered as they were written); in memory an index over all of them, and the
//! outcomes themselves only until they are durable. So a fresh id is decided in memory, with about
//! 24 bytes for each remembered request of the last minutes, and a repeat costs one row read.
//!
//! A part's value is
//!
//! ```text
//! version u8 = 1 │ generation varint │ count varint │ count × outcome
//! outcome: ms of the id after its minute varint │ the id's other 10 bytes │ sender │
//!          seq, less the one before, zigzag │ log time, less the one before, zigzag │ body hash
//! sender:  varint n > 0: the n-th different one of this part; 0: a new one, length u8, bytes
//! ```
//!
//! The generation is that of the checkpoint that wrote it: a snapshot sends parts up to its own.
//!
//! Minutes that lie wholly before the horizon read as empty, by log time alone and whatever the
//! base still has, so that all replicas agree.
//!
//! Used by `state.rs` and `checkpoint.rs`. Hash order decides nothing.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::io;
use std::sync::Arc;

use crate::chat::state::{Scope, Sent};
use crate::id::{RequestId, Seq, UserId};
use crate::store::base::{Base, Order};
use crate::store::codec::{self, VALUE_BYTES_MAX, VERSION, damaged};
use crate::store::key::{Key, Space};

/// A request and its outcome.
pub type Outcome = (RequestId, Sent);

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
/// How many evicted buckets are remembered by their hash.
const EVICTED_MAX: usize = 1 << 18;

/// One scope and minute. Outcomes are numbered as they were put: first those in parts, then the
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
    /// Their minute.
    pub minute: u32,
    /// Their scope.
    pub scope: Scope,
    /// The number of the first part to write.
    pub part: u32,
    /// Outcomes in order.
    pub outcomes: Arc<Vec<Outcome>>,
}

/// The dedup state of a shard.
#[derive(Debug)]
pub struct Dedup {
    fingerprints: RandomState,
    minutes: BTreeMap<u32, HashMap<Scope, Bucket>>,
    active: Vec<(u32, Scope)>,
    frozen: Vec<(u32, Scope)>,
    clock: VecDeque<(u32, Scope)>,
    /// From this minute on, a bucket that is neither in memory nor in `evicted` is empty.
    known_from: u32,
    evicted: HashSet<u64>,
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
            minutes: BTreeMap::new(),
            active: Vec::new(),
            frozen: Vec::new(),
            clock: VecDeque::new(),
            known_from: minute_max.saturating_add(1),
            evicted: HashSet::new(),
            minute_max,
            expired_before: 0,
            fresh_bytes: 0,
            clean_bytes: 0,
            clean_bytes_max,
        }
    }

    fn fingerprint(&self, sender: &UserId, id: RequestId) -> u64 {
        self.fingerprints.hash_one((sender.as_str(), id))
    }

    /// Brings the bucket into memory, if there may be one.
    fn load(
        &mut self,
        base: &dyn Base,
        space: Space,
        minute: u32,
        scope: &Scope,
    ) -> io::Result<()> {
        if self.minutes.get(&minute).is_some_and(|scopes| scopes.contains_key(scope)) {
            return Ok(());
        }
        let hash = self.fingerprints.hash_one((minute, scope));
        if minute >= self.known_from && !self.evicted.remove(&hash) {
            return Ok(());
        }
        let mut bucket = Bucket { queued: true, ..Bucket::default() };
        let mut number = 0;
        let mut result = Ok(());
        base.scan(&space.sent(minute, scope), Order::Forward, &mut |_, value| match decode_part(
            minute, value,
        ) {
            Ok((_, outcomes)) => {
                bucket.part_starts.push(number);
                for (id, sent) in outcomes {
                    bucket.add(self.fingerprint(&sent.sender, id), number);
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
        self.clock.push_back((minute, scope.clone()));
        self.minutes.entry(minute).or_default().insert(scope.clone(), bucket);
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
        id: RequestId,
    ) -> io::Result<Option<Sent>> {
        let minute = minute_of(id);
        if minute < self.expired_before {
            return Ok(None);
        }
        self.load(base, space, minute, scope)?;
        let fingerprint = self.fingerprint(sender, id);
        let bucket = self.minutes.get_mut(&minute).and_then(|scopes| scopes.get_mut(scope));
        let Some(bucket) = bucket else { return Ok(None) };
        bucket.touched = true;
        let Some(number) = bucket.index.get(&fingerprint).copied() else { return Ok(None) };
        let find = |outcomes: &[Outcome]| {
            let mut outcomes = outcomes.iter().rev();
            outcomes.find(|(i, s)| *i == id && s.sender == *sender).map(|(_, sent)| sent.clone())
        };
        if number == SEVERAL {
            if let Some(sent) = find(&bucket.fresh).or_else(|| find(&bucket.frozen)) {
                return Ok(Some(sent));
            }
            for part in (0..bucket.part_starts.len()).rev() {
                if let Some(sent) = find(&read_part(base, space, minute, scope, part as u32)?) {
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
        Ok(find(&read_part(base, space, minute, scope, part as u32)?))
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
        id: RequestId,
        sent: Sent,
    ) -> io::Result<()> {
        let minute = minute_of(id);
        if minute < self.expired_before {
            return Ok(());
        }
        self.load(base, space, minute, scope)?;
        self.minute_max = self.minute_max.max(minute);
        let fingerprint = self.fingerprint(&sent.sender, id);
        let scopes = self.minutes.entry(minute).or_default();
        let bucket = match scopes.get_mut(scope) {
            Some(bucket) => bucket,
            None => {
                self.clean_bytes += BUCKET_BYTES;
                scopes.entry(scope.clone()).or_default()
            }
        };
        if bucket.fresh.is_empty() {
            self.active.push((minute, scope.clone()));
        }
        let number = bucket.fresh_start + bucket.fresh.len() as u32;
        let known = bucket.index.len();
        bucket.add(fingerprint, number);
        self.clean_bytes += (bucket.index.len() - known) * INDEXED_BYTES;
        bucket.fresh.push((id, sent));
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
        let kept = self.minutes.split_off(&before);
        for bucket in std::mem::replace(&mut self.minutes, kept).into_values().flatten() {
            let bucket = bucket.1;
            self.clean_bytes -= bucket.bytes();
            self.fresh_bytes -= (bucket.fresh.len() + bucket.frozen.len()) * FRESH_BYTES;
        }
        self.active.retain(|(minute, _)| *minute >= before);
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
        for (minute, scope) in &self.frozen {
            let bucket = self.minutes.get_mut(minute).and_then(|scopes| scopes.get_mut(scope));
            let Some(bucket) = bucket else { continue };
            bucket.frozen = Arc::new(std::mem::take(&mut bucket.fresh));
            bucket.frozen_start = bucket.fresh_start;
            bucket.fresh_start += bucket.frozen.len() as u32;
            buckets.push(FrozenBucket {
                minute: *minute,
                scope: scope.clone(),
                part: bucket.part_starts.len() as u32,
                outcomes: bucket.frozen.clone(),
            });
        }
        buckets
    }

    /// What was frozen is durable now, in parts of these lengths for each bucket. Returns what
    /// memory needs no longer, to be dropped where that keeps nobody waiting.
    pub fn thaw(&mut self, parts: &[(u32, Scope, Vec<u32>)]) -> Vec<Arc<Vec<Outcome>>> {
        self.frozen.clear();
        let mut retired = Vec::with_capacity(parts.len());
        for (minute, scope, lengths) in parts {
            let bucket = self.minutes.get_mut(minute).and_then(|scopes| scopes.get_mut(scope));
            let Some(bucket) = bucket else { continue }; // expired meanwhile
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
                self.clock.push_back((*minute, scope.clone()));
            }
        }
        self.evict();
        retired
    }

    /// What was frozen could not be written: it counts as put since.
    pub fn unfreeze(&mut self) {
        for (minute, scope) in std::mem::take(&mut self.frozen) {
            let bucket = self.minutes.get_mut(&minute).and_then(|scopes| scopes.get_mut(&scope));
            let Some(bucket) = bucket else { continue };
            let mut outcomes = Arc::unwrap_or_clone(std::mem::take(&mut bucket.frozen));
            if bucket.fresh.is_empty() && !outcomes.is_empty() {
                self.active.push((minute, scope));
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
            let Some((minute, scope)) = self.clock.pop_front() else { return };
            let Some(scopes) = self.minutes.get_mut(&minute) else { continue };
            let Some(bucket) = scopes.get_mut(&scope) else { continue };
            if !bucket.is_clean() {
                bucket.queued = false;
            } else if std::mem::take(&mut bucket.touched) {
                self.clock.push_back((minute, scope));
            } else {
                self.clean_bytes -= bucket.bytes();
                scopes.remove(&scope);
                if scopes.is_empty() {
                    self.minutes.remove(&minute);
                }
                if minute >= self.known_from {
                    self.evicted.insert(self.fingerprints.hash_one((minute, &scope)));
                }
            }
        }
        if self.evicted.len() > EVICTED_MAX {
            self.evicted.clear();
            self.known_from = self.minute_max.saturating_add(1);
        }
    }
}

fn read_part(
    base: &dyn Base,
    space: Space,
    minute: u32,
    scope: &Scope,
    part: u32,
) -> io::Result<Vec<Outcome>> {
    let value = base.get(&space.key(&Key::Sent(minute, scope.clone(), part)))?;
    // A range delete of expired minutes may have been quicker.
    value.map_or(Ok(Vec::new()), |value| decode_part(minute, &value).map(|(_, outcomes)| outcomes))
}

fn zigzag(from: u64, to: u64) -> u64 {
    let difference = to.wrapping_sub(from) as i64;
    ((difference << 1) ^ (difference >> 63)) as u64
}

fn unzigzag(from: u64, zigzag: u64) -> u64 {
    let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    from.wrapping_add(difference as u64)
}

/// Encodes outcomes into values of parts, each no longer than a row; with each, how many it has.
pub fn encode_parts(minute: u32, generation: u64, outcomes: &[Outcome]) -> Vec<(u32, Vec<u8>)> {
    let mut parts = Vec::new();
    let mut rest = outcomes;
    while !rest.is_empty() {
        let mut body = Vec::with_capacity(1024);
        let mut senders: Vec<&UserId> = Vec::new();
        let (mut seq, mut at_ms) = (0, u64::from(minute) * 60_000);
        let mut count = 0;
        for (id, sent) in rest {
            // 100 = the longest outcome without its sender's name, and the part's header.
            if body.len() + sent.sender.as_str().len() + 100 > VALUE_BYTES_MAX {
                break;
            }
            codec::put_varint(&mut body, id.unix_ms() - u64::from(minute) * 60_000);
            body.extend_from_slice(&id.as_bytes()[6..]);
            match senders.iter().position(|known| **known == sent.sender) {
                Some(known) => codec::put_varint(&mut body, known as u64 + 1),
                None => {
                    let name = sent.sender.as_str();
                    body.extend_from_slice(&[0, name.len() as u8]);
                    body.extend_from_slice(name.as_bytes());
                    senders.push(&sent.sender);
                }
            }
            codec::put_varint(&mut body, zigzag(seq, sent.seq.0));
            codec::put_varint(&mut body, zigzag(at_ms, sent.at_ms));
            body.extend_from_slice(&sent.body_hash);
            (seq, at_ms) = (sent.seq.0, sent.at_ms);
            count += 1;
        }
        let mut value = Vec::with_capacity(16 + body.len());
        value.push(VERSION);
        codec::put_varint(&mut value, generation);
        codec::put_varint(&mut value, u64::from(count));
        value.extend_from_slice(&body);
        parts.push((count, value));
        rest = &rest[count as usize..];
    }
    parts
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
    let mut senders: Vec<UserId> = Vec::new();
    let start = u64::from(minute) * 60_000;
    let (mut seq, mut at_ms) = (0, start);
    for _ in 0..count {
        let mut id = [0; 16];
        let ms = start.checked_add(codec::take_varint(rest)?)?;
        id[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
        id[6..].copy_from_slice(codec::take_bytes(rest, 10)?);
        let sender = match codec::take_varint(rest)? {
            0 => {
                let len = codec::take_bytes(rest, 1)?[0];
                let name = std::str::from_utf8(codec::take_bytes(rest, len.into())?).ok()?;
                senders.push(UserId::parse(name).ok()?);
                senders.last()?
            }
            known => senders.get(usize::try_from(known - 1).ok()?)?,
        };
        seq = unzigzag(seq, codec::take_varint(rest)?);
        at_ms = unzigzag(at_ms, codec::take_varint(rest)?);
        let body_hash = codec::take_bytes(rest, 16)?.try_into().ok()?;
        let sent = Sent { sender: sender.clone(), seq: Seq(seq), at_ms, body_hash };
        outcomes.push((RequestId::from_slice(&id).ok()?, sent));
    }
    rest.is_empty().then_some((generation, outcomes))
}
