//! Streams between nodes over TCP: one connection a peer and lane, length-prefixed frames.
//!
//! The dialler opens streams, either side ends them. Each connection begins with a handshake that
//! checks protocol, cluster and both node ids, so that a node never talks Raft to the wrong one.
//!
//! Why not gRPC here: docs/adr/0006.

mod connection;
mod dialler;
mod frame;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message;
use tokio::io::WriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::{Connection, connection, read_loop};
use self::dialler::{Dialler, LaneSlot};
use self::frame::{DATA, FrameReader, HELLO, Handshake, frames, read_frame, write_frame};
use crate::id::NodeId;
use crate::proto::internal as pb;
use crate::shard::transport::{Accept, Lane, Stream, Transport};

/// Rises with every change of what nodes say to each other.
const PROTOCOL: u32 = 1;
/// How long dialling and shaking hands may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Waits between dials, while a peer is down.
const REDIAL: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(150), Duration::from_millis(300)];

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

/// Answers a bootstrap request, from a node that may not be of this cluster.
pub trait Bootstrap: Send + Sync + 'static {
    /// Answers one encoded `Bootstrap` message.
    fn answer(&self, request: Bytes) -> BoxFuture<'_, Bytes>;
}

/// The TCP transport: dials known peers for as long as they are known, and serves their streams.
pub struct Tcp {
    me: Weak<Tcp>,
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

impl Tcp {
    /// A transport without peers. It dials once it knows who it is.
    pub fn new(shutdown: CancellationToken) -> Arc<Tcp> {
        Arc::new_cyclic(|me| Tcp {
            me: me.clone(),
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

    fn lane(&self, to: NodeId, lane: Lane) -> Option<Arc<Connection>> {
        let peers = self.peers.read().expect("no holder of the lock panics");
        peers.get(&to).and_then(|peer| peer.lanes[lane as usize].get())
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
        let reading = read_loop(reader, connection, stop, move |first, stream| {
            accept.accept(from, first, stream)
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
    /// Starts dialling the peer; a changed address is redialled.
    fn set_peer(&self, id: NodeId, address: &str) {
        let mut peers = self.peers.write().expect("no holder of the lock panics");
        if let Some(known) = peers.get(&id) {
            if known.address == address {
                return;
            }
            known.stop.cancel();
        }
        let stop = self.shutdown.child_token();
        let connected = Arc::new(Notify::new());
        let lanes = Lane::ALL.map(|lane| {
            let slot = Arc::new(LaneSlot::default());
            let dialler = Dialler {
                tcp: self.me.clone(),
                id,
                lane,
                address: address.to_string(),
                slot: slot.clone(),
                connected: connected.clone(),
                stop: stop.clone(),
            };
            self.tasks.spawn(dialler.run());
            slot
        });
        peers.insert(id, Peer { address: address.to_string(), lanes, stop });
    }

    fn open(&self, to: NodeId, lane: Lane, first: Bytes) -> Stream {
        self.lane(to, lane).map_or_else(Stream::closed, |connection| connection.open(first))
    }

    fn reachable(&self, to: NodeId, lane: Lane) -> bool {
        self.lane(to, lane).is_some()
    }
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
