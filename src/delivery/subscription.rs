//! One follower of one room: history first, then live, each seq one above the last.

use std::sync::Arc;

use crate::delivery::encoded::Encoded;
use crate::error::Error;
use crate::id::{Epoch, RoomId, Seq};

/// One follower of one room. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    /// The room.
    pub room: RoomId,
    /// The room's epoch.
    pub epoch: Epoch,
    /// The oldest event kept when the subscription began.
    pub first_seq: Seq,
    /// The room's head when the subscription began.
    pub head: Seq,
    /// False when there is a gap between the cursor asked for and the first event delivered.
    pub recovered: bool,
}

/// What comes next on a subscription.
#[derive(Debug)]
pub enum Next {
    /// Events in order, the first one above the last delivered before.
    Events(Vec<Arc<Encoded>>),
    /// Everything up to this seq, the head when the subscription began, has been delivered.
    CaughtUp(Seq),
    /// This node cannot go on; follow again from the last delivered seq, perhaps elsewhere.
    Ended(Error),
}

impl Subscription {
    /// Waits for what comes next. Cancel safe.
    pub async fn next(&mut self) -> Next {
        unimplemented!()
    }
}
