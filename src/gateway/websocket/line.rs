//! A WebSocket as the line of a session: frames in both directions, and whether anybody is there.
//!
//! **Invariants.** What waits to be sent is one batch of the session's, and what tungstenite
//! gathers of it; while the client takes nothing, nothing more is taken from the session, and no
//! further ping is answered. A client that has said nothing for `keep_alive` is pinged; one that
//! says nothing for as long again, or takes nothing for twice as long, is gone.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use futures_util::{Sink, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, Utf8Bytes};
use tokio_tungstenite::tungstenite::{self, Message};

use crate::error::{Code, Error};
use crate::gateway::limits::{FRAME_BYTES_MAX, GatewayLimits, WEBSOCKET_PIECE_BYTES};
use crate::gateway::session::{Line, Request, Requests, Response, Turn, Turned, Want};
use crate::gateway::websocket::close::Ending;
use crate::gateway::websocket::frame::{self, Ref};
use crate::gateway::websocket::intake::Intake;
use crate::gateway::websocket::said;

/// For how long the last frames may take to be sent, and the client to answer the close.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// What of an empty queue is kept, in messages.
const QUEUE_KEPT: usize = 8;

type Socket = WebSocketStream<Intake<TokioIo<Upgraded>>>;

/// One client's WebSocket.
pub struct SocketLine {
    socket: Socket,
    /// What a frame may be, as of when the connection began.
    limits: GatewayLimits,
    /// To be sent, in order.
    queue: VecDeque<Message>,
    /// Something was given to the socket and may not have been sent.
    unflushed: bool,
    /// A ping of the client's was read whose answer may not have been sent.
    owes_pong: bool,
    /// Since when the client has taken nothing of what is to be sent.
    blocked: Option<Instant>,
    /// Requests of the last frame that the session has not taken yet.
    backlog: VecDeque<Request<Option<Ref>>>,
    /// When the client was last known to be there.
    heard: Instant,
    /// Whether the last poll would have heard of the client.
    listens: bool,
    /// When it was asked whether it is there, unless it has said anything since.
    pinged: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// Nothing can be read any more.
    broken: bool,
    /// Why the line ends, once the session has taken what came before.
    ends: Option<Ending>,
    /// Why it has ended.
    ending: Ending,
}

impl SocketLine {
    /// A line over a WebSocket that was just opened.
    pub fn new(socket: Socket, limits: &GatewayLimits) -> SocketLine {
        let now = Instant::now();
        SocketLine {
            socket,
            limits: limits.clone(),
            queue: VecDeque::new(),
            unflushed: false,
            owes_pong: false,
            blocked: None,
            backlog: VecDeque::new(),
            heard: now,
            listens: true,
            pinged: None,
            timer: Box::pin(sleep_until(now + limits.keep_alive)),
            broken: false,
            ends: None,
            ending: Ending::Gone,
        }
    }

    /// Why the line has ended, after [`Turn::Gone`].
    pub fn ending(&self) -> Ending {
        self.ending.clone()
    }

    /// Somebody has signed in: from here on messages may be as long as any.
    pub fn trust(&mut self) {
        self.socket.get_mut().trust();
    }

    /// Takes a text, in UTF-8, to be sent before all batches to come.
    pub fn push(&mut self, text: Bytes) {
        push(&mut self.queue, text);
    }

    /// The first text that the client sends; `None` when it is gone.
    ///
    /// # Errors
    /// It sent something else.
    pub async fn first(&mut self) -> Result<Option<Utf8Bytes>, Error> {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => {
                        self.socket.get_mut().message();
                        return Ok(Some(text));
                    }
                    Some(Ok(Message::Binary(_))) => return Err(binary()),
                    Some(Ok(Message::Close(_))) | None => return Ok(None),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return self.unreadable(&error).map_or(Ok(None), Err),
                }
            }
        };
        let first = next.await;
        self.heard = Instant::now();
        first
    }

    /// Says why the line ends, closes it, and waits a little for the client to have heard.
    pub async fn close(mut self, ending: Ending) {
        let Some(code) = ending.code() else {
            // The answer to the client's own close, if that is how it went.
            let _ = timeout(CLOSE_WITHIN, poll_fn(|cx| self.poll_flush(cx))).await;
            return;
        };
        match &ending {
            // It does not take what there is.
            Ending::TooSlow | Ending::Silent => self.queue.clear(),
            Ending::Error(error) => self.push(said::last(error)),
            Ending::Gone => {}
        }
        let reason = Utf8Bytes::from_static(ending.reason());
        let close = CloseFrame { code: code.into(), reason };
        self.queue.push_back(Message::Close(Some(close)));
        let sent = timeout(CLOSE_WITHIN, poll_fn(|cx| self.send_queue(cx))).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
        // Ending the connection with input unread would reset it, and what was just sent with it.
        let heard = async {
            while let Some(Ok(_)) = self.socket.next().await {}
            if self.broken {
                std::future::pending::<()>().await;
            }
        };
        let _ = timeout(CLOSE_WITHIN, heard).await;
    }

    /// Sends what is queued: ready when all of it has been sent.
    fn send_queue(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        while !self.queue.is_empty() {
            let ready = Pin::new(&mut self.socket).poll_ready(cx);
            ready!(self.progress(ready))?;
            let Some(message) = self.queue.pop_front() else { break };
            self.unflushed = true;
            Pin::new(&mut self.socket).start_send(message).map_err(|_| Ending::Gone)?;
        }
        self.queue.shrink_to(QUEUE_KEPT);
        self.poll_flush(cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        if self.unflushed {
            let flushed = Pin::new(&mut self.socket).poll_flush(cx);
            ready!(self.progress(flushed))?;
            (self.unflushed, self.owes_pong) = (false, false);
        }
        Poll::Ready(Ok(()))
    }

    /// Notes whether the client takes what is sent. That it does after a while also shows that it
    /// is there.
    fn progress(&mut self, sent: Poll<Result<(), tungstenite::Error>>) -> Poll<Result<(), Ending>> {
        if sent.is_pending() {
            self.blocked.get_or_insert_with(Instant::now);
        } else if self.blocked.take().is_some() {
            self.hear();
        }
        sent.map_err(|_| Ending::Gone)
    }

    fn hear(&mut self) {
        self.heard = Instant::now();
        self.pinged = None;
    }

    /// Takes up to `max` requests of what has arrived.
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        asked: &mut Requests<Option<Ref>>,
    ) -> Result<(), Ending> {
        self.listens = false;
        while asked.len() < max {
            if let Some(request) = self.backlog.pop_front() {
                asked.push(request);
                continue;
            }
            // A pong that the client does not take must not be followed by another.
            if self.owes_pong && self.poll_flush(cx)?.is_pending() {
                break;
            }
            match self.socket.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(message))) => self.take(message)?,
                Poll::Ready(Some(Err(error))) => {
                    return Err(self.unreadable(&error).map_or(Ending::Gone, Ending::Error));
                }
                Poll::Ready(None) => return Err(Ending::Gone),
                Poll::Pending => {
                    self.listens = true;
                    break;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<(), Ending> {
        self.hear();
        let intake = self.socket.get_mut();
        match message {
            Message::Text(text) => {
                intake.message();
                let requests = frame::parse(&text, &self.limits).map_err(Ending::Error)?;
                self.backlog.shrink_to(QUEUE_KEPT);
                self.backlog.extend(requests);
            }
            // The pong is sent with the next flush.
            Message::Ping(payload) => {
                intake.control(payload.len());
                (self.unflushed, self.owes_pong) = (true, true);
            }
            Message::Pong(payload) => intake.control(payload.len()),
            Message::Frame(_) => {}
            Message::Binary(_) => return Err(Ending::Error(binary())),
            Message::Close(_) => {
                self.unflushed = true; // the answer
                return Err(Ending::Gone);
            }
        }
        Ok(())
    }

    /// Why nothing can be read any more, as far as the client does not know; `None` when it is gone.
    fn unreadable(&mut self, error: &tungstenite::Error) -> Option<Error> {
        self.broken = true;
        self.socket.get_mut().take_refusal().or_else(|| unreadable(error))
    }

    /// Looks whether the client may still be there, when it is time to; ready when it was asked.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ending>> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let (now, patience) = (Instant::now(), self.limits.keep_alive);
            if let Some(since) = self.blocked {
                if now >= since + 2 * patience {
                    return Poll::Ready(Err(Ending::TooSlow));
                }
                self.timer.as_mut().reset(since + 2 * patience);
                continue;
            }
            if !self.listens {
                self.hear(); // it could not be heard
            }
            if let Some(pinged) = self.pinged {
                if now >= pinged + patience {
                    return Poll::Ready(Err(Ending::Silent));
                }
                self.timer.as_mut().reset(pinged + patience);
            } else if now >= self.heard + patience {
                self.queue.push_back(Message::Ping(Bytes::new()));
                self.pinged = Some(now);
                self.timer.as_mut().reset(now + patience);
                return Poll::Ready(Ok(()));
            } else {
                self.timer.as_mut().reset(self.heard + patience);
            }
        }
        Poll::Pending
    }

    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        want: Want,
        asked: &mut Requests<Option<Ref>>,
    ) -> Poll<Result<Turn, Ending>> {
        if let Some(ending) = self.ends.take() {
            return Poll::Ready(Err(ending));
        }
        let sent = self.send_queue(cx)?;
        if want.room && sent.is_ready() {
            return Poll::Ready(Ok(Turn::Room));
        }
        let received = self.receive(cx, want.requests, asked);
        if !asked.is_empty() {
            self.ends = received.err();
            return Poll::Ready(Ok(Turn::Asked));
        }
        received?;
        self.watch(cx).map_ok(|()| Turn::Tick)
    }
}

impl Line for SocketLine {
    type Tag = Option<Ref>;

    fn may_say(&self) -> bool {
        self.queue.is_empty() && !self.unflushed
    }

    fn say(&mut self, batch: Vec<Response<Option<Ref>>>) {
        for response in batch {
            said::frames(response, |text| push(&mut self.queue, text));
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        want: Want,
        asked: &mut Requests<Option<Ref>>,
    ) -> Turned {
        self.turn(cx, want, asked).map(|turn| match turn {
            Ok(turn) => Ok(turn),
            Err(Ending::Error(error)) => Err(error),
            Err(ending) => {
                self.ending = ending;
                Ok(Turn::Gone)
            }
        })
    }
}

fn binary() -> Error {
    Error::invalid("send text frames: JSON")
}

/// Queues a text, in pieces.
fn push(queue: &mut VecDeque<Message>, mut text: Bytes) {
    let mut opcode = OpCode::Data(Data::Text);
    loop {
        let piece = text.split_to(text.len().min(WEBSOCKET_PIECE_BYTES));
        queue.push_back(Message::Frame(Frame::message(piece, opcode, text.is_empty())));
        if text.is_empty() {
            return;
        }
        opcode = OpCode::Data(Data::Continue);
    }
}

/// Why nothing can be read any more, as far as the client does not know; `None` when it is gone.
fn unreadable(error: &tungstenite::Error) -> Option<Error> {
    match error {
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            let message = format!("a frame has at most {FRAME_BYTES_MAX} bytes");
            Some(Error::new(Code::TooLarge, message))
        }
        tungstenite::Error::Utf8(_) => Some(Error::invalid("the frame is not UTF-8")),
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        tungstenite::Error::Protocol(error) => Some(Error::invalid(error.to_string())),
        _ => None,
    }
}
