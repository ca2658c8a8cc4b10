//! The state as plain maps, and its comparison with a real one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::chat::event::{Body, Event};
use crate::chat::state::{Notes, Participant, Room, Scope, Sent, State, StateMut, User};
use crate::id::{RequestId, RoomId, Seq, UserId};
use crate::limits;
use crate::store::state::ShardState;

/// Everything in maps, nothing on disk.
#[derive(Default)]
pub struct Model {
    log_time_ms: u64,
    rooms: BTreeMap<RoomId, Arc<Room>>,
    participants: BTreeMap<(RoomId, UserId), Participant>,
    users: BTreeMap<UserId, Arc<User>>,
    pub sent: BTreeMap<(Scope, UserId, RequestId), Sent>,
    notes: BTreeMap<(RoomId, Seq), Arc<Notes>>,
    marks: BTreeMap<(RoomId, String), u64>,
    events: BTreeMap<RoomId, Vec<Arc<Event>>>,
}

impl State for Model {
    fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }
    fn room(&self, room: &RoomId) -> Option<Arc<Room>> {
        self.rooms.get(room).cloned()
    }
    fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Vec<Arc<Room>> {
        let rooms = self.rooms.iter().filter(|(id, _)| after.is_none_or(|after| *id > after));
        rooms.map(|(_, room)| room.clone()).take(limit).collect()
    }
    fn participant(&self, room: &RoomId, user: &UserId) -> Option<Participant> {
        self.participants.get(&(room.clone(), user.clone())).cloned()
    }
    fn participants(
        &self,
        room: &RoomId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Vec<(UserId, Participant)> {
        let rows = self.participants.iter();
        let rows = rows.filter(|((r, u), _)| r == room && after.is_none_or(|after| u > after));
        rows.map(|((_, user), p)| (user.clone(), p.clone())).take(limit).collect()
    }
    fn user(&self, user: &UserId) -> Option<Arc<User>> {
        self.users.get(user).cloned()
    }
    fn users(&self, after: Option<&UserId>, limit: usize) -> Vec<Arc<User>> {
        let users = self.users.iter().filter(|(id, _)| after.is_none_or(|after| *id > after));
        users.map(|(_, user)| user.clone()).take(limit).collect()
    }
    fn sent(&self, scope: &Scope, sender: &UserId, id: RequestId) -> Option<Sent> {
        let horizon = self.log_time_ms.saturating_sub(limits::DEDUP_HORIZON_MS) / 60_000;
        let live = id.unix_ms() / 60_000 >= horizon;
        self.sent.get(&(scope.clone(), sender.clone(), id)).filter(|_| live).cloned()
    }
    fn notes(&self, room: &RoomId, seq: Seq) -> Option<Arc<Notes>> {
        self.notes.get(&(room.clone(), seq)).cloned()
    }
    fn notes_in(&self, room: &RoomId, first: Seq, last: Seq) -> Vec<(Seq, Arc<Notes>)> {
        let rows = self.notes.iter().filter(|((r, s), _)| r == room && *s >= first && *s <= last);
        rows.map(|((_, seq), notes)| (*seq, notes.clone())).collect()
    }
    fn import_mark(&self, room: &RoomId, source: &str) -> u64 {
        self.marks.get(&(room.clone(), source.to_string())).copied().unwrap_or(0)
    }
    fn events(
        &self,
        room: &RoomId,
        first: Seq,
        last: Seq,
        limit: usize,
        bytes: usize,
    ) -> Vec<Arc<Event>> {
        let mut page: Vec<Arc<Event>> = Vec::new();
        let mut left = bytes;
        for event in self.events.get(room).into_iter().flatten() {
            if event.seq < first || event.seq > last || page.len() >= limit {
                continue;
            }
            let len = event.body.text().len();
            if len > left && !page.is_empty() {
                break;
            }
            left = left.saturating_sub(len);
            page.push(event.clone());
        }
        page
    }
}

impl StateMut for Model {
    fn advance_log_time(&mut self, ms: u64) {
        self.log_time_ms = self.log_time_ms.max(ms);
    }
    fn put_room(&mut self, room: Room) {
        self.rooms.insert(room.id.clone(), Arc::new(room));
    }
    fn put_participant(&mut self, room: &RoomId, user: &UserId, participant: Option<Participant>) {
        let key = (room.clone(), user.clone());
        match participant {
            Some(participant) => self.participants.insert(key, participant),
            None => self.participants.remove(&key),
        };
    }
    fn put_user(&mut self, user: User) {
        self.users.insert(user.id.clone(), Arc::new(user));
    }
    fn put_sent(&mut self, scope: &Scope, id: RequestId, sent: Sent) {
        self.sent.insert((scope.clone(), sent.sender.clone(), id), sent);
    }
    fn put_notes(&mut self, room: &RoomId, seq: Seq, notes: Notes) {
        self.notes.insert((room.clone(), seq), Arc::new(notes));
    }
    fn put_import_mark(&mut self, room: &RoomId, source: &str, line: u64) {
        self.marks.insert((room.clone(), source.to_string()), line);
    }
    fn append_event(&mut self, room: &RoomId, event: Arc<Event>) {
        self.events.entry(room.clone()).or_default().push(event);
    }
    fn erase_body(&mut self, room: &RoomId, seq: Seq) {
        let events = self.events.get_mut(room).unwrap();
        let event = Arc::make_mut(&mut events[seq.0 as usize - 1]);
        event.body = Body::Erased { hash: event.body.hash() };
    }
}

/// Asserts that both answer everything alike.
pub fn compare(state: &ShardState, model: &Model) {
    assert_eq!(state.log_time_ms(), model.log_time_ms());
    let rooms = state.rooms(None, usize::MAX);
    assert_eq!(rooms, model.rooms(None, usize::MAX));
    for after in rooms.iter().map(|room| &room.id) {
        assert_eq!(state.room(after), model.room(after));
        assert_eq!(state.rooms(Some(after), 3), model.rooms(Some(after), 3));
    }
    let users = state.users(None, usize::MAX);
    assert_eq!(users, model.users(None, usize::MAX));
    for user in &users {
        assert_eq!(state.user(&user.id), model.user(&user.id));
        assert_eq!(state.users(Some(&user.id), 2), model.users(Some(&user.id), 2));
    }
    rooms.iter().for_each(|room| compare_room(state, model, room));
    for ((room, source), line) in &model.marks {
        assert_eq!(state.import_mark(room, source), *line);
    }
    for (scope, sender, id) in model.sent.keys() {
        assert_eq!(
            state.sent(scope, sender, *id),
            model.sent(scope, sender, *id),
            "{scope:?} {sender} {id}"
        );
        let other = UserId::parse("nobody").unwrap();
        assert_eq!(state.sent(scope, &other, *id), None);
    }
}

fn compare_room(state: &ShardState, model: &Model, room: &Room) {
    let id = &room.id;
    let participants = state.participants(id, None, usize::MAX);
    assert_eq!(participants, model.participants(id, None, usize::MAX));
    for (user, participant) in &participants {
        assert_eq!(state.participant(id, user).as_ref(), Some(participant));
        assert_eq!(state.participants(id, Some(user), 2), model.participants(id, Some(user), 2));
    }
    let (least, most) = (Seq(0), Seq(u64::MAX));
    assert_eq!(state.notes_in(id, least, most), model.notes_in(id, least, most));
    assert_eq!(state.notes_in(id, Seq(5), Seq(9)), model.notes_in(id, Seq(5), Seq(9)));
    for seq in 0..room.head.0 + 2 {
        assert_eq!(state.notes(id, Seq(seq)), model.notes(id, Seq(seq)));
    }
    let all = state.events(id, Seq(1), most, usize::MAX, usize::MAX);
    assert_eq!(all, model.events(id, Seq(1), most, usize::MAX, usize::MAX));
    assert_eq!(all.len() as u64, room.head.0);
    for (first, last, limit, bytes) in
        [(1, 7, 3, 9999), (3, 900, 5, 500), (room.head.0 / 2, room.head.0, 50, 2000), (9, 4, 9, 9)]
    {
        assert_eq!(
            state.events(id, Seq(first), Seq(last), limit, bytes),
            model.events(id, Seq(first), Seq(last), limit, bytes),
            "{id} {first}..={last}, {limit} events, {bytes} bytes"
        );
    }
}
