//! Reads and subscriptions: here when this node has a replica, else where one is.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::future;

use crate::chat::codec;
use crate::chat::command::Actor;
use crate::chat::query::{self, Answer, OwnRoom, OwnRooms, Query};
use crate::chat::state::{Room, User};
use crate::delivery::subscription::{Start, Subscription};
use crate::error::{Code, Error};
use crate::id::{Cursor, RoomId, Seq, ShardId, UserId};
use crate::proto::internal as pb;
use crate::router::feed::ReplicaHistory;
use crate::router::{Consistency, Router, forward, odd_reply, relay};
use crate::shard::Shard;
use crate::shard::runtime::Runtime;
use crate::shard::state_machine::Replica;

impl<R: Runtime> Router<R> {
    /// Answers a query about one room or user. `actor`'s permissions are checked.
    ///
    /// # Errors
    /// What the rules say to the query; or why no replica could answer in time.
    pub async fn query(
        &self,
        actor: &Actor,
        query: Query,
        consistency: Consistency,
    ) -> Result<Answer, Error> {
        let shard = match &query {
            Query::Room { room }
            | Query::Participants { room, .. }
            | Query::Events { room, .. }
            | Query::Thread { room, .. }
            | Query::Export { room, .. } => self.shard_of_room(room)?,
            Query::User { user } => self.shard_of_user(user)?,
            Query::Rooms { .. } | Query::Mine { .. } | Query::Users { .. } | Query::Revocations => {
                return Err(Error::new(Code::Internal, "this is asked of a shard as a whole"));
            }
        };
        self.query_shard(shard, actor, query, consistency).await
    }

    async fn query_shard(
        &self,
        shard: ShardId,
        actor: &Actor,
        query: Query,
        consistency: Consistency,
    ) -> Result<Answer, Error> {
        if let Some(here) = self.voting(shard) {
            let answer = self.read_here(&here, actor.clone(), query.clone(), consistency).await;
            if !here.replica().is_retired() {
                return answer;
            }
        }
        let read = pb::Read {
            actor: codec::encode_actor(actor),
            query: codec::encode_query(&query),
            local: consistency == Consistency::Local,
        };
        let mut maybe_applied = false;
        let ask = |node| {
            let (forwarder, read) = (self.forwarder(node), read.clone());
            async move {
                match forwarder.ask(shard, forward::Request::Read(read)).await? {
                    forward::Reply::Answer(answer) => {
                        codec::decode_answer(answer).map_err(|_| odd_reply())
                    }
                    _ => Err(odd_reply()),
                }
            }
        };
        let answer = self.at_leader(shard, &mut maybe_applied, ask).await;
        answer.map_err(|error| Error { may_have_applied: false, ..error })
    }

    /// Answers a query from this node's replica. A cursor beyond what it has got is judged once it has
    /// caught up, whatever the consistency: a place that others have reached is not a wrong one.
    pub(crate) async fn read_here(
        &self,
        shard: &Arc<Shard<R>>,
        actor: Actor,
        query: Query,
        consistency: Consistency,
    ) -> Result<Answer, Error> {
        let replica = shard.replica().clone();
        if mutant!(ReadBeforeIndex) {
            let answer = query::query(&*replica.read(), &actor, &query);
            self.catch_up(shard).await?;
            return answer;
        }
        if consistency == Consistency::Linearizable {
            self.catch_up(shard).await?;
            return look::<R>(replica, actor, query).await;
        }
        let read = || look::<R>(replica.clone(), actor.clone(), query.clone());
        as_far_as_asked(read, self.catch_up(shard)).await
    }

    /// Waits until this node's replica has everything that was acknowledged before.
    ///
    /// # Errors
    /// When no leader says what that is, or it is not here in time.
    pub(crate) async fn catch_up(&self, shard: &Arc<Shard<R>>) -> Result<(), Error> {
        let index = self.read_index(shard.id()).await?;
        if mutant!(ReadWithoutWait) {
            return Ok(());
        }
        let waited = R::timeout(self.options.request_timeout, shard.wait_applied(index)).await;
        waited.map_err(|_| Error::new(Code::Timeout, "this replica does not catch up"))?
    }

    /// The index that a replica must have applied to have everything that was acknowledged before.
    pub(super) async fn read_index(&self, shard: ShardId) -> Result<u64, Error> {
        let mut maybe_applied = false;
        let ask = |node| async move {
            if Some(node) == self.node_id() {
                let here = self.host().get(shard).ok_or_else(|| crate::shard::not_leader(None))?;
                return here.read_index().await;
            }
            let request = forward::Request::ReadIndex(pb::ReadIndex {});
            match self.forwarder(node).ask(shard, request).await? {
                forward::Reply::ReadIndex(index) => Ok(index),
                _ => Err(odd_reply()),
            }
        };
        let index = self.at_leader(shard, &mut maybe_applied, ask).await;
        index.map_err(|error| Error { may_have_applied: false, ..error })
    }

    /// The rooms of all shards that `actor` may see, ascending; only those with `search` in their id
    /// or title.
    ///
    /// # Errors
    /// When a shard cannot answer.
    pub async fn rooms(
        &self,
        actor: &Actor,
        after: Option<RoomId>,
        limit: usize,
        search: String,
    ) -> Result<Vec<Arc<Room>>, Error> {
        let query = Query::Rooms { after, limit, search };
        let mut rooms = Vec::new();
        for answer in self.query_all(actor, query).await? {
            let Answer::Rooms { rooms: some } = answer else { return Err(odd_reply().error) };
            rooms.extend(some);
        }
        rooms.sort_by(|a, b| a.id.cmp(&b.id));
        rooms.truncate(limit);
        Ok(rooms)
    }

    /// The rooms of all shards that `actor` is in or invited to, ascending, with what they have not
    /// read; and after which of them there may be more. A page may be short of `limit` without being the
    /// last, where looking took enough.
    ///
    /// # Errors
    /// When a shard cannot answer.
    pub async fn own_rooms(
        &self,
        actor: &Actor,
        after: Option<RoomId>,
        limit: usize,
    ) -> Result<OwnRooms, Error> {
        let mut after = after;
        loop {
            let mut all = Vec::new();
            for answer in self.query_all(actor, Query::Mine { after, limit }).await? {
                let Answer::Mine { rooms, next } = answer else { return Err(odd_reply().error) };
                all.push((rooms, next));
            }
            match told(merge(all, limit)) {
                ControlFlow::Break(page) => return Ok(page),
                ControlFlow::Continue(looked) => after = Some(looked),
            }
        }
    }

    /// The users of all shards, ascending.
    ///
    /// # Errors
    /// When a shard cannot answer.
    pub async fn users(
        &self,
        actor: &Actor,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<Vec<Arc<User>>, Error> {
        let query = Query::Users { after, limit };
        let mut users = Vec::new();
        for answer in self.query_all(actor, query).await? {
            let Answer::Users { users: some } = answer else { return Err(odd_reply().error) };
            users.extend(some);
        }
        users.sort_by(|a, b| a.id.cmp(&b.id));
        users.truncate(limit);
        Ok(users)
    }

    /// How often something stopped being valid by which users of a shard sign in: everything that
    /// was acknowledged before counts.
    ///
    /// # Errors
    /// When the shard cannot answer.
    pub async fn revocations(&self, shard: ShardId) -> Result<u64, Error> {
        let nobody = Actor { user: UserId::parse("nobody")?, admin: false };
        let query = Query::Revocations;
        match self.query_shard(shard, &nobody, query, Consistency::Linearizable).await? {
            Answer::Revocations { count } => Ok(count),
            _ => Err(odd_reply().error),
        }
    }

    async fn query_all(&self, actor: &Actor, query: Query) -> Result<Vec<Answer>, Error> {
        let shards = self.data_shards()?;
        let ask = |shard| self.query_shard(shard, actor, query.clone(), Consistency::Linearizable);
        future::try_join_all(shards.into_iter().map(ask)).await
    }

    /// Follows a room from a cursor, or from its head when `after` is `None`.
    ///
    /// # Errors
    /// What the rules say to reading the room; [`Code::InvalidCursor`] when the cursor is beyond
    /// its head; or why no replica could answer in time.
    pub async fn subscribe(
        &self,
        actor: &Actor,
        room: &RoomId,
        after: Option<Cursor>,
    ) -> Result<Subscription, Error> {
        let shard = self.shard_of_room(room)?;
        match self.voting(shard) {
            Some(here) => self.subscribe_here(&here, actor.clone(), room.clone(), after).await,
            None => relay::subscribe(self, shard, actor, room, after).await,
        }
    }

    pub(super) async fn subscribe_here(
        &self,
        shard: &Arc<Shard<R>>,
        actor: Actor,
        room: RoomId,
        after: Option<Cursor>,
    ) -> Result<Subscription, Error> {
        self.catch_up(shard).await?;
        let replica = shard.replica().clone();
        let feed = self.feed(shard.id());
        blocking::<R, _>(move || {
            // Head and registration are of the same moment: apply is kept out meanwhile.
            let state = replica.read_live()?;
            let row = query::readable(&*state, &actor, &room)?;
            let start = start(&row, after)?;
            let tail = feed.hub().register(&room, row.head);
            Ok(Subscription::new(tail, ReplicaHistory::<R>::new(replica.clone()), start))
        })
        .await?
    }
}

/// Answers a query from a replica as it is. One that looks at any number of rooms lets go of the state
/// now and then, so that what is to be applied does not wait for it.
async fn look<R: Runtime>(
    replica: Arc<Replica>,
    actor: Actor,
    query: Query,
) -> Result<Answer, Error> {
    let Query::Rooms { after, limit, search } = query else {
        let ask = move || query::query(&*replica.read_live()?, &actor, &query);
        return blocking::<R, _>(ask).await?;
    };
    let mut search = query::rooms(&actor, after, limit, &search);
    loop {
        let replica = replica.clone();
        let some = move || {
            let all = search.look(&*replica.read_live()?);
            Ok::<_, Error>((search, all))
        };
        let (looked, all) = blocking::<R, _>(some).await??;
        if all {
            return Ok(Answer::Rooms { rooms: looked.found() });
        }
        search = looked;
    }
}

/// Answers from what a replica has; where a cursor is beyond that, from what it has once it has caught up.
///
/// # Errors
/// That of the read; [`Code::Unavailable`] where nobody says whether the cursor is beyond everything.
async fn as_far_as_asked<T, F: Future<Output = Result<T, Error>>>(
    mut read: impl FnMut() -> F,
    catch_up: impl Future<Output = Result<(), Error>>,
) -> Result<T, Error> {
    match read().await {
        Err(error) if error.code == Code::InvalidCursor => {}
        answer => return answer,
    }
    catch_up.await.map_err(|error| {
        let message = format!("this replica has not come as far as the cursor: {}", error.message);
        Error { code: Code::Unavailable, message, ..error }
    })?;
    read().await
}

/// What somebody is told of their own rooms, or from where on to look for the first of them.
///
/// How far shards have looked may be the id of a room that they must not know of.
fn told((rooms, looked): OwnRooms) -> ControlFlow<OwnRooms, RoomId> {
    let last = rooms.last().map(|own| own.room.id.clone());
    match looked {
        Some(looked) if last.is_none() => ControlFlow::Continue(looked),
        looked => ControlFlow::Break((rooms, looked.and(last))),
    }
}

/// One page of the pages of all shards: up to where each of them was looked through.
fn merge(pages: Vec<OwnRooms>, limit: usize) -> OwnRooms {
    let end = pages.iter().filter_map(|(_, next)| next.clone()).min();
    let mut rooms: Vec<OwnRoom> = pages.into_iter().flat_map(|(rooms, _)| rooms).collect();
    rooms.retain(|own| end.as_ref().is_none_or(|end| own.room.id <= *end));
    rooms.sort_by(|a, b| a.room.id.cmp(&b.room.id));
    if rooms.len() <= limit {
        return (rooms, end);
    }
    rooms.truncate(limit);
    let last = rooms.last().map(|own| own.room.id.clone());
    (rooms, last)
}

fn start(room: &Room, after: Option<Cursor>) -> Result<Start, Error> {
    let (recovered, first) = match after {
        None => (true, room.head.next()),
        Some(cursor) => query::resume(room, &cursor)?,
    };
    let late = mutant!(ResumesTooLate) && first <= room.head;
    let first = if late { first.next() } else { first };
    let after = Seq(first.0 - 1);
    Ok(Start { epoch: room.epoch.clone(), first_seq: room.first_seq, after, recovered })
}

async fn blocking<R: Runtime, T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    R::blocking(work).await.map_err(|error| Error::new(Code::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::ops::ControlFlow::Continue;

    use super::*;
    use crate::chat::event::Role;
    use crate::chat::query::Unread;
    use crate::chat::state::Participant;
    use crate::chat::state::room_row;

    fn id(room: &str) -> RoomId {
        RoomId::parse(room).unwrap()
    }

    fn page(own: &[&str], looked: Option<&str>) -> OwnRooms {
        let own = own.iter().map(|room| OwnRoom {
            room: Arc::new(room_row(id(room))),
            own: (UserId::parse("ann").unwrap(), Participant::new(Role::Member, 1)),
            unread: Unread::default(),
        });
        (own.collect(), looked.map(id))
    }

    #[test]
    fn where_a_page_of_own_rooms_ends_is_told_by_own_rooms_only() {
        // Two shards; in one of them others' rooms are looked through for long.
        let far = vec![page(&["m"], None), page(&[], Some("hidden-4096"))];
        assert_eq!(told(merge(far, 10)).map_break(|_| ()), Continue(id("hidden-4096")));
        let near = vec![page(&["m", "p"], None), page(&["k"], Some("l"))];
        let (rooms, next) = told(merge(near, 10)).break_value().unwrap();
        let rooms: Vec<_> = rooms.iter().map(|own| own.room.id.as_str()).collect();
        assert_eq!((rooms, next), (vec!["k"], Some(id("k"))), "beyond l not all was looked at");
        for pages in [vec![page(&[], None)], vec![page(&["a"], None), page(&["b"], None)]] {
            assert_eq!(told(merge(pages, 10)).break_value().unwrap().1, None, "that is all");
        }
    }
    #[tokio::test]
    async fn a_cursor_beyond_what_a_replica_has_is_judged_once_it_has_caught_up() {
        let head = &Cell::new(3);
        let read = |seq: u64| {
            move || {
                let beyond = Error::new(Code::InvalidCursor, "beyond the head");
                future::ready(if seq <= head.get() { Ok(seq) } else { Err(beyond) })
            }
        };
        let none = async { Err(Error::new(Code::Timeout, "no leader")) };
        let unknown = as_far_as_asked(read(5), none).await.unwrap_err();
        assert_eq!(unknown.code, Code::Unavailable, "{unknown}");
        let caught_up = || async move {
            head.set(5);
            Ok::<(), Error>(())
        };
        assert_eq!(as_far_as_asked(read(3), caught_up()).await, Ok(3));
        assert_eq!(head.get(), 3, "what the replica has is read at once");
        assert_eq!(as_far_as_asked(read(5), caught_up()).await, Ok(5));
        let beyond = as_far_as_asked(read(6), caught_up()).await.unwrap_err();
        assert_eq!(beyond.code, Code::InvalidCursor);
    }
}
