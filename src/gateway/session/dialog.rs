//! What a session knows, and what it says to each thing that happens.
//!
//! `mod.rs` drives it: requests in, outcomes and feeds' items in, responses out. Nothing here
//! waits.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{AbortHandle, BoxStream, SelectAll, abortable};
use tokio_stream::wrappers::WatchStream;

use crate::chat::account::Scope;
use crate::chat::command::{Actor, Command, Done};
use crate::chat::event::EventKind;
use crate::delivery::encoded::Encoded;
use crate::delivery::subscription::Next;
use crate::error::{Code, Error};
use crate::gateway::app::{App, Caller, Post};
use crate::gateway::backend::Feed;
use crate::gateway::follow;
use crate::gateway::limits::{DELIVERY_BYTES_MAX, DELIVERY_EVENTS_MAX};
use crate::gateway::metrics::InGauge;
use crate::gateway::presence::RoomPresence;
use crate::gateway::session::{Asked, Request, Response, Said};
use crate::id::{Cursor, RequestId, RoomId, Seq};
use crate::presence::{Device, Status};

/// What an event counts for besides its text, in bytes.
const EVENT_BYTES: usize = 256;

/// A request that takes time.
pub enum Work {
    /// A message to be posted.
    Post(Post),
    /// A command, under this id or a new one.
    Execute(Option<RequestId>, Command),
    /// A room to be followed.
    Follow(Follow),
}

impl Work {
    /// What a token must be good for.
    fn scope(&self) -> Scope {
        match self {
            Work::Follow(_) | Work::Execute(_, Command::MarkRead { .. }) => Scope::Read,
            // All else that changes something on a session is what one says in rooms.
            Work::Post(_) | Work::Execute(..) => Scope::Post,
        }
    }
}

/// How it went.
#[expect(missing_docs, reason = "the request's tag, the request, its result")]
pub enum Outcome<Tag> {
    Applied { tag: Tag, result: Result<(Done, RequestId), Error> },
    Followed { tag: Tag, follow: Follow, result: Result<Feed, Error> },
}

/// A room to be followed.
pub struct Follow {
    room: RoomId,
    after: Option<Cursor>,
    presence: bool,
    generation: u64,
}

/// Does what takes time; the answer's tag is `tag`.
pub async fn perform<Tag>(app: Arc<App>, actor: Actor, tag: Tag, work: Work) -> Outcome<Tag> {
    match work {
        Work::Post(post) => Outcome::Applied { tag, result: app.post(&actor, post).await },
        Work::Execute(id, command) => {
            Outcome::Applied { tag, result: app.execute_as(&actor, id, command).await }
        }
        Work::Follow(asked) => {
            let after = asked.after.clone();
            let result = follow::subscribe(&app, &actor, &asked.room, after).await;
            Outcome::Followed { tag, follow: asked, result }
        }
    }
}

/// A room that the client follows, or has asked to.
pub(super) struct Following {
    /// Tells this following from an earlier one of the same room.
    generation: u64,
    /// The last one that was asked for: until it has begun, or is refused, this one goes on.
    asked: u64,
    /// The last seq that was delivered.
    last: Seq,
    /// End its feeds; none while it is being set up.
    feeds: Vec<AbortHandle>,
    /// What is known of who is there.
    pub(super) people: People,
    _counted: InGauge,
}

/// What a client that follows a room was told last of who is there.
pub(super) enum People {
    /// It has not asked.
    Unasked,
    /// Nothing yet; whether its user types meanwhile.
    Unknown {
        types: bool,
    },
    /// Nothing, since it may not know; and why its user may not write.
    Hidden(Error),
    Known(Arc<RoomPresence>),
}

impl Following {
    fn feed(&mut self, items: BoxStream<'static, (RoomId, u64, Fed)>, feeds: &mut Feeds) {
        let (items, handle) = abortable(items);
        self.feeds.push(handle);
        feeds.push(items.boxed());
    }

    /// Ends its feeds.
    fn stop(&mut self) {
        self.feeds.drain(..).for_each(|feed| feed.abort());
        self.people = People::Unasked;
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a followed room has to say.
#[derive(Debug)]
pub enum Fed {
    /// Of its log.
    Next(Next),
    /// Of who is there.
    People(Arc<RoomPresence>),
}

/// What the followed rooms have to say: room, generation, item.
pub type Feeds = SelectAll<BoxStream<'static, (RoomId, u64, Fed)>>;

/// One session's state.
pub struct Dialog<Tag> {
    pub(super) app: Arc<App>,
    pub(super) caller: Caller,
    device: Device,
    pub(super) following: HashMap<RoomId, Following>,
    generation: u64,
    /// How many follows have not counted as requests.
    first_follows: usize,
    /// What the client is to be told next.
    ready: Vec<Response<Tag>>,
    /// Bytes of events in `ready`, about.
    ready_bytes: usize,
    _counted: InGauge,
}

impl<Tag: Default> Dialog<Tag> {
    /// A session of `caller`'s.
    pub fn new(app: Arc<App>, caller: Caller) -> Dialog<Tag> {
        let counted = InGauge::enter(&app.metrics.sessions);
        let device = app.backend.presence().enter(caller.actor.user.clone(), Status::Online);
        Dialog {
            app,
            caller,
            device,
            following: HashMap::new(),
            generation: 0,
            first_follows: 0,
            ready: Vec::new(),
            ready_bytes: 0,
            _counted: counted,
        }
    }

    /// Verifies the token again when that is due; due before anything is taken or delivered.
    pub async fn trust_again(&mut self) -> Result<(), Error> {
        let trusted = self.app.trust_again(&mut self.caller).await;
        self.app.metrics.count(trusted)
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
    pub fn take_ready(&mut self) -> Vec<Response<Tag>> {
        self.ready_bytes = 0;
        std::mem::take(&mut self.ready)
    }

    pub(super) fn say(&mut self, tag: Tag, said: Said) {
        self.ready.push(Response { tag, said });
    }

    pub(super) fn count_bytes(&mut self, bytes: usize) {
        self.ready_bytes += bytes;
    }

    pub(super) fn refuse(&mut self, tag: Tag, room: Option<RoomId>, error: Error) {
        self.app.metrics.refused(error.code);
        self.say(tag, Said::Refused { room, error });
    }

    /// Takes a request: answers it, or returns what it takes to do so.
    pub fn take(&mut self, request: Request<Tag>) -> Option<(Tag, Work)> {
        let Request { tag, asked } = request;
        if self.counts(&asked)
            && let Err(error) = self.app.count_request(&self.caller)
        {
            self.refuse(tag, None, error);
            return None;
        }
        let work = match asked {
            Ok(Asked::Post(post)) => Ok(Work::Post(post)),
            Ok(Asked::Execute { id, command }) => Ok(Work::Execute(id, command)),
            Ok(Asked::Follow { room, after, presence }) => {
                match self.follow(&room, after, presence) {
                    Ok(work) => return Some((tag, work)),
                    Err(error) => {
                        self.refuse(tag, Some(room), error);
                        return None;
                    }
                }
            }
            Ok(Asked::Unfollow(room)) => {
                self.unfollow(tag, room);
                return None;
            }
            Ok(Asked::Present(status)) => {
                self.device.set(status);
                return None;
            }
            Ok(Asked::Type { room, types }) => {
                self.type_in(tag, room, types);
                return None;
            }
            Ok(Asked::Ping) => {
                self.say(tag, Said::Pong);
                return None;
            }
            Err(error) => Err(error),
        };
        match work.and_then(|work| self.caller.require(work.scope()).map(|()| work)) {
            Ok(work) => Some((tag, work)),
            Err(error) => {
                self.refuse(tag, None, error);
                None
            }
        }
    }

    /// Whether a request counts: all do but to follow the first rooms, as many as may be followed at once.
    fn counts(&mut self, asked: &Result<Asked, Error>) -> bool {
        let first = matches!(asked, Ok(Asked::Follow { .. }))
            && self.first_follows < self.app.limits().follows_per_session_max;
        self.first_follows += usize::from(first);
        !first
    }

    fn follow(
        &mut self,
        room: &RoomId,
        after: Option<Cursor>,
        presence: bool,
    ) -> Result<Work, Error> {
        let rooms_max = self.app.limits().follows_per_session_max;
        if self.following.len() >= rooms_max && !self.following.contains_key(room) {
            let message = format!("a session follows at most {rooms_max} rooms");
            return Err(Error::new(Code::LimitReached, message));
        }
        self.generation += 1;
        let generation = self.generation;
        let metrics = &self.app.metrics;
        let following = self.following.entry(room.clone()).or_insert_with(|| Following {
            generation,
            asked: generation,
            last: Seq(0),
            feeds: Vec::new(),
            people: People::Unasked,
            _counted: metrics.subscribed(),
        });
        following.asked = generation;
        Ok(Work::Follow(Follow { room: room.clone(), after, presence, generation }))
    }

    fn unfollow(&mut self, tag: Tag, room: RoomId) {
        match self.following.remove(&room) {
            Some(following) => {
                self.say(tag, Said::Ended { room, seq: following.last, error: None });
            }
            None => {
                let error = Error::invalid("this room is not followed");
                self.refuse(tag, Some(room), error);
            }
        }
    }

    /// Answers a request by what became of it; a room that is followed now adds its feed.
    pub fn conclude(&mut self, outcome: Outcome<Tag>, feeds: &mut Feeds) {
        match outcome {
            Outcome::Applied { tag, result: Ok((done, id)) } => {
                self.say(tag, Said::Ack { done, id });
            }
            Outcome::Applied { tag, result: Err(error) } => self.refuse(tag, None, error),
            Outcome::Followed { tag, follow, result } => {
                let room = follow.room.clone();
                match self.begin(follow, result, feeds) {
                    Ok(followed) => self.say(tag, followed),
                    Err(error) => self.refuse(tag, Some(room), error),
                }
            }
        }
    }

    fn begin(
        &mut self,
        follow: Follow,
        result: Result<Feed, Error>,
        feeds: &mut Feeds,
    ) -> Result<Said, Error> {
        let Follow { room, after, presence, generation } = follow;
        let Some(following) = self.following.get_mut(&room).filter(|f| f.asked == generation)
        else {
            return Err(Error::invalid("the room was unfollowed before this began"));
        };
        let feed = match result {
            Ok(feed) => feed,
            Err(error) => {
                if following.feeds.is_empty() {
                    self.following.remove(&room);
                }
                return Err(error);
            }
        };
        following.stop();
        following.generation = generation;
        following.last = follow::start(&feed, after.as_ref());
        let Feed { epoch, first_seq, head, recovered, next } = feed;
        let followed = Said::Followed { room: room.clone(), epoch, first_seq, head, recovered };
        if presence {
            following.people = People::Unknown { types: false };
            let people = WatchStream::new(self.app.gathered.watch(&room));
            let of = room.clone();
            let people = people.map(move |people| (of.clone(), generation, Fed::People(people)));
            following.feed(people.boxed(), feeds);
        }
        let items = next.map(move |next| (room.clone(), generation, Fed::Next(next)));
        following.feed(items.boxed(), feeds);
        Ok(followed)
    }

    /// Says what a feed had to say.
    pub fn deliver(&mut self, room: &RoomId, generation: u64, fed: Fed) {
        let Some(following) =
            self.following.get_mut(room).filter(|following| following.generation == generation)
        else {
            return; // unfollowed meanwhile
        };
        let next = match fed {
            Fed::Next(next) => next,
            Fed::People(people) => return self.tell_people(room, people),
        };
        match next {
            Next::CaughtUp(seq) => {
                following.last = following.last.max(seq);
                self.say(Tag::default(), Said::CaughtUp { room: room.clone(), seq });
            }
            Next::Ended(error) => self.end(room, &error),
            Next::Events(events) => {
                let Some(last) = events.last() else { return };
                following.last = last.event.seq;
                if following.feeds.len() > 1 && events.iter().any(|it| moves(it.event.kind)) {
                    self.app.gathered.doubt(room);
                }
                self.app.metrics.deliveries.increment(events.len() as u64);
                self.ready_bytes += events.iter().map(size).sum::<usize>();
                self.say(Tag::default(), Said::Events { room: room.clone(), events });
            }
        }
    }

    fn end(&mut self, room: &RoomId, error: &Error) {
        let Some(following) = self.following.get_mut(room) else { return };
        let seq = following.last;
        if following.asked == following.generation {
            self.following.remove(room);
        } else {
            following.stop(); // it is to be followed anew
        }
        let (room, error) = (room.clone(), Some(error.clone()));
        self.say(Tag::default(), Said::Ended { room, seq, error });
    }

    /// Ends every followed room.
    pub fn end_all(&mut self, error: &Error) {
        for (room, following) in std::mem::take(&mut self.following) {
            let error = Some(error.clone());
            self.say(Tag::default(), Said::Ended { room, seq: following.last, error });
        }
    }
}

/// Whether such an event may change who has a part in the room.
fn moves(kind: EventKind) -> bool {
    use EventKind::{Archive, Invite, Join, Leave, Role};
    matches!(kind, Join | Leave | Invite | Role | Archive)
}

fn size(event: &Arc<Encoded>) -> usize {
    EVENT_BYTES + event.event.body.text().len()
}
