//! Where shards live, for operators.

use std::time::Duration;

use crate::client::Client;
use crate::error::Error;
use crate::proto::v1 as pb;
use crate::proto::v1::order_request::Order;
use pb::admin_client::AdminClient;

/// How long one attempt of an order may take: a transfer of a lead waits for it to be taken.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);

impl Client {
    /// Nodes and shards as they are now.
    ///
    /// # Errors
    /// `forbidden` unless the caller is an administrator; and as every call.
    pub async fn placement(&self) -> Result<pb::PlacementResponse, Error> {
        self.read(|channel| async move {
            AdminClient::new(channel).placement(self.request(pb::PlacementRequest {})).await
        })
        .await
    }

    /// Gives an order, or asks what it would do; returns the steps that follow from it. It may be
    /// given again: what is so already stays so.
    ///
    /// # Errors
    /// Why it is refused; and as every call.
    pub async fn order(&self, order: Order, dry_run: bool) -> Result<Vec<String>, Error> {
        let answer =
            self.attempts(None, ORDER_TIMEOUT.min(self.options().deadline), |channel, _| {
                let order = Some(order);
                let request = self.request(pb::OrderRequest { dry_run, order });
                async move { AdminClient::new(channel).order(request).await }
            });
        Ok(answer.await?.steps)
    }

    /// Makes a token that lets one more node join within a time: the token, and until when it is
    /// valid, in milliseconds since the Unix epoch. An answer that is lost leaves a token that nobody
    /// knows, until it expires.
    ///
    /// # Errors
    /// `limit_reached` while too many are valid; and as every call.
    pub async fn join_token(&self, ttl_ms: u64) -> Result<(String, u64), Error> {
        let answer =
            self.attempts(None, ORDER_TIMEOUT.min(self.options().deadline), |channel, _| {
                let request = self.request(pb::JoinTokenRequest { ttl_ms });
                async move { AdminClient::new(channel).join_token(request).await }
            });
        let answer = answer.await?;
        Ok((answer.token, answer.expires_at_ms))
    }

    /// The last administrative actions, at most so many, oldest first.
    ///
    /// # Errors
    /// `forbidden` unless the caller is an administrator; and as every call.
    pub async fn audit(&self, limit: u64) -> Result<Vec<pb::AuditedAction>, Error> {
        let answer = self.read(|channel| async move {
            AdminClient::new(channel).audit(self.request(pb::AuditRequest { limit })).await
        });
        Ok(answer.await?.actions)
    }

    /// The shards that would lose their quorum if a node stopped now.
    ///
    /// # Errors
    /// `invalid_argument` when there is no such node; and as every call.
    pub async fn quorum_critical(&self, node: u64) -> Result<Vec<u32>, Error> {
        let answer = self.read(|channel| async move {
            let request = self.request(pb::QuorumCriticalRequest { node });
            AdminClient::new(channel).quorum_critical(request).await
        });
        Ok(answer.await?.shards)
    }
}
