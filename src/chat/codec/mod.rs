//! Commands, events, queries and their outcomes as bytes: in the Raft log, in the base, and
//! between nodes. Called by router, shard and store.
//!
//! Every value is a protobuf message behind one version byte. Decoding is strict: what it returns
//! is valid (ids, kinds, lengths of hashes and salts), and it never panics, whatever the bytes.
//! How long a text may be is not its business but that of the rules, which answer with a reason.
//!
//! **Invariant:** a value decodes to what was encoded, in every later version too;
//! `chat/golden/formats.txt` pins the bytes.

mod answer;
mod change;
mod event;
mod moderation;
mod query;
mod reply;
mod request;
mod user;
pub mod varint;

#[cfg(test)]
pub(crate) mod tests;

use bytes::{Buf, Bytes};

pub use crate::proto::internal::Batch;
pub use answer::{decode_answer, encode_answer};
pub use event::{EventReader, decode_event, encode_event, put_event};
pub use query::{decode_query, encode_query};
pub use reply::{
    decode_actor, decode_error, decode_reply, encode_actor, encode_error, encode_reply,
};
pub use request::{
    decode_batch, decode_recovery, decode_request, encode_batch, encode_recovery, encode_request,
};

/// The version of every format here, in front of each value.
pub const VERSION: u8 = 1;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(
    /// The value or field that is not valid.
    pub &'static str,
);

/// Encodes a message behind the version byte.
fn seal(message: &impl prost::Message) -> Bytes {
    let mut out = Vec::with_capacity(1 + message.encoded_len());
    out.push(VERSION);
    message.encode_raw(&mut out);
    out.into()
}

/// Decodes a message from behind the version byte.
fn open<M: prost::Message + Default>(
    mut bytes: impl Buf,
    what: &'static str,
) -> Result<M, Malformed> {
    if !bytes.has_remaining() || bytes.get_u8() != VERSION {
        return Err(Malformed(what));
    }
    M::decode(bytes).map_err(|_| Malformed(what))
}

/// An array of exactly `N` bytes.
fn array<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], Malformed> {
    bytes.try_into().map_err(|_| Malformed(what))
}

fn copied<const N: usize>(bytes: &[u8; N]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A value that protobuf has as a plain number, with 0 for none.
fn nonzero(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number != 0)
}

mod parse {
    //! Ids out of strings, numbers into enums.

    use super::Malformed;
    use crate::chat::event::{EventKind, Role};
    use crate::chat::state::RoomKind;
    use crate::id::{Epoch, RequestId, RoomId, UserId};

    pub fn room(s: &str) -> Result<RoomId, Malformed> {
        RoomId::parse(s).map_err(|_| Malformed("room id"))
    }

    pub fn user(s: &str) -> Result<UserId, Malformed> {
        UserId::parse_row(s).map_err(|_| Malformed("user id"))
    }

    /// A user, or none when empty.
    pub fn maybe_user(s: &str) -> Result<Option<UserId>, Malformed> {
        if s.is_empty() { Ok(None) } else { user(s).map(Some) }
    }

    /// A room, or none when empty.
    pub fn maybe_room(s: &str) -> Result<Option<RoomId>, Malformed> {
        if s.is_empty() { Ok(None) } else { room(s).map(Some) }
    }

    pub fn epoch(s: &str) -> Result<Epoch, Malformed> {
        Epoch::parse(s).map_err(|_| Malformed("epoch"))
    }

    /// An epoch, or none when empty.
    pub fn maybe_epoch(s: &str) -> Result<Option<Epoch>, Malformed> {
        if s.is_empty() { Ok(None) } else { epoch(s).map(Some) }
    }

    pub fn request_id(bytes: &[u8]) -> Result<RequestId, Malformed> {
        RequestId::from_slice(bytes).map_err(|_| Malformed("request id"))
    }

    pub fn event_kind(number: u32) -> Result<EventKind, Malformed> {
        EventKind::from_number(number).ok_or(Malformed("event kind"))
    }

    pub fn role(number: u32) -> Result<Role, Malformed> {
        Role::from_number(number).ok_or(Malformed("role"))
    }

    pub fn room_kind(number: u32) -> Result<RoomKind, Malformed> {
        RoomKind::from_number(number).ok_or(Malformed("room kind"))
    }
}
