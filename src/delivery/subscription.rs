//! One follower of one room: history first, then live, each seq one above the last.
//!
//! Made by the shard's set-up code for a room that has a replica here, or by the router for one
//! that a peer serves; read by a gateway connection at its own pace.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use futures_util::future::{self, BoxFuture, Either};
use tokio::sync::mpsc;

use crate::chat::event::Event;
use crate::delivery::encoded::Encoded;
use crate::delivery::history::History;
use crate::delivery::hub::LiveTail;
use crate::delivery::ring::Look;
use crate::error::{Code, Error};
use crate::id::{Epoch, RoomId, Seq};

/// Events read from history at once.
const PAGE_EVENTS: usize = 256;
/// Bodies read from history at once, in bytes.
const PAGE_BYTES: usize = 256 * 1024;

/// One follower of one room. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    /// The room.
    pub room: RoomId,
    /// The room's epoch.
    pub epoch: Epoch,
    /// The oldest event kept when the subscription began.
    pub first_seq: Seq,
    /// The room's head when the subscription began.
    pub head: Seq,
    /// False when there is a gap between the cursor asked for and the first event delivered.
    pub recovered: bool,
    source: Source,
    /// The last event delivered; before the first one, where delivery starts.
    delivered: Seq,
    caught_up: bool,
    /// Set once the subscription has ended, to say so again.
    ended: Option<Error>,
}

/// What comes next on a subscription.
#[derive(Debug)]
pub enum Next {
    /// Events in order, the first one above the last delivered before.
    Events(Vec<Arc<Encoded>>),
    /// Everything up to this seq, the head when the subscription began, has been delivered.
    CaughtUp(Seq),
    /// This node cannot go on; follow again from the last delivered seq, perhaps elsewhere.
    Ended(Error),
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The room's epoch.
    pub epoch: Epoch,
    /// The oldest event kept.
    pub first_seq: Seq,
    /// Events above this one are delivered. At most the head, and at least `first_seq − 1`.
    pub after: Seq,
    /// False when the cursor asked for was of another epoch, or below `first_seq − 1`.
    pub recovered: bool,
}

/// A read of history under way.
type Page = BoxFuture<'static, Result<Vec<Arc<Event>>, Error>>;

/// Where events come from.
enum Source {
    /// This node's replica.
    Here {
        tail: LiveTail,
        history: Arc<dyn History>,
        /// A read of history under way. Kept here, so that dropping `next` does not lose it: a
        /// caller that ticks more often than a page takes to read would get nowhere.
        reading: Option<Page>,
    },
    /// A subscription at a peer.
    Peer(mpsc::Receiver<Next>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Here { reading, .. } => {
                f.debug_struct("Here").field("reading", &reading.is_some()).finish_non_exhaustive()
            }
            Source::Peer(_) => f.write_str("Peer"),
        }
    }
}

impl Subscription {
    /// A subscription to a room that has a replica here. `tail` was registered in the same
    /// critical section in which `start` was read.
    pub fn new(tail: LiveTail, history: Arc<dyn History>, start: Start) -> Subscription {
        let (room, head) = (tail.room.clone(), tail.head);
        Subscription::with(room, head, start, Source::Here { tail, history, reading: None })
    }

    /// A subscription that a peer serves. What it says arrives on `relay`, which ends without an
    /// [`Next::Ended`] when the peer is lost.
    pub fn relayed(
        room: RoomId,
        head: Seq,
        start: Start,
        relay: mpsc::Receiver<Next>,
    ) -> Subscription {
        Subscription::with(room, head, start, Source::Peer(relay))
    }

    fn with(room: RoomId, head: Seq, start: Start, source: Source) -> Subscription {
        let Start { epoch, first_seq, after, recovered } = start;
        Subscription {
            room,
            epoch,
            first_seq,
            head,
            recovered,
            source,
            delivered: after,
            caught_up: false,
            ended: None,
        }
    }

    /// The last event delivered, from which to follow again elsewhere.
    pub fn delivered(&self) -> Seq {
        self.delivered
    }

    /// Waits for what comes next.
    ///
    /// Cancel safe: dropping the future loses nothing, not even a read of history under way. After
    /// [`Next::Ended`] it returns the same again.
    pub async fn next(&mut self) -> Next {
        if let Some(error) = &self.ended {
            return Next::Ended(error.clone());
        }
        let next = match &mut self.source {
            Source::Peer(relay) => match relay.recv().await {
                Some(next) => next,
                None => Next::Ended(lost_peer()),
            },
            Source::Here { .. } if !self.caught_up && self.delivered >= self.head => {
                Next::CaughtUp(self.head)
            }
            Source::Here { tail, history, reading } => {
                // Up to the head first, so that the mark comes exactly there.
                let last = (!self.caught_up).then_some(self.head);
                next_here(tail, history, reading, self.delivered, last).await
            }
        };
        self.note(next)
    }

    /// The last look before delivery; from here on nothing awaits.
    fn note(&mut self, next: Next) -> Next {
        let next = match next {
            Next::Events(events) if mutant!(SkipsWhenSlow, RepeatsAtHandOver) => {
                self.delivered = events.last().map_or(self.delivered, |last| last.event.seq);
                return Next::Events(events);
            }
            Next::Events(events) => match dense_above(self.delivered, &events) {
                Ok(last) => {
                    self.delivered = last;
                    return Next::Events(events);
                }
                Err(found) => Next::Ended(self.broken(found)),
            },
            next => next,
        };
        match &next {
            Next::Ended(error) => self.ended = Some(error.clone()),
            _ => self.caught_up = true,
        }
        next
    }

    fn broken(&self, found: Option<Seq>) -> Error {
        let (room, delivered) = (&self.room, self.delivered.0);
        let found = found.map(|seq| seq.0);
        tracing::error!(%room, delivered, found, "subscription ended: events are not dense");
        Error::new(Code::Internal, "delivery met a gap and stopped: follow again from the last seq")
    }
}

/// Waits for events above `cursor`, at most up to `last`.
async fn next_here(
    tail: &LiveTail,
    history: &Arc<dyn History>,
    reading: &mut Option<Page>,
    cursor: Seq,
    last: Option<Seq>,
) -> Next {
    loop {
        // Made before the look, so that nothing published after it is missed.
        let changed = pin!(tail.ring.changed());
        match tail.ring.look(cursor, last) {
            Look::Events(events) => {
                *reading = None;
                return Next::Events(events);
            }
            Look::Ended(error) => return Next::Ended(error),
            Look::Nothing => changed.await,
            Look::Behind => {
                let read = reading.get_or_insert_with(|| {
                    let left = last.map_or(u64::MAX, |last| last.0 - cursor.0);
                    let limit = left.min(PAGE_EVENTS as u64) as usize;
                    history.page(&tail.room, cursor, limit, PAGE_BYTES)
                });
                let Some(page) = unless(changed, read).await else { continue };
                *reading = None;
                return match page {
                    Ok(events) => Next::Events(events.into_iter().map(Encoded::new).collect()),
                    Err(error) => Next::Ended(error),
                };
            }
        }
    }
}

/// The output of `work`, unless `interrupt` completes first.
async fn unless<T>(
    interrupt: impl Future<Output = ()> + Unpin,
    work: &mut BoxFuture<'static, T>,
) -> Option<T> {
    match future::select(work, interrupt).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// The last seq of events that go on from `cursor` without a hole.
///
/// # Errors
/// The first seq that does not fit; `None` when there are no events.
fn dense_above(cursor: Seq, events: &[Arc<Encoded>]) -> Result<Seq, Option<Seq>> {
    let mut last = cursor;
    for encoded in events {
        if encoded.event.seq != last.next() {
            return Err(Some(encoded.event.seq));
        }
        last = encoded.event.seq;
    }
    if last == cursor { Err(None) } else { Ok(last) }
}

fn lost_peer() -> Error {
    Error::new(Code::Unavailable, "the node that served this subscription is gone: follow again")
}
