//! A live session: posts pipelined and rooms followed over one stream, across failovers.
//!
//! One driver task owns the stream. When it breaks, the driver opens another on the next server,
//! follows every room again from its cursor, and sends every unacknowledged post again with the
//! same request id. What callers see: acks, and events in order, each seq exactly one above the
//! last.
//!
//! Caveats:
//! - Posts go out in the order in which their futures are first polled; one that is retried after
//!   a temporary error may land behind later ones.
//! - All queues are bounded, so a follow that nobody reads stops the whole session, acks too. Give
//!   a slow reader a session of its own.
//! - Following goes on across any outage, however long; posts fail at the client's deadline.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::client::{Client, Post};
use crate::error::{Code, Error};
use crate::id::{Cursor, Epoch, RoomId, Seq};
use crate::proto::v1 as pb;

mod driver;
mod follows;
mod posts;

/// Parts of one follow's deliveries that wait to be read; each is at most a page.
const FOLLOW_QUEUE_MAX: usize = 64;
/// Commands that wait for the driver.
const COMMAND_QUEUE_MAX: usize = 256;

/// What a follow yields.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are events")]
pub enum Delivered {
    /// The next event, one above the last.
    Event(pb::Event),
    /// Everything up to this seq, the head when following began or resumed, has been delivered.
    CaughtUp(Seq),
    /// History between the cursor and the next event is gone or was replaced; delivery goes on
    /// from `first_seq` of `epoch`.
    Lost {
        /// The room's epoch from here on.
        epoch: Epoch,
        /// The oldest event that is kept.
        first_seq: Seq,
    },
}

/// What the driver is asked to do.
enum Command {
    Post { post: Post, reply: oneshot::Sender<Result<pb::Ack, Error>> },
    Follow { room: RoomId, after: Option<Cursor>, queue: mpsc::Sender<Part> },
    Unfollow(RoomId),
}

/// One part of a follow's deliveries.
enum Part {
    Events(Vec<pb::Event>),
    Mark(Box<Delivered>),
    Failed(Error),
}

/// What went wrong last, for messages; and why the session is over, once it is.
#[derive(Default)]
struct Trouble {
    last: Option<Error>,
    fatal: Option<Error>,
}

type SharedTrouble = Arc<Mutex<Trouble>>;

fn note(trouble: &SharedTrouble, change: impl FnOnce(&mut Trouble)) {
    change(&mut trouble.lock().unwrap_or_else(PoisonError::into_inner));
}

/// A live session. Clones share the stream; it ends when all clones are dropped and nothing is
/// pending or followed.
#[derive(Clone)]
pub struct Session {
    commands: mpsc::Sender<Command>,
    trouble: SharedTrouble,
    deadline: std::time::Duration,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Opens a session on the client's current server; returns once its stream is up.
    ///
    /// # Errors
    /// The last error, when no server lets it in within the deadline.
    pub async fn open(client: &Client) -> Result<Session, Error> {
        Session::open_on(client, client.shared.servers.current()).await
    }

    /// Opens a session on a certain server of the options' list (modulo its length); it moves on
    /// when that one fails.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn open_on(client: &Client, server: usize) -> Result<Session, Error> {
        let (commands, queue) = mpsc::channel(COMMAND_QUEUE_MAX);
        let (ready, is_ready) = oneshot::channel();
        let trouble = SharedTrouble::default();
        let driver = driver::Driver::new(client.clone(), server, queue, trouble.clone());
        let deadline = client.options().deadline;
        let session = Session { commands, trouble, deadline };
        let task = tokio::spawn(driver.run(ready));
        match timeout(deadline, is_ready).await {
            Ok(Ok(())) => Ok(session),
            Ok(Err(_)) => Err(session.over()),
            Err(_) => {
                task.abort();
                Err(session.too_late("no session"))
            }
        }
    }

    /// Posts a message; resolves once it is acknowledged. Dropping the future gives up waiting,
    /// not the message.
    ///
    /// # Errors
    /// The rules' rejection, or the last temporary error once the deadline has passed; then
    /// `may_have_applied` says whether it may be in the room all the same.
    pub fn post(&self, post: Post) -> impl Future<Output = Result<pb::Ack, Error>> + Send + use<> {
        let session = self.clone();
        async move {
            let (reply, answer) = oneshot::channel();
            let exchange = async {
                let command = Command::Post { post, reply };
                session.commands.send(command).await.map_err(|_| session.over())?;
                answer.await.unwrap_or_else(|_| Err(session.over().maybe_applied()))
            };
            match timeout(session.deadline, exchange).await {
                Ok(answer) => answer,
                Err(_) => Err(session.too_late("no acknowledgement").maybe_applied()),
            }
        }
    }

    /// Follows a room from a cursor, or from its head when there is none. A room can be followed
    /// once in a session.
    ///
    /// # Errors
    /// When the session is over; everything else comes on the stream.
    pub async fn follow(&self, room: &RoomId, after: Option<Cursor>) -> Result<Follow, Error> {
        let (queue, parts) = mpsc::channel(FOLLOW_QUEUE_MAX);
        let command = Command::Follow { room: room.clone(), after, queue };
        self.commands.send(command).await.map_err(|_| self.over())?;
        Ok(Follow { parts, ready: VecDeque::new(), done: false })
    }

    /// Stops following a room; its stream ends.
    pub async fn unfollow(&self, room: &RoomId) {
        let _ = self.commands.send(Command::Unfollow(room.clone())).await;
    }

    fn over(&self) -> Error {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble
            .fatal
            .clone()
            .unwrap_or_else(|| Error::new(Code::Unavailable, "the session is over"))
    }

    fn too_late(&self, what: &str) -> Error {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let within = humantime::format_duration(self.deadline);
        match &trouble.last {
            Some(last) => {
                Error::new(last.code, format!("{what} within {within}; last: {}", last.message))
            }
            None => Error::new(Code::Timeout, format!("{what} within {within}")),
        }
    }
}

/// A followed room's deliveries. Ends after an error, or when the room is unfollowed.
#[derive(Debug)]
pub struct Follow {
    parts: mpsc::Receiver<Part>,
    ready: VecDeque<pb::Event>,
    done: bool,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Part")
    }
}

impl Follow {
    /// Waits for what comes next; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// A rejection (the room is gone, the caller banned), or `internal` when the server broke the
    /// order: a gap or a repeat.
    pub async fn next(&mut self) -> Option<Result<Delivered, Error>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Waits for the next event, passing over marks; `None` at the end.
    ///
    /// # Errors
    /// As [`Follow::next`]; lost history is an error too.
    pub async fn next_event(&mut self) -> Option<Result<pb::Event, Error>> {
        loop {
            match self.next().await? {
                Ok(Delivered::Event(event)) => return Some(Ok(event)),
                Ok(Delivered::CaughtUp(_)) => {}
                Ok(Delivered::Lost { first_seq, .. }) => {
                    let message = format!("history before seq {first_seq} is gone");
                    return Some(Err(Error::new(Code::InvalidCursor, message)));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Stream for Follow {
    type Item = Result<Delivered, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Delivered::Event(event))));
            }
            if self.done {
                return Poll::Ready(None);
            }
            match std::task::ready!(self.parts.poll_recv(cx)) {
                Some(Part::Events(events)) => self.ready = events.into(),
                Some(Part::Mark(mark)) => return Poll::Ready(Some(Ok(*mark))),
                Some(Part::Failed(error)) => {
                    self.done = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.done = true,
            }
        }
    }
}
