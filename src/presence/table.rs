//! What one node knows of everybody, as plain data: what happens here, what peers tell, and what they are
//! to be told. Whoever calls says what time it is.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{NodeId, RoomId, Seq, UserId};
use crate::presence::{
    BEAT_TICKS, FRAME_ITEMS, NODE_TICKS, READS_MAX, Seen, Status, TYPING_TICKS, USERS_MAX,
};
use crate::proto::internal as pb;
use crate::proto::internal::presence_frame as frame;

/// The device that a lease is; sessions are counted from one.
const LEASE: u64 = 0;

/// What has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Who is more or less present than before.
    pub users: BTreeSet<UserId>,
    /// Rooms in which others type.
    pub typing: BTreeSet<RoomId>,
    /// Read marks that have moved, and to where.
    pub reads: BTreeMap<(RoomId, UserId), Seq>,
    /// A node has been silent for too long: its users have gone with it.
    pub node_lost: bool,
}

/// Somebody.
#[derive(Debug, Default)]
struct Entry {
    /// Their devices here.
    here: BTreeMap<u64, Status>,
    /// How present they are at other nodes, where they are.
    there: BTreeMap<NodeId, Status>,
    /// When they were last there, if they are not; 0 = not known.
    seen_ms: u64,
}

impl Entry {
    fn own(&self) -> Status {
        self.here.values().copied().max().unwrap_or_default()
    }

    fn status(&self) -> Status {
        self.there.values().copied().fold(self.own(), Status::max)
    }
}

/// A node of which something was heard.
#[derive(Debug, Default)]
struct Heard {
    /// Tells its last stream from those before.
    stream: u64,
    /// Ticks since.
    silent: u32,
    /// Whom it has named, until it has named all.
    named: Option<BTreeSet<UserId>>,
}

/// What a peer has not been told.
#[derive(Debug, Default)]
struct Outbox {
    users: BTreeSet<UserId>,
    typing: BTreeMap<(RoomId, UserId), u32>,
    reads: BTreeMap<(RoomId, UserId), Seq>,
    /// It has not been told everything yet.
    begins: bool,
    /// Ticks since it was told anything.
    silent: u32,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    users: BTreeMap<UserId, Entry>,
    /// Ticks left of each lease.
    leases: BTreeMap<UserId, u32>,
    /// Ticks left of everybody who types.
    typing: BTreeMap<RoomId, BTreeMap<UserId, u32>>,
    heard: BTreeMap<NodeId, Heard>,
    outboxes: BTreeMap<NodeId, Outbox>,
    changes: Changes,
    last_device: u64,
    last_stream: u64,
}

impl Table {
    /// Changes what is known of somebody, and notes who is to hear of it.
    fn change(&mut self, user: &UserId, now_ms: u64, change: impl FnOnce(&mut Entry)) {
        let entry = self.users.entry(user.clone()).or_default();
        let before = (entry.own(), entry.status());
        change(entry);
        let after = (entry.own(), entry.status());
        if before.1 != Status::Offline && after.1 == Status::Offline {
            entry.seen_ms = entry.seen_ms.max(now_ms);
        }
        let forgotten = entry.here.is_empty() && after.1 == Status::Offline && entry.seen_ms == 0;
        if forgotten {
            self.users.remove(user);
        }
        if before.0 != after.0 {
            for outbox in self.outboxes.values_mut() {
                outbox.users.insert(user.clone());
            }
        }
        if before.1 != after.1 {
            self.changes.users.insert(user.clone());
        }
    }

    pub fn enter(&mut self, user: &UserId, status: Status, now_ms: u64) -> u64 {
        self.last_device += 1;
        let id = self.last_device;
        self.set(user, id, status, now_ms);
        id
    }

    pub fn set(&mut self, user: &UserId, device: u64, status: Status, now_ms: u64) {
        self.change(user, now_ms, |entry| {
            entry.here.insert(device, status);
        });
    }

    pub fn leave(&mut self, user: &UserId, device: u64, now_ms: u64) {
        self.change(user, now_ms, |entry| {
            entry.here.remove(&device);
        });
    }

    pub fn lease(&mut self, user: &UserId, status: Status, ticks: u32, now_ms: u64) {
        self.leases.insert(user.clone(), ticks);
        self.set(user, LEASE, status, now_ms);
    }

    pub fn type_here(&mut self, room: &RoomId, user: &UserId, types: bool) {
        let key = (room.clone(), user.clone());
        let left = self.typing.get(room).and_then(|users| users.get(user)).copied();
        let ticks = match (types, left) {
            // Said again and again: half of the time is enough to say so to others.
            (true, Some(left)) if left > TYPING_TICKS / 2 => return,
            (true, _) => TYPING_TICKS,
            (false, Some(_)) => 0,
            (false, None) => return,
        };
        for outbox in self.outboxes.values_mut() {
            outbox.typing.insert(key.clone(), ticks);
        }
        self.note_typing(key, ticks);
    }

    fn note_typing(&mut self, (room, user): (RoomId, UserId), ticks: u32) {
        let users = self.typing.entry(room.clone()).or_default();
        let changed = match ticks {
            0 => users.remove(&user).is_some(),
            _ => users.insert(user, ticks).is_none(),
        };
        if users.is_empty() {
            self.typing.remove(&room);
        }
        if changed {
            self.changes.typing.insert(room);
        }
    }

    pub fn read_here(&mut self, room: &RoomId, user: &UserId, seq: Seq) {
        let key = (room.clone(), user.clone());
        let boxes = self.outboxes.values_mut().map(|outbox| &mut outbox.reads);
        for reads in boxes.chain([&mut self.changes.reads]) {
            note_read(reads, &key, seq);
        }
    }

    pub fn seen(&self, user: &UserId) -> Seen {
        let Some(entry) = self.users.get(user) else { return Seen::default() };
        let status = entry.status();
        let known = status == Status::Offline && entry.seen_ms > 0;
        Seen { status, last_seen_ms: known.then_some(entry.seen_ms) }
    }

    /// Who types in a room. Nobody does who is not there, or does not want to be seen.
    pub fn typing_in(&self, room: &RoomId) -> Vec<UserId> {
        let users = self.typing.get(room).into_iter().flat_map(BTreeMap::keys);
        users.filter(|user| self.seen(user).status != Status::Offline).cloned().collect()
    }

    pub fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    pub fn here(&self) -> usize {
        self.users.values().filter(|entry| entry.own() != Status::Offline).count()
    }

    pub fn tick(&mut self, now_ms: u64) {
        let mut ended = Vec::new();
        self.leases.retain(|user, left| {
            *left -= 1;
            if *left == 0 {
                ended.push(user.clone());
            }
            *left > 0
        });
        for user in ended {
            self.leave(&user, LEASE, now_ms);
        }
        let changes = &mut self.changes.typing;
        self.typing.retain(|room, users| {
            let before = users.len();
            users.retain(|_, left| {
                *left -= 1;
                *left > 0
            });
            if users.len() < before {
                changes.insert(room.clone());
            }
            !users.is_empty()
        });
        let mut gone = Vec::new();
        self.heard.retain(|node, heard| {
            heard.silent += 1;
            if heard.silent >= NODE_TICKS {
                gone.push(*node);
            }
            heard.silent < NODE_TICKS
        });
        self.changes.node_lost |= !gone.is_empty();
        for node in gone {
            self.forget_at(node, &BTreeSet::new(), now_ms);
        }
        if self.users.len() > USERS_MAX {
            self.users
                .retain(|_, entry| !entry.here.is_empty() || entry.status() != Status::Offline);
        }
    }

    /// Nobody but those named is at this node.
    fn forget_at(&mut self, node: NodeId, but: &BTreeSet<UserId>, now_ms: u64) {
        let there = |(user, entry): (&UserId, &Entry)| {
            (entry.there.contains_key(&node) && !but.contains(user)).then(|| user.clone())
        };
        let gone: Vec<UserId> = self.users.iter().filter_map(there).collect();
        for user in gone {
            self.change(&user, now_ms, |entry| {
                entry.there.remove(&node);
            });
        }
    }

    pub fn begin_hearing(&mut self, peer: NodeId) -> u64 {
        self.last_stream += 1;
        let named = Some(BTreeSet::new());
        self.heard.insert(peer, Heard { stream: self.last_stream, silent: 0, named });
        self.last_stream
    }

    pub fn hear(
        &mut self,
        peer: NodeId,
        stream: u64,
        told: &pb::PresenceFrame,
        now_ms: u64,
    ) -> bool {
        let Some(told) = Told::parse(told) else { return false };
        let mut named = match self.heard.get_mut(&peer) {
            Some(heard) if heard.stream == stream => {
                heard.silent = 0;
                heard.named.take()
            }
            // It was silent for so long that it was given up.
            None => Some(BTreeSet::new()),
            Some(_) => return false,
        };
        for (user, status, seen_ms) in told.users {
            self.change(&user, now_ms, |entry| {
                entry.seen_ms = entry.seen_ms.max(seen_ms);
                match status {
                    Status::Offline => entry.there.remove(&peer),
                    _ => entry.there.insert(peer, status),
                };
            });
            if let Some(named) = &mut named {
                named.insert(user);
            }
        }
        for (key, ticks) in told.typing {
            self.note_typing(key, ticks);
        }
        for (key, seq) in told.reads {
            note_read(&mut self.changes.reads, &key, seq);
        }
        if told.whole
            && let Some(named) = named.take()
        {
            self.forget_at(peer, &named, now_ms);
        }
        self.heard.insert(peer, Heard { stream, silent: 0, named });
        true
    }

    pub fn begin_telling(&mut self, peer: NodeId) {
        let worth = |entry: &Entry| {
            entry.own() != Status::Offline || entry.status() == Status::Offline && entry.seen_ms > 0
        };
        let users = self.users.iter().filter(|(_, entry)| worth(entry));
        let users = users.map(|(user, _)| user.clone()).collect();
        self.outboxes.insert(peer, Outbox { users, begins: true, ..Outbox::default() });
    }

    pub fn next_frame(&mut self, peer: NodeId) -> Option<pb::PresenceFrame> {
        let outbox = self.outboxes.get_mut(&peer)?;
        outbox.silent += 1;
        let rest = outbox.users.iter().nth(FRAME_ITEMS).cloned();
        let later = rest.map(|first| outbox.users.split_off(&first)).unwrap_or_default();
        let users = std::mem::replace(&mut outbox.users, later);
        let typing = first_of(&mut outbox.typing);
        let reads = first_of(&mut outbox.reads);
        let whole = outbox.begins && outbox.users.is_empty();
        let nothing = users.is_empty() && typing.is_empty() && reads.is_empty() && !whole;
        if nothing && outbox.silent < BEAT_TICKS {
            return None;
        }
        outbox.begins &= !whole;
        outbox.silent = 0;
        let known = &self.users;
        let user = |user: UserId| {
            let entry = known.get(&user);
            let status = entry.map(Entry::own).unwrap_or_default();
            let seen_ms =
                entry.filter(|it| it.status() == Status::Offline).map_or(0, |it| it.seen_ms);
            frame::User { user: user.as_str().into(), state: status as u32, seen_ms }
        };
        Some(pb::PresenceFrame {
            users: users.into_iter().map(user).collect(),
            typing: typing
                .into_iter()
                .map(|((room, user), ticks)| frame::Typing {
                    room: room.as_str().into(),
                    user: user.as_str().into(),
                    ticks,
                })
                .collect(),
            reads: reads
                .into_iter()
                .map(|((room, user), seq)| frame::Read {
                    room: room.as_str().into(),
                    user: user.as_str().into(),
                    seq: seq.0,
                })
                .collect(),
            whole,
        })
    }

    pub fn is_telling(&self, peer: NodeId) -> bool {
        self.outboxes.contains_key(&peer)
    }

    pub fn end_telling(&mut self, peer: NodeId) {
        self.outboxes.remove(&peer);
    }
}

/// Takes as many as fit into a frame.
fn first_of<K: Ord + Clone, V>(map: &mut BTreeMap<K, V>) -> BTreeMap<K, V> {
    let rest = map.keys().nth(FRAME_ITEMS).cloned();
    let later = rest.map(|first| map.split_off(&first)).unwrap_or_default();
    std::mem::replace(map, later)
}

fn note_read(reads: &mut BTreeMap<(RoomId, UserId), Seq>, key: &(RoomId, UserId), seq: Seq) {
    let is_full = reads.len() >= READS_MAX;
    match reads.get_mut(key) {
        Some(known) => *known = seq.max(*known),
        None if is_full => {}
        None => {
            reads.insert(key.clone(), seq);
        }
    }
}

/// A frame that makes sense.
struct Told {
    users: Vec<(UserId, Status, u64)>,
    typing: Vec<((RoomId, UserId), u32)>,
    reads: Vec<((RoomId, UserId), Seq)>,
    whole: bool,
}

impl Told {
    fn parse(told: &pb::PresenceFrame) -> Option<Told> {
        let user = |id: &str| UserId::parse(id).ok();
        let key = |room: &str, id: &str| Some((RoomId::parse(room).ok()?, user(id)?));
        let users = told.users.iter();
        let users =
            users.map(|it| Some((user(&it.user)?, Status::of_number(it.state)?, it.seen_ms)));
        let typing = told.typing.iter();
        let typing = typing.map(|it| Some((key(&it.room, &it.user)?, it.ticks.min(TYPING_TICKS))));
        let reads = told.reads.iter().map(|it| Some((key(&it.room, &it.user)?, Seq(it.seq))));
        Some(Told {
            users: users.collect::<Option<_>>()?,
            typing: typing.collect::<Option<_>>()?,
            reads: reads.collect::<Option<_>>()?,
            whole: told.whole,
        })
    }
}

#[cfg(test)]
mod tests;
