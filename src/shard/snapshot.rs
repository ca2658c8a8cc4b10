//! Bringing a replica up to date when the log no longer reaches back far enough.
//!
//! A snapshot is the last durable checkpoint. Its rows are copied when sending begins; rooms'
//! events are streamed from the base, and only what the receiver lacks. Stream on the snapshot
//! lane: header → have… → blocks… rows… end → done.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use metrics::Counter;
use prost::Message;

use crate::id::{Epoch, RoomId, Seq};
use crate::proto::internal as pb;
use crate::proto::internal::snapshot_frame::Part;
use crate::shard::runtime::Runtime;
use crate::shard::state_machine::Replica;
use crate::shard::transport::{Closed, Stream};
use crate::shard::types::{SnapshotMeta, Vote};
use crate::shard::wire::{self, Malformed};
use crate::store::snapshot::{Chunk, RoomHead, Sending};
use crate::store::snapshot_sink::{Received, SnapshotSink};

/// Rooms in one answer of what the receiver has.
const HAVE_ROOMS: usize = 1000;

/// How fast snapshots are sent, so that what clients do goes on beside them. Its clones share the rate:
/// however many shards move, a node sends no more than that.
#[derive(Debug, Clone)]
pub struct Pace {
    /// Bytes a second at most; 0 = as fast as can be. It may change while snapshots are sent.
    bytes_per_second: Arc<AtomicU64>,
    /// Held while time is let pass for what was sent; never while something is sent, as a receiver may
    /// hang.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace::new(32 << 20)
    }
}

impl Pace {
    /// So many bytes a second; 0 = as fast as can be.
    pub fn new(bytes_per_second: u64) -> Pace {
        Pace { bytes_per_second: Arc::new(bytes_per_second.into()), turn: Arc::default() }
    }

    /// So many bytes a second from the next block on, of all clones.
    pub fn set(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Waits for as long as so many bytes should take, after those who wait for theirs.
    async fn wait<R: Runtime>(&self, bytes: u64) {
        let takes = self.takes(bytes);
        if !takes.is_zero() {
            let _turn = self.turn.lock().await;
            R::sleep(takes).await;
        }
    }

    /// How long so many bytes should take.
    fn takes(&self, bytes: u64) -> Duration {
        match self.bytes_per_second.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            rate => Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate),
        }
    }
}

/// What openraft passes along as a snapshot.
pub enum SnapshotData {
    /// This node's own: read from the replica when it is sent.
    Local(Arc<Replica>),
    /// A peer's: blocks are in the base, rows wait to be installed.
    Received(Received),
}

/// Why a snapshot could not be sent or received.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SnapshotError {
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the store failed: {0}")]
    Store(#[from] io::Error),
    #[error("the receiver refused: {0}")]
    Refused(String),
    #[error("its last checkpoint ends before this node's log begins")]
    TooOld,
}

/// The frame that opens a snapshot's stream.
pub(crate) fn header(vote: Option<&Vote>, meta: &SnapshotMeta) -> pb::SnapshotHeader {
    pb::SnapshotHeader {
        vote: vote.map(wire::vote_to),
        last_log_id: meta.last_log_id.as_ref().map(wire::log_id_to),
        membership: Some(wire::stored_membership_to(&meta.last_membership)),
        acknowledged: None,
    }
}

/// Sends a source's content over a stream that was opened with its header, and counts it; returns
/// the receiver's vote.
pub(crate) async fn send<R: Runtime>(
    sending: Sending,
    mut stream: Stream,
    pace: &Pace,
    sent_bytes: &Counter,
) -> Result<Vote, SnapshotError> {
    send_content::<R>(sending, &mut stream, pace, sent_bytes).await?;
    let done = pb::SnapshotDone::decode(stream.recv().await?).map_err(|_| Malformed("done"))?;
    if !done.error.is_empty() {
        return Err(SnapshotError::Refused(done.error));
    }
    Ok(wire::vote_from(done.vote)?)
}

/// Sends what the receiver lacks of a source's content, to the end.
pub(crate) async fn send_content<R: Runtime>(
    mut sending: Sending,
    stream: &mut Stream,
    pace: &Pace,
    sent_bytes: &Counter,
) -> Result<(), SnapshotError> {
    sending.skip(receive_have(stream).await?);
    loop {
        // The base is read off the runtime's threads, one bounded chunk at a time.
        let (back, chunk) = R::blocking(move || {
            let chunk = sending.next_chunk();
            (sending, chunk)
        })
        .await?;
        sending = back;
        let part = match chunk? {
            Some(Chunk::Blocks(chunk)) => Part::Blocks(chunk),
            Some(Chunk::Rows(chunk)) => Part::Rows(chunk),
            None => break,
        };
        let bytes = send_part(stream, part).await?;
        sent_bytes.increment(bytes);
        pace.wait::<R>(bytes).await;
    }
    send_part(stream, Part::End(true)).await?;
    Ok(())
}

/// Returns how many bytes it takes.
async fn send_part(stream: &Stream, part: Part) -> Result<u64, Closed> {
    let frame = Bytes::from(pb::SnapshotFrame { part: Some(part) }.encode_to_vec());
    let bytes = frame.len() as u64;
    stream.tx.send(frame).await?;
    Ok(bytes)
}

async fn receive_have(stream: &mut Stream) -> Result<Vec<(RoomId, Epoch, Seq)>, SnapshotError> {
    let mut rooms = Vec::new();
    loop {
        let frame =
            pb::SnapshotHave::decode(stream.recv().await?).map_err(|_| Malformed("have"))?;
        for room in frame.rooms {
            rooms.push((
                RoomId::parse(&room.room).map_err(|_| Malformed("room"))?,
                Epoch::parse(&room.epoch).map_err(|_| Malformed("epoch"))?,
                Seq(room.head),
            ));
        }
        if frame.last {
            return Ok(rooms);
        }
    }
}

/// Counts what is received, and nothing any more when that has an end.
struct Counted<'a>(&'a AtomicU64);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Receives a snapshot's content, and counts its bytes meanwhile; what it returns is ready to be installed.
pub(crate) async fn receive<R: Runtime>(
    mut sink: SnapshotSink,
    stream: &mut Stream,
    received_bytes: &AtomicU64,
) -> Result<Received, SnapshotError> {
    let counted = Counted(received_bytes);
    let have: Vec<RoomHead> = sink.have().cloned().collect();
    send_have(stream, &have).await?;
    loop {
        let frame = stream.recv().await?;
        counted.0.fetch_add(frame.len() as u64, Ordering::Relaxed);
        let frame = pb::SnapshotFrame::decode(frame).map_err(|_| Malformed("frame"))?;
        let part = frame.part.ok_or(Malformed("frame"))?;
        let (back, taken) = R::blocking(move || {
            let taken = match part {
                Part::Blocks(chunk) => sink.put_blocks(&chunk).map(|()| None),
                Part::Rows(chunk) => sink.put_rows(&chunk).map(|()| None),
                Part::End(_) => return (None, sink.finish().map(Some)),
            };
            (Some(sink), taken)
        })
        .await?;
        match (back, taken?) {
            (_, Some(received)) => return Ok(received),
            (Some(back), None) => sink = back,
            (None, None) => return Err(Malformed("end").into()),
        }
    }
}

async fn send_have(stream: &Stream, have: &[RoomHead]) -> Result<(), Closed> {
    let mut chunks = have.chunks(HAVE_ROOMS).peekable();
    loop {
        let rooms = chunks.next().unwrap_or_default();
        let frame = pb::SnapshotHave {
            rooms: rooms
                .iter()
                .map(|have| pb::RoomHead {
                    room: have.room.as_str().into(),
                    epoch: have.epoch.as_str().into(),
                    head: have.head.0,
                })
                .collect(),
            last: chunks.peek().is_none(),
        };
        let last = frame.last;
        stream.tx.send(frame.encode_to_vec().into()).await?;
        if last {
            return Ok(());
        }
    }
}

/// The answer that ends a snapshot's stream.
pub(crate) fn done(result: Result<Vote, String>) -> Bytes {
    let done = match result {
        Ok(vote) => pb::SnapshotDone { vote: Some(wire::vote_to(&vote)), error: String::new() },
        Err(error) => pb::SnapshotDone { vote: None, error },
    };
    done.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::runtime::TokioRuntime;

    #[tokio::test]
    async fn snapshots_that_are_sent_at_once_share_the_rate() {
        let pace = Pace::new(10_000);
        let sent = || {
            let pace = pace.clone();
            async move { pace.wait::<TokioRuntime>(500).await }
        };
        let begin = std::time::Instant::now();
        tokio::join!(sent(), sent(), sent());
        assert!(begin.elapsed() >= Duration::from_millis(3 * 50), "{:?}", begin.elapsed());
        Pace::new(0).wait::<TokioRuntime>(u64::MAX).await;
    }

    #[test]
    fn a_rate_that_is_changed_is_that_of_all_clones() {
        let pace = Pace::new(10_000);
        let clone = pace.clone();
        assert_eq!(clone.takes(500), Duration::from_millis(50));
        pace.set(1_000);
        assert_eq!(clone.takes(500), Duration::from_millis(500));
        pace.set(0);
        assert_eq!(clone.takes(u64::MAX), Duration::ZERO);
    }
}
