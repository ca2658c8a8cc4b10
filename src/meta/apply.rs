//! Applies requests to the meta group's state.

use bytes::Bytes;
use prost::Message;

use crate::chat::command::{Done, Rejection, Reply};
use crate::id::{NodeId, SLOTS, Seq};
use crate::meta::join_token::JoinTokens;
use crate::meta::{Blobs, ClusterMap, MAP_BLOB, SHARDS_MAX, audit};
use crate::proto::internal as pb;
use crate::proto::internal::request::Command;

/// What a command did: whether it changed the map, and the id that it answers, or 0.
pub(super) type Outcome = Result<Change, Rejection>;

/// See [`Outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The map is another one.
    Made(u64),
    /// It was so already: a repeat.
    None(u64),
}

/// Applies encoded requests, in order, to a state at a log time. A repeat changes nothing and
/// succeeds; a rejected request changes nothing.
pub fn apply_batch(state: &mut impl Blobs, requests: &[Bytes], log_time_ms: u64) -> Vec<Reply> {
    let bytes = state.blob(MAP_BLOB).unwrap_or_default();
    let mut map = ClusterMap::decode(&bytes)
        .expect("the map in the state was encoded by this code, and rows have checksums");
    let apply = |request| apply(state, &mut map, request, log_time_ms);
    let replies = requests.iter().map(apply).collect();
    state.put_blob(MAP_BLOB, map.encode());
    replies
}

fn apply(state: &mut impl Blobs, map: &mut ClusterMap, request: &Bytes, log_time_ms: u64) -> Reply {
    let request = pb::Request::decode(request.clone()).map_err(|_| Rejection::Undecodable)?;
    let command = request.command.ok_or(Rejection::Undecodable)?;
    let mut outcome = "done".to_owned();
    let done = match command {
        Command::RecordAction(record) if map.is_formed() => {
            outcome = record.outcome;
            Done { seq: Seq(0), epoch: None, at_ms: 0, duplicate: false, imported: None }
        }
        Command::IssueJoinToken(token) if map.is_formed() => {
            JoinTokens::in_state(state).issue(state, token, log_time_ms)?
        }
        Command::RegisterNode(node) if node.node_id == 0 && node.join_token.is_some() => {
            let token = node.join_token.clone().unwrap_or_default();
            let mut then = map.clone();
            let done = then.carry_out(Command::RegisterNode(node))?;
            // Who is admitted already is told so again.
            if !done.duplicate {
                JoinTokens::in_state(state).redeem(state, &token, done.seq.0, log_time_ms)?;
                *map = then;
            }
            done
        }
        command => map.carry_out(command)?,
    };
    if let Some(pb::Audit { who, action }) = request.audit {
        if done.duplicate {
            outcome = "nothing to do".into();
        }
        let request_id = request.request_id;
        let record = pb::AuditRecord { at_ms: log_time_ms, who, action, outcome, request_id };
        audit::record(state, record);
    }
    Ok(Done { at_ms: log_time_ms, ..done })
}

impl ClusterMap {
    /// What a command does to the map, at time 0.
    ///
    /// # Errors
    /// Why it is rejected; nothing is changed then.
    pub fn carry_out(&mut self, command: Command) -> Reply {
        let change = match command {
            Command::FormCluster(form) => self.form_once(form),
            Command::RecoverCluster(request) => self.recover(&request),
            _ if !self.is_formed() => {
                Err(Rejection::Forbidden("the cluster is not formed yet".into()))
            }
            Command::RegisterNode(node) => self.register(node),
            Command::SetTarget(request) => self.set_target(&request),
            Command::ReportSettled(report) => self.report_settled(report),
            Command::SetNodeState(request) => self.set_node_state(request),
            Command::RemoveNode(request) => self.remove_node(NodeId(request.node)),
            Command::SetRebalance(request) => self.set_rebalance(request),
            _ => Err(Rejection::Undecodable),
        }?;
        let (id, duplicate) = match change {
            Change::Made(id) => {
                self.0.version += 1;
                (id, false)
            }
            Change::None(id) => (id, true),
        };
        Ok(Done { seq: Seq(id), epoch: None, at_ms: 0, duplicate, imported: None })
    }

    fn form_once(&mut self, form: pb::FormCluster) -> Outcome {
        if self.is_formed() {
            return if self.0.cluster_id == form.cluster_id {
                Ok(Change::None(0))
            } else {
                Err(Rejection::AlreadyExists("the cluster".into()))
            };
        }
        if form.cluster_id.is_empty() || form.nodes.is_empty() {
            return Err(Rejection::Undecodable);
        }
        if form.shards == 0 || form.shards > u32::from(SHARDS_MAX) {
            return Err(Rejection::InvalidArgument(format!("shards must be 1 to {SHARDS_MAX}")));
        }
        self.form(form);
        Ok(Change::Made(0))
    }

    pub(super) fn form(&mut self, form: pb::FormCluster) {
        let replicas: Vec<u64> = form.nodes.iter().take(5).map(|node| node.id).collect();
        self.0.last_node_id = form.nodes.iter().map(|node| node.id).max().unwrap_or(0);
        self.0.cluster_id = form.cluster_id;
        self.0.nodes = form.nodes;
        self.0.shards = (0..=form.shards)
            .map(|shard| pb::ShardPlacement {
                shard,
                replicas: replicas.clone(),
                settled: None,
                given_up: vec![],
            })
            .collect();
        self.0.slots = (0..u32::from(SLOTS)).map(|slot| 1 + slot % form.shards.max(1)).collect();
    }
}
