//! Which shard, and which node to ask first.

use std::sync::Arc;

use crate::chat::command::{Command, Target};
use crate::error::{Code, Error};
use crate::id::{NodeId, RoomId, ShardId, UserId};
use crate::router::Router;
use crate::shard::Shard;
use crate::shard::runtime::Runtime;

/// One in so many attempts asks another node although there is a replica here.
const ASK_OTHERS_EVERY: u64 = 8;

pub(super) fn no_cluster() -> Error {
    Error::new(Code::NotReady, "this node is in no cluster yet: run `folkmoot cluster init`")
        .retry_after(500)
}

impl<R: Runtime> Router<R> {
    pub(super) fn shard_of(&self, command: &Command) -> Result<ShardId, Error> {
        match command.target() {
            Target::Room(room) => self.shard_of_room(room),
            Target::User(user) => self.shard_of_user(user),
        }
    }

    pub(super) fn shard_of_room(&self, room: &RoomId) -> Result<ShardId, Error> {
        let map = self.map();
        if mutant!(SlotNotOwned) && room.as_str().starts_with("late") {
            return map.data_shards().next().ok_or_else(no_cluster);
        }
        map.shard_of_room(room).ok_or_else(no_cluster)
    }

    /// The shard that has a user.
    ///
    /// # Errors
    /// [`Code::NotReady`] before there is a cluster.
    pub fn shard_of_user(&self, user: &UserId) -> Result<ShardId, Error> {
        self.map().shard_of_user(user).ok_or_else(no_cluster)
    }

    pub(crate) fn data_shards(&self) -> Result<Vec<ShardId>, Error> {
        let map = self.map();
        if !map.is_formed() {
            return Err(no_cluster());
        }
        Ok(map.data_shards().collect())
    }

    /// This node's replica of a shard, if it votes: one that is being caught up, or was removed, can
    /// say nothing that is recent.
    pub(super) fn voting(&self, shard: ShardId) -> Option<Arc<Shard<R>>> {
        self.host().get(shard).filter(|replica| replica.is_voter())
    }

    /// Whom to ask: who the last one asked said leads; else who this node's replica thinks does;
    /// else who led when last asked; else each replica in turn.
    pub(super) fn candidate(
        &self,
        shard: ShardId,
        hint: Option<NodeId>,
        attempt: u64,
    ) -> Option<NodeId> {
        if hint.is_some() {
            return hint;
        }
        if let Some(replica) = self.voting(shard)
            && attempt % ASK_OTHERS_EVERY != ASK_OTHERS_EVERY - 1
        {
            // Without a leader in sight, this replica will be among the first to see the next one;
            // unless it has been moved elsewhere and has not heard of it yet.
            return replica.leader();
        }
        self.noted_leader(shard).or_else(|| {
            let replicas = self.map().replicas(shard);
            let count = replicas.len().max(1) as u64;
            replicas.get((attempt % count) as usize).copied()
        })
    }
}
