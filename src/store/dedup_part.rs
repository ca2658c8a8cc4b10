//! Dedup rows: many outcomes of requests in one value.
//!
//! Written by checkpoints, read by `dedup.rs`.
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

use std::io;

use crate::chat::state::{Scope, Sent};
use crate::id::{RequestId, RoomId, Seq, UserId};
use crate::store::codec::{self, VALUE_BYTES_MAX, VERSION, damaged};

/// A request and its outcome.
pub type Outcome = (Scope, RequestId, Sent);

fn zigzag(from: u64, to: u64) -> u64 {
    let difference = to.wrapping_sub(from) as i64;
    ((difference << 1) ^ (difference >> 63)) as u64
}

fn unzigzag(from: u64, zigzag: u64) -> u64 {
    let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    from.wrapping_add(difference as u64)
}

pub(super) fn scope_parts(scope: &Scope) -> (u8, &str) {
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
                    2 => Scope::User(UserId::parse_row(id).ok()?),
                    _ => return None,
                };
                scopes.push((scope, 0));
                scopes.last_mut()?
            }
            known => scopes.get_mut(usize::try_from(known - 1).ok()?)?,
        };
        let mut id = [0; 16];
        // An id has 48 bits of time.
        let ms = start.checked_add(codec::take_varint(rest)?).filter(|ms| ms >> 48 == 0)?;
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

    #[test]
    fn a_time_that_no_request_id_has_is_damage() {
        let part = |ms: u64| {
            let mut value = vec![VERSION, 7, 1, 0, 1, 3];
            value.extend_from_slice(b"tea");
            codec::put_varint(&mut value, ms);
            value.extend_from_slice(&[0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
            value.extend_from_slice(b"ann");
            value.extend_from_slice(&[0; 18]);
            decode_part(MINUTE, &value)
        };
        let last = (1 << 48) - 1 - u64::from(MINUTE) * 60_000;
        let (_, outcomes) = part(last).unwrap();
        assert_eq!(outcomes[0].1.unix_ms(), (1 << 48) - 1);
        assert!(part(last + 1).is_err());
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
}
