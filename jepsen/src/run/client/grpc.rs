//! gRPC: one channel to one node, made again when it breaks.

use std::net::SocketAddr;

use prost::Message;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use uuid::Uuid;

use crate::history::Event;
use crate::run::client::{Ack, CONNECT_WITHIN, Outcome, PATIENCE, Page, id};
use crate::run::proto as pb;
use crate::run::proto::admin_client::AdminClient;
use crate::run::proto::rooms_client::RoomsClient;

/// A user at one node.
#[derive(Debug)]
pub struct Grpc {
    address: SocketAddr,
    token: Option<MetadataValue<Ascii>>,
    channel: Option<Channel>,
}

impl Grpc {
    /// Not connected yet.
    #[must_use]
    pub fn new(address: SocketAddr, token: &str) -> Grpc {
        Grpc { address, token: format!("Bearer {token}").parse().ok(), channel: None }
    }

    /// The stub, connected.
    ///
    /// # Errors
    ///
    /// Why not: nothing was sent then.
    pub(super) async fn rooms(&mut self) -> Result<RoomsClient<Channel>, String> {
        self.channel().await.map(RoomsClient::new)
    }

    async fn channel(&mut self) -> Result<Channel, String> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => {
                let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
                let endpoint = endpoint.map_err(|error| error.to_string())?;
                let connected = timeout(CONNECT_WITHIN, endpoint.tcp_nodelay(true).connect()).await;
                connected.map_err(|_| "connect-timeout")?.map_err(|_| "connect")?
            }
        };
        self.channel = Some(channel.clone());
        Ok(channel)
    }

    /// A request as this user.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }

    /// What came of a call; a channel that broke is not used again.
    fn outcome<T>(
        &mut self,
        called: Result<Result<tonic::Response<T>, Status>, tokio::time::error::Elapsed>,
    ) -> Outcome<T> {
        match called {
            Err(_) => {
                self.channel = None;
                Outcome::Unknown("client-timeout".into())
            }
            Ok(Ok(response)) => Outcome::Ok(response.into_inner()),
            Ok(Err(status)) => match refusal(&status) {
                Some(error) => Outcome::refused(&error.code, error.may_have_applied),
                None => {
                    self.channel = None;
                    Outcome::Unknown(format!("grpc-{:?}", status.code()).to_lowercase())
                }
            },
        }
    }

    /// Asks where shards are, as the admin.
    pub(in crate::run) async fn placement(&mut self) -> Outcome<pb::PlacementResponse> {
        let mut admin = match self.channel().await {
            Ok(channel) => AdminClient::new(channel),
            Err(why) => return Outcome::Failed(why),
        };
        let request = self.request(pb::PlacementRequest {});
        let called = timeout(PATIENCE, admin.placement(request)).await;
        self.outcome(called)
    }

    /// Posts a message.
    pub async fn post(&mut self, room: &str, uuid: Uuid, text: &str) -> Outcome<Ack> {
        let mut rooms = match self.rooms().await {
            Ok(rooms) => rooms,
            Err(why) => return Outcome::Failed(why),
        };
        let request = self.request(pb::PostRequest {
            room: room.into(),
            client_msg_id: uuid.as_bytes().to_vec(),
            text: text.into(),
            ..pb::PostRequest::default()
        });
        let called = timeout(PATIENCE, rooms.post(request)).await;
        self.outcome(called).and_then(|ack| Some(Ack { seq: ack.seq, duplicate: ack.duplicate }))
    }

    /// Reads a page.
    pub async fn events(
        &mut self,
        room: &str,
        after: u64,
        limit: u32,
        local: bool,
    ) -> Outcome<Page> {
        let mut rooms = match self.rooms().await {
            Ok(rooms) => rooms,
            Err(why) => return Outcome::Failed(why),
        };
        let consistency =
            if local { pb::Consistency::Local } else { pb::Consistency::Linearizable };
        let request = self.request(pb::EventsRequest {
            room: room.into(),
            after: Some(pb::Cursor { epoch: String::new(), seq: after }),
            limit,
            consistency: consistency.into(),
            ..pb::EventsRequest::default()
        });
        let called = timeout(PATIENCE, rooms.events(request)).await;
        self.outcome(called).and_then(|page| {
            let events = page.events.iter().map(event).collect::<Option<Vec<_>>>()?;
            Some(Page { head: page.head, events })
        })
    }
}

/// The node's own error, if a status has one.
pub(super) fn refusal(status: &Status) -> Option<pb::Error> {
    let error = pb::Error::decode(status.details()).ok()?;
    (!error.code.is_empty()).then_some(error)
}

/// An event, as histories have it.
pub(super) fn event(event: &pb::Event) -> Option<Event> {
    let uuid = Uuid::from_slice(&event.client_msg_id).ok()?;
    Some(Event { seq: event.seq, id: id(uuid) })
}
