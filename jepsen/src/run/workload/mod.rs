//! What clients do while the cluster is being attacked: send, send again, read, follow.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use uuid::Uuid;

use crate::history::{Admin, F, Name, Process, Value};
use crate::run::client::session::Transport;
use crate::run::client::{Client, Outcome, id, new_id};
use crate::run::record::Recorder;

pub mod chat;
pub mod poster;
pub mod rooms;
pub mod subscriber;
pub mod worker;

use rooms::Rooms;

/// A user of the cluster.
#[derive(Clone, Debug)]
pub struct User {
    /// Their token.
    pub token: String,
}

/// What clients do most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mix {
    /// A little of everything, and posts on sessions, too.
    #[default]
    All,
    /// Posts, at a steady rate; few reads, and nothing that is not tried until it is acknowledged.
    Posts,
}

impl Mix {
    /// How many of a hundred operations are posts, and how many repeat one or read; the rest are local
    /// reads.
    #[must_use]
    pub const fn percents(self) -> [u32; 3] {
        match self {
            Mix::All => [60, 10, 20],
            Mix::Posts => [POSTS_PERCENT, 2, 5],
        }
    }
}

/// How many of a hundred operations are posts where posts are the load.
pub const POSTS_PERCENT: u32 = 90;

/// What all clients share.
#[derive(Debug)]
pub struct World {
    /// The history.
    pub recorder: Recorder,
    /// Each node's name and where clients reach it.
    pub nodes: Vec<(String, SocketAddr)>,
    /// The rooms that are in use.
    pub rooms: Rooms,
    /// Between two operations of one worker.
    pub interval: Duration,
    /// What clients do most.
    pub mix: Mix,
    /// How subscribers follow, one of these each time; never empty.
    pub transports: Vec<Transport>,
    /// Decides everything that is random.
    pub seed: u64,
    /// The nodes that clients go to, a bit each by their place.
    present: AtomicU64,
    over: AtomicBool,
    /// The id under which the user that subscribers are joins each room.
    joining: Mutex<BTreeMap<Name, Uuid>>,
    /// Messages that were posted on a session's or a WebSocket's own stream and acknowledged.
    pub session_posts: AtomicU64,
    /// How often a room was followed, by transport.
    followed: Mutex<BTreeMap<&'static str, u64>>,
}

impl World {
    /// Nothing was said yet.
    #[must_use]
    pub fn new(
        recorder: Recorder,
        nodes: Vec<(String, SocketAddr)>,
        rooms: Rooms,
        interval: Duration,
        seed: u64,
    ) -> World {
        let (over, session_posts) = (AtomicBool::new(false), AtomicU64::new(0));
        let joining = Mutex::default();
        let (present, mix) = (AtomicU64::new(0), Mix::default());
        let world = World {
            recorder,
            nodes,
            rooms,
            interval,
            mix,
            transports: Transport::ALL.to_vec(),
            seed,
            present,
            over,
            joining,
            session_posts,
            followed: Mutex::default(),
        };
        world.set_present(&(0..world.nodes.len()).collect());
        world
    }

    /// From here on clients go to these nodes; to all of them at first.
    pub fn set_present(&self, places: &BTreeSet<usize>) {
        let bits = places.iter().fold(0, |bits, place| bits | 1_u64 << place);
        self.present.store(bits, Ordering::Relaxed);
    }

    /// Whether clients go to this node.
    pub fn is_present(&self, place: usize) -> bool {
        self.present.load(Ordering::Relaxed) >> place & 1 == 1
    }

    /// One of the nodes that clients go to; any where they go to none.
    pub fn draw(&self, rng: &mut SmallRng) -> usize {
        let all: Vec<usize> =
            (0..self.nodes.len()).filter(|place| self.is_present(*place)).collect();
        match all.len() {
            0 => rng.random_range(0..self.nodes.len()),
            count => all[rng.random_range(0..count)],
        }
    }

    /// Lets workers come to an end.
    pub fn finish(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether they do.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A user's connections to every node, none of them open yet.
    #[must_use]
    pub fn clients(&self, user: &User) -> Vec<Client> {
        let client =
            |(name, address): &(String, SocketAddr)| Client::new(name, *address, &user.token);
        self.nodes.iter().map(client).collect()
    }

    /// The one id under which the user that subscribers are joins a room, however often.
    #[must_use]
    pub fn joining(&self, room: &Name) -> Uuid {
        let mut joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        *joining.entry(room.clone()).or_insert_with(new_id)
    }

    /// Has a client join a room, under this id, as an operation of this process; whether it is in.
    /// Under one id, a repeat has the first answer.
    pub async fn join(
        &self,
        process: &mut Process,
        client: &mut Client,
        room: &Name,
        uuid: Uuid,
    ) -> bool {
        let value =
            |seq| Value::Admin(Box::new(Admin { what: "join".into(), id: Some(id(uuid)), seq }));
        let op = self.recorder.begin(*process, F::Admin, &client.node, room, value(None));
        let outcome = client.join(room.as_str(), uuid).await;
        *process = self.recorder.end(&op, &outcome, |ack| value(Some(ack.seq)));
        matches!(outcome, Outcome::Ok(_))
    }

    /// Counts a room that is followed.
    pub fn count(&self, transport: Transport) {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        *followed.entry(transport.name()).or_default() += 1;
    }

    /// How often a room was followed, by transport.
    pub fn followed(&self) -> BTreeMap<String, u64> {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    /// Rooms as the history has them.
    #[must_use]
    pub fn all_rooms(&self) -> Vec<Name> {
        self.recorder.rooms()
    }
}

/// The text that a message with this id has: from a few bytes to several kilobytes.
#[must_use]
pub fn text_of(id: uuid::Uuid) -> String {
    let bits = id.as_u128();
    let bytes = match bits % 100 {
        0 => 8 * 1024,
        1..=9 => 1024,
        _ => 40 + (bits >> 8) as usize % 200,
    };
    let mut text = format!("message {id} ");
    // Not to be compressed to nothing.
    let mut state = bits as u64 | 1;
    while text.len() < bytes {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:x} ", state >> 20));
    }
    text
}
