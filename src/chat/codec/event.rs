//! Events: what the base holds, and a forwarded page carries.

use bytes::{Buf, Bytes};

use crate::chat::codec::{Malformed, array, nonzero, open, parse, seal, seal_into};
use crate::chat::event::{Body, Event};
use crate::id::Seq;
use crate::proto::internal as proto;

/// Encodes an event.
pub fn encode_event(event: &Event) -> Bytes {
    seal(&to_wire(event))
}

/// Encodes an event at the end of `out`.
pub fn encode_event_into(event: &Event, out: &mut Vec<u8>) {
    seal_into(&to_wire(event), out);
}

/// Decodes an event.
///
/// # Errors
/// [`Malformed`].
pub fn decode_event(bytes: impl Buf) -> Result<Event, Malformed> {
    from_wire(open(bytes, "event")?)
}

pub(super) fn to_wire(event: &Event) -> proto::StoredEvent {
    let (salt, text, erased_hash) = match &event.body {
        Body::Present { salt, text } => (Bytes::copy_from_slice(salt), text.clone(), Bytes::new()),
        Body::Erased { hash } => (Bytes::new(), String::new(), Bytes::copy_from_slice(hash)),
    };
    proto::StoredEvent {
        seq: event.seq.0,
        at_ms: event.at_ms,
        sender: event.sender.as_str().into(),
        kind: event.kind as u32,
        request_id: Bytes::copy_from_slice(event.request_id.as_bytes()),
        target: event.target.map_or(0, |seq| seq.0),
        subject: event.subject.as_ref().map_or_else(String::new, |user| user.as_str().into()),
        role: event.role.map_or(0, |role| role as u32),
        original_at_ms: event.original_at_ms.unwrap_or(0),
        original_sender: event.original_sender.clone().unwrap_or_default(),
        withdrawn: event.withdrawn,
        salt,
        text,
        erased_hash,
    }
}

pub(super) fn from_wire(event: proto::StoredEvent) -> Result<Event, Malformed> {
    let body = if event.erased_hash.is_empty() {
        Body::Present { salt: array(&event.salt, "salt")?, text: event.text }
    } else if event.salt.is_empty() && event.text.is_empty() {
        Body::Erased { hash: array(&event.erased_hash, "body hash")? }
    } else {
        return Err(Malformed("erased body"));
    };
    Ok(Event {
        seq: nonzero(event.seq).map(Seq).ok_or(Malformed("seq"))?,
        at_ms: event.at_ms,
        sender: parse::user(&event.sender)?,
        kind: parse::event_kind(event.kind)?,
        request_id: parse::request_id(&event.request_id)?,
        target: nonzero(event.target).map(Seq),
        subject: parse::maybe_user(&event.subject)?,
        role: if event.role == 0 { None } else { Some(parse::role(event.role)?) },
        withdrawn: event.withdrawn,
        original_at_ms: nonzero(event.original_at_ms),
        original_sender: Some(event.original_sender).filter(|name| !name.is_empty()),
        body,
    })
}
