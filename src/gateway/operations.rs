//! Every operation of the public API that is more than one command, once for REST and gRPC.
//!
//! The callers in `http/` and `grpc/` only translate: arguments arrive here validated, results
//! leave as the rules' types.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use crate::chat::command::{Actor, Command, Done, Restriction};
use crate::chat::event::Role;
use crate::chat::query::{Answer, Events, Page, Query};
use crate::chat::state::{Participant, Room, RoomKind, User};
use crate::delivery::subscription::Next;
use crate::error::{Code, Error};
use crate::gateway::app::{App, Caller, require_admin, salt, shutting_down};
use crate::gateway::auth::{mint_join_token, mint_token};
use crate::gateway::{convert, follow};
use crate::id::{Epoch, NodeId, RequestId, RoomId, Seq, ShardId, UserId};
use crate::limits;
use crate::meta::audit::RECORDS_MAX;
use crate::proto::internal::AuditRecord;
use crate::router::Consistency;
use crate::router::operator::{Order, Plan};

/// A room with the first of its participants.
pub type RoomView = (Arc<Room>, Vec<(UserId, Participant)>);

/// A page of the replies to a message, as asked for.
#[derive(Debug, Clone)]
pub struct ThreadQuery {
    /// Which room.
    pub room: RoomId,
    /// The message.
    pub root: Seq,
    /// From where, which way.
    pub page: Page,
    /// At most this many replies.
    pub limit: usize,
    /// What the read must see.
    pub consistency: Consistency,
}

/// A page of a room's log, as asked for.
#[derive(Debug, Clone)]
pub struct EventsQuery {
    /// Which room.
    pub room: RoomId,
    /// From where, which way.
    pub page: Page,
    /// At most this many events.
    pub limit: usize,
    /// How long to wait for an event when there is none after the cursor.
    pub wait: Duration,
    /// What the read must see.
    pub consistency: Consistency,
}

impl App {
    /// Creates a user with a first token.
    ///
    /// A repeat finds the user there and, as only the hash of the first token was kept, issues
    /// another one, in the place of an earlier repeat's.
    ///
    /// # Errors
    /// [`Code::Forbidden`] unless the caller is an administrator; [`Code::LimitReached`] when a user that is
    /// there has as many tokens as it may have; and the router's.
    pub async fn create_user(
        &self,
        actor: &Actor,
        user: UserId,
        display_name: String,
        admin: bool,
        id: Option<RequestId>,
    ) -> Result<(Arc<User>, String, bool), Error> {
        require_admin(actor)?;
        convert::at_most("display_name", &display_name, limits::DISPLAY_NAME_BYTES_MAX)?;
        let create = self.create_user_as_wished(actor, user.clone(), display_name, admin, id);
        match admin {
            true => self.audited(actor, &format!("create administrator {user}"), create).await,
            false => create.await,
        }
    }

    async fn create_user_as_wished(
        &self,
        actor: &Actor,
        user: UserId,
        display_name: String,
        admin: bool,
        id: Option<RequestId>,
    ) -> Result<(Arc<User>, String, bool), Error> {
        let (mut token, hash) = mint_token(&user);
        let command =
            Command::CreateUser { user: user.clone(), display_name, admin, token_hash: Some(hash) };
        let done = self.execute(actor, id, command).await?;
        if done.duplicate {
            token = self.reissue_token(actor, &user).await?;
        }
        let created = self.user(actor, user).await?;
        Ok((created, token, done.duplicate))
    }

    /// Issues the token of a repeat, in the place of an earlier repeat's: there is one at most.
    async fn reissue_token(&self, actor: &Actor, user: &UserId) -> Result<String, Error> {
        const LABEL: &str = "reissued";
        let row = self.user(actor, user.clone()).await?;
        for token in row.tokens.iter().filter(|token| token.label == LABEL) {
            let revoke = Command::RevokeToken { user: user.clone(), token_hash: token.hash };
            self.execute(actor, None, revoke).await?;
        }
        self.issue_token(actor, user.clone(), LABEL.into(), None).await
    }

    /// Issues a further token for a user.
    ///
    /// # Errors
    /// The router's.
    pub async fn issue_token(
        &self,
        actor: &Actor,
        user: UserId,
        label: String,
        id: Option<RequestId>,
    ) -> Result<String, Error> {
        convert::at_most("label", &label, limits::LABEL_BYTES_MAX)?;
        let (token, token_hash) = mint_token(&user);
        let command = Command::IssueToken { user: user.clone(), token_hash, label: label.clone() };
        if !self.execute(actor, id, command).await?.duplicate {
            return Ok(token);
        }
        // The token of the first attempt got lost with its answer: only its hash is known.
        let (token, token_hash) = mint_token(&user);
        self.execute(actor, None, Command::IssueToken { user, token_hash, label }).await?;
        Ok(token)
    }

    /// Reads a user's row.
    ///
    /// # Errors
    /// The router's.
    pub async fn user(&self, actor: &Actor, user: UserId) -> Result<Arc<User>, Error> {
        let query = Query::User { user };
        match self.backend.query(actor, query, Consistency::Linearizable).await? {
            Answer::User { user } => Ok(user),
            _ => Err(wrong_answer()),
        }
    }

    /// Creates a room; tells whether it is new. A direct room needs both its users: they are in
    /// other shards, so this is no matter of the room's rules. Users are never deleted.
    ///
    /// # Errors
    /// [`Code::UserNotFound`], and the router's.
    pub async fn create_room(
        &self,
        actor: &Actor,
        room: RoomId,
        title: String,
        kind: RoomKind,
        id: Option<RequestId>,
    ) -> Result<(RoomView, bool), Error> {
        convert::at_most("title", &title, limits::TITLE_BYTES_MAX)?;
        for user in room.direct_users().into_iter().flat_map(|(a, b)| [a, b]) {
            if user != actor.user {
                self.user(actor, user).await?;
            }
        }
        let epoch = Epoch::mint(rand::random());
        let command = Command::CreateRoom { room: room.clone(), title, kind, epoch, salt: salt() };
        let done = self.execute(actor, id, command).await?;
        let view = self.room(actor, room, Consistency::Linearizable).await?;
        Ok((view, !done.duplicate))
    }

    /// Reads a room's state.
    ///
    /// # Errors
    /// The router's.
    pub async fn room(
        &self,
        actor: &Actor,
        room: RoomId,
        consistency: Consistency,
    ) -> Result<RoomView, Error> {
        match self.backend.query(actor, Query::Room { room }, consistency).await? {
            Answer::Room { room, participants, .. } => Ok((room, participants)),
            _ => Err(wrong_answer()),
        }
    }

    /// Lists rooms, and says after which id the next page begins, if there may be one.
    ///
    /// # Errors
    /// The router's.
    pub async fn rooms(
        &self,
        actor: &Actor,
        after: Option<RoomId>,
        limit: usize,
        search: String,
    ) -> Result<(Vec<Arc<Room>>, Option<String>), Error> {
        convert::at_most("search", &search, limits::SEARCH_BYTES_MAX)?;
        let rooms = self.backend.rooms(actor, after, limit, search).await?;
        let full = rooms.len() >= limit;
        let next = rooms.last().filter(|_| full).map(|room| room.id.as_str().to_owned());
        Ok((rooms, next))
    }

    /// Lists users, and says after which id the next page begins, if there may be one.
    ///
    /// # Errors
    /// The router's.
    pub async fn users(
        &self,
        actor: &Actor,
        after: Option<UserId>,
        limit: usize,
    ) -> Result<(Vec<Arc<User>>, Option<String>), Error> {
        let users = self.backend.users(actor, after, limit).await?;
        let full = users.len() >= limit;
        let next = users.last().filter(|_| full).map(|user| user.id.as_str().to_owned());
        Ok((users, next))
    }

    /// Executes a command on a room that may give somebody a part in it who has none: they must be a
    /// user. Users are in other shards, so this is no matter of the room's rules; they are never
    /// deleted.
    ///
    /// # Errors
    /// [`Code::UserNotFound`], and the router's.
    pub async fn execute_on(
        &self,
        actor: &Actor,
        user: UserId,
        id: Option<RequestId>,
        command: Command,
    ) -> Result<Done, Error> {
        let adds = match &command {
            Command::Invite { .. } => true,
            Command::Restrict { restriction, .. } => *restriction == Restriction::Ban,
            Command::SetRole { role, .. } => *role == Role::Banned,
            _ => false,
        };
        if adds && user != actor.user {
            self.user(actor, user).await?;
        }
        self.execute(actor, id, command).await
    }

    /// Reads a page of the replies to a message.
    ///
    /// # Errors
    /// The router's.
    pub async fn thread(&self, caller: &Caller, query: ThreadQuery) -> Result<Events, Error> {
        let ThreadQuery { room, root, page, limit, consistency } = query;
        caller.certain_for(consistency)?;
        let query = Query::Thread { room, root, page, limit };
        match self.backend.query(&caller.actor, query, consistency).await? {
            Answer::Events(events) => Ok(events),
            _ => Err(wrong_answer()),
        }
    }

    /// Reads a page of a room's log; when it is empty, waits for an event as long as was asked.
    /// A drain ends the wait, and so does the end of the caller's session or token; during a drain, [`Code::ShuttingDown`] tells who would have to wait.
    ///
    /// Cancel safe: a client that hangs up frees its subscription with this future.
    ///
    /// # Errors
    /// The router's.
    pub async fn events(
        self: &Arc<App>,
        caller: &Caller,
        query: EventsQuery,
    ) -> Result<Events, Error> {
        let actor = &caller.actor;
        if query.wait > Duration::ZERO && !matches!(query.page, Page::After(_)) {
            return Err(Error::invalid("`wait` needs `after`"));
        }
        caller.certain_for(query.consistency)?;
        let events = self.events_now(actor, &query).await?;
        let Page::After(after) = &query.page else { return Ok(events) };
        // A gap must be told at once: there is something to be read, from first_seq on.
        if !events.events.is_empty() || !events.recovered || query.wait.is_zero() {
            return Ok(events);
        }
        let drain = self.drain.begun();
        if drain.is_cancelled() {
            // At once, but not as if there were nothing: the client would ask again at once.
            return Err(shutting_down());
        }
        caller.certain_for(Consistency::Linearizable)?;
        let _seat = self.take_seat()?;
        let subscribed = follow::subscribe(self, actor, &query.room, Some(after.clone())).await?;
        let _counted = self.metrics.subscribed();
        let mut next = subscribed.next;
        let arrival = async { while let Some(Next::CaughtUp(_)) = next.next().await {} };
        tokio::select! {
            error = self.dismissed(caller) => Err(error),
            () = arrival => {
                self.trust_again(&mut caller.clone()).await?;
                self.events_now(actor, &query).await
            }
            () = tokio::time::sleep(query.wait) => Ok(events),
            () = drain.cancelled() => Ok(events),
        }
    }

    async fn events_now(&self, actor: &Actor, query: &EventsQuery) -> Result<Events, Error> {
        let EventsQuery { room, page, limit, consistency, .. } = query.clone();
        let query = Query::Events { room, page, limit };
        let started = Instant::now();
        let answer = self.backend.query(actor, query, consistency).await?;
        self.metrics.read_duration.record(started.elapsed());
        match answer {
            Answer::Events(events) => Ok(events),
            _ => Err(wrong_answer()),
        }
    }

    /// Rewrites this node's base: its size in bytes before and after.
    ///
    /// # Errors
    /// [`Code::Forbidden`] unless the caller is an administrator, and the router's.
    pub async fn compact(&self, actor: &Actor) -> Result<(u64, u64), Error> {
        require_admin(actor)?;
        let node = self.backend.node_id().unwrap_or_default();
        // It must be possible while disks are full.
        self.audited_if_possible(actor, &format!("compact node {node}"), self.backend.compact())
            .await
    }

    /// Where replicas and leaders are.
    ///
    /// # Errors
    /// [`Code::Forbidden`] unless the caller is an administrator, and the router's.
    pub async fn placement(
        &self,
        actor: &Actor,
    ) -> Result<crate::proto::v1::PlacementResponse, Error> {
        require_admin(actor)?;
        self.backend.placement().await
    }

    /// Carries out an operator's order, or says what it would do.
    ///
    /// # Errors
    /// [`Code::Forbidden`] unless the caller is an administrator, and the router's.
    pub async fn operate(&self, actor: &Actor, order: Order, dry_run: bool) -> Result<Plan, Error> {
        require_admin(actor)?;
        let (backend, who) = (self.backend.clone(), actor.user.clone());
        // In a task of its own: whoever asks may go away in the middle, and what is begun has an end.
        let operating =
            tokio::spawn(async move { backend.operate(who.as_str(), order, dry_run).await });
        operating.await.unwrap_or_else(|error| {
            let message = format!("nobody knows whether it is carried out: {error}");
            Err(Error::new(Code::Internal, message).maybe_applied())
        })
    }

    /// Makes a token that lets one more node join within a time, and says until when, in milliseconds
    /// since the Unix epoch.
    ///
    /// # Errors
    /// [`Code::Forbidden`] unless the caller is an administrator, and the router's.
    pub async fn issue_join_token(
        &self,
        actor: &Actor,
        ttl_ms: u64,
    ) -> Result<(String, u64), Error> {
        require_admin(actor)?;
        let (token, hash) = mint_join_token();
        let until = self.backend.issue_join_token(actor.user.as_str(), hash, ttl_ms).await?;
        Ok((token, until))
    }

    /// The last administrative actions, oldest first.
    ///
    /// # Errors
    /// [`Code::Forbidden`] unless the caller is an administrator, and the router's.
    pub async fn audit(&self, actor: &Actor, limit: u64) -> Result<Vec<AuditRecord>, Error> {
        require_admin(actor)?;
        if !(1..=RECORDS_MAX).contains(&limit) {
            return Err(Error::invalid(format!("limit must be 1 to {RECORDS_MAX}")));
        }
        self.backend.audit(limit).await
    }

    /// Has a node set its state of a shard aside at its next start, and take it from another one.
    ///
    /// # Errors
    /// [`Code::Forbidden`] unless the caller is an administrator, and the router's.
    pub async fn repair(&self, actor: &Actor, shard: ShardId, node: NodeId) -> Result<(), Error> {
        require_admin(actor)?;
        let action =
            format!("set the state of shard {shard} on node {node} aside at its next start");
        // It must be possible while the meta group is what is broken.
        self.audited_if_possible(actor, &action, self.backend.repair(shard, node)).await
    }

    /// The shards that would lose their quorum if a node stopped.
    ///
    /// # Errors
    /// [`Code::Forbidden`] unless the caller is an administrator, and the router's.
    pub async fn quorum_critical(
        &self,
        actor: &Actor,
        node: NodeId,
    ) -> Result<Vec<ShardId>, Error> {
        require_admin(actor)?;
        self.backend.quorum_critical(node).await
    }

    /// Appends lines of foreign history.
    ///
    /// # Errors
    /// [`Code::Forbidden`] unless the caller is an administrator, and the router's.
    pub async fn import(
        &self,
        actor: &Actor,
        room: RoomId,
        source: String,
        lines: Vec<crate::proto::v1::ImportLine>,
        id: Option<RequestId>,
    ) -> Result<Done, Error> {
        require_admin(actor)?;
        convert::text("source", &source, limits::SOURCE_BYTES_MAX)?;
        let lines = convert::import_lines(lines, &actor.user)?;
        self.execute(actor, id, Command::Import { room, source, lines, salt: salt() }).await
    }
}

pub(crate) fn wrong_answer() -> Error {
    Error::new(Code::Internal, "a query was answered by something else")
}
