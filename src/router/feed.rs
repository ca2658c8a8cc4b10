//! Wires a shard's replica to its hub: committed events in, history out.

use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;

use crate::chat::event::Event;
use crate::chat::state::State;
use crate::delivery::history::History;
use crate::delivery::hub::{Hub, Wake};
use crate::error::{Code, Error};
use crate::id::{RoomId, Seq};
use crate::shard::runtime::Runtime;
use crate::shard::state_machine::{CommitSink, Replica};
use crate::store::state::ShardState;

/// Feeds one shard's hub.
#[derive(Default)]
pub struct Feed {
    hub: Hub,
    /// Wakes of the present critical section.
    wakes: Mutex<Vec<Wake>>,
}

impl Feed {
    /// The hub that is fed.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }
}

impl CommitSink for Feed {
    fn committed(&self, room: &RoomId, events: &[Arc<Event>]) {
        let wake = self.hub.publish(room, events);
        self.wakes.lock().expect("no holder of the lock panics").push(wake);
    }

    fn replaced(&self, state: &ShardState) {
        let gone = Error::new(Code::RoomNotFound, "the room is gone");
        self.hub.jump(&gone, |room| state.room(room).map(|room| room.head));
    }

    fn released(&self) {
        let wakes = std::mem::take(&mut *self.wakes.lock().expect("no holder of the lock panics"));
        drop(wakes);
    }
}

/// Reads history from this node's replica.
pub(crate) struct ReplicaHistory<R> {
    replica: Arc<Replica>,
    runtime: std::marker::PhantomData<fn() -> R>,
}

impl<R: Runtime> ReplicaHistory<R> {
    pub(crate) fn new(replica: Arc<Replica>) -> Arc<ReplicaHistory<R>> {
        Arc::new(ReplicaHistory { replica, runtime: std::marker::PhantomData })
    }
}

impl<R: Runtime> History for ReplicaHistory<R> {
    fn page(
        &self,
        room: &RoomId,
        after: Seq,
        limit: usize,
        bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<Arc<Event>>, Error>> {
        let (replica, room) = (self.replica.clone(), room.clone());
        Box::pin(async move {
            let page = R::blocking(move || {
                let state = replica.read_live()?;
                let again = mutant!(RepeatsAtHandOver) && after.0 > 0;
                let first = if again { after } else { after.next() };
                let row = state.room(&room).filter(|row| first >= row.first_seq);
                let gone = || Error::new(Code::InvalidCursor, "these events are no longer kept");
                let row = row.ok_or_else(gone)?;
                Ok(state.events(&room, first, row.head, limit, bytes))
            });
            page.await.map_err(|e| Error::new(Code::Internal, e.to_string())).flatten()
        })
    }
}
