//! Reading a shard's state: rows merged from memory and base, and the digest over all of them.
//!
//! The half of [`ShardState`] that `chat` calls as [`State`]. A row that memory does not have is read
//! from the base once, and then remembered; scans merge what is pinned over what the base has.

use std::hash::Hash;
use std::io;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex};

use crate::chat::codec::put_event;
use crate::chat::event::{self, Event};
use crate::chat::state::{Notes, Participant, Room, Scope, Sent, State, User};
use crate::id::{RequestId, RoomId, Seq, UserId};
use crate::limits;
use crate::store::base::{KeyRange, Order};
use crate::store::codec::{self, damaged};
use crate::store::key::{self, Key, Space, tag};
use crate::store::merge::{Found, Merge};
use crate::store::overlay::Table;
use crate::store::pages::Page;
use crate::store::state::{ShardState, lock};
use crate::store::weigh::Weigh;

impl ShardState {
    /// A digest of everything that replicas must agree on, wherever it lies: rooms, participants,
    /// events, notes, import marks, users, blobs and log time. Reads all of it: for tests and
    /// `verify`.
    pub fn rooms_digest(&self) -> event::Hash {
        let mut digest = Digest(blake3::Hasher::new());
        digest.add(&self.log_time_ms.to_le_bytes());
        if self.revocations > 0 {
            digest.add(&self.revocations.to_le_bytes());
        }
        for room in self.rooms(None, usize::MAX) {
            digest.add(room.id.as_str().as_bytes());
            digest.add(&codec::room_value(&room));
            for (user, participant) in self.participants(&room.id, None, usize::MAX) {
                digest.add(user.as_str().as_bytes());
                digest.add(&codec::participant_value(&participant));
            }
            let mut next = room.first_seq;
            while next <= room.head {
                let events = self.events(&room.id, next, room.head, 1000, usize::MAX);
                for event in &events {
                    let mut bytes = Vec::new();
                    put_event(&mut bytes, event);
                    digest.add(&bytes);
                }
                next = events.last().map_or(Seq(u64::MAX), |event| event.seq.next());
            }
            for (seq, notes) in self.notes_in(&room.id, Seq(0), Seq(u64::MAX)) {
                digest.add(&seq.0.to_le_bytes());
                digest.add(&codec::notes_value(&notes));
            }
        }
        for user in self.users(None, usize::MAX) {
            digest.add(user.id.as_str().as_bytes());
            digest.add(&codec::user_value(&user));
        }
        let all = (Bound::Unbounded, Bound::Unbounded);
        let marks = self.scan(
            &self.marks,
            all,
            self.space.all(tag::IMPORT_MARK),
            usize::MAX,
            |key| if let Key::ImportMark(room, source) = key { Some((room, source)) } else { None },
            |(room, source)| Key::ImportMark(room.clone(), source.clone()),
            |_, value| codec::number_from(value),
        );
        for ((room, source), line) in marks {
            digest.add(room.as_str().as_bytes());
            digest.add(source.as_bytes());
            digest.add(&line.to_le_bytes());
        }
        *digest.0.finalize().as_bytes()
    }

    pub(super) fn read<K: Ord + Hash + Clone + Weigh, V: Clone + Weigh>(
        &self,
        table: &Mutex<Table<K, V>>,
        key: &K,
        to_key: impl Fn(&K) -> Key,
        from: impl Fn(&K, &[u8]) -> io::Result<V>,
    ) -> Option<V> {
        if let Some(known) = lock(table).get(key) {
            return known;
        }
        // Not pinned, so no checkpoint changes this row while it is read.
        let value = codec::get_row(self.base.as_ref(), self.space, &to_key(key));
        let value = self.or_fatal(value.and_then(|row| row.map(|row| from(key, &row)).transpose()));
        lock(table).remember(key, value.clone());
        value
    }

    #[expect(clippy::too_many_arguments, reason = "one place for what every kind of row needs")]
    fn scan<K: Ord + Hash + Clone + Weigh, V: Clone + Weigh>(
        &self,
        table: &Mutex<Table<K, V>>,
        bounds: (Bound<K>, Bound<K>),
        range: KeyRange,
        limit: usize,
        key_of: impl Fn(Key) -> Option<K>,
        to_key: impl Fn(&K) -> Key,
        from: impl Fn(&K, &[u8]) -> io::Result<V>,
    ) -> Vec<(K, V)> {
        if limit == 0 {
            return Vec::new();
        }
        let table = lock(table);
        let mut merge = Merge::new(table.pinned(bounds), limit);
        let mut foreign = false;
        let result =
            self.base.scan(&range, Order::Forward, &mut |key, value| match key::decode(key)
                .and_then(|(_, key)| key_of(key))
            {
                Some(key) => match merge.visit(key, value) {
                    true => ControlFlow::Continue(()),
                    false => ControlFlow::Break(()),
                },
                None => {
                    foreign = true;
                    ControlFlow::Break(())
                }
            });
        self.or_fatal(if foreign { Err(damaged("a key")) } else { result });
        let rows = merge.finish();
        drop(table);
        let value = |(key, found): (K, Found<V>)| {
            let value = match found {
                Found::Pinned(value) => value,
                Found::Base(value) => {
                    let whole = if codec::is_long(&value) {
                        codec::join_parts(self.base.as_ref(), self.space, &to_key(&key), value)
                    } else {
                        Ok(value)
                    };
                    self.or_fatal(whole.and_then(|value| from(&key, &value)))
                }
            };
            (key, value)
        };
        rows.into_iter().map(value).collect()
    }
}

struct Digest(blake3::Hasher);

impl Digest {
    fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }
}

impl State for ShardState {
    fn log_time_ms(&self) -> u64 {
        self.log_time_ms
    }

    fn revocations(&self) -> u64 {
        self.revocations
    }

    fn room(&self, room: &RoomId) -> Option<Arc<Room>> {
        let from = |id: &RoomId, value: &[u8]| codec::room_from(id, value).map(Arc::new);
        self.read(&self.rooms, room, |id| Key::Room(id.clone()), from)
    }

    fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Vec<Arc<Room>> {
        let mut range = self.space.all(tag::ROOM);
        if let Some(after) = after {
            range = Space::above(range, &self.space.key(&Key::Room(after.clone())));
        }
        let rooms = self.scan(
            &self.rooms,
            (above(after.cloned()), Bound::Unbounded),
            range,
            limit,
            |key| if let Key::Room(id) = key { Some(id) } else { None },
            |id| Key::Room(id.clone()),
            |id, value| codec::room_from(id, value).map(Arc::new),
        );
        rooms.into_iter().map(|(_, room)| room).collect()
    }

    fn participant(&self, room: &RoomId, user: &UserId) -> Option<Participant> {
        let key = (room.clone(), user.clone());
        let to_key = |(room, user): &(RoomId, UserId)| Key::Participant(room.clone(), user.clone());
        self.read(&self.participants, &key, to_key, |_, value| codec::participant_from(value))
    }

    fn participants(
        &self,
        room: &RoomId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Vec<(UserId, Participant)> {
        let mut range = self.space.of_room(tag::PARTICIPANT, room);
        if let Some(after) = after {
            let after = Key::Participant(room.clone(), after.clone());
            range = Space::above(range, &self.space.key(&after));
        }
        let from = match after {
            Some(after) => Bound::Excluded((room.clone(), after.clone())),
            None => Bound::Included((room.clone(), least_user())),
        };
        let rows = self.scan(
            &self.participants,
            (from, Bound::Included((room.clone(), greatest_user()))),
            range,
            limit,
            |key| if let Key::Participant(room, user) = key { Some((room, user)) } else { None },
            |(room, user)| Key::Participant(room.clone(), user.clone()),
            |_, value| codec::participant_from(value),
        );
        rows.into_iter().map(|((_, user), participant)| (user, participant)).collect()
    }

    fn user(&self, user: &UserId) -> Option<Arc<User>> {
        let from = |id: &UserId, value: &[u8]| codec::user_from(id, value).map(Arc::new);
        self.read(&self.users, user, |id| Key::User(id.clone()), from)
    }

    fn users(&self, after: Option<&UserId>, limit: usize) -> Vec<Arc<User>> {
        let mut range = self.space.all(tag::USER);
        if let Some(after) = after {
            range = Space::above(range, &self.space.key(&Key::User(after.clone())));
        }
        let users = self.scan(
            &self.users,
            (above(after.cloned()), Bound::Unbounded),
            range,
            limit,
            |key| if let Key::User(id) = key { Some(id) } else { None },
            |id| Key::User(id.clone()),
            |id, value| codec::user_from(id, value).map(Arc::new),
        );
        users.into_iter().map(|(_, user)| user).collect()
    }

    fn sent(&self, scope: &Scope, sender: &UserId, id: RequestId) -> Option<Sent> {
        let found = lock(&self.dedup).get(self.base.as_ref(), self.space, scope, sender, id);
        self.or_fatal(found)
    }

    fn notes(&self, room: &RoomId, seq: Seq) -> Option<Arc<Notes>> {
        let to_key = |(room, seq): &(RoomId, Seq)| Key::Notes(room.clone(), *seq);
        let from = |_: &_, value: &[u8]| codec::notes_from(value).map(Arc::new);
        self.read(&self.notes, &(room.clone(), seq), to_key, from)
    }

    fn notes_in(&self, room: &RoomId, first: Seq, last: Seq) -> Vec<(Seq, Arc<Notes>)> {
        if first > last {
            return Vec::new();
        }
        let start = self.space.key(&Key::Notes(room.clone(), first));
        let end = Space::above(
            start.clone()..start.clone(),
            &self.space.key(&Key::Notes(room.clone(), last)),
        );
        let rows = self.scan(
            &self.notes,
            (Bound::Included((room.clone(), first)), Bound::Included((room.clone(), last))),
            start..end.start,
            usize::MAX,
            |key| if let Key::Notes(room, seq) = key { Some((room, seq)) } else { None },
            |(room, seq)| Key::Notes(room.clone(), *seq),
            |_, value| codec::notes_from(value).map(Arc::new),
        );
        rows.into_iter().map(|((_, seq), notes)| (seq, notes)).collect()
    }

    fn import_mark(&self, room: &RoomId, source: &str) -> u64 {
        let key = (room.clone(), source.to_string());
        let to_key =
            |(room, source): &(RoomId, String)| Key::ImportMark(room.clone(), source.clone());
        self.read(&self.marks, &key, to_key, |_, value| codec::number_from(value)).unwrap_or(0)
    }

    fn events(
        &self,
        room: &RoomId,
        first: Seq,
        last: Seq,
        limit: usize,
        bytes: usize,
    ) -> Vec<Arc<Event>> {
        let Some(row) = self.room(room) else { return Vec::new() };
        let first = first.max(row.first_seq).max(Seq(1));
        let last = last.min(row.head);
        if limit == 0 || first > last {
            return Vec::new();
        }
        let mut page = Page { events: Vec::new(), next: first, limit, bytes, full: false };
        let in_memory = self.tails.first(room).unwrap_or(Seq(u64::MAX));
        if first < in_memory {
            self.base_events(room, last.min(Seq(in_memory.0 - 1)), &mut page);
        }
        if !page.full {
            for event in self.tails.events(room, page.next, last) {
                page.push(event.clone());
                if page.full {
                    break;
                }
            }
        }
        page.events
    }
}

fn least_user() -> UserId {
    UserId::parse("0").expect("a slug")
}

fn greatest_user() -> UserId {
    UserId::parse(&"z".repeat(limits::SLUG_BYTES_MAX)).expect("a slug")
}

fn above<K>(after: Option<K>) -> Bound<K> {
    after.map_or(Bound::Unbounded, Bound::Excluded)
}
