//! `/v1/rooms`: rooms, and who takes part in them.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::chat::command::Command;
use crate::chat::event::Role;
use crate::chat::state::RoomKind;
use crate::error::Error;
use crate::gateway::app::{App, Caller, salt};
use crate::gateway::caller::StaleCaller;
use crate::gateway::http::extract::{self, Json, MaybeJson, Params, Segments};
use crate::gateway::http::json;
use crate::gateway::json::{AckJson, RoomJson};

/// A room's kind, as JSON names it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "named for what they are")]
pub enum KindName {
    Public,
    Private,
    Direct,
    Group,
}

/// The body of `POST /v1/rooms`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateRoom {
    room: String,
    #[serde(default)]
    title: String,
    kind: Option<KindName>,
    request_id: Option<String>,
}

/// `POST /v1/rooms`: 201, or 200 when this very room was there.
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(body): Json<CreateRoom>,
) -> Result<Response, Error> {
    let id = extract::request_id(body.request_id.as_deref())?;
    let room = extract::room(&body.room)?;
    let kind = match body.kind {
        Some(KindName::Public) => RoomKind::Public,
        Some(KindName::Private) => RoomKind::Private,
        Some(KindName::Direct) => RoomKind::Direct,
        Some(KindName::Group) => RoomKind::Group,
        None if room.direct_users().is_some() => RoomKind::Direct,
        None => RoomKind::Public,
    };
    let ((room, participants), created) =
        app.create_room(&caller.actor, room, body.title, kind, id).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(json(status, &RoomJson::new(&room, Some(&participants))))
}

/// The query string of `GET /v1/rooms`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomsParams {
    limit: Option<String>,
    after: Option<String>,
    #[serde(default)]
    search: String,
}

/// `GET /v1/rooms`.
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(params): Params<RoomsParams>,
) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Rooms<'a> {
        rooms: Vec<RoomJson<'a>>,
        next: Option<String>,
    }
    let limit = extract::limit(params.limit.as_deref())?;
    let after = params.after.as_deref().map(extract::room).transpose()?;
    let (rooms, next) = app.rooms(&caller.actor, after, limit, params.search).await?;
    let rooms = rooms.iter().map(|room| RoomJson::new(room, None)).collect();
    Ok(json(StatusCode::OK, &Rooms { rooms, next }))
}

/// The query string of `GET /v1/rooms/{room}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowParams {
    consistency: Option<String>,
}

/// `GET /v1/rooms/{room}`.
pub async fn show(
    State(app): State<Arc<App>>,
    StaleCaller(caller): StaleCaller,
    Segments(room): Segments<String>,
    Params(params): Params<ShowParams>,
) -> Result<Response, Error> {
    let consistency = extract::consistency(params.consistency.as_deref())?;
    caller.certain_for(consistency)?;
    let (room, participants) = app.room(&caller.actor, extract::room(&room)?, consistency).await?;
    Ok(json(StatusCode::OK, &RoomJson::new(&room, Some(&participants))))
}

/// A body with nothing to say but which request this is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestOnly {
    /// Which request this is.
    pub request_id: Option<String>,
}

/// `POST /v1/rooms/{room}/join`.
pub async fn join(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(room): Segments<String>,
    MaybeJson(body): MaybeJson<RequestOnly>,
) -> Result<Response, Error> {
    let command = Command::Join { room: extract::room(&room)?, salt: salt() };
    execute(&app, &caller, body.request_id.as_deref(), command).await
}

/// `POST /v1/rooms/{room}/leave`.
pub async fn leave(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(room): Segments<String>,
    MaybeJson(body): MaybeJson<RequestOnly>,
) -> Result<Response, Error> {
    let command = Command::Leave { room: extract::room(&room)?, salt: salt() };
    execute(&app, &caller, body.request_id.as_deref(), command).await
}

/// A role, as JSON names it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "named for what they are")]
pub enum RoleName {
    Owner,
    Moderator,
    Member,
    Muted,
    Banned,
}

/// The body of `PUT /v1/rooms/{room}/participants/{user}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetRole {
    role: RoleName,
    request_id: Option<String>,
}

/// `PUT /v1/rooms/{room}/participants/{user}`.
pub async fn set_role(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments((room, user)): Segments<(String, String)>,
    Json(body): Json<SetRole>,
) -> Result<Response, Error> {
    let role = match body.role {
        RoleName::Owner => Role::Owner,
        RoleName::Moderator => Role::Moderator,
        RoleName::Member => Role::Member,
        RoleName::Muted => Role::Muted,
        RoleName::Banned => Role::Banned,
    };
    let (room, user) = (extract::room(&room)?, extract::user(&user)?);
    let id = extract::request_id(body.request_id.as_deref())?;
    let command = Command::SetRole { room, user: user.clone(), role, salt: salt() };
    let done = app.execute_on(&caller.actor, user, id, command).await?;
    Ok(json(StatusCode::OK, &AckJson::from(done)))
}

/// Executes a command on a room and answers with its outcome.
pub async fn execute(
    app: &App,
    caller: &Caller,
    request_id: Option<&str>,
    command: Command,
) -> Result<Response, Error> {
    let id = extract::request_id(request_id)?;
    let done = app.execute(&caller.actor, id, command).await?;
    Ok(json(StatusCode::OK, &AckJson::from(done)))
}
