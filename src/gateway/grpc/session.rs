//! `folkmoot.v1.Rooms.Session`: a session on one bidirectional stream.
//!
//! ```text
//! requests ──► session (its task) ──► batches (≤ 4) ──► HTTP/2 stream
//! ```
//!
//! What a session does is in `session/`; this is its line. The task is its own, apart from the
//! HTTP/2 stream's, because hyper does not poll a stream that the client does not read, and a post
//! in flight must go on even then. The response stream owns the task and aborts it when the client
//! is gone.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use futures_core::Stream;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;
use tokio_util::task::AbortOnDropHandle;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::chat::command::Command;
use crate::error::{Code, Error};
use crate::gateway::app::{App, Caller, Seat, shutting_down};
use crate::gateway::convert;
use crate::gateway::grpc::rooms;
use crate::gateway::grpc::wire::{SessionResponse, responses};
use crate::gateway::limits::{SESSION_BATCHES_MAX, SESSION_MESSAGE_BYTES_MAX};
use crate::gateway::session::{
    self, Asked, Line, Request, Requests, Response, Turn, Turned, Want, poll_chunk,
};
use crate::id::{RoomId, Seq};
use crate::proto::v1 as proto;
use crate::proto::v1::session_request::Request as Said;

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

    fn call(&mut self, request: tonic::Request<Streaming<proto::SessionRequest>>) -> Self::Future {
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
            let mut line = GrpcLine::new(requests, out.clone());
            if let Err(error) = session::run(&app, caller, &mut line).await {
                let _ = out.send(Err(error.into())).await;
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

/// The two directions of the stream.
struct GrpcLine {
    requests: Streaming<proto::SessionRequest>,
    arrived: Vec<Result<proto::SessionRequest, Status>>,
    out: PollSender<Batch>,
    /// Whether a place in `out` is kept for the next batch.
    reserved: bool,
}

impl GrpcLine {
    fn new(requests: Streaming<proto::SessionRequest>, out: mpsc::Sender<Batch>) -> GrpcLine {
        GrpcLine { requests, arrived: Vec::new(), out: PollSender::new(out), reserved: false }
    }
}

impl Line for GrpcLine {
    type Tag = u64;

    fn may_say(&self) -> bool {
        self.reserved
    }

    fn say(&mut self, batch: Vec<Response<u64>>) {
        self.reserved = false;
        // Where nobody receives, the next poll tells.
        let _ = self.out.send_item(Ok(responses(batch)));
    }

    fn poll(&mut self, cx: &mut Context<'_>, want: Want, asked: &mut Requests<u64>) -> Turned {
        if want.room
            && !self.reserved
            && let Poll::Ready(reserved) = self.out.poll_reserve(cx)
        {
            self.reserved = reserved.is_ok();
            return Poll::Ready(Ok(if self.reserved { Turn::Room } else { Turn::Gone }));
        }
        if want.requests == 0 {
            return Poll::Pending;
        }
        let max = want.requests;
        let more = ready!(poll_chunk(&mut self.requests, cx, max, &mut self.arrived));
        for request in self.arrived.drain(..) {
            let proto::SessionRequest { id, request } = request.map_err(unreadable)?;
            asked.push(Request { tag: id, asked: validate(request) });
        }
        Poll::Ready(Ok(if more { Turn::Asked } else { Turn::Ended }))
    }
}

fn validate(request: Option<Said>) -> Result<Asked, Error> {
    match request {
        Some(Said::Post(post)) => Ok(Asked::Post(rooms::post(post)?)),
        Some(Said::Follow(follow)) => {
            let room = RoomId::parse(&follow.room)?;
            let after = follow.after.map(convert::cursor).transpose()?;
            Ok(Asked::Follow { room, after, presence: follow.presence })
        }
        Some(Said::Unfollow(unfollow)) => Ok(Asked::Unfollow(RoomId::parse(&unfollow.room)?)),
        Some(Said::MarkRead(mark)) => {
            let command =
                Command::MarkRead { room: RoomId::parse(&mark.room)?, seq: Seq(mark.seq) };
            Ok(Asked::Execute { id: None, command })
        }
        Some(Said::Presence(set)) => Ok(Asked::Present(convert::presence_status(set.status)?)),
        Some(Said::Typing(typing)) => {
            Ok(Asked::Type { room: RoomId::parse(&typing.room)?, types: typing.typing })
        }
        Some(Said::Ping(proto::Ping {})) => Ok(Asked::Ping),
        None => Err(Error::invalid("the request is empty, or not known to this node")),
    }
}

/// Why a session's requests can't be read any more, as far as the client does not know.
fn unreadable(status: Status) -> Error {
    match status.code() {
        tonic::Code::Internal => Error::invalid("the message could not be decoded"),
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            Error::new(Code::TooLarge, "the message is too large")
        }
        _ => Error::new(Code::Unavailable, "the stream broke off"),
    }
}
