//! A user who follows rooms: over server-sent events, a gRPC session or a WebSocket, dropping the
//! stream and taking it up again elsewhere, at times slowly, at times not at all for a while. On
//! some of those that take posts they post as well (`poster.rs`).

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::history::{F, Name, Op, Process, Value};
use crate::run::client::session::{Item, Stream};
use crate::run::client::{Client, Outcome};
use crate::run::workload::poster::Poster;
use crate::run::workload::{Mix, User, World};

/// How long a stream may be silent while more is due before it is taken up elsewhere.
const SILENCE: Duration = Duration::from_secs(5);

/// A follower of one room.
#[derive(Debug)]
pub struct Subscriber {
    world: Arc<World>,
    clients: Vec<Client>,
    rng: SmallRng,
    process: Process,
    /// The number of the subscription.
    pub subscription: u64,
    /// The room.
    pub room: Name,
    /// The last event that came; `None` before the first subscribe.
    pub delivered: Option<u64>,
    epoch: Option<String>,
    slow: bool,
    poster: Poster,
}

impl Subscriber {
    /// The subscriber with this number, of whatever room is picked.
    #[must_use]
    pub fn new(world: &Arc<World>, user: &User, number: usize) -> Subscriber {
        let mut rng = SmallRng::seed_from_u64(world.seed ^ (number as u64 + 1) << 48);
        let room = world.rooms.pick(&mut rng).name.clone();
        Subscriber {
            clients: world.clients(user),
            process: world.recorder.process(),
            subscription: world.recorder.subscription(),
            world: world.clone(),
            room,
            rng,
            delivered: None,
            epoch: None,
            poster: Poster::new(world, world.mix == Mix::All && number.is_multiple_of(3)),
            slow: number % 4 == 3,
        }
    }

    /// Follows until then, or until the world is over.
    pub async fn run(mut self, until: Instant) -> Subscriber {
        while !self.world.is_over() && Instant::now() < until {
            let stays = Duration::from_millis(self.rng.random_range(200..20_000));
            let node = self.world.draw(&mut self.rng);
            self.follow(node, until.min(Instant::now() + stays), None).await;
            let pause = Duration::from_millis(self.rng.random_range(5..500));
            sleep(pause).await;
        }
        self
    }

    /// Takes what is still due, up to the room's head. What did not come in time shows in the history,
    /// which says in the end how far it waited.
    pub async fn drain(mut self, head: u64, deadline: Instant) {
        self.slow = false;
        if self.delivered.is_none() {
            return; // it never got to follow
        }
        let mut node = 0;
        while self.delivered.unwrap_or(0) < head && Instant::now() < deadline {
            if self.world.is_present(node) {
                self.follow(node, deadline, Some(head)).await;
            }
            node = (node + 1) % self.clients.len();
            sleep(Duration::from_millis(20)).await;
        }
        let node = self.clients[node].node.clone();
        let value = Value::subscription(self.subscription, None);
        let op = self.world.recorder.begin(self.process, F::Unsubscribe, &node, &self.room, value);
        let value =
            Value::Subscription { subscription: self.subscription, after: None, head: Some(head) };
        self.world.recorder.push(op.ok(0, value));
    }

    /// Follows on one node until the stream breaks, `until`, or the seq that is waited for.
    async fn follow(&mut self, node: usize, until: Instant, last: Option<u64>) {
        let after = match self.delivered {
            None if self.rng.random_bool(0.3) => None,
            None => Some(0),
            delivered => delivered,
        };
        let transports = &self.world.transports;
        let transport = transports[self.rng.random_range(0..transports.len())];
        let epoch = self.epoch.clone().filter(|_| self.rng.random_bool(0.5));
        let client = &mut self.clients[node];
        let value = Value::subscription(self.subscription, after);
        let op =
            self.world.recorder.begin(self.process, F::Subscribe, &client.node, &self.room, value);
        let opened =
            Stream::open(client, transport, self.room.as_str(), after, epoch.as_deref()).await;
        let node = client.node.clone();
        self.process = self.world.recorder.end(&op, &opened, |(followed, _)| Value::Subscription {
            subscription: self.subscription,
            after: after.or(Some(followed.head)),
            head: Some(followed.head),
        });
        let Outcome::Ok((followed, mut stream)) = opened else { return };
        self.world.count(transport);
        let after = after.unwrap_or(followed.head);
        self.delivered = Some(after);
        self.epoch = Some(followed.epoch);
        self.take_in(&mut stream, &node, until, last).await;
        self.poster.leave();
    }

    /// Takes what comes on a stream, and posts on it, if it can.
    async fn take_in(
        &mut self,
        stream: &mut Stream,
        node: &str,
        until: Instant,
        last: Option<u64>,
    ) {
        if stream.takes_posts()
            && last.is_none()
            && let Some(place) = self.clients.iter().position(|client| client.node == node)
        {
            self.poster.enter(&mut self.clients[place], &self.room).await;
        }
        while last.is_none_or(|last| self.delivered.unwrap_or(0) < last) {
            if stream.takes_posts() && last.is_none() {
                self.poster.post(stream, node, &self.room, &mut self.rng);
            }
            let next = match last {
                None => timeout_at(self.poster.until(until), stream.next()).await,
                Some(_) => timeout(SILENCE, stream.next()).await,
            };
            match next {
                Ok(Ok(Item::Event(event))) => {
                    let op = Op::delivery(0, self.process, self.subscription, event);
                    self.world.recorder.push(op.node(node).room(&self.room));
                    self.delivered = Some(event.seq);
                }
                Ok(Ok(Item::Posted(outcome))) => self.poster.take(&outcome),
                Ok(Ok(Item::Other)) => {}
                // It is time to post again, or to give up waiting for an answer.
                Err(_) if last.is_none() && Instant::now() < until => self.poster.tick(),
                Ok(Err(_)) | Err(_) => return,
            }
            if self.slow && last.is_none() {
                self.dawdle().await;
            }
            if last.is_none() && self.world.is_over() {
                return;
            }
        }
    }

    /// Reads slower than is written; at times not at all, with the stream open.
    async fn dawdle(&mut self) {
        let pause = match self.rng.random_range(0..200) {
            0 => self.rng.random_range(500..5_000),
            _ => self.rng.random_range(0..40),
        };
        sleep(Duration::from_millis(pause)).await;
    }
}
