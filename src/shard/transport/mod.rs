//! How nodes talk: ordered streams of frames between two nodes, over persistent connections.
//!
//! `shard`, `router` and `delivery` know only [`Transport`] and [`Accept`]; [`tcp`] implements
//! them, and a simulation can too. A stream is cheap to open, and its first frame says what it is
//! for (`Open` in peer.proto). Frames of one stream arrive in order, or the stream ends: nothing
//! is resent here. Streams of one lane share a connection, so a lane's users must read promptly.

pub mod tcp;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::id::NodeId;

/// Connections between two nodes are kept apart by purpose, so that bulk never delays votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Lane {
    /// Heartbeats, votes, leadership transfer.
    Control = 0,
    /// AppendEntries with entries.
    Append = 1,
    /// Forwarded commands and reads.
    Forward = 2,
    /// Committed events to nodes without a replica.
    Relay = 3,
    /// Snapshots.
    Snapshot = 4,
}

impl Lane {
    /// Every lane.
    pub const ALL: [Lane; 5] =
        [Lane::Control, Lane::Append, Lane::Forward, Lane::Relay, Lane::Snapshot];

    /// The lane with this number.
    pub fn from_number(number: u8) -> Option<Lane> {
        Lane::ALL.into_iter().find(|lane| *lane as u8 == number)
    }
}

/// Frames of a stream that wait for its reader: with more, all streams of its lane wait with it.
pub const STREAM_FRAMES: usize = 256;
/// A frame's size limit in bytes: a snapshot chunk or 2 MiB of entries, with room. The connection that a
/// larger one is sent on breaks.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The other end is gone, or cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer cannot be reached")]
pub struct Closed;

/// The sending half of a stream. Dropping it ends the stream for the receiver, after what was
/// sent.
pub trait FrameSink: Send + Sync {
    /// Sends a frame; waits while the connection's queue is full. An `Ok` promises nothing about
    /// arrival.
    fn send(&self, frame: Bytes) -> futures_util::future::BoxFuture<'_, Result<(), Closed>>;
}

/// One end of a stream.
pub struct Stream {
    /// Sends frames to the other end.
    pub tx: Box<dyn FrameSink>,
    /// Frames from the other end; `None` once it has ended or the connection broke.
    pub rx: mpsc::Receiver<Bytes>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl Stream {
    /// A stream whose peer cannot be reached.
    pub fn closed() -> Stream {
        struct Nowhere;
        impl FrameSink for Nowhere {
            fn send(&self, _: Bytes) -> futures_util::future::BoxFuture<'_, Result<(), Closed>> {
                Box::pin(std::future::ready(Err(Closed)))
            }
        }
        let (_tx, rx) = mpsc::channel(1);
        Stream { tx: Box::new(Nowhere), rx }
    }

    /// Waits for one frame.
    ///
    /// # Errors
    /// [`Closed`] when the stream ended instead.
    pub async fn recv(&mut self) -> Result<Bytes, Closed> {
        self.rx.recv().await.ok_or(Closed)
    }
}

/// Opens streams to peers.
pub trait Transport: Send + Sync + 'static {
    /// Makes a peer known, or its new address; it is connected to from then on.
    fn set_peer(&self, peer: NodeId, address: &str);

    /// Opens a stream with its first frame. Never waits: when the peer cannot be reached, the
    /// stream is closed already.
    fn open(&self, to: NodeId, lane: Lane, first: Bytes) -> Stream;

    /// Whether a stream opened now would not be closed already.
    fn reachable(&self, to: NodeId, lane: Lane) -> bool;
}

/// Takes streams that peers open.
pub trait Accept: Send + Sync + 'static {
    /// Takes a stream. Must not wait: it hands the stream to a task of its own.
    fn accept(&self, from: NodeId, first: Bytes, stream: Stream);
}
