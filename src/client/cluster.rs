//! The cluster, for operators.

use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::proto::v1 as pb;
use pb::cluster_client::ClusterClient;

/// Compaction rewrites a whole base: minutes on a big one.
const COMPACT_TIMEOUT: Duration = Duration::from_secs(3600);

impl Client {
    /// Forms a cluster of `nodes` nodes that have joined, waiting for them, with `shards` data
    /// shards (0: the default).
    ///
    /// # Errors
    /// `already_initialized`, also when an earlier attempt of this very call succeeded and its
    /// answer was lost (then `may_have_applied` is set).
    pub async fn init_cluster(&self, nodes: u32, shards: u32) -> Result<pb::InitResponse, Error> {
        self.attempts(None, self.options().deadline, |channel, _| async move {
            let request = self.request(pb::InitRequest { nodes, shards });
            ClusterClient::new(channel).init(request).await
        })
        .await
    }

    /// The cluster as the answering node sees it; works without a leader.
    ///
    /// # Errors
    /// As every call.
    pub async fn cluster_status(&self) -> Result<pb::StatusResponse, Error> {
        self.read(|channel| async move {
            ClusterClient::new(channel).status(self.request(pb::StatusRequest {})).await
        })
        .await
    }

    /// Rewrites the answering node's base, so that erased data is gone from its disk. Give this
    /// client one server: that node is the one which compacts.
    ///
    /// # Errors
    /// As every call.
    pub async fn compact_node(&self) -> Result<pb::CompactResponse, Error> {
        self.attempts(None, COMPACT_TIMEOUT, |channel, _| async move {
            ClusterClient::new(channel).compact(self.request(pb::CompactRequest {})).await
        })
        .await
    }
}
