//! The keyspace of the base: every key there is, as one enum.
//!
//! A key is the shard (u16 big-endian), a tag byte, and parts that compare in memory like what
//! they stand for, so that a range of keys is a range of rooms, users or seqs.
//!
//! | key | tag | parts | value |
//! |---|---|---|---|
//! | [`Key::Bank`] | `01` | | which bank of mutable rows counts |
//! | [`Key::Unfinished`] | `02` | | there may be blocks that no head covers |
//! | [`Key::Applied`] | `10` | | log id, membership, log time, counters |
//! | [`Key::Lineage`] | `11` | room | under which lineage its blocks are, when not 0 |
//! | [`Key::Room`] | `12` | room | the room's row, with its head |
//! | [`Key::Participant`] | `13` | room, user | role and since when |
//! | [`Key::User`] | `14` | user | profile and tokens |
//! | [`Key::Sent`] | `15` | minute u32, group of scopes u8, part u32 | outcomes of requests, packed |
//! | [`Key::Notes`] | `16` | room, seq u64 | edits, reactions, redaction of a message |
//! | [`Key::ImportMark`] | `17` | room, source | the last imported line |
//! | [`Key::Erased`] | `18` | room, seq u64 | the body is erased, for good |
//! | [`Key::Erasing`] | `19` | room, seq u64 | … and its block is still to be rewritten |
//! | [`Key::Blob`] | `1a` | name | an opaque value |
//! | [`Key::RowPart`] | `1f` | a key of the above, part u16 | the rest of a value longer than a row |
//! | [`Key::Block`] | `40` | room, lineage u32, first seq u64 | events |
//! | [`Key::BlockPart`] | `41` | room, lineage u32, seq u64, part u16 | the rest of a long event |
//!
//! Room and user ids end with a zero byte, which they cannot contain. Other strings are escaped.
//!
//! **Banks.** The tags `10` to `1f` exist twice: with the high bit set they belong to bank 1.
//! Mutable rows of a snapshot are received into the bank that does not count, and one small batch
//! makes it count: so installing is atomic however much there is.
//!
//! **Lineage.** Blocks of a room of the same id but another history (another epoch) can lie beside
//! the present ones while a snapshot is received: they have another lineage.
//!
//! **Dedup by minute first.** The minute leads in a `Sent` key: expiry is then one range, and the
//! rows being written lie together. Scopes share rows, in groups: see `dedup.rs`.

use crate::id::{RoomId, Seq, ShardId, UserId};
use crate::store::base::KeyRange;

/// Which copy of the mutable rows: 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bank(pub u8);

impl Bank {
    /// The one that does not count while this one does.
    pub fn other(self) -> Bank {
        Bank(self.0 ^ 1)
    }
}

/// A key of the base, without shard and bank. The table is in the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the module's table documents them")]
pub enum Key {
    Bank,
    Unfinished,
    Applied,
    Lineage(RoomId),
    Room(RoomId),
    Participant(RoomId, UserId),
    User(UserId),
    Sent(u32, u8, u32),
    Notes(RoomId, Seq),
    ImportMark(RoomId, String),
    Erased(RoomId, Seq),
    Erasing(RoomId, Seq),
    Blob(String),
    RowPart(Box<Key>, u16),
    Block(RoomId, u32, Seq),
    BlockPart(RoomId, u32, Seq, u16),
}

/// The tag byte of each kind, in bank 0.
#[expect(missing_docs, reason = "the module's table documents them")]
pub mod tag {
    pub const BANK: u8 = 0x01;
    pub const UNFINISHED: u8 = 0x02;
    pub const APPLIED: u8 = 0x10;
    pub const LINEAGE: u8 = 0x11;
    pub const ROOM: u8 = 0x12;
    pub const PARTICIPANT: u8 = 0x13;
    pub const USER: u8 = 0x14;
    pub const SENT: u8 = 0x15;
    pub const NOTES: u8 = 0x16;
    pub const IMPORT_MARK: u8 = 0x17;
    pub const ERASED: u8 = 0x18;
    pub const ERASING: u8 = 0x19;
    pub const BLOB: u8 = 0x1a;
    pub const ROW_PART: u8 = 0x1f;
    pub const BLOCK: u8 = 0x40;
    pub const BLOCK_PART: u8 = 0x41;
    /// Set in tags of bank 1.
    pub const BANK_BIT: u8 = 0x80;
}

fn is_banked(tag: u8) -> bool {
    (0x10..0x20).contains(&(tag & !tag::BANK_BIT))
}

/// Where keys of one shard are, with the mutable rows of one bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The shard.
    pub shard: ShardId,
    /// The bank of mutable rows.
    pub bank: Bank,
}

impl Space {
    /// Encodes a key.
    pub fn key(self, key: &Key) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&self.shard.0.to_be_bytes());
        push_key(&mut out, key);
        self.set_bank(&mut out);
        out
    }

    fn set_bank(self, key: &mut [u8]) {
        if self.bank.0 == 1 && is_banked(key[2]) {
            key[2] |= tag::BANK_BIT;
        }
    }

    /// The key of this space from what [`suffix`] left of one of another.
    ///
    /// `None` when that is not a key of a mutable row.
    pub fn key_from_suffix(self, suffix: &[u8]) -> Option<Vec<u8>> {
        if !suffix.first().is_some_and(|tag| is_banked(*tag) && tag & tag::BANK_BIT == 0) {
            return None;
        }
        let mut key = self.shard.0.to_be_bytes().to_vec();
        key.extend_from_slice(suffix);
        self.set_bank(&mut key);
        Some(key)
    }

    fn prefix_range(self, tag: u8, parts: impl FnOnce(&mut Vec<u8>)) -> KeyRange {
        let mut start = self.shard.0.to_be_bytes().to_vec();
        start.push(tag);
        self.set_bank(&mut start);
        parts(&mut start);
        let end = prefix_end(&start);
        start..end
    }

    /// All keys with a tag.
    pub fn all(self, tag: u8) -> KeyRange {
        self.prefix_range(tag, |_| {})
    }

    /// All keys of the mutable rows of this bank.
    pub fn bank_range(self) -> KeyRange {
        self.all(tag::APPLIED).start..self.all(tag::ROW_PART).end
    }

    /// All keys with a tag whose first part is a room.
    pub fn of_room(self, tag: u8, room: &RoomId) -> KeyRange {
        self.prefix_range(tag, |out| push_id(out, room.as_str()))
    }

    /// All keys of one minute and group.
    pub fn sent(self, minute: u32, group: u8) -> KeyRange {
        self.prefix_range(tag::SENT, |out| {
            out.extend_from_slice(&minute.to_be_bytes());
            out.push(group);
        })
    }

    /// All dedup keys of minutes before `minute`.
    pub fn sent_before(self, minute: u32) -> KeyRange {
        let end = self.prefix_range(tag::SENT, |out| out.extend_from_slice(&minute.to_be_bytes()));
        self.all(tag::SENT).start..end.start
    }

    /// Blocks ([`tag::BLOCK`] or [`tag::BLOCK_PART`]) of a room that begin in `first..=last`.
    pub fn blocks(self, tag: u8, room: &RoomId, lineage: u32, first: Seq, last: Seq) -> KeyRange {
        let at = |seq: Seq| {
            self.prefix_range(tag, |out| {
                push_id(out, room.as_str());
                out.extend_from_slice(&lineage.to_be_bytes());
                out.extend_from_slice(&seq.0.to_be_bytes());
            })
        };
        at(first).start..at(last).end
    }

    /// The parts of a value longer than a row.
    pub fn row_parts(self, key: &Key) -> KeyRange {
        self.prefix_range(tag::ROW_PART, |out| push_key(out, key))
    }

    /// Keys of a range that are above `key`.
    pub fn above(range: KeyRange, key: &[u8]) -> KeyRange {
        let mut start = key.to_vec();
        start.push(0);
        start.max(range.start)..range.end
    }

    /// All keys of a shard.
    pub fn whole(shard: ShardId) -> KeyRange {
        let start = shard.0.to_be_bytes().to_vec();
        let end = prefix_end(&start);
        start..end
    }
}

/// A key without shard and bank: what is the same on every replica.
pub fn suffix(key: &[u8]) -> Vec<u8> {
    let mut suffix = key.get(2..).unwrap_or_default().to_vec();
    if let Some(tag) = suffix.first_mut()
        && is_banked(*tag)
    {
        *tag &= !tag::BANK_BIT;
    }
    suffix
}

/// Decodes a key; `None` when it is none.
pub fn decode(key: &[u8]) -> Option<(Space, Key)> {
    let (shard, rest) = key.split_first_chunk::<2>()?;
    let tag = *rest.first()?;
    let bank = Bank(u8::from(is_banked(tag) && tag & tag::BANK_BIT != 0));
    let mut reader = Reader(rest);
    let key = reader.key(bank)?;
    reader.0.is_empty().then_some((Space { shard: ShardId(u16::from_be_bytes(*shard)), bank }, key))
}

/// The first key above all that begin with `prefix`.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; 8] // above every key: no tag is ff
}

fn push_id(out: &mut Vec<u8>, id: &str) {
    out.extend_from_slice(id.as_bytes());
    out.push(0);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
    out.extend_from_slice(&[0, 1]);
}

fn push_key(out: &mut Vec<u8>, key: &Key) {
    let room_seq = |out: &mut Vec<u8>, tag, room: &RoomId, seq: &Seq| {
        out.push(tag);
        push_id(out, room.as_str());
        out.extend_from_slice(&seq.0.to_be_bytes());
    };
    let block = |out: &mut Vec<u8>, tag, room: &RoomId, lineage: &u32, seq: &Seq| {
        out.push(tag);
        push_id(out, room.as_str());
        out.extend_from_slice(&lineage.to_be_bytes());
        out.extend_from_slice(&seq.0.to_be_bytes());
    };
    match key {
        Key::Bank => out.push(tag::BANK),
        Key::Unfinished => out.push(tag::UNFINISHED),
        Key::Applied => out.push(tag::APPLIED),
        Key::Lineage(room) => {
            out.push(tag::LINEAGE);
            push_id(out, room.as_str());
        }
        Key::Room(room) => {
            out.push(tag::ROOM);
            push_id(out, room.as_str());
        }
        Key::Participant(room, user) => {
            out.push(tag::PARTICIPANT);
            push_id(out, room.as_str());
            push_id(out, user.as_str());
        }
        Key::User(user) => {
            out.push(tag::USER);
            push_id(out, user.as_str());
        }
        Key::Sent(minute, group, part) => {
            out.push(tag::SENT);
            out.extend_from_slice(&minute.to_be_bytes());
            out.push(*group);
            out.extend_from_slice(&part.to_be_bytes());
        }
        Key::Notes(room, seq) => room_seq(out, tag::NOTES, room, seq),
        Key::ImportMark(room, source) => {
            out.push(tag::IMPORT_MARK);
            push_id(out, room.as_str());
            push_text(out, source);
        }
        Key::Erased(room, seq) => room_seq(out, tag::ERASED, room, seq),
        Key::Erasing(room, seq) => room_seq(out, tag::ERASING, room, seq),
        Key::Blob(name) => {
            out.push(tag::BLOB);
            push_text(out, name);
        }
        Key::RowPart(of, part) => {
            out.push(tag::ROW_PART);
            push_key(out, of);
            out.extend_from_slice(&part.to_be_bytes());
        }
        Key::Block(room, lineage, first) => block(out, tag::BLOCK, room, lineage, first),
        Key::BlockPart(room, lineage, seq, part) => {
            block(out, tag::BLOCK_PART, room, lineage, seq);
            out.extend_from_slice(&part.to_be_bytes());
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn id(&mut self) -> Option<&'a str> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let id = std::str::from_utf8(&self.0[..end]).ok()?;
        self.0 = &self.0[end + 1..];
        Some(id)
    }

    fn room(&mut self) -> Option<RoomId> {
        RoomId::parse(self.id()?).ok()
    }

    fn user(&mut self) -> Option<UserId> {
        UserId::parse(self.id()?).ok()
    }

    fn seq(&mut self) -> Option<Seq> {
        self.array().map(|bytes| Seq(u64::from_be_bytes(bytes)))
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let mut text = Vec::new();
        loop {
            match self.array::<1>()? {
                [0] => match self.array::<1>()? {
                    [1] => return String::from_utf8(text).ok(),
                    [0xff] => text.push(0),
                    _ => return None,
                },
                [byte] => text.push(byte),
            }
        }
    }

    fn key(&mut self, bank: Bank) -> Option<Key> {
        let [mut tag] = self.array::<1>()?;
        if bank.0 == 1 {
            tag &= !tag::BANK_BIT;
        }
        Some(match tag {
            tag::BANK => Key::Bank,
            tag::UNFINISHED => Key::Unfinished,
            tag::APPLIED => Key::Applied,
            tag::LINEAGE => Key::Lineage(self.room()?),
            tag::ROOM => Key::Room(self.room()?),
            tag::PARTICIPANT => Key::Participant(self.room()?, self.user()?),
            tag::USER => Key::User(self.user()?),
            tag::SENT => Key::Sent(self.u32()?, self.array::<1>()?[0], self.u32()?),
            tag::NOTES => Key::Notes(self.room()?, self.seq()?),
            tag::IMPORT_MARK => Key::ImportMark(self.room()?, self.text()?),
            tag::ERASED => Key::Erased(self.room()?, self.seq()?),
            tag::ERASING => Key::Erasing(self.room()?, self.seq()?),
            tag::BLOB => Key::Blob(self.text()?),
            tag::ROW_PART => match self.key(Bank(0))? {
                Key::RowPart(..) => return None,
                of => Key::RowPart(Box::new(of), self.u16()?),
            },
            tag::BLOCK => Key::Block(self.room()?, self.u32()?, self.seq()?),
            tag::BLOCK_PART => Key::BlockPart(self.room()?, self.u32()?, self.seq()?, self.u16()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slug() -> impl Strategy<Value = String> {
        "[a-z0-9][a-z0-9._-]{0,12}"
    }

    fn room() -> impl Strategy<Value = RoomId> {
        let direct =
            (slug(), slug()).prop_filter("different", |(a, b)| a != b).prop_map(|(a, b)| {
                RoomId::direct(&UserId::parse(&a).unwrap(), &UserId::parse(&b).unwrap()).unwrap()
            });
        prop_oneof![slug().prop_map(|s| RoomId::parse(&s).unwrap()), direct]
    }

    fn user() -> impl Strategy<Value = UserId> {
        slug().prop_map(|s| UserId::parse(&s).unwrap())
    }

    fn seq() -> impl Strategy<Value = Seq> {
        prop_oneof![any::<u64>(), 0..300u64].prop_map(Seq)
    }

    /// For each kind: a pair of values and their keys.
    fn check<T: Ord + Clone + std::fmt::Debug>(
        a: T,
        b: T,
        to_key: impl Fn(T) -> Key,
        space: Space,
    ) {
        let (key_a, key_b) = (to_key(a.clone()), to_key(b.clone()));
        let (bytes_a, bytes_b) = (space.key(&key_a), space.key(&key_b));
        assert_eq!(a.cmp(&b), bytes_a.cmp(&bytes_b), "{key_a:?} {key_b:?}");
        let decoded = decode(&bytes_a).unwrap();
        assert_eq!(decoded.1, key_a);
        assert_eq!(decoded.0.shard, space.shard);
        assert!(Space::whole(space.shard).contains(&bytes_a));
        let other = ShardId(space.shard.0.wrapping_add(1));
        assert!(!Space::whole(other).contains(&bytes_a));
        if is_banked(bytes_a[2]) {
            assert_eq!(decoded.0, space);
            assert!(space.bank_range().contains(&bytes_a));
            let other = Space { bank: space.bank.other(), ..space };
            assert!(!other.bank_range().contains(&bytes_a));
            assert_eq!(space.key_from_suffix(&suffix(&bytes_a)).unwrap(), bytes_a);
            assert_eq!(suffix(&bytes_a), suffix(&other.key(&key_a)));
        } else {
            assert_eq!(space.key_from_suffix(&suffix(&bytes_a)), None);
        }
    }

    proptest! {
        #[test]
        fn keys_round_trip_and_keep_order(
            shard in any::<u16>(), bank in 0..2u8,
            rooms in (room(), room()), users in (user(), user()), seqs in (seq(), seq()),
            groups in (any::<u8>(), any::<u8>()), numbers in (any::<u32>(), any::<u32>()),
            texts in (any::<String>(), any::<String>()), parts in (any::<u16>(), any::<u16>()),
        ) {
            let space = Space { shard: ShardId(shard), bank: Bank(bank) };
            check((), (), |()| Key::Bank, space);
            check((), (), |()| Key::Unfinished, space);
            check((), (), |()| Key::Applied, space);
            check(rooms.0.clone(), rooms.1.clone(), Key::Lineage, space);
            check(rooms.0.clone(), rooms.1.clone(), Key::Room, space);
            check(users.0.clone(), users.1.clone(), Key::User, space);
            check((rooms.0.clone(), users.0), (rooms.1.clone(), users.1),
                |(room, user)| Key::Participant(room, user), space);
            check((numbers.0, groups.0, numbers.1), (numbers.1, groups.1, numbers.0),
                |(minute, group, part)| Key::Sent(minute, group, part), space);
            check((rooms.0.clone(), texts.0.clone()), (rooms.1.clone(), texts.1.clone()),
                |(room, text)| Key::ImportMark(room, text), space);
            check(texts.0.clone(), texts.1.clone(), Key::Blob, space);
            check((texts.0, parts.0), (texts.1, parts.1),
                |(text, part)| Key::RowPart(Box::new(Key::Blob(text)), part), space);
            let (a, b) = ((rooms.0, seqs.0), (rooms.1, seqs.1));
            check(a.clone(), b.clone(), |(room, seq)| Key::Notes(room, seq), space);
            check(a.clone(), b.clone(), |(room, seq)| Key::Erased(room, seq), space);
            check(a.clone(), b.clone(), |(room, seq)| Key::Erasing(room, seq), space);
            let (a, b) = ((a.0, numbers.0, a.1), (b.0, numbers.1, b.1));
            check(a.clone(), b.clone(), |(room, l, seq)| Key::Block(room, l, seq), space);
            check((a, parts.0), (b, parts.1),
                |((room, l, seq), part)| Key::BlockPart(room, l, seq, part), space);
        }

        #[test]
        fn ranges_hold_their_keys_and_no_others(
            shard in any::<u16>(), bank in 0..2u8, a in room(), b in room(), seqs in (seq(), seq(), seq()),
            groups in (any::<u8>(), any::<u8>()), minutes in (any::<u32>(), any::<u32>()), users in (user(), user()),
        ) {
            let space = Space { shard: ShardId(shard), bank: Bank(bank) };
            let notes = space.key(&Key::Notes(b.clone(), seqs.0));
            prop_assert_eq!(space.of_room(tag::NOTES, &a).contains(&notes), a == b);
            let block = space.key(&Key::Block(b.clone(), 0, seqs.0));
            prop_assert_eq!(
                space.blocks(tag::BLOCK, &a, 0, seqs.1, seqs.2).contains(&block),
                a == b && (seqs.1..=seqs.2).contains(&seqs.0)
            );
            let sent = space.key(&Key::Sent(minutes.0, groups.0, 7));
            prop_assert_eq!(space.sent_before(minutes.1).contains(&sent), minutes.0 < minutes.1);
            prop_assert_eq!(
                space.sent(minutes.1, groups.1).contains(&sent),
                minutes.0 == minutes.1 && groups.0 == groups.1
            );
            let above = Space::above(space.of_room(tag::PARTICIPANT, &a),
                &space.key(&Key::Participant(a.clone(), users.0.clone())));
            let participant = space.key(&Key::Participant(b.clone(), users.1.clone()));
            prop_assert_eq!(above.contains(&participant), a == b && users.1 > users.0);
            let of = Key::Participant(a.clone(), users.0.clone());
            let part = space.key(&Key::RowPart(Box::new(Key::Participant(b.clone(), users.1.clone())), 3));
            prop_assert_eq!(space.row_parts(&of).contains(&part), a == b && users.0 == users.1);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some((space, key)) = decode(&bytes) {
                prop_assert_eq!(space.key(&key), bytes.clone());
            }
            suffix(&bytes);
        }
    }

    #[test]
    fn keys_are_pinned() {
        let space = Space { shard: ShardId(258), bank: Bank(1) };
        let room = RoomId::parse("general").unwrap();
        let hex = |key: &Key| space.key(key).iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(&Key::Applied), "010290");
        assert_eq!(hex(&Key::Room(room.clone())), "01029267656e6572616c00");
        assert_eq!(
            hex(&Key::Block(room.clone(), 1, Seq(513))),
            "01024067656e6572616c00000000010000000000000201"
        );
        assert_eq!(hex(&Key::Sent(7, 5, 2)), "010295000000070500000002");
    }
}
