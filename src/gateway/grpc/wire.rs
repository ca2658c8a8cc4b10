//! What a session says, with delivered events already encoded.
//!
//! The same messages on the wire as `folkmoot.v1.SessionResponse` and `folkmoot.v1.Delivery`, but
//! `Delivery.events` is `repeated bytes` here: an embedded message and a byte string look the same
//! in protobuf, so an event that was encoded once is copied into each of its deliveries as it is.
//! A test decodes these as the real ones.

use bytes::Bytes;

use crate::proto::v1 as proto;

/// `folkmoot.v1.SessionResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionResponse {
    /// What is said.
    #[prost(oneof = "Response", tags = "1, 2, 3, 4, 5, 6, 7")]
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
