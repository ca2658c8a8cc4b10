//! A gRPC session that follows one room and posts into it on the same stream; and what streams of
//! all kinds have in common.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use uuid::Uuid;

use crate::history::Event;
use crate::run::client::grpc::{event, refusal};
use crate::run::client::sse::Sse;
use crate::run::client::websocket::WebSocket;
use crate::run::client::{Ack, Client, Outcome, PATIENCE};
use crate::run::proto as pb;
use crate::run::proto::session_request::Request;
use crate::run::proto::session_response::Response;

/// Where a stream begins.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The room's head then.
    pub head: u64,
    /// The cursor was still good.
    pub recovered: bool,
    /// The room's epoch.
    pub epoch: String,
}

/// What comes on a stream.
#[derive(Debug)]
pub enum Item {
    /// An event of the room.
    Event(Event),
    /// The answer to a post on the same stream.
    Posted(Outcome<Ack>),
    /// Nothing of interest.
    Other,
}

/// How a room is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// Over server-sent events.
    Sse,
    /// Over a gRPC session.
    Session,
    /// Over a WebSocket, with the token in a header, or in the first frame.
    WebSocket {
        /// In a header.
        in_header: bool,
    },
}

impl Transport {
    /// All of them, those over WebSocket as often as the others together.
    pub const ALL: [Transport; 4] = [
        Transport::Sse,
        Transport::Session,
        Transport::WebSocket { in_header: false },
        Transport::WebSocket { in_header: true },
    ];

    /// What a list on the command line asks for.
    ///
    /// # Errors
    ///
    /// The name that there is not, and those that there are; or that there is none.
    pub fn parse(names: &str) -> Result<Vec<Transport>, String> {
        let mut asked = vec![];
        for name in names.split(',').map(str::trim) {
            let known: Vec<_> = Transport::ALL.into_iter().filter(|t| t.name() == name).collect();
            if known.is_empty() {
                return Err(format!("nobody follows over {name:?}: it is sse, session or ws"));
            }
            asked.extend(known);
        }
        asked.sort_unstable();
        asked.dedup();
        Ok(asked)
    }

    /// The name, as options have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Sse => "sse",
            Transport::Session => "session",
            Transport::WebSocket { .. } => "ws",
        }
    }
}

/// A room that is followed.
#[derive(Debug)]
pub enum Stream {
    /// Over server-sent events.
    Sse(Sse),
    /// Over a gRPC session.
    Session(Box<Session>),
    /// Over a WebSocket.
    WebSocket(Box<WebSocket>),
}

/// A session.
#[derive(Debug)]
pub struct Session {
    room: String,
    requests: mpsc::Sender<pb::SessionRequest>,
    responses: Streaming<pb::SessionResponse>,
    next_id: u64,
    waiting: VecDeque<Event>,
}

impl Stream {
    /// Follows a room.
    pub async fn open(
        client: &mut Client,
        transport: Transport,
        room: &str,
        after: Option<u64>,
        epoch: Option<&str>,
    ) -> Outcome<(Followed, Stream)> {
        match transport {
            Transport::Sse => {
                let opened = Sse::open(&client.rest, room, after, epoch).await;
                opened.and_then(|(followed, open)| Some((followed, Stream::Sse(open))))
            }
            Transport::Session => {
                let opened = Session::open(client, room, after).await;
                opened
                    .and_then(|(followed, open)| Some((followed, Stream::Session(Box::new(open)))))
            }
            Transport::WebSocket { in_header } => {
                let opened = WebSocket::open(&client.rest, in_header, room, after, epoch).await;
                opened.and_then(|(followed, open)| {
                    Some((followed, Stream::WebSocket(Box::new(open))))
                })
            }
        }
    }

    /// Whether it takes posts.
    #[must_use]
    pub const fn takes_posts(&self) -> bool {
        !matches!(self, Stream::Sse(_))
    }

    /// Posts on the stream; the answer comes as an item. `false`: nothing was sent.
    pub fn post(&mut self, uuid: Uuid, text: &str) -> bool {
        match self {
            Stream::Sse(_) => false,
            Stream::Session(session) => session.post(uuid, text),
            Stream::WebSocket(socket) => socket.post(uuid, text),
        }
    }

    /// What comes next.
    ///
    /// # Errors
    ///
    /// Why the stream is over.
    pub async fn next(&mut self) -> Result<Item, String> {
        match self {
            Stream::Sse(stream) => stream.next().await,
            Stream::Session(session) => session.next().await,
            Stream::WebSocket(socket) => socket.next().await,
        }
    }
}

impl Session {
    async fn open(
        client: &mut Client,
        room: &str,
        after: Option<u64>,
    ) -> Outcome<(Followed, Session)> {
        let mut rooms = match client.grpc.rooms().await {
            Ok(rooms) => rooms,
            Err(why) => return Outcome::Failed(why),
        };
        let (requests, outgoing) = mpsc::channel(16);
        let follow = pb::Follow {
            presence: false,
            room: room.into(),
            after: after.map(|seq| pb::Cursor { epoch: String::new(), seq }),
        };
        let follow = pb::SessionRequest { request: Some(Request::Follow(follow)), id: 1 };
        if requests.send(follow).await.is_err() {
            return Outcome::Failed("connection-lost".into());
        }
        let request = client.grpc.request(ReceiverStream::new(outgoing));
        let opening = async {
            let mut responses = rooms.session(request).await?.into_inner();
            let first = responses.message().await?;
            Ok::<_, tonic::Status>((responses, first))
        };
        let (responses, first) = match timeout(PATIENCE, opening).await {
            Err(_) => return Outcome::Unknown("client-timeout".into()),
            Ok(Err(status)) => {
                return match refusal(&status) {
                    Some(error) => Outcome::refused(&error.code, error.may_have_applied),
                    None => Outcome::Unknown("connection-lost".into()),
                };
            }
            Ok(Ok(opened)) => opened,
        };
        let followed = match first.and_then(|first| first.response) {
            Some(Response::Followed(said)) => {
                Followed { head: said.head, recovered: said.recovered, epoch: said.epoch }
            }
            Some(Response::Error(error)) => {
                return Outcome::refused(&error.code, error.may_have_applied);
            }
            _ => return Outcome::Unknown("odd-answer".into()),
        };
        let session = Session {
            room: room.into(),
            requests,
            responses,
            next_id: 2,
            waiting: VecDeque::new(),
        };
        Outcome::Ok((followed, session))
    }

    fn post(&mut self, uuid: Uuid, text: &str) -> bool {
        let post = pb::PostRequest {
            room: self.room.clone(),
            client_msg_id: uuid.as_bytes().to_vec(),
            text: text.into(),
            ..pb::PostRequest::default()
        };
        let request = pb::SessionRequest { request: Some(Request::Post(post)), id: self.next_id };
        self.next_id += 1;
        self.requests.try_send(request).is_ok()
    }

    async fn next(&mut self) -> Result<Item, String> {
        if let Some(event) = self.waiting.pop_front() {
            return Ok(Item::Event(event));
        }
        let message = self.responses.message().await.map_err(|_| "connection-lost")?;
        let response = message.and_then(|message| message.response).ok_or("connection-lost")?;
        match response {
            Response::Delivery(delivery) => {
                for delivered in &delivery.events {
                    self.waiting.push_back(event(delivered).ok_or("odd-answer")?);
                }
                Ok(self.waiting.pop_front().map_or(Item::Other, Item::Event))
            }
            Response::Ack(ack) => {
                Ok(Item::Posted(Outcome::Ok(Ack { seq: ack.seq, duplicate: ack.duplicate })))
            }
            Response::Error(error) => {
                Ok(Item::Posted(Outcome::refused(&error.code, error.may_have_applied)))
            }
            Response::Ended(ended) => Err(ended.error.map_or("ended".into(), |e| e.code)),
            _ => Ok(Item::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_are_named() {
        assert_eq!(Transport::parse("sse, session,ws,sse").unwrap(), Transport::ALL);
        assert_eq!(Transport::parse("ws").unwrap().len(), 2);
        for bad in ["", "smoke", "ws,"] {
            assert!(Transport::parse(bad).unwrap_err().contains("sse, session or ws"), "{bad}");
        }
    }
}
