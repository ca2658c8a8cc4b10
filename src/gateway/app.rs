//! What every request handler has at hand: the layers below, who is calling, ids to mint.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use tonic::metadata::MetadataMap;

use crate::chat::command::{Actor, Command, Done, Request};
use crate::chat::event::{EventKind, Salt};
use crate::clock::Clock;
use crate::error::{Code, Error};
use crate::gateway::auth::{Authenticator, Credentials};
use crate::gateway::backend::Backend;
use crate::gateway::body::BodyBudget;
use crate::gateway::convert;
use crate::gateway::drain::Drain;
use crate::gateway::limits::{GatewayLimits, SharedLimits};
use crate::gateway::metrics::Metrics;
use crate::id::{RequestId, RoomId, Seq};
use crate::router::Readiness;

/// Shared by all connections of a gateway.
pub struct App {
    /// The layers below.
    pub backend: Arc<dyn Backend>,
    /// For the ids that the gateway mints.
    pub clock: Arc<dyn Clock>,
    /// What they did.
    pub metrics: Metrics,
    /// On while clients are to go elsewhere: streams end, readiness is false.
    pub drain: Drain,
    /// What all arriving bodies take.
    pub bodies: BodyBudget,
    limits: SharedLimits,
    /// Sessions, WebSockets, event streams and long polls there are.
    seats: Arc<AtomicUsize>,
    auth: Authenticator,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("limits", &self.limits()).finish_non_exhaustive()
    }
}

/// One of the `sessions_max` sessions, WebSockets, event streams and long polls, for as long as it
/// lives.
#[derive(Debug)]
pub struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Who makes a request, and the proof, to be shown again during a long one.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The verified user.
    pub actor: Actor,
    credentials: Credentials,
    trusted_until: Instant,
}

/// A message to be posted, validated.
#[derive(Debug)]
#[expect(missing_docs, reason = "as in folkmoot.v1.PostRequest")]
pub struct Post {
    pub room: RoomId,
    pub id: Option<RequestId>,
    pub text: String,
    pub reply_to: Option<Seq>,
    pub kind: EventKind,
}

impl App {
    /// What one gateway's connections share.
    pub fn new(
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
        limits: SharedLimits,
        metrics: Metrics,
        drain: Drain,
    ) -> App {
        App {
            backend,
            clock,
            metrics,
            drain,
            bodies: BodyBudget::default(),
            limits,
            seats: Arc::default(),
            auth: Authenticator::default(),
        }
    }

    /// What clients may do, as of now.
    pub fn limits(&self) -> Arc<GatewayLimits> {
        self.limits.get()
    }

    /// Who sent these HTTP headers.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`], or whatever kept the token from being verified.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Error> {
        let header = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        self.verify(Credentials::from_header(header)?).await
    }

    /// Who sent this gRPC metadata.
    ///
    /// # Errors
    /// As [`App::caller`].
    pub async fn grpc_caller(&self, metadata: &MetadataMap) -> Result<Caller, Error> {
        let header = metadata.get("authorization").map(|value| value.as_bytes());
        self.verify(Credentials::from_header(header)?).await
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// As [`App::caller`].
    pub async fn token_caller(&self, token: &str) -> Result<Caller, Error> {
        self.verify(Credentials::from_token(token)?).await
    }

    async fn verify(&self, credentials: Credentials) -> Result<Caller, Error> {
        let trusted_until = Instant::now() + crate::gateway::limits::TOKEN_TRUST;
        let actor = self.auth.verify(&*self.backend, &credentials).await?;
        Ok(Caller { actor, credentials, trusted_until })
    }

    /// Verifies the caller of a long request again, once the trust in their token has run out.
    ///
    /// # Errors
    /// As [`App::caller`].
    pub async fn trust_again(&self, caller: &mut Caller) -> Result<(), Error> {
        if Instant::now() >= caller.trusted_until {
            *caller = self.verify(caller.credentials.clone()).await?;
        }
        Ok(())
    }

    /// The client's request id, or a new one.
    pub fn id_or_mint(&self, id: Option<RequestId>) -> RequestId {
        id.unwrap_or_else(|| RequestId::mint(self.clock.now_ms(), rand::random()))
    }

    /// Executes a command.
    ///
    /// # Errors
    /// The router's.
    pub async fn execute(
        &self,
        actor: &Actor,
        id: Option<RequestId>,
        command: Command,
    ) -> Result<Done, Error> {
        let id = self.id_or_mint(id);
        self.backend.execute(Request { actor: actor.clone(), id, command }).await
    }

    /// Checks a post's text against this node's limit.
    ///
    /// # Errors
    /// [`Code::TooLarge`], or [`Code::InvalidArgument`] when there is none.
    pub fn check_text(&self, text: &str) -> Result<(), Error> {
        convert::text("text", text, self.limits().text_bytes_max)
    }

    /// Posts a message, and counts it; also tells the id it got.
    ///
    /// # Errors
    /// The router's, and those of [`App::check_text`].
    pub async fn post(&self, actor: &Actor, post: Post) -> Result<(Done, RequestId), Error> {
        self.check_text(&post.text)?;
        let started = Instant::now();
        let id = self.id_or_mint(post.id);
        let Post { room, text, reply_to, kind, .. } = post;
        let command = Command::Post { room, kind, text, reply_to, salt: salt() };
        let done = self.backend.execute(Request { actor: actor.clone(), id, command }).await;
        self.metrics.post_duration.record(started.elapsed());
        let done = done?;
        self.metrics.posts.increment(1);
        Ok((done, id))
    }

    /// Counts a session, a WebSocket, an event stream or a long poll in for as long as the seat lives.
    ///
    /// # Errors
    /// [`Code::TooManyConnections`] when there are as many as this node takes.
    pub fn take_seat(&self) -> Result<Seat, Error> {
        let seat = Seat(self.seats.clone());
        if self.seats.fetch_add(1, Ordering::Relaxed) < self.limits().sessions_max {
            return Ok(seat);
        }
        let message = "this node has as many sessions and streams as it takes";
        Err(Error::new(Code::TooManyConnections, message).retry_after(1000))
    }

    /// Whether this node takes requests.
    pub fn readiness(&self) -> Readiness {
        if self.drain.is_on() {
            return Readiness { ready: false, reason: "the node is being drained".into() };
        }
        self.backend.readiness()
    }
}

/// Refuses everyone but administrators.
///
/// # Errors
/// [`Code::Forbidden`].
pub fn require_admin(actor: &Actor) -> Result<(), Error> {
    if actor.admin {
        return Ok(());
    }
    Err(Error::new(Code::Forbidden, "only administrators may do this"))
}

/// What streams end with when the node is drained, or stops.
pub fn shutting_down() -> Error {
    let message = "this node is drained or stops; go on with another";
    Error::new(Code::ShuttingDown, message).retry_after(100)
}

/// Mints a salt.
pub fn salt() -> Salt {
    rand::random()
}
