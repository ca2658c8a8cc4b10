//! What a session knows, and what it says to each thing that happens.
//!
//! `session.rs` drives it: requests in, outcomes and feeds' items in, responses out. Nothing here
//! waits.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{AbortHandle, BoxStream, SelectAll, abortable};
use tonic::Status;

use crate::chat::account::Scope;
use crate::chat::command::{Actor, Done};
use crate::delivery::encoded::Encoded;
use crate::delivery::subscription::Next;
use crate::error::{Code, Error};
use crate::gateway::app::{App, Caller, Post};
use crate::gateway::backend::Feed;
use crate::gateway::grpc::rooms;
use crate::gateway::grpc::wire::{Delivery, Response, SessionResponse};
use crate::gateway::limits::{DELIVERY_BYTES_MAX, DELIVERY_EVENTS_MAX};
use crate::gateway::metrics::InGauge;
use crate::gateway::{convert, follow, status};
use crate::id::{Cursor, RoomId, Seq};
use crate::proto::v1 as proto;
use crate::proto::v1::session_request::Request as Asked;

/// A request that takes time.
pub enum Work {
    /// A message to be posted.
    Post(Post),
    /// A room to be followed.
    Follow(Follow),
}

/// How it went.
#[expect(missing_docs, reason = "the request's id, the request, its result")]
pub enum Outcome {
    Posted { id: u64, result: Result<Done, Error> },
    Followed { id: u64, follow: Follow, result: Result<Feed, Error> },
}

/// A room to be followed.
pub struct Follow {
    room: RoomId,
    after: Option<Cursor>,
    generation: u64,
}

/// Does what takes time; the answer's id is `id`.
pub async fn perform(app: Arc<App>, actor: Actor, id: u64, work: Work) -> Outcome {
    match work {
        Work::Post(post) => {
            let result = app.post(&actor, post).await.map(|(done, _)| done);
            Outcome::Posted { id, result }
        }
        Work::Follow(asked) => {
            let after = asked.after.clone();
            let result = follow::subscribe(&app, &actor, &asked.room, after).await;
            Outcome::Followed { id, follow: asked, result }
        }
    }
}

/// A room that the client follows, or has asked to.
struct Following {
    /// Tells this following from an earlier one of the same room.
    generation: u64,
    /// The last seq that was delivered.
    last: Seq,
    /// Ends the feed; `None` while it is being set up.
    feed: Option<AbortHandle>,
    _counted: InGauge,
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(feed) = &self.feed {
            feed.abort();
        }
    }
}

/// What the followed rooms have to say: room, generation, item.
pub type Feeds = SelectAll<BoxStream<'static, (RoomId, u64, Next)>>;

/// One session's state.
pub struct Dialog {
    app: Arc<App>,
    caller: Caller,
    following: HashMap<RoomId, Following>,
    generation: u64,
    /// What the client is to be told next.
    ready: Vec<SessionResponse>,
    /// Bytes of events in `ready`.
    ready_bytes: usize,
    _counted: InGauge,
}

impl Dialog {
    /// A session of `caller`'s.
    pub fn new(app: Arc<App>, caller: Caller) -> Dialog {
        let counted = InGauge::enter(&app.metrics.sessions);
        Dialog {
            app,
            caller,
            following: HashMap::new(),
            generation: 0,
            ready: Vec::new(),
            ready_bytes: 0,
            _counted: counted,
        }
    }

    /// Verifies the token again when that is due; due before anything is taken or delivered.
    pub async fn trust_again(&mut self) -> Result<(), Status> {
        let trusted = self.app.trust_again(&mut self.caller).await;
        Ok(self.app.metrics.count(trusted)?)
    }

    /// Who is on the other end.
    pub fn actor(&self) -> Actor {
        self.caller.actor.clone()
    }

    /// Whether nothing is followed and nothing is left to say.
    pub fn is_idle(&self) -> bool {
        self.following.is_empty() && self.ready.is_empty()
    }

    /// How many responses wait to be taken.
    pub fn waiting(&self) -> usize {
        self.ready.len()
    }

    /// Whether the client has taken enough for more to be delivered.
    pub fn may_deliver(&self) -> bool {
        self.ready.len() < DELIVERY_EVENTS_MAX && self.ready_bytes < DELIVERY_BYTES_MAX
    }

    /// Takes what is to be said now.
    pub fn take_ready(&mut self) -> Vec<SessionResponse> {
        self.ready_bytes = 0;
        std::mem::take(&mut self.ready)
    }

    fn say(&mut self, id: u64, response: Response) {
        self.ready.push(response.to(id));
    }

    fn refuse(&mut self, id: u64, error: &Error) {
        self.app.metrics.refused(error.code);
        self.say(id, Response::Error(status::to_proto(error)));
    }

    /// Takes a request: answers it, or returns what it takes to do so.
    pub fn take(&mut self, request: proto::SessionRequest) -> Option<(u64, Work)> {
        let id = request.id;
        let work = match request.request {
            Some(Asked::Post(post)) => {
                let post = self.caller.require(Scope::Post).and_then(|()| rooms::post(post));
                post.map(|post| Some(Work::Post(post)))
            }
            Some(Asked::Follow(follow)) => self.follow(follow).map(Some),
            Some(Asked::Unfollow(unfollow)) => self.unfollow(id, &unfollow.room).map(|()| None),
            Some(Asked::Ping(proto::Ping {})) => {
                self.say(id, Response::Pong(proto::Pong {}));
                Ok(None)
            }
            None => Err(Error::invalid("the request is empty, or not known to this node")),
        };
        match work {
            Ok(work) => work.map(|work| (id, work)),
            Err(error) => {
                self.refuse(id, &error);
                None
            }
        }
    }

    fn follow(&mut self, follow: proto::Follow) -> Result<Work, Error> {
        let room = RoomId::parse(&follow.room)?;
        let after = follow.after.map(convert::cursor).transpose()?;
        let rooms_max = self.app.limits().follows_per_session_max;
        if self.following.len() >= rooms_max && !self.following.contains_key(&room) {
            let message = format!("a session follows at most {rooms_max} rooms");
            return Err(Error::new(Code::LimitReached, message));
        }
        self.generation += 1;
        let generation = self.generation;
        let counted = self.app.metrics.subscribed();
        let following = Following { generation, last: Seq(0), feed: None, _counted: counted };
        self.following.insert(room.clone(), following);
        Ok(Work::Follow(Follow { room, after, generation }))
    }

    fn unfollow(&mut self, id: u64, room: &str) -> Result<(), Error> {
        let room = RoomId::parse(room)?;
        let following = self
            .following
            .remove(&room)
            .ok_or_else(|| Error::invalid("this room is not followed"))?;
        let ended =
            proto::Ended { room: room.as_str().to_owned(), seq: following.last.0, error: None };
        self.say(id, Response::Ended(ended));
        Ok(())
    }

    /// Answers a request by what became of it; a room that is followed now adds its feed.
    pub fn conclude(&mut self, outcome: Outcome, feeds: &mut Feeds) {
        match outcome {
            Outcome::Posted { id, result: Ok(done) } => {
                self.say(id, Response::Ack(convert::ack(done)));
            }
            Outcome::Posted { id, result: Err(error) } => self.refuse(id, &error),
            Outcome::Followed { id, follow, result } => match self.begin(follow, result, feeds) {
                Ok(followed) => self.say(id, Response::Followed(followed)),
                Err(error) => self.refuse(id, &error),
            },
        }
    }

    fn begin(
        &mut self,
        follow: Follow,
        result: Result<Feed, Error>,
        feeds: &mut Feeds,
    ) -> Result<proto::Followed, Error> {
        let Follow { room, after, generation } = follow;
        let Some(following) = self.following.get_mut(&room).filter(|f| f.generation == generation)
        else {
            return Err(Error::invalid("the room was unfollowed before this began"));
        };
        let feed = match result {
            Ok(feed) => feed,
            Err(error) => {
                self.following.remove(&room);
                return Err(error);
            }
        };
        following.last = follow::start(&feed, after.as_ref());
        let followed = proto::Followed {
            room: room.as_str().to_owned(),
            epoch: feed.epoch.as_str().to_owned(),
            first_seq: feed.first_seq.0,
            head: feed.head.0,
            recovered: feed.recovered,
        };
        let items = feed.next.map(move |next| (room.clone(), generation, next));
        let (items, handle) = abortable(items);
        following.feed = Some(handle);
        feeds.push(items.boxed());
        Ok(followed)
    }

    /// Says what a feed had to say.
    pub fn deliver(&mut self, room: &RoomId, generation: u64, next: Next) {
        let Some(following) =
            self.following.get_mut(room).filter(|following| following.generation == generation)
        else {
            return; // unfollowed meanwhile
        };
        match next {
            Next::CaughtUp(seq) => {
                following.last = following.last.max(seq);
                let caught_up = proto::CaughtUp { room: room.as_str().to_owned(), seq: seq.0 };
                self.say(0, Response::CaughtUp(caught_up));
            }
            Next::Ended(error) => self.end(room, &error),
            Next::Events(events) => {
                let Some(last) = events.last() else { return };
                following.last = last.event.seq;
                self.app.metrics.deliveries.increment(events.len() as u64);
                self.push(room, &events);
            }
        }
    }

    /// Packs events into as few deliveries as their limits allow.
    fn push(&mut self, room: &RoomId, events: &[Arc<Encoded>]) {
        let mut rest = events;
        while !rest.is_empty() {
            let (mut packed, mut bytes) =
                (Vec::with_capacity(rest.len().min(DELIVERY_EVENTS_MAX)), 0);
            for event in rest.iter().take(DELIVERY_EVENTS_MAX) {
                let event: &Bytes = event.proto(convert::encoded_event);
                bytes += event.len();
                if bytes > DELIVERY_BYTES_MAX && !packed.is_empty() {
                    break;
                }
                self.ready_bytes += event.len();
                packed.push(event.clone());
            }
            rest = &rest[packed.len()..];
            let delivery = Delivery { room: room.as_str().to_owned(), events: packed };
            self.say(0, Response::Delivery(delivery));
        }
    }

    fn end(&mut self, room: &RoomId, error: &Error) {
        if let Some(following) = self.following.remove(room) {
            let ended = proto::Ended {
                room: room.as_str().to_owned(),
                seq: following.last.0,
                error: Some(status::to_proto(error)),
            };
            self.say(0, Response::Ended(ended));
        }
    }

    /// Ends every followed room.
    pub fn end_all(&mut self, error: &Error) {
        let rooms: Vec<RoomId> = self.following.keys().cloned().collect();
        for room in rooms {
            self.end(&room, error);
        }
    }
}
