//! The state that the rules see: typed rows, and rooms' events.
//!
//! `chat` knows state only through [`State`] and [`StateMut`]; `store` implements them over its
//! overlay and base, tests over plain maps. Implementations hold one shard's rows. All methods are
//! synchronous and infallible: an implementation that cannot read its disk stops the node.

use std::sync::Arc;

pub use crate::chat::account::{Token, User};
use crate::chat::event::{Event, Hash, Role};
use crate::chat::permission::Who;
use crate::id::{Epoch, RequestId, RoomId, Seq, UserId};

/// What a room is for. The numbers are on disk and on the wire (`folkmoot.v1.RoomKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum RoomKind {
    Public = 1,
    Private = 2,
    Direct = 3,
    Group = 4,
}

impl RoomKind {
    /// The kind with this number.
    pub fn from_number(number: u32) -> Option<RoomKind> {
        RoomKind::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// All, in order of their numbers.
    pub const ALL: [RoomKind; 4] =
        [RoomKind::Public, RoomKind::Private, RoomKind::Direct, RoomKind::Group];

    /// Its name, as people and JSON have it.
    pub fn name(self) -> &'static str {
        match self {
            RoomKind::Public => "public",
            RoomKind::Private => "private",
            RoomKind::Direct => "direct",
            RoomKind::Group => "group",
        }
    }
}

/// A room's mutable row. Changes with every event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The room's id.
    pub id: RoomId,
    /// What it is for.
    pub kind: RoomKind,
    /// For people.
    pub title: String,
    /// For people; empty when none was set.
    pub topic: String,
    /// Names this history of the room.
    pub epoch: Epoch,
    /// The oldest kept event; one above `head` when nothing is kept.
    pub first_seq: Seq,
    /// The last event; 0 when empty.
    pub head: Seq,
    /// The hash chain at `head`; zeros when empty.
    pub chain: Hash,
    /// The hash chain at `first_seq − 1`.
    pub chain_base: Hash,
    /// How many participants there are, banned ones not counted.
    pub participants: u64,
    /// Log time of creation, milliseconds since the Unix epoch.
    pub created_at_ms: u64,
    /// Who created it.
    pub creator: UserId,
    /// Nobody adds to it any more.
    pub archived: bool,
    /// Messages kept in sight, in the order in which they were pinned; all of them are kept.
    pub pins: Vec<Seq>,
    /// How much of its log is kept.
    pub retention: Retention,
}

/// How much of a room's log is kept. What is beyond either limit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Events older than this, in milliseconds of log time, go; 0 = no limit.
    pub max_age_ms: u64,
    /// All but so many events go; 0 = no limit.
    pub max_events: u64,
}

impl Retention {
    /// Whether there is a limit.
    pub fn is_set(&self) -> bool {
        *self != Retention::default()
    }
}

/// Where somebody stands whose row says that they are not banned. The numbers are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Part {
    /// In the room.
    #[default]
    In = 0,
    /// Invited, and not in yet.
    Invited = 1,
    /// Not in the room; the row only keeps a mute.
    Out = 2,
}

impl Part {
    /// The part with this number.
    pub fn from_number(number: u32) -> Option<Part> {
        [Part::In, Part::Invited, Part::Out].into_iter().find(|part| *part as u32 == number)
    }
}

/// Somebody's part in a room. An invitation is a row too, and so is a ban.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// What they may do.
    pub role: Role,
    /// Log time since when, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Muted and banned ones: log time until when, milliseconds since the Unix epoch; `None` = for
    /// good.
    pub until_ms: Option<u64>,
    /// Whether they are in, and why there is a row if not.
    pub part: Part,
    /// Up to where they have read the room, on whichever device; never goes back while they are in.
    pub read: Seq,
}

impl Participant {
    /// Somebody who is in the room, or banned from it, for good.
    pub fn new(role: Role, since_ms: u64) -> Participant {
        Participant { role, since_ms, until_ms: None, part: Part::In, read: Seq(0) }
    }

    fn ended(&self, now_ms: u64) -> bool {
        self.until_ms.is_some_and(|until_ms| until_ms <= now_ms)
    }

    /// Whether they take part: `Room::participants` counts them.
    pub fn is_inside(&self) -> bool {
        self.role != Role::Banned && self.part == Part::In
    }

    /// Whether they are muted at this log time, in the room or not.
    pub fn is_muted(&self, now_ms: u64) -> bool {
        self.role == Role::Muted && !self.ended(now_ms)
    }

    /// Who they are to the room at this log time, unless they are an administrator.
    pub fn who(&self, now_ms: u64) -> Who {
        match (self.role, self.part) {
            (Role::Banned, _) if self.ended(now_ms) => Who::Outsider,
            (Role::Banned, _) => Who::Banned,
            (_, Part::Out) => Who::Outsider,
            (_, Part::Invited) => Who::Invited,
            (Role::Owner, _) => Who::Owner,
            (Role::Moderator, _) => Who::Moderator,
            (Role::Muted, _) if !self.ended(now_ms) => Who::Muted,
            (Role::Muted | Role::Member, _) => Who::Member,
        }
    }

    /// What is left of their row once they are out: a mute that has not ended.
    pub fn departed(self, now_ms: u64) -> Option<Participant> {
        self.is_muted(now_ms).then_some(Participant { part: Part::Out, ..self })
    }

    /// The row as it is at this log time: without what has ended. `None` when they have no part.
    pub fn at(self, now_ms: u64) -> Option<Participant> {
        match self.who(now_ms) {
            Who::Outsider => None,
            _ if self.ended(now_ms) => {
                Some(Participant { role: Role::Member, until_ms: None, ..self })
            }
            _ => Some(self),
        }
    }
}

/// Whose requests a dedup entry is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// A command on a room.
    Room(RoomId),
    /// A command on a user.
    User(UserId),
}

/// The remembered outcome of a request, kept for the dedup horizon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Who sent it. The same id from another sender is another request.
    pub sender: UserId,
    /// The seq it got; the room's head then when it made no event; 0 for users.
    pub seq: Seq,
    /// Log time when it was applied, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// First 16 bytes of blake3 of the command without salts and messages' texts: tells whether a repeat is
    /// the same, with the text that was said.
    pub body_hash: [u8; 16],
}

/// What later events have made of a message: its row exists once there is something to say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes {
    /// seq of each Edit event, oldest first; their texts are in the events.
    pub edits: Vec<Seq>,
    /// Symbols with who reacted, in order of symbol, then of reaction.
    pub reactions: Vec<(String, Vec<UserId>)>,
    /// The Redaction event that erased the message.
    pub redacted_by: Option<Seq>,
    /// seq of each reply, ascending: the message's thread.
    pub replies: Vec<Seq>,
}

/// Reads one shard's state.
pub trait State {
    /// The shard's log time, milliseconds since the Unix epoch; never goes back.
    fn log_time_ms(&self) -> u64;
    /// How often something stopped being valid by which a user of this shard signs in.
    fn revocations(&self) -> u64;
    /// A room's row.
    fn room(&self, room: &RoomId) -> Option<Arc<Room>>;
    /// Up to `limit` rooms with ids above `after`, ascending.
    fn rooms(&self, after: Option<&RoomId>, limit: usize) -> Vec<Arc<Room>>;
    /// A user's part in a room.
    fn participant(&self, room: &RoomId, user: &UserId) -> Option<Participant>;
    /// Up to `limit` of a room's participants with ids above `after`, ascending.
    fn participants(
        &self,
        room: &RoomId,
        after: Option<&UserId>,
        limit: usize,
    ) -> Vec<(UserId, Participant)>;
    /// A user's row.
    fn user(&self, user: &UserId) -> Option<Arc<User>>;
    /// Up to `limit` users with ids above `after`, ascending.
    fn users(&self, after: Option<&UserId>, limit: usize) -> Vec<Arc<User>>;
    /// The outcome of an earlier request of `sender`'s within `scope`.
    fn sent(&self, scope: &Scope, sender: &UserId, id: RequestId) -> Option<Sent>;
    /// A message's notes.
    fn notes(&self, room: &RoomId, seq: Seq) -> Option<Arc<Notes>>;
    /// Notes of messages in `first..=last`, ascending.
    fn notes_in(&self, room: &RoomId, first: Seq, last: Seq) -> Vec<(Seq, Arc<Notes>)>;
    /// Up to which line a source has been imported into a room; 0 when never.
    fn import_mark(&self, room: &RoomId, source: &str) -> u64;
    /// Events in `first..=last`, ascending, without holes: at most `limit` events, and at most
    /// `bytes` of bodies but at least one event. Erased bodies are [`Body::Erased`].
    ///
    /// [`Body::Erased`]: crate::chat::event::Body::Erased
    fn events(
        &self,
        room: &RoomId,
        first: Seq,
        last: Seq,
        limit: usize,
        bytes: usize,
    ) -> Vec<Arc<Event>>;
}

/// Reads and changes one shard's state. Changes become visible to reads at once.
///
/// `apply` decides first and changes last, so a rejected command has changed nothing.
pub trait StateMut: State {
    /// Moves log time forward; a lower value is ignored.
    fn advance_log_time(&mut self, ms: u64);
    /// Counts one more revocation, for nodes to ask again who may do what.
    fn note_revocation(&mut self);
    /// Writes a room's row.
    fn put_room(&mut self, room: Room);
    /// Writes or removes a participant's row.
    fn put_participant(&mut self, room: &RoomId, user: &UserId, participant: Option<Participant>);
    /// Writes a user's row.
    fn put_user(&mut self, user: User);
    /// Remembers a request's outcome for the dedup horizon.
    fn put_sent(&mut self, scope: &Scope, id: RequestId, sent: Sent);
    /// Writes a message's notes.
    fn put_notes(&mut self, room: &RoomId, seq: Seq, notes: Notes);
    /// Writes a source's high-water mark.
    fn put_import_mark(&mut self, room: &RoomId, source: &str, line: u64);
    /// Appends an event; its seq is one above the last appended one's.
    fn append_event(&mut self, room: &RoomId, event: Arc<Event>);
    /// Replaces the body of a stored event by its hash, for every later read.
    fn erase_body(&mut self, room: &RoomId, seq: Seq);
    /// Forgets what there is of a room's events below `first`, which is its row's `first_seq` by
    /// now: their notes at once, their blocks on disk in time.
    fn forget_events(&mut self, room: &RoomId, first: Seq);
}

/// The row of a new public room.
#[cfg(test)]
pub(crate) fn room_row(id: RoomId) -> Room {
    Room {
        id,
        kind: RoomKind::Public,
        title: String::new(),
        topic: String::new(),
        epoch: Epoch::parse("e").unwrap(),
        first_seq: Seq(1),
        head: Seq(0),
        chain: [0; 32],
        chain_base: [0; 32],
        participants: 0,
        created_at_ms: 0,
        creator: UserId::parse("root").unwrap(),
        archived: false,
        pins: Vec::new(),
        retention: Default::default(),
    }
}
