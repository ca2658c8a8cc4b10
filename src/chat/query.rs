//! What can be read, and the permission rules of reading.

use std::sync::Arc;

use crate::chat::event::Event;
use crate::chat::state::{Notes, Participant, Room, User};
use crate::id::{Cursor, Epoch, RoomId, Seq, UserId};

/// A read. Encodable, so that a node without a replica can forward it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// A room's row and its first participants.
    Room {
        /// Which.
        room: RoomId,
    },
    /// The rooms of this shard that the actor may see, ascending.
    Rooms {
        /// Only ids above this one.
        after: Option<RoomId>,
        /// At most this many.
        limit: usize,
    },
    /// A page of a room's log.
    Events {
        /// Which room.
        room: RoomId,
        /// From where, which way.
        page: Page,
        /// At most this many events.
        limit: usize,
    },
    /// A page for export: as `Events`, forward, admins only.
    Export {
        /// Which room.
        room: RoomId,
        /// Only events above this one.
        after: Seq,
        /// At most this many events.
        limit: usize,
    },
    /// A user's row. Tokens' hashes included: the gateway authenticates with it.
    User {
        /// Which.
        user: UserId,
    },
    /// The users of this shard, ascending.
    Users {
        /// Only ids above this one.
        after: Option<UserId>,
        /// At most this many.
        limit: usize,
    },
}

/// Which part of a room's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Events above the cursor, the oldest first.
    After(Cursor),
    /// The newest events below the cursor, in ascending order.
    Before(Cursor),
    /// The newest events, in ascending order.
    Newest,
}

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in the query of the same name")]
pub enum Answer {
    Room { room: Arc<Room>, participants: Vec<(UserId, Participant)> },
    Rooms { rooms: Vec<Arc<Room>> },
    Events(Events),
    Export { room: Arc<Room>, events: Vec<Arc<Event>> },
    User { user: Arc<User> },
    Users { users: Vec<Arc<User>> },
}

/// A page of a room's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Events {
    /// The room's epoch.
    pub epoch: Epoch,
    /// The oldest kept event.
    pub first_seq: Seq,
    /// The room's head when this was read.
    pub head: Seq,
    /// False when there is a gap between the cursor and the first event here.
    pub recovered: bool,
    /// The events, ascending, each with what later events made of it.
    pub events: Vec<Annotated>,
}

/// An event as a history page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotated {
    /// The event as it was appended, or erased.
    pub event: Arc<Event>,
    /// What became of it.
    pub notes: Option<Arc<Notes>>,
    /// Edits' seq, log time and text, oldest first; the last one's text is the current one.
    pub edits: Vec<(Seq, u64, String)>,
}
