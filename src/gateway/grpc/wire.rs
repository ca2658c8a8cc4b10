//! What a session says, with delivered events already encoded.
//!
//! The same messages on the wire as `folkmoot.v1.SessionResponse` and `folkmoot.v1.Delivery`, but
//! `Delivery.events` is `repeated bytes` here: an embedded message and a byte string look the same
//! in protobuf, so an event that was encoded once is copied into each of its deliveries as it is.
//! A test decodes these as the real ones.

use std::sync::Arc;

use bytes::Bytes;

use crate::delivery::encoded::Encoded;
use crate::gateway::limits::{DELIVERY_BYTES_MAX, DELIVERY_EVENTS_MAX};
use crate::gateway::session::{self, Said};
use crate::gateway::{convert, status};
use crate::id::{RoomId, Seq, UserId};
use crate::proto::v1 as proto;

/// `folkmoot.v1.SessionResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionResponse {
    /// What is said.
    #[prost(oneof = "Response", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub response: Option<Response>,
    /// The id of the request that this answers; 0 for deliveries.
    #[prost(uint64, tag = "15")]
    pub id: u64,
}

/// The alternatives of [`SessionResponse`].
#[derive(Clone, PartialEq, prost::Oneof)]
#[expect(missing_docs, reason = "as in folkmoot.v1.SessionResponse")]
pub enum Response {
    #[prost(message, tag = "1")]
    Ack(proto::Ack),
    #[prost(message, tag = "2")]
    Error(proto::Error),
    #[prost(message, tag = "3")]
    Followed(proto::Followed),
    #[prost(message, tag = "4")]
    Delivery(Delivery),
    #[prost(message, tag = "5")]
    CaughtUp(proto::CaughtUp),
    #[prost(message, tag = "6")]
    Ended(proto::Ended),
    #[prost(message, tag = "7")]
    Pong(proto::Pong),
    #[prost(message, tag = "8")]
    Presence(proto::RoomPresence),
    #[prost(message, tag = "9")]
    Typing(proto::TypingUsers),
    #[prost(message, tag = "10")]
    Receipts(proto::Receipts),
}

/// `folkmoot.v1.Delivery`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Delivery {
    /// The room.
    #[prost(string, tag = "1")]
    pub room: String,
    /// Encoded `folkmoot.v1.Event`s, in order.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub events: Vec<Bytes>,
}

impl Response {
    /// The response to a request, or with id 0 of its own accord.
    pub fn to(self, id: u64) -> SessionResponse {
        SessionResponse { response: Some(self), id }
    }
}

/// What a session says, as it goes over the wire.
pub fn responses(batch: Vec<session::Response<u64>>) -> Vec<SessionResponse> {
    let mut responses = Vec::with_capacity(batch.len());
    for session::Response { tag, said } in batch {
        match said {
            Said::Ack { done, .. } => responses.push(Response::Ack(convert::ack(done)).to(tag)),
            Said::Refused { error, .. } => {
                responses.push(Response::Error(status::to_proto(&error)).to(tag));
            }
            Said::Followed { room, epoch, first_seq, head, recovered } => {
                let followed = proto::Followed {
                    room: room.as_str().to_owned(),
                    epoch: epoch.as_str().to_owned(),
                    first_seq: first_seq.0,
                    head: head.0,
                    recovered,
                };
                responses.push(Response::Followed(followed).to(tag));
            }
            Said::Events { room, events } => pack(&room, &events, &mut responses),
            Said::CaughtUp { room, seq } => {
                let caught_up = proto::CaughtUp { room: room.as_str().to_owned(), seq: seq.0 };
                responses.push(Response::CaughtUp(caught_up).to(tag));
            }
            Said::Ended { room, seq, error } => {
                let (room, error) = (room.as_str().to_owned(), error.as_ref());
                let error = error.map(status::to_proto);
                let ended = proto::Ended { room, seq: seq.0, error };
                responses.push(Response::Ended(ended).to(tag));
            }
            Said::Present { room, present, people } => {
                let people = people.iter().map(|(user, seen)| convert::seen(user, *seen));
                let (room, people) = (room.as_str().to_owned(), people.collect());
                let present = proto::RoomPresence { room, present: present as u64, people };
                responses.push(Response::Presence(present).to(tag));
            }
            Said::Typing { room, users } => {
                let users = users.iter().map(|user| user.as_str().to_owned()).collect();
                let typing = proto::TypingUsers { room: room.as_str().to_owned(), users };
                responses.push(Response::Typing(typing).to(tag));
            }
            Said::Read { room, marks } => {
                let mark = |(user, seq): &(UserId, Seq)| proto::ReadMark {
                    user: user.as_str().to_owned(),
                    seq: seq.0,
                };
                let marks = marks.iter().map(mark).collect();
                let receipts = proto::Receipts { room: room.as_str().to_owned(), marks };
                responses.push(Response::Receipts(receipts).to(tag));
            }
            Said::Pong => responses.push(Response::Pong(proto::Pong {}).to(tag)),
        }
    }
    responses
}

/// Packs events into as few deliveries as their limits allow.
fn pack(room: &RoomId, events: &[Arc<Encoded>], responses: &mut Vec<SessionResponse>) {
    let mut rest = events;
    while !rest.is_empty() {
        let (mut packed, mut bytes) = (Vec::with_capacity(rest.len().min(DELIVERY_EVENTS_MAX)), 0);
        for event in rest.iter().take(DELIVERY_EVENTS_MAX) {
            let event: &Bytes = event.proto(convert::encoded_event);
            bytes += event.len();
            if bytes > DELIVERY_BYTES_MAX && !packed.is_empty() {
                break;
            }
            packed.push(event.clone());
        }
        rest = &rest[packed.len()..];
        let delivery = Delivery { room: room.as_str().to_owned(), events: packed };
        responses.push(Response::Delivery(delivery).to(0));
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn decoded(response: Response, id: u64) -> proto::SessionResponse {
        let bytes = response.to(id).encode_to_vec();
        proto::SessionResponse::decode(&*bytes).unwrap()
    }

    #[test]
    fn spliced_events_decode_as_events() {
        let events: Vec<proto::Event> = (1..=3)
            .map(|seq| proto::Event {
                seq,
                text: "hello".repeat(seq as usize),
                ..Default::default()
            })
            .collect();
        let delivery = Delivery {
            room: "general".into(),
            events: events.iter().map(|event| event.encode_to_vec().into()).collect(),
        };
        let expected = proto::Delivery { room: "general".into(), events };
        assert_eq!(delivery.encode_to_vec(), expected.encode_to_vec());
        let response = decoded(Response::Delivery(delivery), 0);
        let expected = proto::session_response::Response::Delivery(expected);
        assert_eq!(response, proto::SessionResponse { response: Some(expected), id: 0 });
    }

    #[test]
    fn every_alternative_has_the_tag_of_the_real_one() {
        use proto::session_response::Response as Real;
        let ended = proto::Ended { room: "a".into(), seq: 7, error: None };
        let cases = [
            (Response::Ack(Default::default()), Real::Ack(Default::default())),
            (Response::Error(Default::default()), Real::Error(Default::default())),
            (Response::Followed(Default::default()), Real::Followed(Default::default())),
            (Response::CaughtUp(Default::default()), Real::CaughtUp(Default::default())),
            (Response::Ended(ended.clone()), Real::Ended(ended)),
            (Response::Pong(proto::Pong {}), Real::Pong(proto::Pong {})),
        ];
        for (id, (ours, real)) in (1..).zip(cases) {
            let expected = proto::SessionResponse { response: Some(real), id };
            assert_eq!(decoded(ours, id), expected);
        }
    }
}
