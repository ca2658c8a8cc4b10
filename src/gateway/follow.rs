//! What sessions and event streams have in common about a followed room.
//!
//! A feed ends where its replica is lost, stops or sees no leader. The client need not notice: the
//! gateway follows the room again from the last event that was delivered, wherever the router finds
//! a replica, and the client's stream goes on. Only where none is found in time is the client told,
//! who may know a better node.
//!
//! A client that reads so slowly that the room keeps no longer what comes next is told to follow again,
//! from its cursor: the answer to that is what says that something is missing.
//!
//! Permission to read is checked when a room is followed, so also when it is followed again; that is
//! done right after every event by which the follower's own part in the room ended.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::time::{Instant, sleep, timeout_at};

use crate::chat::command::Actor;
use crate::chat::event::{Event, EventKind, Role};
use crate::delivery::encoded::Encoded;
use crate::delivery::subscription::Next;
use crate::error::{Code, Error};
use crate::gateway::app::App;
use crate::gateway::backend::Feed;
use crate::id::{Cursor, RoomId, Seq};

/// For how long a feed that ended is looked for elsewhere. A failover takes about a second.
const MOVE_WITHIN: Duration = Duration::from_secs(5);
/// Before each attempt; most of them wait for a leader besides.
const MOVE_PAUSE: Duration = Duration::from_millis(20);

/// Follows a room from a cursor, or from its head, and goes on elsewhere as long as it can.
///
/// # Errors
/// The router's.
pub async fn subscribe(
    app: &Arc<App>,
    actor: &Actor,
    room: &RoomId,
    after: Option<Cursor>,
) -> Result<Feed, Error> {
    let feed = app.backend.subscribe(actor, room, after.clone()).await?;
    let seq = start(&feed, after.as_ref());
    let moving = Moving {
        app: app.clone(),
        actor: actor.clone(),
        room: room.clone(),
        delivered: Cursor { epoch: Some(feed.epoch.clone()), seq },
        caught_up: false,
        in_doubt: false,
        items: feed.next,
    };
    let next = stream::unfold(moving, |mut moving| async { Some((moving.next().await, moving)) });
    Ok(Feed { next: next.boxed(), ..feed })
}

/// A feed that outlives the replica that serves it.
struct Moving {
    app: Arc<App>,
    actor: Actor,
    room: RoomId,
    /// From where to go on.
    delivered: Cursor,
    caught_up: bool,
    /// Whether the follower may read on must be found out before anything else is delivered.
    in_doubt: bool,
    items: BoxStream<'static, Next>,
}

impl Moving {
    async fn next(&mut self) -> Next {
        if std::mem::take(&mut self.in_doubt) {
            let unknown = Error::new(Code::Unavailable, "may you still read this room? Try again");
            if let Err(error) = self.go_on(unknown).await {
                return Next::Ended(error);
            }
        }
        loop {
            match self.items.next().await {
                Some(Next::Ended(error)) if error.temporary() => {
                    if let Err(error) = self.go_on(error).await {
                        return Next::Ended(error);
                    }
                    self.app.metrics.follows_moved.increment(1);
                }
                // The cursor was good when the feed began.
                Some(Next::Ended(error)) if error.code == Code::InvalidCursor => {
                    if let Err(error) = self.go_on(follow_again()).await {
                        return Next::Ended(error);
                    }
                }
                Some(Next::CaughtUp(_)) if self.caught_up => {} // with what was missed meanwhile
                Some(Next::CaughtUp(seq)) => {
                    self.caught_up = true;
                    return Next::CaughtUp(seq);
                }
                Some(Next::Events(events)) => return Next::Events(self.readable(events)),
                Some(ended @ Next::Ended(_)) => return ended,
                None => return Next::Ended(Error::new(Code::Internal, "a feed has no end")),
            }
        }
    }

    /// The events up to one that may be the last that the follower may read.
    fn readable(&mut self, mut events: Vec<Arc<Encoded>>) -> Vec<Arc<Encoded>> {
        let ends = |event: &Arc<Encoded>| ends_part(&event.event, &self.actor);
        if let Some(at) = events.iter().position(ends) {
            events.truncate(at + 1);
            self.in_doubt = true;
        }
        if let Some(last) = events.last() {
            self.delivered.seq = last.event.seq;
        }
        events
    }

    /// Follows again from what was delivered last; `why` the feed ended, unless there is a better
    /// reason to give up.
    async fn go_on(&mut self, mut why: Error) -> Result<(), Error> {
        self.items = stream::empty().boxed(); // what served it need not be kept meanwhile
        let deadline = Instant::now() + MOVE_WITHIN;
        while Instant::now() < deadline && !self.app.drain.is_on() {
            sleep(MOVE_PAUSE).await;
            let after = Some(self.delivered.clone());
            let subscribed = self.app.backend.subscribe(&self.actor, &self.room, after);
            match timeout_at(deadline, subscribed).await {
                Ok(Ok(feed)) if feed.recovered => {
                    self.items = feed.next;
                    return Ok(());
                }
                Ok(Ok(_)) => return Err(follow_again()),
                Ok(Err(error)) if error.temporary() => why = error,
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Err(why)
    }
}

/// What a follower is told whose cursor no feed can go on from.
fn follow_again() -> Error {
    let message = "what comes next was replaced, or is not kept any more: follow the room again";
    Error::new(Code::Unavailable, message).retry_after(0)
}

/// The last seq that counts as delivered when a feed begins.
pub fn start(feed: &Feed, after: Option<&Cursor>) -> Seq {
    match after {
        Some(after) if feed.recovered => after.seq,
        Some(_) => Seq(feed.first_seq.0.saturating_sub(1)),
        None => feed.head,
    }
}

/// Whether the follower left with this event, or was removed or banned.
///
/// They may be back since, and in a public room everybody but the banned may read: the event alone
/// does not tell. An admin may always read.
fn ends_part(event: &Event, follower: &Actor) -> bool {
    let subject = event.subject.as_ref().unwrap_or(&event.sender);
    let ends = matches!(
        (event.kind, event.role),
        (EventKind::Leave, _) | (EventKind::Role, Some(Role::Banned))
    );
    ends && !event.withdrawn && *subject == follower.user && !follower.admin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::event::Body;
    use crate::id::{RequestId, UserId};

    #[test]
    fn a_part_ends_by_leaving_and_by_a_ban_of_ones_own() {
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
            until_ms: None,
            original_at_ms: None,
            original_sender: None,
            body: Body::Present { salt: [0; 16], text: String::new() },
        };
        use EventKind::{Leave, Message, Role as RoleSet};
        let cases = [
            (event("bob", None, Leave, None), true),
            (event("ann", Some("bob"), Leave, None), true),
            (event("ann", Some("bob"), RoleSet, Some(Role::Banned)), true),
            (event("ann", Some("bob"), RoleSet, Some(Role::Muted)), false),
            (event("bob", Some("cy"), RoleSet, Some(Role::Banned)), false),
            (event("bob", Some("cy"), Leave, None), false),
            (event("ann", None, Leave, None), false),
            (event("bob", None, Message, None), false),
        ];
        for (event, expected) in cases {
            let bob = Actor { user: user("bob"), admin: false };
            assert_eq!(ends_part(&event, &bob), expected, "{event:?}");
            let admin = Actor { user: user("bob"), admin: true };
            assert!(!ends_part(&event, &admin));
        }
    }
}
