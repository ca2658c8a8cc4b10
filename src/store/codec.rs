//! Values of mutable rows as bytes, and events as they lie in blocks.
//!
//! Used by the rest of `store` alone. Every value begins with a format version byte; what follows
//! is protobuf (`rows.proto`), but for dedup rows (`dedup.rs`) and blocks (`block.rs`), whose
//! formats are their own. Values longer than a row are cut into parts ([`put_row`]).

use std::io;

mod user;

use bytes::Bytes;
use prost::Message;

pub use self::user::{user_from, user_value};
pub use crate::chat::codec::varint::{put_varint, take_bytes, take_varint};
use crate::chat::event::{Hash, Role};
use crate::chat::state::{Notes, Part, Participant, Retention, Room, RoomKind};
use crate::id::{Epoch, RoomId, Seq, UserId};
use crate::proto::internal as proto;
use crate::store::base::{self, Base, Batch, Order, ROW_BYTES_MAX};
use crate::store::key::{Key, Space};

/// The format of every value here.
pub const VERSION: u8 = 1;
/// The first byte of a value whose rest is in [`Key::RowPart`] rows.
const VERSION_LONG: u8 = 0x80 | VERSION;
/// How long a value may be without parts, in bytes; what is left of a row is for the key.
pub const VALUE_BYTES_MAX: usize = ROW_BYTES_MAX - 384;

/// An error that says which bytes are not what they should be.
pub fn damaged(what: &str) -> io::Error {
    base::damage(format!("{what} in the state on disk is damaged"))
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
        archived: room.archived,
        pins: room.pins.iter().map(|seq| seq.0).collect(),
        max_age_ms: room.retention.max_age_ms,
        max_events: room.retention.max_events,
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
        archived: row.archived,
        pins: row.pins.into_iter().map(Seq).collect(),
        retention: Retention { max_age_ms: row.max_age_ms, max_events: row.max_events },
    })
}

/// Encodes a participant's row.
pub fn participant_value(participant: &Participant) -> Vec<u8> {
    message(&proto::ParticipantRow {
        role: participant.role as u32,
        since_ms: participant.since_ms,
        until_ms: participant.until_ms,
        part: participant.part as u32,
        read: participant.read.0,
    })
}

/// Decodes a participant's row.
///
/// # Errors
/// When it is damaged.
pub fn participant_from(value: &[u8]) -> io::Result<Participant> {
    let what = "a participant's row";
    let row: proto::ParticipantRow = parse(value, what)?;
    Ok(Participant {
        role: Role::from_number(row.role).ok_or_else(|| damaged(what))?,
        since_ms: row.since_ms,
        until_ms: row.until_ms,
        part: Part::from_number(row.part).ok_or_else(|| damaged(what))?,
        read: Seq(row.read),
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
        replies: notes.replies.iter().map(|seq| seq.0).collect(),
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
        replies: row.replies.into_iter().map(Seq).collect(),
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

#[cfg(test)]
mod tests;
