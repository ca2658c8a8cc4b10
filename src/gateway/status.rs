//! The one table from [`Error`] to the wire: HTTP status and JSON body, gRPC status and details.
//!
//! Everything that the gateway refuses, its own routes and axum's and tonic's rejections included,
//! leaves through here, so every client sees one shape. What is not HTTP, or has larger heads than there are
//! limits for, hyper answers, or the connection is closed (docs/errors.md).
//! `{"error":{"code","message","temporary","may_have_applied","retry_after_ms"?,"server_time_ms"?}}`
//! over HTTP, and a `folkmoot.v1.Error` in a gRPC status's binary details.
//!
//! **Invariant:** a temporary error is a 5xx, or `rate_limited`; any other is a 4xx; `internal` alone is
//! a 500.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prost::Message;
use serde::Serialize;

use crate::error::{Code, Error};
use crate::proto::v1 as proto;

/// A code's HTTP and gRPC status.
pub fn row(code: Code) -> (StatusCode, tonic::Code) {
    use tonic::Code as Grpc;
    match code {
        Code::InvalidArgument | Code::InvalidCursor => {
            (StatusCode::BAD_REQUEST, Grpc::InvalidArgument)
        }
        Code::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Grpc::InvalidArgument),
        Code::UnsupportedMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Grpc::InvalidArgument),
        Code::RoomNotFound | Code::UserNotFound | Code::EventNotFound => {
            (StatusCode::NOT_FOUND, Grpc::NotFound)
        }
        Code::NotFound => (StatusCode::NOT_FOUND, Grpc::Unimplemented),
        Code::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, Grpc::Unimplemented),
        Code::Unauthenticated => (StatusCode::UNAUTHORIZED, Grpc::Unauthenticated),
        Code::NotParticipant | Code::Muted | Code::Banned | Code::Forbidden => {
            (StatusCode::FORBIDDEN, Grpc::PermissionDenied)
        }
        Code::AlreadyExists | Code::IdReused => (StatusCode::CONFLICT, Grpc::AlreadyExists),
        Code::WrongRoomKind
        | Code::Archived
        | Code::Expired
        | Code::ClockSkew
        | Code::AlreadyInitialized => (StatusCode::CONFLICT, Grpc::FailedPrecondition),
        Code::LimitReached => (StatusCode::CONFLICT, Grpc::ResourceExhausted),
        Code::Redacted => (StatusCode::GONE, Grpc::FailedPrecondition),
        Code::NotLeader
        | Code::Unavailable
        | Code::NotReady
        | Code::ShuttingDown
        | Code::TooManyConnections => (StatusCode::SERVICE_UNAVAILABLE, Grpc::Unavailable),
        Code::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, Grpc::ResourceExhausted),
        Code::RateLimited => (StatusCode::TOO_MANY_REQUESTS, Grpc::ResourceExhausted),
        Code::Timeout => (StatusCode::GATEWAY_TIMEOUT, Grpc::DeadlineExceeded),
        Code::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, Grpc::ResourceExhausted),
        Code::Internal => (StatusCode::INTERNAL_SERVER_ERROR, Grpc::Internal),
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
    temporary: bool,
    may_have_applied: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_time_ms: Option<u64>,
}

/// Messages may quote what a client sent, which may be long; and gRPC puts them into a header.
const MESSAGE_BYTES_MAX: usize = 300;

fn shortened(message: &str) -> &str {
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    &message[..end]
}

fn body(error: &Error) -> Body<'_> {
    Body {
        code: error.code.as_str(),
        message: shortened(&error.message),
        temporary: error.temporary(),
        may_have_applied: error.may_have_applied,
        retry_after_ms: error.retry_after_ms,
        server_time_ms: error.server_time_ms,
    }
}

/// The JSON body of an error.
pub fn json(error: &Error) -> Vec<u8> {
    serde_json::to_vec(&Envelope { error: body(error) }).unwrap_or_default()
}

/// The object within [`json`], to be put into another.
pub fn json_value(error: &Error) -> serde_json::Value {
    log_internal(error);
    serde_json::to_value(body(error)).unwrap_or_default()
}

/// The error as its protocol message.
pub fn to_proto(error: &Error) -> proto::Error {
    log_internal(error);
    proto::Error {
        code: error.code.as_str().to_owned(),
        message: shortened(&error.message).to_owned(),
        temporary: error.temporary(),
        may_have_applied: error.may_have_applied,
        retry_after_ms: error.retry_after_ms.unwrap_or(0),
        server_time_ms: error.server_time_ms.unwrap_or(0),
    }
}

/// What should not happen is for an operator to see; everything else is the client's to handle.
fn log_internal(error: &Error) {
    if error.code == Code::Internal {
        tracing::error!(message = %error.message, "a request failed for an internal reason");
    }
}

/// Tells the metrics middleware what a response refused.
#[derive(Debug, Clone, Copy)]
pub struct Refused(pub Code);

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        log_internal(&self);
        let (status, _) = row(self.code);
        let json_type = HeaderValue::from_static("application/json");
        let mut response =
            (status, [(header::CONTENT_TYPE, json_type)], json(&self)).into_response();
        if let Some(ms) = self.retry_after_ms {
            let seconds = HeaderValue::from(ms.div_ceil(1000));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if self.code == Code::Unauthenticated {
            let bearer = HeaderValue::from_static("Bearer realm=\"folkmoot\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response.extensions_mut().insert(Refused(self.code));
        response
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> tonic::Status {
        let (_, code) = row(error.code);
        let details = to_proto(&error).encode_to_vec();
        tonic::Status::with_details(code, shortened(&error.message), details.into())
    }
}

/// Whether a request speaks gRPC.
pub fn is_grpc(headers: &axum::http::HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Gives tonic's own refusals (undecodable or over-long messages, unknown methods) the shape of
/// ours. Ours carry details already and pass unchanged.
pub fn reshape_grpc(response: Response) -> Response {
    let headers = response.headers();
    let (Some(status), None) = (headers.get("grpc-status"), headers.get("grpc-status-details-bin"))
    else {
        return response;
    };
    let error = match status.as_bytes() {
        b"12" => Error::new(Code::NotFound, "there is no such method"),
        b"11" | b"8" => Error::new(Code::TooLarge, "the message is too large"),
        b"4" | b"1" => Error::new(Code::Timeout, "the request did not arrive in time"),
        b"13" => Error::invalid("the message could not be decoded"),
        _ => return response, // what health and reflection have to say
    };
    grpc_response(error)
}

/// A gRPC response that consists of an error.
pub fn grpc_response(error: Error) -> Response {
    let code = error.code;
    let mut response =
        tonic::Status::from(error).into_http::<tonic::body::Body>().map(axum::body::Body::new);
    response.extensions_mut().insert(Refused(code));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_row_that_agrees_with_temporary() {
        for code in Code::ALL.iter().copied() {
            let (http, grpc) = row(code);
            assert_ne!(grpc, tonic::Code::Ok);
            assert_ne!(grpc, tonic::Code::Unknown);
            if code == Code::Internal {
                assert_eq!(http, StatusCode::INTERNAL_SERVER_ERROR);
            } else if code == Code::RateLimited {
                assert_eq!(http, StatusCode::TOO_MANY_REQUESTS);
            } else if code.temporary() {
                assert!(http.is_server_error(), "{code:?}");
            } else {
                assert!(http.is_client_error(), "{code:?}");
            }
        }
    }

    #[test]
    fn a_grpc_status_carries_the_whole_error() {
        let error = Error::new(Code::Overloaded, "busy").maybe_applied().retry_after(1500);
        let status = tonic::Status::from(error.clone());
        let decoded = proto::Error::decode(status.details()).unwrap();
        assert_eq!(decoded, to_proto(&error));
        assert!(decoded.temporary && decoded.may_have_applied);
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    }

    #[test]
    fn messages_are_short_whatever_they_quote() {
        let error = Error::invalid("ä".repeat(1_000_000));
        assert!(json(&error).len() < 512);
        assert!(to_proto(&error).message.len() <= MESSAGE_BYTES_MAX);
    }

    #[test]
    fn http_headers_follow_from_the_error() {
        let busy = Error::new(Code::Overloaded, "busy").retry_after(1500).into_response();
        assert_eq!(busy.headers()[header::RETRY_AFTER], "2");
        let who = Error::new(Code::Unauthenticated, "who are you").into_response();
        assert!(who.headers().contains_key(header::WWW_AUTHENTICATE));
    }
}
