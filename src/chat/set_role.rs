//! SetRole: what a participant may do. Bans are roles too, and lifting one makes the user a
//! participant again.
//!
//! | by | may give | to |
//! |---|---|---|
//! | admin | any role | anyone |
//! | owner | any role | anyone else |
//! | moderator | member, muted, banned | members, muted and banned ones; a ban to strangers too |
//!
//! Nobody takes the role of a room's last owner; though the owner may leave.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::append::Call;
use crate::chat::command::{Actor, Rejection, Reply};
use crate::chat::event::{EventKind, Role, Salt};
use crate::chat::state::{Participant, RoomKind, State, StateMut};
use crate::id::{RoomId, UserId};

/// Owners are looked for in pages of this many participants.
const SCAN: usize = 256;

/// Gives a user a role in a room. Strangers can only be banned.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    user: &UserId,
    role: Role,
    salt: Salt,
) -> Reply {
    let seen = access::see(call.state, call.actor, room)?;
    if seen.room.kind == RoomKind::Direct {
        return Err(Rejection::WrongRoomKind("direct"));
    }
    let present = call.state.participant(room, user);
    let before = present.as_ref().map(|part| part.role);
    authorise(call.actor, seen.role(), room, user, before, role)?;
    if before.is_none() && role != Role::Banned {
        return Err(Rejection::NotParticipant(room.clone()));
    }
    if before == Some(role) {
        return Ok(call.nothing_to_do(&seen.room, call.now_ms));
    }
    if before == Some(Role::Owner) && !other_owner(call.state, room, user) {
        return Err(Rejection::Forbidden(
            "this is the room's last owner: make somebody else an owner first".into(),
        ));
    }

    let mut row = Arc::unwrap_or_clone(seen.room);
    let inside = |role: Option<Role>| role.is_some_and(|role| role != Role::Banned);
    match (inside(before), role != Role::Banned) {
        (true, false) => row.participants = row.participants.saturating_sub(1),
        (false, true) => row.participants += 1,
        _ => {}
    }
    let since_ms = match present {
        Some(part) if part.role != Role::Banned && role != Role::Banned => part.since_ms,
        _ => call.now_ms,
    };
    call.state.put_participant(room, user, Some(Participant { role, since_ms }));
    let mut draft = call.draft(EventKind::Role, salt);
    draft.subject = Some(user.clone());
    draft.role = Some(role);
    Ok(call.append(row, draft))
}

fn authorise(
    actor: &Actor,
    own: Option<Role>,
    room: &RoomId,
    user: &UserId,
    before: Option<Role>,
    after: Role,
) -> Result<(), Rejection> {
    if actor.admin {
        return Ok(());
    }
    let forbidden = |reason: &str| Err(Rejection::Forbidden(reason.into()));
    match own {
        None => Err(Rejection::NotParticipant(room.clone())),
        Some(Role::Owner | Role::Moderator) if actor.user == *user => {
            forbidden("nobody changes their own role")
        }
        Some(Role::Owner) => Ok(()),
        Some(Role::Moderator) => {
            let low = |role| matches!(role, Role::Member | Role::Muted | Role::Banned);
            if low(after) && before.is_none_or(low) {
                Ok(())
            } else {
                forbidden("moderators mute, ban and restore members only")
            }
        }
        Some(_) => forbidden("only owners and moderators set roles"),
    }
}

/// Whether the room has an owner besides `user`.
fn other_owner(state: &impl State, room: &RoomId, user: &UserId) -> bool {
    let mut after: Option<UserId> = None;
    loop {
        let page = state.participants(room, after.as_ref(), SCAN);
        if page.iter().any(|(id, part)| part.role == Role::Owner && id != user) {
            return true;
        }
        match page.into_iter().next_back() {
            Some((last, _)) => after = Some(last),
            None => return false,
        }
    }
}
