//! What somebody has read, and what not: their rooms, and their mark in each.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::chat::command::Command;
use crate::error::Error;
use crate::gateway::app::{App, Caller};
use crate::gateway::http::extract::{self, Json, ListParams, Params, Segments};
use crate::gateway::http::json;
use crate::gateway::json::{AckJson, OwnRoomJson};
use crate::id::Seq;

/// `GET /v1/me/rooms`.
pub async fn own_rooms(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Rooms<'a> {
        rooms: Vec<OwnRoomJson<'a>>,
        next: Option<String>,
    }
    let (after, limit) = params.parse(extract::room)?;
    let (rooms, next) = app.backend.own_rooms(&caller.actor, after, limit).await?;
    let next = next.map(|room| room.as_str().to_owned());
    let rooms = rooms.iter().map(OwnRoomJson::from).collect();
    Ok(json(StatusCode::OK, &Rooms { rooms, next }))
}

/// The body of `PUT /v1/rooms/{room}/read`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkRead {
    seq: u64,
}

/// `PUT /v1/rooms/{room}/read`: `seq` of the answer is where the mark is.
pub async fn mark_read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(room): Segments<String>,
    Json(body): Json<MarkRead>,
) -> Result<Response, Error> {
    let command = Command::MarkRead { room: extract::room(&room)?, seq: Seq(body.seq) };
    let done = app.execute(&caller.actor, None, command).await?;
    Ok(json(StatusCode::OK, &AckJson::from(done)))
}
