//! Restrict and Lift: bans and mutes, for a time or for good.
//!
//! Both are in the participant's row, which stays when they leave, so that nobody sheds one by
//! leaving and joining again. One that has a time ends by itself, in log time, without an event.

use std::sync::Arc;

use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply, Restriction};
use crate::chat::event::{EventKind, Role, Salt};
use crate::chat::permission::Who;
use crate::chat::state::{Part, Participant, StateMut};
use crate::chat::{access, check};
use crate::id::{RoomId, UserId};
use crate::limits;

/// Bans or mutes somebody over whom the actor has a say, for `for_ms` milliseconds from now on, or
/// for good when that is 0. Anybody can be banned, only who is in or has a part can be muted. What
/// they were (a moderator, say) is gone.
pub(super) fn apply<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    user: &UserId,
    restriction: Restriction,
    for_ms: u64,
    reason: String,
    salt: Salt,
) -> Reply {
    let seen = access::may(call.state, call.actor, room, restriction.action())?;
    check::line("reason", &reason, limits::REASON_BYTES_MAX)?;
    if for_ms > limits::RESTRICTION_MS_MAX {
        return Err(Rejection::InvalidArgument(format!(
            "a {restriction} lasts at most {} days, or for good",
            limits::RESTRICTION_MS_MAX / 86_400_000
        )));
    }
    if *user == call.actor.user {
        return Err(Rejection::Forbidden("nobody changes their own role".into()));
    }
    let part = call.state.participant(room, user);
    let target = access::standing(part.as_ref(), call.now_ms);
    seen.outrank(target)?;
    if let Some(part) = &part {
        access::keep_an_owner(call.state, &seen.room, user, part)?;
        let same = part.role == restriction.role() && part.until_ms.is_none() && for_ms == 0;
        if same {
            return Ok(call.nothing_to_do(&seen.room, call.now_ms));
        }
    }
    let inside = part.as_ref().is_some_and(Participant::is_inside);
    let until_ms = (for_ms > 0).then(|| call.now_ms.saturating_add(for_ms));
    let mut row = Arc::unwrap_or_clone(seen.room);
    let restricted = match (restriction, part) {
        (Restriction::Ban, _) => {
            row.participants -= u64::from(inside && row.participants > 0);
            Participant { until_ms, ..Participant::new(Role::Banned, call.now_ms) }
        }
        (Restriction::Mute, Some(part))
            if !matches!(target, Who::Outsider | Who::Banned) || part.is_muted(call.now_ms) =>
        {
            Participant { role: Role::Muted, until_ms, ..part }
        }
        (Restriction::Mute, _) => {
            return Err(Rejection::NotInRoom { room: room.clone(), user: user.clone() });
        }
    };
    call.state.put_participant(room, user, Some(restricted));
    let mut draft = call.draft(EventKind::Role, salt);
    draft.subject = Some(user.clone());
    draft.role = Some(restriction.role());
    draft.until_ms = until_ms;
    draft.text = reason;
    Ok(call.append(row, draft))
}

/// Lifts a ban or a mute. Whoever was banned may join again; whoever was muted is a member.
pub(super) fn lift<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    user: &UserId,
    restriction: Restriction,
    salt: Salt,
) -> Reply {
    let seen = access::may(call.state, call.actor, room, restriction.action())?;
    if *user == call.actor.user && seen.who != Who::Admin {
        return Err(Rejection::Forbidden("nobody changes their own role".into()));
    }
    let part = call.state.participant(room, user);
    let held = part.filter(|part| match restriction {
        Restriction::Ban => part.who(call.now_ms) == Who::Banned,
        Restriction::Mute => part.is_muted(call.now_ms),
    });
    let Some(part) = held else { return Ok(call.nothing_to_do(&seen.room, call.now_ms)) };
    let kept = match restriction {
        Restriction::Ban => None,
        Restriction::Mute if part.part == Part::Out => None,
        Restriction::Mute => Some(Participant { role: Role::Member, until_ms: None, ..part }),
    };
    call.state.put_participant(room, user, kept);
    let mut draft = call.draft(EventKind::Role, salt);
    draft.subject = Some(user.clone());
    draft.role = Some(restriction.role());
    draft.withdrawn = true;
    Ok(call.append(Arc::unwrap_or_clone(seen.room), draft))
}
