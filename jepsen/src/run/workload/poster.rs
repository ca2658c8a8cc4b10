//! Posts on the stream that follows a room, a session's or a WebSocket: one at a time, so that an answer is known by
//! its order. What was not answered is posted again with the same id, on the next stream.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use tokio::time::Instant;
use uuid::Uuid;

use crate::history::{F, Name, Op, Process, Value};
use crate::run::client::session::Stream;
use crate::run::client::{Ack, Client, Outcome, PATIENCE, id, new_id};
use crate::run::workload::{World, text_of};

/// Between two posts, in milliseconds: from and to.
const EVERY_MS: (u64, u64) = (200, 1_500);

/// Somebody who posts where they follow.
#[derive(Debug)]
pub struct Poster {
    world: Arc<World>,
    process: Process,
    /// Whether they ever post.
    posts: bool,
    joined: bool,
    /// They can post on the present stream: it takes posts, and has answered all so far.
    open: bool,
    /// What was posted and not answered yet, and when that is given up.
    waiting: Option<(Op, Uuid, Instant)>,
    /// What was posted and may not have arrived.
    unsure: Option<Uuid>,
    next: Instant,
}

impl Poster {
    /// Has posted nothing yet.
    #[must_use]
    pub fn new(world: &Arc<World>, posts: bool) -> Poster {
        Poster {
            world: world.clone(),
            process: world.recorder.process(),
            posts,
            joined: false,
            open: false,
            waiting: None,
            unsure: None,
            next: Instant::now(),
        }
    }

    /// A stream was opened: they join the room, if they have not yet.
    pub async fn enter(&mut self, client: &mut Client, room: &Name) {
        if self.posts && !self.joined {
            let uuid = self.world.joining(room);
            // Several of these are one user, who joins under one id.
            self.joined = self.world.join(&mut self.process, client, room, uuid).await;
        }
        self.open = self.posts && self.joined;
    }

    /// Posts, when it is time to.
    pub fn post(&mut self, stream: &mut Stream, node: &str, room: &Name, rng: &mut SmallRng) {
        if !self.open || self.waiting.is_some() || Instant::now() < self.next {
            return;
        }
        let (from, to) = EVERY_MS;
        self.next = Instant::now() + Duration::from_millis(rng.random_range(from..to));
        let (f, uuid) = match self.unsure.take() {
            Some(uuid) => (F::Resend, uuid),
            None => (F::Send, new_id()),
        };
        let op = self.world.recorder.begin(self.process, f, node, room, Value::send(id(uuid)));
        self.waiting = Some((op, uuid, Instant::now() + PATIENCE));
        if !stream.post(uuid, &text_of(uuid)) {
            self.end(&Outcome::Failed("not-sent".into()));
        }
    }

    /// The answer to the post that waits for one.
    pub fn take(&mut self, outcome: &Outcome<Ack>) {
        self.end(outcome);
    }

    /// Gives up what waits for too long; later answers could not be told apart.
    pub fn tick(&mut self) {
        if self.waiting.as_ref().is_some_and(|(.., until)| Instant::now() >= *until) {
            self.end(&Outcome::Unknown("client-timeout".into()));
            self.open = false;
        }
    }

    /// The stream is over.
    pub fn leave(&mut self) {
        self.end(&Outcome::Unknown("connection-lost".into()));
        self.open = false;
    }

    /// When something is due here, if not before.
    #[must_use]
    pub fn until(&self, until: Instant) -> Instant {
        match &self.waiting {
            Some((.., given_up)) => until.min(*given_up),
            None if self.open => until.min(self.next),
            None => until,
        }
    }

    fn end(&mut self, outcome: &Outcome<Ack>) {
        let Some((op, uuid, _)) = self.waiting.take() else { return };
        let value = |ack: &Ack| Value::sent(id(uuid), ack.seq);
        self.process = self.world.recorder.end(&op, outcome, value);
        match outcome {
            Outcome::Ok(_) => drop(self.world.session_posts.fetch_add(1, Ordering::Relaxed)),
            Outcome::Failed(_) | Outcome::Unknown(_) => self.unsure = Some(uuid),
        }
    }
}
