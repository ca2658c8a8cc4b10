//! Errors on the wire, parsed back into the one table.

use std::error::Error as _;

use prost::Message as _;
use tonic::{Code as Grpc, Status};

use crate::error::{Code, Error};
use crate::proto::v1 as pb;

/// The error that a gRPC status carries, or that it amounts to when it carries none: then it is
/// from a transport, a proxy, or a node that broke off.
pub(super) fn error_of(status: &Status) -> Error {
    if !status.details().is_empty()
        && let Ok(error) = pb::Error::decode(status.details())
        && !error.code.is_empty()
    {
        return from_proto(error);
    }
    let message = status.message();
    match status.code() {
        Grpc::DeadlineExceeded => Error::new(Code::Timeout, message).maybe_applied(),
        Grpc::Unauthenticated => Error::new(Code::Unauthenticated, message),
        Grpc::PermissionDenied => Error::new(Code::Forbidden, message),
        Grpc::InvalidArgument => Error::new(Code::InvalidArgument, message),
        Grpc::NotFound => Error::new(Code::NotFound, message),
        Grpc::OutOfRange => Error::new(Code::TooLarge, message).maybe_applied(),
        Grpc::ResourceExhausted => Error::new(Code::Overloaded, message).maybe_applied(),
        Grpc::Unimplemented => Error::new(
            Code::MethodNotAllowed,
            format!("the server does not know this call; is it a Folkmoot node? {message}"),
        ),
        _ if never_connected(status) => {
            Error::new(Code::Unavailable, format!("cannot connect: {}", root_cause(status)))
        }
        _ => Error::new(Code::Unavailable, format!("the connection broke: {message}"))
            .maybe_applied(),
    }
}

/// The error that a session response carries.
pub(super) fn from_proto(error: pb::Error) -> Error {
    // A newer server's code: keep what it means for a retry.
    let fallback = if error.temporary { Code::Unavailable } else { Code::Internal };
    let (code, message) = match Code::parse(&error.code) {
        Some(code) => (code, error.message),
        None => (fallback, format!("{} ({})", error.message, error.code)),
    };
    Error {
        code,
        message,
        may_have_applied: error.may_have_applied,
        retry_after_ms: (error.retry_after_ms > 0).then_some(error.retry_after_ms),
        server_time_ms: (error.server_time_ms > 0).then_some(error.server_time_ms),
    }
}

fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn root_cause(status: &Status) -> String {
    let mut text = status.message().to_string();
    let mut source = status.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_win_over_the_status_code() {
        let wire = pb::Error {
            code: "overloaded".into(),
            message: "later".into(),
            temporary: true,
            may_have_applied: true,
            retry_after_ms: 50,
            server_time_ms: 0,
        };
        let status =
            Status::with_details(Grpc::Internal, "x", bytes::Bytes::from(wire.encode_to_vec()));
        let error = error_of(&status);
        assert_eq!(error, Error::new(Code::Overloaded, "later").maybe_applied().retry_after(50));
    }

    #[test]
    fn an_unknown_code_keeps_its_fate() {
        for (temporary, code) in [(true, Code::Unavailable), (false, Code::Internal)] {
            let wire = pb::Error { code: "new".into(), temporary, ..pb::Error::default() };
            assert_eq!(from_proto(wire).code, code);
        }
    }

    #[test]
    fn a_broken_connection_may_have_applied() {
        let error = error_of(&Status::unknown("transport error"));
        assert!(error.temporary() && error.may_have_applied);
    }
}
