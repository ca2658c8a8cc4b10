//! The simulated network: what the TCP transport promises, with delays, cuts and resets.
//!
//! Frames of one stream arrive in order, or the stream ends, as over TCP: loss and reordering below
//! that show as delay, so that is how they are simulated. A cut holds frames back, in one direction
//! or both, until it is healed or the connection breaks from silence. A killed process' connections
//! break at once; after a power cut its peers learn of it by silence only.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use folkmoot::id::NodeId;
use folkmoot::shard::runtime::{AsyncRuntime, Instant, Select2};
use folkmoot::shard::transport::{
    Accept, Closed, FrameSink, Lane, STREAM_FRAMES, Stream, Transport,
};
use futures_util::future::{self, BoxFuture};
use openraft_rt_sim::SimInstant;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::runtime::{Process, Sim, between, spawn_outside};
use crate::trace::Trace;

/// Frames waiting in a connection, as in the TCP transport.
const QUEUE_FRAMES: usize = 1024;

/// What the network is like.
#[derive(Debug, Clone)]
pub struct Weather {
    /// How long a frame takes.
    pub delay: (Duration, Duration),
    /// Of a thousand frames, how many are lost once and resent.
    pub resent_per_mille: u32,
    /// How long that takes.
    pub resend: Duration,
    /// How long nothing is heard until a connection breaks.
    pub silence: Duration,
}

/// All nodes' network.
pub struct Network {
    state: Mutex<State>,
    /// Notified when cuts or endpoints change.
    changed: Notify,
    trace: Arc<Trace>,
}

struct State {
    rng: SmallRng,
    weather: Weather,
    endpoints: BTreeMap<NodeId, Endpoint>,
    /// Nothing passes from the first to the second.
    cuts: BTreeSet<(NodeId, NodeId)>,
    links: BTreeMap<(NodeId, NodeId), Arc<Link>>,
    /// Links of processes that are gone, whose peers may not know yet.
    dangling: BTreeMap<NodeId, Vec<Arc<Link>>>,
}

#[derive(Clone)]
struct Endpoint {
    process: Arc<Process>,
    accept: Arc<dyn Accept>,
}

impl Network {
    /// A network without nodes.
    pub fn new(rng: SmallRng, weather: Weather, trace: Arc<Trace>) -> Arc<Network> {
        Arc::new(Network {
            state: Mutex::new(State {
                rng,
                weather,
                endpoints: BTreeMap::new(),
                cuts: BTreeSet::new(),
                links: BTreeMap::new(),
                dangling: BTreeMap::new(),
            }),
            changed: Notify::new(),
            trace,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// Lets a node's process be reached. It knows nothing of older connections, and resets them.
    pub fn attach(&self, node: NodeId, process: Arc<Process>, accept: Arc<dyn Accept>) {
        let dangling = {
            let mut state = self.lock();
            state.endpoints.insert(node, Endpoint { process, accept });
            state.dangling.remove(&node).unwrap_or_default()
        };
        dangling.iter().for_each(|link| link.broken.cancel());
        self.changed.notify_waiters();
    }

    /// Takes a dead process off the network. Its peers learn of it at once, or from silence: until
    /// then they open streams to it, and wait.
    pub fn detach(&self, node: NodeId, silently: bool) {
        let mut state = self.lock();
        state.endpoints.remove(&node);
        let of_node = state.links.iter().filter(|((a, b), _)| *a == node || *b == node);
        let links: Vec<_> = of_node.map(|(_, link)| link.clone()).collect();
        state.links.retain(|(from, to), _| *from != node && (silently || *to != node));
        let after = if silently { state.weather.silence } else { state.weather.delay.1 };
        state.dangling.entry(node).or_default().extend(links.iter().cloned());
        drop(state);
        spawn_outside(async move {
            Sim::sleep(after).await;
            links.iter().for_each(|link| link.broken.cancel());
        });
    }

    /// Cuts one direction, or heals it.
    pub fn cut(&self, from: NodeId, to: NodeId, cut: bool) {
        {
            let mut state = self.lock();
            match cut {
                true => state.cuts.insert((from, to)),
                false => state.cuts.remove(&(from, to)),
            };
        }
        self.changed.notify_waiters();
    }

    /// Heals every cut.
    pub fn heal(&self) {
        self.lock().cuts.clear();
        self.changed.notify_waiters();
    }

    /// Changes the weather.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Resets the connections that a node has opened to another.
    pub fn reset(&self, from: NodeId, to: NodeId) {
        if let Some(link) = self.lock().links.remove(&(from, to)) {
            link.broken.cancel();
        }
    }

    /// Whether two nodes can talk both ways.
    pub fn joined(&self, a: NodeId, b: NodeId) -> bool {
        let state = self.lock();
        !state.cuts.contains(&(a, b)) && !state.cuts.contains(&(b, a))
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.lock().cuts.contains(&(from, to))
    }

    fn endpoint(&self, node: NodeId) -> Option<Endpoint> {
        self.lock().endpoints.get(&node).filter(|endpoint| !endpoint.process.is_dead()).cloned()
    }

    fn silence(&self) -> Duration {
        self.lock().weather.silence
    }

    /// How long the next frame takes.
    fn delay(&self) -> Duration {
        let state = &mut *self.lock();
        let (from, to) =
            (state.weather.delay.0.as_nanos() as u64, state.weather.delay.1.as_nanos() as u64);
        let delay = Duration::from_nanos(state.rng.random_range(from..=to.max(from)));
        let resent = state.rng.random_range(0..1000) < state.weather.resent_per_mille;
        if resent { delay + state.weather.resend } else { delay }
    }

    /// Waits until `done`, looking whenever something changes.
    async fn until(&self, done: impl Fn(&Network) -> bool) {
        loop {
            let changed = self.changed.notified();
            if done(self) {
                return;
            }
            changed.await;
        }
    }
}

/// What one node has opened to another: a connection for each lane.
struct Link {
    lanes: [Arc<Connection>; Lane::ALL.len()],
    broken: CancellationToken,
}

/// Frames on their way in one direction, and who takes them.
struct Direction {
    packets: mpsc::Sender<Packet>,
    /// Streams whose reader is at the end of this direction.
    readers: Mutex<BTreeMap<u32, mpsc::Sender<Bytes>>>,
}

struct Connection {
    /// From the opener, and back to it.
    directions: [Arc<Direction>; 2],
    next: Mutex<u32>,
}

struct Packet {
    sent: SimInstant,
    stream: u32,
    body: Body,
}

enum Body {
    Open(Bytes),
    Data(Bytes),
    End,
}

/// The writing end of a stream.
struct Sink {
    direction: Arc<Direction>,
    stream: u32,
}

impl FrameSink for Sink {
    fn send(&self, frame: Bytes) -> BoxFuture<'_, Result<(), Closed>> {
        let sent = SimInstant::now();
        let packet = Packet { sent, stream: self.stream, body: Body::Data(frame) };
        Box::pin(async move { self.direction.packets.send(packet).await.map_err(|_| Closed) })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let end = Packet { sent: SimInstant::now(), stream: self.stream, body: Body::End };
        // Never blocked by a full queue in the TCP transport; a broken connection needs no end.
        let packets = self.direction.packets.clone();
        if let Err(mpsc::error::TrySendError::Full(end)) = packets.try_send(end) {
            drop(Sim::spawn(async move {
                let _: Result<(), _> = packets.send(end).await;
            }));
        }
    }
}

impl Connection {
    fn add(&self, stream: u32, opener: bool) -> Stream {
        let (tx, rx) = mpsc::channel(STREAM_FRAMES);
        let [forth, back] = &self.directions;
        let (out, inward) = if opener { (forth, back) } else { (back, forth) };
        inward.readers.lock().expect("no holder of the lock panics").insert(stream, tx);
        Stream { tx: Box::new(Sink { direction: out.clone(), stream }), rx }
    }

    fn open(&self, first: Bytes) -> Stream {
        let id = {
            let mut next = self.next.lock().expect("no holder of the lock panics");
            *next += 1;
            *next
        };
        let stream = self.add(id, true);
        let packet = Packet { sent: SimInstant::now(), stream: id, body: Body::Open(first) };
        match self.directions[0].packets.try_send(packet) {
            Ok(()) => stream,
            Err(_) => Stream::closed(),
        }
    }
}

/// A node's end of the network; one for each of its processes.
pub struct SimTransport {
    node: NodeId,
    process: Arc<Process>,
    network: Arc<Network>,
    dialled: Mutex<BTreeSet<NodeId>>,
}

impl SimTransport {
    /// A process' end of the network, without peers.
    pub fn new(node: NodeId, process: Arc<Process>, network: Arc<Network>) -> Arc<SimTransport> {
        Arc::new(SimTransport { node, process, network, dialled: Mutex::default() })
    }

    fn link(&self, to: NodeId) -> Option<Arc<Link>> {
        self.network.lock().links.get(&(self.node, to)).cloned()
    }
}

impl Transport for SimTransport {
    fn set_peer(&self, peer: NodeId, _address: &str) {
        if self.dialled.lock().expect("no holder of the lock panics").insert(peer) {
            drop(self.process.spawn(dial(self.network.clone(), self.node, peer)));
        }
    }

    fn open(&self, to: NodeId, lane: Lane, first: Bytes) -> Stream {
        match self.link(to) {
            Some(link) => link.lanes[lane as usize].open(first),
            None => Stream::closed(),
        }
    }

    fn reachable(&self, to: NodeId, _lane: Lane) -> bool {
        self.link(to).is_some()
    }
}

/// Keeps a link to a peer for as long as the process lives.
async fn dial(network: Arc<Network>, from: NodeId, to: NodeId) {
    loop {
        network.until(|network| network.endpoint(to).is_some() && network.joined(from, to)).await;
        Sim::sleep(3 * network.delay()).await;
        let Some(peer) = network.endpoint(to).filter(|_| network.joined(from, to)) else {
            continue;
        };
        let link = connect(&network, from, to, peer);
        network.lock().links.insert((from, to), link.clone());
        hold(&network, from, to, &link).await;
        link.broken.cancel();
        {
            let mut state = network.lock();
            if state.links.get(&(from, to)).is_some_and(|present| Arc::ptr_eq(present, &link)) {
                state.links.remove(&(from, to));
            }
        }
        Sim::sleep(between((Duration::from_millis(5), Duration::from_millis(100)))).await;
    }
}

/// Until the link breaks, from a reset, an end's death, or silence.
async fn hold(network: &Arc<Network>, from: NodeId, to: NodeId, link: &Link) {
    let silent = async {
        loop {
            network.until(|network| !network.joined(from, to)).await;
            let healed = network.until(|network| network.joined(from, to));
            if Sim::timeout(network.silence(), healed).await.is_err() {
                return;
            }
        }
    };
    let (broken, silent) = (pin!(link.broken.cancelled()), pin!(silent));
    let _: Select2<(), ()> = Sim::select2(broken, silent).await;
}

fn connect(network: &Arc<Network>, from: NodeId, to: NodeId, peer: Endpoint) -> Arc<Link> {
    let broken = CancellationToken::new();
    let lanes = Lane::ALL.map(|lane| {
        let (forth, forth_rx) = direction();
        let (back, back_rx) = direction();
        let connection = Arc::new(Connection { directions: [forth, back], next: Mutex::default() });
        let pump = Pump {
            network: network.clone(),
            lane,
            connection: connection.clone(),
            broken: broken.clone(),
        };
        let opener = network.endpoint(from).map(|endpoint| endpoint.process);
        pump.clone().start(
            0,
            (from, to),
            forth_rx,
            Some(peer.process.clone()),
            Some(peer.accept.clone()),
        );
        pump.start(1, (to, from), back_rx, opener, None);
        connection
    });
    Arc::new(Link { lanes, broken })
}

fn direction() -> (Arc<Direction>, mpsc::Receiver<Packet>) {
    let (packets, rx) = mpsc::channel(QUEUE_FRAMES);
    (Arc::new(Direction { packets, readers: Mutex::default() }), rx)
}

/// Moves the packets of one direction of a connection; a task of the network, not of a process.
#[derive(Clone)]
struct Pump {
    network: Arc<Network>,
    lane: Lane,
    connection: Arc<Connection>,
    broken: CancellationToken,
}

impl Pump {
    fn start(
        self,
        direction: usize,
        (from, to): (NodeId, NodeId),
        packets: mpsc::Receiver<Packet>,
        receiver: Option<Arc<Process>>,
        accept: Option<Arc<dyn Accept>>,
    ) {
        let pumping = async move {
            let broken = self.broken.clone();
            let moving = self.run(direction, (from, to), packets, receiver, accept);
            // It ends with the link.
            let _: Option<()> = broken.run_until_cancelled(moving).await;
            let direction = &self.connection.directions[direction];
            direction.readers.lock().expect("no holder of the lock panics").clear();
        };
        spawn_outside(pumping);
    }

    async fn run(
        &self,
        direction: usize,
        (from, to): (NodeId, NodeId),
        mut packets: mpsc::Receiver<Packet>,
        receiver: Option<Arc<Process>>,
        accept: Option<Arc<dyn Accept>>,
    ) {
        let mut last = SimInstant::now();
        while let Some(packet) = packets.recv().await {
            last = last.max(packet.sent + self.network.delay());
            if last > SimInstant::now() {
                Sim::sleep_until(last).await;
            }
            self.network.until(|network| !network.is_cut(from, to)).await;
            if let Some(receiver) = &receiver {
                receiver.resumed().await;
                if receiver.is_dead() {
                    // What reaches a dead process is gone; the link breaks in its time.
                    continue;
                }
            }
            self.note(from, to, &packet);
            self.deliver(direction, from, packet, receiver.as_ref(), accept.as_ref()).await;
        }
        future::pending::<()>().await;
    }

    async fn deliver(
        &self,
        direction: usize,
        from: NodeId,
        packet: Packet,
        receiver: Option<&Arc<Process>>,
        accept: Option<&Arc<dyn Accept>>,
    ) {
        let readers = &self.connection.directions[direction].readers;
        let lock = || readers.lock().expect("no holder of the lock panics");
        match packet.body {
            Body::Open(first) => {
                let stream = self.connection.add(packet.stream, false);
                if let (Some(process), Some(accept)) = (receiver, accept) {
                    process.enter(|| accept.accept(from, first, stream));
                }
            }
            Body::Data(frame) => {
                let reader = lock().get(&packet.stream).cloned();
                if let Some(reader) = reader
                    && reader.send(frame).await.is_err()
                {
                    lock().remove(&packet.stream);
                }
            }
            Body::End => {
                lock().remove(&packet.stream);
            }
        }
    }

    fn note(&self, from: NodeId, to: NodeId, packet: &Packet) {
        let (kind, bytes): (u8, &[u8]) = match &packet.body {
            Body::Open(bytes) => (0, bytes),
            Body::Data(bytes) => (1, bytes),
            Body::End => (2, &[]),
        };
        let head = [kind, self.lane as u8, from.0 as u8, to.0 as u8];
        self.network.trace.note("frame", &head, bytes);
    }
}
