//! Rules just real enough for the gateway's tests, over plain maps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::server::NOW_MS;
use crate::chat::apply;
use crate::chat::command::{Actor, Command, Done, Imported, Rejection, Request};
use crate::chat::event::{Body, Event, EventKind, Role};
use crate::chat::memory::Memory;
use crate::chat::query::{Annotated, Events, OwnRoom, OwnRooms, Page, Unread};
use crate::chat::state::room_row;
use crate::chat::state::{Notes, Participant, Room, State as _, StateMut as _, Token, User};
use crate::delivery::encoded::Encoded;
use crate::error::{Code, Error};
use crate::id::{Cursor, RequestId, RoomId, Seq, UserId};
use crate::limits::{CLOCK_SKEW_MS_MAX, DEDUP_HORIZON_MS};

/// A room with everything in it.
pub struct FakeRoom {
    pub room: Room,
    pub events: Vec<Arc<Encoded>>,
    pub participants: BTreeMap<UserId, Participant>,
    notes: BTreeMap<Seq, Notes>,
    sent: BTreeMap<(UserId, RequestId), (Done, Command)>,
}

/// Everything.
#[derive(Default)]
pub struct State {
    pub users: BTreeMap<UserId, User>,
    pub rooms: BTreeMap<RoomId, FakeRoom>,
    pub time_ms: u64,
    /// How long after `NOW_MS` it is, for accounts.
    pub passed_ms: u64,
    pub revocations: u64,
}

/// What a command makes of a room.
struct Draft {
    kind: EventKind,
    target: Option<Seq>,
    subject: Option<UserId>,
    role: Option<Role>,
    texts: Vec<String>,
    imported: Option<Imported>,
}

impl Draft {
    fn new(kind: EventKind, text: &str) -> Draft {
        let texts = vec![text.to_owned()];
        Draft { kind, target: None, subject: None, role: None, texts, imported: None }
    }

    fn about(self, target: Option<Seq>) -> Draft {
        Draft { target, ..self }
    }
}

impl FakeRoom {
    fn command(
        &mut self,
        at_ms: u64,
        actor: &Actor,
        request_id: RequestId,
        command: &Command,
    ) -> Result<Done, Rejection> {
        if request_id.unix_ms() > NOW_MS + CLOCK_SKEW_MS_MAX {
            return Err(Rejection::ClockSkew { server_time_ms: NOW_MS });
        }
        if request_id.unix_ms() < NOW_MS - DEDUP_HORIZON_MS {
            return Err(Rejection::Expired { horizon_ms: DEDUP_HORIZON_MS });
        }
        if let Command::MarkRead { seq, .. } = command {
            return self.mark_read(at_ms, actor, *seq);
        }
        let key = (actor.user.clone(), request_id);
        if let Some((done, first)) = self.sent.get(&key) {
            let same = match (command, first) {
                (Command::Post { text: a, .. }, Command::Post { text: b, .. }) => a == b,
                _ => true,
            };
            let done = Done { duplicate: true, ..done.clone() };
            return if same { Ok(done) } else { Err(Rejection::IdReused) };
        }
        let draft = self.draft(at_ms, actor, command)?;
        let imported = draft.imported;
        self.append(at_ms, actor, request_id, draft);
        let (seq, epoch) = (self.room.head, Some(self.room.epoch.clone()));
        let done = Done { seq, epoch, at_ms, duplicate: false, imported };
        self.sent.insert(key, (done.clone(), command.clone()));
        Ok(done)
    }

    fn mark_read(&mut self, at_ms: u64, actor: &Actor, seq: Seq) -> Result<Done, Rejection> {
        let room = self.room.id.clone();
        if seq > self.room.head {
            return Err(Rejection::EventNotFound { room, seq });
        }
        let part = self.participants.get_mut(&actor.user);
        let part = part.ok_or(Rejection::NotParticipant(room))?;
        let duplicate = seq <= part.read;
        part.read = seq.max(part.read);
        let epoch = Some(self.room.epoch.clone());
        Ok(Done { seq: part.read, epoch, at_ms, duplicate, imported: None })
    }

    fn draft(&mut self, at_ms: u64, actor: &Actor, command: &Command) -> Result<Draft, Rejection> {
        let id = self.room.id.clone();
        let role = self.participants.get(&actor.user).map(|p| p.role);
        Ok(match command {
            Command::CreateRoom { .. } | Command::Join { .. } => {
                let role = if self.participants.is_empty() { Role::Owner } else { Role::Member };
                let part = Participant::new(role, at_ms);
                self.participants.insert(actor.user.clone(), part);
                Draft::new(EventKind::Join, "")
            }
            Command::Leave { .. } => {
                self.participants.remove(&actor.user);
                Draft::new(EventKind::Leave, "")
            }
            Command::SetRole { user, role, .. } => {
                let part = Participant::new(*role, at_ms);
                self.participants.insert(user.clone(), part);
                let (subject, role) = (Some(user.clone()), Some(*role));
                Draft { subject, role, ..Draft::new(EventKind::Role, "") }
            }
            Command::Import { lines, .. } => {
                let texts = lines.iter().map(|line| line.text.clone()).collect();
                let line = lines.last().map_or(0, |line| line.line);
                let imported = Some(Imported { line, count: lines.len() as u64 });
                Draft { texts, imported, ..Draft::new(EventKind::Message, "") }
            }
            _ if role == Some(Role::Banned) => return Err(Rejection::Banned(id)),
            _ if role == Some(Role::Muted) => return Err(Rejection::Muted(id)),
            _ if role.is_none() => return Err(Rejection::NotParticipant(id)),
            Command::Post { kind, text, reply_to, .. } => Draft::new(*kind, text).about(*reply_to),
            Command::Edit { target, .. }
            | Command::Redact { target, .. }
            | Command::React { target, .. } => self.annotate(actor, *target, command)?,
            Command::Kick { user, .. } => {
                self.participants.remove(user);
                Draft { subject: Some(user.clone()), ..Draft::new(EventKind::Leave, "") }
            }
            Command::Invite { user, .. } => {
                Draft { subject: Some(user.clone()), ..Draft::new(EventKind::Invite, "") }
            }
            Command::Restrict { user, restriction, .. }
            | Command::Lift { user, restriction, .. } => {
                let (subject, role) = (Some(user.clone()), Some(restriction.role()));
                Draft { subject, role, ..Draft::new(EventKind::Role, "") }
            }
            Command::SetTopic { topic, .. } => {
                self.room.topic.clone_from(topic);
                Draft::new(EventKind::Topic, topic)
            }
            Command::Pin { target, .. } => Draft::new(EventKind::Pin, "").about(Some(*target)),
            Command::Archive { withdraw, .. } => {
                self.room.archived = !withdraw;
                Draft::new(EventKind::Archive, "")
            }
            Command::SetRetention { retention, .. } => {
                self.room.retention = *retention;
                Draft::new(EventKind::Retention, "")
            }
            _ => unreachable!("user commands are not room commands"),
        })
    }

    fn annotate(
        &mut self,
        actor: &Actor,
        target: Seq,
        command: &Command,
    ) -> Result<Draft, Rejection> {
        if target > self.room.head {
            return Err(Rejection::EventNotFound { room: self.room.id.clone(), seq: target });
        }
        let notes = self.notes.entry(target).or_default();
        let draft = match command {
            Command::Edit { text, .. } => {
                notes.edits.push(self.room.head.next());
                Draft::new(EventKind::Edit, text)
            }
            Command::React { symbol, .. } => {
                notes.reactions.push((symbol.clone(), vec![actor.user.clone()]));
                Draft::new(EventKind::Reaction, symbol)
            }
            _ => {
                notes.edits.clear();
                let at = target.0 as usize - 1;
                let mut event = (*self.events[at].event).clone();
                event.body = Body::Erased { hash: event.body.hash() };
                self.events[at] = Encoded::new(Arc::new(event));
                Draft::new(EventKind::Redaction, "")
            }
        };
        Ok(draft.about(Some(target)))
    }

    fn append(&mut self, at_ms: u64, actor: &Actor, request_id: RequestId, draft: Draft) {
        for text in draft.texts {
            self.room.head = self.room.head.next();
            let event = Event {
                seq: self.room.head,
                at_ms,
                sender: actor.user.clone(),
                kind: draft.kind,
                request_id,
                target: draft.target,
                subject: draft.subject.clone(),
                role: draft.role,
                withdrawn: false,
                until_ms: None,
                original_at_ms: None,
                original_sender: None,
                body: Body::Present { salt: [7; 16], text },
            };
            self.room.chain = event.chain(&self.room.chain);
            self.events.push(Encoded::new(Arc::new(event)));
        }
        self.room.participants = self.participants.len() as u64;
    }
}

impl State {
    pub fn apply(&mut self, Request { actor, id, command }: Request) -> Result<Done, Rejection> {
        let at_ms = self.time_ms;
        let done = |duplicate| Done { seq: Seq(0), epoch: None, at_ms, duplicate, imported: None };
        match command {
            Command::CreateUser { user, display_name, admin, token_hash } => {
                if self.users.contains_key(&user) {
                    return Ok(done(true));
                }
                let token = |hash| Token::new(hash, String::new(), at_ms);
                let tokens = token_hash.map(token).into_iter().collect();
                let row = User::new(user.clone(), display_name, admin, 0);
                self.users.insert(user, User { tokens, ..row });
                Ok(done(false))
            }
            Command::IssueToken { user, token_hash, label } => {
                let row = self.users.get_mut(&user).ok_or(Rejection::UserNotFound(user))?;
                row.tokens.push(Token::new(token_hash, label, at_ms));
                Ok(done(false))
            }
            Command::RevokeToken { ref user, .. } | Command::ChangeUser { ref user, .. } => {
                let user = user.clone();
                self.change_user(user, Request { actor, id, command })
            }
            Command::CreateRoom { ref room, ref title, kind, ref epoch, .. } => {
                if let Some(old) = self.rooms.get(room) {
                    if old.room.title != *title || old.room.kind != kind {
                        return Err(Rejection::AlreadyExists(room.to_string()));
                    }
                    return Ok(Done { epoch: Some(old.room.epoch.clone()), ..done(true) });
                }
                let row = Room {
                    kind,
                    title: title.clone(),
                    epoch: epoch.clone(),
                    created_at_ms: at_ms,
                    creator: actor.user.clone(),
                    ..room_row(room.clone())
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
            | Command::Import { ref room, .. }
            | Command::Invite { ref room, .. }
            | Command::Kick { ref room, .. }
            | Command::Restrict { ref room, .. }
            | Command::Lift { ref room, .. }
            | Command::SetTopic { ref room, .. }
            | Command::Pin { ref room, .. }
            | Command::Archive { ref room, .. }
            | Command::SetRetention { ref room, .. }
            | Command::MarkRead { ref room, .. }
            | Command::Trim { ref room, .. } => self.room_command(room, &actor, id, &command),
        }
    }

    pub fn own_rooms(&self, user: &UserId, after: Option<&RoomId>, limit: usize) -> OwnRooms {
        let above = self.rooms.iter().filter(|(id, _)| Some(*id) > after);
        let own = above.filter_map(|(_, room)| {
            let part = room.participants.get(user)?.clone();
            let unread = Unread { messages: room.room.head.0 - part.read.0, ..Unread::default() };
            let room = Arc::new(room.room.clone());
            Some(OwnRoom { room, own: (user.clone(), part), unread })
        });
        let rooms: Vec<OwnRoom> = own.take(limit).collect();
        let last = rooms.last().map(|own| own.room.id.clone());
        let next = last.filter(|_| rooms.len() == limit);
        (rooms, next)
    }

    /// As the rules of chat have it, at the time of these tests.
    fn change_user(&mut self, user: UserId, request: Request) -> Result<Done, Rejection> {
        let mut memory = Memory::default();
        memory.advance_log_time(NOW_MS + self.passed_ms);
        if let Some(row) = self.users.get(&user) {
            memory.put_user(row.clone());
        }
        let done = apply::apply(&mut memory, request, &mut Vec::new())?;
        self.revocations += memory.revocations();
        let row = memory.user(&user).expect("it was changed");
        self.users.insert(user, Arc::unwrap_or_clone(row));
        Ok(done)
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
        room.command(at_ms, actor, request_id, command)
    }

    pub fn page(&self, id: &RoomId, page: &Page, limit: usize) -> Result<Events, Error> {
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
            let notes = notes.map(Arc::new);
            Annotated { event: event.event.clone(), edits, notes, replies: None }
        };
        let events = events.into_iter().map(annotated).collect();
        Ok(Events { epoch, first_seq, head, recovered, events })
    }
}

/// Where a cursor leads to, and whether nothing is missing.
pub fn check(room: &Room, cursor: &Cursor) -> Result<(Seq, bool), Error> {
    let gap = (Seq(room.first_seq.0 - 1), false);
    if cursor.epoch.as_ref().is_some_and(|epoch| *epoch != room.epoch) {
        return Ok(gap);
    }
    if cursor.seq > room.head {
        return Err(Error::new(Code::InvalidCursor, "the cursor is beyond the room's head"));
    }
    Ok(if cursor.seq.next() < room.first_seq { gap } else { (cursor.seq, true) })
}
