//! Mints request ids for clients that send none, and executes what they ask for under these.
//!
//! By this node's clock, which may be wrong: an id whose time is too far from that of the log is refused.
//! That is none of the client's business. The clock is corrected by what the log says, and the request
//! sent again, with another id.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::chat::command::{Actor, Command, Done, Request};
use crate::clock::Clock;
use crate::error::{Code, Error};
use crate::gateway::backend::Backend;
use crate::id::RequestId;

/// Ids minted again for one request; one that needs more meets logs that differ about the time.
const CORRECTIONS_MAX: u32 = 3;
/// The last millisecond that an id can have: no log gets there, so it is refused, with the log's time.
const END_OF_TIME_MS: u64 = (1 << 48) - 1;

/// Mints request ids. Clones share what they know of the time.
#[derive(Clone)]
pub struct Mint {
    clock: Arc<dyn Clock>,
    /// Milliseconds to add to the clock; 0 until a log says that it is wrong.
    offset_ms: Arc<AtomicI64>,
}

impl Mint {
    /// Mints by this clock, until it is found to be wrong.
    pub fn new(clock: Arc<dyn Clock>) -> Mint {
        Mint { clock, offset_ms: Arc::default() }
    }

    /// Executes a command under the client's id, or one that is minted; says under which.
    ///
    /// # Errors
    /// The router's.
    pub async fn execute(
        &self,
        backend: &dyn Backend,
        actor: &Actor,
        id: Option<RequestId>,
        command: Command,
    ) -> Result<(Done, RequestId), Error> {
        if let Some(id) = id {
            let request = Request { actor: actor.clone(), id, command };
            return Ok((backend.execute(request).await?, id));
        }
        let mut id = self.next();
        let mut corrections = 0;
        loop {
            let request = Request { actor: actor.clone(), id, command: command.clone() };
            let error = match backend.execute(request).await {
                Ok(done) => return Ok((done, id)),
                Err(error) => error,
            };
            if error.may_have_applied || corrections == CORRECTIONS_MAX {
                return Err(error);
            }
            corrections += 1;
            id = match (error.code, error.server_time_ms) {
                (Code::ClockSkew, Some(log_time_ms)) => {
                    self.correct(log_time_ms);
                    self.next()
                }
                // It does not say what time it is.
                (Code::Expired, _) => RequestId::mint(END_OF_TIME_MS, rand::random()),
                _ => return Err(error),
            };
        }
    }

    fn next(&self) -> RequestId {
        let offset_ms = self.offset_ms.load(Ordering::Relaxed);
        RequestId::mint(self.clock.now_ms().saturating_add_signed(offset_ms), rand::random())
    }

    fn correct(&self, log_time_ms: u64) {
        let now_ms = self.clock.now_ms();
        let offset_ms = log_time_ms.wrapping_sub(now_ms).cast_signed();
        if self.offset_ms.swap(offset_ms, Ordering::Relaxed) == 0 {
            tracing::warn!(
                now_ms,
                log_time_ms,
                "this node's clock is wrong: ids of requests follow the log's"
            );
        }
    }
}
