//! What sessions and event streams have in common about a followed room.
//!
//! A feed ends where its replica is lost, stops or sees no leader. The client need not notice: the
//! gateway follows the room again from the last event that was delivered, wherever the router finds
//! a replica, and the client's stream goes on. Only where none is found in time is the client told,
//! who may know a better node.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::time::{Instant, sleep, timeout_at};

use crate::chat::command::Actor;
use crate::chat::event::{Event, EventKind, Role};
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
    items: BoxStream<'static, Next>,
}

impl Moving {
    async fn next(&mut self) -> Next {
        loop {
            match self.items.next().await {
                Some(Next::Ended(error)) if error.temporary() => {
                    if let Err(error) = self.go_on(error).await {
                        return Next::Ended(error);
                    }
                }
                Some(Next::CaughtUp(_)) if self.caught_up => {} // with what was missed meanwhile
                Some(next) => {
                    match &next {
                        Next::Events(events) => {
                            let last = events.last().map(|last| last.event.seq);
                            self.delivered.seq = last.unwrap_or(self.delivered.seq);
                        }
                        Next::CaughtUp(_) => self.caught_up = true,
                        Next::Ended(_) => {}
                    }
                    return next;
                }
                None => return Next::Ended(Error::new(Code::Internal, "a feed has no end")),
            }
        }
    }

    /// Follows again from what was delivered last; `why` the feed ended, unless there is a better
    /// reason to give up.
    async fn go_on(&mut self, mut why: Error) -> Result<(), Error> {
        self.items = stream::empty().boxed(); // what served it need not be kept meanwhile
        let deadline = Instant::now() + MOVE_WITHIN;
        while Instant::now() < deadline && !self.app.shutdown.is_cancelled() {
            sleep(MOVE_PAUSE).await;
            let after = Some(self.delivered.clone());
            let subscribed = self.app.backend.subscribe(&self.actor, &self.room, after);
            match timeout_at(deadline, subscribed).await {
                Ok(Ok(feed)) if feed.recovered => {
                    self.app.metrics.follows_moved.increment(1);
                    self.items = feed.next;
                    return Ok(());
                }
                Ok(Ok(_)) => {
                    let message = "the room's history was replaced: follow it again";
                    return Err(Error::new(Code::Unavailable, message).retry_after(0));
                }
                Ok(Err(error)) if error.temporary() => why = error,
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Err(why)
    }
}

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
