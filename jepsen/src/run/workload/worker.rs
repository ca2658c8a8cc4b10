//! A user who sends and reads, at a steady pace, now at this node, now at that.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use uuid::Uuid;

use crate::history::{Admin, F, Name, Process, Value};
use crate::run::client::{Api, Client, Outcome, Page, id, new_id};
use crate::run::workload::{Mix, User, World, text_of};

/// How long a worker tries to send one message, to join a room, or to create one, before it gives up.
const TRIES_FOR: Duration = Duration::from_secs(15);
/// Messages that a worker remembers, to send them again.
const REMEMBERED: usize = 500;
/// Events that a read asks for.
const PAGE: u32 = 100;

/// A message that was acknowledged.
#[derive(Clone, Debug)]
struct Acked {
    room: Name,
    id: Uuid,
}

/// A user and what they know.
#[derive(Debug)]
pub struct Worker {
    world: Arc<World>,
    clients: Vec<Client>,
    rng: SmallRng,
    process: Process,
    /// The node that it prefers now.
    home: usize,
    /// Under one id each, so that it is known which event a join is.
    joining: HashMap<Name, Uuid>,
    joined: HashSet<Name>,
    acked: Vec<Acked>,
    /// Where each room that it read ended.
    heads: HashMap<Name, u64>,
    /// Rooms that it could not create so far.
    left: Vec<(String, Uuid)>,
    /// When it was to do what it does now.
    due: Instant,
}

impl Worker {
    /// The worker with this number.
    #[must_use]
    pub fn new(world: &Arc<World>, user: &User, number: usize) -> Worker {
        Worker {
            clients: world.clients(user),
            rng: SmallRng::seed_from_u64(world.seed ^ (number as u64 + 1) << 32),
            process: world.recorder.process(),
            home: number % world.nodes.len(),
            world: world.clone(),
            joining: HashMap::new(),
            joined: HashSet::new(),
            acked: vec![],
            heads: HashMap::new(),
            left: vec![],
            due: Instant::now(),
        }
    }

    /// Works until the world is over.
    pub async fn run(mut self) -> Worker {
        // Each at a moment of its own, or all would be at once.
        let phase = self.rng.random_range(Duration::ZERO..self.world.interval);
        let mut pace = interval_at(Instant::now() + phase, self.world.interval);
        pace.set_missed_tick_behavior(match self.world.mix {
            Mix::All => MissedTickBehavior::Delay,
            Mix::Posts => MissedTickBehavior::Burst, // what is overdue is posted, too
        });
        while !self.world.is_over() {
            self.due = pace.tick().await;
            if self.rng.random_bool(0.01) {
                self.home = self.other();
            }
            let [send, repeat, read] = self.world.mix.percents();
            match self.rng.random_range(0..100) {
                drawn if drawn < send => self.send().await,
                drawn if drawn < send + repeat => self.repeat().await,
                drawn if drawn < send + repeat + read => self.read(F::Read).await,
                _ => self.read(F::ReadLocal).await,
            }
        }
        self
    }

    fn node(&mut self) -> usize {
        match self.rng.random_bool(0.8) && self.world.is_present(self.home) {
            true => self.home,
            false => self.other(),
        }
    }

    fn other(&mut self) -> usize {
        self.world.draw(&mut self.rng)
    }

    fn api(&mut self) -> Api {
        if self.rng.random_bool(0.5) { Api::Rest } else { Api::Grpc }
    }

    /// Sends a message; again with the same id, on another node, until it is acknowledged or
    /// patience is over.
    async fn send(&mut self) {
        let room = self.world.rooms.pick(&mut self.rng);
        if !self.join(&room.name).await {
            return;
        }
        let uuid = new_id();
        let mut node = self.node();
        let (mut f, begin) = (F::Send, Instant::now());
        while begin.elapsed() < TRIES_FOR {
            if self.attempt(f, node, &room.name, uuid, false).await {
                self.remember(Acked { room: room.name.clone(), id: uuid });
                if let Some(slot) = self.world.rooms.count_post(&room) {
                    // The old room goes on where that fails.
                    let _ = self.create(slot, TRIES_FOR).await;
                }
                return;
            }
            if self.world.is_over() {
                return;
            }
            self.pause().await;
            f = F::Resend;
            node = self.other();
            self.home = node;
        }
    }

    async fn pause(&mut self) {
        sleep(Duration::from_millis(self.rng.random_range(5..100))).await;
    }

    /// One try to send; whether it was acknowledged.
    async fn attempt(
        &mut self,
        f: F,
        node: usize,
        room: &Name,
        uuid: Uuid,
        other_body: bool,
    ) -> bool {
        let api = self.api();
        let mut text = text_of(uuid);
        if other_body {
            text.push('!');
        }
        let client = &mut self.clients[node];
        let value = |seq| Value::Write { id: id(uuid), seq, other_body };
        let late = match (self.world.mix, f) {
            (Mix::Posts, F::Send) => self.due.elapsed(),
            _ => Duration::ZERO,
        };
        let recorder = &self.world.recorder;
        let op = recorder.begin_late(self.process, f, &client.node, room, value(None), late);
        let outcome = client.post(api, room.as_str(), uuid, &text).await;
        self.process = self.world.recorder.end(&op, &outcome, |ack| value(Some(ack.seq)));
        matches!(outcome, Outcome::Ok(_))
    }

    fn remember(&mut self, acked: Acked) {
        if self.acked.len() < REMEMBERED {
            self.acked.push(acked);
        } else if let Some(place) = self.acked.get_mut(self.rng.random_range(0..2 * REMEMBERED)) {
            *place = acked;
        }
    }

    /// Sends what was acknowledged before, some seconds or minutes ago; now and then with another
    /// text, which must be refused.
    async fn repeat(&mut self) {
        let Some(acked) = self.acked.choose(&mut self.rng).cloned() else { return };
        let other_body = self.rng.random_bool(0.25);
        let node = self.other();
        self.attempt(F::Resend, node, &acked.room, acked.id, other_body).await;
    }

    async fn read(&mut self, f: F) {
        let room = self.world.rooms.pick(&mut self.rng);
        let known = self.heads.get(&room.name).copied().unwrap_or(0);
        // From the start, from where it was, or from a little before the end.
        let after = match self.rng.random_range(0..10) {
            0 => 0,
            1..=3 => known.saturating_sub(u64::from(PAGE) / 2),
            _ => known,
        };
        let (node, api) = (self.node(), self.api());
        if let Some(page) = self.read_page(f, node, api, &room.name, after).await {
            let head = self.heads.entry(room.name.clone()).or_default();
            *head = page.head.max(*head);
        }
    }

    async fn read_page(
        &mut self,
        f: F,
        node: usize,
        api: Api,
        room: &Name,
        after: u64,
    ) -> Option<Page> {
        let client = &mut self.clients[node];
        read_page(&self.world, &mut self.process, client, api, f, room, after, PAGE).await
    }

    /// Whether it is in the room, having joined if need be.
    async fn join(&mut self, room: &Name) -> bool {
        if self.joined.contains(room) {
            return true;
        }
        let uuid = *self.joining.entry(room.clone()).or_insert_with(new_id);
        let begin = Instant::now();
        while begin.elapsed() < TRIES_FOR {
            let node = self.other();
            let client = &mut self.clients[node];
            if self.world.join(&mut self.process, client, room, uuid).await {
                self.joined.insert(room.clone());
                return true;
            }
            if self.world.is_over() {
                return false;
            }
            self.pause().await;
        }
        false
    }

    /// Creates a fresh room for a slot. A room that does not come about in time, or before the world
    /// is over, is left for [`Worker::create_rest`]; the slot keeps the room that it has.
    ///
    /// # Errors
    ///
    /// What the last answer was.
    pub async fn create(&mut self, slot: usize, within: Duration) -> Result<(), String> {
        let name = self.world.rooms.fresh_name(slot);
        let made = self.try_create(&name, new_id(), within).await;
        if made.is_ok() {
            self.world.rooms.put(slot, &name);
        }
        made
    }

    /// Creates what it had to leave: it may be there already, and then is read like any other.
    ///
    /// # Errors
    ///
    /// Which room is still not there, and why.
    pub async fn create_rest(&mut self, within: Duration) -> Result<(), String> {
        for (name, uuid) in std::mem::take(&mut self.left) {
            self.try_create(&name, uuid, within).await?;
        }
        Ok(())
    }

    async fn try_create(&mut self, name: &str, uuid: Uuid, within: Duration) -> Result<(), String> {
        let (room, begin) = (Name::from(name), Instant::now());
        let was_over = self.world.is_over();
        loop {
            let node = self.other();
            let client = &mut self.clients[node];
            let value = |seq| {
                let what = "create-room".into();
                Value::Admin(Box::new(Admin { what, id: Some(id(uuid)), seq }))
            };
            let op =
                self.world.recorder.begin(self.process, F::Admin, &client.node, &room, value(None));
            let outcome = client.create_room(name, uuid).await;
            self.process = self.world.recorder.end(&op, &outcome, |_| {
                // A room's log begins with its creator's join, and nobody else creates this one.
                value(Some(1))
            });
            let why = match &outcome {
                Outcome::Ok(_) => {
                    self.joined.insert(room);
                    return Ok(());
                }
                Outcome::Failed(why) | Outcome::Unknown(why) => why.clone(),
            };
            if begin.elapsed() > within || (self.world.is_over() && !was_over) {
                self.left.push((name.into(), uuid));
                return Err(format!("room {name} was not created within {within:?}: {why}"));
            }
            self.pause().await;
        }
    }
}

/// Reads a page and records it.
#[expect(
    clippy::too_many_arguments,
    reason = "who, how, what and where; a struct would be used once"
)]
pub async fn read_page(
    world: &World,
    process: &mut Process,
    client: &mut Client,
    api: Api,
    f: F,
    room: &Name,
    after: u64,
    limit: u32,
) -> Option<Page> {
    let value = Value::range(after, Some(u64::from(limit)));
    let op = world.recorder.begin(*process, f, &client.node, room, value);
    let local = f != F::Read;
    let outcome = client.events(api, room.as_str(), after, limit, local).await;
    *process = world
        .recorder
        .end(&op, &outcome, |page| Value::Page { head: page.head, events: page.events.clone() });
    match outcome {
        Outcome::Ok(page) => Some(page),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::record::Recorder;
    use crate::run::workload::rooms::Rooms;

    #[tokio::test]
    async fn a_room_that_cannot_be_created_is_given_up_in_time_and_tried_again_in_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let recorder = Recorder::create(&directory.path().join("history.jsonl")).unwrap();
        let nobody = "127.0.0.1:1".parse().unwrap();
        let nodes = vec![("n1".to_owned(), nobody)];
        let (rooms, pace) = (Rooms::new(1, 10), Duration::from_secs(1));
        let world = Arc::new(World::new(recorder, nodes, rooms, pace, 1));
        let mut worker = Worker::new(&world, &User { token: "t".into() }, 0);
        let begin = Instant::now();
        let why = worker.create(0, Duration::from_millis(300)).await.unwrap_err();
        assert!(why.contains("r0-0") && why.contains("connect"), "{why}");
        assert!(begin.elapsed() < Duration::from_secs(30));
        // Whoever is still at it when the world is over does not go on for long.
        let begin = Instant::now();
        let ending = async {
            sleep(Duration::from_millis(300)).await;
            world.finish();
        };
        let (made, ()) = tokio::join!(worker.create(0, Duration::from_secs(3600)), ending);
        made.unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(30));
        let why = worker.create_rest(Duration::from_millis(300)).await.unwrap_err();
        assert!(why.contains("r0-0"), "{why}");
    }
}
