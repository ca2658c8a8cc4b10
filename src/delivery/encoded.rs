//! A committed event on its way to many connections: encoded once for each wire format, not once
//! for each subscriber.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::chat::event::Event;

/// A committed event with its encodings, made when first asked for.
#[derive(Debug)]
pub struct Encoded {
    /// The event.
    pub event: Arc<Event>,
    proto: OnceLock<Bytes>,
    json: OnceLock<Bytes>,
    frame: OnceLock<Bytes>,
}

impl Encoded {
    /// Wraps an event.
    pub fn new(event: Arc<Event>) -> Arc<Encoded> {
        Arc::new(Encoded {
            event,
            proto: OnceLock::new(),
            json: OnceLock::new(),
            frame: OnceLock::new(),
        })
    }

    /// The event as an encoded `folkmoot.v1.Event`, made with `encode` the first time.
    pub fn proto(&self, encode: impl FnOnce(&Event) -> Bytes) -> &Bytes {
        self.proto.get_or_init(|| encode(&self.event))
    }

    /// The event as JSON, made with `encode` the first time.
    pub fn json(&self, encode: impl FnOnce(&Event) -> Bytes) -> &Bytes {
        self.json.get_or_init(|| encode(&self.event))
    }

    /// The event as a whole WebSocket frame, which names the room, made with `encode` the first
    /// time. An `Encoded` belongs to one room's ring, or to one page of its history.
    pub fn frame(&self, encode: impl FnOnce(&Encoded) -> Bytes) -> &Bytes {
        self.frame.get_or_init(|| encode(self))
    }
}
