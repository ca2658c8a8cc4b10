//! CreateRoom: a room and its first participants.
//!
//! The room's log begins with the creator's JOIN. A direct room has both its users in it from the
//! start, as plain members, for neither has a say over the other.

use crate::chat::append::{self, Call, Draft};
use crate::chat::check;
use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{EventKind, Role, Salt};
use crate::chat::state::{Participant, Retention, Room, RoomKind, StateMut};
use crate::id::{Epoch, RoomId, Seq, UserId};
use crate::limits;

/// Creates a room. One that is there already is the outcome when it is just as asked for, and by
/// the same creator; a direct room may be asked for by either of its users.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: RoomId,
    title: String,
    kind: RoomKind,
    epoch: Epoch,
    salt: Salt,
) -> Reply {
    let pair = room.direct_users();
    if pair.is_some() != (kind == RoomKind::Direct) {
        return Err(Rejection::InvalidArgument(
            "direct rooms, and they alone, have ids of the form dm:<a>:<b>".into(),
        ));
    }
    let creator = &call.actor.user;
    let own = pair.as_ref().is_none_or(|(a, b)| a == creator || b == creator);
    if !own && !call.actor.admin {
        return Err(Rejection::Forbidden("a direct room is created by one of its users".into()));
    }
    check::line("title", &title, limits::TITLE_BYTES_MAX)?;
    if let Some(present) = call.state.room(&room) {
        let same_creator = present.creator == *creator || kind == RoomKind::Direct;
        if present.title == title && present.kind == kind && same_creator {
            return Ok(call.nothing_to_do(&present, present.created_at_ms));
        }
        return Err(Rejection::AlreadyExists(format!("room {room}")));
    }

    let users = match pair {
        // In a group nobody has a say over another, either.
        None if kind == RoomKind::Group => vec![(creator.clone(), Role::Member)],
        None => vec![(creator.clone(), Role::Owner)],
        Some((a, b)) if b == *creator => vec![(b, Role::Member), (a, Role::Member)],
        Some((a, b)) => vec![(a, Role::Member), (b, Role::Member)],
    };
    let row = Room {
        id: room,
        kind,
        title,
        topic: String::new(),
        epoch,
        first_seq: Seq(1),
        head: Seq(0),
        chain: [0; 32],
        chain_base: [0; 32],
        participants: users.len() as u64,
        created_at_ms: call.now_ms,
        creator: creator.clone(),
        archived: false,
        pins: Vec::new(),
        retention: Retention::default(),
    };
    let drafts: Vec<Draft> =
        (1..).zip(&users).map(|(n, (user, _))| joined(call, &row.id, user, n, salt)).collect();
    let id = row.id.clone();
    let done = call.append_all(row, drafts);
    for (user, role) in users {
        let participant = Participant { read: done.seq, ..Participant::new(role, call.now_ms) };
        call.state.put_participant(&id, &user, Some(participant));
    }
    Ok(done)
}

/// The JOIN of the n-th first participant; the first has the request's own id and salt.
fn joined<S: StateMut>(
    call: &Call<'_, S>,
    room: &RoomId,
    user: &UserId,
    n: u64,
    salt: Salt,
) -> Draft {
    let mut draft = call.draft(EventKind::Join, salt);
    draft.subject = (*user != draft.sender).then(|| user.clone());
    if n > 1 {
        draft.request_id = append::derived_id(call.id, room, "join", n);
        draft.salt = append::derived_salt(&salt, n);
    }
    draft
}
