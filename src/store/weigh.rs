//! How much memory rows take, for the bounds of `overlay.rs`.

use std::sync::Arc;

use bytes::Bytes;

use crate::chat::account::{Invite, Session, Token, User};
use crate::chat::state::{Notes, Participant, Room};
use crate::id::{RoomId, Seq, UserId};

/// How much memory a row takes, in bytes, roughly.
pub trait Weigh {
    /// Heap bytes and the value itself.
    fn weigh(&self) -> usize;
}

impl Weigh for RoomId {
    fn weigh(&self) -> usize {
        16
    }
}

impl Weigh for UserId {
    fn weigh(&self) -> usize {
        16
    }
}

impl Weigh for Seq {
    fn weigh(&self) -> usize {
        8
    }
}

impl Weigh for String {
    fn weigh(&self) -> usize {
        24 + self.len()
    }
}

impl<A: Weigh, B: Weigh> Weigh for (A, B) {
    fn weigh(&self) -> usize {
        self.0.weigh() + self.1.weigh()
    }
}

impl Weigh for Bytes {
    fn weigh(&self) -> usize {
        64 + self.len()
    }
}

impl Weigh for u64 {
    fn weigh(&self) -> usize {
        8
    }
}

impl Weigh for Participant {
    fn weigh(&self) -> usize {
        size_of::<Participant>()
    }
}

impl Weigh for Arc<Room> {
    fn weigh(&self) -> usize {
        // The ids' and the epoch's text, shared by most who have them, counts here.
        size_of::<Room>() + 192 + self.title.len() + self.topic.len() + 8 * self.pins.len()
    }
}

impl Weigh for Arc<User> {
    fn weigh(&self) -> usize {
        let label = |token: &Token| size_of::<Token>() + token.label.len();
        let session = |session: &Session| {
            size_of::<Session>() + session.user_agent.len() + session.address.len()
        };
        let invite = |invite: &Invite| size_of::<Invite>() + 16 * invite.used_by.len();
        size_of::<User>()
            + 96
            + self.display_name.len()
            + self.status.len()
            + self.password.as_ref().map_or(0, |password| password.phc().len())
            + self.tokens.iter().map(label).sum::<usize>()
            + self.sessions.iter().map(session).sum::<usize>()
            + self.invites.iter().map(invite).sum::<usize>()
    }
}

impl Weigh for Arc<Notes> {
    fn weigh(&self) -> usize {
        let reaction =
            |(symbol, users): &(String, Vec<UserId>)| 64 + symbol.len() + 64 * users.len();
        size_of::<Notes>()
            + 8 * (self.edits.len() + self.replies.len())
            + self.reactions.iter().map(reaction).sum::<usize>()
    }
}
