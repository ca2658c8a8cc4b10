//! What sessions and event streams have in common about a followed room.

use crate::chat::command::Actor;
use crate::chat::event::{Event, EventKind, Role};
use crate::error::{Code, Error};
use crate::gateway::backend::Feed;
use crate::id::{Cursor, Seq};

/// The last seq that counts as delivered when a feed begins.
pub fn start(feed: &Feed, after: Option<&Cursor>) -> Seq {
    match after {
        Some(after) if feed.recovered => after.seq,
        Some(_) => Seq(feed.first_seq.0.saturating_sub(1)),
        None => feed.head,
    }
}

/// Why a follower must not see anything after this event, as far as the event tells.
///
/// Permission to read is checked when a room is followed. A ban ends it. So does leaving, or being
/// removed, but in private rooms only, and the event does not say what room it is in: the feed
/// then ends with a temporary error, and whoever may still read follows again and goes on.
pub fn shut_out(event: &Event, follower: &Actor) -> Option<Error> {
    if follower.admin {
        return None;
    }
    let subject = event.subject.as_ref().unwrap_or(&event.sender);
    match (event.kind, event.role) {
        (EventKind::Role, Some(Role::Banned)) if *subject == follower.user => {
            Some(Error::new(Code::Banned, "you are banned from this room"))
        }
        (EventKind::Leave, _) if *subject == follower.user => {
            let message = "you are no participant any more; follow the room again if you may";
            Some(Error::new(Code::Unavailable, message).retry_after(0))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::event::Body;
    use crate::id::{RequestId, UserId};

    #[test]
    fn only_what_ends_the_followers_own_part_shuts_out() {
        let user = |id: &str| UserId::parse(id).unwrap();
        let event = |sender, subject: Option<&str>, kind, role| Event {
            seq: Seq(1),
            at_ms: 0,
            sender: user(sender),
            kind,
            request_id: RequestId::mint(0, [0; 10]),
            target: None,
            subject: subject.map(user),
            role,
            withdrawn: false,
            original_at_ms: None,
            original_sender: None,
            body: Body::Present { salt: [0; 16], text: String::new() },
        };
        use EventKind::{Leave, Message, Role as RoleSet};
        let cases = [
            (event("bob", None, Leave, None), Some(Code::Unavailable)),
            (event("ann", Some("bob"), Leave, None), Some(Code::Unavailable)),
            (event("ann", Some("bob"), RoleSet, Some(Role::Banned)), Some(Code::Banned)),
            (event("ann", Some("bob"), RoleSet, Some(Role::Muted)), None),
            (event("bob", Some("cy"), RoleSet, Some(Role::Banned)), None),
            (event("bob", Some("cy"), Leave, None), None),
            (event("ann", None, Leave, None), None),
            (event("bob", None, Message, None), None),
        ];
        for (event, expected) in cases {
            let bob = Actor { user: user("bob"), admin: false };
            assert_eq!(shut_out(&event, &bob).map(|error| error.code), expected, "{event:?}");
            let admin = Actor { user: user("bob"), admin: true };
            assert_eq!(shut_out(&event, &admin), None);
        }
    }
}
