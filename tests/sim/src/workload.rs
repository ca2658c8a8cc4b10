//! What clients do: send, send again, read, follow.
//!
//! A client is a task of the simulation. What it asks of a node runs in that node's process, and
//! breaks with it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use folkmoot::chat::command::{Actor, Command, Done, Request};
use folkmoot::chat::event::EventKind;
use folkmoot::chat::query::{Answer, Events, Page, Query};
use folkmoot::chat::state::RoomKind;
use folkmoot::error::Error;
use folkmoot::id::{Cursor, Epoch, RequestId, RoomId, Seq, UserId};
use folkmoot::router::Consistency;
use folkmoot::shard::runtime::AsyncRuntime;
use folkmoot_jepsen::history::{Admin, F, Op, Process, Value};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::cluster::{Cluster, Node, true_ms};
use crate::plan::Plan;
use crate::record::{self, Recorder, now};
use crate::runtime::{Sim, elapsed};

/// How long a client waits for an answer.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long a client tries to create or join a room.
const ADMINISTER_WITHIN: Duration = Duration::from_secs(40);
/// Events that a read asks for at most.
const PAGE_EVENTS: usize = 1000;

/// What came of asking a node.
#[derive(Debug)]
pub enum Outcome<T> {
    /// It answered.
    Ok(T),
    /// It certainly did nothing.
    Failed(String),
    /// It may have done it, or may still.
    Unknown(String),
}

impl<T> From<Result<T, Error>> for Outcome<T> {
    fn from(result: Result<T, Error>) -> Outcome<T> {
        match result {
            Ok(answer) => Outcome::Ok(answer),
            Err(error) if error.may_have_applied => Outcome::Unknown(error.code.as_str().into()),
            Err(error) => Outcome::Failed(error.code.as_str().into()),
        }
    }
}

/// A message that was sent, whatever came of it.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Where.
    pub room: RoomId,
    /// As it was asked for first.
    pub request: Request,
    /// What it was acknowledged with.
    pub seq: Option<Seq>,
    /// It was acknowledged with the other body: the first had come to nothing.
    pub other_body: bool,
}

impl Sent {
    /// The request, with its first body or with another.
    pub fn with_body(&self, other: bool) -> Request {
        let mut request = self.request.clone();
        if other && let Command::Post { text, .. } = &mut request.command {
            text.push('!');
        }
        request
    }
}

/// What all clients share.
pub struct World {
    /// The nodes.
    pub cluster: Arc<Cluster>,
    /// What is recorded.
    pub recorder: Recorder,
    rooms: Mutex<Vec<RoomId>>,
    sent: Mutex<Vec<Sent>>,
    /// When the latest of the messages was sent that were acknowledged.
    served: Mutex<Option<Duration>>,
    over: AtomicBool,
    quiet: AtomicBool,
    text_bytes: usize,
    think: Duration,
}

impl World {
    /// Nothing was said yet.
    pub fn new(cluster: Arc<Cluster>, plan: &Plan) -> Arc<World> {
        Arc::new(World {
            cluster,
            recorder: Recorder::new(),
            rooms: Mutex::default(),
            sent: Mutex::default(),
            served: Mutex::default(),
            over: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            text_bytes: plan.text_bytes,
            think: plan.think,
        })
    }

    /// Adds a line to the history.
    pub fn push(&self, op: Op) {
        self.recorder.push(&self.cluster.trace, op);
    }

    /// Rooms that were created, as far as anybody knows.
    pub fn rooms(&self) -> Vec<RoomId> {
        self.rooms.lock().expect("no holder of the lock panics").clone()
    }

    /// Every message that was sent.
    pub fn sent(&self) -> MutexGuard<'_, Vec<Sent>> {
        self.sent.lock().expect("no holder of the lock panics")
    }

    /// When the latest of the messages was sent that were acknowledged, as far as clients got.
    pub fn served_last(&self) -> Option<Duration> {
        *self.served.lock().expect("no holder of the lock panics")
    }

    /// Lets clients come to an end.
    pub fn finish(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether clients come to an end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Nothing is sent from here on: rooms have the heads that they end with.
    pub fn fall_quiet(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is sent any more, by nobody.
    pub fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed)
    }

    /// A random node.
    pub fn any_node(&self, rng: &mut SmallRng) -> Arc<Node> {
        let there = self.cluster.nodes.values().filter(|node| !self.cluster.is_unborn(node));
        let nodes: Vec<_> = there.cloned().collect();
        nodes.choose(rng).expect("a cluster has nodes").clone()
    }

    /// Runs a request in a node's process, and waits as long as a client does.
    pub async fn ask<T, Fut>(
        &self,
        node: &Node,
        ask: impl FnOnce(crate::cluster::Running) -> Fut,
    ) -> Outcome<T>
    where
        T: Send + 'static,
        Fut: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let Some(running) = node.running() else {
            return Outcome::Failed("refused".into());
        };
        let process = running.process.clone();
        let asked = process.spawn(ask(running));
        match Sim::timeout(PATIENCE, asked).await {
            Ok(Ok(result)) => result.into(),
            Ok(Err(_)) => Outcome::Unknown("connection-lost".into()),
            Err(_) => Outcome::Unknown("client-timeout".into()),
        }
    }

    /// Records an operation's end; returns the process that goes on.
    pub fn end<T>(&self, op: &Op, outcome: &Outcome<T>, ok: impl FnOnce(&T) -> Value) -> Process {
        match outcome {
            Outcome::Ok(answer) => self.push(op.ok(now(), ok(answer))),
            Outcome::Failed(why) => self.push(op.fail(now(), why)),
            Outcome::Unknown(why) => {
                self.push(op.info(now(), why));
                return self.recorder.process();
            }
        }
        op.process
    }

    /// Reads a page of a room from a node, and records it. What the room held, if it was told.
    pub async fn read(
        &self,
        process: &mut Process,
        node: &Arc<Node>,
        f: F,
        room: &RoomId,
        after: Seq,
    ) -> Option<Events> {
        let limit = PAGE_EVENTS;
        let op = Op::invoke(now(), *process, f, Value::range(after.0, Some(limit as u64)));
        let op = op.node(name(node)).room(room.as_str());
        self.push(op.clone());
        let query = Query::Events {
            room: room.clone(),
            page: Page::After(Cursor { epoch: None, seq: after }),
            limit,
        };
        let consistency =
            if f == F::ReadLocal { Consistency::Local } else { Consistency::Linearizable };
        let outcome =
            self.ask(node, |running| async move {
                running.router.query(&admin(), query, consistency).await
            })
            .await;
        *process = self.end(&op, &outcome, |answer| match answer {
            Answer::Events(page) => Value::Page {
                head: page.head.0,
                events: page.events.iter().map(|e| record::event(&e.event)).collect(),
            },
            _ => Value::None,
        });
        match outcome {
            Outcome::Ok(Answer::Events(page)) => Some(page),
            _ => None,
        }
    }
}

impl World {
    /// The head of a room, from the first node that answers.
    pub async fn head(&self, room: &RoomId) -> Option<Seq> {
        let mut process = self.recorder.process();
        for _ in 0..200 {
            for node in self.cluster.nodes.values() {
                let page = self.read(&mut process, node, F::Read, room, Seq(0)).await;
                if let Some(page) = page {
                    return Some(page.head);
                }
            }
            Sim::sleep(Duration::from_millis(100)).await;
        }
        None
    }
}

/// A node's name in histories.
pub fn name(node: &Node) -> String {
    format!("n{}", node.id.0)
}

/// Who may read everything.
pub fn admin() -> Actor {
    Actor { user: UserId::parse("admin").expect("it is a slug"), admin: true }
}

/// A client that sends and reads.
pub struct Client {
    world: Arc<World>,
    rng: SmallRng,
    actor: Actor,
    process: Process,
    number: usize,
    texts: u64,
    /// Where it is a participant.
    joined: Vec<RoomId>,
    /// What it asked to join, whatever came of it.
    joining: BTreeMap<RoomId, Request>,
}

impl Client {
    /// The client with this number.
    pub fn new(world: Arc<World>, plan: &Plan, number: usize) -> Client {
        let user = UserId::parse(&format!("u{number}")).expect("it is a slug");
        let process = world.recorder.process();
        Client {
            world,
            rng: SmallRng::seed_from_u64(plan.seed ^ (number as u64 + 1) << 32),
            actor: Actor { user, admin: false },
            process,
            number,
            texts: 0,
            joined: vec![],
            joining: BTreeMap::new(),
        }
    }

    fn request(&mut self, command: Command) -> Request {
        let id = RequestId::mint(true_ms(), self.rng.random());
        Request { actor: self.actor.clone(), id, command }
    }

    async fn execute(&self, node: &Arc<Node>, request: &Request) -> Outcome<Done> {
        let request = request.clone();
        self.world.ask(node, |running| async move { running.router.execute(request).await }).await
    }

    /// Creates a room or joins one; true once that is done.
    async fn administer(&mut self, what: &str, room: &RoomId, request: Request) -> bool {
        // Again with the same id until it is known what came of it, as a client does; of a room, even
        // when all is over: it is read to its end, if it is there.
        let deadline = elapsed() + ADMINISTER_WITHIN;
        while elapsed() < deadline {
            let node = self.world.any_node(&mut self.rng);
            let id = Some(record::id(&request.id));
            let value = |seq| Value::Admin(Box::new(Admin { what: what.into(), id, seq }));
            let op = Op::invoke(now(), self.process, F::Admin, value(None));
            let op = op.node(name(&node)).room(room.as_str());
            self.world.push(op.clone());
            let outcome = self.execute(&node, &request).await;
            self.process = self.world.end(&op, &outcome, |done| {
                // Whoever asks does so under one id, so a repeat has the first answer.
                value(Some(done.seq.0))
            });
            if matches!(outcome, Outcome::Ok(_)) {
                return true;
            }
            if self.world.is_over() && what == "join" {
                return false;
            }
            self.pause().await;
        }
        false
    }

    /// Creates a room.
    pub async fn create(&mut self, slug: &str) -> bool {
        let room = RoomId::parse(slug).expect("it is a slug");
        let command = Command::CreateRoom {
            room: room.clone(),
            title: slug.into(),
            kind: RoomKind::Public,
            epoch: Epoch::mint(self.rng.random()),
            salt: self.rng.random(),
        };
        let request = self.request(command);
        let created = self.administer("create-room", &room, request).await;
        if created {
            // Whoever creates a room is in it.
            self.joined.push(room.clone());
            self.world.rooms.lock().expect("no holder of the lock panics").push(room);
        }
        created
    }

    async fn join(&mut self, room: &RoomId) -> bool {
        let command = Command::Join { room: room.clone(), salt: self.rng.random() };
        let request = self.request(command);
        // Always under one id: else nobody could tell which of several the event is of.
        let request = self.joining.entry(room.clone()).or_insert(request).clone();
        self.administer("join", room, request).await
    }

    async fn pause(&mut self) {
        let think = self.world.think.as_micros() as u64;
        Sim::sleep(Duration::from_micros(self.rng.random_range(0..=think))).await;
    }

    /// Joins what there is, then sends and reads until the world is over.
    pub async fn run(mut self) {
        while !self.world.is_over() {
            let rooms = self.world.rooms();
            if let Some(room) = rooms.iter().find(|room| !self.joined.contains(room)).cloned() {
                if self.join(&room).await {
                    self.joined.push(room);
                }
            } else if let Some(room) = rooms.choose(&mut self.rng).cloned() {
                self.step(&room).await;
            }
            self.pause().await;
        }
    }

    async fn step(&mut self, room: &RoomId) {
        match self.rng.random_range(0..100) {
            0..55 => self.send(room).await,
            55..67 => self.resend().await,
            67..90 => self.read(F::Read, room).await,
            90..99 => self.read(F::ReadLocal, room).await,
            _ => {
                let slug = format!("late-{}-{}", self.number, self.texts);
                self.texts += 1;
                self.create(&slug).await;
            }
        }
    }

    fn text(&mut self) -> String {
        self.texts += 1;
        let padding = self.rng.random_range(0..self.world.text_bytes);
        format!("{}:{}:{}", self.number, self.texts, "x".repeat(padding))
    }

    async fn send(&mut self, room: &RoomId) {
        let command = Command::Post {
            room: room.clone(),
            kind: EventKind::Message,
            text: self.text(),
            reply_to: None,
            salt: self.rng.random(),
        };
        let request = self.request(command);
        let at = {
            let mut sent = self.world.sent();
            let (room, request) = (room.clone(), request.clone());
            sent.push(Sent { room, request, seq: None, other_body: false });
            sent.len() - 1
        };
        self.write(F::Send, at, request, false).await;
    }

    /// Sends one of its own messages again, at any node, sometimes with another body.
    async fn resend(&mut self) {
        let own = |(_, sent): &(usize, &Sent)| sent.request.actor == self.actor;
        let found = {
            let sent = self.world.sent();
            let own: Vec<usize> = sent.iter().enumerate().filter(own).map(|(at, _)| at).collect();
            // The latest most of all: its outcome may be open.
            let recent = own.len().saturating_sub(5);
            let from = if self.rng.random_bool(0.6) { &own[recent..] } else { &own[..] };
            let other = self.rng.random_bool(0.25);
            from.choose(&mut self.rng).map(|at| (*at, sent[*at].with_body(other), other))
        };
        let Some((at, mut request, other)) = found else { return };
        if let Command::Post { salt, .. } = &mut request.command {
            *salt = self.rng.random();
        }
        self.write(F::Resend, at, request, other).await;
    }

    async fn write(&mut self, f: F, at: usize, request: Request, other_body: bool) {
        let node = self.world.any_node(&mut self.rng);
        let room = self.world.sent()[at].room.clone();
        let id = record::id(&request.id);
        let op = Op::invoke(now(), self.process, f, Value::Write { id, seq: None, other_body });
        let op = op.node(name(&node)).room(room.as_str());
        self.world.push(op.clone());
        let began = elapsed();
        let outcome = self.execute(&node, &request).await;
        if let Outcome::Ok(done) = &outcome {
            let served = &mut *self.world.served.lock().expect("no holder of the lock panics");
            *served = (*served).max(Some(began));
            let sent = &mut self.world.sent()[at];
            if sent.seq.is_none() {
                (sent.seq, sent.other_body) = (Some(done.seq), other_body);
            }
        }
        self.process = self.world.end(&op, &outcome, |done| Value::Write {
            id,
            seq: Some(done.seq.0),
            other_body,
        });
    }

    async fn read(&mut self, f: F, room: &RoomId) {
        let node = self.world.any_node(&mut self.rng);
        let after = Seq(self.rng.random_range(0..=40));
        let after = if self.rng.random_bool(0.5) { Seq(0) } else { after };
        self.world.clone().read(&mut self.process, &node, f, room, after).await;
    }
}
