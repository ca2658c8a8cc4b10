//! What subscriptions know of the store.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::chat::event::Event;
use crate::error::Error;
use crate::id::{RoomId, Seq};

/// Reads the events that a room's ring no longer holds. One implementation reads the shard's own
/// store, another asks a node that has a replica.
pub trait History: Send + Sync + 'static {
    /// The events of a room above `after`, ascending, the first one `after + 1`, without holes: at
    /// most `limit` events, and at most `bytes` of bodies but at least one event.
    ///
    /// Called only for events at or below a head that was registered or published, so there is
    /// always one to return. Dropping the future abandons the read.
    ///
    /// # Errors
    /// Where the read fails, or the events are no longer kept, the subscription ends with the
    /// error; its client follows again and learns from `recovered` whether there is a gap.
    fn page(
        &self,
        room: &RoomId,
        after: Seq,
        limit: usize,
        bytes: usize,
    ) -> BoxFuture<'static, Result<Vec<Arc<Event>>, Error>>;
}
