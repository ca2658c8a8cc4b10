//! Streams between nodes over TCP: one connection a peer and lane, length-prefixed frames.
//!
//! A frame is `length u32 | kind u8 | stream u32 | body`, big-endian, the length counting what
//! follows it. The dialler opens streams, either side ends them. Each connection begins with a
//! handshake that checks protocol, cluster and both node ids, so that a node never talks Raft to
//! the wrong one. A side that hears nothing for [`SILENCE_MAX`] drops the connection; an idle
//! side pings.
//!
//! Why not gRPC here: docs/adr/0006.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use prost::Message;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::id::NodeId;
use crate::proto::internal as pb;
use crate::shard::transport::{Accept, Closed, FrameSink, Lane, Stream, Transport};

/// Rises with every change of what nodes say to each other.
const PROTOCOL: u32 = 1;
/// A frame's size limit in bytes: a snapshot chunk or 2 MiB of entries, with room.
const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Frames waiting for a connection's writer.
const QUEUE_FRAMES: usize = 1024;
/// Frames waiting for a stream's reader.
const STREAM_FRAMES: usize = 256;
/// What the writer gathers before a write, in bytes.
const WRITE_BYTES: usize = 256 * 1024;
/// A connection on which nothing is heard for this long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// An idle connection pings this often.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How long dialling and shaking hands may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Waits between dials, while a peer is down.
const REDIAL: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(150), Duration::from_millis(300)];

const OPEN: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const PING: u8 = 4;
const HELLO: u8 = 5;

/// Lane number of a connection between nodes that may not know each other.
const BOOTSTRAP_LANE: u32 = 255;

/// Who this node is, for the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The cluster.
    pub cluster_id: String,
    /// This node.
    pub node_id: NodeId,
}

struct Frame {
    kind: u8,
    stream: u32,
    body: Bytes,
}

/// Answers a bootstrap request, from a node that may not be of this cluster.
pub trait Bootstrap: Send + Sync + 'static {
    /// Answers one encoded `Bootstrap` message.
    fn answer(&self, request: Bytes) -> BoxFuture<'_, Bytes>;
}

/// The TCP transport: dials known peers for as long as they are known, and serves their streams.
pub struct Tcp {
    local: Mutex<Option<Local>>,
    peers: RwLock<HashMap<NodeId, Peer>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

struct Peer {
    address: String,
    lanes: [Arc<LaneSlot>; 5],
    stop: CancellationToken,
}

/// A lane's connection, when there is one.
#[derive(Default)]
struct LaneSlot(RwLock<Option<Arc<Connection>>>);

impl LaneSlot {
    fn get(&self) -> Option<Arc<Connection>> {
        self.0.read().expect("no holder of the lock panics").clone()
    }

    fn set(&self, connection: Option<Arc<Connection>>) {
        *self.0.write().expect("no holder of the lock panics") = connection;
    }
}

struct Connection {
    frames: mpsc::Sender<Frame>,
    /// Ends of streams: at most one a stream, so the number of streams bounds it.
    ends: mpsc::UnboundedSender<u32>,
    streams: Mutex<HashMap<u32, mpsc::Sender<Bytes>>>,
    next_stream: AtomicU32,
}

impl Connection {
    fn add_stream(self: &Arc<Self>, id: u32) -> Stream {
        let (tx, rx) = mpsc::channel(STREAM_FRAMES);
        self.streams.lock().expect("no holder of the lock panics").insert(id, tx);
        Stream { tx: Box::new(Sink { connection: self.clone(), stream: id }), rx }
    }

    fn remove_stream(&self, id: u32) {
        self.streams.lock().expect("no holder of the lock panics").remove(&id);
    }

    fn stream(&self, id: u32) -> Option<mpsc::Sender<Bytes>> {
        self.streams.lock().expect("no holder of the lock panics").get(&id).cloned()
    }
}

struct Sink {
    connection: Arc<Connection>,
    stream: u32,
}

impl FrameSink for Sink {
    fn send(&self, body: Bytes) -> BoxFuture<'_, Result<(), Closed>> {
        let frame = Frame { kind: DATA, stream: self.stream, body };
        // The common case needs no waiting, and so no boxed state machine.
        match self.connection.frames.try_send(frame) {
            Ok(()) => Box::pin(std::future::ready(Ok(()))),
            Err(mpsc::error::TrySendError::Closed(_)) => Box::pin(std::future::ready(Err(Closed))),
            Err(mpsc::error::TrySendError::Full(frame)) => {
                Box::pin(
                    async move { self.connection.frames.send(frame).await.map_err(|_| Closed) },
                )
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // The writer sends ends only when its frame queue is empty, so an end follows its frames.
        if self.connection.ends.send(self.stream).is_err() {
            // The connection is gone, and the peer knows by that.
        }
    }
}

impl Tcp {
    /// A transport without peers. It dials once it knows who it is.
    pub fn new(shutdown: CancellationToken) -> Arc<Tcp> {
        Arc::new(Tcp {
            local: Mutex::new(None),
            peers: RwLock::default(),
            tasks: TaskTracker::new(),
            shutdown,
        })
    }

    /// Says who this node is; once, before any peer is set.
    pub fn set_local(&self, local: Local) {
        *self.local.lock().expect("no holder of the lock panics") = Some(local);
    }

    fn local(&self) -> Option<Local> {
        self.local.lock().expect("no holder of the lock panics").clone()
    }

    /// Makes a peer known under an address, and starts dialling it; a changed address is redialled.
    pub fn set_peer(self: &Arc<Self>, id: NodeId, address: &str) {
        let mut peers = self.peers.write().expect("no holder of the lock panics");
        if let Some(known) = peers.get(&id) {
            if known.address == address {
                return;
            }
            known.stop.cancel();
        }
        let stop = self.shutdown.child_token();
        let lanes = Lane::ALL.map(|lane| {
            let slot = Arc::new(LaneSlot::default());
            let dialler = Dialler {
                tcp: Arc::downgrade(self),
                id,
                lane,
                address: address.to_string(),
                slot: slot.clone(),
                stop: stop.clone(),
            };
            self.tasks.spawn(dialler.run());
            slot
        });
        peers.insert(id, Peer { address: address.to_string(), lanes, stop });
    }

    /// Whether there is a live control connection to a peer.
    pub fn connected(&self, id: NodeId) -> bool {
        let peers = self.peers.read().expect("no holder of the lock panics");
        peers.get(&id).is_some_and(|peer| peer.lanes[Lane::Control as usize].get().is_some())
    }

    /// Accepts connections until shutdown.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        accept: Arc<dyn Accept>,
        bootstrap: Arc<dyn Bootstrap>,
    ) {
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, _)) => {
                    let (tcp, accept) = (self.clone(), accept.clone());
                    let bootstrap = bootstrap.clone();
                    self.tasks.spawn(async move {
                        if let Err(error) = tcp.serve_one(socket, accept, bootstrap).await {
                            tracing::debug!(%error, "peer connection ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a peer connection");
                    tokio::time::sleep(REDIAL[0]).await;
                }
            }
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn serve_one(
        &self,
        socket: TcpStream,
        accept: Arc<dyn Accept>,
        bootstrap: Arc<dyn Bootstrap>,
    ) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let (reader, writer) = tokio::io::split(socket);
        let mut reader = frames(reader);
        let hello = tokio::time::timeout(DIAL_TIMEOUT, read_frame(&mut reader)).await??;
        let hello = Handshake::decode(hello.body)?;
        if hello.lane == BOOTSTRAP_LANE {
            return serve_bootstrap(reader, writer, bootstrap).await;
        }
        let refusal = self.refusal(&hello);
        let mut writer = writer;
        write_frame(&mut writer, HELLO, 0, refusal.clone().unwrap_or_default().as_bytes()).await?;
        if let Some(refusal) = refusal {
            return Err(io::Error::other(refusal));
        }
        let stop = self.shutdown.child_token();
        let (connection, pump) = connection(writer, stop.clone());
        let from = NodeId(hello.from);
        let reading = read_loop(reader, connection, stop, move |id, first, stream| {
            let _ = id;
            accept.accept(from, first, stream);
        });
        let (result, ()) = tokio::join!(reading, pump);
        result
    }

    /// Why a dialler must not talk to this node.
    fn refusal(&self, hello: &Handshake) -> Option<String> {
        let Some(local) = self.local() else { return Some("not in a cluster yet".into()) };
        if hello.protocol != PROTOCOL {
            return Some(format!("peer protocol {} here, {} there", PROTOCOL, hello.protocol));
        }
        if hello.cluster_id != local.cluster_id {
            return Some("this node is of another cluster".into());
        }
        if hello.to != local.node_id.0 {
            return Some(format!("this is node {}, not {}", local.node_id, hello.to));
        }
        None
    }

    /// Asks the node at an address something before it is known as a peer.
    ///
    /// # Errors
    /// When it cannot be reached or does not answer within a few seconds.
    pub async fn ask(address: &str, request: &pb::Bootstrap) -> io::Result<Bytes> {
        let ask = async {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            let (reader, mut writer) = tokio::io::split(socket);
            let mut reader = frames(reader);
            let hello = Handshake { lane: BOOTSTRAP_LANE, ..Handshake::default() };
            write_frame(&mut writer, HELLO, 0, &hello.encode()).await?;
            write_frame(&mut writer, DATA, 0, &request.encode_to_vec()).await?;
            Ok::<_, io::Error>(read_frame(&mut reader).await?.body)
        };
        tokio::time::timeout(2 * DIAL_TIMEOUT, ask).await?
    }
}

impl Transport for Tcp {
    fn open(&self, to: NodeId, lane: Lane, first: Bytes) -> Stream {
        let connection = {
            let peers = self.peers.read().expect("no holder of the lock panics");
            peers.get(&to).and_then(|peer| peer.lanes[lane as usize].get())
        };
        let Some(connection) = connection else { return Stream::closed() };
        let id = connection.next_stream.fetch_add(1, Ordering::Relaxed);
        let stream = connection.add_stream(id);
        match connection.frames.try_send(Frame { kind: OPEN, stream: id, body: first }) {
            Ok(()) => stream,
            Err(_) => {
                connection.remove_stream(id);
                Stream::closed()
            }
        }
    }
}

/// Keeps one lane to one peer connected.
struct Dialler {
    tcp: Weak<Tcp>,
    id: NodeId,
    lane: Lane,
    address: String,
    slot: Arc<LaneSlot>,
    stop: CancellationToken,
}

impl Dialler {
    async fn run(self) {
        let mut failures = 0;
        while !self.stop.is_cancelled() {
            let Some(local) = self.tcp.upgrade().and_then(|tcp| tcp.local()) else { return };
            let dialled = tokio::select! {
                () = self.stop.cancelled() => return,
                dialled = tokio::time::timeout(DIAL_TIMEOUT, self.dial(&local)) => dialled,
            };
            match dialled.map_err(io::Error::from).flatten() {
                Ok((reader, writer)) => {
                    failures = 0;
                    self.run_connection(reader, writer).await;
                }
                Err(error) => {
                    if failures == 0 && self.lane == Lane::Control {
                        tracing::info!(peer = %self.id, address = self.address, %error,
                            "peer is not reachable; dialling on");
                    }
                    failures += 1;
                }
            }
            let wait = REDIAL[(failures).min(REDIAL.len() - 1)];
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn dial(&self, local: &Local) -> io::Result<(FrameReader, WriteHalf<TcpStream>)> {
        let socket = TcpStream::connect(&self.address).await?;
        socket.set_nodelay(true)?;
        let (reader, mut writer) = tokio::io::split(socket);
        let mut reader = frames(reader);
        let hello = Handshake {
            protocol: PROTOCOL,
            lane: self.lane as u32,
            from: local.node_id.0,
            to: self.id.0,
            cluster_id: local.cluster_id.clone(),
        };
        write_frame(&mut writer, HELLO, 0, &hello.encode()).await?;
        let answer = read_frame(&mut reader).await?;
        if answer.kind != HELLO || !answer.body.is_empty() {
            let refusal = String::from_utf8_lossy(&answer.body).into_owned();
            return Err(io::Error::other(refusal));
        }
        Ok((reader, writer))
    }

    async fn run_connection(&self, reader: FrameReader, writer: WriteHalf<TcpStream>) {
        let stop = self.stop.child_token();
        let (connection, pump) = connection(writer, stop.clone());
        self.slot.set(Some(connection.clone()));
        if self.lane == Lane::Control {
            tracing::info!(peer = %self.id, address = self.address, "connected to peer");
        }
        // The other side opens no streams on a connection that it did not dial.
        let slot = &self.slot;
        let reading = async {
            let result = read_loop(reader, connection, stop, |_, _, _| {}).await;
            slot.set(None);
            result
        };
        let (result, ()) = tokio::join!(reading, pump);
        if let Err(error) = result
            && self.lane == Lane::Control
        {
            tracing::info!(peer = %self.id, %error, "lost the connection to a peer");
        }
    }
}

type FrameReader = FramedRead<ReadHalf<TcpStream>, LengthDelimitedCodec>;

fn frames(reader: ReadHalf<TcpStream>) -> FrameReader {
    LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_read(reader)
}

async fn read_frame(reader: &mut FrameReader) -> io::Result<Frame> {
    let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut bytes = reader.next().await.ok_or_else(ended)??.freeze();
    if bytes.len() < 5 {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let kind = bytes.get_u8();
    let stream = bytes.get_u32();
    Ok(Frame { kind, stream, body: bytes })
}

fn put_frame(out: &mut BytesMut, kind: u8, stream: u32, body: &[u8]) {
    out.reserve(9 + body.len());
    out.put_u32((5 + body.len()) as u32);
    out.put_u8(kind);
    out.put_u32(stream);
    out.put_slice(body);
}

async fn write_frame(
    writer: &mut WriteHalf<TcpStream>,
    kind: u8,
    stream: u32,
    body: &[u8],
) -> io::Result<()> {
    let mut out = BytesMut::new();
    put_frame(&mut out, kind, stream, body);
    writer.write_all(&out).await
}

/// A connection over a socket's writing half, and the future that writes what is sent on it.
fn connection(
    writer: WriteHalf<TcpStream>,
    stop: CancellationToken,
) -> (Arc<Connection>, impl Future<Output = ()>) {
    let (frames, frames_rx) = mpsc::channel(QUEUE_FRAMES);
    let (ends, ends_rx) = mpsc::unbounded_channel();
    let connection = Arc::new(Connection {
        frames,
        ends,
        streams: Mutex::default(),
        next_stream: AtomicU32::new(1),
    });
    (connection, write_loop(writer, frames_rx, ends_rx, stop))
}

async fn write_loop(
    mut writer: WriteHalf<TcpStream>,
    mut frames: mpsc::Receiver<Frame>,
    mut ends: mpsc::UnboundedReceiver<u32>,
    stop: CancellationToken,
) {
    let mut out = BytesMut::with_capacity(WRITE_BYTES);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            frame = frames.recv() => match frame {
                Some(frame) => put_frame(&mut out, frame.kind, frame.stream, &frame.body),
                None => break,
            },
            end = ends.recv() => match end {
                Some(stream) => put_frame(&mut out, END, stream, &[]),
                None => break,
            },
            () = tokio::time::sleep(PING_EVERY) => put_frame(&mut out, PING, 0, &[]),
        }
        while out.len() < WRITE_BYTES {
            if let Ok(frame) = frames.try_recv() {
                put_frame(&mut out, frame.kind, frame.stream, &frame.body);
            } else if let Ok(stream) = ends.try_recv() {
                put_frame(&mut out, END, stream, &[]);
            } else {
                break;
            }
        }
        let written = tokio::select! {
            () = stop.cancelled() => break,
            written = writer.write_all(&out) => written,
        };
        if written.is_err() {
            break;
        }
        out.clear();
        if out.capacity() > 4 * WRITE_BYTES {
            out = BytesMut::with_capacity(WRITE_BYTES);
        }
    }
    stop.cancel();
    // The peer learns of it by the end of the connection, whether or not this succeeds.
    if writer.shutdown().await.is_err() {
        tracing::trace!("the peer had closed the connection already");
    }
}

async fn read_loop(
    mut reader: FrameReader,
    connection: Arc<Connection>,
    stop: CancellationToken,
    on_open: impl Fn(u32, Bytes, Stream),
) -> io::Result<()> {
    let result = loop {
        let frame = tokio::select! {
            () = stop.cancelled() => break Ok(()),
            frame = tokio::time::timeout(SILENCE_MAX, read_frame(&mut reader)) => frame,
        };
        let frame = match frame.map_err(io::Error::from).flatten() {
            Ok(frame) => frame,
            Err(error) => break Err(error),
        };
        match frame.kind {
            OPEN => {
                let stream = connection.add_stream(frame.stream);
                on_open(frame.stream, frame.body, stream);
            }
            DATA => {
                if let Some(stream) = connection.stream(frame.stream)
                    && stream.send(frame.body).await.is_err()
                {
                    connection.remove_stream(frame.stream);
                }
            }
            END => connection.remove_stream(frame.stream),
            PING => {}
            _ => break Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    };
    stop.cancel();
    connection.streams.lock().expect("no holder of the lock panics").clear();
    result
}

async fn serve_bootstrap(
    mut reader: FrameReader,
    mut writer: WriteHalf<TcpStream>,
    bootstrap: Arc<dyn Bootstrap>,
) -> io::Result<()> {
    let request = tokio::time::timeout(DIAL_TIMEOUT, read_frame(&mut reader)).await??;
    let answer = bootstrap.answer(request.body).await;
    write_frame(&mut writer, DATA, 0, &answer).await
}

/// What a dialler says first.
#[derive(Debug, Default, PartialEq, Eq)]
struct Handshake {
    protocol: u32,
    lane: u32,
    from: u64,
    to: u64,
    cluster_id: String,
}

impl Handshake {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        out.put_u32(self.protocol);
        out.put_u32(self.lane);
        out.put_u64(self.from);
        out.put_u64(self.to);
        out.put_slice(self.cluster_id.as_bytes());
        out
    }

    fn decode(mut bytes: Bytes) -> io::Result<Handshake> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        if bytes.len() < 24 {
            return Err(invalid());
        }
        let (protocol, lane) = (bytes.get_u32(), bytes.get_u32());
        let (from, to) = (bytes.get_u64(), bytes.get_u64());
        let cluster_id = String::from_utf8(bytes.to_vec()).map_err(|_| invalid())?;
        Ok(Handshake { protocol, lane, from, to, cluster_id })
    }
}
