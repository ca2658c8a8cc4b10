//! `/v1/rooms/{room}/…`: who is in a room, and the room itself.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::chat::command::{Command, Restriction};
use crate::chat::state::Retention;
use crate::error::Error;
use crate::gateway::app::{App, Caller, salt};
use crate::gateway::convert;
use crate::gateway::http::extract::{self, Json, MaybeJson, Params, Segments};
use crate::gateway::http::json;
use crate::gateway::http::messages::{RequestParams, target};
use crate::gateway::http::rooms::{RequestOnly, execute};
use crate::gateway::json::AckJson;
use crate::limits::{REASON_BYTES_MAX, TITLE_BYTES_MAX};

/// `PUT /v1/rooms/{room}/invitations/{user}`.
pub async fn invite(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments((room, user)): Segments<(String, String)>,
    MaybeJson(body): MaybeJson<RequestOnly>,
) -> Result<Response, Error> {
    let id = extract::request_id(body.request_id.as_deref())?;
    let (room, user) = (extract::room(&room)?, extract::user(&user)?);
    let command = Command::Invite { room, user: user.clone(), salt: salt() };
    let done = app.execute_on(&caller.actor, user, id, command).await?;
    Ok(json(StatusCode::OK, &AckJson::from(done)))
}

/// The query string of `DELETE /v1/rooms/{room}/participants/{user}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KickParams {
    #[serde(default)]
    reason: String,
    request_id: Option<String>,
}

/// `DELETE /v1/rooms/{room}/participants/{user}`: removes somebody, or takes back an invitation.
pub async fn kick(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments((room, user)): Segments<(String, String)>,
    Params(params): Params<KickParams>,
) -> Result<Response, Error> {
    convert::at_most("reason", &params.reason, REASON_BYTES_MAX)?;
    let (room, user) = (extract::room(&room)?, extract::user(&user)?);
    let command = Command::Kick { room, user, reason: params.reason, salt: salt() };
    execute(&app, &caller, params.request_id.as_deref(), command).await
}

/// The body of `PUT …/bans/{user}` and `PUT …/mutes/{user}`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestrictBody {
    for_ms: u64,
    reason: String,
    request_id: Option<String>,
}

/// `PUT /v1/rooms/{room}/bans/{user}`.
pub async fn ban(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(segments): Segments<(String, String)>,
    MaybeJson(body): MaybeJson<RestrictBody>,
) -> Result<Response, Error> {
    restrict(&app, &caller, segments, body, Restriction::Ban).await
}

/// `PUT /v1/rooms/{room}/mutes/{user}`.
pub async fn mute(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(segments): Segments<(String, String)>,
    MaybeJson(body): MaybeJson<RestrictBody>,
) -> Result<Response, Error> {
    restrict(&app, &caller, segments, body, Restriction::Mute).await
}

async fn restrict(
    app: &App,
    caller: &Caller,
    (room, user): (String, String),
    body: RestrictBody,
    restriction: Restriction,
) -> Result<Response, Error> {
    convert::at_most("reason", &body.reason, REASON_BYTES_MAX)?;
    let id = extract::request_id(body.request_id.as_deref())?;
    let (room, user) = (extract::room(&room)?, extract::user(&user)?);
    let RestrictBody { for_ms, reason, .. } = body;
    let user_id = user.clone();
    let command = Command::Restrict { room, user, restriction, for_ms, reason, salt: salt() };
    let done = app.execute_on(&caller.actor, user_id, id, command).await?;
    Ok(json(StatusCode::OK, &AckJson::from(done)))
}

/// `DELETE /v1/rooms/{room}/bans/{user}`.
pub async fn unban(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(segments): Segments<(String, String)>,
    Params(params): Params<RequestParams>,
) -> Result<Response, Error> {
    lift(&app, &caller, segments, params, Restriction::Ban).await
}

/// `DELETE /v1/rooms/{room}/mutes/{user}`.
pub async fn unmute(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(segments): Segments<(String, String)>,
    Params(params): Params<RequestParams>,
) -> Result<Response, Error> {
    lift(&app, &caller, segments, params, Restriction::Mute).await
}

async fn lift(
    app: &App,
    caller: &Caller,
    (room, user): (String, String),
    params: RequestParams,
    restriction: Restriction,
) -> Result<Response, Error> {
    let (room, user) = (extract::room(&room)?, extract::user(&user)?);
    let command = Command::Lift { room, user, restriction, salt: salt() };
    execute(app, caller, params.request_id.as_deref(), command).await
}

/// The body of `PUT /v1/rooms/{room}/topic`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicBody {
    topic: String,
    request_id: Option<String>,
}

/// `PUT /v1/rooms/{room}/topic`.
pub async fn topic(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(room): Segments<String>,
    Json(body): Json<TopicBody>,
) -> Result<Response, Error> {
    convert::at_most("topic", &body.topic, TITLE_BYTES_MAX)?;
    let room = extract::room(&room)?;
    let command = Command::SetTopic { room, topic: body.topic, salt: salt() };
    execute(&app, &caller, body.request_id.as_deref(), command).await
}

/// `PUT /v1/rooms/{room}/pins/{seq}`.
pub async fn pin(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(segments): Segments<(String, String)>,
    Params(params): Params<RequestParams>,
) -> Result<Response, Error> {
    set_pin(&app, &caller, segments, params, false).await
}

/// `DELETE /v1/rooms/{room}/pins/{seq}`.
pub async fn unpin(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(segments): Segments<(String, String)>,
    Params(params): Params<RequestParams>,
) -> Result<Response, Error> {
    set_pin(&app, &caller, segments, params, true).await
}

async fn set_pin(
    app: &App,
    caller: &Caller,
    (room, seq): (String, String),
    params: RequestParams,
    withdraw: bool,
) -> Result<Response, Error> {
    let (room, target) = (extract::room(&room)?, target(&seq)?);
    let command = Command::Pin { room, target, withdraw, salt: salt() };
    execute(app, caller, params.request_id.as_deref(), command).await
}

/// `PUT /v1/rooms/{room}/archive`.
pub async fn archive(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(room): Segments<String>,
    Params(params): Params<RequestParams>,
) -> Result<Response, Error> {
    let command = Command::Archive { room: extract::room(&room)?, withdraw: false, salt: salt() };
    execute(&app, &caller, params.request_id.as_deref(), command).await
}

/// `DELETE /v1/rooms/{room}/archive`.
pub async fn unarchive(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(room): Segments<String>,
    Params(params): Params<RequestParams>,
) -> Result<Response, Error> {
    let command = Command::Archive { room: extract::room(&room)?, withdraw: true, salt: salt() };
    execute(&app, &caller, params.request_id.as_deref(), command).await
}

/// The body of `PUT /v1/rooms/{room}/retention`: absent = no limit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionBody {
    #[serde(default)]
    max_age_ms: u64,
    #[serde(default)]
    max_events: u64,
    request_id: Option<String>,
}

/// `PUT /v1/rooms/{room}/retention`.
pub async fn retention(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(room): Segments<String>,
    Json(body): Json<RetentionBody>,
) -> Result<Response, Error> {
    let RetentionBody { max_age_ms, max_events, request_id } = body;
    let retention = Retention { max_age_ms, max_events };
    let command = Command::SetRetention { room: extract::room(&room)?, retention, salt: salt() };
    execute(&app, &caller, request_id.as_deref(), command).await
}
