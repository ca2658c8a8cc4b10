//! A backend of plain maps, with knobs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::{Semaphore, watch};
use tokio::task::coop::unconstrained;

use super::rules::{State, check};
use crate::chat::command::{Actor, Command, Done, Rejection, Request};
use crate::chat::event::{Hash, Role};
use crate::chat::query::{Answer, OwnRooms, Query};
use crate::chat::state::{Room, User};
use crate::clock::SystemClock;
use crate::delivery::encoded::Encoded;
use crate::delivery::subscription::Next;
use crate::error::{Code, Error};
use crate::gateway::backend::{Backend, Feed};
use crate::id::{Cursor, Epoch, NodeId, RoomId, Seq, ShardId, UserId};
use crate::presence::Presence;
use crate::proto::internal::AuditRecord;
use crate::proto::v1::PlacementResponse;
use crate::proto::v1::StatusResponse;
use crate::router::operator::{Order, Plan};
use crate::router::verify::{Finding, Kind, Report};
use crate::router::{Consistency, Readiness};

/// The backend, with knobs.
pub struct Fake {
    state: Mutex<State>,
    /// Rises with every command.
    changed: watch::Sender<u64>,
    /// A post takes a permit and keeps it.
    pub posts_allowed: Semaphore,
    /// Posts that have begun.
    pub posts_begun: AtomicUsize,
    /// Feeds that exist.
    pub feeds: Arc<AtomicUsize>,
    /// Ends the feeds that there are.
    pub feeds_end: watch::Sender<Option<Error>>,
    /// Refuses further ones.
    pub feeds_refused: Mutex<Option<Error>>,
    pub ready: AtomicBool,
    pub initialized: AtomicBool,
    /// How often it was asked how much was revoked.
    pub revocations_asked: AtomicUsize,
    /// Nobody says whether anything was revoked.
    pub accounts_cut_off: AtomicBool,
    /// What was recorded.
    pub audit: Mutex<Vec<AuditRecord>>,
    presence: Arc<Presence>,
}

struct CountedFeed(Arc<AtomicUsize>);

impl Drop for CountedFeed {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        Arc::new(Fake {
            state: Mutex::default(),
            changed: watch::channel(0).0,
            posts_allowed: Semaphore::new(Semaphore::MAX_PERMITS),
            posts_begun: AtomicUsize::new(0),
            feeds: Arc::default(),
            feeds_end: watch::channel(None).0,
            feeds_refused: Mutex::default(),
            ready: AtomicBool::new(true),
            initialized: AtomicBool::new(false),
            revocations_asked: AtomicUsize::new(0),
            accounts_cut_off: AtomicBool::new(false),
            audit: Mutex::default(),
            presence: Presence::new(Arc::new(SystemClock)),
        })
    }

    pub fn apply(&self, request: Request) -> Result<Done, Rejection> {
        let mut state = self.state.lock().unwrap();
        state.time_ms += 1;
        let done = state.apply(request);
        drop(state);
        self.changed.send_modify(|n| *n += 1);
        done
    }

    /// Events of a room above `after`, and its head.
    fn above(&self, room: &RoomId, after: Seq) -> Vec<Arc<Encoded>> {
        let state = self.state.lock().unwrap();
        let events = &state.rooms[room].events;
        let at = events.partition_point(|event| event.event.seq <= after);
        events[at..].iter().take(1000).cloned().collect()
    }

    /// So much time passes, for accounts.
    pub fn pass(&self, ms: u64) {
        self.state.lock().unwrap().passed_ms += ms;
    }

    /// Counts a revocation of something that nobody in these tests has.
    pub fn revoke_one(&self) {
        self.state.lock().unwrap().revocations += 1;
    }

    /// The hashes of a user's tokens.
    pub fn tokens(&self, user: &UserId) -> Vec<Hash> {
        let state = self.state.lock().unwrap();
        state.users[user].tokens.iter().map(|token| token.hash).collect()
    }

    /// Makes the room forget its oldest events.
    pub fn trim(&self, room: &str, first_seq: u64) {
        let mut state = self.state.lock().unwrap();
        let room = state.rooms.get_mut(&RoomId::parse(room).unwrap()).unwrap();
        room.room.first_seq = Seq(first_seq);
        room.events.retain(|event| event.event.seq.0 >= first_seq);
    }

    /// What is asked for happens, and the room drops its oldest events, before any feed has read them;
    /// the feeds end.
    pub fn overtake(&self, requests: Vec<Request>, room: &str, first_seq: u64) {
        let mut state = self.state.lock().unwrap();
        for request in requests {
            state.apply(request).unwrap();
        }
        drop(state);
        self.trim(room, first_seq);
        let gone = Error::new(Code::InvalidCursor, "these events are no longer kept");
        self.feeds_end.send_replace(Some(gone));
    }
}

impl Backend for Arc<Fake> {
    fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    fn execute(&self, request: Request) -> BoxFuture<'_, Result<Done, Error>> {
        async move {
            if matches!(request.command, Command::Post { .. }) {
                self.posts_begun.fetch_add(1, Ordering::SeqCst);
                // In order of arrival, whatever else the task has done in its turn.
                unconstrained(self.posts_allowed.acquire()).await.unwrap().forget();
            }
            Ok(self.apply(request)?)
        }
        .boxed()
    }

    fn query<'a>(
        &'a self,
        actor: &'a Actor,
        query: Query,
        _consistency: Consistency,
    ) -> BoxFuture<'a, Result<Answer, Error>> {
        let state = self.state.lock().unwrap();
        let answer = match query {
            Query::Room { room } => match state.rooms.get(&room) {
                None => Err(Rejection::RoomNotFound(room).into()),
                Some(found) => Ok(Answer::Room {
                    room: Arc::new(found.room.clone()),
                    participants: found.participants.clone().into_iter().collect(),
                    sees_presence: true,
                }),
            },
            Query::Participants { room, after, limit } => match state.rooms.get(&room) {
                None => Err(Rejection::RoomNotFound(room).into()),
                Some(found) => Ok(Answer::Room {
                    room: Arc::new(found.room.clone()),
                    participants: found
                        .participants
                        .iter()
                        .filter(|(user, _)| after.as_ref().is_none_or(|after| *user > after))
                        .take(limit)
                        .map(|(user, part)| (user.clone(), part.clone()))
                        .collect(),
                    sees_presence: found
                        .participants
                        .get(&actor.user)
                        .map_or(actor.admin, |part| part.is_inside() || actor.admin),
                }),
            },
            Query::Events { room, page, limit } => {
                state.page(&room, &page, limit).map(Answer::Events)
            }
            Query::Thread { room, page, limit, .. } => {
                state.page(&room, &page, limit).map(Answer::Events)
            }
            Query::Export { room, after, limit } => match state.rooms.get(&room) {
                None => Err(Rejection::RoomNotFound(room).into()),
                Some(found) => Ok(Answer::Export {
                    room: Arc::new(found.room.clone()),
                    events: {
                        let events = found.events.iter().filter(|e| e.event.seq > after);
                        events.take(limit.min(3)).map(|e| e.event.clone()).collect()
                    },
                }),
            },
            Query::User { user } => match state.users.get(&user) {
                None => Err(Rejection::UserNotFound(user).into()),
                Some(found) => Ok(Answer::User { user: Arc::new(found.clone()) }),
            },
            _ => panic!("{actor:?} asks a list of one shard"),
        };
        async { answer }.boxed()
    }

    fn subscribe<'a>(
        &'a self,
        actor: &'a Actor,
        room: &'a RoomId,
        after: Option<Cursor>,
    ) -> BoxFuture<'a, Result<Feed, Error>> {
        async move {
            if let Some(error) = self.feeds_refused.lock().unwrap().clone() {
                return Err(error);
            }
            let (changed, end) = (self.changed.subscribe(), self.feeds_end.subscribe());
            let state = self.state.lock().unwrap();
            let found = state
                .rooms
                .get(room)
                .ok_or_else(|| Error::from(Rejection::RoomNotFound(room.clone())))?;
            if found.participants.get(&actor.user).is_some_and(|p| p.role == Role::Banned) {
                return Err(Rejection::Banned(room.clone()).into());
            }
            let Room { epoch, first_seq, head, .. } = found.room.clone();
            let (start, recovered) = match &after {
                Some(cursor) => check(&found.room, cursor)?,
                None => (head, true),
            };
            drop(state);
            self.feeds.fetch_add(1, Ordering::SeqCst);
            let counted = CountedFeed(self.feeds.clone());
            let (fake, room) = (self.clone(), room.clone());
            let next = stream::unfold(
                (fake, room, start, false, (changed, end), counted),
                move |(fake, room, mut last, mut caught_up, (mut changed, mut end), counted)| async move {
                    let next = loop {
                        if !caught_up && last >= head {
                            caught_up = true;
                            break Next::CaughtUp(head);
                        }
                        let events = fake.above(&room, last);
                        if let Some(newest) = events.last() {
                            last = newest.event.seq;
                            break Next::Events(events);
                        }
                        tokio::select! {
                            changed = changed.changed() => changed.ok()?,
                            ended = end.changed() => {
                                ended.ok()?;
                                break Next::Ended(end.borrow().clone()?);
                            }
                        }
                    };
                    Some((next, (fake, room, last, caught_up, (changed, end), counted)))
                },
            );
            Ok(Feed { epoch, first_seq, head, recovered, next: next.boxed() })
        }
        .boxed()
    }

    fn rooms<'a>(
        &'a self,
        _actor: &'a Actor,
        after: Option<RoomId>,
        limit: usize,
        search: String,
    ) -> BoxFuture<'a, Result<Vec<Arc<Room>>, Error>> {
        let state = self.state.lock().unwrap();
        let above = state.rooms.values().filter(|r| Some(&r.room.id) > after.as_ref());
        let found = above.filter(|r| r.room.id.as_str().contains(&search));
        let rooms = found.take(limit).map(|r| Arc::new(r.room.clone())).collect();
        async { Ok(rooms) }.boxed()
    }

    fn own_rooms<'a>(
        &'a self,
        actor: &'a Actor,
        after: Option<RoomId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<OwnRooms, Error>> {
        let rooms = self.state.lock().unwrap().own_rooms(&actor.user, after.as_ref(), limit);
        async { Ok(rooms) }.boxed()
    }

    fn users<'a>(
        &'a self,
        _actor: &'a Actor,
        after: Option<UserId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Arc<User>>, Error>> {
        let state = self.state.lock().unwrap();
        let above = state.users.values().filter(|user| Some(&user.id) > after.as_ref());
        let users = above.take(limit).map(|user| Arc::new(user.clone())).collect();
        async { Ok(users) }.boxed()
    }

    fn shard_of_user(&self, _user: &UserId) -> Result<ShardId, Error> {
        Ok(ShardId(1))
    }

    fn revocations(&self, _shard: ShardId) -> BoxFuture<'_, Result<u64, Error>> {
        self.revocations_asked.fetch_add(1, Ordering::SeqCst);
        async {
            match self.accounts_cut_off.load(Ordering::SeqCst) {
                true => Err(Error::new(Code::Unavailable, "no leader")),
                false => Ok(self.state.lock().unwrap().revocations),
            }
        }
        .boxed()
    }

    fn node_id(&self) -> Option<NodeId> {
        Some(NodeId(1))
    }

    fn readiness(&self) -> Readiness {
        let ready = self.ready.load(Ordering::SeqCst);
        let reason = if ready { "" } else { "shard 3 has no leader" };
        Readiness { ready, reason: reason.into() }
    }

    fn status(&self) -> BoxFuture<'_, StatusResponse> {
        async { StatusResponse { cluster_id: "c1".into(), node_id: 1, ..Default::default() } }
            .boxed()
    }

    fn init_cluster(&self, _nodes: usize, _shards: u16) -> BoxFuture<'_, Result<String, Error>> {
        let initialized = self.initialized.swap(true, Ordering::SeqCst);
        async move {
            match initialized {
                true => Err(Error::new(Code::AlreadyInitialized, "there is a cluster")),
                false => Ok("c1".to_owned()),
            }
        }
        .boxed()
    }

    fn compact(&self) -> BoxFuture<'_, Result<(u64, u64), Error>> {
        async { Ok((100, 40)) }.boxed()
    }

    fn data_shards(&self) -> Result<Vec<ShardId>, Error> {
        Ok(vec![ShardId(1), ShardId(2)])
    }

    /// Shard 2 is said to have something wrong.
    fn placement(&self) -> BoxFuture<'_, Result<PlacementResponse, Error>> {
        async { Ok(PlacementResponse { version: 7, ..Default::default() }) }.boxed()
    }

    fn operate<'a>(
        &'a self,
        who: &'a str,
        order: Order,
        dry_run: bool,
    ) -> BoxFuture<'a, Result<Plan, Error>> {
        async move { Ok(Plan { steps: vec![format!("{who}: {order} {dry_run}")] }) }.boxed()
    }

    fn issue_join_token<'a>(
        &'a self,
        who: &'a str,
        hash: Bytes,
        ttl_ms: u64,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        async move {
            assert_eq!(hash.len(), 32);
            self.record(who, "make a join token", "done").await?;
            Ok(ttl_ms + 1)
        }
        .boxed()
    }

    fn record<'a>(
        &'a self,
        who: &'a str,
        action: &'a str,
        outcome: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            self.try_record(who, action, outcome).await;
            Ok(())
        }
        .boxed()
    }

    fn try_record<'a>(
        &'a self,
        who: &'a str,
        action: &'a str,
        outcome: &'a str,
    ) -> BoxFuture<'a, ()> {
        let (who, action, outcome) = (who.into(), action.into(), outcome.into());
        let record = AuditRecord { who, action, outcome, ..Default::default() };
        self.audit.lock().unwrap().push(record);
        async {}.boxed()
    }

    fn audit(&self, _limit: u64) -> BoxFuture<'_, Result<Vec<AuditRecord>, Error>> {
        async { Ok(self.audit.lock().unwrap().clone()) }.boxed()
    }

    fn quorum_critical(&self, _node: NodeId) -> BoxFuture<'_, Result<Vec<ShardId>, Error>> {
        async { Ok(vec![ShardId(2)]) }.boxed()
    }

    fn verify<'a>(
        &'a self,
        shard: ShardId,
        report: &'a mut dyn Report,
    ) -> BoxFuture<'a, Result<(), Error>> {
        report.verified(3, 40);
        if shard == ShardId(2) {
            let (kind, nodes) = (Kind::Differs, vec![NodeId(1)]);
            let detail = "as planted".into();
            report.found(Finding { shard, room: None, kind, seq: Seq(7), nodes, detail });
        }
        async { Ok(()) }.boxed()
    }

    fn repair(&self, _shard: ShardId, node: NodeId) -> BoxFuture<'_, Result<(), Error>> {
        async move {
            match node {
                NodeId(1) => Ok(()),
                _ => Err(Error::invalid("it differs from nobody")),
            }
        }
        .boxed()
    }
}

/// An epoch that no room has.
pub fn other_epoch() -> Epoch {
    Epoch::parse("other").unwrap()
}
