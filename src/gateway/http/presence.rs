//! Who is in a room, and how present they are.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::gateway::app::{App, Caller};
use crate::gateway::convert;
use crate::gateway::http::extract::{self, Json, ListParams, Params, Segments};
use crate::gateway::http::json;
use crate::gateway::json::{MemberJson, PersonJson};
use crate::id::UserId;

/// `GET /v1/rooms/{room}/participants`.
pub async fn participants(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(room): Segments<String>,
    Params(params): Params<ListParams>,
) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Participants<'a> {
        participants: Vec<MemberJson<'a>>,
        next: Option<&'a str>,
    }
    let (after, limit) = params.parse(extract::user)?;
    let room = extract::room(&room)?;
    let page = app.participants(&caller.actor, room, after, limit).await?;
    let participants = page.participants.iter();
    let participants = participants.map(|(part, seen)| MemberJson::new(part, *seen));
    let next = page.next.as_ref().map(UserId::as_str);
    Ok(json(StatusCode::OK, &Participants { participants: participants.collect(), next }))
}

/// The body of `PUT /v1/me/presence`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPresence {
    status: String,
    for_ms: Option<u64>,
}

/// `PUT /v1/me/presence`: for clients without a session.
pub async fn set(
    State(app): State<Arc<App>>,
    caller: Caller,
    Json(body): Json<SetPresence>,
) -> Result<Response, Error> {
    let (status, time) = (convert::status(&body.status)?, convert::presence_for(body.for_ms)?);
    let user = &caller.actor.user;
    let seen = app.backend.presence().lease(user, status, time);
    Ok(json(StatusCode::OK, &PersonJson::new(user, seen)))
}
