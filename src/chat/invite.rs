//! Invite: lets somebody see a room that is hidden from them, and join it.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{EventKind, Role, Salt};
use crate::chat::permission::{Action, Who};
use crate::chat::state::{Part, Participant, StateMut};
use crate::id::{RoomId, UserId};

/// Invites a user. Who is in or invited already stays so; a ban must be lifted first. That there
/// is such a user, the gateway has asked: users are in other shards.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    user: &UserId,
    salt: Salt,
) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::Invite)?;
    let part = call.state.participant(room, user);
    match access::standing(part.as_ref(), call.now_ms) {
        Who::Outsider => {}
        Who::Banned => {
            return Err(Rejection::Forbidden(format!("{user} is banned: lift the ban first")));
        }
        _ => {
            let since_ms = part.map_or(call.now_ms, |part| part.since_ms);
            return Ok(call.nothing_to_do(&seen.room, since_ms));
        }
    }
    let asked = match part {
        Some(part) if part.is_muted(call.now_ms) => part,
        _ => Participant::new(Role::Member, call.now_ms),
    };
    let asked = Participant { part: Part::Invited, since_ms: call.now_ms, ..asked };
    call.state.put_participant(room, user, Some(asked));
    let mut draft = call.draft(EventKind::Invite, salt);
    draft.subject = Some(user.clone());
    Ok(call.append(Arc::unwrap_or_clone(seen.room), draft))
}
