//! What nodes send: JSON objects with a `type`, and with the `ref` of what they answer. All of it is
//! encoded here, as UTF-8.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::chat::command::Actor;
use crate::delivery::encoded::Encoded;
use crate::error::Error;
use crate::gateway::app::App;
use crate::gateway::json::{self as shapes, AckJson, PersonJson};
use crate::gateway::limits::FRAME_BYTES_MAX;
use crate::gateway::session::{Response, Said};
use crate::gateway::status;
use crate::gateway::websocket::PROTOCOL;
use crate::gateway::websocket::frame::Ref;
use crate::id::{RoomId, UserId};

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Frame<'a> {
    Hello {
        protocol: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        node: Option<u64>,
        user: &'a str,
        server_time_ms: u64,
        ping_interval_ms: u64,
        idle_timeout_ms: u64,
        limits: Limits,
    },
    Ack {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        tag: Option<Ref>,
        #[serde(flatten)]
        ack: AckJson,
    },
    Error {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        tag: Option<Ref>,
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        error: Value,
    },
    Followed {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        tag: Option<Ref>,
        room: &'a str,
        epoch: &'a str,
        first_seq: u64,
        head: u64,
        recovered: bool,
    },
    CaughtUp {
        room: &'a str,
        seq: u64,
    },
    Ended {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        tag: Option<Ref>,
        room: &'a str,
        seq: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Value>,
    },
    Presence {
        room: &'a str,
        present: usize,
        people: Vec<PersonJson<'a>>,
    },
    Typing {
        room: &'a str,
        users: Vec<&'a str>,
    },
    Receipts {
        room: &'a str,
        marks: Vec<Mark<'a>>,
    },
    Pong {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        tag: Option<Ref>,
    },
}

#[derive(Serialize)]
struct Mark<'a> {
    user: &'a str,
    seq: u64,
}

#[derive(Serialize)]
struct Limits {
    follows: usize,
    in_flight: usize,
    frame_bytes: usize,
    text_bytes: usize,
}

impl Frame<'_> {
    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// The first frame that a client gets.
pub fn hello(app: &App, actor: &Actor) -> Bytes {
    let limits = app.limits();
    let ping_interval_ms = limits.keep_alive.as_millis() as u64;
    let hello = Frame::Hello {
        protocol: PROTOCOL,
        node: app.backend.node_id().map(|node| node.0),
        user: actor.user.as_str(),
        server_time_ms: app.clock.now_ms(),
        ping_interval_ms,
        idle_timeout_ms: 2 * ping_interval_ms,
        limits: Limits {
            follows: limits.follows_per_session_max,
            in_flight: limits.posts_in_flight_per_session_max,
            frame_bytes: FRAME_BYTES_MAX,
            text_bytes: limits.text_bytes_max,
        },
    };
    hello.encode()
}

/// The frame of an error that ends the connection.
pub fn last(error: &Error) -> Bytes {
    Frame::Error { tag: None, room: None, error: status::json_value(error) }.encode()
}

/// The frames of a response: one, or one for each event.
pub fn frames(response: Response<Option<Ref>>, mut push: impl FnMut(Bytes)) {
    let Response { tag, said } = response;
    let frame = match &said {
        Said::Events { room, events } => {
            events.iter().for_each(|encoded| push(event(room, encoded)));
            return;
        }
        Said::Ack { done, id } => Frame::Ack { tag, ack: AckJson::from(done.clone()).with_id(*id) },
        Said::Refused { room, error } => {
            let room = room.as_ref().map(RoomId::as_str);
            Frame::Error { tag, room, error: status::json_value(error) }
        }
        Said::Followed { room, epoch, first_seq, head, recovered } => Frame::Followed {
            tag,
            room: room.as_str(),
            epoch: epoch.as_str(),
            first_seq: first_seq.0,
            head: head.0,
            recovered: *recovered,
        },
        Said::CaughtUp { room, seq } => Frame::CaughtUp { room: room.as_str(), seq: seq.0 },
        Said::Ended { room, seq, error } => {
            let error = error.as_ref().map(status::json_value);
            Frame::Ended { tag, room: room.as_str(), seq: seq.0, error }
        }
        Said::Present { room, present, people } => {
            let people = people.iter().map(|(user, seen)| PersonJson::new(user, *seen)).collect();
            Frame::Presence { room: room.as_str(), present: *present, people }
        }
        Said::Typing { room, users } => {
            let users = users.iter().map(UserId::as_str).collect();
            Frame::Typing { room: room.as_str(), users }
        }
        Said::Read { room, marks } => {
            let marks = marks.iter().map(|(user, seq)| Mark { user: user.as_str(), seq: seq.0 });
            Frame::Receipts { room: room.as_str(), marks: marks.collect() }
        }
        Said::Pong => Frame::Pong { tag },
    };
    push(frame.encode());
}

/// An event's frame, encoded once for all who follow the room.
fn event(room: &RoomId, encoded: &Encoded) -> Bytes {
    let frame = encoded.frame(|encoded| {
        let json = encoded.json(shapes::encoded_event);
        let mut frame = Vec::with_capacity(json.len() + room.as_str().len() + 40);
        frame.extend_from_slice(br#"{"type":"event","room":""#);
        frame.extend_from_slice(room.as_str().as_bytes()); // nothing in it needs an escape
        frame.extend_from_slice(br#"","event":"#);
        frame.extend_from_slice(json);
        frame.push(b'}');
        Bytes::from(frame)
    });
    frame.clone()
}
