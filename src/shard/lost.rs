//! Notices that this replica's log has lost what it had acknowledged, which only the leader knows.
//!
//! A log that was put back to an earlier state, as from a copy of its disk, is sound in itself, so
//! opening finds nothing. But a heartbeat names the last entry that this replica has acknowledged
//! to its leader (`Append.heartbeat` in peer.proto). Within a term the leader never takes an entry
//! back; so whoever lacks it, and knows of no later term, has lost it.
//!
//! Such a replica would be refilled, and nobody would know that it had voted, or counted toward a
//! quorum, for what it did not have. So it takes neither entries nor a snapshot while that is
//! looked into, then its node stops, and its log is marked as lost.
//!
//! Left out: only the leader that saw the acknowledgement knows of it. A later one refills the log.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::raft::AppendEntriesRequest;

use crate::shard::Shard;
use crate::shard::runtime::Runtime;
use crate::shard::types::{Types, log_id_parts};

/// An entry that is missing is looked for once more after this long, since being wrong costs a
/// node.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl<R: Runtime> Shard<R> {
    /// Whether the log has what a leader's heartbeat says that it has acknowledged. When not, it
    /// counts as lost from here on, and the group stops.
    pub(crate) async fn has_matched(&self, heartbeat: &AppendEntriesRequest<Types<R>>) -> bool {
        let Some(matched) = heartbeat.prev_log_id else { return true };
        let term = heartbeat.vote.leader_id.term;
        if !self.log.lacks(term, matched) {
            return true;
        }
        self.suspect.store(true, Ordering::Release);
        R::sleep(LOOK_AGAIN).await;
        if !self.log.lacks(term, matched) {
            self.suspect.store(false, Ordering::Release);
            return true;
        }
        let (entry_term, index) = log_id_parts(&matched);
        self.lose(format!(
            "shard {}: entry {index} of term {entry_term}, which this node has acknowledged, is \
             missing from its log",
            self.id
        ))
        .await;
        false
    }

    /// Whether the log may have lost what it had acknowledged, so that it must not be refilled.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    async fn lose(&self, found: String) {
        let why = format!(
            "{found}. The log was put back to an earlier state; it must not vote under this id \
             again. The other nodes have the data: remove this node from the cluster, move its \
             data directory away, and let it join again under a new id"
        );
        if self.lost.set(why).is_err() {
            return;
        }
        tracing::error!(shard = %self.id, found, "the log has lost acknowledged entries");
        let log = self.log.clone();
        let marked = R::blocking(move || log.mark_lost(&found)).await.flatten();
        if let Err(error) = marked {
            tracing::error!(%error, "cannot mark the log as lost");
        }
        self.stop().await;
    }
}
