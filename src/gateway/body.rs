//! A request's body as it arrives: within its time, and within what all bodies together may take.
//!
//! This is the other half of what keeps half-sent requests from holding a connection, or memory.
//! A single body's size is bounded elsewhere: by `http/extract.rs` for JSON, by tonic for protobuf.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Sleep;

use crate::error::{Code, Error};
use crate::gateway::limits::BODIES_BYTES_MAX;

/// Bytes of all bodies, and long WebSocket messages, that are arriving now.
#[derive(Debug, Clone, Default)]
pub struct BodyBudget(Arc<AtomicUsize>);

impl BodyBudget {
    /// Counts bytes in, also where they are too many: they are there.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when all together are too much.
    pub fn take(&self, bytes: usize) -> Result<(), Error> {
        let all = self.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if all > BODIES_BYTES_MAX {
            let error = Error::new(Code::Overloaded, "too many requests are arriving at once");
            return Err(error.retry_after(1000));
        }
        Ok(())
    }

    /// Counts bytes out.
    pub fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes that are counted in.
    #[cfg(test)]
    pub fn taken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request body that fails once it has taken too long, or all bodies have become too much.
///
/// The timer starts when a frame is waited for first, so a request that comes in one piece costs
/// none.
#[derive(Debug)]
pub struct BoundedBody {
    body: Body,
    timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    budget: BodyBudget,
    taken: usize,
}

impl BoundedBody {
    /// Bounds the time that `body` may take, and counts it in.
    pub fn new(body: Body, timeout: Duration, budget: BodyBudget) -> BoundedBody {
        BoundedBody { body, timeout, timer: None, budget, taken: 0 }
    }

    fn take(&mut self, bytes: usize) -> Result<(), BodyError> {
        self.taken += bytes;
        self.budget.take(bytes).map_err(BodyError::new)
    }
}

impl Drop for BoundedBody {
    fn drop(&mut self) {
        self.budget.give_back(self.taken);
    }
}

/// Why a body could not be read.
///
/// Its source is the same as a gRPC status, which is what tonic looks for.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct BodyError {
    /// The error.
    pub error: Error,
    source: tonic::Status,
}

impl BodyError {
    fn new(error: Error) -> BodyError {
        BodyError { source: error.clone().into(), error }
    }
}

impl HttpBody for BoundedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            let Some(Ok(frame)) = frame else {
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            };
            let taken = this.take(frame.data_ref().map_or(0, Bytes::len));
            return Poll::Ready(Some(taken.map(|()| frame).map_err(Into::into)));
        }
        let timeout = this.timeout;
        let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        timer.as_mut().poll(cx).map(|()| {
            let error = Error::new(Code::Timeout, "the request's body did not arrive in time");
            Some(Err(BodyError::new(error).into()))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn bodies_share_a_budget_and_give_it_back() {
        let budget = BodyBudget::default();
        let hour = Duration::from_secs(3600);
        let body = |bytes: usize| Body::from(vec![0; bytes]);
        let mut half = BoundedBody::new(body(BODIES_BYTES_MAX / 2 + 1), hour, budget.clone());
        assert!(half.frame().await.unwrap().is_ok());
        let mut other = BoundedBody::new(body(BODIES_BYTES_MAX / 2), hour, budget.clone());
        let refused = other.frame().await.unwrap().unwrap_err();
        let refused = refused.downcast_ref::<BodyError>().unwrap();
        assert_eq!(refused.error.code, Code::Overloaded);
        drop((half, other));
        assert_eq!(budget.taken(), 0);
    }
}
