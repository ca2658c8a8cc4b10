//! `/v1/oidc`: signing in by a provider of OpenID Connect.
//!
//! A browser is sent on, and sent back to the page, which says what went wrong; whoever else asks gets
//! errors as everywhere.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, LOCATION, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};
use crate::gateway::accounts::LoggedIn;
use crate::gateway::app::{App, Caller};
use crate::gateway::cookie;
use crate::gateway::http::accounts::{Source, logged_in, no_store};
use crate::gateway::http::extract::{self, Json, Params, Segments};
use crate::gateway::http::json;
use crate::gateway::json::UserJson;
use crate::gateway::oidc::browser::Returned;
use crate::gateway::oidc::device::Progress;

/// Where the page learns what went wrong, by its code.
const PAGE_WITH_ERROR: &str = "/?sign_in=";

/// `GET /v1/oidc`: the providers that there are.
pub async fn list(State(app): State<Arc<App>>) -> Response {
    #[derive(Serialize)]
    struct Provider {
        name: String,
        title: String,
    }
    #[derive(Serialize)]
    struct Providers {
        providers: Vec<Provider>,
    }
    let shown = app.limits().accounts.oidc.shown();
    let providers =
        shown.into_iter().map(|shown| Provider { name: shown.name, title: shown.title });
    json(StatusCode::OK, &Providers { providers: providers.collect() })
}

/// Whether a person waits for the answer.
fn is_browser(headers: &HeaderMap) -> bool {
    let accepts = headers.get(ACCEPT).and_then(|accepts| accepts.to_str().ok());
    accepts.is_some_and(|accepts| accepts.contains("text/html"))
}

/// Sends a browser somewhere, with cookies.
fn see_other(location: &str, cookies: &[Option<HeaderValue>]) -> Result<Response, Error> {
    let odd = || Error::new(Code::Internal, "an address, or a cookie, is no header's value");
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::try_from(location).map_err(|_| odd())?);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie.clone().ok_or_else(odd)?);
    }
    Ok(response)
}

/// What went wrong: to a person by the page.
fn refused(
    app: &App,
    headers: &HeaderMap,
    error: Error,
    cookies: &[Option<HeaderValue>],
) -> Result<Response, Error> {
    if !is_browser(headers) {
        return Err(error);
    }
    app.metrics.refused(error.code);
    tracing::info!(code = error.code.as_str(), message = %error.message, "a sign-in by a provider failed");
    see_other(&format!("{PAGE_WITH_ERROR}{}", error.code.as_str()), cookies)
}

/// Whether browsers are on TLS: the provider sends them to an address that is, or is not.
fn is_secure(app: &App) -> bool {
    app.limits().accounts.oidc.public_url.starts_with("https://")
}

/// `GET /v1/oidc/{provider}/login`: sends a browser to the provider.
pub async fn login(
    State(app): State<Arc<App>>,
    Segments(provider): Segments<String>,
    parts: Parts,
) -> Result<Response, Error> {
    // No other site signs somebody in here; whoever comes from one sees the page, with its buttons.
    if let Err(error) = cookie::check_same_origin(&parts) {
        return if is_browser(&parts.headers) { see_other("/", &[]) } else { Err(error) };
    }
    match app.begin_login(&provider).await {
        Ok(sent) => {
            let pending = cookie::set_pending(Some(&sent.pending), is_secure(&app));
            see_other(&sent.location, &[pending])
        }
        Err(error) => refused(&app, &parts.headers, error, &[]),
    }
}

/// `GET /v1/oidc/{provider}/callback`: where the provider sends the browser back to. Begins a session, in
/// a cookie.
pub async fn callback(
    State(app): State<Arc<App>>,
    Segments(provider): Segments<String>,
    source: Source,
    headers: HeaderMap,
    Params(returned): Params<Returned>,
) -> Result<Response, Error> {
    let secure = is_secure(&app);
    let pending = cookie::pending(&headers, secure);
    let taken_back = cookie::set_pending(None, secure);
    match app.finish_login(&provider, returned, pending, source.from).await {
        Ok(LoggedIn { token, max_age, .. }) => {
            let secure = secure || source.secure;
            let session = cookie::set(Some(&token), max_age, secure);
            // One without the prefix would count again once this one is signed out.
            let others = cookie::gone(secure).into_iter().skip(1).map(Some);
            let cookies: Vec<_> = [session, taken_back].into_iter().chain(others).collect();
            see_other("/", &cookies)
        }
        // Another sign-in, which may still be under way, is not disturbed by what is not of it.
        Err(error) => refused(&app, &headers, error, &[]),
    }
}

/// `POST /v1/oidc/{provider}/device`: begins a sign-in of a device.
pub async fn begin_device(
    State(app): State<Arc<App>>,
    Segments(provider): Segments<String>,
    source: Source,
) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Begun {
        handle: String,
        user_code: String,
        verification_uri: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        verification_uri_complete: String,
        expires_in_ms: u64,
        interval_ms: u64,
    }
    let begun = app.begin_device(&provider, &source.from).await?;
    let mut response = json(
        StatusCode::OK,
        &Begun {
            handle: begun.handle,
            user_code: begun.user_code,
            verification_uri: begun.verification_uri,
            verification_uri_complete: begun.verification_uri_complete,
            expires_in_ms: begun.expires_in_ms,
            interval_ms: begun.interval_ms,
        },
    );
    no_store(&mut response);
    Ok(response)
}

/// The body of `POST /v1/oidc/{provider}/device/poll`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Poll {
    handle: String,
}

/// `POST /v1/oidc/{provider}/device/poll`: the session's token once somebody has signed in; 202 before.
pub async fn poll_device(
    State(app): State<Arc<App>>,
    Segments(provider): Segments<String>,
    source: Source,
    Json(Poll { handle }): Json<Poll>,
) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Waiting {
        slow_down: bool,
    }
    let slow_down = match app.poll_device(&provider, &handle, source.from).await? {
        Progress::Done(session) => {
            return logged_in(StatusCode::OK, session, false, source.secure);
        }
        Progress::Pending => false,
        Progress::SlowDown => true,
    };
    Ok(json(StatusCode::ACCEPTED, &Waiting { slow_down }))
}

/// The body of `PUT /v1/users/{user}/link`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    provider: String,
    subject: String,
}

/// `PUT /v1/users/{user}/link`: lets the user sign in by an account of a provider.
pub async fn link(
    State(app): State<Arc<App>>,
    caller: Caller,
    Segments(user): Segments<String>,
    Json(Link { provider, subject }): Json<Link>,
) -> Result<Response, Error> {
    let user = app.link_user(&caller, extract::user(&user)?, &provider, &subject).await?;
    Ok(json(StatusCode::OK, &UserJson::from(&*user)))
}
