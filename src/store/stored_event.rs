//! Events as they lie in blocks: the protobuf message `StoredEvent` (`log.proto`).
//!
//! Written and read by hand: without the copies into owned strings that generated code needs, and
//! telling an absent field from an empty one where that counts, which the chain hash does for what
//! imported lines carry. Used by `block.rs` and whoever reads blocks.

use std::sync::Arc;

use crate::chat::event::{Body, Event, EventKind, Role};
use crate::id::{RequestId, Seq, UserId};
use crate::store::codec::{put_varint, take_bytes, take_varint};

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
    use prost::Message;

    use super::*;
    use crate::proto::internal as proto;

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
        }
    }
}
