//! `/v1/cluster` and `/v1/node`: for operators.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::gateway::app::{App, Caller};
use crate::gateway::founding::FIRST_ADMIN;
use crate::gateway::http::extract::Json;
use crate::gateway::http::json;
use crate::proto::v1 as proto;

#[derive(Serialize)]
struct StatusJson<'a> {
    cluster_id: &'a str,
    node_id: u64,
    stale: bool,
    leaderless: &'a [u32],
    nodes: Vec<NodeJson<'a>>,
    shards: Vec<ShardJson<'a>>,
}

#[derive(Serialize)]
struct NodeJson<'a> {
    id: u64,
    client_address: &'a str,
    peer_address: &'a str,
    version: &'a str,
    state: &'a str,
    membership: &'a str,
    leaders: u32,
    replicas: u32,
    disk_bytes: u64,
    lag: u64,
    streams: u32,
}

#[derive(Serialize)]
struct ShardJson<'a> {
    shard: u32,
    node: u64,
    state: &'a str,
    leader: u64,
    term: u64,
    last_log: u64,
    commit: u64,
    applied: u64,
    durable: u64,
    lag: u64,
    size_bytes: u64,
    voters: &'a [u64],
    learners: &'a [u64],
    receiving_bytes: u64,
}

impl<'a> From<&'a proto::StatusResponse> for StatusJson<'a> {
    fn from(status: &'a proto::StatusResponse) -> StatusJson<'a> {
        let node = |node: &'a proto::NodeStatus| NodeJson {
            id: node.id,
            client_address: &node.client_address,
            peer_address: &node.peer_address,
            version: &node.version,
            state: &node.state,
            membership: &node.membership,
            leaders: node.leaders,
            replicas: node.replicas,
            disk_bytes: node.disk_bytes,
            lag: node.lag,
            streams: node.streams,
        };
        let shard = |shard: &'a proto::ShardStatus| ShardJson {
            shard: shard.shard,
            node: shard.node,
            state: &shard.state,
            leader: shard.leader,
            term: shard.term,
            last_log: shard.last_log,
            commit: shard.commit,
            applied: shard.applied,
            durable: shard.durable,
            lag: shard.lag,
            size_bytes: shard.size_bytes,
            voters: &shard.voters,
            learners: &shard.learners,
            receiving_bytes: shard.receiving_bytes,
        };
        StatusJson {
            cluster_id: &status.cluster_id,
            node_id: status.node_id,
            stale: status.stale,
            leaderless: &status.leaderless,
            nodes: status.nodes.iter().map(node).collect(),
            shards: status.shards.iter().map(shard).collect(),
        }
    }
}

/// `GET /v1/cluster`: works without a leader and without a token.
pub async fn status(State(app): State<Arc<App>>) -> Response {
    let status = app.backend.status().await;
    json(StatusCode::OK, &StatusJson::from(&status))
}

/// The body of `POST /v1/cluster/init`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Init {
    nodes: u32,
    #[serde(default)]
    shards: u32,
    admin_token: Option<String>,
}

/// `POST /v1/cluster/init`: forms the cluster; without a token, and refused once there is one.
pub async fn init(State(app): State<Arc<App>>, Json(body): Json<Init>) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Initialized {
        cluster_id: String,
        admin_user: &'static str,
        admin_token: String,
    }
    let (cluster_id, admin_token) =
        app.init_cluster(body.nodes, body.shards, body.admin_token).await?;
    let initialized = Initialized { cluster_id, admin_user: FIRST_ADMIN, admin_token };
    Ok(json(StatusCode::OK, &initialized))
}

/// `POST /v1/node/compact`: rewrites this node's base.
pub async fn compact(State(app): State<Arc<App>>, caller: Caller) -> Result<Response, Error> {
    #[derive(Serialize)]
    struct Compacted {
        bytes_before: u64,
        bytes_after: u64,
    }
    let (bytes_before, bytes_after) = app.compact(&caller.actor).await?;
    Ok(json(StatusCode::OK, &Compacted { bytes_before, bytes_after }))
}
