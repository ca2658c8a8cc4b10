//! The audit log: who has done what to the cluster. Kept by the meta group (`meta/audit.rs`).

use std::time::Duration;

use prost::Message;

use crate::error::Error;
use crate::id::ShardId;
use crate::meta::audit;
use crate::meta::planner::Action;
use crate::proto::internal as pb;
use crate::proto::internal::request::Command;
use crate::router::{Router, forward, odd_reply};
use crate::shard::runtime::Runtime;
use crate::shard::{Refused, Shard};

impl<R: Runtime> Router<R> {
    /// Records an action, in words, with its outcome or that it is begun. Returns when it is
    /// replicated.
    ///
    /// # Errors
    /// Why the meta group could not be reached.
    pub async fn record(&self, who: &str, action: &str, outcome: &str) -> Result<(), Error> {
        let audit = pb::Audit { who: who.into(), action: action.into() };
        let record = Command::RecordAction(pb::RecordAction { outcome: outcome.into() });
        self.propose_meta_for(record, Some(audit)).await.map(|_| ())
    }

    /// Records an action if that can be done; else this node's own log has it.
    pub async fn try_record(&self, who: &str, action: &str, outcome: &str) {
        if let Err(error) = self.record(who, action, outcome).await {
            tracing::warn!(who, action, outcome, %error, "the audit log lacks an action");
        }
    }

    /// Proposes what the planner has decided. If it is done, it is recorded as the cluster's own doing.
    ///
    /// # Errors
    /// See [`Router::propose_meta`].
    pub async fn propose_planned(&self, command: Command, action: &Action) -> Result<(), Error> {
        let audit = pb::Audit { who: audit::CLUSTER.into(), action: action.to_string() };
        self.propose_meta_for(command, Some(audit)).await.map(|_| ())
    }

    /// Lets one more node join the cluster with a token of this hash, for a time; returns until when,
    /// in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// The rules' refusal; or why the meta group could not be reached.
    pub async fn issue_join_token(
        &self,
        who: &str,
        hash: bytes::Bytes,
        ttl_ms: u64,
    ) -> Result<u64, Error> {
        let ttl = humantime::format_duration(Duration::from_millis(ttl_ms));
        let action = format!("make a join token that is valid for {ttl}");
        let audit = pb::Audit { who: who.into(), action };
        let command = Command::IssueJoinToken(pb::IssueJoinToken { hash, ttl_ms });
        let done = self.propose_meta_for(command, Some(audit)).await?;
        Ok(done.at_ms + ttl_ms)
    }

    /// The last records of the audit log, at most so many, oldest first, as of now.
    ///
    /// # Errors
    /// Why the meta group could not be reached.
    pub async fn audit(&self, limit: u64) -> Result<Vec<pb::AuditRecord>, Error> {
        let mut maybe_applied = false;
        let ask = |node| async move {
            if Some(node) == self.node_id() {
                let meta = self.host().get(ShardId::META);
                let meta = meta.ok_or_else(|| crate::shard::not_leader(None))?;
                return self.audit_of(&meta, limit).await;
            }
            let request = forward::Request::Audit(pb::ReadAudit { limit });
            match self.forwarder(node).ask(ShardId::META, request).await? {
                forward::Reply::Audit(bytes) => {
                    Ok(pb::AuditLog::decode(bytes).map_err(|_| odd_reply())?.records)
                }
                _ => Err(odd_reply()),
            }
        };
        let records = self.at_leader(ShardId::META, &mut maybe_applied, ask).await;
        records.map_err(|error| Error { may_have_applied: false, ..error })
    }

    /// The same from the meta group's leader.
    pub(super) async fn audit_of(
        &self,
        meta: &Shard<R>,
        limit: u64,
    ) -> Result<Vec<pb::AuditRecord>, Refused> {
        let refused = |error| Refused { error, leader: None };
        let index = meta.read_index().await?;
        meta.wait_applied(index).await.map_err(refused)?;
        let state = meta.replica().read_live().map_err(refused)?;
        Ok(audit::last(&*state, limit))
    }
}
