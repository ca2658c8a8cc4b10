//! The state that the rules see: typed rows, and rooms' events.
//!
//! `chat` knows state only through [`State`] and [`StateMut`]; `store` implements them over its
//! overlay and base, tests over plain maps. Implementations hold one shard's rows. All methods are
//! synchronous and infallible: an implementation that cannot read its disk stops the node.

use std::sync::Arc;

pub use crate::chat::account::{Token, User};
use crate::chat::event::{Event, Hash, Role};
use crate::id::{Epoch, RequestId, RoomId, Seq, UserId};

/// What a room is for. The numbers are on disk and on the wire (`folkmoot.v1.RoomKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum RoomKind {
    Public = 1,
    Private = 2,
    Direct = 3,
}

impl RoomKind {
    /// The kind with this number.
    pub fn from_number(number: u32) -> Option<RoomKind> {
        [RoomKind::Public, RoomKind::Private, RoomKind::Direct]
            .into_iter()
            .find(|kind| *kind as u32 == number)
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
}

/// Somebody's part in a room. A ban is a row too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// What they may do.
    pub role: Role,
    /// Log time since when, milliseconds since the Unix epoch.
    pub since_ms: u64,
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
    /// First 16 bytes of blake3 of the command without salts: tells whether a repeat is the same.
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
}
