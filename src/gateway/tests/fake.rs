//! A backend of plain maps, with rules just real enough for the gateway's tests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::{Semaphore, watch};

use crate::chat::command::{Actor, Command, Done, Imported, Rejection, Request};
use crate::chat::event::{Body, Event, EventKind, Hash, Role};
use crate::chat::query::{Annotated, Answer, Events, Page, Query};
use crate::chat::state::{Notes, Participant, Room, Token, User};
use crate::delivery::encoded::Encoded;
use crate::delivery::subscription::Next;
use crate::error::{Code, Error};
use crate::gateway::backend::{Backend, Feed};
use crate::id::{Cursor, Epoch, NodeId, RequestId, RoomId, Seq, UserId};
use crate::proto::v1::StatusResponse;
use crate::router::{Consistency, Readiness};

struct FakeRoom {
    room: Room,
    events: Vec<Arc<Encoded>>,
    participants: BTreeMap<UserId, Participant>,
    notes: BTreeMap<Seq, Notes>,
    sent: BTreeMap<(UserId, RequestId), (Done, Command)>,
}

#[derive(Default)]
struct State {
    users: BTreeMap<UserId, User>,
    rooms: BTreeMap<RoomId, FakeRoom>,
    time_ms: u64,
}

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
    pub ready: AtomicBool,
    pub initialized: AtomicBool,
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
            ready: AtomicBool::new(true),
            initialized: AtomicBool::new(false),
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
}

impl State {
    fn apply(&mut self, Request { actor, id, command }: Request) -> Result<Done, Rejection> {
        let at_ms = self.time_ms;
        let done = |duplicate| Done { seq: Seq(0), epoch: None, at_ms, duplicate, imported: None };
        match command {
            Command::CreateUser { user, display_name, admin, token_hash } => {
                if self.users.contains_key(&user) {
                    return Ok(done(true));
                }
                let token = |hash| Token { hash, label: String::new(), issued_at_ms: at_ms };
                let tokens = token_hash.map(token).into_iter().collect();
                let row = User { id: user.clone(), display_name, admin, created_at_ms: 0, tokens };
                self.users.insert(user, row);
                Ok(done(false))
            }
            Command::IssueToken { user, token_hash, label } => {
                let row = self.users.get_mut(&user).ok_or(Rejection::UserNotFound(user))?;
                row.tokens.push(Token { hash: token_hash, label, issued_at_ms: at_ms });
                Ok(done(false))
            }
            Command::RevokeToken { user, token_hash } => {
                let row = self.users.get_mut(&user).ok_or(Rejection::UserNotFound(user))?;
                row.tokens.retain(|token| token.hash != token_hash);
                Ok(done(false))
            }
            Command::CreateRoom { ref room, ref title, kind, ref epoch, .. } => {
                if let Some(old) = self.rooms.get(room) {
                    if old.room.title != *title || old.room.kind != kind {
                        return Err(Rejection::AlreadyExists(room.to_string()));
                    }
                    return Ok(Done { epoch: Some(old.room.epoch.clone()), ..done(true) });
                }
                let row = Room {
                    id: room.clone(),
                    kind,
                    title: title.clone(),
                    topic: String::new(),
                    epoch: epoch.clone(),
                    first_seq: Seq(1),
                    head: Seq(0),
                    chain: [0; 32],
                    chain_base: [0; 32],
                    participants: 0,
                    created_at_ms: at_ms,
                    creator: actor.user.clone(),
                };
                let fresh = FakeRoom {
                    room: row,
                    events: Vec::new(),
                    participants: BTreeMap::new(),
                    notes: BTreeMap::new(),
                    sent: BTreeMap::new(),
                };
                self.rooms.insert(room.clone(), fresh);
                self.room_command(room, &actor, id, &command)
            }
            Command::Join { ref room, .. }
            | Command::Leave { ref room, .. }
            | Command::Post { ref room, .. }
            | Command::Edit { ref room, .. }
            | Command::Redact { ref room, .. }
            | Command::React { ref room, .. }
            | Command::SetRole { ref room, .. }
            | Command::Import { ref room, .. } => self.room_command(room, &actor, id, &command),
        }
    }

    fn room_command(
        &mut self,
        id: &RoomId,
        actor: &Actor,
        request_id: RequestId,
        command: &Command,
    ) -> Result<Done, Rejection> {
        let at_ms = self.time_ms;
        let room = self.rooms.get_mut(id).ok_or_else(|| Rejection::RoomNotFound(id.clone()))?;
        if request_id.unix_ms() > super::server::NOW_MS + 300_000 {
            return Err(Rejection::ClockSkew { server_time_ms: super::server::NOW_MS });
        }
        let key = (actor.user.clone(), request_id);
        if let Some((done, first)) = room.sent.get(&key) {
            let same = match (command, first) {
                (Command::Post { text: a, .. }, Command::Post { text: b, .. }) => a == b,
                _ => true,
            };
            let done = Done { duplicate: true, ..done.clone() };
            return if same { Ok(done) } else { Err(Rejection::IdReused) };
        }
        let (mut imported, mut texts) = (None, vec![String::new()]);
        let (mut kind, mut target, mut subject, mut new_role) = (EventKind::Join, None, None, None);
        let role = room.participants.get(&actor.user).map(|p| p.role);
        match command {
            Command::CreateRoom { .. } | Command::Join { .. } => {
                let role = if room.participants.is_empty() { Role::Owner } else { Role::Member };
                let part = Participant { role, since_ms: at_ms };
                room.participants.insert(actor.user.clone(), part);
            }
            Command::Leave { .. } => {
                kind = EventKind::Leave;
                room.participants.remove(&actor.user);
            }
            Command::SetRole { user, role, .. } => {
                let part = Participant { role: *role, since_ms: at_ms };
                room.participants.insert(user.clone(), part);
                (kind, subject, new_role) = (EventKind::Role, Some(user.clone()), Some(*role));
            }
            Command::Import { lines, .. } => {
                kind = EventKind::Message;
                texts = lines.iter().map(|line| line.text.clone()).collect();
                let line = lines.last().map_or(0, |line| line.line);
                imported = Some(Imported { line, count: lines.len() as u64 });
            }
            _ if role == Some(Role::Banned) => return Err(Rejection::Banned(id.clone())),
            _ if role == Some(Role::Muted) => return Err(Rejection::Muted(id.clone())),
            _ if role.is_none() => return Err(Rejection::NotParticipant(id.clone())),
            Command::Post { kind: posted, text, reply_to, .. } => {
                (kind, target, texts) = (*posted, *reply_to, vec![text.clone()]);
            }
            Command::Edit { target: seq, .. }
            | Command::Redact { target: seq, .. }
            | Command::React { target: seq, .. } => {
                if *seq > room.room.head {
                    return Err(Rejection::EventNotFound { room: id.clone(), seq: *seq });
                }
                target = Some(*seq);
                let notes = room.notes.entry(*seq).or_default();
                match command {
                    Command::Edit { text, .. } => {
                        (kind, texts) = (EventKind::Edit, vec![text.clone()]);
                        notes.edits.push(room.room.head.next());
                    }
                    Command::React { symbol, .. } => {
                        (kind, texts) = (EventKind::Reaction, vec![symbol.clone()]);
                        notes.reactions.push((symbol.clone(), vec![actor.user.clone()]));
                    }
                    _ => {
                        kind = EventKind::Redaction;
                        notes.edits.clear();
                        let at = seq.0 as usize - 1;
                        let mut event = (*room.events[at].event).clone();
                        event.body = Body::Erased { hash: event.body.hash() };
                        room.events[at] = Encoded::new(Arc::new(event));
                    }
                }
            }
            _ => unreachable!("user commands are not room commands"),
        }
        for text in texts {
            room.room.head = room.room.head.next();
            let event = Event {
                seq: room.room.head,
                at_ms,
                sender: actor.user.clone(),
                kind,
                request_id,
                target,
                subject: subject.clone(),
                role: new_role,
                withdrawn: false,
                original_at_ms: None,
                original_sender: None,
                body: Body::Present { salt: [7; 16], text },
            };
            room.room.chain = event.chain(&room.room.chain);
            room.events.push(Encoded::new(Arc::new(event)));
        }
        room.room.participants = room.participants.len() as u64;
        let done = Done {
            seq: room.room.head,
            epoch: Some(room.room.epoch.clone()),
            at_ms,
            duplicate: false,
            imported,
        };
        room.sent.insert(key, (done.clone(), command.clone()));
        Ok(done)
    }

    fn page(&self, id: &RoomId, page: &Page, limit: usize) -> Result<Events, Error> {
        let room = self.rooms.get(id).ok_or_else(|| Rejection::RoomNotFound(id.clone()))?;
        let Room { epoch, first_seq, head, .. } = room.room.clone();
        let mut recovered = true;
        let events: Vec<_> = match page {
            Page::After(cursor) => {
                let after = check(&room.room, cursor)?;
                recovered = after.1;
                room.events.iter().filter(|e| e.event.seq > after.0).take(limit).collect()
            }
            Page::Before(Cursor { seq, .. }) => {
                let below = room.events.iter().filter(|e| e.event.seq < *seq).count();
                room.events[below.saturating_sub(limit)..below].iter().collect()
            }
            Page::Newest => room.events[room.events.len().saturating_sub(limit)..].iter().collect(),
        };
        let annotated = |event: &Arc<Encoded>| {
            let notes = room.notes.get(&event.event.seq).cloned();
            let edits = notes.iter().flat_map(|notes| &notes.edits).map(|seq| {
                let edit = &room.events[seq.0 as usize - 1].event;
                (*seq, edit.at_ms, edit.body.text().to_owned())
            });
            let edits = edits.collect();
            Annotated { event: event.event.clone(), edits, notes: notes.map(Arc::new) }
        };
        let events = events.into_iter().map(annotated).collect();
        Ok(Events { epoch, first_seq, head, recovered, events })
    }
}

/// Where a cursor leads to, and whether nothing is missing.
fn check(room: &Room, cursor: &Cursor) -> Result<(Seq, bool), Error> {
    let gap = (Seq(room.first_seq.0 - 1), false);
    if cursor.epoch.as_ref().is_some_and(|epoch| *epoch != room.epoch) {
        return Ok(gap);
    }
    if cursor.seq > room.head {
        return Err(Error::new(Code::InvalidCursor, "the cursor is beyond the room's head"));
    }
    Ok(if cursor.seq.next() < room.first_seq { gap } else { (cursor.seq, true) })
}

impl Backend for Arc<Fake> {
    fn execute(&self, request: Request) -> BoxFuture<'_, Result<Done, Error>> {
        async move {
            if matches!(request.command, Command::Post { .. }) {
                self.posts_begun.fetch_add(1, Ordering::SeqCst);
                self.posts_allowed.acquire().await.unwrap().forget();
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
                }),
            },
            Query::Events { room, page, limit } => {
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
            let mut changed = self.changed.subscribe();
            changed.mark_unchanged();
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
                (fake, room, start, false, changed, counted),
                move |(fake, room, mut last, mut caught_up, mut changed, counted)| async move {
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
                        changed.changed().await.ok()?;
                    };
                    Some((next, (fake, room, last, caught_up, changed, counted)))
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
    ) -> BoxFuture<'a, Result<Vec<Arc<Room>>, Error>> {
        let state = self.state.lock().unwrap();
        let above = state.rooms.values().filter(|r| Some(&r.room.id) > after.as_ref());
        let rooms = above.take(limit).map(|r| Arc::new(r.room.clone())).collect();
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
}

/// An epoch that no room has.
pub fn other_epoch() -> Epoch {
    Epoch::parse("other").unwrap()
}
