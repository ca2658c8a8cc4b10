//! MarkRead: says up to where the actor has read a room. A row, and no event: it is nobody's history, and
//! would make everybody's unread rooms unread again.

use crate::chat::access;
use crate::chat::append::Call;
use crate::chat::command::{Done, Rejection, Reply};
use crate::chat::permission::Action;
use crate::chat::state::{Participant, StateMut};
use crate::id::{RoomId, Seq};

/// Moves the actor's mark to `seq`, unless it is there or further already. The outcome has the mark's seq.
pub(super) fn apply<S: StateMut>(call: &mut Call<'_, S>, room: &RoomId, seq: Seq) -> Reply {
    let seen = access::may(call.state, call.actor, room, Action::MarkRead)?;
    let Some(part) = seen.part.filter(Participant::is_inside) else {
        return Err(Rejection::NotParticipant(room.clone()));
    };
    if seq > seen.room.head {
        return Err(Rejection::EventNotFound { room: room.clone(), seq });
    }
    let moved = seq > part.read;
    let read = seq.max(part.read);
    if moved {
        call.state.put_participant(room, &call.actor.user, Some(Participant { read, ..part }));
    }
    let (epoch, at_ms) = (Some(seen.room.epoch.clone()), call.now_ms);
    Ok(Done { seq: read, epoch, at_ms, duplicate: !moved, imported: None })
}
