//! Answers requests that peers forward here.

use std::sync::{Arc, Weak};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use prost::Message;

use crate::chat::codec;
use crate::error::{Code, Error};
use crate::id::{NodeId, ShardId};
use crate::presence;
use crate::proto::internal as pb;
use crate::router::forward::{Reply, Request, refused_to};
use crate::router::{Consistency, Router, relay};
use crate::shard::Refused;
use crate::shard::host::Upper;
use crate::shard::runtime::{Runtime, Select2};
use crate::shard::transport::{FRAME_BYTES_MAX, Stream};

/// Requests of one peer that are being answered.
const ANSWERING_MAX: usize = 8192;
/// Replies of one frame, in bytes; the last one may go beyond.
const FRAME_BYTES: usize = 1024 * 1024;
/// A reply's size limit in bytes: it would break the connection, and all that is asked over it.
const REPLY_BYTES_MAX: usize = FRAME_BYTES_MAX - 2 * FRAME_BYTES;

/// Takes peers' forward, relay and presence streams, for as long as there is a router to answer them.
pub struct Server<R: Runtime>(pub Weak<Router<R>>);

impl<R: Runtime> Upper for Server<R> {
    fn accept(&self, from: NodeId, open: pb::Open, stream: Stream) {
        let Some(router) = self.0.upgrade() else { return };
        match open.service {
            Some(pb::open::Service::Forward(_)) => {
                let _task = R::spawn(serve_forward(router, from, stream));
            }
            Some(pb::open::Service::Relay(_)) => {
                let _task = R::spawn(relay::serve(router, stream));
            }
            Some(pb::open::Service::Presence(_)) => {
                let _task = R::spawn(presence::peers::serve(router.presence.clone(), from, stream));
            }
            _ => {}
        }
    }
}

async fn serve_forward<R: Runtime>(router: Arc<Router<R>>, from: NodeId, stream: Stream) {
    let Stream { tx, mut rx } = stream;
    let mut answering = FuturesUnordered::new();
    let mut open = true;
    while open || !answering.is_empty() {
        let mut replies = Vec::new();
        if answering.is_empty() {
            let frame = rx.recv().await;
            open = take_frame(&router, from, frame, &answering);
        } else if open && answering.len() < ANSWERING_MAX {
            match R::select2(answering.next(), rx.recv()).await {
                Select2::First(reply) => replies.extend(reply),
                Select2::Second(frame) => open = take_frame(&router, from, frame, &answering),
            }
        } else {
            replies.extend(answering.next().await);
        }
        let mut bytes: usize = replies.iter().map(Message::encoded_len).sum();
        while bytes < FRAME_BYTES
            && let Some(Some(reply)) = answering.next().now_or_never()
        {
            bytes += reply.encoded_len();
            replies.push(reply);
        }
        if !replies.is_empty() {
            let frame = pb::ForwardReplies { replies };
            if tx.send(frame.encode_to_vec().into()).await.is_err() {
                return;
            }
        }
    }
}

/// Starts answering a frame's requests; false when the stream has ended.
fn take_frame<R: Runtime>(
    router: &Arc<Router<R>>,
    from: NodeId,
    frame: Option<bytes::Bytes>,
    answering: &FuturesUnordered<futures_util::future::BoxFuture<'static, pb::ForwardReply>>,
) -> bool {
    let Some(frame) = frame else { return false };
    let Ok(frame) = pb::ForwardRequests::decode(frame) else {
        tracing::warn!(%from, "malformed requests from a peer");
        return false;
    };
    for request in frame.requests {
        let router = router.clone();
        answering.push(Box::pin(async move {
            let id = request.id;
            let reply = answer(&router, request)
                .await
                .unwrap_or_else(|refused| Reply::Refused(refused_to(&refused)));
            fitting(pb::ForwardReply { id, result: Some(reply) })
        }));
    }
    true
}

/// A reply that a frame can hold.
fn fitting(reply: pb::ForwardReply) -> pb::ForwardReply {
    let bytes = reply.encoded_len();
    if bytes <= REPLY_BYTES_MAX {
        return reply;
    }
    tracing::error!(bytes, "a reply to a peer is too large to be sent");
    let error = Error::new(Code::Internal, "the answer is too large: ask for less at once");
    let refused = refused_to(&Refused { error: error.maybe_applied(), leader: None });
    pb::ForwardReply { id: reply.id, result: Some(Reply::Refused(refused)) }
}

async fn answer<R: Runtime>(
    router: &Arc<Router<R>>,
    request: pb::ForwardRequest,
) -> Result<Reply, Refused> {
    let malformed = || Refused {
        error: Error::new(Code::Internal, "malformed request from a peer"),
        leader: None,
    };
    let absent = || Refused {
        error: Error::new(Code::NotLeader, "this node has no replica of the shard"),
        leader: None,
    };
    let group = ShardId(u16::try_from(request.group).map_err(|_| malformed())?);
    match request.request.ok_or_else(malformed)? {
        Request::Propose(bytes) => {
            let shard = router.host().get(group).ok_or_else(absent)?;
            let reply = shard.propose(bytes).await?;
            Ok(Reply::Reply(codec::encode_reply(&reply)))
        }
        Request::ReadIndex(_) => {
            let shard = router.host().get(group).ok_or_else(absent)?;
            Ok(Reply::ReadIndex(shard.read_index().await?))
        }
        Request::Read(read) => {
            let actor = codec::decode_actor(read.actor).map_err(|_| malformed())?;
            let query = codec::decode_query(read.query).map_err(|_| malformed())?;
            let consistency =
                if read.local { Consistency::Local } else { Consistency::Linearizable };
            let shard = router.host().get(group).ok_or_else(absent)?;
            let answer = router.read_here(&shard, actor, query, consistency).await;
            let answer = answer.map_err(|error| Refused { error, leader: None })?;
            Ok(Reply::Answer(codec::encode_answer(&answer)))
        }
        Request::Map(wanted) => {
            let map = match wanted.linearizable {
                true => {
                    let meta = router.host().get(ShardId::META).ok_or_else(absent)?;
                    router.map_of(&meta).await?
                }
                false => router.map(),
            };
            Ok(Reply::Map(map.encode()))
        }
        Request::Audit(wanted) => {
            let meta = router.host().get(ShardId::META).ok_or_else(absent)?;
            let records = router.audit_of(&meta, wanted.limit).await?;
            Ok(Reply::Audit(pb::AuditLog { records }.encode_to_vec().into()))
        }
        Request::Transfer(transfer) => {
            let shard = router.host().get(group).ok_or_else(absent)?;
            router.hand_over(&shard, NodeId(transfer.to)).await?;
            Ok(Reply::Transferring(pb::Transferring {}))
        }
        request @ (Request::RoomSums(_) | Request::RoomChain(_)) => {
            router.tell_of_replica(group, request).await
        }
        Request::Repair(ask) => {
            let noted = router.note_repair(group).await;
            noted.map(|()| Reply::Repair(ask)).map_err(|error| Refused { error, leader: None })
        }
        Request::Clock(_) => Ok(Reply::ClockMs(router.clock.now_ms())),
        Request::Status(_) => Ok(Reply::Status(router.own_status().encode_to_vec().into())),
    }
}
