//! What every request handler has at hand: the layers below, ids to mint.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Mutex, Semaphore};

use crate::chat::command::{Actor, Command, Done};
use crate::chat::event::{EventKind, Salt};
use crate::clock::Clock;
use crate::error::{Code, Error};
use crate::gateway::attempts::Attempts;
use crate::gateway::authenticator::Authenticator;
use crate::gateway::backend::Backend;
use crate::gateway::body::BodyBudget;
pub use crate::gateway::caller::Caller;
use crate::gateway::convert;
use crate::gateway::drain::Drain;
pub use crate::gateway::drain::Seat;
use crate::gateway::limits::{GatewayLimits, SharedLimits, TOUCHES_MAX};
use crate::gateway::metrics::Metrics;
use crate::gateway::mint::Mint;
use crate::gateway::oidc::Oidc;
use crate::gateway::passwords::Passwords;
use crate::gateway::presence::Gathered;
use crate::gateway::rates::Rates;
use crate::id::{RequestId, RoomId, Seq};
use crate::router::Readiness;

/// Shared by all connections of a gateway.
pub struct App {
    /// The layers below.
    pub backend: Arc<dyn Backend>,
    /// Says until when things are valid.
    pub clock: Arc<dyn Clock>,
    /// For the ids that the gateway mints.
    pub(super) mint: Mint,
    /// What they did.
    pub metrics: Metrics,
    /// On while clients are to go elsewhere: streams end, readiness is false. Counts them.
    pub drain: Drain,
    /// What all arriving bodies take.
    pub bodies: BodyBudget,
    limits: SharedLimits,
    /// Who is there, for each room that is followed here.
    pub(super) gathered: Gathered,
    /// By whom people sign in.
    pub(super) oidc: Oidc,
    /// Who may sign in by what.
    pub(super) auth: Authenticator,
    /// Hashes and verifies passwords.
    pub(super) passwords: Passwords,
    /// How often requests were made.
    pub(super) rates: Rates,
    /// How often passwords were tried.
    pub(super) attempts: Attempts,
    /// Held while the cluster is being initialised: once at a time.
    pub(super) founding: Arc<Mutex<()>>,
    /// Uses of sessions that are being told.
    pub(super) touches: Arc<Semaphore>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("limits", &self.limits()).finish_non_exhaustive()
    }
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
            mint: Mint::new(clock.clone()),
            clock,
            metrics,
            drain,
            bodies: BodyBudget::default(),
            limits,
            gathered: Gathered::default(),
            oidc: Oidc::default(),
            auth: Authenticator::default(),
            passwords: Passwords::default(),
            rates: Rates::default(),
            attempts: Attempts::default(),
            founding: Arc::default(),
            touches: Arc::new(Semaphore::new(TOUCHES_MAX)),
        }
    }

    /// What clients may do, as of now.
    pub fn limits(&self) -> Arc<GatewayLimits> {
        self.limits.get()
    }

    /// Executes a command under the client's id, or a new one.
    ///
    /// # Errors
    /// The router's.
    pub async fn execute(
        &self,
        actor: &Actor,
        id: Option<RequestId>,
        command: Command,
    ) -> Result<Done, Error> {
        self.execute_as(actor, id, command).await.map(|(done, _)| done)
    }

    /// Executes a command as [`App::execute`] does; also tells the id it got.
    ///
    /// # Errors
    /// The router's.
    pub async fn execute_as(
        &self,
        actor: &Actor,
        id: Option<RequestId>,
        command: Command,
    ) -> Result<(Done, RequestId), Error> {
        let changed = match &command {
            Command::RevokeToken { user, .. } | Command::ChangeUser { user, .. } => {
                Some(user.clone())
            }
            _ => None,
        };
        let read = match &command {
            Command::MarkRead { room, .. } => Some(room.clone()),
            _ => None,
        };
        let done = self.mint.execute(&*self.backend, actor, id, command).await;
        if let (Some(room), Ok((done, _))) = (read, &done) {
            self.backend.presence().read(&room, &actor.user, done.seq);
        }
        if let Some(user) = changed {
            self.auth.doubt(&self.backend, &user);
        }
        done
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
        let Post { room, id, text, reply_to, kind } = post;
        self.backend.presence().typing(&room, &actor.user, false);
        let command = Command::Post { room, kind, text, reply_to, salt: salt() };
        let posted = self.mint.execute(&*self.backend, actor, id, command).await;
        self.metrics.post_duration.record(started.elapsed());
        let posted = posted?;
        self.metrics.posts.increment(1);
        Ok(posted)
    }

    /// Counts a session, a WebSocket, an event stream or a long poll in for as long as the seat lives.
    ///
    /// # Errors
    /// [`Code::TooManyConnections`] when there are as many as this node takes.
    pub fn take_seat(&self) -> Result<Seat, Error> {
        self.drain.take_seat(self.limits().sessions_max).ok_or_else(|| {
            let message = "this node has as many sessions and streams as it takes";
            Error::new(Code::TooManyConnections, message).retry_after(1000)
        })
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
