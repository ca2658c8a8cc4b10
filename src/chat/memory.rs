//! The state as plain maps, for tests and tools. Keeps everything, dedup rows included.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::chat::event::Event;
use crate::chat::state::{Notes, Participant, Room, Scope, Sent, State, StateMut, User};
use crate::id::{RequestId, RoomId, Seq, UserId};

/// One shard's state in memory. Two are equal when every row and event is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    log_time_ms: u64,
    revocations: u64,
    rooms: BTreeMap<RoomId, Arc<Room>>,
    participants: BTreeMap<(RoomId, UserId), Participant>,
    users: BTreeMap<UserId, Arc<User>>,
    pub(crate) sent: BTreeMap<(Scope, UserId, RequestId), Sent>,
    notes: BTreeMap<(RoomId, Seq), Arc<Notes>>,
    pub(crate) marks: BTreeMap<(RoomId, String), u64>,
    /// Each room's kept events, dense.
    events: BTreeMap<RoomId, Vec<Arc<Event>>>,
}

impl Memory {
    /// Drops a room's events below `first_seq`, as retention does: moves `first_seq` and
    /// `chain_base`. Ignored when there is no such room, or nothing to drop.
    pub fn trim(&mut self, room: &RoomId, first_seq: Seq) {
        let (Some(row), Some(events)) = (self.rooms.get_mut(room), self.events.get_mut(room))
        else {
            return;
        };
        let row = Arc::make_mut(row);
        self.notes.retain(|(id, seq), _| id != room || *seq >= first_seq);
        let dropped = events.partition_point(|event| event.seq < first_seq);
        for event in events.drain(..dropped) {
            row.chain_base = event.chain(&row.chain_base);
            row.first_seq = event.seq.next();
        }
    }

    /// Puts a room under another epoch, as a restore will.
    pub fn set_epoch(&mut self, room: &RoomId, epoch: crate::id::Epoch) {
        if let Some(row) = self.rooms.get_mut(room) {
            Arc::make_mut(row).epoch = epoch;
        }
    }
}

/// Everything above `after`; everything at all when it is `None`.
fn above<K: Clone>(after: Option<&K>) -> (Bound<K>, Bound<K>) {
    (after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone())), Bound::Unbounded)
}

impl State for Memory {
    fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    fn revocations(&self) -> u64 {
        self.revocations
    }

    fn room(&self, room: &RoomId) -> Option<Arc<Room>> {
        self.rooms.get(room).cloned()
    }

    fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Vec<Arc<Room>> {
        self.rooms.range(above(after)).take(limit).map(|(_, room)| room.clone()).collect()
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
        self.participants
            .iter()
            .filter(|((id, user), _)| id == room && after.is_none_or(|after| user > after))
            .take(limit)
            .map(|((_, user), participant)| (user.clone(), participant.clone()))
            .collect()
    }

    fn user(&self, user: &UserId) -> Option<Arc<User>> {
        self.users.get(user).cloned()
    }

    fn users(&self, after: Option<&UserId>, limit: usize) -> Vec<Arc<User>> {
        self.users.range(above(after)).take(limit).map(|(_, user)| user.clone()).collect()
    }

    fn sent(&self, scope: &Scope, sender: &UserId, id: RequestId) -> Option<Sent> {
        self.sent.get(&(scope.clone(), sender.clone(), id)).cloned()
    }

    fn notes(&self, room: &RoomId, seq: Seq) -> Option<Arc<Notes>> {
        self.notes.get(&(room.clone(), seq)).cloned()
    }

    fn notes_in(&self, room: &RoomId, first: Seq, last: Seq) -> Vec<(Seq, Arc<Notes>)> {
        if first > last {
            return Vec::new();
        }
        self.notes
            .range((room.clone(), first)..=(room.clone(), last))
            .map(|((_, seq), notes)| (*seq, notes.clone()))
            .collect()
    }

    fn import_mark(&self, room: &RoomId, source: &str) -> u64 {
        self.marks.get(&(room.clone(), source.to_owned())).copied().unwrap_or(0)
    }

    fn events(
        &self,
        room: &RoomId,
        first: Seq,
        last: Seq,
        limit: usize,
        bytes: usize,
    ) -> Vec<Arc<Event>> {
        let Some(events) = self.events.get(room) else { return Vec::new() };
        let from = events.partition_point(|event| event.seq < first);
        let mut page: Vec<Arc<Event>> = Vec::new();
        let mut room_left = bytes;
        for event in events[from..].iter().take_while(|event| event.seq <= last).take(limit) {
            let size = event.body.text().len();
            if size > room_left && !page.is_empty() {
                break;
            }
            room_left = room_left.saturating_sub(size);
            page.push(event.clone());
        }
        page
    }
}

impl StateMut for Memory {
    fn advance_log_time(&mut self, ms: u64) {
        self.log_time_ms = self.log_time_ms.max(ms);
    }

    fn note_revocation(&mut self) {
        self.revocations += 1;
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
        self.marks.insert((room.clone(), source.to_owned()), line);
    }

    fn append_event(&mut self, room: &RoomId, event: Arc<Event>) {
        let events = self.events.entry(room.clone()).or_default();
        if let Some(last) = events.last() {
            assert_eq!(event.seq, last.seq.next(), "appended events are dense");
        }
        events.push(event);
    }

    fn erase_body(&mut self, room: &RoomId, seq: Seq) {
        let stored = self
            .events
            .get_mut(room)
            .and_then(|events| events.iter_mut().find(|event| event.seq == seq));
        if let Some(event) = stored {
            *event = Arc::new(event.erased());
        }
    }

    fn forget_events(&mut self, room: &RoomId, first: Seq) {
        if let Some(events) = self.events.get_mut(room) {
            events.retain(|event| event.seq >= first);
        }
        self.notes.retain(|(id, seq), _| id != room || *seq >= first);
    }
}
