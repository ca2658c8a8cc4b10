//! Gives a replica its state back when that is gone from the disk and the log does not reach back
//! to its beginning.
//!
//! A node that cannot read its state sets it aside (`node/storage.rs`) before it starts. The log
//! and the vote are whole then, so the node may keep its id and what it acknowledged; only what was
//! purged of the log is missing, and any other replica's last checkpoint has that: a checkpoint
//! has nothing but committed entries. It is fetched before the group starts. The stream is that of
//! a snapshot (`shard/snapshot.rs`), opened by the receiver: header ← , have →, parts ←.
//!
//! A node that had a replica of a group, lost it to another node and is to have it again is in the
//! same position: its log begins where it ended then (`Shard::retire`).

use std::io;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prost::Message;

use crate::id::{NodeId, ShardId};
use crate::proto::internal as pb;
use crate::shard::runtime::{Instant, Runtime};
use crate::shard::snapshot::{self, SnapshotError};
use crate::shard::state_machine::meta_of;
use crate::shard::transport::{Closed, Lane, Stream};
use crate::shard::types::LogId;
use crate::shard::wire::{self, Malformed};
use crate::shard::{Parts, Shard};
use crate::store::base;
use crate::store::snapshot_sink::SnapshotSink;
use crate::store::state::ShardState;

/// For how long a replica to take the state from is looked for.
const LOOK_FOR: Duration = Duration::from_secs(20);
/// Between two looks at all peers.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Makes sure that a state and the log behind it have no gap in between.
///
/// # Errors
/// When the state is older than the log reaches back; when it is gone, and no peer could give it.
pub(super) async fn complete<R: Runtime>(
    id: ShardId,
    parts: &Parts,
    mut state: ShardState,
    purged: Option<LogId>,
) -> io::Result<ShardState> {
    let applied = meta_of(state.applied())?.last_log_id;
    let Some(purged) = purged.filter(|_| applied < purged) else { return Ok(state) };
    if let Some(applied) = applied {
        let (ends, begins) = (applied.index(), purged.index() + 1);
        return Err(base::damage(format!(
            "the state on disk ends at entry {ends}, and the log begins with entry {begins}: the \
             state is damaged, or was put back to an earlier one"
        )));
    }
    let begin = R::Instant::now();
    let mut why = String::from("there is no other node");
    while !parts.peers.is_empty() && begin.elapsed() < LOOK_FOR {
        for peer in &parts.peers {
            match fetch::<R>(id, parts, *peer, &mut state, purged).await {
                Ok(()) => {
                    tracing::info!(shard = %id, from = %peer, "took the state from a peer");
                    return Ok(state);
                }
                Err(error) => why = format!("node {peer}: {error}"),
            }
        }
        R::sleep(LOOK_PAUSE).await;
    }
    let message = format!(
        "its state is gone, the log begins with entry {}, and no other replica could give the \
         state ({why}). Start the other nodes first; when there are none, restore a backup. State \
         that could not be read is in rooms.unreadable-N beside rooms",
        purged.index() + 1
    );
    Err(io::Error::new(io::ErrorKind::NotFound, message))
}

async fn fetch<R: Runtime>(
    id: ShardId,
    parts: &Parts,
    peer: NodeId,
    state: &mut ShardState,
    purged: LogId,
) -> Result<(), SnapshotError> {
    let fetch = pb::open::Service::Fetch(pb::Fetch {});
    let open = pb::Open { group: u32::from(id.0), service: Some(fetch) };
    let mut stream = parts.transport.open(peer, Lane::Snapshot, open.encode_to_vec().into());
    let header = pb::SnapshotHeader::decode(stream.recv().await?);
    let header = header.map_err(|_| Malformed("header"))?;
    if header.last_log_id.map(wire::log_id_from) < Some(purged) {
        return Err(SnapshotError::TooOld);
    }
    let base = state.base().clone();
    let sink = R::blocking(move || SnapshotSink::new(base, id)).await??;
    let received = snapshot::receive::<R>(sink, &mut stream, &AtomicU64::new(0)).await?;
    // Nothing else runs in this group yet that could be held up.
    Ok(state.install(received)?)
}

/// Gives a peer this replica's last checkpoint.
pub(super) async fn serve<R: Runtime>(
    shard: &Shard<R>,
    mut stream: Stream,
) -> Result<(), SnapshotError> {
    let (source, meta) = shard.replica().begin_snapshot::<R>().await?;
    let header = snapshot::header(None, &meta).encode_to_vec();
    stream.tx.send(header.into()).await?;
    tracing::info!(shard = %shard.id(), "giving the state to a peer that has lost its own");
    let sent = metrics::counter!("folkmoot_snapshot_sent_bytes_total");
    snapshot::send_content::<R>(source, &mut stream, &shard.pace, &sent).await?;
    // It hangs up once it has everything.
    let Err(Closed) = stream.recv().await else { return Err(Malformed("fetch").into()) };
    Ok(())
}
