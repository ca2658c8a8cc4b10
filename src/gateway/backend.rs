//! What the gateway asks of the layers below, as a trait, so that its tests need no cluster.
//!
//! [`Router`] is the one implementation in the product.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};

use crate::chat::command::{Actor, Done, Request};
use crate::chat::query::{Answer, OwnRooms, Query};
use crate::chat::state::{Room, User};
use crate::delivery::subscription::{Next, Subscription};
use crate::error::Error;
use crate::id::{Cursor, Epoch, NodeId, RoomId, Seq, ShardId, UserId};
use crate::presence::Presence;
use crate::proto::internal::AuditRecord;
use crate::proto::v1::{PlacementResponse, StatusResponse};
use crate::router::operator::{Order, Plan};
use crate::router::verify::Report;
use crate::router::{Consistency, Readiness, Router};

/// One followed room: where it starts, and what comes.
pub struct Feed {
    /// The room's epoch.
    pub epoch: Epoch,
    /// The oldest event kept when the feed began.
    pub first_seq: Seq,
    /// The room's head when the feed began.
    pub head: Seq,
    /// False when there is a gap between the cursor asked for and the first event.
    pub recovered: bool,
    /// What comes; endless but for [`Next::Ended`].
    pub next: BoxStream<'static, Next>,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("epoch", &self.epoch).field("head", &self.head).finish()
    }
}

impl From<Subscription> for Feed {
    fn from(subscription: Subscription) -> Feed {
        Feed {
            epoch: subscription.epoch.clone(),
            first_seq: subscription.first_seq,
            head: subscription.head,
            recovered: subscription.recovered,
            next: Box::pin(stream::unfold(Box::new(subscription), |mut subscription| async {
                let next = subscription.next().await;
                Some((next, subscription))
            })),
        }
    }
}

/// What answers the gateway's requests; each method is [`Router`]'s of the same name, `verify` its
/// `verify_shard`.
#[expect(missing_docs, reason = "each method is Router's, and described there")]
pub trait Backend: Send + Sync + 'static {
    fn execute(&self, request: Request) -> BoxFuture<'_, Result<Done, Error>>;
    fn shard_of_user(&self, user: &UserId) -> Result<ShardId, Error>;
    fn revocations(&self, shard: ShardId) -> BoxFuture<'_, Result<u64, Error>>;
    fn query<'a>(
        &'a self,
        actor: &'a Actor,
        query: Query,
        consistency: Consistency,
    ) -> BoxFuture<'a, Result<Answer, Error>>;
    fn subscribe<'a>(
        &'a self,
        actor: &'a Actor,
        room: &'a RoomId,
        after: Option<Cursor>,
    ) -> BoxFuture<'a, Result<Feed, Error>>;
    fn rooms<'a>(
        &'a self,
        actor: &'a Actor,
        after: Option<RoomId>,
        limit: usize,
        search: String,
    ) -> BoxFuture<'a, Result<Vec<Arc<Room>>, Error>>;
    fn own_rooms<'a>(
        &'a self,
        actor: &'a Actor,
        after: Option<RoomId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<OwnRooms, Error>>;
    fn users<'a>(
        &'a self,
        actor: &'a Actor,
        after: Option<UserId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Arc<User>>, Error>>;
    fn presence(&self) -> &Arc<Presence>;
    fn node_id(&self) -> Option<NodeId>;
    fn readiness(&self) -> Readiness;
    fn status(&self) -> BoxFuture<'_, StatusResponse>;
    fn init_cluster(&self, nodes: usize, shards: u16) -> BoxFuture<'_, Result<String, Error>>;
    fn compact(&self) -> BoxFuture<'_, Result<(u64, u64), Error>>;
    fn data_shards(&self) -> Result<Vec<ShardId>, Error>;
    fn placement(&self) -> BoxFuture<'_, Result<PlacementResponse, Error>>;
    fn operate<'a>(
        &'a self,
        who: &'a str,
        order: Order,
        dry_run: bool,
    ) -> BoxFuture<'a, Result<Plan, Error>>;
    fn issue_join_token<'a>(
        &'a self,
        who: &'a str,
        hash: Bytes,
        ttl_ms: u64,
    ) -> BoxFuture<'a, Result<u64, Error>>;
    fn record<'a>(
        &'a self,
        who: &'a str,
        action: &'a str,
        outcome: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>>;
    fn try_record<'a>(
        &'a self,
        who: &'a str,
        action: &'a str,
        outcome: &'a str,
    ) -> BoxFuture<'a, ()>;
    fn audit(&self, limit: u64) -> BoxFuture<'_, Result<Vec<AuditRecord>, Error>>;
    fn quorum_critical(&self, node: NodeId) -> BoxFuture<'_, Result<Vec<ShardId>, Error>>;
    fn verify<'a>(
        &'a self,
        shard: ShardId,
        report: &'a mut dyn Report,
    ) -> BoxFuture<'a, Result<(), Error>>;
    fn repair(&self, shard: ShardId, node: NodeId) -> BoxFuture<'_, Result<(), Error>>;
}

impl Backend for Router {
    fn execute(&self, request: Request) -> BoxFuture<'_, Result<Done, Error>> {
        Box::pin(Router::execute(self, request))
    }

    fn query<'a>(
        &'a self,
        actor: &'a Actor,
        query: Query,
        consistency: Consistency,
    ) -> BoxFuture<'a, Result<Answer, Error>> {
        Box::pin(Router::query(self, actor, query, consistency))
    }

    fn subscribe<'a>(
        &'a self,
        actor: &'a Actor,
        room: &'a RoomId,
        after: Option<Cursor>,
    ) -> BoxFuture<'a, Result<Feed, Error>> {
        Box::pin(async move { Router::subscribe(self, actor, room, after).await.map(Feed::from) })
    }

    fn rooms<'a>(
        &'a self,
        actor: &'a Actor,
        after: Option<RoomId>,
        limit: usize,
        search: String,
    ) -> BoxFuture<'a, Result<Vec<Arc<Room>>, Error>> {
        Box::pin(Router::rooms(self, actor, after, limit, search))
    }

    fn own_rooms<'a>(
        &'a self,
        actor: &'a Actor,
        after: Option<RoomId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<OwnRooms, Error>> {
        Box::pin(Router::own_rooms(self, actor, after, limit))
    }

    fn users<'a>(
        &'a self,
        actor: &'a Actor,
        after: Option<UserId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Arc<User>>, Error>> {
        Box::pin(Router::users(self, actor, after, limit))
    }

    fn shard_of_user(&self, user: &UserId) -> Result<ShardId, Error> {
        Router::shard_of_user(self, user)
    }

    fn revocations(&self, shard: ShardId) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(Router::revocations(self, shard))
    }

    fn presence(&self) -> &Arc<Presence> {
        Router::presence(self)
    }

    fn node_id(&self) -> Option<NodeId> {
        Router::node_id(self)
    }

    fn readiness(&self) -> Readiness {
        Router::readiness(self)
    }

    fn status(&self) -> BoxFuture<'_, StatusResponse> {
        Box::pin(Router::status(self))
    }

    fn init_cluster(&self, nodes: usize, shards: u16) -> BoxFuture<'_, Result<String, Error>> {
        Box::pin(Router::init_cluster(self, nodes, shards))
    }

    fn compact(&self) -> BoxFuture<'_, Result<(u64, u64), Error>> {
        Box::pin(Router::compact(self))
    }

    fn data_shards(&self) -> Result<Vec<ShardId>, Error> {
        Router::data_shards(self)
    }

    fn placement(&self) -> BoxFuture<'_, Result<PlacementResponse, Error>> {
        Box::pin(Router::placement(self))
    }

    fn operate<'a>(
        &'a self,
        who: &'a str,
        order: Order,
        dry_run: bool,
    ) -> BoxFuture<'a, Result<Plan, Error>> {
        Box::pin(Router::operate(self, who, order, dry_run))
    }

    fn issue_join_token<'a>(
        &'a self,
        who: &'a str,
        hash: Bytes,
        ttl_ms: u64,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        Box::pin(Router::issue_join_token(self, who, hash, ttl_ms))
    }

    fn record<'a>(
        &'a self,
        who: &'a str,
        action: &'a str,
        outcome: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(Router::record(self, who, action, outcome))
    }

    fn try_record<'a>(
        &'a self,
        who: &'a str,
        action: &'a str,
        outcome: &'a str,
    ) -> BoxFuture<'a, ()> {
        Box::pin(Router::try_record(self, who, action, outcome))
    }

    fn audit(&self, limit: u64) -> BoxFuture<'_, Result<Vec<AuditRecord>, Error>> {
        Box::pin(Router::audit(self, limit))
    }

    fn quorum_critical(&self, node: NodeId) -> BoxFuture<'_, Result<Vec<ShardId>, Error>> {
        Box::pin(Router::quorum_critical(self, node))
    }

    fn verify<'a>(
        &'a self,
        shard: ShardId,
        report: &'a mut dyn Report,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.verify_shard(shard, report))
    }

    fn repair(&self, shard: ShardId, node: NodeId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(Router::repair(self, shard, node))
    }
}
