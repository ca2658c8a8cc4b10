//! A room's log as server-sent events.
//!
//! ```text
//! event: followed     data: {"room","epoch","first_seq","head","recovered"}     first
//! id: <epoch>:<seq>   data: {…}                                                 one log event each
//! event: caught_up    id: <epoch>:<seq>   data: {"seq"}                         then live
//! event: ended        retry: <ms>         data: {"seq","error":{…}}             last
//! : heartbeat                                                                   when idle
//! ```
//!
//! Log events have no `event:` field, so that a browser's `onmessage` gets them. The id is the
//! cursor to resume from, sent back as `Last-Event-ID`. hyper asks for the next chunk only when
//! the connection can take it; a slow reader is the subscription's to hold, within its bounds.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::delivery::subscription::Next;
use crate::error::Error;
use crate::gateway::app::{App, Caller, Seat, shutting_down};
use crate::gateway::backend::Feed;
use crate::gateway::metrics::InGauge;
use crate::gateway::{follow, json as shapes, status};
use crate::id::{Cursor, RoomId, Seq};

/// How long a browser waits before it reconnects, unless told otherwise, in milliseconds.
const RETRY_MS: u64 = 1000;

struct Stream {
    app: Arc<App>,
    caller: Caller,
    room: RoomId,
    feed: Feed,
    last: Seq,
    /// Cancelled when the stream's client is to go elsewhere.
    drain: CancellationToken,
    /// Ready when the client is not signed in any more.
    dismissed: BoxFuture<'static, Error>,
    ended: bool,
    _seat: Seat,
    _counted: InGauge,
}

/// Streams a room's log from a cursor, or from its head on.
///
/// # Errors
/// The router's, before the stream begins; later ones are its `ended` event.
pub async fn stream(
    app: Arc<App>,
    caller: Caller,
    room: RoomId,
    after: Option<Cursor>,
) -> Result<Response, Error> {
    let seat = app.take_seat()?;
    let feed = follow::subscribe(&app, &caller.actor, &room, after.clone()).await?;
    let followed = json!({
        "room": room.as_str(), "epoch": feed.epoch.as_str(), "first_seq": feed.first_seq.0,
        "head": feed.head.0, "recovered": feed.recovered,
    });
    let first = Bytes::from(format!("retry: {RETRY_MS}\nevent: followed\ndata: {followed}\n\n"));
    let counted = app.metrics.subscribed();
    let last = follow::start(&feed, after.as_ref());
    let drain = app.drain.begun();
    let (_seat, _counted) = (seat, counted);
    let (asking, asker) = (app.clone(), caller.clone());
    let dismissed = async move { asking.dismissed(&asker).await }.boxed();
    let ended = false;
    let state = Stream { app, caller, room, feed, last, drain, dismissed, ended, _seat, _counted };
    let rest = stream::unfold(state, |mut state| async {
        let chunk = state.chunk().await?;
        Some((chunk, state))
    });
    let chunks = stream::once(async { first }).chain(rest).map(Ok::<Bytes, Error>);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // nginx buffers otherwise
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}

impl Stream {
    /// What to send next; `None` at the end.
    async fn chunk(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let next = tokio::select! {
            next = self.feed.next.next() => next,
            error = &mut self.dismissed => Some(Next::Ended(error)),
            () = self.drain.cancelled() => Some(Next::Ended(shutting_down())),
            () = tokio::time::sleep(self.app.limits().heartbeat) => None,
        };
        let ended = matches!(next, Some(Next::Ended(_)));
        if !ended && let Err(error) = self.app.trust_again(&mut self.caller).await {
            return Some(self.end(&error));
        }
        Some(match next {
            None => Bytes::from_static(b": heartbeat\n\n"),
            Some(Next::CaughtUp(seq)) => {
                let epoch = &self.feed.epoch;
                let data = json!({ "seq": seq.0 });
                format!("event: caught_up\nid: {epoch}:{seq}\ndata: {data}\n\n").into()
            }
            Some(Next::Ended(error)) => self.end(&error),
            Some(Next::Events(events)) => {
                let mut chunk = Vec::with_capacity(events.len() * 384);
                for event in &events {
                    let id = format!("id: {}:{}\ndata: ", self.feed.epoch, event.event.seq);
                    chunk.extend_from_slice(id.as_bytes());
                    chunk.extend_from_slice(event.json(shapes::encoded_event));
                    chunk.extend_from_slice(b"\n\n");
                    self.last = event.event.seq;
                }
                self.app.metrics.deliveries.increment(events.len() as u64);
                chunk.into()
            }
        })
    }

    fn end(&mut self, error: &Error) -> Bytes {
        self.ended = true;
        self.app.metrics.refused(error.code);
        let mut chunk = String::from("event: ended\n");
        if let Some(ms) = error.retry_after_ms {
            let _ = writeln!(chunk, "retry: {ms}");
        }
        let error = status::json_value(error);
        let data = json!({ "room": self.room.as_str(), "seq": self.last.0, "error": error });
        let _ = write!(chunk, "data: {data}\n\n");
        chunk.into()
    }
}
