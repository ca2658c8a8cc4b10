//! Removes a replica from this node on purpose, and for good.
//!
//! Order, and why. The group stops, and only then it is asked for the last time whether it may go:
//! until it has stopped it may become a voter again, and acknowledge what a quorum counts on. The
//! log says, durably, that the group is forgotten here; then the state goes. A crash in between leaves a log that says so, and the next start removes what is
//! left of the state before any group starts ([`clear`]). The vote stays in the log, and so does up
//! to where it was applied: should the node get a replica again, it takes the state from another
//! one (`rebuild.rs`) and goes on from there as a learner. So a log that is empty for this reason is
//! never one that lost what it had acknowledged.

use std::io;
use std::sync::Arc;

use crate::id::ShardId;
use crate::shard::Shard;
use crate::shard::log_writer::LogWriter;
use crate::shard::runtime::Runtime;
use crate::shard::state_machine::meta_of;
use crate::shard::types::LogId;
use crate::store::base::Base;
use crate::store::key::Space;
use crate::store::log::Write;

/// What a replica that has stopped had.
pub struct Halted {
    base: Arc<dyn Base>,
    applied: Option<LogId>,
}

impl<R: Runtime> Shard<R> {
    /// Stops this replica for good: from when this returns, it acknowledges nothing, and writes
    /// nothing to its log or the base. Another one may be started in its place.
    ///
    /// # Errors
    /// When the log or the base failed; then the node should stop.
    pub async fn halt(&self) -> io::Result<Halted> {
        self.stop().await;
        // Whoever writes a checkpoint or takes a snapshot has ended, and nobody begins.
        let _no_checkpoints = self.replica.no_checkpoints().await;
        self.log.settle().await?;
        let applied = meta_of(self.replica.read().applied())?.last_log_id;
        let state = self.replica.retire()?;
        let base = state.base().clone();
        // There may be much of it.
        R::blocking(move || drop(state)).await?;
        Ok(Halted { base, applied })
    }

    /// Removes the log and the state of this replica, once it has halted. What it has acknowledged
    /// must be on a majority of the group's voters, of which this node must be none any more.
    ///
    /// # Errors
    /// When the log or the base cannot be written; then the node should stop, and the next start
    /// finishes it, or starts the replica again if nothing was removed yet.
    pub async fn retire(&self, halted: Halted) -> io::Result<()> {
        self.log.forget(halted.applied).await?;
        clear::<R>(halted.base, self.id).await
    }
}

/// Removes what is left of the state of a group that is forgotten here, durably.
///
/// # Errors
/// When the base cannot be written.
pub async fn clear<R: Runtime>(base: Arc<dyn Base>, shard: ShardId) -> io::Result<()> {
    if mutant!(StateKept) {
        return Ok(());
    }
    let cleared = R::blocking(move || {
        base.delete_range(&Space::whole(shard))?;
        base.flush()
    });
    cleared.await.flatten()
}

/// Lets a group that is forgotten here begin anew, once its state is there again: a crash before
/// that finds it forgotten still, and clears what there is.
///
/// # Errors
/// When the log cannot be written.
pub(super) async fn recall(writer: &LogWriter, group: ShardId) -> io::Result<()> {
    writer.write(Write::Recall { group }).await
}
