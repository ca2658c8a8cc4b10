//! `/v1/ws`: a session over WebSocket, for browsers and for whoever likes JSON. docs/protocol.md
//! describes it for those who write clients.
//!
//! ```text
//! request ──► upgrade ──► sign in ──► hello ──► session/ ──► last error, close code
//! ```
//!
//! Whoever sends an `Authorization` header is refused before the upgrade, in REST's shape; so is a
//! cookie from a page of another origin, while one from the node's own signs in. Others (browsers
//! can't set the header) sign in with their first frame. A token in the URL would end in logs, so a
//! query string is refused.
//!
//! **Invariants.** The task of the connection runs the session, so it is counted, awaited and ended
//! as any other connection. An idle WebSocket holds no large buffer: `limits.rs` says how small.
//!
//! tungstenite is used by itself, not through axum's extractor: that cannot send a long message in
//! pieces, and without that a connection keeps a buffer of the size of the longest it ever sent.

mod close;
pub mod frame;
mod intake;
mod line;
mod said;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::error::{Code, Error};
use crate::gateway::app::{App, Caller, Seat, shutting_down};
use crate::gateway::connection::Handover;
use crate::gateway::cookie;
use crate::gateway::http::extract::Params;
use crate::gateway::limits::{
    FRAME_BYTES_MAX, WEBSOCKET_READ_BYTES, WEBSOCKET_UNSENT_BYTES_MAX, WEBSOCKET_WRITE_BYTES,
};
use crate::gateway::metrics::InGauge;
use crate::gateway::session;
use crate::gateway::websocket::close::Ending;
use crate::gateway::websocket::intake::Intake;
use crate::gateway::websocket::line::SocketLine;

/// The version of the protocol, and the subprotocol by which a client may ask for it.
pub const PROTOCOL: u32 = 1;
const SUBPROTOCOL: &str = "folkmoot.v1";

/// The query string: nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoParams {}

/// `GET /v1/ws`.
pub async fn connect(
    State(app): State<Arc<App>>,
    Params(NoParams {}): Params<NoParams>,
    handover: Option<Extension<Handover>>,
    request: Request,
) -> Result<Response, Error> {
    let (Some(Extension(handover)), Ok(mut response)) =
        (handover, create_response_with_body(&request, Body::empty))
    else {
        let message = "this is a WebSocket: upgrade an HTTP/1.1 connection (RFC 6455, version 13)";
        return Err(Error::invalid(message));
    };
    let (mut parts, body) = request.into_parts();
    let is_signed = parts.headers.contains_key(AUTHORIZATION);
    let behind_proxy = app.limits().accounts.behind_proxy;
    let admitted = if is_signed || cookie::token(&parts.headers, behind_proxy).is_some() {
        match Caller::from_request_parts(&mut parts, &app).await {
            Ok(caller) => Some((caller, app.take_seat()?)),
            // A browser goes on sending the cookie of a session that has ended: the first frame tells.
            Err(error) if error.code == Code::Unauthenticated && !is_signed => None,
            Err(error) => return Err(error),
        }
    } else {
        None
    };
    let request = Request::from_parts(parts, body);
    if app.drain.is_on() {
        return Err(shutting_down());
    }
    if offers_subprotocol(request.headers()) {
        let chosen = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, chosen);
    }
    handover.give(Box::pin(async move {
        // There is none where the connection broke before.
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            let limits = app.limits();
            let patience = limits.body_read_timeout;
            let io = Intake::new(TokioIo::new(upgraded), patience, app.bodies.clone());
            let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await;
            let line = SocketLine::new(socket, &limits);
            serve(app, line, admitted).await;
        }
    }));
    Ok(response)
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(WEBSOCKET_READ_BYTES)
        .write_buffer_size(WEBSOCKET_WRITE_BYTES)
        .max_write_buffer_size(WEBSOCKET_UNSENT_BYTES_MAX)
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
}

fn offers_subprotocol(headers: &HeaderMap) -> bool {
    headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().any(|value| {
        let offered = value.to_str().unwrap_or_default();
        offered.split(',').any(|name| name.trim() == SUBPROTOCOL)
    })
}

async fn serve(app: Arc<App>, mut line: SocketLine, admitted: Option<(Caller, Seat)>) {
    let _counted = InGauge::enter(&app.metrics.websockets);
    let ending = match converse(&app, &mut line, admitted).await {
        Ok(()) => line.ending(),
        Err(error) => Ending::Error(error),
    };
    if let Some(code) = ending.code() {
        app.metrics.websocket_closed(code);
    }
    line.close(ending).await;
}

/// Serves a client until it is gone, or shall be.
///
/// # Errors
/// Why it shall be, unless the line knows.
async fn converse(
    app: &Arc<App>,
    line: &mut SocketLine,
    admitted: Option<(Caller, Seat)>,
) -> Result<(), Error> {
    let (caller, _seat) = match admitted {
        Some(admitted) => admitted,
        // Boxed: what is needed once, and at most, is not kept for as long as the client stays.
        None => match Box::pin(sign_in(app, line)).await {
            Ok(Some(admitted)) => admitted,
            Ok(None) => return Ok(()),
            Err(error) => return app.metrics.count(Err(error)),
        },
    };
    line.trust();
    line.push(said::hello(app, &caller.actor));
    session::run(app, caller, line).await
}

/// Takes the first frame, which must sign the client in; `None` when it is gone.
async fn sign_in(app: &App, line: &mut SocketLine) -> Result<Option<(Caller, Seat)>, Error> {
    let drain = app.drain.begun();
    let signed_in = async {
        let Some(text) = line.first().await? else { return Ok(None) };
        let token = frame::token(&text)?;
        let caller = app.token_caller(&token).await?;
        Ok(Some((caller, app.take_seat()?)))
    };
    tokio::select! {
        signed_in = signed_in => signed_in,
        () = drain.cancelled() => Err(shutting_down()),
        () = tokio::time::sleep(app.limits().header_read_timeout) => {
            Err(Error::new(Code::Timeout, "nobody signed in"))
        }
    }
}
