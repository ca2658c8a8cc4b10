//! openraft's network over [`Transport`] streams: pipelined AppendEntries, votes, snapshots.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use metrics::Counter;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult, VoteRequest,
    VoteResponse,
};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use openraft::{BasicNode, OptionalSend, RaftNetworkFactory};
use prost::Message;

use crate::id::{NodeId, ShardId};
use crate::proto::internal as pb;
use crate::shard::lost::{Acknowledged, Acknowledgements};
use crate::shard::runtime::{Runtime, Select2};
use crate::shard::snapshot::{self, Pace, SnapshotData};
use crate::shard::transport::{Closed, Lane, Stream, Transport};
use crate::shard::types::{Snapshot, Types, Vote};
use crate::shard::wire;

/// AppendEntries requests of one stream that wait for an answer.
const PIPELINE_MAX: usize = 32;

/// Makes clients to the peers of one group.
#[derive(Clone)]
pub struct NetworkFactory {
    group: ShardId,
    transport: Arc<dyn Transport>,
    acknowledged: Arc<Acknowledgements>,
    pace: Pace,
    snapshot_bytes: Counter,
}

impl<R: Runtime> RaftNetworkFactory<Types<R>> for NetworkFactory {
    type Network = Network;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> Network {
        self.client(target, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &BasicNode) -> Network {
        self.client(target, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, _node: &BasicNode) -> Network {
        self.client(target, Lane::Snapshot)
    }
}

impl NetworkFactory {
    /// Makes clients for a group.
    pub(crate) fn new(
        group: ShardId,
        transport: Arc<dyn Transport>,
        acknowledged: Arc<Acknowledgements>,
        pace: Pace,
    ) -> NetworkFactory {
        let snapshot_bytes = metrics::counter!("folkmoot_snapshot_sent_bytes_total");
        NetworkFactory { group, transport, acknowledged, pace, snapshot_bytes }
    }

    pub(super) fn client(&self, target: u64, append_lane: Lane) -> Network {
        Network {
            acknowledged: self.acknowledged.of(target),
            group: self.group,
            target: NodeId(target),
            append_lane,
            appends: None,
            transport: self.transport.clone(),
            pace: self.pace.clone(),
            snapshot_bytes: self.snapshot_bytes.clone(),
        }
    }
}

/// A client to one peer of one group.
pub struct Network {
    group: ShardId,
    target: NodeId,
    append_lane: Lane,
    /// The stream of AppendEntries requests, kept from one call to the next: openraft makes a call
    /// for each run of entries, and opening a stream costs more than using one.
    appends: Option<Stream>,
    acknowledged: Arc<Acknowledged>,
    transport: Arc<dyn Transport>,
    pace: Pace,
    /// Rows and blocks sent, of all groups and to all peers.
    snapshot_bytes: Counter,
}

impl Network {
    fn open(&self, lane: Lane, service: pb::open::Service) -> Stream {
        let open = pb::Open { group: u32::from(self.group.0), service: Some(service) };
        self.transport.open(self.target, lane, open.encode_to_vec().into())
    }

    /// One question, one answer.
    async fn ask<R: Runtime, M: Message + Default>(
        &self,
        service: pb::open::Service,
        timeout: Duration,
    ) -> Result<M, RPCError<Types<R>>> {
        let mut stream = self.open(Lane::Control, service);
        let answer = R::timeout(timeout, stream.recv()).await;
        let answer = answer.map_err(|_| unreachable::<R>(&Closed))?;
        let answer = answer.map_err(|closed| unreachable::<R>(&closed))?;
        M::decode(answer).map_err(|error| RPCError::Network(NetworkError::new(&error)))
    }

    /// Whether the peer answers that it knows of no later vote. It takes the question for a
    /// heartbeat: whatever its log has, that fits.
    pub(super) async fn knows_no_later<R: Runtime>(&self, vote: Vote) -> bool {
        let append = pb::Append { acknowledged: self.acknowledged.claim() };
        let mut stream = self.open(Lane::Control, pb::open::Service::Append(append));
        let heartbeat =
            pb::AppendEntriesRequest { vote: Some(wire::vote_to(&vote)), ..Default::default() };
        if stream.tx.send(heartbeat.encode_to_vec().into()).await.is_err() {
            return false;
        }
        let answer = stream.recv().await.ok();
        let answer = answer.and_then(|answer| pb::AppendEntriesResponse::decode(answer).ok());
        let answer = answer.and_then(|answer| wire::append_result_from::<R>(answer).ok());
        matches!(answer, Some(Ok(_) | Err(StreamAppendError::Conflict(_))))
    }

    async fn ask_vote<R: Runtime>(
        &self,
        request: VoteRequest<Types<R>>,
        pre_vote: bool,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        let service = pb::open::Service::Vote(wire::vote_request_to(&request, pre_vote));
        let answer: pb::VoteResponse = self.ask(service, option.hard_ttl()).await?;
        wire::vote_response_from(answer).map_err(|e| RPCError::Network(NetworkError::new(&e)))
    }
}

fn unreachable<R: Runtime>(error: &(impl std::error::Error + 'static)) -> RPCError<Types<R>> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl<R: Runtime> NetBackoff<Types<R>> for Network {
    fn backoff(&self) -> Option<Backoff> {
        let waits = [20, 50, 100].into_iter().chain(std::iter::repeat(200));
        Some(Backoff::new(waits.map(Duration::from_millis)))
    }
}

impl<R: Runtime> NetVote<Types<R>> for Network {
    async fn vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        self.ask_vote(request, false, option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types<R>>, RPCError<Types<R>>> {
        self.ask_vote(request, true, option).await
    }
}

impl<R: Runtime> NetTransferLeader<Types<R>> for Network {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types<R>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<R>>, RPCError<Types<R>>> {
        let service = pb::open::Service::TransferLeader(pb::TransferLeaderRequest {
            from_leader: Some(wire::vote_to(request.from_leader())),
            to_node: *request.to_node_id(),
            last_log_id: request.last_log_id().map(wire::log_id_to),
        });
        let answer: pb::TransferLeaderResponse = self.ask(service, option.hard_ttl()).await?;
        if answer.refused.is_empty() {
            Ok(Ok(()))
        } else {
            Err(RPCError::Network(NetworkError::from_string(answer.refused)))
        }
    }
}

/// A running call of AppendEntries: requests go out while answers come back, in order.
struct Pipeline<'s, R: Runtime, S> {
    input: Option<S>,
    stream: Stream,
    waiting: usize,
    /// The term of the leader that calls.
    term: u64,
    acknowledged: &'s Acknowledged,
    /// Takes the stream back once every request has its answer.
    kept: &'s mut Option<Stream>,
    runtime: std::marker::PhantomData<fn() -> R>,
}

type Answer<R> = Result<StreamAppendResult<Types<R>>, RPCError<Types<R>>>;

impl<'s, R, S> Pipeline<'s, R, S>
where
    R: Runtime,
    S: futures_util::Stream<Item = AppendEntriesRequest<Types<R>>> + OptionalSend + Unpin,
{
    /// The next answer, and what goes on after it; `None` when every request has been answered and
    /// there are no more.
    async fn next(mut self) -> Option<(Answer<R>, Option<Self>)> {
        let answer = loop {
            if self.input.is_none() && self.waiting == 0 {
                *self.kept = Some(self.stream);
                return None;
            }
            if let Some(answer) = self.step().await {
                break answer;
            }
        };
        // After an error nothing more is asked of the stream: the follower has ended it.
        let goes_on = matches!(answer, Ok(Ok(_)));
        Some((answer, goes_on.then_some(self)))
    }

    /// Sends a request or takes an answer, whichever is ready first.
    async fn step(&mut self) -> Option<Answer<R>> {
        let input = match &mut self.input {
            Some(input) if self.waiting < PIPELINE_MAX => input,
            _ => {
                let frame = self.stream.rx.recv().await;
                return Some(self.take(frame));
            }
        };
        let selected = if self.waiting == 0 {
            Select2::First(input.next().await)
        } else {
            R::select2(input.next(), self.stream.rx.recv()).await
        };
        match selected {
            Select2::First(Some(request)) => {
                self.term = request.vote.leader_id.term;
                let frame: Bytes = wire::append_request_to(&request).encode_to_vec().into();
                if let Err(closed) = self.stream.tx.send(frame).await {
                    return Some(Err(unreachable::<R>(&closed)));
                }
                self.waiting += 1;
                None
            }
            Select2::First(None) => {
                self.input = None;
                None
            }
            Select2::Second(frame) => Some(self.take(frame)),
        }
    }

    fn take(&mut self, frame: Option<Bytes>) -> Answer<R> {
        let frame = frame.ok_or_else(|| unreachable::<R>(&Closed))?;
        self.waiting -= 1;
        let answer = pb::AppendEntriesResponse::decode(frame)
            .map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        let answer = wire::append_result_from::<R>(answer)
            .map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        if let Ok(Some(matched)) = &answer {
            self.acknowledged.note(self.term, *matched);
        }
        Ok(answer)
    }
}

impl<R: Runtime> NetStreamAppend<Types<R>> for Network {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<Types<R>>, RPCError<Types<R>>>>,
            RPCError<Types<R>>,
        >,
    >
    where
        S: futures_util::Stream<Item = AppendEntriesRequest<Types<R>>>
            + OptionalSend
            + Unpin
            + 'static,
    {
        // A kept stream that has ended meanwhile is replaced, at the cost of one failed call.
        let kept = self.appends.take().filter(|stream| !stream.rx.is_closed());
        let stream = kept.unwrap_or_else(|| {
            let append = pb::Append { acknowledged: self.acknowledged.claim() };
            self.open(self.append_lane, pb::open::Service::Append(append))
        });
        let pipeline = Pipeline::<'s, R, S> {
            input: Some(input),
            stream,
            waiting: 0,
            term: 0,
            acknowledged: &self.acknowledged,
            kept: &mut self.appends,
            runtime: std::marker::PhantomData,
        };
        let answers = futures_util::stream::unfold(Some(pipeline), |pipeline| async move {
            pipeline?.next().await
        });
        let answers: BoxStream<'s, _> = Box::pin(answers);
        Box::pin(std::future::ready(Ok(answers)))
    }
}

impl<R: Runtime> NetSnapshot<Types<R>> for Network {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R>>, StreamingError<Types<R>>> {
        let SnapshotData::Local(replica) = snapshot.snapshot else {
            let error = NetworkError::from_string("a received snapshot is installed, not sent");
            return Err(StreamingError::Network(error));
        };
        let failed = |error: snapshot::SnapshotError| match error {
            snapshot::SnapshotError::Closed(closed) => {
                StreamingError::Unreachable(Unreachable::new(&closed))
            }
            error => StreamingError::Network(NetworkError::new(&error)),
        };
        if !self.transport.reachable(self.target, Lane::Snapshot) {
            return Err(StreamingError::Unreachable(Unreachable::new(&Closed)));
        }
        let sending = async {
            let (source, meta) = replica.begin_snapshot::<R>().await?;
            let header = pb::SnapshotHeader {
                acknowledged: self.acknowledged.claim(),
                ..snapshot::header(Some(&vote), &meta)
            };
            let stream = self.open(Lane::Snapshot, pb::open::Service::Snapshot(header));
            tracing::info!(shard = %self.group, target = %self.target, "sending a snapshot");
            let answer =
                snapshot::send::<R>(source, stream, &self.pace, &self.snapshot_bytes).await?;
            if answer == vote
                && let Some(last) = meta.last_log_id
            {
                self.acknowledged.note(vote.leader_id.term, last);
            }
            Ok(answer)
        };
        match R::select2(cancel, sending).await {
            Select2::First(closed) => Err(closed.into()),
            Select2::Second(sent) => Ok(SnapshotResponse::new(sent.map_err(failed)?)),
        }
    }
}
