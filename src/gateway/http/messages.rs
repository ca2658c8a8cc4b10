//! `/v1/rooms/{room}/messages`: posting, and what can be done to what was posted.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::chat::command::Command;
use crate::chat::event::EventKind;
use crate::error::Error;
use crate::gateway::app::{App, Caller, Post, salt};
use crate::gateway::convert;
use crate::gateway::http::extract::{self, Json, Params, Segments};
use crate::gateway::http::json;
use crate::gateway::http::rooms::execute;
use crate::gateway::json::AckJson;
use crate::id::Seq;
use crate::limits::SYMBOL_BYTES_MAX;

/// What a user may post, as JSON names it.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "named for what they are")]
pub enum PostedKind {
    #[default]
    Message,
    Action,
}

/// The body of `POST /v1/rooms/{room}/messages`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostBody {
    client_msg_id: Option<String>,
    text: String,
    reply_to: Option<u64>,
    #[serde(default)]
    kind: PostedKind,
}

/// `POST /v1/rooms/{room}/messages`.
pub async fn post(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(room): Segments<String>,
    Json(body): Json<PostBody>,
) -> Result<Response, Error> {
    let kind = match body.kind {
        PostedKind::Message => EventKind::Message,
        PostedKind::Action => EventKind::Action,
    };
    let post = Post {
        room: extract::room(&room)?,
        id: extract::request_id(body.client_msg_id.as_deref())?,
        text: body.text,
        reply_to: body.reply_to.map(convert::target).transpose()?,
        kind,
    };
    let (done, id) = app.post(&caller.actor, post).await?;
    Ok(json(StatusCode::OK, &AckJson::from(done).with_id(id)))
}

/// The body of `PATCH /v1/rooms/{room}/messages/{seq}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditBody {
    text: String,
    request_id: Option<String>,
}

/// `PATCH /v1/rooms/{room}/messages/{seq}`: replaces a message's text.
pub async fn edit(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments((room, seq)): Segments<(String, String)>,
    Json(body): Json<EditBody>,
) -> Result<Response, Error> {
    app.check_text(&body.text)?;
    let (room, target) = (extract::room(&room)?, target(&seq)?);
    let command = Command::Edit { room, target, text: body.text, salt: salt() };
    execute(&app, &caller, body.request_id.as_deref(), command).await
}

/// The query string of requests without a body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestParams {
    /// Which request this is.
    pub request_id: Option<String>,
}

/// `DELETE /v1/rooms/{room}/messages/{seq}`: erases a message's text for good.
pub async fn redact(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments((room, seq)): Segments<(String, String)>,
    Params(params): Params<RequestParams>,
) -> Result<Response, Error> {
    let (room, target) = (extract::room(&room)?, target(&seq)?);
    let command = Command::Redact { room, target, salt: salt() };
    execute(&app, &caller, params.request_id.as_deref(), command).await
}

/// `PUT /v1/rooms/{room}/messages/{seq}/reactions/{symbol}`.
pub async fn react(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(segments): Segments<(String, String, String)>,
    Params(params): Params<RequestParams>,
) -> Result<Response, Error> {
    set_reaction(&app, &caller, segments, params, false).await
}

/// `DELETE /v1/rooms/{room}/messages/{seq}/reactions/{symbol}`.
pub async fn withdraw(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(segments): Segments<(String, String, String)>,
    Params(params): Params<RequestParams>,
) -> Result<Response, Error> {
    set_reaction(&app, &caller, segments, params, true).await
}

async fn set_reaction(
    app: &App,
    caller: &Caller,
    (room, seq, symbol): (String, String, String),
    params: RequestParams,
    withdraw: bool,
) -> Result<Response, Error> {
    convert::text("symbol", &symbol, SYMBOL_BYTES_MAX)?;
    let (room, target) = (extract::room(&room)?, target(&seq)?);
    let command = Command::React { room, target, symbol, withdraw, salt: salt() };
    execute(app, caller, params.request_id.as_deref(), command).await
}

/// The seq of an event out of the path.
pub fn target(seq: &str) -> Result<Seq, Error> {
    convert::target(seq.parse().map_err(|_| Error::invalid("seq must be a number"))?)
}
