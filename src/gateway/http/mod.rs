//! REST over JSON: the routes, and what is the same for all of them.
//!
//! Handlers translate only; what they do is in `operations.rs`, what they answer in `json.rs`.
//! `routes!` makes the router and the table of routes from one list, so that the description in
//! `openapi.json` can be held against what is served.

pub mod accounts;
pub mod cluster;
pub mod events;
pub mod extract;
pub mod marks;
pub mod messages;
pub mod moderation;
pub mod oidc;
pub mod page;
pub mod presence;
pub mod rooms;
pub mod sse;
pub mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use serde::Serialize;

use crate::error::{Code, Error};
use crate::gateway::app::App;
use crate::gateway::status::{self, Refused};
use crate::gateway::{health, openapi, websocket};

macro_rules! routes {
    ($($path:literal { $($method:ident $handler:path,)* })*) => {
        /// Every route: method, in lower case, and path.
        pub const ROUTES: &[(&str, &str)] = &[$($((stringify!($method), $path),)*)*];

        fn paths() -> Router<Arc<App>> {
            Router::new()$(.route($path, MethodRouter::new()$(.$method($handler))*))*
        }
    };
}

routes! {
    "/health/live" { get health::live, }
    "/health/ready" { get health::ready, }
    "/metrics" { get health::metrics, }
    "/v1/openapi.json" { get openapi::serve, }
    "/v1/users" { get users::list, post users::create, }
    "/v1/users/{user}" { get users::show, patch users::update, }
    "/v1/users/{user}/password" { put accounts::set_password, }
    "/v1/users/{user}/link" { put oidc::link, }
    "/v1/users/{user}/tokens" { get users::tokens, post users::issue_token, }
    "/v1/users/{user}/tokens/{id}" { delete users::revoke_token, }
    "/v1/register" { post accounts::register, }
    "/v1/login" { post accounts::login, }
    "/v1/oidc" { get oidc::list, }
    "/v1/oidc/{provider}/login" { get oidc::login, }
    "/v1/oidc/{provider}/callback" { get oidc::callback, }
    "/v1/oidc/{provider}/device" { post oidc::begin_device, }
    "/v1/oidc/{provider}/device/poll" { post oidc::poll_device, }
    "/v1/logout" { post accounts::logout, }
    "/v1/me" { get accounts::me, }
    "/v1/me/rooms" { get marks::own_rooms, }
    "/v1/me/presence" { put presence::set, }
    "/v1/sessions" { get accounts::sessions, delete accounts::end_others, }
    "/v1/sessions/{id}" { delete accounts::end_session, }
    "/v1/invites" { get accounts::invites, post accounts::make_invite, }
    "/v1/invites/{id}" { delete accounts::drop_invite, }
    "/v1/rooms" { get rooms::list, post rooms::create, }
    "/v1/rooms/{room}" { get rooms::show, }
    "/v1/rooms/{room}/join" { post rooms::join, }
    "/v1/rooms/{room}/leave" { post rooms::leave, }
    "/v1/rooms/{room}/participants" { get presence::participants, }
    "/v1/rooms/{room}/participants/{user}" { put rooms::set_role, delete moderation::kick, }
    "/v1/rooms/{room}/invitations/{user}" { put moderation::invite, }
    "/v1/rooms/{room}/bans/{user}" { put moderation::ban, delete moderation::unban, }
    "/v1/rooms/{room}/mutes/{user}" { put moderation::mute, delete moderation::unmute, }
    "/v1/rooms/{room}/read" { put marks::mark_read, }
    "/v1/rooms/{room}/topic" { put moderation::topic, }
    "/v1/rooms/{room}/pins/{seq}" { put moderation::pin, delete moderation::unpin, }
    "/v1/rooms/{room}/archive" { put moderation::archive, delete moderation::unarchive, }
    "/v1/rooms/{room}/retention" { put moderation::retention, }
    "/v1/rooms/{room}/threads/{seq}" { get events::thread, }
    "/v1/rooms/{room}/messages" { post messages::post, }
    "/v1/rooms/{room}/messages/{seq}" { patch messages::edit, delete messages::redact, }
    "/v1/rooms/{room}/messages/{seq}/reactions/{symbol}" {
        put messages::react, delete messages::withdraw,
    }
    "/v1/rooms/{room}/events" { get events::page_or_stream, }
    "/v1/ws" { get websocket::connect, }
    "/v1/cluster" { get cluster::status, }
    "/v1/cluster/init" { post cluster::init, }
    "/v1/node/compact" { post cluster::compact, }
}

/// The REST half of the gateway and the web page, with the answers for unknown paths and methods, gRPC's included.
pub fn router(app: &Arc<App>) -> Router<Arc<App>> {
    paths()
        .merge(page::router())
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(axum::middleware::from_fn_with_state(app.clone(), finish))
}

/// Counts a request, and says of its answer that it is for whoever asked only: no cache may keep it, unless
/// it says otherwise itself.
async fn finish(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let route = route.as_ref().map_or("unknown", MatchedPath::as_str);
    app.metrics.http_request(route, response.status().as_u16());
    if let Some(Refused(code)) = response.extensions().get() {
        app.metrics.refused(*code);
    }
    response
}

async fn not_found(request: Request) -> Response {
    if status::is_grpc(request.headers()) {
        return status::grpc_response(Error::new(Code::NotFound, "there is no such service"));
    }
    Error::new(Code::NotFound, "there is nothing here; see /v1/openapi.json").into_response()
}

async fn method_not_allowed() -> Response {
    Error::new(Code::MethodNotAllowed, "this resource does not know this method").into_response()
}

/// A JSON response.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => {
            let json_type = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, json_type)], body).into_response()
        }
        Err(_) => Error::new(Code::Internal, "the answer could not be encoded").into_response(),
    }
}
