//! Events as bytes: the protobuf message `StoredEvent` (`log.proto`), in blocks of the base and
//! between nodes.
//!
//! Written and read by hand: without the copies into owned strings that generated code needs, and
//! telling an absent field from an empty one where that counts, which the chain hash does for what
//! imported lines carry. Used by `answer.rs`, the router's relay, and whoever reads blocks.

use std::sync::Arc;

use bytes::Bytes;

use crate::chat::codec::varint::{put_varint, take_bytes, take_varint};
use crate::chat::codec::{Malformed, VERSION, array, nonzero, parse};
use crate::chat::event::{Body, Event};
use crate::id::{Seq, UserId};

/// Encodes an event by itself, behind the version byte.
pub fn encode_event(event: &Event) -> Bytes {
    encode(event, &[VERSION])
}

/// Decodes what [`encode_event`] made.
///
/// # Errors
/// [`Malformed`].
pub fn decode_event(bytes: &[u8]) -> Result<Arc<Event>, Malformed> {
    match bytes.split_first() {
        Some((&VERSION, event)) => EventReader::default().read(event),
        _ => Err(Malformed("event")),
    }
}

/// Encodes an event as a field of another message.
pub(super) fn to_wire(event: &Event) -> Bytes {
    encode(event, &[])
}

fn encode(event: &Event, prefix: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(192 + event.body.text().len());
    out.extend_from_slice(prefix);
    put_event(&mut out, event);
    out.into()
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
    if let Some(ms) = event.until_ms {
        put_number_field(out, 15, ms);
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
    /// Decodes one event.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(&mut self, bytes: &[u8]) -> Result<Arc<Event>, Malformed> {
        let fields = fields(bytes).ok_or(Malformed("event"))?;
        let number = |slot: usize| fields.numbers[slot];
        let small = |slot| number(slot).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        let bytes = |slot: usize| fields.bytes[slot].unwrap_or_default();
        let text = |slot: usize| {
            let text = fields.bytes[slot].map(std::str::from_utf8).transpose();
            text.map_err(|_| Malformed("text"))
        };
        let sender = text(3)?.unwrap_or_default();
        let sender = match &self.sender {
            Some(last) if last.as_str() == sender => last,
            _ => &*self.sender.insert(parse::user(sender)?),
        };
        let body = match fields.bytes[14] {
            None => Body::Present {
                salt: array(bytes(12), "salt")?,
                text: text(13)?.unwrap_or_default().to_string(),
            },
            Some(hash) if bytes(12).is_empty() && bytes(13).is_empty() => {
                Body::Erased { hash: array(hash, "body hash")? }
            }
            Some(_) => return Err(Malformed("erased body")),
        };
        Ok(Arc::new(Event {
            seq: number(1).and_then(nonzero).map(Seq).ok_or(Malformed("seq"))?,
            at_ms: number(2).unwrap_or(0),
            sender: sender.clone(),
            kind: parse::event_kind(small(4).unwrap_or(0))?,
            request_id: parse::request_id(bytes(5))?,
            target: number(6).map(Seq),
            subject: text(7)?.map(parse::user).transpose()?,
            role: small(8).map(parse::role).transpose()?,
            withdrawn: number(11).unwrap_or(0) != 0,
            until_ms: number(15),
            original_at_ms: number(9),
            original_sender: text(10)?.map(str::to_string),
            body,
        }))
    }
}
