//! SetRetention and Trim: how much of a room's log is kept, and the end of the rest.
//!
//! What is beyond a limit goes with the room's next events, oldest first. In a room in which
//! nothing happens, the cluster trims what has become too old. Either way `first_seq` and
//! `chain_base` move in `apply`, together with an event, so that replicas agree wherever their
//! heads are the same. Readers do not get past `first_seq` from that moment on; `store` removes the
//! blocks.

use std::sync::Arc;

use crate::chat::access;
use crate::chat::append::Call;
use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{Event, EventKind, Salt};
use crate::chat::permission::Action;
use crate::chat::state::{Retention, Room, State, StateMut};
use crate::id::{RoomId, Seq};
use crate::limits;

/// Events looked at together, and their bytes.
const RUN: usize = 256;
const RUN_BYTES: usize = 1024 * 1024;

/// Says how much of a room's log is kept. What is beyond goes at once, at most
/// [`limits::TRIM_EVENTS_MAX`] events; the cluster trims the rest in further steps.
pub(super) fn set<S: StateMut>(
    call: &mut Call<'_, S>,
    room: &RoomId,
    retention: Retention,
    salt: Salt,
) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::SetRetention)?;
    let Retention { max_age_ms, max_events } = retention;
    let ages = limits::RETENTION_AGE_MS_MIN..=limits::RETENTION_AGE_MS_MAX;
    if max_age_ms != 0 && !ages.contains(&max_age_ms) {
        return Err(Rejection::InvalidArgument(format!(
            "an age is from {} seconds to {} days, or 0 for no limit",
            limits::RETENTION_AGE_MS_MIN / 1000,
            limits::RETENTION_AGE_MS_MAX / 86_400_000
        )));
    }
    if max_events != 0 && max_events < limits::RETENTION_EVENTS_MIN {
        return Err(Rejection::InvalidArgument(format!(
            "a room keeps at least {} events, or 0 for no limit",
            limits::RETENTION_EVENTS_MIN
        )));
    }
    if seen.room.retention == retention {
        return Ok(call.nothing_to_do(&seen.room, call.now_ms));
    }
    let mut row = Arc::unwrap_or_clone(seen.room);
    row.retention = retention;
    let mut draft = call.draft(EventKind::Retention, salt);
    draft.text = shown(&retention);
    let done = call.append(row, draft);
    trim_due(call.state, room, call.now_ms, limits::TRIM_EVENTS_MAX);
    Ok(done)
}

/// Retention in words, as its event says it.
fn shown(retention: &Retention) -> String {
    let mut parts = Vec::new();
    if retention.max_age_ms > 0 {
        parts.push(format!("{} ms", retention.max_age_ms));
    }
    if retention.max_events > 0 {
        parts.push(format!("{} events", retention.max_events));
    }
    if parts.is_empty() { "everything".into() } else { parts.join(", ") }
}

/// Drops what is beyond a room's limits, and says so with an event. Asked for by the cluster, when
/// nothing else happens in the room; to others it is forbidden.
pub(super) fn trim<S: StateMut>(call: &mut Call<'_, S>, room: &RoomId, salt: Salt) -> Reply {
    let row = call.state.room(room).ok_or_else(|| Rejection::RoomNotFound(room.clone()))?;
    if !call.actor.admin || call.actor.user.as_str() != CLUSTER {
        access::may(call.state, call.actor, room, Action::See)?;
        return Err(Rejection::Forbidden("the cluster trims rooms by itself".into()));
    }
    if !is_due(call.state, &row, call.now_ms) {
        return Ok(call.nothing_to_do(&row, call.now_ms));
    }
    let draft = call.draft(EventKind::Trim, salt);
    let done = call.append(Arc::unwrap_or_clone(row), draft);
    trim_due(call.state, room, call.now_ms, limits::TRIM_EVENTS_MAX);
    Ok(done)
}

/// Who trims: no user's name.
pub const CLUSTER: &str = "cluster";

/// Whether a room has something to be trimmed besides the events that say that it was: else a room
/// in which nothing happens would go on for ever.
pub fn is_due(state: &impl State, room: &Room, now_ms: u64) -> bool {
    if !room.retention.is_set() {
        return false;
    }
    let mut next = room.first_seq;
    loop {
        let run = state.events(&room.id, next, room.head, RUN, RUN_BYTES);
        for event in &run {
            if !is_beyond(room, event, now_ms) {
                return false;
            }
            if event.kind != EventKind::Trim {
                return true;
            }
        }
        let Some(last) = run.last() else { return false };
        next = last.seq.next();
    }
}

fn is_beyond(room: &Room, event: &Event, now_ms: u64) -> bool {
    let Retention { max_age_ms, max_events } = room.retention;
    let aged = max_age_ms > 0 && event.at_ms.saturating_add(max_age_ms) <= now_ms;
    let surplus = max_events > 0 && room.head.0 - event.seq.0 >= max_events;
    aged || surplus
}

/// Drops a room's oldest events as far as they are beyond its limits, at most `max` of them. The
/// last event stays.
pub(super) fn trim_due(state: &mut impl StateMut, id: &RoomId, now_ms: u64, max: u64) {
    let Some(row) = state.room(id) else { return };
    let (first_seq, mut chain_base) = (row.first_seq, row.chain_base);
    let end = Seq(first_seq.0.saturating_add(max)).min(row.head);
    let mut next = first_seq;
    'runs: while next < end {
        let run = state.events(id, next, Seq(end.0 - 1), RUN, RUN_BYTES);
        if run.is_empty() {
            break;
        }
        for event in run {
            if !is_beyond(&row, &event, now_ms) {
                break 'runs;
            }
            chain_base = event.chain(&chain_base);
            next = event.seq.next();
        }
    }
    if next == first_seq {
        return;
    }
    let mut row = Arc::unwrap_or_clone(row);
    row.first_seq = next;
    row.chain_base = chain_base;
    row.pins.retain(|seq| *seq >= next);
    state.put_room(row);
    state.forget_events(id, next);
}
