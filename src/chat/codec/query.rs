//! Queries, as a node without a replica forwards them.

use bytes::{Buf, Bytes};

use crate::chat::codec::{Malformed, open, parse, seal};
use crate::chat::query::{Page, Query};
use crate::id::{Cursor, Seq};
use crate::proto::internal::ChatQuery;
use crate::proto::internal::chat_query as wire;

/// Encodes a query.
pub fn encode_query(query: &Query) -> Bytes {
    let query = match query {
        Query::Room { room } => wire::Query::Room(wire::Room { room: room.as_str().into() }),
        Query::Participants { room, after, limit } => {
            wire::Query::Participants(wire::Participants {
                room: room.as_str().into(),
                after: after.as_ref().map_or("", |user| user.as_str()).into(),
                limit: *limit as u64,
            })
        }
        Query::Rooms { after, limit, search } => {
            let after = after.as_ref().map_or("", |room| room.as_str()).into();
            wire::Query::Rooms(wire::List { after, limit: *limit as u64, search: search.clone() })
        }
        Query::Thread { room, root, page, limit } => wire::Query::Thread(wire::Thread {
            room: room.as_str().into(),
            root: root.0,
            limit: *limit as u64,
            page: match page {
                Page::After(cursor) => Some(wire::thread::Page::After(cursor_to_wire(cursor))),
                Page::Before(cursor) => Some(wire::thread::Page::Before(cursor_to_wire(cursor))),
                Page::Newest => None,
            },
        }),
        Query::Events { room, page, limit } => wire::Query::Events(wire::Events {
            room: room.as_str().into(),
            limit: *limit as u64,
            page: match page {
                Page::After(cursor) => Some(wire::events::Page::After(cursor_to_wire(cursor))),
                Page::Before(cursor) => Some(wire::events::Page::Before(cursor_to_wire(cursor))),
                Page::Newest => None,
            },
        }),
        Query::Export { room, after, limit } => wire::Query::Export(wire::Export {
            room: room.as_str().into(),
            after: after.0,
            limit: *limit as u64,
        }),
        Query::User { user } => wire::Query::User(wire::User { user: user.as_str().into() }),
        Query::Users { after, limit } => {
            let after = after.as_ref().map_or("", |user| user.as_str());
            let (after, limit) = (after.into(), *limit as u64);
            wire::Query::Users(wire::List { after, limit, search: String::new() })
        }
        Query::Mine { after, limit } => {
            let after = after.as_ref().map_or("", |room| room.as_str());
            let (after, limit) = (after.into(), *limit as u64);
            wire::Query::Mine(wire::List { after, limit, search: String::new() })
        }
        Query::Revocations => wire::Query::Revocations(wire::Revocations {}),
    };
    seal(&ChatQuery { query: Some(query) })
}

/// Decodes a query.
///
/// # Errors
/// [`Malformed`].
pub fn decode_query(bytes: impl Buf) -> Result<Query, Malformed> {
    let query: ChatQuery = open(bytes, "query")?;
    Ok(match query.query.ok_or(Malformed("query"))? {
        wire::Query::Room(q) => Query::Room { room: parse::room(&q.room)? },
        wire::Query::Participants(q) => Query::Participants {
            room: parse::room(&q.room)?,
            after: parse::maybe_user(&q.after)?,
            limit: limit(q.limit)?,
        },
        wire::Query::Rooms(q) => Query::Rooms {
            after: parse::maybe_room(&q.after)?,
            limit: limit(q.limit)?,
            search: q.search,
        },
        wire::Query::Thread(q) => Query::Thread {
            room: parse::room(&q.room)?,
            root: Seq(q.root),
            page: match q.page {
                Some(wire::thread::Page::After(cursor)) => Page::After(cursor_from_wire(cursor)?),
                Some(wire::thread::Page::Before(cursor)) => Page::Before(cursor_from_wire(cursor)?),
                None => Page::Newest,
            },
            limit: limit(q.limit)?,
        },
        wire::Query::Events(q) => Query::Events {
            room: parse::room(&q.room)?,
            page: match q.page {
                Some(wire::events::Page::After(cursor)) => Page::After(cursor_from_wire(cursor)?),
                Some(wire::events::Page::Before(cursor)) => Page::Before(cursor_from_wire(cursor)?),
                None => Page::Newest,
            },
            limit: limit(q.limit)?,
        },
        wire::Query::Export(q) => Query::Export {
            room: parse::room(&q.room)?,
            after: Seq(q.after),
            limit: limit(q.limit)?,
        },
        wire::Query::User(q) => Query::User { user: parse::user(&q.user)? },
        wire::Query::Users(q) => {
            Query::Users { after: parse::maybe_user(&q.after)?, limit: limit(q.limit)? }
        }
        wire::Query::Mine(q) => {
            Query::Mine { after: parse::maybe_room(&q.after)?, limit: limit(q.limit)? }
        }
        wire::Query::Revocations(wire::Revocations {}) => Query::Revocations,
    })
}

fn limit(limit: u64) -> Result<usize, Malformed> {
    usize::try_from(limit).map_err(|_| Malformed("limit"))
}

fn cursor_to_wire(cursor: &Cursor) -> wire::Cursor {
    let epoch = cursor.epoch.as_ref().map_or("", |epoch| epoch.as_str());
    wire::Cursor { epoch: epoch.into(), seq: cursor.seq.0 }
}

fn cursor_from_wire(cursor: wire::Cursor) -> Result<Cursor, Malformed> {
    Ok(Cursor { epoch: parse::maybe_epoch(&cursor.epoch)?, seq: Seq(cursor.seq) })
}
