//! Removes a replica from this node on purpose, and for good.
//!
//! Order, and why. The group stops; the log says, durably, that the group is forgotten here; then
//! the state goes. A crash in between leaves a log that says so, and the next start removes what is
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
use crate::store::base::Base;
use crate::store::key::Space;
use crate::store::log::Write;

impl<R: Runtime> Shard<R> {
    /// Stops this replica and removes its log and its state. What it has acknowledged must be on a
    /// majority of the group's voters, of which this node must be none any more.
    ///
    /// # Errors
    /// When the log or the base cannot be written; then the node should stop, and the next start
    /// finishes it, or starts the replica again if nothing was removed yet.
    pub async fn retire(&self) -> io::Result<()> {
        self.stop().await;
        // Whoever writes a checkpoint or takes a snapshot has ended, and nobody begins.
        let _no_checkpoints = self.replica.no_checkpoints().await;
        let applied = meta_of(self.replica.read().applied())?.last_log_id;
        self.log.forget(applied).await?;
        let state = self.replica.retire()?;
        let base = state.base().clone();
        // There may be much of it.
        R::blocking(move || drop(state)).await?;
        clear::<R>(base, self.id).await
    }
}

/// Removes what is left of the state of a group that is forgotten here, durably.
///
/// # Errors
/// When the base cannot be written.
pub async fn clear<R: Runtime>(base: Arc<dyn Base>, shard: ShardId) -> io::Result<()> {
    let cleared = R::blocking(move || {
        base.delete_range(&Space::whole(shard))?;
        base.flush()
    });
    cleared.await.flatten()
}

/// Lets a group that is forgotten here begin anew, once its state is cleared.
///
/// # Errors
/// When the log cannot be written.
pub async fn recall(writer: &LogWriter, group: ShardId) -> io::Result<()> {
    writer.write(Write::Recall { group }).await
}
