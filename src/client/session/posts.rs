//! The posts of a session that wait for their ack.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::client::retry::Backoff;
use crate::client::{Client, Post};
use crate::error::{Code, Error};
use crate::id::RequestId;
use crate::proto::v1 as pb;

/// Corrections of the clock for one post.
const SKEW_CORRECTIONS_MAX: u32 = 3;
/// Failures of one post on one server after which another server is tried.
const FAILURES_PER_SERVER: u32 = 3;

/// One post that waits.
struct Waiting {
    post: Post,
    id: RequestId,
    reply: oneshot::Sender<Result<pb::Ack, Error>>,
    /// An attempt may have been applied, so the id must not change any more.
    maybe_applied: bool,
    /// Sent on the present stream, and not answered yet.
    sent: bool,
    skews: u32,
    failures: u32,
    backoff: Backoff,
}

/// What the driver does after an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Go,
    /// Try another server.
    Move,
}

/// The posts that wait, by the number under which they were sent.
pub(super) struct Posts {
    client: Client,
    waiting: BTreeMap<u64, Waiting>,
    /// When to send again those that failed.
    due: BTreeSet<(Instant, u64)>,
}

impl Posts {
    /// None yet.
    pub(super) fn new(client: Client) -> Posts {
        Posts { client, waiting: BTreeMap::new(), due: BTreeSet::new() }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a post.
    pub(super) fn add(
        &mut self,
        number: u64,
        post: Post,
        reply: oneshot::Sender<Result<pb::Ack, Error>>,
    ) {
        let id = post.id.unwrap_or_else(|| self.client.mint_id());
        let backoff = Backoff::new(self.client.options());
        let waiting = Waiting {
            post,
            id,
            reply,
            maybe_applied: false,
            sent: false,
            skews: 0,
            failures: 0,
            backoff,
        };
        self.waiting.insert(number, waiting);
    }

    /// The request to send for a post; `None` when nobody waits for it any more.
    pub(super) fn send(&mut self, number: u64) -> Option<pb::SessionRequest> {
        let waiting = self.waiting.get_mut(&number)?;
        waiting.sent = true;
        let post = waiting.post.to_request(waiting.id);
        Some(pb::SessionRequest {
            id: number,
            request: Some(pb::session_request::Request::Post(post)),
        })
    }

    /// Settles a post with its ack.
    pub(super) fn acked(&mut self, number: u64, ack: pb::Ack) {
        if let Some(waiting) = self.waiting.remove(&number) {
            let _ = waiting.reply.send(Ok(ack));
        }
    }

    /// Settles a post with a rejection, or plans its next attempt.
    pub(super) fn failed(&mut self, number: u64, mut error: Error) -> Next {
        let Some(waiting) = self.waiting.get_mut(&number) else { return Next::Go };
        waiting.sent = false;
        if let Some(server_time_ms) = error.server_time_ms
            && error.code == Code::ClockSkew
            && waiting.post.id.is_none()
            && !waiting.maybe_applied
            && waiting.skews < SKEW_CORRECTIONS_MAX
        {
            self.client.shared.mint.correct(server_time_ms);
            waiting.id = self.client.mint_id();
            waiting.skews += 1;
            self.due.insert((Instant::now(), number));
            return Next::Go;
        }
        waiting.maybe_applied |= error.may_have_applied;
        if !error.temporary() {
            error.may_have_applied = waiting.maybe_applied;
            if let Some(waiting) = self.waiting.remove(&number) {
                let _ = waiting.reply.send(Err(error));
            }
            return Next::Go;
        }
        waiting.failures += 1;
        let delay = waiting.backoff.next(error.retry_after_ms);
        self.due.insert((Instant::now() + delay, number));
        let leaving =
            matches!(error.code, Code::NotReady | Code::ShuttingDown | Code::TooManyConnections);
        let stuck = waiting.failures.is_multiple_of(FAILURES_PER_SERVER);
        if leaving || (stuck && crate::client::retry::other_server_may_help(&error)) {
            return Next::Move;
        }
        Next::Go
    }

    /// When the next failed post is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A failed post that is due now.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<u64> {
        let (at, number) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        Some(number)
    }

    /// The stream broke: whatever was sent may have been applied. Returns every post, in order,
    /// to be sent again.
    pub(super) fn broken(&mut self) -> Vec<u64> {
        self.due.clear();
        for waiting in self.waiting.values_mut() {
            waiting.maybe_applied |= waiting.sent;
            waiting.sent = false;
        }
        self.waiting.keys().copied().collect()
    }

    /// Forgets posts for which nobody waits any more.
    pub(super) fn sweep(&mut self) {
        self.waiting.retain(|_, waiting| !waiting.reply.is_closed());
    }

    /// Fails all of them.
    pub(super) fn fail_all(&mut self, error: &Error) {
        for (_, waiting) in std::mem::take(&mut self.waiting) {
            let mut error = error.clone();
            error.may_have_applied |= waiting.maybe_applied;
            let _ = waiting.reply.send(Err(error));
        }
    }
}

/// How often posts that nobody waits for are swept, and silence is looked at.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
