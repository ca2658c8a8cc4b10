//! Finds read indexes for linearizable reads: one ReadIndex round for all that wait.
//!
//! A read that arrives while a round is under way waits for the next one: the running round may
//! have fixed its index before the read began.

use openraft::LinearizerOption;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError};
use tokio::sync::{mpsc, oneshot};

use crate::error::{Code, Error};
use crate::id::NodeId;
use crate::shard::confirm::Voters;
use crate::shard::runtime::Runtime;
use crate::shard::{Raft, Refused, not_leader};

/// Reads that wait for a round.
const QUEUE: usize = 16 * 1024;

/// Takes a read's index.
pub(crate) type Waiting = oneshot::Sender<Result<u64, Refused>>;

/// Starts a group's reader. It ends when every sender is gone.
pub(crate) fn spawn<R: Runtime>(raft: Raft<R>, voters: Voters) -> mpsc::Sender<Waiting> {
    let (tx, rx) = mpsc::channel(QUEUE);
    let _task = R::spawn(run::<R>(raft, voters, rx));
    tx
}

async fn run<R: Runtime>(raft: Raft<R>, voters: Voters, mut reads: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::new();
    while reads.recv_many(&mut waiting, QUEUE).await > 0 {
        let result = round::<R>(&raft, &voters).await;
        for read in waiting.drain(..) {
            let _: Result<(), _> = read.send(result.clone());
        }
    }
}

/// Fixes an index, then lets a majority confirm that nobody else led meanwhile.
async fn round<R: Runtime>(raft: &Raft<R>, voters: &Voters) -> Result<u64, Refused> {
    if mutant!(ReadWithoutQuorum) {
        let applied = raft.metrics().borrow_watched().last_applied;
        return Ok(applied.map_or(0, |log_id| log_id.index()));
    }
    // Before the index: if the lead is lost and won again in between, an index from before is not
    // confirmed by the later term's majority.
    let (vote, membership) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.vote, metrics.membership_config.membership().clone())
    };
    // openraft's own confirmation counts for nothing here (see `confirm`), so that it may be as old
    // as the lease.
    let index = match raft.get_read_log_id(LinearizerOption::new(None, true)).await {
        Ok((read_log_id, _)) => read_log_id.index(),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            return Err(not_leader(forward.leader_id.map(NodeId)));
        }
        Err(RaftError::APIError(error)) => return Err(unconfirmed(error.to_string())),
        Err(RaftError::Fatal(fatal)) => {
            let error = Error::new(Code::ShuttingDown, fatal.to_string());
            return Err(Refused { error, leader: None });
        }
    };
    if voters.confirm::<R>(vote, &membership).await {
        Ok(index)
    } else {
        Err(unconfirmed("no majority of the voters confirms the leader".into()))
    }
}

fn unconfirmed(why: String) -> Refused {
    Refused { error: Error::new(Code::Unavailable, why), leader: None }
}
