//! Who is calling, and for how long that holds.
//!
//! Every handler has a [`Caller`] by the time it runs, out of an `Authorization` header or, over
//! REST, a browser's cookie. Long requests show it again ([`App::trust_again`]) before they deliver
//! anything, and end when [`App::dismissed`] does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use tonic::metadata::MetadataMap;

use crate::chat::account::{Change, Scope, Scopes};
use crate::chat::command::{Actor, Command};
use crate::error::{Code, Error};
use crate::gateway::app::App;
use crate::gateway::auth::{Credentials, Offered};
use crate::gateway::authenticator::Verified;
use crate::gateway::{cookie, scope};
use crate::router::Consistency;

/// For how long a caller need not be shown again; what was revoked is noticed this much later.
const SHOWN_FOR: Duration = Duration::from_millis(100);
/// A session that ends by itself is looked at after this at the latest.
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// Near its end it is not looked at more often than this, in milliseconds.
const LOOK_AT_LEAST_MS: u64 = 1000;

/// Who makes a request, and the proof, to be shown again during a long one.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The verified user.
    pub actor: Actor,
    /// What they may do by what they sign in with.
    pub scopes: Scopes,
    credentials: Credentials,
    ends_at_ms: Option<u64>,
    is_session: bool,
    shown: Instant,
    /// Why it is not certain that they are still signed in.
    doubt: Option<Error>,
}

impl Caller {
    /// Refuses who may not do this by what they sign in with.
    ///
    /// # Errors
    /// [`Code::Forbidden`].
    pub fn require(&self, needed: Scope) -> Result<(), Error> {
        scope::require(self.scopes, Some(needed))
    }

    /// What they have shown.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// From when on it is not valid, milliseconds since the Unix epoch; `None`: it stays valid.
    pub fn ends_at_ms(&self) -> Option<u64> {
        self.ends_at_ms
    }

    /// Whether they signed in with a password, and not by a token.
    pub fn is_session(&self) -> bool {
        self.is_session
    }

    /// Refuses callers of whom it is not certain that they are still signed in, except for reads of
    /// what this node has, which may be as old.
    ///
    /// # Errors
    /// What kept it from being made sure.
    pub fn certain_for(&self, consistency: Consistency) -> Result<(), Error> {
        match &self.doubt {
            Some(doubt) if consistency != Consistency::Local => Err(doubt.clone()),
            _ => Ok(()),
        }
    }
}

/// Of a connection: the other end's address.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// Where a request came from: the connection's other end, or whom a trusted proxy names.
pub fn address_of(app: &App, headers: &HeaderMap, peer: Option<Peer>) -> Option<IpAddr> {
    let peer = peer.map(|Peer(address)| address.to_canonical());
    if !app.limits().accounts.behind_proxy {
        return peer;
    }
    // The last one is what the proxy itself has seen; those before it anybody can make up.
    let named = headers.get_all("x-forwarded-for").iter().next_back();
    let named = named.and_then(|value| value.to_str().ok()?.rsplit(',').next());
    named.and_then(|address| address.trim().parse::<IpAddr>().ok()).or(peer)
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Caller, Error> {
        let credentials = app.credentials(offered(parts, app)?).await?;
        let peer = parts.extensions.get::<Peer>().copied();
        let caller = app.verify(credentials).await?;
        app.count_request(&caller)?;
        check_scope(parts, &caller)?;
        app.note_use(&caller, address_of(app, &parts.headers, peer));
        // For whoever reads the body, which may take its time.
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}

/// A caller of whom it may not be certain that they are still signed in; see
/// [`Caller::certain_for`].
#[derive(Debug)]
pub struct StaleCaller(pub Caller);

impl FromRequestParts<Arc<App>> for StaleCaller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Error> {
        let credentials = app.credentials(offered(parts, app)?).await?;
        let peer = parts.extensions.get::<Peer>().copied();
        let caller = app.verify_stale(credentials).await?;
        app.count_request(&caller)?;
        check_scope(parts, &caller)?;
        app.note_use(&caller, address_of(app, &parts.headers, peer));
        Ok(StaleCaller(caller))
    }
}

fn check_scope(parts: &Parts, caller: &Caller) -> Result<(), Error> {
    let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    scope::require(caller.scopes, scope::of_route(&parts.method, route))
}

fn offered(parts: &Parts, app: &App) -> Result<Offered, Error> {
    let token = cookie::token(&parts.headers, app.limits().accounts.behind_proxy);
    match (parts.headers.get(AUTHORIZATION), token) {
        (None, Some(token)) => {
            cookie::check_same_origin(parts)?;
            Credentials::parse(token).map(Offered::Own).ok_or_else(|| {
                Error::new(Code::Unauthenticated, "the cookie is not a session's: sign in again")
            })
        }
        (header, _) => Offered::from_header(header.map(|value| value.as_bytes())),
    }
}

impl App {
    /// Who sent these HTTP/2 headers of a gRPC call to this method.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`], [`Code::Forbidden`] when the token is not good for it, or whatever
    /// kept it from being verified.
    pub async fn rpc_caller(&self, headers: &HeaderMap, path: &str) -> Result<Caller, Error> {
        let header = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
        let credentials = self.credentials(Offered::from_header(header)?).await?;
        let caller = match path {
            // The last is asked when a quorum is lost, and says no more than anybody may know.
            "/folkmoot.v1.Rooms/Events"
            | "/folkmoot.v1.Rooms/GetRoom"
            | "/folkmoot.v1.Rooms/Thread"
            | "/folkmoot.v1.Admin/QuorumCritical" => self.verify_stale(credentials).await?,
            _ => self.verify(credentials).await?,
        };
        self.count_request(&caller)?;
        scope::require(caller.scopes, scope::of_method(path))?;
        self.note_use(&caller, None);
        Ok(caller)
    }

    /// Who sent this gRPC metadata of a session.
    ///
    /// # Errors
    /// As [`App::rpc_caller`].
    pub async fn session_caller(&self, metadata: &MetadataMap) -> Result<Caller, Error> {
        let header = metadata.get("authorization").map(|value| value.as_bytes());
        let credentials = self.credentials(Offered::from_header(header)?).await?;
        let caller = self.verify(credentials).await?;
        caller.require(Scope::Read)?;
        Ok(caller)
    }

    /// Whose token this is, that a session shows in its first frame.
    ///
    /// # Errors
    /// As [`App::rpc_caller`].
    pub async fn token_caller(&self, token: &str) -> Result<Caller, Error> {
        let credentials = self.credentials(Offered::from_token(token)?).await?;
        let caller = self.verify(credentials).await?;
        caller.require(Scope::Read)?;
        Ok(caller)
    }

    async fn verify(&self, credentials: Credentials) -> Result<Caller, Error> {
        let shown = Instant::now();
        let verified = self.auth.verify(&self.backend, &credentials, self.clock.now_ms()).await?;
        Ok(caller(credentials, verified, shown, None))
    }

    async fn verify_stale(&self, credentials: Credentials) -> Result<Caller, Error> {
        let (shown, now_ms) = (Instant::now(), self.clock.now_ms());
        let (verified, doubt) = self.auth.verify_stale(&self.backend, &credentials, now_ms).await?;
        Ok(caller(credentials, verified, shown, doubt))
    }

    /// Verifies the caller of a long request again, when that is due: before anything is taken from
    /// them, or delivered. Waits while it cannot be made sure.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`] when they are not signed in any more, [`Code::Unavailable`] when they
    /// have become an administrator or are none any more, since what they follow began as what they were;
    /// or whatever kept it from being verified.
    pub async fn trust_again(&self, caller: &mut Caller) -> Result<(), Error> {
        if caller.shown.elapsed() >= SHOWN_FOR {
            *caller = self.verify_unchanged(caller).await?;
        }
        Ok(())
    }

    async fn verify_unchanged(&self, caller: &Caller) -> Result<Caller, Error> {
        let now = self.verify(caller.credentials.clone()).await?;
        if now.actor != caller.actor {
            let message = "what you may do has changed: come back and go on";
            return Err(Error::new(Code::Unavailable, message).retry_after(0));
        }
        Ok(now)
    }

    /// Verifies a caller again whose request took its time to arrive: a call acts for who is signed in
    /// when all of it is there. Of whom it was not certain at first is as before.
    ///
    /// # Errors
    /// As [`App::trust_again`].
    pub async fn trust_on_arrival(&self, caller: &mut Caller) -> Result<(), Error> {
        if caller.doubt.is_none() && caller.shown.elapsed() >= SHOWN_FOR {
            *caller = self.verify(caller.credentials.clone()).await?;
        }
        Ok(())
    }

    /// Waits until the caller of a long request is not signed in any more, or not as what they were, or
    /// until that cannot be made sure, and says why.
    ///
    /// Cancel safe.
    pub async fn dismissed(&self, caller: &Caller) -> Error {
        let mut stirred = match self.auth.stirred(&self.backend, &caller.credentials) {
            Ok(stirred) => stirred,
            Err(error) => return error,
        };
        loop {
            let ends_at_ms = match self.verify_unchanged(caller).await {
                Ok(caller) => {
                    self.note_use(&caller, None);
                    caller.ends_at_ms
                }
                Err(error) => return error,
            };
            let left_ms = ends_at_ms.map(|end| end.saturating_sub(self.clock.now_ms()));
            // Halfway to the end at the latest, as this use of it may put that off.
            let next_ms = left_ms.map(|left| (left / 2).max(LOOK_AT_LEAST_MS.min(left)));
            let left = next_ms.map_or(LOOK_EVERY, Duration::from_millis).min(LOOK_EVERY);
            tokio::select! {
                changed = stirred.changed() => if changed.is_err() {
                    return Error::new(Code::ShuttingDown, "this node stops");
                },
                () = tokio::time::sleep(left) => {}
            }
        }
    }

    /// Says from time to time that a session is used, so that it does not end, and from where if that
    /// is known. It may fail: a later use says it again. Of whom it is not certain that they are signed in
    /// nothing is said.
    pub fn note_use(&self, caller: &Caller, address: Option<IpAddr>) {
        let now_ms = self.clock.now_ms();
        let certain = caller.is_session && caller.doubt.is_none();
        if !certain || !self.auth.is_touch_due(&caller.credentials, now_ms) {
            return;
        }
        let Ok(permit) = self.touches.clone().try_acquire_owned() else { return };
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        let change = Change::TouchSession { hash: *caller.credentials.hash(), address };
        let command = Command::ChangeUser { user: caller.actor.user.clone(), change };
        let (mint, backend) = (self.mint.clone(), self.backend.clone());
        let actor = caller.actor.clone();
        tokio::spawn(async move {
            if let Err(error) = mint.execute(&*backend, &actor, None, command).await {
                tracing::debug!(code = error.code.as_str(), "the use of a session is not noted");
            }
            drop(permit);
        });
    }
}

fn caller(
    credentials: Credentials,
    verified: Verified,
    shown: Instant,
    doubt: Option<Error>,
) -> Caller {
    let Verified { actor, scopes, ends_at_ms, session } = verified;
    let is_session = session.is_some();
    Caller { actor, scopes, credentials, ends_at_ms, is_session, shown, doubt }
}
