//! `/v1/rooms/{room}/events`: one resource, read as a page, waited on, or streamed; and threads,
//! which are pages only.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;

use crate::error::{Code, Error};
use crate::gateway::app::App;
use crate::gateway::caller::StaleCaller;
use crate::gateway::convert;
use crate::gateway::http::extract::{self, Params, Segments};
use crate::gateway::http::messages::target;
use crate::gateway::http::{json, sse};
use crate::gateway::json::EventsJson;
use crate::gateway::operations::{EventsQuery, ThreadQuery};
use crate::id::Cursor;
use crate::router::Consistency;

/// The query string.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsParams {
    after: Option<String>,
    before: Option<String>,
    limit: Option<String>,
    wait: Option<String>,
    consistency: Option<String>,
}

/// `GET /v1/rooms/{room}/events`: a page, or with `Accept: text/event-stream` a stream.
pub async fn page_or_stream(
    State(app): State<Arc<App>>,
    StaleCaller(caller): StaleCaller,
    Segments(room): Segments<String>,
    Params(params): Params<EventsParams>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let room = extract::room(&room)?;
    let after = params.after.as_deref().map(Cursor::parse).transpose()?;
    let before = params.before.as_deref().map(Cursor::parse).transpose()?;
    let limit = extract::limit(params.limit.as_deref())?;
    let wait = extract::wait(params.wait.as_deref())?;
    let consistency = extract::consistency(params.consistency.as_deref())?;
    if accepts_stream(&headers) {
        if before.is_some() {
            return Err(Error::invalid("a stream goes forward: use `after`"));
        }
        // A browser that reconnects sends both: its first address and where it was.
        let after = last_event_id(&headers)?.or(after);
        caller.certain_for(Consistency::Linearizable)?;
        return sse::stream(app, caller, room, after).await;
    }
    let page = convert::page(after, before)?;
    let query = EventsQuery { room, page, limit, wait, consistency };
    let events = app.events(&caller, query).await?;
    Ok(json(StatusCode::OK, &EventsJson::new(&events, consistency)))
}

/// The query string of a thread.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreadParams {
    after: Option<String>,
    before: Option<String>,
    limit: Option<String>,
    consistency: Option<String>,
}

/// `GET /v1/rooms/{room}/threads/{seq}`: a page of the replies to a message.
pub async fn thread(
    State(app): State<Arc<App>>,
    StaleCaller(caller): StaleCaller,
    Segments((room, seq)): Segments<(String, String)>,
    Params(params): Params<ThreadParams>,
) -> Result<Response, Error> {
    let after = params.after.as_deref().map(Cursor::parse).transpose()?;
    let before = params.before.as_deref().map(Cursor::parse).transpose()?;
    let query = ThreadQuery {
        room: extract::room(&room)?,
        root: target(&seq)?,
        page: convert::page(after, before)?,
        limit: extract::limit(params.limit.as_deref())?,
        consistency: extract::consistency(params.consistency.as_deref())?,
    };
    let consistency = query.consistency;
    let events = app.thread(&caller, query).await?;
    Ok(json(StatusCode::OK, &EventsJson::new(&events, consistency)))
}

/// Where a stream that broke off was. An empty one is none.
fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>, Error> {
    let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    let no_text = |_| Error::new(Code::InvalidCursor, "`Last-Event-ID` is no cursor");
    Ok(Some(Cursor::parse(id.to_str().map_err(no_text)?)?))
}

fn accepts_stream(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| {
        let value = value.to_str().unwrap_or_default();
        value.split(',').any(|range| {
            let essence = range.split(';').next().unwrap_or_default();
            essence.trim().eq_ignore_ascii_case("text/event-stream")
        })
    })
}
