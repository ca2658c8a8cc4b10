//! Applies commands: the one way in which state changes.
//!
//! Called by a shard's state machine, on every replica, with the entries of the Raft log in order.
//! A command is decided first and changes state last, so a rejected one has changed nothing, and
//! an accepted one is remembered, so that its repeats are harmless (`dedup`).
//!
//! **Invariant:** the reply and the state afterwards depend on the state before, the request and
//! log time only.

use std::sync::Arc;

use bytes::Bytes;

use crate::chat::append::Call;
use crate::chat::command::{Command, Rejection, Reply, Request};
use crate::chat::event::Event;
use crate::chat::state::{Sent, StateMut};
use crate::chat::{archive, change_user, codec, create_room, create_user, dedup, edit, import};
use crate::chat::{
    invite, join, kick, leave, mark_read, pin, post, react, recover, redact, restrict,
};
use crate::chat::{retention, set_role, token, topic};
use crate::id::RoomId;

/// Events in the order in which they were appended, each with its room. Erased bodies aside,
/// this is what subscribers are told.
pub type Appended = Vec<(RoomId, Arc<Event>)>;

/// Applies the requests of one log entry, in order.
///
/// Moves log time to `stamp_ms` first, unless it is there already. Calls `replied` with each
/// request's index and reply, and pushes what was appended to `events`, which the caller clears.
/// A request that cannot be decoded is rejected, the same on every replica.
pub fn apply_batch(
    state: &mut impl StateMut,
    stamp_ms: u64,
    requests: &[Bytes],
    mut replied: impl FnMut(usize, Reply),
    events: &mut Appended,
) {
    state.advance_log_time(stamp_ms);
    for (index, bytes) in requests.iter().enumerate() {
        let reply = match codec::decode_request(bytes) {
            Ok(request) => apply(state, request, events),
            Err(_) => match codec::decode_recovery(bytes) {
                Ok(recovery) => Ok(recover::apply(state, &recovery)),
                Err(_) => Err(Rejection::Undecodable),
            },
        };
        replied(index, reply);
    }
}

/// Applies one request at the state's log time, and pushes what it appended to `events`.
///
/// # Errors
/// A [`Rejection`] is a reply like any other: the state is as it was before.
pub fn apply(state: &mut impl StateMut, request: Request, events: &mut Appended) -> Reply {
    let Request { actor, id, command } = request;
    let memo = match dedup::recognise(state, &actor.user, id, &command)? {
        dedup::Verdict::Repeat(done) => return Ok(done),
        dedup::Verdict::Fresh(memo) => memo,
    };
    let now_ms = state.log_time_ms();
    let mut call = Call { state, actor: &actor, id, now_ms, events };
    let done = dispatch(&mut call, command)?;
    if let Some(dedup::Memo { scope, body_hash }) = memo {
        let sent = Sent { sender: actor.user, seq: done.seq, at_ms: done.at_ms, body_hash };
        state.put_sent(&scope, id, sent);
    }
    Ok(done)
}

fn dispatch<S: StateMut>(call: &mut Call<'_, S>, command: Command) -> Reply {
    match command {
        Command::CreateUser { user, display_name, admin, token_hash } => {
            create_user::apply(call, user, display_name, admin, token_hash)
        }
        Command::IssueToken { user, token_hash, label } => {
            token::issue(call, &user, token_hash, label)
        }
        Command::RevokeToken { user, token_hash } => token::revoke(call, &user, &token_hash),
        Command::ChangeUser { user, change } => change_user::apply(call, user, change),
        Command::CreateRoom { room, title, kind, epoch, salt } => {
            create_room::apply(call, room, title, kind, epoch, salt)
        }
        Command::Join { room, salt } => join::apply(call, &room, salt),
        Command::Leave { room, salt } => leave::apply(call, &room, salt),
        Command::Post { room, kind, text, reply_to, salt } => {
            post::apply(call, &room, kind, text, reply_to, salt)
        }
        Command::Edit { room, target, text, salt } => edit::apply(call, &room, target, text, salt),
        Command::Redact { room, target, salt } => redact::apply(call, &room, target, salt),
        Command::React { room, target, symbol, withdraw, salt } => {
            react::apply(call, &room, target, symbol, withdraw, salt)
        }
        Command::SetRole { room, user, role, salt } => {
            set_role::apply(call, &room, &user, role, salt)
        }
        Command::Import { room, source, lines, salt } => {
            import::apply(call, &room, &source, lines, &salt)
        }
        other => dispatch_to_room(call, other),
    }
}

/// What concerns who is in a room, and the room itself.
fn dispatch_to_room<S: StateMut>(call: &mut Call<'_, S>, command: Command) -> Reply {
    match command {
        Command::Invite { room, user, salt } => invite::apply(call, &room, &user, salt),
        Command::Kick { room, user, reason, salt } => kick::apply(call, &room, &user, reason, salt),
        Command::Restrict { room, user, restriction, for_ms, reason, salt } => {
            restrict::apply(call, &room, &user, restriction, for_ms, reason, salt)
        }
        Command::Lift { room, user, restriction, salt } => {
            restrict::lift(call, &room, &user, restriction, salt)
        }
        Command::SetTopic { room, topic, salt } => topic::apply(call, &room, topic, salt),
        Command::Pin { room, target, withdraw, salt } => {
            pin::apply(call, &room, target, withdraw, salt)
        }
        Command::Archive { room, withdraw, salt } => archive::apply(call, &room, withdraw, salt),
        Command::SetRetention { room, retention, salt } => {
            retention::set(call, &room, retention, salt)
        }
        Command::MarkRead { room, seq } => mark_read::apply(call, &room, seq),
        Command::Trim { room, salt } => retention::trim(call, &room, salt),
        // `dispatch` has the rest.
        _ => Err(Rejection::Undecodable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::command::Actor;
    use crate::chat::memory::Memory;
    use crate::chat::state::State;
    use crate::id::{RequestId, UserId};

    fn create_user(user: &str, n: u8) -> Bytes {
        let user = UserId::parse(user).unwrap();
        codec::encode_request(&Request {
            actor: Actor { user: UserId::parse("root").unwrap(), admin: true },
            id: RequestId::mint(1000, [n; 10]),
            command: Command::CreateUser {
                user,
                display_name: String::new(),
                admin: false,
                token_hash: None,
            },
        })
    }

    #[test]
    fn a_batch_replies_to_each_request_in_order_and_rejects_what_it_cannot_decode() {
        let mut state = Memory::default();
        let mut replies = Vec::new();
        let requests = [create_user("ann", 1), Bytes::from_static(b"\x01junk"), Bytes::new()];
        apply_batch(&mut state, 1000, &requests, |i, r| replies.push((i, r)), &mut Vec::new());
        assert!(replies[0].1.is_ok());
        assert_eq!(replies[1], (1, Err(Rejection::Undecodable)));
        assert_eq!(replies[2], (2, Err(Rejection::Undecodable)));
    }

    #[test]
    fn log_time_never_goes_back() {
        let mut state = Memory::default();
        for stamp in [5000, 4000, 6000] {
            apply_batch(&mut state, stamp, &[], |_, _| (), &mut Vec::new());
        }
        assert_eq!(state.log_time_ms(), 6000);
        apply_batch(&mut state, 0, &[create_user("ann", 1)], |_, _| (), &mut Vec::new());
        let ann = state.user(&UserId::parse("ann").unwrap()).unwrap();
        assert_eq!(ann.created_at_ms, 6000);
    }
}
