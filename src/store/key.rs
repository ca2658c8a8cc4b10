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
        UserId::parse_row(self.id()?).ok()
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
mod tests;
