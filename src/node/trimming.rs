//! Trims rooms in which nothing happens: what has become older than a room keeps goes all the same.
//!
//! Each group's leader looks at its rooms now and then, and asks for what is due. Whether it is,
//! `apply` decides in log time; asking once too often changes nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::chat::command::{Actor, Command, Request};
use crate::chat::retention;
use crate::chat::state::State;
use crate::clock::{Clock, SystemClock};
use crate::error::Error;
use crate::id::{RequestId, RoomId, ShardId, UserId};
use crate::router::Router;
use crate::shard::state_machine::Replica;

/// How often rooms are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Rooms looked at together: whatever is to be applied waits meanwhile.
const RUN: usize = 64;
/// Steps in a row in one room, until others are looked at again.
const STEPS_MAX: usize = 256;

/// Trims the rooms of the groups that this node leads, for ever.
pub(super) async fn run(router: Arc<Router>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let shards = router.host().all().into_iter();
        for shard in shards.filter(|shard| shard.id() != ShardId::META && shard.is_leader()) {
            let replica = shard.replica().clone();
            let looked = tokio::task::spawn_blocking(move || due_rooms(&replica)).await;
            for room in looked.unwrap_or_default() {
                if let Err(error) = trim(&router, &room).await {
                    tracing::debug!(shard = %shard.id(), %error, "cannot trim a room just now");
                }
            }
        }
    }
}

/// The rooms that have something to be trimmed, by this node's clock.
fn due_rooms(replica: &Replica) -> Vec<RoomId> {
    let now_ms = SystemClock.now_ms();
    let (mut due, mut after) = (Vec::new(), None);
    loop {
        let state = replica.read();
        let run = state.rooms(after.as_ref(), RUN);
        let Some(last) = run.last() else { return due };
        after = Some(last.id.clone());
        let rooms = run.iter().filter(|room| retention::is_due(&*state, room, now_ms));
        due.extend(rooms.map(|room| room.id.clone()));
    }
}

async fn trim(router: &Router, room: &RoomId) -> Result<(), Error> {
    let actor = Actor { user: UserId::parse(retention::CLUSTER)?, admin: true };
    for _ in 0..STEPS_MAX {
        let command = Command::Trim { room: room.clone(), salt: rand::random() };
        let id = RequestId::mint(SystemClock.now_ms(), rand::random());
        let request = Request { actor: actor.clone(), id, command };
        if router.execute(request).await?.duplicate {
            break;
        }
    }
    Ok(())
}
