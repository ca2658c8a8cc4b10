//! Values of mutable rows as bytes, and events as they lie in blocks.
//!
//! Used by the rest of `store` alone. Every value begins with a format version byte; what follows
//! is protobuf (`rows.proto`), but for dedup rows (`dedup.rs`) and blocks (`block.rs`), whose
//! formats are their own. Values longer than a row are cut into parts ([`put_row`]).
//!
//! An event is written and read by hand as the protobuf message `StoredEvent` (`log.proto`):
//! without the copies into owned strings that generated code needs, and telling an absent field
//! from an empty one where that counts, which the chain hash does for what imported lines carry.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::chat::event::{Body, Event, EventKind, Hash, Role};
use crate::chat::state::{Notes, Participant, Room, RoomKind, Token, User};
use crate::id::{Epoch, RequestId, RoomId, Seq, UserId};
use crate::proto::internal as proto;
use crate::store::base::{Base, Batch, Order, ROW_BYTES_MAX};
use crate::store::key::{Key, Space};

/// The format of every value here.
pub const VERSION: u8 = 1;
/// The first byte of a value whose rest is in [`Key::RowPart`] rows.
const VERSION_LONG: u8 = 0x80 | VERSION;
/// How long a value may be without parts, in bytes; what is left of a row is for the key.
pub const VALUE_BYTES_MAX: usize = ROW_BYTES_MAX - 384;

/// An error that says which bytes are not what they should be.
pub fn damaged(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{what} in the state on disk is damaged; it can be rebuilt from another replica"),
    )
}

/// Checks the version byte and returns what follows it.
///
/// # Errors
/// When the version is another one: written by a newer release, or damaged.
pub fn unversioned<'a>(value: &'a [u8], what: &str) -> io::Result<&'a [u8]> {
    match value.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((version, _)) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{what} in the state on disk has format {version}, this release knows {VERSION}"
            ),
        )),
        None => Err(damaged(what)),
    }
}

fn message(row: &impl Message) -> Vec<u8> {
    let mut value = Vec::with_capacity(1 + row.encoded_len());
    value.push(VERSION);
    row.encode_raw(&mut value);
    value
}

fn parse<M: Message + Default>(value: &[u8], what: &str) -> io::Result<M> {
    M::decode(unversioned(value, what)?).map_err(|_| damaged(what))
}

/// Adds a row to a batch, in parts when its value needs them, and removes parts of the old value.
/// `None` removes the row.
///
/// # Errors
/// When the base cannot be read.
pub fn put_row(
    base: &dyn Base,
    batch: &mut Batch,
    space: Space,
    key: &Key,
    value: Option<Vec<u8>>,
) -> io::Result<()> {
    if may_be_long(key) {
        base.scan(&space.row_parts(key), Order::Forward, &mut |part, _| {
            batch.delete(part.to_vec());
            std::ops::ControlFlow::Continue(())
        })?;
    }
    match value {
        None => batch.delete(space.key(key)),
        Some(value) if value.len() <= VALUE_BYTES_MAX => batch.put(space.key(key), value),
        Some(value) => {
            assert!(may_be_long(key), "the row {key:?} has a value of {} bytes", value.len());
            let mut head = vec![VERSION_LONG];
            head.extend_from_slice(&(value.len() as u32).to_le_bytes());
            batch.put(space.key(key), head);
            for (part, bytes) in value.chunks(VALUE_BYTES_MAX - 1).enumerate() {
                let mut row = Vec::with_capacity(1 + bytes.len());
                row.push(VERSION);
                row.extend_from_slice(bytes);
                batch.put(space.key(&Key::RowPart(Box::new(key.clone()), part as u16)), row);
            }
        }
    }
    Ok(())
}

fn may_be_long(key: &Key) -> bool {
    matches!(key, Key::Notes(..) | Key::User(_) | Key::Blob(_) | Key::Applied)
}

/// Reads a row, with the parts of its value.
///
/// # Errors
/// When the base cannot be read, or the row is damaged.
pub fn get_row(base: &dyn Base, space: Space, key: &Key) -> io::Result<Option<Vec<u8>>> {
    match base.get(&space.key(key))? {
        Some(value) => join_parts(base, space, key, value).map(Some),
        None => Ok(None),
    }
}

/// Whether the rest of a value is in parts.
pub fn is_long(value: &[u8]) -> bool {
    value.first() == Some(&VERSION_LONG)
}

/// Completes a value that was found in a scan.
///
/// # Errors
/// When the base cannot be read, or the row is damaged.
pub fn join_parts(base: &dyn Base, space: Space, key: &Key, value: Vec<u8>) -> io::Result<Vec<u8>> {
    if !is_long(&value) {
        return Ok(value);
    }
    let bytes = value.get(1..5).and_then(|bytes| bytes.try_into().ok());
    let bytes = u32::from_le_bytes(bytes.ok_or_else(|| damaged("a long row"))?) as usize;
    let mut whole = Vec::new();
    let mut well = true;
    base.scan(&space.row_parts(key), Order::Forward, &mut |_, part| {
        well &= part.first() == Some(&VERSION);
        whole.extend_from_slice(part.get(1..).unwrap_or_default());
        std::ops::ControlFlow::Continue(())
    })?;
    if well && whole.len() == bytes { Ok(whole) } else { Err(damaged("a long row")) }
}

fn hash(bytes: &[u8], what: &str) -> io::Result<Hash> {
    bytes.try_into().map_err(|_| damaged(what))
}

/// Encodes a room's row.
pub fn room_value(room: &Room) -> Vec<u8> {
    message(&proto::RoomRow {
        kind: room.kind as u32,
        title: room.title.clone(),
        topic: room.topic.clone(),
        epoch: room.epoch.as_str().into(),
        first_seq: room.first_seq.0,
        head: room.head.0,
        chain: Bytes::copy_from_slice(&room.chain),
        chain_base: Bytes::copy_from_slice(&room.chain_base),
        participants: room.participants,
        created_at_ms: room.created_at_ms,
        creator: room.creator.as_str().into(),
    })
}

/// Decodes a room's row.
///
/// # Errors
/// When it is damaged.
pub fn room_from(id: &RoomId, value: &[u8]) -> io::Result<Room> {
    let what = "a room's row";
    let row: proto::RoomRow = parse(value, what)?;
    Ok(Room {
        id: id.clone(),
        kind: RoomKind::from_number(row.kind).ok_or_else(|| damaged(what))?,
        title: row.title,
        topic: row.topic,
        epoch: Epoch::parse(&row.epoch).map_err(|_| damaged(what))?,
        first_seq: Seq(row.first_seq),
        head: Seq(row.head),
        chain: hash(&row.chain, what)?,
        chain_base: hash(&row.chain_base, what)?,
        participants: row.participants,
        created_at_ms: row.created_at_ms,
        creator: UserId::parse(&row.creator).map_err(|_| damaged(what))?,
    })
}

/// Encodes a participant's row.
pub fn participant_value(participant: &Participant) -> Vec<u8> {
    let role = participant.role as u32;
    message(&proto::ParticipantRow { role, since_ms: participant.since_ms })
}

/// Decodes a participant's row.
///
/// # Errors
/// When it is damaged.
pub fn participant_from(value: &[u8]) -> io::Result<Participant> {
    let what = "a participant's row";
    let row: proto::ParticipantRow = parse(value, what)?;
    let role = Role::from_number(row.role).ok_or_else(|| damaged(what))?;
    Ok(Participant { role, since_ms: row.since_ms })
}

/// Encodes a user's row.
pub fn user_value(user: &User) -> Vec<u8> {
    let token = |token: &Token| proto::TokenRow {
        hash: Bytes::copy_from_slice(&token.hash),
        label: token.label.clone(),
        issued_at_ms: token.issued_at_ms,
    };
    message(&proto::UserRow {
        display_name: user.display_name.clone(),
        admin: user.admin,
        created_at_ms: user.created_at_ms,
        tokens: user.tokens.iter().map(token).collect(),
    })
}

/// Decodes a user's row.
///
/// # Errors
/// When it is damaged.
pub fn user_from(id: &UserId, value: &[u8]) -> io::Result<User> {
    let what = "a user's row";
    let row: proto::UserRow = parse(value, what)?;
    let token = |token: proto::TokenRow| {
        let hash = hash(&token.hash, what)?;
        Ok(Token { hash, label: token.label, issued_at_ms: token.issued_at_ms })
    };
    Ok(User {
        id: id.clone(),
        display_name: row.display_name,
        admin: row.admin,
        created_at_ms: row.created_at_ms,
        tokens: row.tokens.into_iter().map(token).collect::<io::Result<_>>()?,
    })
}

/// Encodes a message's notes.
pub fn notes_value(notes: &Notes) -> Vec<u8> {
    let reaction = |(symbol, users): &(String, Vec<UserId>)| proto::ReactionRow {
        symbol: symbol.clone(),
        users: users.iter().map(|user| user.as_str().into()).collect(),
    };
    message(&proto::NotesRow {
        edits: notes.edits.iter().map(|seq| seq.0).collect(),
        reactions: notes.reactions.iter().map(reaction).collect(),
        redacted_by: notes.redacted_by.map_or(0, |seq| seq.0),
    })
}

/// Decodes a message's notes.
///
/// # Errors
/// When they are damaged.
pub fn notes_from(value: &[u8]) -> io::Result<Notes> {
    let what = "a message's notes";
    let row: proto::NotesRow = parse(value, what)?;
    let reaction = |reaction: proto::ReactionRow| {
        let users = reaction.users.iter().map(|user| UserId::parse(user));
        let users = users.collect::<Result<Vec<_>, _>>().map_err(|_| damaged(what))?;
        Ok((reaction.symbol, users))
    };
    Ok(Notes {
        edits: row.edits.into_iter().map(Seq).collect(),
        reactions: row.reactions.into_iter().map(reaction).collect::<io::Result<_>>()?,
        redacted_by: Some(Seq(row.redacted_by)).filter(|seq| seq.0 != 0),
    })
}

/// Encodes a number: an import mark, a lineage.
pub fn number_value(number: u64) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&number.to_le_bytes());
    value
}

/// Decodes a number.
///
/// # Errors
/// When it is damaged.
pub fn number_from(value: &[u8]) -> io::Result<u64> {
    let bytes = unversioned(value, "a number")?.try_into().map_err(|_| damaged("a number"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// Encodes an opaque value.
pub fn blob_value(blob: &[u8]) -> Vec<u8> {
    [&[VERSION], blob].concat()
}

/// Decodes an opaque value.
///
/// # Errors
/// When its version is unknown.
pub fn blob_from(value: &[u8]) -> io::Result<Bytes> {
    unversioned(value, "a blob").map(Bytes::copy_from_slice)
}

/// Encodes what was applied.
pub fn applied_value(row: &proto::AppliedRow) -> Vec<u8> {
    message(row)
}

/// Decodes what was applied.
///
/// # Errors
/// When it is damaged.
pub fn applied_from(value: &[u8]) -> io::Result<proto::AppliedRow> {
    parse(value, "the applied position")
}

/// Appends a number as a protobuf varint.
pub fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a varint off the front; `None` when there is none.
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return None;
        }
        number |= low << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Takes `len` bytes off the front; `None` when there are fewer.
pub fn take_bytes<'a>(bytes: &mut &'a [u8], len: u64) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(taken)
}

fn put_number_field(out: &mut Vec<u8>, tag: u8, number: u64) {
    out.push(tag << 3);
    put_varint(out, number);
}

fn put_bytes_field(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends an event as a `StoredEvent`.
pub fn put_event(out: &mut Vec<u8>, event: &Event) {
    put_number_field(out, 1, event.seq.0);
    put_number_field(out, 2, event.at_ms);
    put_bytes_field(out, 3, event.sender.as_str().as_bytes());
    put_number_field(out, 4, event.kind as u64);
    put_bytes_field(out, 5, event.request_id.as_bytes());
    if let Some(target) = event.target {
        put_number_field(out, 6, target.0);
    }
    if let Some(subject) = &event.subject {
        put_bytes_field(out, 7, subject.as_str().as_bytes());
    }
    if let Some(role) = event.role {
        put_number_field(out, 8, role as u64);
    }
    if let Some(ms) = event.original_at_ms {
        put_number_field(out, 9, ms);
    }
    if let Some(sender) = &event.original_sender {
        put_bytes_field(out, 10, sender.as_bytes());
    }
    if event.withdrawn {
        put_number_field(out, 11, 1);
    }
    match &event.body {
        Body::Present { salt, text } => {
            put_bytes_field(out, 12, salt);
            if !text.is_empty() {
                put_bytes_field(out, 13, text.as_bytes());
            }
        }
        Body::Erased { hash } => put_bytes_field(out, 14, hash),
    }
}

#[derive(Default)]
struct Fields<'a> {
    numbers: [Option<u64>; 16],
    bytes: [Option<&'a [u8]>; 16],
}

fn fields(mut bytes: &[u8]) -> Option<Fields<'_>> {
    let mut fields = Fields::default();
    while !bytes.is_empty() {
        let key = take_varint(&mut bytes)?;
        let slot = usize::try_from(key >> 3).ok()?;
        match key & 7 {
            0 => {
                let number = take_varint(&mut bytes)?;
                if let Some(field) = fields.numbers.get_mut(slot) {
                    *field = Some(number);
                }
            }
            2 => {
                let len = take_varint(&mut bytes)?;
                let taken = take_bytes(&mut bytes, len)?;
                if let Some(field) = fields.bytes.get_mut(slot) {
                    *field = Some(taken);
                }
            }
            _ => return None,
        }
    }
    Some(fields)
}

/// Decodes events one after the other, sharing the ids of their senders.
#[derive(Debug, Default)]
pub struct EventReader {
    sender: Option<UserId>,
}

impl EventReader {
    /// Decodes one event; `None` when the bytes are none.
    pub fn read(&mut self, bytes: &[u8]) -> Option<Arc<Event>> {
        let fields = fields(bytes)?;
        let number = |slot: usize| fields.numbers[slot];
        let text = |slot: usize| match fields.bytes[slot] {
            None => Some(None),
            Some(bytes) => std::str::from_utf8(bytes).ok().map(Some),
        };
        let sender = text(3)??;
        if self.sender.as_ref().is_none_or(|last| last.as_str() != sender) {
            self.sender = Some(UserId::parse(sender).ok()?);
        }
        let small = |slot| number(slot).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let body = match fields.bytes[14] {
            Some(hash) => Body::Erased { hash: hash.try_into().ok()? },
            None => Body::Present {
                salt: fields.bytes[12]?.try_into().ok()?,
                text: text(13)?.unwrap_or_default().to_string(),
            },
        };
        Some(Arc::new(Event {
            seq: Seq(number(1)?),
            at_ms: number(2).unwrap_or(0),
            sender: self.sender.clone()?,
            kind: EventKind::from_number(small(4)?)?,
            request_id: RequestId::from_slice(fields.bytes[5]?).ok()?,
            target: number(6).map(Seq),
            subject: match text(7)? {
                Some(subject) => Some(UserId::parse(subject).ok()?),
                None => None,
            },
            role: match small(8) {
                Some(role) => Some(Role::from_number(role)?),
                None => None,
            },
            withdrawn: number(11).unwrap_or(0) != 0,
            original_at_ms: number(9),
            original_sender: text(10)?.map(str::to_string),
            body,
        }))
    }
}

/// The event with its body erased.
pub fn erased(event: &Event) -> Event {
    let body = Body::Erased { hash: event.body.hash() };
    Event { body, ..event.clone() }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::ShardId;
    use crate::store::base::MemoryBase;
    use crate::store::key::Bank;

    /// An event with every field set.
    pub(crate) fn an_event() -> Event {
        Event {
            seq: Seq(300),
            at_ms: 1_700_000_000_000,
            sender: UserId::parse("ann").unwrap(),
            kind: EventKind::Role,
            request_id: RequestId::mint(1_700_000_000_001, [5; 10]),
            target: Some(Seq(7)),
            subject: Some(UserId::parse("bob").unwrap()),
            role: Some(Role::Muted),
            withdrawn: true,
            original_at_ms: Some(0),
            original_sender: Some(String::new()),
            body: Body::Present { salt: [9; 16], text: "hello".into() },
        }
    }

    pub(crate) fn any_event() -> impl Strategy<Value = Event> {
        let text = prop_oneof![4 => ".{0,80}", 1 => "[a-z ]{0,4000}", 1 => "\\PC{900,9000}"];
        let body = prop_oneof![
            5 => (any::<[u8; 16]>(), text).prop_map(|(salt, text)| Body::Present { salt, text }),
            1 => any::<[u8; 32]>().prop_map(|hash| Body::Erased { hash }),
        ];
        let user = || "[a-z0-9][a-z0-9._-]{0,9}".prop_map(|s| UserId::parse(&s).unwrap());
        (
            (any::<u64>(), any::<u64>(), user(), 1..=10u32, any::<[u8; 10]>()),
            (
                proptest::option::of(any::<u64>()),
                proptest::option::of(user()),
                proptest::option::of(1..=5u32),
                any::<bool>(),
            ),
            (proptest::option::of(any::<u64>()), proptest::option::of(".{0,20}"), body),
        )
            .prop_map(
                |((seq, at_ms, sender, kind, id), (target, subject, role, withdrawn), last)| {
                    Event {
                        seq: Seq(seq),
                        at_ms,
                        sender,
                        kind: EventKind::from_number(kind).unwrap(),
                        request_id: RequestId::mint(at_ms >> 20, id),
                        target: target.map(Seq),
                        subject,
                        role: role.and_then(Role::from_number),
                        withdrawn,
                        original_at_ms: last.0,
                        original_sender: last.1,
                        body: last.2,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn events_round_trip_and_are_stored_events(event in any_event()) {
            let mut bytes = Vec::new();
            put_event(&mut bytes, &event);
            let read = EventReader::default().read(&bytes).unwrap();
            prop_assert_eq!(&*read, &event);
            let stored = proto::StoredEvent::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(stored.seq, event.seq.0);
            prop_assert_eq!(stored.sender, event.sender.as_str());
            prop_assert_eq!(stored.text, event.body.text());
            prop_assert_eq!(stored.withdrawn, event.withdrawn);
            prop_assert_eq!(stored.original_sender, event.original_sender.clone().unwrap_or_default());
            let erased = erased(&event);
            prop_assert_eq!(erased.chain(&[1; 32]), event.chain(&[1; 32]));
        }

        #[test]
        fn arbitrary_bytes_are_no_event(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = EventReader::default().read(&bytes);
            let _ = room_from(&RoomId::parse("r").unwrap(), &bytes);
            let _ = user_from(&UserId::parse("u").unwrap(), &bytes);
            let _ = (participant_from(&bytes), notes_from(&bytes), applied_from(&bytes));
            let _ = (number_from(&bytes), blob_from(&bytes));
        }

        #[test]
        fn varints_round_trip(number in any::<u64>()) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            prop_assert_eq!(take_varint(&mut bytes.as_slice()), Some(number));
        }
    }

    #[test]
    fn long_rows_are_cut_into_parts_and_leave_none_behind() {
        let base = MemoryBase::new();
        let space = Space { shard: ShardId(1), bank: Bank(1) };
        let key = Key::Blob("map".into());
        for len in [10, 9000, 4000, 100_000, VALUE_BYTES_MAX, VALUE_BYTES_MAX + 1, 5] {
            let value = blob_value(&vec![7; len]);
            let mut batch = Batch::new();
            put_row(&base, &mut batch, space, &key, Some(value.clone())).unwrap();
            base.write(batch).unwrap();
            assert_eq!(get_row(&base, space, &key).unwrap(), Some(value));
        }
        assert_eq!(base.rows(), 1);
        let mut batch = Batch::new();
        put_row(&base, &mut batch, space, &key, Some(vec![VERSION; 9000])).unwrap();
        batch.delete(space.key(&Key::RowPart(Box::new(key.clone()), 1)));
        base.write(batch).unwrap();
        assert!(get_row(&base, space, &key).is_err(), "a part is missing");
    }

    #[test]
    fn another_version_is_refused_with_a_reason() {
        let error = number_from(&[9, 0, 0]).unwrap_err().to_string();
        assert!(error.contains("has format 9, this release knows 1"), "{error}");
    }
}
