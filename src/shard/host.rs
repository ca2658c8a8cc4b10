//! Takes peers' streams and hands them to the group that they are for.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, RwLock};

use futures_util::StreamExt;
use openraft::raft::{StreamAppendError, TransferLeaderRequest};
use prost::Message;

use crate::id::{NodeId, ShardId};
use crate::proto::internal as pb;
use crate::shard::runtime::Runtime;
use crate::shard::snapshot::{self, SnapshotData, SnapshotError};
use crate::shard::transport::{Accept, Stream};
use crate::shard::types::{Snapshot, log_id};
use crate::shard::{Shard, rebuild, wire};
use crate::store::snapshot_sink::SnapshotSink;

/// Takes what is not for a group: forwarded requests, relays and presence, for the layers above.
pub trait Upper: Send + Sync + 'static {
    /// Takes a stream of the forward, relay or presence service. Must not wait.
    fn accept(&self, from: NodeId, open: pb::Open, stream: Stream);
}

/// The groups that this node has a replica of.
pub struct Host<R: Runtime> {
    shards: RwLock<BTreeMap<ShardId, Arc<Shard<R>>>>,
    upper: OnceLock<Arc<dyn Upper>>,
}

impl<R: Runtime> Default for Host<R> {
    fn default() -> Self {
        Host { shards: RwLock::default(), upper: OnceLock::new() }
    }
}

impl<R: Runtime> Host<R> {
    /// Adds a group once its replica has started.
    pub fn insert(&self, shard: Arc<Shard<R>>) {
        self.shards.write().expect("no holder of the lock panics").insert(shard.id(), shard);
    }

    /// Takes a group away, before its replica is stopped and removed.
    pub fn remove(&self, id: ShardId) -> Option<Arc<Shard<R>>> {
        self.shards.write().expect("no holder of the lock panics").remove(&id)
    }

    /// A group's replica, if this node has one.
    pub fn get(&self, id: ShardId) -> Option<Arc<Shard<R>>> {
        self.shards.read().expect("no holder of the lock panics").get(&id).cloned()
    }

    /// Every replica on this node, the meta group's first.
    pub fn all(&self) -> Vec<Arc<Shard<R>>> {
        self.shards.read().expect("no holder of the lock panics").values().cloned().collect()
    }

    /// Says who takes what is not for a group; once.
    pub fn set_upper(&self, upper: Arc<dyn Upper>) {
        assert!(self.upper.set(upper).is_ok(), "node wires the router once");
    }
}

impl<R: Runtime> Accept for Host<R> {
    fn accept(&self, from: NodeId, first: bytes::Bytes, stream: Stream) {
        let Ok(open) = pb::Open::decode(first) else {
            tracing::warn!(%from, "malformed stream from a peer");
            return;
        };
        use pb::open::Service;
        if let Some(Service::Forward(_) | Service::Relay(_) | Service::Presence(_)) = open.service {
            if let Some(upper) = self.upper.get() {
                upper.accept(from, open, stream);
            }
            return;
        }
        let Ok(group) = u16::try_from(open.group) else { return };
        // A group that is not here yet answers nothing: the peer sees a closed stream.
        let Some(shard) = self.get(ShardId(group)) else { return };
        let _task = R::spawn(async move {
            if let Err(error) = serve::<R>(&shard, open.service, stream).await {
                tracing::debug!(%from, shard = %shard.id(), %error, "peer's stream ended");
            }
        });
    }
}

/// Why a peer's stream ended early.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Malformed(#[from] wire::Malformed),
    #[error("the log has lost acknowledged entries")]
    Lost,
    #[error("{0}")]
    Raft(String),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Closed(#[from] crate::shard::transport::Closed),
}

async fn serve<R: Runtime>(
    shard: &Arc<Shard<R>>,
    service: Option<pb::open::Service>,
    stream: Stream,
) -> Result<(), ServeError> {
    match service.ok_or(wire::Malformed("open"))? {
        pb::open::Service::Append(append) => serve_append(shard, append, stream).await,
        pb::open::Service::Vote(request) => serve_vote(shard, request, stream).await,
        pb::open::Service::TransferLeader(request) => serve_transfer(shard, request, stream).await,
        pb::open::Service::Snapshot(header) => serve_snapshot(shard, header, stream).await,
        pb::open::Service::Fetch(_) => Ok(rebuild::serve(shard, stream).await?),
        pb::open::Service::Forward(_)
        | pb::open::Service::Relay(_)
        | pb::open::Service::Presence(_)
        | pb::open::Service::Bootstrap(_) => Err(wire::Malformed("service").into()),
    }
}

async fn serve_append<R: Runtime>(
    shard: &Arc<Shard<R>>,
    append: pb::Append,
    stream: Stream,
) -> Result<(), ServeError> {
    if !shard.has_acknowledged(append.acknowledged).await {
        return Err(ServeError::Lost);
    }
    let Stream { tx, rx } = stream;
    let requests = futures_util::stream::unfold(rx, |mut rx| async move {
        let frame = rx.recv().await?;
        // A malformed request ends the stream, and the leader starts another.
        let request = pb::AppendEntriesRequest::decode(frame).ok()?;
        let request = wire::append_request_from::<R>(request).ok()?;
        Some((request, rx))
    });
    let answers = shard.raft().stream_append(requests);
    let mut answers = std::pin::pin!(answers);
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(|fatal| ServeError::Raft(fatal.to_string()))?;
        if !matches!(answer, Err(StreamAppendError::HigherVote(_))) {
            shard.note_leader();
        }
        tx.send(wire::append_result_to::<R>(&answer).encode_to_vec().into()).await?;
    }
    Ok(())
}

async fn serve_vote<R: Runtime>(
    shard: &Arc<Shard<R>>,
    request: pb::VoteRequest,
    stream: Stream,
) -> Result<(), ServeError> {
    let pre_vote = request.pre_vote;
    let mut request = wire::vote_request_from::<R>(request)?;
    if mutant!(VoteForShorterLog) {
        request.last_log_id = Some(log_id(u64::MAX, u64::MAX));
    }
    let answer = match pre_vote {
        true => shard.raft().pre_vote(request).await,
        false => shard.raft().vote(request).await,
    };
    let answer = answer.map_err(|error| ServeError::Raft(error.to_string()))?;
    Ok(stream.tx.send(wire::vote_response_to::<R>(&answer).encode_to_vec().into()).await?)
}

async fn serve_transfer<R: Runtime>(
    shard: &Arc<Shard<R>>,
    request: pb::TransferLeaderRequest,
    stream: Stream,
) -> Result<(), ServeError> {
    let request = TransferLeaderRequest::new(
        wire::vote_from(request.from_leader)?,
        request.to_node,
        request.last_log_id.map(wire::log_id_from),
    );
    let answer = shard.raft().handle_transfer_leader(request).await;
    let refused = match answer {
        Ok(Ok(())) => String::new(),
        Ok(Err(error)) => error.to_string(),
        Err(fatal) => fatal.to_string(),
    };
    let answer = pb::TransferLeaderResponse { refused };
    Ok(stream.tx.send(answer.encode_to_vec().into()).await?)
}

async fn serve_snapshot<R: Runtime>(
    shard: &Arc<Shard<R>>,
    header: pb::SnapshotHeader,
    mut stream: Stream,
) -> Result<(), ServeError> {
    let vote = wire::vote_from(header.vote)?;
    let meta = crate::shard::types::SnapshotMeta {
        last_log_id: header.last_log_id.map(wire::log_id_from),
        last_membership: wire::stored_membership_from(header.membership)?,
    };
    if !shard.has_acknowledged(header.acknowledged).await {
        return Err(ServeError::Lost);
    }
    let replica = shard.replica().clone();
    // Until it is installed, no checkpoint may write to the same base.
    let _no_checkpoint = replica.maintenance.lock().await;
    tracing::info!(shard = %shard.id(), "receiving a snapshot");
    let received = async {
        let base = replica.read().base().clone();
        let id = shard.id();
        let sink = R::blocking(move || SnapshotSink::new(base, id)).await.flatten();
        let sink = sink.map_err(SnapshotError::Store)?;
        let received = snapshot::receive::<R>(sink, &mut stream, &replica.receiving_bytes).await?;
        let snapshot = SnapshotData::Received(received);
        let installed = shard.raft().install_full_snapshot(vote, Snapshot { meta, snapshot }).await;
        installed.map_err(|fatal| SnapshotError::Refused(fatal.to_string()))
    };
    let result = received.await.map(|response| response.vote).map_err(|error| error.to_string());
    match &result {
        Ok(_) => tracing::info!(shard = %shard.id(), "installed a snapshot"),
        Err(error) => tracing::warn!(shard = %shard.id(), error, "cannot install a snapshot"),
    }
    Ok(stream.tx.send(snapshot::done(result)).await?)
}
