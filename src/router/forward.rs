//! Requests to another node: one long-lived stream a peer, many requests a frame.
//!
//! Whatever waits when a frame can go out goes with it, so that forwarding costs a frame for many
//! requests under load, and one frame at once when idle.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost::Message;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Code, Error};
use crate::id::{NodeId, ShardId};
use crate::proto::internal as pb;
use crate::shard::Refused;
use crate::shard::runtime::{Runtime, Select2};
use crate::shard::transport::{Lane, Stream, Transport};

pub(crate) use pb::forward_reply::Result as Reply;
pub(crate) use pb::forward_request::Request;

/// Requests waiting for a frame to one peer.
const QUEUE: usize = 8192;
/// Requests of one frame, and their size in bytes.
const FRAME_REQUESTS: usize = 1024;
const FRAME_BYTES: usize = 1024 * 1024;

struct Waiting {
    group: ShardId,
    request: Request,
    answer: oneshot::Sender<Result<Reply, Refused>>,
}

/// Sends requests to one peer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Forwarder(mpsc::Sender<Waiting>);

impl Forwarder {
    /// Starts forwarding to a peer. It ends when every clone is gone.
    pub fn start<R: Runtime>(peer: NodeId, transport: Arc<dyn Transport>) -> Forwarder {
        let (tx, rx) = mpsc::channel(QUEUE);
        let _task = R::spawn(run::<R>(peer, transport, rx));
        Forwarder(tx)
    }

    /// Sends a request and waits for its reply.
    ///
    /// # Errors
    /// Refused by the peer, or when the peer cannot be reached; the error says whether the request
    /// may have been taken all the same.
    pub async fn ask(&self, group: ShardId, request: Request) -> Result<Reply, Refused> {
        let (answer, reply) = oneshot::channel();
        self.0.try_send(Waiting { group, request, answer }).map_err(|_| Refused {
            error: Error::new(Code::Overloaded, "too many requests wait for a peer")
                .retry_after(100),
            leader: None,
        })?;
        reply.await.unwrap_or_else(|_| Err(lost(true)))
    }
}

fn lost(maybe_applied: bool) -> Refused {
    let error = Error::new(Code::Unavailable, "the node that leads the shard cannot be reached");
    let error = if maybe_applied { error.maybe_applied() } else { error };
    Refused { error, leader: None }
}

async fn run<R: Runtime>(
    peer: NodeId,
    transport: Arc<dyn Transport>,
    mut queue: mpsc::Receiver<Waiting>,
) {
    let open = pb::Open { group: 0, service: Some(pb::open::Service::Forward(pb::Forward {})) };
    let open: bytes::Bytes = open.encode_to_vec().into();
    while let Some(first) = queue.recv().await {
        let stream = transport.open(peer, Lane::Forward, open.clone());
        run_stream::<R>(first, stream, &mut queue).await;
    }
}

/// Forwards until the stream breaks; everything that waits then fails.
async fn run_stream<R: Runtime>(
    first: Waiting,
    mut stream: Stream,
    queue: &mut mpsc::Receiver<Waiting>,
) {
    let mut pending: BTreeMap<u64, oneshot::Sender<Result<Reply, Refused>>> = BTreeMap::new();
    let forwards = metrics::counter!("folkmoot_forwards_total");
    let mut next_id = 1;
    let mut ready = Some(first);
    loop {
        if let Some(first) = ready.take() {
            let (frame, answers) = gather(first, queue, &mut next_id);
            if stream.tx.send(frame.encode_to_vec().into()).await.is_err() {
                for (_, answer) in answers {
                    // The asker may be gone; nobody else wants to know.
                    let _: Result<(), _> = answer.send(Err(lost(false)));
                }
                break;
            }
            forwards.increment(answers.len() as u64);
            pending.extend(answers);
        }
        match R::select2(stream.rx.recv(), queue.recv()).await {
            Select2::First(Some(frame)) => {
                let Ok(replies) = pb::ForwardReplies::decode(frame) else { break };
                for reply in replies.replies {
                    let first = pending.first_key_value().map(|(id, _)| *id);
                    let id = first.filter(|_| mutant!(RepliesInOrder)).unwrap_or(reply.id);
                    let Some(answer) = pending.remove(&id) else { continue };
                    let result = match reply.result {
                        Some(Reply::Refused(refused)) => Err(refused_from(refused)),
                        Some(reply) => Ok(reply),
                        None => Err(lost(true)),
                    };
                    let _: Result<(), _> = answer.send(result);
                }
            }
            Select2::First(None) => break,
            Select2::Second(Some(waiting)) => ready = Some(waiting),
            Select2::Second(None) => return,
        }
    }
    for answer in pending.into_values() {
        let _: Result<(), _> = answer.send(Err(lost(true)));
    }
}

type Answers = Vec<(u64, oneshot::Sender<Result<Reply, Refused>>)>;

fn gather(
    first: Waiting,
    queue: &mut mpsc::Receiver<Waiting>,
    next_id: &mut u64,
) -> (pb::ForwardRequests, Answers) {
    let (mut requests, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut next = Some(first);
    while let Some(Waiting { group, request, answer }) = next {
        let id = *next_id;
        *next_id += 1;
        bytes += match &request {
            Request::Propose(bytes) => bytes.len(),
            _ => 64,
        };
        answers.push((id, answer));
        requests.push(pb::ForwardRequest { id, group: u32::from(group.0), request: Some(request) });
        let room = requests.len() < FRAME_REQUESTS && bytes < FRAME_BYTES;
        next = if room { queue.try_recv().ok() } else { None };
    }
    (pb::ForwardRequests { requests }, answers)
}

pub(crate) fn refused_to(refused: &Refused) -> pb::Refused {
    pb::Refused {
        error: crate::chat::codec::encode_error(&refused.error),
        leader: refused.leader.map_or(0, |node| node.0),
    }
}

fn refused_from(refused: pb::Refused) -> Refused {
    Refused {
        error: crate::chat::codec::decode_error(refused.error).unwrap_or_else(|_| {
            Error::new(Code::Internal, "malformed error from a peer").maybe_applied()
        }),
        leader: (refused.leader != 0).then_some(NodeId(refused.leader)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn error() -> impl Strategy<Value = Error> {
        let times = any::<(Option<u64>, Option<u64>)>();
        (proptest::sample::select(Code::ALL), any::<String>(), any::<bool>(), times).prop_map(
            |(code, message, may_have_applied, (retry_after_ms, server_time_ms))| Error {
                code,
                message,
                may_have_applied,
                retry_after_ms,
                server_time_ms,
            },
        )
    }

    proptest! {
        #[test]
        fn refusals_round_trip(error in error(), leader in option::of(1..=u64::MAX)) {
            let leader = leader.map(NodeId);
            let sent = refused_to(&Refused { error: error.clone(), leader });
            let sent = pb::Refused::decode(sent.encode_to_vec().as_slice()).unwrap();
            let refused = refused_from(sent);
            prop_assert_eq!((refused.error, refused.leader), (error, leader));
        }

        /// Nobody knows what a peer did that answers rubbish.
        #[test]
        fn a_malformed_error_may_have_been_applied(bytes in any::<Vec<u8>>(), leader in any::<u64>()) {
            let error = Bytes::from(bytes);
            let malformed = crate::chat::codec::decode_error(error.clone()).is_err();
            let refused = refused_from(pb::Refused { error, leader });
            prop_assert_eq!(refused.leader.map_or(0, |node| node.0), leader);
            prop_assert!(!malformed || refused.error.may_have_applied);
        }
    }
}
