//! The cluster, for operators.

use std::time::Duration;

use crate::client::Client;
use crate::client::wire;
use crate::error::Error;
use crate::proto::v1 as pb;
use pb::cluster_client::ClusterClient;

/// Compaction rewrites a whole base: minutes on a big one.
const COMPACT_TIMEOUT: Duration = Duration::from_secs(3600);

impl Client {
    /// Forms a cluster of `nodes` nodes that have joined, waiting for them, with `shards` data
    /// shards (0: the default), and with this administrator's token (empty: the cluster makes one up).
    ///
    /// # Errors
    /// `already_initialized`, with another token: calls with the same one are answered alike.
    pub async fn init_cluster(
        &self,
        nodes: u32,
        shards: u32,
        admin_token: &str,
    ) -> Result<pb::InitResponse, Error> {
        self.attempts(None, self.options().deadline, |channel, _| async move {
            let admin_token = admin_token.to_owned();
            let request = self.request(pb::InitRequest { nodes, shards, admin_token });
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

    /// Compares all replicas of these shards, or of all. Deadlines do not apply: this takes as long
    /// as there is to read.
    ///
    /// # Errors
    /// `forbidden` unless the caller is an administrator; `not_found`; and as every call.
    pub async fn verify(&self, shards: Vec<u32>) -> Result<Verification, Error> {
        let stream = self
            .read(|channel| {
                let request = self.request(pb::VerifyRequest { shards: shards.clone() });
                async move { ClusterClient::new(channel).verify(request).await }
            })
            .await?;
        Ok(Verification { stream })
    }

    /// Has a node set its state of a shard aside at its next start, and take it from the others.
    ///
    /// # Errors
    /// `invalid_argument` unless that replica, and no other, differs; and as every call.
    pub async fn repair(&self, node: u64, shard: u32) -> Result<(), Error> {
        let limit = self.options().deadline;
        let repaired = self.attempts(None, limit, |channel, _| async move {
            let request = self.request(pb::RepairRequest { node, shard });
            ClusterClient::new(channel).repair(request).await
        });
        repaired.await.map(|_| ())
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

/// What a comparison of replicas says while it goes on.
#[derive(Debug)]
pub struct Verification {
    stream: tonic::Streaming<pb::VerifyResponse>,
}

impl Verification {
    /// The next thing it says; `None` at the end.
    ///
    /// # Errors
    /// Why it broke off.
    pub async fn next(&mut self) -> Result<Option<pb::verify_response::Said>, Error> {
        loop {
            match self.stream.message().await {
                Ok(Some(response)) if response.said.is_none() => {} // a newer node's
                Ok(response) => return Ok(response.and_then(|response| response.said)),
                Err(status) => return Err(wire::error_of(&status)),
            }
        }
    }
}
