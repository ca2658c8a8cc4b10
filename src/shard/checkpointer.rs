//! Moves what was applied into the base, every few seconds, and lets go of the log behind it.
//!
//! Order, and why: a checkpoint is durable before its log entries may be purged, so a crash at any
//! point leaves either the entries or their effect.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::shard::Shard;
use crate::shard::host::Host;
use crate::shard::log_writer::LogWriter;
use crate::shard::runtime::{Instant, Runtime, Select2};
use crate::shard::state_machine::Replica;
use crate::store::log;
use tokio_util::sync::CancellationToken;

/// How often the checkpointer looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// When to take checkpoints.
#[derive(Debug, Clone)]
pub struct Options {
    /// At least this often, when something changed.
    pub interval: Duration,
    /// At once when the overlays of all groups together reach this many bytes.
    pub overlay_bytes_max: usize,
}

/// Takes checkpoints until shutdown, then a last one.
///
/// A full disk is waited out. After any other failure of the base nothing more is known of what
/// it has on disk, so the process ends; what was acknowledged is in the log.
pub async fn run<R: Runtime>(
    host: Arc<Host<R>>,
    writer: LogWriter,
    options: Options,
    shutdown: CancellationToken,
) {
    let mut since_last = Duration::ZERO;
    loop {
        let stopping = matches!(
            R::select2(shutdown.cancelled(), R::sleep(LOOK_EVERY)).await,
            Select2::First(())
        );
        since_last += LOOK_EVERY;
        let shards = host.all();
        let bytes: usize = shards.iter().map(|s| s.replica().read().overlay_bytes()).sum();
        if stopping || since_last >= options.interval || bytes >= options.overlay_bytes_max {
            since_last = Duration::ZERO;
            for shard in &shards {
                match checkpoint::<R>(shard).await {
                    Ok(()) => {}
                    Err(error) if log::is_no_space(&error) => tracing::error!(
                        shard = %shard.id(), %error,
                        "no space for a checkpoint; its changes stay in memory and in the log"
                    ),
                    Err(error) => {
                        tracing::error!(shard = %shard.id(), %error, "the base failed; stopping: \
                            check the disk and start again, nothing acknowledged is lost");
                        R::abort();
                    }
                }
            }
            match maintain_log::<R>(&writer).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "cannot tidy up the log"),
                Err(error) => {
                    tracing::error!(%error, "the log's fsync failed; stopping: nothing \
                        unsynced was acknowledged, check the disk and start again");
                    R::abort();
                }
            }
        }
        if stopping {
            return;
        }
    }
}

/// Takes one group's checkpoint, if anything changed since its last one.
///
/// # Errors
/// When the base cannot be written; what was to be written is then applied again on top.
pub async fn checkpoint<R: Runtime>(shard: &Shard<R>) -> io::Result<()> {
    if !write::<R>(shard.replica()).await? {
        return Ok(());
    }
    // openraft purges the log up to its newest snapshot, less what it keeps for slow followers.
    if let Err(error) = shard.raft().trigger().snapshot().await {
        tracing::warn!(shard = %shard.id(), %error, "the group has stopped, its log is kept");
    }
    Ok(())
}

/// Makes what a replica has applied durable; false when that was so already.
///
/// # Errors
/// When the base cannot be written.
pub(crate) async fn write<R: Runtime>(replica: &Replica) -> io::Result<bool> {
    let _exclusive = replica.maintenance.lock().await;
    let began = R::Instant::now();
    let Some(checkpoint) = replica.write().begin_checkpoint() else { return Ok(false) };
    let written = R::blocking(move || checkpoint.write()).await?;
    let written = written.inspect_err(|_| replica.write().abort_checkpoint())?;
    for left in written.uncleaned() {
        // Each checkpoint tries again; of each kind it is said once.
        let mut said = replica.uncleaned_said.lock().expect("no holder of the lock panics");
        if said.insert(left.what) {
            tracing::warn!(
                shard = %replica.group(), what = left.what, error = %left.error,
                "the base keeps what should be gone from it; each checkpoint tries again"
            );
        }
    }
    let retired = replica.write().finish_checkpoint(written);
    metrics::histogram!("folkmoot_checkpoint_duration_seconds").record(began.elapsed());
    // There may be much of it, and apply is not to wait for it.
    R::blocking(move || drop(retired)).await?;
    Ok(true)
}

/// The outer error is a panic, which is how raft-engine fails when an fsync does.
async fn maintain_log<R: Runtime>(writer: &LogWriter) -> io::Result<io::Result<()>> {
    let log = writer.log().clone();
    R::blocking(move || {
        log.sync_watermark()?;
        // Groups that hold old files back get their checkpoint, and so their purge, in turn.
        log.maintain().map(|_groups| ())
    })
    .await
}
