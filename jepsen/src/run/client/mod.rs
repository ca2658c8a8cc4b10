//! What clients say to nodes: each try is one request to one node, and nothing is tried again in
//! between, so that what is recorded is what happened.
//!
//! An operation failed for certain when the node says so (`may_have_applied: false`), or when there
//! was no connection to send it on. Everything else that is not an answer leaves it unknown.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::history::{Event, Id};

pub mod grpc;
pub mod rest;
pub mod session;
pub mod sse;
pub mod websocket;

use grpc::Grpc;
use rest::Rest;

/// How long a connection may take to come about.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long a client waits for an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// What came of asking a node.
#[derive(Clone, Debug)]
pub enum Outcome<T> {
    /// It answered.
    Ok(T),
    /// It certainly did nothing, and never will.
    Failed(String),
    /// It may have done it, or may still.
    Unknown(String),
}

impl<T> Outcome<T> {
    /// What an error means that says whether it may have been applied.
    fn refused(code: &str, may_have_applied: bool) -> Outcome<T> {
        if may_have_applied { Outcome::Unknown(code.into()) } else { Outcome::Failed(code.into()) }
    }

    /// The answer, turned into another; one that makes no sense leaves the outcome unknown.
    fn and_then<U>(self, turn: impl FnOnce(T) -> Option<U>) -> Outcome<U> {
        match self {
            Outcome::Ok(answer) => match turn(answer) {
                Some(turned) => Outcome::Ok(turned),
                None => Outcome::Unknown("odd-answer".into()),
            },
            Outcome::Failed(why) => Outcome::Failed(why),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }

    /// The error's code.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Outcome::Ok(_) => None,
            Outcome::Failed(code) | Outcome::Unknown(code) => Some(code),
        }
    }
}

/// A post was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    /// With this seq.
    pub seq: u64,
    /// It had been there before.
    pub duplicate: bool,
}

/// A page of a room.
#[derive(Clone, Debug)]
pub struct Page {
    /// The room's last seq.
    pub head: u64,
    /// In order.
    pub events: Vec<Event>,
}

/// Which API a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// JSON over HTTP.
    Rest,
    /// gRPC.
    Grpc,
}

/// A user's connections to one node.
#[derive(Debug)]
pub struct Client {
    /// The node's name.
    pub node: String,
    /// Where it is.
    pub address: SocketAddr,
    /// JSON.
    pub rest: Rest,
    grpc: Grpc,
}

impl Client {
    /// Not connected yet.
    #[must_use]
    pub fn new(node: &str, address: SocketAddr, token: &str) -> Client {
        Client {
            node: node.into(),
            address,
            rest: Rest::new(address, token),
            grpc: Grpc::new(address, token),
        }
    }

    /// Posts a message.
    pub async fn post(&mut self, api: Api, room: &str, id: Uuid, text: &str) -> Outcome<Ack> {
        if api == Api::Grpc {
            return self.grpc.post(room, id, text).await;
        }
        let body = json!({ "client_msg_id": id.to_string(), "text": text });
        let path = format!("/v1/rooms/{room}/messages");
        self.rest.request("POST", &path, Some(body)).await.and_then(|answer| ack(&answer))
    }

    /// Joins a room.
    pub async fn join(&mut self, room: &str, id: Uuid) -> Outcome<Ack> {
        let path = format!("/v1/rooms/{room}/join");
        let body = json!({ "request_id": id.to_string() });
        self.rest.request("POST", &path, Some(body)).await.and_then(|answer| ack(&answer))
    }

    /// Creates a public room; whether it was not there before. Its log then begins with the
    /// creator's own join, under this id.
    pub async fn create_room(&mut self, room: &str, id: Uuid) -> Outcome<bool> {
        let body =
            json!({ "room": room, "title": room, "kind": "public", "request_id": id.to_string() });
        match self.rest.exchange("POST", "/v1/rooms", Some(body)).await {
            Outcome::Ok((status, _)) => Outcome::Ok(status == 201),
            Outcome::Failed(why) => Outcome::Failed(why),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }

    /// Reads a page.
    pub async fn events(
        &mut self,
        api: Api,
        room: &str,
        after: u64,
        limit: u32,
        local: bool,
    ) -> Outcome<Page> {
        if api == Api::Grpc {
            return self.grpc.events(room, after, limit, local).await;
        }
        let consistency = if local { "local" } else { "linearizable" };
        let path = format!(
            "/v1/rooms/{room}/events?after={after}&limit={limit}&consistency={consistency}"
        );
        self.rest.request("GET", &path, None).await.and_then(|answer| page(&answer))
    }

    /// A replica's head and hash chain of a room.
    pub async fn chain(&mut self, room: &str) -> Outcome<(u64, String)> {
        let path = format!("/v1/rooms/{room}?consistency=local");
        self.rest.request("GET", &path, None).await.and_then(|answer| {
            Some((answer["head"].as_u64()?, answer["chain"].as_str()?.to_owned()))
        })
    }
}

/// A fresh id.
#[must_use]
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// An id, as histories have it.
#[must_use]
pub const fn id(uuid: Uuid) -> Id {
    Id::from_u128(uuid.as_u128())
}

fn ack(answer: &Value) -> Option<Ack> {
    Some(Ack { seq: answer["seq"].as_u64()?, duplicate: answer["duplicate"].as_bool()? })
}

fn page(answer: &Value) -> Option<Page> {
    let events = answer["events"].as_array()?.iter().map(event).collect::<Option<Vec<_>>>()?;
    Some(Page { head: answer["head"].as_u64()?, events })
}

fn event(event: &Value) -> Option<Event> {
    let uuid = Uuid::parse_str(event["client_msg_id"].as_str()?).ok()?;
    Some(Event { seq: event["seq"].as_u64()?, id: id(uuid) })
}
