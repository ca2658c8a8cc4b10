//! What can be read, and the permission rules of reading.
//!
//! Called by a shard on any replica that has applied enough. Whoever may not see a private or
//! direct room gets the answer that a missing one gives.

use std::sync::Arc;

use crate::chat::access;
pub use crate::chat::access::judge;
use crate::chat::command::{Actor, Rejection};
use crate::chat::event::Event;
use crate::chat::page;
use crate::chat::permission::Action;
use crate::chat::search::Search;
use crate::chat::state::{Notes, Participant, Room, State, User};
use crate::chat::unread;
use crate::error::Error;
use crate::id::{Cursor, Epoch, RoomId, Seq, UserId};
use crate::limits;

/// A read. Encodable, so that a node without a replica can forward it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// A room's row and its first participants.
    Room {
        /// Which.
        room: RoomId,
    },
    /// A room's row and more of its participants, ascending.
    Participants {
        /// Which room.
        room: RoomId,
        /// Only ids above this one.
        after: Option<UserId>,
        /// At most this many.
        limit: usize,
    },
    /// The rooms of this shard that the actor may see, ascending.
    Rooms {
        /// Only ids above this one.
        after: Option<RoomId>,
        /// At most this many.
        limit: usize,
        /// Only rooms with this in their id or title, whatever its case; empty = all.
        search: String,
    },
    /// A page of the replies to a message.
    Thread {
        /// Which room.
        room: RoomId,
        /// The message.
        root: Seq,
        /// From where, which way.
        page: Page,
        /// At most this many replies.
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
    /// The rooms of this shard that the actor is in or invited to, ascending.
    Mine {
        /// Only ids above this one.
        after: Option<RoomId>,
        /// At most this many.
        limit: usize,
    },
    /// How often something stopped being valid by which users of this shard sign in.
    Revocations,
    /// A user's row. Hashes of secrets included: the gateway authenticates with it.
    User {
        /// Which.
        user: UserId,
    },
    /// The public part of the rows of this shard's users, ascending.
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
    Room {
        room: Arc<Room>,
        participants: Vec<(UserId, Participant)>,
        /// The actor may know who of them is there, and how far they have read.
        sees_presence: bool,
    },
    Rooms {
        rooms: Vec<Arc<Room>>,
    },
    Events(Events),
    Export {
        room: Arc<Room>,
        events: Vec<Arc<Event>>,
    },
    User {
        user: Arc<User>,
    },
    Users {
        users: Vec<Arc<User>>,
    },
    Mine {
        rooms: Vec<OwnRoom>,
        next: Option<RoomId>,
    },
    Revocations {
        count: u64,
    },
}

/// A room as one who is in it or invited to it sees it in a list of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnRoom {
    /// The room's row.
    pub room: Arc<Room>,
    /// The user and their part in it.
    pub own: (UserId, Participant),
    /// What they have not read.
    pub unread: Unread,
}

/// A page of somebody's rooms, ascending, and after which id there may be more.
pub type OwnRooms = (Vec<OwnRoom>, Option<RoomId>);

/// What somebody has not read in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unread {
    /// How many messages of others.
    pub messages: u64,
    /// How many of those mention them.
    pub mentions: u64,
    /// There are older events above the mark that were not counted.
    pub more: bool,
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
    /// How many replies it has, and the last one; the notes here leave them out.
    pub replies: Option<(u64, Seq)>,
}

/// Answers a query from one shard's state, as far as the actor may see it. Limits are clamped to
/// what a page may hold.
///
/// For [`Query::Rooms`] it may have to look at every room there is: whoever locks the state for it asks
/// [`rooms`] instead, and lets go of it now and then.
///
/// # Errors
/// The codes that rejections have, and `invalid_cursor`.
pub fn query(state: &impl State, actor: &Actor, query: &Query) -> Result<Answer, Error> {
    match query {
        Query::Room { room } => {
            participants(state, actor, room, None, limits::PARTICIPANTS_SHOWN_MAX)
        }
        Query::Participants { room, after, limit } => {
            participants(state, actor, room, after.as_ref(), clamp(*limit))
        }
        Query::Rooms { after, limit, search } => {
            let mut search = rooms(actor, after.clone(), *limit, search);
            while !search.look(state) {}
            Ok(Answer::Rooms { rooms: search.found() })
        }
        Query::Thread { room, root, page, limit } => {
            let room = readable(state, actor, room)?;
            page::thread(state, &room, *root, page, clamp(*limit)).map(Answer::Events)
        }
        Query::Events { room, page, limit } => {
            let room = readable(state, actor, room)?;
            page::events(state, &room, page, clamp(*limit)).map(Answer::Events)
        }
        Query::Export { room, after, limit } => {
            let room = access::may(state, actor, room, Action::Export)?.room;
            if *after > room.head {
                return Err(page::beyond_head(*after, &room));
            }
            let first = (*after).max(Seq(room.first_seq.0.saturating_sub(1))).next();
            let (limit, bytes) = (clamp(*limit), limits::PAGE_BYTES_MAX);
            let events = state.events(&room.id, first, room.head, limit, bytes);
            Ok(Answer::Export { room, events })
        }
        Query::User { user } => match state.user(user) {
            Some(user) => Ok(Answer::User { user }),
            None => Err(Rejection::UserNotFound(user.clone()).into()),
        },
        Query::Users { after, limit } => {
            let users = state.users(after.as_ref(), clamp(*limit));
            // Behind all users there are rows that are none's.
            let users = users.iter().take_while(|user| !user.id.is_subject());
            Ok(Answer::Users { users: users.map(|user| Arc::new(user.public())).collect() })
        }
        Query::Mine { after, limit } => {
            let (rooms, next) = unread::mine(state, &actor.user, after.clone(), clamp(*limit));
            Ok(Answer::Mine { rooms, next })
        }
        Query::Revocations => Ok(Answer::Revocations { count: state.revocations() }),
    }
}

/// What answers a [`Query::Rooms`] step by step.
pub fn rooms(actor: &Actor, after: Option<RoomId>, limit: usize, search: &str) -> Search {
    Search::new(actor, after, clamp(limit), search)
}

/// The room's row, if the actor may read the room. Delivery asks this before it follows a room.
///
/// # Errors
/// What the table says to reading, see [`permission`](crate::chat::permission).
pub fn readable(state: &impl State, actor: &Actor, room: &RoomId) -> Result<Arc<Room>, Error> {
    Ok(access::may(state, actor, room, Action::Read)?.room)
}

/// A room, and those who have a part in it as it is at this log time, above `after`.
fn participants(
    state: &impl State,
    actor: &Actor,
    room: &RoomId,
    after: Option<&UserId>,
    limit: usize,
) -> Result<Answer, Error> {
    let seen = access::may(state, actor, room, Action::See)?;
    let sees_presence = seen.require(Action::SeePresence).is_ok();
    let now_ms = state.log_time_ms();
    let mut participants = Vec::new();
    let mut after = after.cloned();
    while participants.len() < limit {
        let rows = state.participants(room, after.as_ref(), limit - participants.len());
        let Some((last, _)) = rows.last() else { break };
        after = Some(last.clone());
        participants.extend(rows.into_iter().filter_map(|(user, part)| {
            let part = part.at(now_ms)?;
            // How far they have read is for those who read with them.
            let read = if sees_presence { part.read } else { Seq(0) };
            Some((user, Participant { read, ..part }))
        }));
    }
    Ok(Answer::Room { room: seen.room, participants, sees_presence })
}

/// Where delivery of a room starts for someone who saw everything up to `after`: whether that is
/// right behind the cursor, and the first seq to send. The rule is that of pages.
///
/// # Errors
/// `invalid_cursor` for a cursor of this epoch that is beyond the head.
pub fn resume(room: &Room, after: &Cursor) -> Result<(bool, Seq), Error> {
    page::resume(room, after)
}

fn clamp(limit: usize) -> usize {
    limit.clamp(1, limits::PAGE_ITEMS_MAX)
}
