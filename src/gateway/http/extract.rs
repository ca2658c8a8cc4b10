//! What handlers take out of a request, each failing in the one shape of `status.rs`.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Code, Error};
use crate::gateway::app::{App, Caller};
use crate::gateway::body::{BodyError, BoundedBody};
use crate::id::{RequestId, RoomId, UserId};
use crate::limits::{BODY_BYTES_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX, TTL_MS_MAX, WAIT_MS_MAX};
use crate::router::Consistency;

/// The variable segments of the path.
#[derive(Debug)]
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<Arc<App>> for Segments<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Error> {
        match Path::<T>::from_request_parts(parts, app).await {
            Ok(Path(segments)) => Ok(Segments(segments)),
            Err(rejection) => Err(Error::invalid(rejection.body_text())),
        }
    }
}

/// The query string.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Arc<App>> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Error> {
        match Query::<T>::from_request_parts(parts, app).await {
            Ok(Query(params)) => Ok(Params(params)),
            Err(rejection) => {
                let text = rejection.body_text();
                let why = text.strip_prefix("Failed to deserialize query string: ");
                Err(Error::invalid(format!("bad query: {}", why.unwrap_or(&text))))
            }
        }
    }
}

/// A JSON body that must be there.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Error> {
        let bytes = read(request, app, true).await?;
        Ok(Json(decode(&bytes)?))
    }
}

/// A JSON body that may be empty, when it stands for the default.
#[derive(Debug)]
pub struct MaybeJson<T>(pub T);

impl<T: DeserializeOwned + Default> FromRequest<Arc<App>> for MaybeJson<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Error> {
        let bytes = read(request, app, false).await?;
        Ok(MaybeJson(if bytes.is_empty() { T::default() } else { decode(&bytes)? }))
    }
}

async fn read(request: Request, app: &App, needs_type: bool) -> Result<Bytes, Error> {
    // Or what was put into the wrong place is passed over.
    if request.uri().query().is_some_and(|query| !query.is_empty()) {
        return Err(Error::invalid("this request takes no query: what it is to do is in its body"));
    }
    let too_large = || {
        let message = format!("the body is larger than {BODY_BYTES_MAX} bytes");
        Error::new(Code::TooLarge, message)
    };
    let announced = header(request.headers(), CONTENT_LENGTH).and_then(|n| n.parse().ok());
    if announced.is_some_and(|announced: usize| announced > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    let media_type = request.headers().get(CONTENT_TYPE).cloned();
    let caller = request.extensions().get::<Caller>().cloned();
    let timeout = app.limits().body_read_timeout;
    let body = BoundedBody::new(request.into_body(), timeout, app.bodies.clone());
    let bytes = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
        Err(error) => {
            return Err(match error.downcast::<BodyError>() {
                Ok(body_error) => body_error.error,
                Err(_) => Error::invalid("the body broke off"),
            });
        }
    };
    if let Some(mut caller) = caller {
        app.trust_on_arrival(&mut caller).await?;
    }
    if (needs_type || !bytes.is_empty()) && !is_json(media_type.as_ref()) {
        let message = "send JSON, as `Content-Type: application/json`";
        return Err(Error::new(Code::UnsupportedMediaType, message));
    }
    Ok(bytes)
}

fn is_json(media_type: Option<&HeaderValue>) -> bool {
    let Some(value) = media_type.and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or(value).trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Decodes JSON. serde_json's own limit of 128 levels bounds nesting.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    if std::str::from_utf8(bytes).is_err() {
        return Err(Error::invalid("the body is not UTF-8"));
    }
    // Or serde takes an array for an object whose fields nobody has named.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(Error::invalid("the body must be a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| Error::invalid(format!("bad JSON: {error}")))
}

/// A header's value, when it is text.
pub fn header(headers: &HeaderMap, name: impl axum::http::header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// A room's id out of the path or a body.
pub fn room(id: &str) -> Result<RoomId, Error> {
    Ok(RoomId::parse(id)?)
}

/// A user's id out of the path or a body.
pub fn user(id: &str) -> Result<UserId, Error> {
    Ok(UserId::parse(id)?)
}

/// A request id in its textual form.
pub fn request_id(id: Option<&str>) -> Result<Option<RequestId>, Error> {
    Ok(id.map(RequestId::parse).transpose()?)
}

/// A list's query string.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    limit: Option<String>,
    after: Option<String>,
}

impl ListParams {
    /// The id above which the items are, and how many at most.
    pub fn parse<T>(&self, id: fn(&str) -> Result<T, Error>) -> Result<(Option<T>, usize), Error> {
        let limit = limit(self.limit.as_deref())?;
        Ok((self.after.as_deref().map(id).transpose()?, limit))
    }
}

/// A page's `limit`.
pub fn limit(limit: Option<&str>) -> Result<usize, Error> {
    let Some(limit) = limit else { return Ok(PAGE_ITEMS_DEFAULT) };
    usize::from_str(limit)
        .ok()
        .filter(|limit| (1..=PAGE_ITEMS_MAX).contains(limit))
        .ok_or_else(|| Error::invalid(format!("limit must be 1 to {PAGE_ITEMS_MAX}")))
}

/// A long poll's `wait`: milliseconds, or a duration as people write it (`30s`).
pub fn wait(wait: Option<&str>) -> Result<Duration, Error> {
    let Some(text) = wait else { return Ok(Duration::ZERO) };
    let wait = match u64::from_str(text) {
        Ok(ms) => Some(Duration::from_millis(ms)),
        Err(_) => humantime::parse_duration(text).ok(),
    };
    wait.filter(|wait| *wait <= Duration::from_millis(WAIT_MS_MAX)).ok_or_else(|| {
        Error::invalid("wait must be milliseconds or a duration like 30s, at most 60s")
    })
}

/// How long something is to be valid, as people write it (`30d`), in milliseconds.
pub fn ttl_ms(text: &str) -> Result<u64, Error> {
    let ms = humantime::parse_duration(text).ok().and_then(|ttl| ttl.as_millis().try_into().ok());
    ms.filter(|ms| (1..=TTL_MS_MAX).contains(ms))
        .ok_or_else(|| Error::invalid("ttl must be a duration like 30d, at most ten years"))
}

/// A read's `consistency`.
pub fn consistency(name: Option<&str>) -> Result<Consistency, Error> {
    match name {
        None | Some("linearizable") => Ok(Consistency::Linearizable),
        Some("local") => Ok(Consistency::Local),
        Some(_) => Err(Error::invalid("consistency must be linearizable or local")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_milliseconds_or_durations() {
        assert_eq!(wait(None), Ok(Duration::ZERO));
        assert_eq!(wait(Some("250")), Ok(Duration::from_millis(250)));
        assert_eq!(wait(Some("30s")), Ok(Duration::from_secs(30)));
        for bad in ["", "-1", "61s", "60001", "soon", "99999999999999999999s"] {
            assert!(wait(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn ttls_are_durations() {
        assert_eq!(ttl_ms("90s"), Ok(90_000));
        for bad in ["", "0s", "7", "-1s", "11y", "99999999999999999999s", "soon"] {
            assert!(ttl_ms(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_1_to_1000() {
        assert_eq!(limit(None), Ok(100));
        assert_eq!(limit(Some("1000")), Ok(1000));
        for bad in ["0", "1001", "-1", "1.5", "", "ten", "99999999999999999999999"] {
            assert!(limit(Some(bad)).is_err(), "{bad}");
        }
    }
}
