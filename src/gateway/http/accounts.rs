//! `/v1/login`, `/v1/register`, `/v1/me`, `/v1/sessions`, passwords and invites.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::header::{SET_COOKIE, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::chat::account::{Invite, Scope, Session};
use crate::error::{Code, Error};
use crate::gateway::accounts::{From, LoggedIn, id_of};
use crate::gateway::app::{App, Caller};
use crate::gateway::caller::{Peer, address_of};
use crate::gateway::http::extract::{self, Json, MaybeJson, Segments};
use crate::gateway::http::json;
use crate::gateway::json::{Time, UserJson};
use crate::gateway::{convert, cookie};

/// Where a request comes from.
#[derive(Debug)]
pub struct Source {
    /// Which address, and which client.
    pub from: From,
    /// Whether the client speaks TLS.
    pub secure: bool,
    /// Whether a page of this origin may have made it.
    same_origin: Result<(), Error>,
}

impl FromRequestParts<Arc<App>> for Source {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Source, Error> {
        let headers = &parts.headers;
        let peer = parts.extensions.get::<Peer>().copied();
        let user_agent = headers.get(USER_AGENT).map(|value| value.as_bytes());
        let user_agent = String::from_utf8_lossy(user_agent.unwrap_or_default()).into_owned();
        let from = From { address: address_of(app, headers, peer), user_agent };
        let secure = cookie::is_secure(headers, app.limits().accounts.behind_proxy);
        Ok(Source { from, secure, same_origin: cookie::check_same_origin(parts) })
    }
}

/// The body of `POST /v1/login`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    user: String,
    password: String,
    #[serde(default)]
    cookie: bool,
}

#[derive(Serialize)]
struct LoginJson<'a> {
    #[serde(flatten)]
    user: UserJson<'a>,
    expires_at: Time,
}

/// `POST /v1/login`: the session's token, or with `cookie` a cookie instead.
pub async fn login(
    State(app): State<Arc<App>>,
    source: Source,
    Json(body): Json<Login>,
) -> Result<Response, Error> {
    if body.cookie {
        source.same_origin?;
    }
    let user = extract::user(&body.user)?;
    let session = app.login(user, &body.password, source.from).await?;
    logged_in(StatusCode::OK, session, body.cookie, source.secure)
}

/// The body of `POST /v1/register`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    user: String,
    password: String,
    #[serde(default)]
    display_name: String,
    invite: Option<String>,
    #[serde(default)]
    cookie: bool,
}

/// `POST /v1/register`: 201 with a first session, as a login has it.
pub async fn register(
    State(app): State<Arc<App>>,
    source: Source,
    Json(body): Json<Register>,
) -> Result<Response, Error> {
    if body.cookie {
        source.same_origin?;
    }
    let user = extract::user(&body.user)?;
    let Register { password, display_name, invite, cookie, .. } = body;
    let session =
        app.register(user, &password, display_name, invite.as_deref(), source.from).await?;
    logged_in(StatusCode::CREATED, session, cookie, source.secure)
}

/// Tells the token to the client, or to its browser only.
pub(super) fn logged_in(
    status: StatusCode,
    session: LoggedIn,
    as_cookie: bool,
    secure: bool,
) -> Result<Response, Error> {
    let LoggedIn { user, token, expires_at_ms, max_age } = session;
    let header = as_cookie.then(|| cookie::set(Some(&token), max_age, secure));
    let token = if as_cookie { String::new() } else { token };
    let user = UserJson::from(&*user).with_token(token);
    let mut response = json(status, &LoginJson { user, expires_at: Time(expires_at_ms) });
    if let Some(header) = header {
        let odd = || Error::new(Code::Internal, "the token is no header's value");
        response.headers_mut().insert(SET_COOKIE, header.ok_or_else(odd)?);
    }
    no_store(&mut response);
    Ok(response)
}

/// A response with a secret is nobody else's.
pub(super) fn no_store(response: &mut Response) {
    let value = HeaderValue::from_static("no-store");
    response.headers_mut().insert(axum::http::header::CACHE_CONTROL, value);
}

/// `POST /v1/logout`: ends the session that this is called in; its cookie goes.
pub async fn logout(
    State(app): State<Arc<App>>,
    caller: Caller,
    source: Source,
) -> Result<Response, Error> {
    app.logout(&caller).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    for gone in cookie::gone(source.secure) {
        response.headers_mut().append(SET_COOKIE, gone);
    }
    Ok(response)
}

/// `GET /v1/me`: who is calling, and what for.
pub async fn me(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Me<'a> {
        #[serde(flatten)]
        user: UserJson<'a>,
        scopes: Vec<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_at: Option<Time>,
    }
    let user = app.user(&caller.actor, caller.actor.user.clone()).await?;
    let scopes = caller.scopes.iter().map(Scope::as_str).collect();
    let expires_at = caller.ends_at_ms().map(Time);
    Ok(json(StatusCode::OK, &Me { user: UserJson::from(&*user), scopes, expires_at }))
}

#[derive(Serialize)]
struct SessionJson<'a> {
    id: String,
    created_at: Time,
    used_at: Time,
    ends_at: Time,
    user_agent: &'a str,
    address: &'a str,
    current: bool,
}

fn session_json((session, current): &(Session, bool)) -> SessionJson<'_> {
    SessionJson {
        id: id_of(&session.hash),
        created_at: Time(session.created_at_ms),
        used_at: Time(session.used_at_ms),
        ends_at: Time(session.ends_at_ms()),
        user_agent: &session.user_agent,
        address: &session.address,
        current: *current,
    }
}

/// `GET /v1/sessions`: the caller's.
pub async fn sessions(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Sessions<'a> {
        sessions: Vec<SessionJson<'a>>,
    }
    let sessions = app.sessions(&caller).await?;
    let sessions = sessions.iter().map(session_json).collect();
    Ok(json(StatusCode::OK, &Sessions { sessions }))
}

/// `DELETE /v1/sessions`: all but the one that this is called in.
pub async fn end_others(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Error> {
    app.end_session(&caller, None).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /v1/sessions/{id}`.
pub async fn end_session(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(id): Segments<String>,
) -> Result<Response, Error> {
    app.end_session(&caller, Some(&id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The body of `PUT /v1/users/{user}/password`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetPassword {
    password: Option<String>,
    old_password: Option<String>,
}

/// `PUT /v1/users/{user}/password`: with the password in the answer when the node has chosen it.
pub async fn set_password(
    State(app): State<Arc<App>>,
    caller: Caller,
    source: Source,
    Segments(user): Segments<String>,
    MaybeJson(body): MaybeJson<SetPassword>,
) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Set {
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<String>,
    }
    let user = extract::user(&user)?;
    let old = body.old_password.as_deref();
    let password = app.set_password(&caller, user, body.password, old, &source.from).await?;
    let mut response = json(StatusCode::OK, &Set { password });
    no_store(&mut response);
    Ok(response)
}

/// The body of `POST /v1/invites`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MakeInvite {
    uses: Option<u32>,
    ttl: Option<String>,
}

/// `POST /v1/invites`: 201 with the invite, shown once.
pub async fn make_invite(
    State(app): State<Arc<App>>,
    caller: Caller,
    MaybeJson(body): MaybeJson<MakeInvite>,
) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Made {
        invite: String,
        expires_at: Time,
    }
    let ttl_ms = body.ttl.as_deref().map(extract::ttl_ms).transpose()?;
    let (uses, ttl_ms) = (body.uses.unwrap_or(1), ttl_ms.unwrap_or(convert::INVITE_TTL_MS));
    let (invite, expires_at_ms) = app.make_invite(&caller, uses, ttl_ms).await?;
    let mut response = json(StatusCode::CREATED, &Made { invite, expires_at: Time(expires_at_ms) });
    no_store(&mut response);
    Ok(response)
}

#[derive(Serialize)]
struct InviteJson<'a> {
    id: String,
    created_at: Time,
    expires_at: Time,
    uses: u32,
    used_by: Vec<&'a str>,
}

fn invite_json(invite: &Invite) -> InviteJson<'_> {
    InviteJson {
        id: id_of(&invite.hash),
        created_at: Time(invite.created_at_ms),
        expires_at: Time(invite.expires_at_ms),
        uses: invite.uses_max,
        used_by: invite.used_by.iter().map(|user| user.as_str()).collect(),
    }
}

/// `GET /v1/invites`: the caller's.
pub async fn invites(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Invites<'a> {
        invites: Vec<InviteJson<'a>>,
    }
    let invites = app.invites(&caller).await?;
    let invites = invites.iter().map(invite_json).collect();
    Ok(json(StatusCode::OK, &Invites { invites }))
}

/// `DELETE /v1/invites/{id}`.
pub async fn drop_invite(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(id): Segments<String>,
) -> Result<Response, Error> {
    app.drop_invite(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
