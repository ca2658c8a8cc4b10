//! Everything live of one client on one connection: posts and followed rooms, over gRPC and over
//! WebSocket alike.
//!
//! ```text
//! line ──► requests ──► posts and follows in flight, of which there is a limit
//!                              │ outcomes as they complete
//! feeds of followed rooms ─────┴──► ready ──► line
//! ```
//!
//! What differs between the two is a [`Line`], which knows the wire: `grpc/session.rs` and
//! `websocket/line.rs`. One task a session and none a message: it takes requests, polls what is in
//! flight, takes what feeds have, and hands over whatever is ready as one batch.
//!
//! **Invariants.** Posts to a room enter the router in the order in which they were sent. Memory
//! is bounded: when the client does not take its batches, feeds are not read any more, then
//! requests are not; the subscription and the connection's window bound the rest. What a client
//! has posted before it is gone may still happen.

pub mod dialog;
mod people;

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::future::poll_fn;
use futures_util::stream::FuturesUnordered;

use crate::chat::command::{Command, Done};
use crate::delivery::encoded::Encoded;
use crate::error::Error;
use crate::gateway::app::{App, Caller, Post, shutting_down};
use crate::gateway::session::dialog::{Dialog, Feeds, perform};
use crate::id::{Cursor, Epoch, RequestId, RoomId, Seq, UserId};
use crate::presence::{Seen, Status};

/// Outcomes, or feeds' batches, taken at once.
const CHUNK_MAX: usize = 64;
const FEED_CHUNK_MAX: usize = 4;

/// What of an empty buffer is kept, in items: an idle session is to be small.
const KEPT: usize = 16;

/// What a client may ask for, validated.
#[derive(Debug)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Asked {
    Post(Post),
    /// Anything else that changes a room, under this id or a new one.
    Execute {
        id: Option<RequestId>,
        command: Command,
    },
    /// Follow a room from a cursor, or from its head.
    Follow {
        room: RoomId,
        after: Option<Cursor>,
        /// Also who is there, who types, and how far others have read.
        presence: bool,
    },
    Unfollow(RoomId),
    /// How present the user is on this connection. Answered only when it is refused.
    Present(Status),
    /// Whether the user types in a room. Answered only when it is refused.
    Type {
        room: RoomId,
        types: bool,
    },
    Ping,
}

/// One request. `Tag` is how the client tells answers apart; its default is none.
#[derive(Debug)]
pub struct Request<Tag> {
    /// Comes back with the answer.
    pub tag: Tag,
    /// What is asked for, or why that is refused at once.
    pub asked: Result<Asked, Error>,
}

/// What a client is told.
#[derive(Debug)]
#[expect(missing_docs, reason = "fields are as in folkmoot.v1.SessionResponse")]
pub enum Said {
    /// A command was applied, under this id.
    Ack {
        done: Done,
        id: RequestId,
    },
    /// A request was refused, or failed; the room, where it is about following one.
    Refused {
        room: Option<RoomId>,
        error: Error,
    },
    /// A room is followed.
    Followed {
        room: RoomId,
        epoch: Epoch,
        first_seq: Seq,
        head: Seq,
        recovered: bool,
    },
    /// A followed room's next events; at least one.
    Events {
        room: RoomId,
        events: Vec<Arc<Encoded>>,
    },
    /// What there was when the room was followed has been delivered.
    CaughtUp {
        room: RoomId,
        seq: Seq,
    },
    /// A room is followed no more; an error unless the client asked for it.
    Ended {
        room: RoomId,
        seq: Seq,
        error: Option<Error>,
    },
    /// Who is there in a followed room: all of them at first, then whoever has changed.
    Present {
        room: RoomId,
        present: usize,
        people: Vec<(UserId, Seen)>,
    },
    /// Who types in a followed room now.
    Typing {
        room: RoomId,
        users: Vec<UserId>,
    },
    /// How far others have read a followed room: all of them at first, then whoever has read on.
    Read {
        room: RoomId,
        marks: Vec<(UserId, Seq)>,
    },
    Pong,
}

/// One thing that a client is told, with the tag of what it answers.
#[derive(Debug)]
#[expect(missing_docs, reason = "said in a line")]
pub struct Response<Tag> {
    pub tag: Tag,
    pub said: Said,
}

/// What happens on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// [`Line::may_say`] is true now.
    Room,
    /// Requests have arrived.
    Asked,
    /// The client asks for nothing more, and waits for what it is owed.
    Ended,
    /// The client is not there any more, or shall not be.
    Gone,
    /// Time to look whether the client may still be there.
    Tick,
}

/// A client's connection, in both directions.
pub trait Line {
    /// What tells answers apart.
    type Tag: Clone + Default + Send + 'static;

    /// Whether there is room for a batch.
    fn may_say(&self) -> bool;

    /// Takes a batch. Called only while [`Line::may_say`] is true.
    fn say(&mut self, batch: Vec<Response<Self::Tag>>);

    /// Waits until something happens that is wanted, or that ends the line. Cancel safe: what has
    /// been taken is in `into`.
    ///
    /// # Errors
    /// What the client sent can't be read, and nothing after it.
    fn poll(&mut self, cx: &mut Context<'_>, want: Want, into: &mut Requests<Self::Tag>) -> Turned;
}

/// What a session waits for on its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// Room for a batch.
    pub room: bool,
    /// Requests, at most this many.
    pub requests: usize,
}

/// Requests as a line has taken them.
pub type Requests<Tag> = Vec<Request<Tag>>;
/// What has happened on a line, if anything.
pub type Turned = Poll<Result<Turn, Error>>;

/// Serves a client until it has said and heard everything, or is gone.
///
/// # Errors
/// The client's token is not good any more, the node stops, or what the client says can't be read.
/// What was said before may still be on its way.
pub async fn run<L: Line>(app: &Arc<App>, caller: Caller, line: &mut L) -> Result<(), Error> {
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
        if dialog.waiting() > 0 && line.may_say() {
            line.say(dialog.take_ready());
        }
        if !open && pending.is_empty() && dialog.is_idle() {
            return if stopping { Err(shutting_down()) } else { Ok(()) };
        }
        let owed = pending.len() + dialog.waiting();
        let requests = if open { in_flight_max.saturating_sub(owed) } else { 0 };
        let want = Want { room: dialog.waiting() > 0, requests };
        tokio::select! {
            turn = poll_fn(|cx| line.poll(cx, want, &mut asked)) => {
                match turn? {
                    Turn::Room => continue,
                    Turn::Gone => {
                        while pending.next().await.is_some() {} // what it has posted
                        return Ok(());
                    }
                    Turn::Ended => open = false,
                    Turn::Asked | Turn::Tick => {}
                }
                dialog.trust_again().await?;
                for request in asked.drain(..) {
                    if let Some((tag, work)) = dialog.take(request) {
                        pending.push(perform(app.clone(), dialog.actor(), tag, work));
                    }
                }
                asked.shrink_to(KEPT);
            }
            _ = chunk(&mut pending, CHUNK_MAX, &mut outcomes), if !pending.is_empty() => {
                for outcome in outcomes.drain(..) {
                    dialog.conclude(outcome, &mut feeds);
                }
                outcomes.shrink_to(KEPT);
            }
            _ = chunk(&mut feeds, FEED_CHUNK_MAX, &mut arrived),
                if dialog.may_deliver() && !feeds.is_empty() =>
            {
                dialog.trust_again().await?;
                for (room, generation, fed) in arrived.drain(..) {
                    dialog.deliver(&room, generation, fed);
                }
            }
            error = dismissed.as_mut() => return app.metrics.count(Err(error)),
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
    poll_fn(|cx| poll_chunk(stream, cx, max, taken)).await
}

/// `chunk`, polled.
pub fn poll_chunk<S: Stream + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    max: usize,
    taken: &mut Vec<S::Item>,
) -> Poll<bool> {
    while taken.len() < max {
        match stream.poll_next_unpin(cx) {
            Poll::Ready(Some(item)) => taken.push(item),
            Poll::Ready(None) => return Poll::Ready(false),
            Poll::Pending if taken.is_empty() => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(true)
}
