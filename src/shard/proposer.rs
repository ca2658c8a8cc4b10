//! Makes one log entry of the commands that wait.
//!
//! No timer: while a few entries are on their way, the next batch forms by itself. What cannot be
//! stamped is refused, which says that it was not applied.

use std::sync::Arc;

use bytes::Bytes;
use openraft::errors::ClientWriteError;
use openraft::impls::OneshotResponder;
use openraft::raft::ClientWriteResult;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::chat::command::Reply;
use crate::error::{Code, Error};
use crate::id::NodeId;
use crate::limits;
use crate::shard::runtime::Runtime;
use crate::shard::stamps::Stamps;
use crate::shard::types::{Batch, Types};
use crate::shard::{Raft, Refused, not_leader};

/// Entries proposed and not yet applied.
const IN_FLIGHT: usize = 4;
/// Commands that wait for an entry.
const QUEUE: usize = 8 * limits::BATCH_COMMANDS_MAX;

/// A command on its way into the log.
pub(crate) struct Proposal {
    /// The encoded request.
    pub request: Bytes,
    /// Takes the answer.
    pub reply: oneshot::Sender<Result<Reply, Refused>>,
}

/// Starts a group's proposer. It ends when every sender is gone.
pub(crate) fn spawn<R: Runtime>(raft: Raft<R>, stamps: Arc<Stamps<R>>) -> mpsc::Sender<Proposal> {
    let (tx, rx) = mpsc::channel(QUEUE);
    let _task = R::spawn(run::<R>(raft, stamps, rx));
    tx
}

async fn run<R: Runtime>(
    raft: Raft<R>,
    stamps: Arc<Stamps<R>>,
    mut proposals: mpsc::Receiver<Proposal>,
) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    while let Some(first) = proposals.recv().await {
        let permit =
            in_flight.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (requests, waiting) = gather(first, &mut proposals);
        let Some(stamp_ms) = stamps.next() else {
            let why = "no majority of nodes has confirmed the leader's clock yet";
            let error = Error::new(Code::Unavailable, why).retry_after(100);
            refuse(&Refused { error, leader: None }, waiting);
            continue;
        };
        let batch = Batch { stamp_ms, requests };
        let (responder, answer) = OneshotResponder::new_pair();
        // A stopped group drops the responder, and the answer below says so.
        let sent = raft.client_write_ff(batch, Some(responder)).await;
        let _task = R::spawn(async move {
            let answer = match sent {
                Ok(()) => answer.await.ok(),
                Err(_) => None,
            };
            distribute::<R>(answer, waiting);
            drop(permit);
        });
    }
}

type Waiting = Vec<oneshot::Sender<Result<Reply, Refused>>>;

fn gather(first: Proposal, proposals: &mut mpsc::Receiver<Proposal>) -> (Vec<Bytes>, Waiting) {
    let mut bytes = first.request.len();
    let mut requests = vec![first.request];
    let mut waiting = vec![first.reply];
    while requests.len() < limits::BATCH_COMMANDS_MAX && bytes < limits::BATCH_BYTES_MAX {
        let Ok(next) = proposals.try_recv() else { break };
        bytes += next.request.len();
        requests.push(next.request);
        waiting.push(next.reply);
    }
    (requests, waiting)
}

/// Every error of a proposed entry leaves it open whether it will be committed.
fn distribute<R: Runtime>(answer: Option<ClientWriteResult<Types<R>>>, waiting: Waiting) {
    let refused = match answer {
        Some(Ok(response)) => {
            let mut replies = response.data.0;
            assert_eq!(replies.len(), waiting.len(), "apply answers every request of a batch");
            if mutant!(SeqFromLeader)
                && let Some(Ok(first)) = replies.first().cloned()
            {
                let numbered = replies.iter_mut().flatten().zip(first.seq.0..);
                numbered.for_each(|(done, seq)| done.seq.0 = seq);
            }
            for (reply, waiting) in replies.into_iter().zip(waiting) {
                // A waiter that went away hears of it when it asks again with the same id.
                let _: Result<(), _> = waiting.send(Ok(reply));
            }
            return;
        }
        Some(Err(ClientWriteError::ForwardToLeader(forward))) => {
            not_leader(forward.leader_id.map(NodeId))
        }
        Some(Err(error)) => {
            Refused { error: Error::new(Code::Unavailable, error.to_string()), leader: None }
        }
        None => {
            Refused { error: Error::new(Code::ShuttingDown, "the shard has stopped"), leader: None }
        }
    };
    let refused = Refused { error: refused.error.maybe_applied(), leader: refused.leader };
    refuse(&refused, waiting);
}

fn refuse(refused: &Refused, waiting: Waiting) {
    for waiting in waiting {
        let _: Result<(), _> = waiting.send(Err(refused.clone()));
    }
}
