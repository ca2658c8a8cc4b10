//! SetRole: makes owners, moderators and members of participants. Muted and banned are roles, too:
//! giving them, and taking them by making a member, is what `restrict` does.

use std::sync::Arc;

use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply, Restriction};
use crate::chat::event::{EventKind, Role, Salt};
use crate::chat::permission::{Action, Who};
use crate::chat::state::{Participant, StateMut};
use crate::chat::{access, restrict};
use crate::id::{RoomId, UserId};

/// Gives a participant a role. Nobody changes their own, nor takes that of a room's last owner.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    user: &UserId,
    role: Role,
    salt: Salt,
) -> Reply {
    let part = call.state.participant(room, user);
    let before = access::standing(part.as_ref(), call.now_ms);
    let reason = String::new();
    match (role, before) {
        (Role::Banned, _) => {
            return restrict::apply(call, room, user, Restriction::Ban, 0, reason, salt);
        }
        (Role::Muted, _) => {
            return restrict::apply(call, room, user, Restriction::Mute, 0, reason, salt);
        }
        (Role::Member, Who::Banned) => {
            return restrict::lift(call, room, user, Restriction::Ban, salt);
        }
        (Role::Member, Who::Muted) => {
            return restrict::lift(call, room, user, Restriction::Mute, salt);
        }
        _ => {}
    }
    let seen = access::may(call.state, call.actor, room, Action::SetRole)?;
    if *user == call.actor.user && !call.actor.admin {
        return Err(Rejection::Forbidden("nobody changes their own role".into()));
    }
    let Some(part) = part.filter(Participant::is_inside) else {
        return Err(Rejection::NotInRoom { room: room.clone(), user: user.clone() });
    };
    if part.role == role {
        return Ok(call.nothing_to_do(&seen.room, call.now_ms));
    }
    access::keep_an_owner(call.state, &seen.room, user, &part)?;
    let given = Participant { role, until_ms: None, ..part };
    call.state.put_participant(room, user, Some(given));
    let mut draft = call.draft(EventKind::Role, salt);
    draft.subject = Some(user.clone());
    draft.role = Some(role);
    Ok(call.append(Arc::unwrap_or_clone(seen.room), draft))
}
