//! Who is there, who types, and how far others have read: what may be lost, so it is in no log.
//!
//! ```text
//!  sessions, leases ──► table ──► peers ═══ frames ═══► peers ──► table of another node
//!                         │                                          │
//!                         └──► changes ──► gateway, which gathers them for each room
//! ```
//!
//! Every node knows of every user that is online anywhere: the node at which they are tells all others
//! when that changes, at most four times a second, and that it is still there every two seconds. A person
//! is as present as the most present of their devices, on whichever nodes those are.
//!
//! **Invariants**
//! - Everything here is a lease. A session's ends with its connection, at once; one that was taken for a
//!   time ends with it; typing ends after six seconds; and all of a node's end when nothing was heard
//!   of it for six seconds, so that the dead are offline within ten.
//! - Time is counted in ticks of this node's own, a quarter of a second each: clocks do not matter,
//!   but for what `last seen` says.
//! - Memory is bounded: by the users there are, by one state for each of them and node, and where peers do
//!   not listen by the latest of what they were not told.
//! - Nothing is promised: a frame may be lost with its connection; the next one begins with everything.
//!
//! Left out: which of somebody's devices are there. Rooms are the gateway's (`gateway/presence`), and
//! so is who may know.

pub mod peers;
mod table;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::id::{NodeId, RoomId, Seq, UserId};
use crate::presence::table::Table;
use crate::proto::internal::PresenceFrame;

pub use crate::presence::table::Changes;

/// How often leases are counted down, and peers are told of changes.
pub const TICK: Duration = Duration::from_millis(250);
/// Ticks after which a node of which nothing was heard is not there: 6 s.
const NODE_TICKS: u32 = 24;
/// Ticks after which a peer is told that this node is there, if there is nothing else to tell: 2 s.
const BEAT_TICKS: u32 = 8;
/// Ticks for which somebody types who has said so: 6 s.
const TYPING_TICKS: u32 = 24;
/// Users of whom anything is remembered. Those who are offline are forgotten when there are more.
const USERS_MAX: usize = 100_000;
/// Read marks that may wait to be told to one peer, or to be taken. Further ones are not told.
const READS_MAX: usize = 65_536;
/// Users, or anything else, told in one frame.
const FRAME_ITEMS: usize = 1000;

/// How present somebody is, on one device or on all of them; the most present is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Status {
    /// Not there, or not to be seen.
    #[default]
    Offline,
    /// There, and busy with something else.
    Away,
    /// There.
    Online,
}

impl Status {
    /// The name, as the APIs have it.
    pub fn name(self) -> &'static str {
        match self {
            Status::Offline => "offline",
            Status::Away => "away",
            Status::Online => "online",
        }
    }

    /// The status of a name.
    pub fn of_name(name: &str) -> Option<Status> {
        [Status::Offline, Status::Away, Status::Online].into_iter().find(|it| it.name() == name)
    }

    fn of_number(number: u32) -> Option<Status> {
        [Status::Offline, Status::Away, Status::Online].into_iter().find(|it| *it as u32 == number)
    }
}

/// Somebody, as far as this node knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// How present they are.
    pub status: Status,
    /// When they were last there, if they are not: milliseconds since the Unix epoch, by the clock of the
    /// node at which they were. `None` where that is not known.
    pub last_seen_ms: Option<u64>,
}

/// What a node knows of who is there.
pub struct Presence {
    table: Mutex<Table>,
    clock: Arc<dyn Clock>,
    /// Changes with each tick. What waits for the next one waits for this: a timer each would wake a node
    /// that has nothing to do several times as often.
    ticks: watch::Sender<()>,
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presence")
    }
}

impl Presence {
    /// Nobody is there yet.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Presence> {
        Arc::new(Presence { table: Mutex::default(), clock, ticks: watch::Sender::default() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody is there on one more device, for as long as what is returned lives.
    pub fn enter(self: &Arc<Self>, user: UserId, status: Status) -> Device {
        let id = self.table().enter(&user, status, self.clock.now_ms());
        Device { presence: self.clone(), user, id }
    }

    /// Somebody without a session says how present they are, for a time. There is one such lease
    /// for each user; the last one counts. Returns how present they are then, on all of their devices.
    pub fn lease(&self, user: &UserId, status: Status, time: Duration) -> Seen {
        let ticks = u32::try_from(time.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
        let mut table = self.table();
        table.lease(user, status, ticks.max(1), self.clock.now_ms());
        table.seen(user)
    }

    /// Somebody types in a room, or has stopped. It ends by itself after six seconds.
    pub fn typing(&self, room: &RoomId, user: &UserId, types: bool) {
        self.table().type_here(room, user, types);
    }

    /// Somebody's read mark has moved.
    pub fn read(&self, room: &RoomId, user: &UserId, seq: Seq) {
        self.table().read_here(room, user, seq);
    }

    /// How present these users are, in their order.
    pub fn seen<'a>(&self, users: impl IntoIterator<Item = &'a UserId>) -> Vec<Seen> {
        let table = self.table();
        users.into_iter().map(|user| table.seen(user)).collect()
    }

    /// Who types in a room, in order of id.
    pub fn typing_in(&self, room: &RoomId) -> Vec<UserId> {
        self.table().typing_in(room)
    }

    /// What has changed since this was last asked. One task asks.
    pub fn take_changes(&self) -> Changes {
        self.table().take_changes()
    }

    /// How many users are online or away, by their own devices on this node.
    pub fn here(&self) -> usize {
        self.table().here()
    }

    /// Counts all leases down by one.
    pub(crate) fn tick(&self) {
        let now_ms = self.clock.now_ms();
        self.table().tick(now_ms);
        self.ticks.send_replace(());
    }

    /// Changes with each tick.
    pub(crate) fn ticks(&self) -> watch::Receiver<()> {
        self.ticks.subscribe()
    }

    /// A peer has begun to tell what it knows; returns by what that is known to be its last such stream.
    pub fn begin_hearing(&self, peer: NodeId) -> u64 {
        self.table().begin_hearing(peer)
    }

    /// Takes a frame; false when it makes no sense, or a later stream of the peer's has begun.
    pub fn hear(&self, peer: NodeId, stream: u64, frame: &PresenceFrame) -> bool {
        let now_ms = self.clock.now_ms();
        self.table().hear(peer, stream, frame, now_ms)
    }

    /// From now on there is a peer to be told, and it knows nothing.
    pub(crate) fn begin_telling(&self, peer: NodeId) {
        self.table().begin_telling(peer);
    }

    /// What a peer is to be told next, if there is anything.
    pub(crate) fn next_frame(&self, peer: NodeId) -> Option<PresenceFrame> {
        self.table().next_frame(peer)
    }

    /// Whether there is a peer to be told.
    pub(crate) fn is_telling(&self, peer: NodeId) -> bool {
        self.table().is_telling(peer)
    }

    /// Nothing is kept for a peer any more.
    pub(crate) fn end_telling(&self, peer: NodeId) {
        self.table().end_telling(peer);
    }
}

/// One of somebody's devices, which is there until this is dropped.
#[derive(Debug)]
pub struct Device {
    presence: Arc<Presence>,
    user: UserId,
    id: u64,
}

impl Device {
    /// How present they are, on this device.
    pub fn set(&self, status: Status) {
        let now_ms = self.presence.clock.now_ms();
        self.presence.table().set(&self.user, self.id, status, now_ms);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let now_ms = self.presence.clock.now_ms();
        self.presence.table().leave(&self.user, self.id, now_ms);
    }
}
