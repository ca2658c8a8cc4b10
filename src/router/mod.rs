//! From a request to the replica that can answer it: room → slot → shard → leader, with safe
//! retries.

use std::sync::Arc;

use crate::chat::command::{Actor, Done, Request};
use crate::chat::query::{Answer, Query};
use crate::chat::state::{Room, User};
use crate::delivery::subscription::Subscription;
use crate::error::Error;
use crate::id::{Cursor, NodeId, RoomId, UserId};

/// What a read must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Everything acknowledged before the read began.
    Linearizable,
    /// What the replica asked has applied.
    Local,
}

/// Whether this node can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Every group of this node has a leader and is caught up.
    pub ready: bool,
    /// For a person: what is missing.
    pub reason: String,
}

/// Routes requests from this node to wherever they can be answered.
#[derive(Debug)]
pub struct Router {}

impl Router {
    /// Executes a command on its target's shard, retrying safely until the request deadline.
    pub async fn execute(&self, _request: Request) -> Result<Done, Error> {
        unimplemented!()
    }

    /// Answers a query about one room or user. `actor`'s permissions are checked.
    pub async fn query(
        &self,
        _actor: &Actor,
        _query: Query,
        _consistency: Consistency,
    ) -> Result<Answer, Error> {
        unimplemented!()
    }

    /// Follows a room from a cursor, or from its head when `after` is `None`.
    pub async fn subscribe(
        &self,
        _actor: &Actor,
        _room: &RoomId,
        _after: Option<Cursor>,
    ) -> Result<Subscription, Error> {
        unimplemented!()
    }

    /// The rooms of all shards that `actor` may see, ascending.
    pub async fn rooms(
        &self,
        _actor: &Actor,
        _after: Option<RoomId>,
        _limit: usize,
    ) -> Result<Vec<Arc<Room>>, Error> {
        unimplemented!()
    }

    /// The users of all shards, ascending.
    pub async fn users(
        &self,
        _actor: &Actor,
        _after: Option<UserId>,
        _limit: usize,
    ) -> Result<Vec<Arc<User>>, Error> {
        unimplemented!()
    }

    /// This node's id, once it has one.
    pub fn node_id(&self) -> Option<NodeId> {
        unimplemented!()
    }

    /// Whether this node can serve, for `/health/ready`.
    pub fn readiness(&self) -> Readiness {
        unimplemented!()
    }

    /// The cluster as this node sees it.
    pub async fn status(&self) -> crate::proto::v1::StatusResponse {
        unimplemented!()
    }

    /// Forms a cluster of the nodes that have joined; returns its id.
    pub async fn init_cluster(&self, _nodes: usize, _shards: u16) -> Result<String, Error> {
        unimplemented!()
    }

    /// Rewrites this node's base; returns its size in bytes before and after.
    pub async fn compact(&self) -> Result<(u64, u64), Error> {
        unimplemented!()
    }
}
