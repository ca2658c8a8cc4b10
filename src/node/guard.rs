//! Watches the disk and reports how the groups stand.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::router::Router;
use crate::shard::log_writer::Space;
use crate::store::ballast::{self, Ballast};

/// How often free space is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often metrics of the groups are set.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// Keeps posts out, and the log going, when the disk fills up.
pub(super) struct Guard {
    directory: PathBuf,
    min_free: u64,
    ballast: Ballast,
    router: Arc<Router>,
}

impl Guard {
    pub fn new(config: &Config, data_dir: &Path, router: Arc<Router>) -> Arc<Guard> {
        Arc::new(Guard {
            directory: data_dir.to_path_buf(),
            min_free: config.store.min_free_disk.0,
            ballast: Ballast::new(data_dir, config.store.ballast.0),
            router,
        })
    }

    fn look(&self) {
        match ballast::free_space(&self.directory) {
            Ok(free) => {
                gauge!("folkmoot_disk_free_bytes").set(free as f64);
                self.router.set_disk_full(free < self.min_free);
                if free >= self.min_free
                    && !self.ballast.is_filled()
                    && let Err(error) = self.ballast.fill(self.min_free)
                {
                    tracing::warn!(%error, "cannot set space aside for a full disk");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot find out how much space is free"),
        }
    }
}

impl Space for Guard {
    fn on_full(&self) {
        self.router.set_disk_full(true);
        if let Err(error) = self.ballast.release() {
            tracing::error!(%error, "cannot give up the space set aside for a full disk");
        }
    }
}

/// Looks until shutdown.
pub(super) async fn run(guard: Arc<Guard>, shutdown: CancellationToken) {
    loop {
        let looking = guard.clone();
        if tokio::task::spawn_blocking(move || looking.look()).await.is_err() {
            tracing::error!("looking at the disk panicked");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Sets the metrics of this node's groups, for ever.
pub(super) async fn report(router: Arc<Router>) {
    loop {
        for shard in router.host().all() {
            let status = shard.status();
            let id = shard.id().to_string();
            let set = |name: &'static str, value: u64| {
                gauge!(name, "shard" => id.clone()).set(value as f64);
            };
            set("folkmoot_raft_term", status.term);
            set("folkmoot_raft_is_leader", u64::from(shard.is_leader()));
            set("folkmoot_raft_has_leader", u64::from(shard.has_leader()));
            set("folkmoot_raft_last_log_index", status.last_log);
            set("folkmoot_raft_commit_index", status.commit);
            set("folkmoot_raft_applied_index", status.applied);
            set("folkmoot_raft_durable_index", status.durable);
            set("folkmoot_proposals_waiting", shard.proposals_waiting() as u64);
            set("folkmoot_shard_size_bytes", status.size_bytes);
            set("folkmoot_shard_overlay_bytes", shard.replica().read().overlay_bytes() as u64);
        }
        tokio::time::sleep(REPORT_EVERY).await;
    }
}
