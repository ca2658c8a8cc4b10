//! Finds read indexes for linearizable reads: one ReadIndex round for all that wait.
//!
//! A read that arrives while a round is under way waits for the next one: the running round may
//! have fixed its index before the read began.

use openraft::ReadPolicy;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Code, Error};
use crate::id::NodeId;
use crate::shard::runtime::Runtime;
use crate::shard::{Raft, Refused, not_leader};

/// Reads that wait for a round.
const QUEUE: usize = 16 * 1024;

/// Takes a read's index.
pub(crate) type Waiting = oneshot::Sender<Result<u64, Refused>>;

/// Starts a group's reader. It ends when every sender is gone.
pub(crate) fn spawn<R: Runtime>(raft: Raft<R>) -> mpsc::Sender<Waiting> {
    let (tx, rx) = mpsc::channel(QUEUE);
    let _task = R::spawn(run::<R>(raft, rx));
    tx
}

async fn run<R: Runtime>(raft: Raft<R>, mut reads: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::new();
    while reads.recv_many(&mut waiting, QUEUE).await > 0 {
        let result = round::<R>(&raft).await;
        for read in waiting.drain(..) {
            let _: Result<(), _> = read.send(result.clone());
        }
    }
}

async fn round<R: Runtime>(raft: &Raft<R>) -> Result<u64, Refused> {
    if mutant!(ReadWithoutQuorum) {
        let applied = raft.metrics().borrow_watched().last_applied;
        return Ok(applied.map_or(0, |log_id| log_id.index()));
    }
    match raft.get_read_log_id(ReadPolicy::ReadIndex).await {
        Ok((read_log_id, _)) => Ok(read_log_id.index()),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            Err(not_leader(forward.leader_id.map(NodeId)))
        }
        Err(RaftError::APIError(error)) => {
            Err(Refused { error: Error::new(Code::Unavailable, error.to_string()), leader: None })
        }
        Err(RaftError::Fatal(fatal)) => {
            Err(Refused { error: Error::new(Code::ShuttingDown, fatal.to_string()), leader: None })
        }
    }
}
