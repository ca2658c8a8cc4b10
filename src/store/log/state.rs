//! What the log knows of one group, and its encodings.
//!
//! A group's [`State`] is one key in raft-engine, put whole whenever it changes other than by an
//! append. raft-engine forgets deletions once their file is purged (a deleted key or a compacted
//! entry that was rewritten before comes back at the next start), so nothing is ever deleted:
//! `purged` and `end` are values that say what must not be looked at.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use protobuf::well_known_types::BytesValue;
use raft_engine::MessageExt;

use crate::id::ShardId;

/// The key of a group's [`State`].
pub(super) const STATE_KEY: &[u8] = b"state";

/// The raft-engine group of the log itself; shards are far below.
pub(super) const OWN_GROUP: u64 = u64::MAX;

/// The key, in [`OWN_GROUP`], of each batch's [`Stamp`].
pub(super) const STAMP_KEY: &[u8] = b"batch";

/// Version of everything encoded in this file. Whoever raises it keeps reading the old one.
const VERSION: u8 = 1;

/// Version of the [`State`] of a group that is forgotten, which the first release does not know.
const VERSION_FORGOTTEN: u8 = 2;

/// Bytes before the payload of an entry: its index.
const INDEX_BYTES: usize = 8;

/// Every group, by shard.
pub(super) type Groups = BTreeMap<ShardId, State>;

/// Why persisted bytes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Written by a later release.
    #[error("format version {0} is newer than this release reads (2)")]
    Newer(u8),
    /// Not what its checksum vouched for.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

/// One group, as of its last durable batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The vote, encoded.
    pub vote: Option<Bytes>,
    /// The id of an entry that was committed; a hint, so never more than what is true.
    pub committed: Option<Bytes>,
    /// Index and id of the last purged entry: nothing up to it is looked at.
    pub purged: Option<(u64, Bytes)>,
    /// First and last index; `None` when there are no entries.
    pub span: Option<(u64, u64)>,
    /// The truncation mark: entries at and above it are still in raft-engine, and void. The next
    /// append overwrites them and clears it. When there are no entries, the next one goes here.
    pub end: Option<u64>,
    /// The replica was removed from this node on purpose; see [`super::Write::Forget`].
    pub forgotten: bool,
}

/// What the log has of one group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupState {
    /// The last vote written.
    pub vote: Option<Bytes>,
    /// The last entry noted as committed.
    pub committed: Option<Bytes>,
    /// Index and id of the last purged entry.
    pub purged: Option<(u64, Bytes)>,
    /// Index of the first entry; `None` when there are none.
    pub first: Option<u64>,
    /// Index of the last entry; `None` when there are none, even if some were purged.
    pub last: Option<u64>,
    /// The replica was removed from this node: what is left of its state is to be removed, too.
    pub forgotten: bool,
}

impl State {
    /// What is told of it.
    pub(super) fn told(&self) -> GroupState {
        let (first, last) = self.span.unzip();
        let State { vote, committed, purged, forgotten, .. } = self.clone();
        GroupState { vote, committed, purged, first, last, forgotten }
    }

    /// Where the log ends, purged or not, and up to where it is purged; 0 where there never was an entry.
    pub(super) fn extent(&self) -> (u64, u64) {
        let purged = self.purged.as_ref().map_or(0, |(index, _)| *index);
        (self.span.map_or(purged, |(_, last)| last.max(purged)), purged)
    }

    /// The only indexes an append may begin at, from and to; `None` when any will do.
    pub fn appendable(&self) -> Option<(u64, u64)> {
        match (self.span, &self.purged, self.end) {
            (Some((first, last)), ..) => Some((first, last + 1)),
            (None, Some((purged, _)), _) => Some((purged + 1, purged + 1)),
            (None, None, Some(end)) => Some((end, end)),
            (None, None, None) => None,
        }
    }

    /// Takes note of entries `first..=last`, which overwrite what was at and above `first`.
    pub fn appended(&mut self, first: u64, last: u64) {
        let start = self.span.map_or(first, |(old, _)| old.min(first));
        self.span = Some((start, last));
    }

    /// The value of the group's key.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.forgotten { VERSION_FORGOTTEN } else { VERSION }, 0];
        if let Some(vote) = &self.vote {
            out[1] |= 1;
            put_bytes(&mut out, vote);
        }
        if let Some((index, id)) = &self.purged {
            out[1] |= 2;
            out.put_u64(*index);
            put_bytes(&mut out, id);
        }
        if let Some((first, last)) = self.span {
            out[1] |= 4;
            out.put_u64(first);
            out.put_u64(last);
        }
        if let Some(end) = self.end {
            out[1] |= 8;
            out.put_u64(end);
        }
        if let Some(committed) = &self.committed {
            out[1] |= 16;
            put_bytes(&mut out, committed);
        }
        out
    }

    /// What a value says.
    ///
    /// # Errors
    /// When it is none, or of a later release.
    pub fn decode(mut from: &[u8]) -> Result<State, Unreadable> {
        let malformed = Unreadable::Malformed("group state");
        let from = &mut from;
        let forgotten = from.first() == Some(&VERSION_FORGOTTEN);
        if forgotten {
            *from = &from[1..];
        } else {
            check_version(from, &malformed)?;
        }
        let flags = take(from, 1).ok_or(malformed.clone())?[0];
        let mut state = State { forgotten, ..State::default() };
        if flags & 1 != 0 {
            state.vote = Some(take_bytes(from).ok_or(malformed.clone())?);
        }
        if flags & 2 != 0 {
            let index = take_u64(from).ok_or(malformed.clone())?;
            state.purged = Some((index, take_bytes(from).ok_or(malformed.clone())?));
        }
        if flags & 4 != 0 {
            let first = take_u64(from).ok_or(malformed.clone())?;
            state.span = Some((first, take_u64(from).ok_or(malformed.clone())?));
        }
        if flags & 8 != 0 {
            state.end = Some(take_u64(from).ok_or(malformed.clone())?);
        }
        if flags & 16 != 0 {
            state.committed = Some(take_bytes(from).ok_or(malformed.clone())?);
        }
        if flags < 32 && from.is_empty() { Ok(state) } else { Err(malformed) }
    }
}

/// What each batch says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Counts batches, from 1, without gaps.
    pub number: u64,
    /// Whether the batch repeats the state of every group. The first batch of each file does, so
    /// that the last files alone tell what the log must hold.
    pub full: bool,
}

impl Stamp {
    /// The value of the batch's key.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.full)];
        out.put_u64(self.number);
        out
    }

    /// What a value says.
    ///
    /// # Errors
    /// When it is none, or of a later release.
    pub fn decode(mut from: &[u8]) -> Result<Stamp, Unreadable> {
        let malformed = Unreadable::Malformed("batch stamp");
        let from = &mut from;
        check_version(from, &malformed)?;
        let full = take(from, 1).ok_or(malformed.clone())?[0] != 0;
        let number = take_u64(from).ok_or(malformed.clone())?;
        if from.is_empty() { Ok(Stamp { number, full }) } else { Err(malformed) }
    }
}

/// How raft-engine sees our entries.
pub(super) struct Entry;

impl MessageExt for Entry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        // Asserted by raft-engine against its own index, after a checksum.
        take_u64(&mut entry.value.as_slice()).unwrap_or(u64::MAX)
    }
}

/// An entry for raft-engine: the index, big-endian, then the payload.
pub(super) fn encode_entry(index: u64, payload: &[u8]) -> BytesValue {
    let mut value = Vec::with_capacity(INDEX_BYTES + payload.len());
    value.put_u64(index);
    value.extend_from_slice(payload);
    BytesValue { value, ..BytesValue::default() }
}

/// The index and payload of an entry from raft-engine; `None` when it is too short to be one.
pub(super) fn decode_entry(entry: BytesValue) -> Option<(u64, Bytes)> {
    let mut bytes = Bytes::from(entry.value);
    if bytes.len() < INDEX_BYTES {
        return None;
    }
    let index = bytes.get_u64();
    Some((index, bytes))
}

fn check_version(from: &mut &[u8], malformed: &Unreadable) -> Result<(), Unreadable> {
    match take(from, 1).ok_or(malformed.clone())?[0] {
        VERSION => Ok(()),
        newer if newer > VERSION => Err(Unreadable::Newer(newer)),
        _ => Err(malformed.clone()),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32(u32::try_from(bytes.len()).expect("a vote or log id is small"));
    out.extend_from_slice(bytes);
}

fn take_bytes(from: &mut &[u8]) -> Option<Bytes> {
    let len = take(from, 4)?.get_u32();
    Some(Bytes::copy_from_slice(take(from, len as usize)?))
}

fn take_u64(from: &mut &[u8]) -> Option<u64> {
    Some(take(from, 8)?.get_u64())
}

/// The next `len` bytes, if there are as many.
pub(super) fn take<'a>(from: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = from.split_at_checked(len)?;
    *from = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::hex;

    #[test]
    fn encodings_are_pinned() {
        let state = State {
            committed: Some(Bytes::from_static(b"c")),
            vote: Some(Bytes::from_static(b"v")),
            purged: Some((7, Bytes::from_static(b"id"))),
            span: Some((8, 10)),
            end: Some(11),
            forgotten: false,
        };
        let forgotten = State { forgotten: true, ..state.clone() };
        assert_eq!(hex(&forgotten.encode())[..6], *"021f00");
        assert_eq!(
            hex(&state.encode()),
            "011f00000001760000000000000007000000026964\
             0000000000000008000000000000000a000000000000000b0000000163"
        );
        assert_eq!(hex(&State::default().encode()), "0100");
        assert_eq!(hex(&Stamp { number: 258, full: true }.encode()), "01010000000000000102");
        assert_eq!(hex(&encode_entry(258, b"xy").value), "00000000000001027879");
    }

    #[test]
    fn newer_and_malformed_values_are_refused() {
        assert_eq!(State::decode(&[3, 0]), Err(Unreadable::Newer(3)));
        assert_eq!(Stamp::decode(&[2, 0]), Err(Unreadable::Newer(2)));
        assert_eq!(Stamp::decode(&[9]), Err(Unreadable::Newer(9)));
        for bad in [&[][..], &[0, 0], &[1], &[1, 32], &[1, 1, 0, 0], &[1, 0, 0]] {
            assert_eq!(State::decode(bad), Err(Unreadable::Malformed("group state")), "{bad:?}");
        }
        assert_eq!(decode_entry(BytesValue::default()), None);
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
    }

    proptest! {
        #[test]
        fn states_round_trip(
            vote in proptest::option::of(bytes()),
            committed in proptest::option::of(bytes()),
            purged in proptest::option::of((any::<u64>(), bytes())),
            span in any::<Option<(u64, u64)>>(),
            end in any::<Option<u64>>(),
            forgotten in any::<bool>(),
        ) {
            let state = State { vote, committed, purged, span, end, forgotten };
            prop_assert_eq!(State::decode(&state.encode()), Ok(state));
        }

        #[test]
        fn entries_round_trip(index in any::<u64>(), payload in bytes()) {
            let entry = encode_entry(index, &payload);
            prop_assert_eq!(Entry::index(&entry), index);
            prop_assert_eq!(decode_entry(entry), Some((index, payload)));
        }

        #[test]
        fn stamps_round_trip(number in any::<u64>(), full in any::<bool>()) {
            let stamp = Stamp { number, full };
            prop_assert_eq!(Stamp::decode(&stamp.encode()), Ok(stamp));
        }

        #[test]
        fn arbitrary_bytes_never_panic(flags in any::<u8>(), bytes in any::<Vec<u8>>()) {
            for bytes in [bytes.clone(), [&[VERSION, flags][..], &bytes].concat()] {
                let _ = (State::decode(&bytes), Stamp::decode(&bytes));
                let value = BytesValue { value: bytes, ..BytesValue::default() };
                let _ = (Entry::index(&value), decode_entry(value));
            }
        }
    }
}
