//! `folkmoot.v1.Rooms.Session`: everything live of one client on one bidirectional stream.
//!
//! ```text
//! requests ──► validate ──► posts and follows in flight, of which there is a limit
//!                                │ outcomes as they complete
//! feeds of followed rooms ───────┴──► ready ──► batches (≤ 4) ──► HTTP/2 stream
//! ```
//!
//! One task per session and none per message: it reads requests, polls what is in flight, takes
//! what feeds have, and hands over whatever is ready as one batch. The task is its own, apart from
//! the HTTP/2 stream's, because hyper does not poll a stream that the client does not read, and a
//! post in flight must go on even then.
//!
//! **Invariants.** Posts to a room enter the router in the order in which they were sent. Memory
//! is bounded: when the client does not take its batches, feeds are not read any more, then
//! requests are not; the subscription and the HTTP/2 window bound the rest. The response stream
//! owns the task and aborts it when the client is gone; posts in flight may then still happen.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, poll_fn};
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::error::{Code, Error};
use crate::gateway::app::{App, Caller, Seat, shutting_down};
use crate::gateway::grpc::dialog::{Dialog, Feeds, perform};
use crate::gateway::grpc::wire::SessionResponse;
use crate::gateway::limits::{SESSION_BATCHES_MAX, SESSION_MESSAGE_BYTES_MAX};
use crate::proto::v1 as proto;

/// Outcomes, or feeds' batches, taken at once.
const CHUNK_MAX: usize = 64;
const FEED_CHUNK_MAX: usize = 4;

type Batch = Result<Vec<SessionResponse>, Status>;

/// The HTTP service of the one method.
pub fn service(
    app: Arc<App>,
) -> impl Service<
    axum::extract::Request,
    Response = axum::http::Response<tonic::body::Body>,
    Error = Infallible,
    Future: Send,
> + Clone
+ Send
+ Sync
+ 'static {
    tower::service_fn(move |request: axum::http::Request<Body>| {
        let method = SessionMethod { app: app.clone() };
        async move {
            let mut grpc = Grpc::new(ProstCodec::<SessionResponse, proto::SessionRequest>::new())
                .max_decoding_message_size(SESSION_MESSAGE_BYTES_MAX);
            Ok(grpc.streaming(method, request).await)
        }
    })
}

struct SessionMethod {
    app: Arc<App>,
}

impl StreamingService<proto::SessionRequest> for SessionMethod {
    type Response = SessionResponse;
    type ResponseStream = SessionStream;
    type Future = BoxFuture<'static, Result<tonic::Response<SessionStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<proto::SessionRequest>>) -> Self::Future {
        let app = self.app.clone();
        Box::pin(async move {
            let caller = app.session_caller(request.metadata()).await;
            let caller = app.metrics.count(caller)?;
            if app.drain.is_on() {
                return app.metrics.count(Err(shutting_down())).map_err(Status::from);
            }
            let seat = app.metrics.count(app.take_seat())?;
            Ok(tonic::Response::new(SessionStream::open(app, caller, seat, request.into_inner())))
        })
    }
}

/// What the client receives; owns the session.
#[derive(Debug)]
pub struct SessionStream {
    batches: mpsc::Receiver<Batch>,
    batch: std::vec::IntoIter<SessionResponse>,
    _task: AbortOnDropHandle<()>,
}

impl SessionStream {
    fn open(
        app: Arc<App>,
        caller: Caller,
        seat: Seat,
        requests: Streaming<proto::SessionRequest>,
    ) -> SessionStream {
        let (out, batches) = mpsc::channel(SESSION_BATCHES_MAX);
        let task = tokio::spawn(async move {
            let _seat = seat;
            if let Err(status) = run(app, caller, requests, &out).await {
                let _ = out.send(Err(status)).await;
            }
        });
        SessionStream {
            batches,
            batch: Vec::new().into_iter(),
            _task: AbortOnDropHandle::new(task),
        }
    }
}

impl Stream for SessionStream {
    type Item = Result<SessionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(response) = self.batch.next() {
                return Poll::Ready(Some(Ok(response)));
            }
            match ready!(self.batches.poll_recv(cx)) {
                Some(Ok(batch)) => self.batch = batch.into_iter(),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Runs until the client has said and heard everything, or a token or the node fails.
async fn run(
    app: Arc<App>,
    caller: Caller,
    mut requests: Streaming<proto::SessionRequest>,
    out: &mpsc::Sender<Batch>,
) -> Result<(), Status> {
    let in_flight_max = app.limits().posts_in_flight_per_session_max;
    let signed_in = caller.clone();
    let mut dismissed = pin!(app.dismissed(&signed_in));
    let mut dialog = Dialog::new(app.clone(), caller);
    let mut pending = FuturesUnordered::new();
    let mut feeds = Feeds::new();
    let (mut asked, mut outcomes, mut arrived) = (Vec::new(), Vec::new(), Vec::new());
    let (mut open, mut stopping) = (true, false);
    let drain = app.drain.begun();
    let mut drain = pin!(drain.cancelled());
    loop {
        if dialog.waiting() > 0
            && let Ok(permit) = out.try_reserve()
        {
            permit.send(Ok(dialog.take_ready()));
        }
        if !open && pending.is_empty() && dialog.is_idle() {
            return if stopping { Err(shutting_down().into()) } else { Ok(()) };
        }
        let allowed = in_flight_max.saturating_sub(pending.len() + dialog.waiting());
        tokio::select! {
            permit = out.reserve(), if dialog.waiting() > 0 => match permit {
                Ok(permit) => permit.send(Ok(dialog.take_ready())),
                Err(_) => return Ok(()),
            },
            _ = chunk(&mut pending, CHUNK_MAX, &mut outcomes), if !pending.is_empty() => {
                for outcome in outcomes.drain(..) {
                    dialog.conclude(outcome, &mut feeds);
                }
            }
            more = chunk(&mut requests, allowed, &mut asked), if open && allowed > 0 => {
                open = more;
                dialog.trust_again().await?;
                for request in asked.drain(..) {
                    if let Some((id, work)) = dialog.take(request.map_err(unreadable)?) {
                        pending.push(perform(app.clone(), dialog.actor(), id, work));
                    }
                }
            }
            _ = chunk(&mut feeds, FEED_CHUNK_MAX, &mut arrived),
                if dialog.may_deliver() && !feeds.is_empty() =>
            {
                dialog.trust_again().await?;
                for (room, generation, next) in arrived.drain(..) {
                    dialog.deliver(&room, generation, next);
                }
            }
            error = dismissed.as_mut() => return app.metrics.count(Err(error)).map_err(Status::from),
            () = drain.as_mut(), if !stopping => {
                (open, stopping) = (false, true);
                dialog.end_all(&shutting_down());
            }
        }
    }
}

/// Waits for the next item and takes what else is there, `max` at most; false at the end.
///
/// Cancel safe: it has taken nothing when it is not ready.
async fn chunk<S: Stream + Unpin>(stream: &mut S, max: usize, taken: &mut Vec<S::Item>) -> bool {
    poll_fn(|cx| {
        while taken.len() < max {
            match stream.poll_next_unpin(cx) {
                Poll::Ready(Some(item)) => taken.push(item),
                Poll::Ready(None) => return Poll::Ready(false),
                Poll::Pending if taken.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(true)
    })
    .await
}

/// Why a session's requests can't be read any more, as far as the client does not know.
fn unreadable(status: Status) -> Status {
    match status.code() {
        tonic::Code::Internal => Error::invalid("the message could not be decoded").into(),
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            Error::new(Code::TooLarge, "the message is too large").into()
        }
        _ => status,
    }
}
