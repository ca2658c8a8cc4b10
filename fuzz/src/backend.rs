//! The world as the gateway's backend: one node, one shard, always there.

use std::sync::Arc;

use bytes::Bytes;
use folkmoot::chat::command::{Actor, Done, Request};
use folkmoot::chat::query::{self, Answer, OwnRooms, Query};
use folkmoot::chat::state::{Room, State, User};
use folkmoot::delivery::encoded::Encoded;
use folkmoot::delivery::subscription::Next;
use folkmoot::error::{Code, Error};
use folkmoot::gateway::backend::{Backend, Feed};
use folkmoot::id::{Cursor, NodeId, RoomId, Seq, ShardId, UserId};
use folkmoot::presence::Presence;
use folkmoot::proto::internal::AuditRecord;
use folkmoot::proto::v1::{PlacementResponse, StatusResponse};
use folkmoot::router::operator::{Order, Plan};
use folkmoot::router::verify::Report;
use folkmoot::router::{Consistency, Readiness};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};

use super::world::World;

/// Events that a feed reads at once.
const FEED_EVENTS: usize = 8;

/// The backend.
pub struct Node(pub Arc<World>);

impl Node {
    fn ask(&self, actor: &Actor, query: &Query) -> Result<Answer, Error> {
        query::query(&*self.0.lock(), actor, query)
    }

    /// What a room has above `after`.
    fn above(world: &World, room: &RoomId, after: Seq) -> Vec<Arc<Encoded>> {
        let events = world.lock().events(room, after.next(), Seq(u64::MAX), FEED_EVENTS, 1 << 20);
        events.into_iter().map(Encoded::new).collect()
    }

    fn follow(&self, actor: &Actor, room: &RoomId, after: Option<&Cursor>) -> Result<Feed, Error> {
        let world = self.0.clone();
        let changed = world.changed.subscribe();
        let row = query::readable(&*world.lock(), actor, room)?;
        let Room { epoch, first_seq, head, .. } = (*row).clone();
        let (recovered, first) = match after {
            Some(cursor) => query::resume(&row, cursor)?,
            None => (true, head.next()),
        };
        let begin = (world, room.clone(), changed, Seq(first.0 - 1), false);
        let next = stream::unfold(
            begin,
            move |(world, room, mut changed, mut last, mut told)| async move {
                let next = loop {
                    if !told && last >= head {
                        told = true;
                        break Next::CaughtUp(head);
                    }
                    let events = Node::above(&world, &room, last);
                    if let Some(newest) = events.last() {
                        last = newest.event.seq;
                        break Next::Events(events);
                    }
                    changed.changed().await.ok()?;
                };
                Some((next, (world, room, changed, last, told)))
            },
        );
        Ok(Feed { epoch, first_seq, head, recovered, next: next.boxed() })
    }
}

fn odd() -> Error {
    Error::new(Code::Internal, "another answer than was asked for")
}

fn ready<'a, T: Send + 'a>(outcome: T) -> BoxFuture<'a, T> {
    async move { outcome }.boxed()
}

impl Backend for Node {
    fn execute(&self, request: Request) -> BoxFuture<'_, Result<Done, Error>> {
        async move { self.0.execute(&request) }.boxed()
    }

    fn shard_of_user(&self, _user: &UserId) -> Result<ShardId, Error> {
        Ok(ShardId(1))
    }

    fn revocations(&self, _shard: ShardId) -> BoxFuture<'_, Result<u64, Error>> {
        ready(Ok(self.0.lock().revocations()))
    }

    fn query<'a>(
        &'a self,
        actor: &'a Actor,
        query: Query,
        _consistency: Consistency,
    ) -> BoxFuture<'a, Result<Answer, Error>> {
        ready(self.ask(actor, &query))
    }

    fn subscribe<'a>(
        &'a self,
        actor: &'a Actor,
        room: &'a RoomId,
        after: Option<Cursor>,
    ) -> BoxFuture<'a, Result<Feed, Error>> {
        ready(self.follow(actor, room, after.as_ref()))
    }

    fn rooms<'a>(
        &'a self,
        actor: &'a Actor,
        after: Option<RoomId>,
        limit: usize,
        search: String,
    ) -> BoxFuture<'a, Result<Vec<Arc<Room>>, Error>> {
        ready(match self.ask(actor, &Query::Rooms { after, limit, search }) {
            Ok(Answer::Rooms { rooms }) => Ok(rooms),
            other => Err(other.err().unwrap_or_else(odd)),
        })
    }

    fn own_rooms<'a>(
        &'a self,
        actor: &'a Actor,
        after: Option<RoomId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<OwnRooms, Error>> {
        ready(match self.ask(actor, &Query::Mine { after, limit }) {
            Ok(Answer::Mine { rooms, next }) => Ok((rooms, next)),
            other => Err(other.err().unwrap_or_else(odd)),
        })
    }

    fn users<'a>(
        &'a self,
        actor: &'a Actor,
        after: Option<UserId>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Arc<User>>, Error>> {
        ready(match self.ask(actor, &Query::Users { after, limit }) {
            Ok(Answer::Users { users }) => Ok(users),
            other => Err(other.err().unwrap_or_else(odd)),
        })
    }

    fn presence(&self) -> &Arc<Presence> {
        &self.0.presence
    }

    fn node_id(&self) -> Option<NodeId> {
        Some(NodeId(1))
    }

    fn readiness(&self) -> Readiness {
        Readiness { ready: true, reason: String::new() }
    }

    fn status(&self) -> BoxFuture<'_, StatusResponse> {
        ready(StatusResponse { cluster_id: "c1".into(), node_id: 1, ..Default::default() })
    }

    fn init_cluster(&self, _nodes: usize, _shards: u16) -> BoxFuture<'_, Result<String, Error>> {
        ready(Err(Error::new(Code::AlreadyInitialized, "there is a cluster")))
    }

    fn compact(&self) -> BoxFuture<'_, Result<(u64, u64), Error>> {
        ready(Ok((100, 40)))
    }

    fn data_shards(&self) -> Result<Vec<ShardId>, Error> {
        Ok(vec![ShardId(1)])
    }

    fn placement(&self) -> BoxFuture<'_, Result<PlacementResponse, Error>> {
        ready(Ok(PlacementResponse::default()))
    }

    fn operate<'a>(
        &'a self,
        _who: &'a str,
        _order: Order,
        _dry_run: bool,
    ) -> BoxFuture<'a, Result<Plan, Error>> {
        ready(Ok(Plan::default()))
    }

    fn issue_join_token<'a>(
        &'a self,
        _who: &'a str,
        _hash: Bytes,
        ttl_ms: u64,
    ) -> BoxFuture<'a, Result<u64, Error>> {
        ready(Ok(ttl_ms))
    }

    fn record<'a>(
        &'a self,
        _who: &'a str,
        _action: &'a str,
        _outcome: &'a str,
    ) -> BoxFuture<'a, Result<(), Error>> {
        ready(Ok(()))
    }

    fn try_record<'a>(
        &'a self,
        _who: &'a str,
        _action: &'a str,
        _outcome: &'a str,
    ) -> BoxFuture<'a, ()> {
        ready(())
    }

    fn audit(&self, _limit: u64) -> BoxFuture<'_, Result<Vec<AuditRecord>, Error>> {
        ready(Ok(Vec::new()))
    }

    fn quorum_critical(&self, _node: NodeId) -> BoxFuture<'_, Result<Vec<ShardId>, Error>> {
        ready(Ok(Vec::new()))
    }

    fn verify<'a>(
        &'a self,
        _shard: ShardId,
        _report: &'a mut dyn Report,
    ) -> BoxFuture<'a, Result<(), Error>> {
        ready(Ok(()))
    }

    fn repair(&self, _shard: ShardId, _node: NodeId) -> BoxFuture<'_, Result<(), Error>> {
        ready(Ok(()))
    }
}
