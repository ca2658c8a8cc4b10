//! A user's rooms, with what they have not read there.
//!
//! Unread are messages by others above the user's mark, whose text was not redacted; a mention is one
//! that names the user, as it was first said. Both are counted when they are asked for, from the newest
//! backwards, as far as a query may look: what is said needs no more writing for those who have not read it.

use std::sync::Arc;

use crate::chat::event::{Body, Event};
use crate::chat::mention;
use crate::chat::query::{OwnRoom, OwnRooms, Unread};
use crate::chat::state::{Part, Participant, Room, State};
use crate::id::{RoomId, Seq, UserId};
use crate::limits;

/// Rooms are looked through in pages of this many.
const SCAN: usize = 256;
/// Rooms that one query looks through at most.
const ROOMS_MAX: usize = 16 * SCAN;
/// Events are read in runs of this many.
const RUN: u64 = 64;
/// Bodies that one query reads at most, in bytes; a run more, at most.
const BYTES_MAX: usize = 8 << 20;

/// The first `limit` rooms above `after` that the user is in or invited to, and from where on to ask for more.
/// There may be fewer, and more to come, where looking took enough.
pub(super) fn mine(
    state: &impl State,
    user: &UserId,
    mut after: Option<RoomId>,
    limit: usize,
) -> OwnRooms {
    let (mut rooms, mut bytes) = (Vec::new(), BYTES_MAX);
    for _ in 0..ROOMS_MAX / SCAN {
        let page = state.rooms(after.as_ref(), SCAN);
        if page.is_empty() {
            return (rooms, None);
        }
        for room in page {
            after = Some(room.id.clone());
            let part = state.participant(&room.id, user).and_then(|p| p.at(state.log_time_ms()));
            let Some(part) = part.filter(|p| p.is_inside() || p.part == Part::Invited) else {
                continue;
            };
            let unread = unread(state, &room, user, &part, &mut bytes);
            rooms.push(OwnRoom { room, own: (user.clone(), part), unread });
            if rooms.len() == limit || bytes == 0 {
                return (rooms, after);
            }
        }
    }
    (rooms, after)
}

/// What somebody who is in a room has not read there. Takes what it reads from `bytes`.
fn unread(
    state: &impl State,
    room: &Room,
    user: &UserId,
    part: &Participant,
    bytes: &mut usize,
) -> Unread {
    let mut unread = Unread::default();
    if !part.is_inside() {
        return unread; // who is invited only has read nothing, and may not
    }
    let oldest = part.read.next().max(room.first_seq);
    let least = Seq(room.head.next().0.saturating_sub(limits::UNREAD_EVENTS_MAX)).max(oldest);
    let mut end = room.head.next();
    while end > least && *bytes > 0 {
        let first = Seq(end.0.saturating_sub(RUN)).max(least);
        for event in state.events(&room.id, first, Seq(end.0 - 1), RUN as usize, usize::MAX) {
            *bytes = bytes.saturating_sub(event.body.text().len());
            if counts(&event, user) {
                unread.messages += 1;
                unread.mentions += u64::from(mention::mentions(event.body.text()).contains(user));
            }
        }
        end = first;
    }
    unread.more = end > oldest;
    unread
}

fn counts(event: &Arc<Event>, user: &UserId) -> bool {
    event.kind.is_message() && event.sender != *user && matches!(event.body, Body::Present { .. })
}
