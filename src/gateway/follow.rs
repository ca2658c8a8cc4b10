//! What sessions and event streams have in common about a followed room.

use crate::chat::command::Actor;
use crate::chat::event::{Event, EventKind, Role};
use crate::error::{Code, Error};
use crate::gateway::backend::Feed;
use crate::id::{Cursor, Seq};

/// The last seq that counts as delivered when a feed begins.
pub fn start(feed: &Feed, after: Option<&Cursor>) -> Seq {
    match after {
        Some(after) if feed.recovered => after.seq,
        Some(_) => Seq(feed.first_seq.0.saturating_sub(1)),
        None => feed.head,
    }
}

/// Why a follower must not see anything after this event: it bans them.
pub fn shut_out(event: &Event, follower: &Actor) -> Option<Error> {
    let banned = event.kind == EventKind::Role
        && event.role == Some(Role::Banned)
        && event.subject.as_ref() == Some(&follower.user)
        && !follower.admin;
    banned.then(|| Error::new(Code::Banned, "you are banned from this room"))
}
