//! Whether this gateway sends its clients to other nodes.
//!
//! While it does, `/health/ready` and `grpc.health.v1` say no, sessions and event streams end with
//! a hint to resume elsewhere, long polls are answered at once, and each connection closes after
//! the answer that it waits for. Other requests are served as ever: load balancers take a moment
//! to notice, and some clients know no other node.

use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

/// A switch that every connection of a gateway watches.
///
/// On while the gateway is shutting down, too: a drain is the beginning of a shutdown, or stands
/// by itself.
#[derive(Debug, Clone)]
pub struct Drain(Arc<Switch>);

#[derive(Debug)]
struct Switch {
    shutdown: CancellationToken,
    /// Cancelled while the gateway is drained; each drain has its own, so that none is missed.
    current: Mutex<CancellationToken>,
}

impl Drain {
    /// Off, until a drain begins or `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken) -> Drain {
        let current = Mutex::new(shutdown.child_token());
        Drain(Arc::new(Switch { shutdown, current }))
    }

    /// Begins to send clients elsewhere. Nothing changes where that has begun.
    pub fn begin(&self) {
        self.begun().cancel();
    }

    /// Takes clients again, unless the gateway is shutting down. What has ended stays so.
    pub fn end(&self) {
        let mut current = self.0.current.lock().expect("no holder of the lock panics");
        if current.is_cancelled() {
            *current = self.0.shutdown.child_token();
        }
    }

    /// Whether clients are to go elsewhere.
    pub fn is_on(&self) -> bool {
        self.begun().is_cancelled()
    }

    /// Is cancelled when the next drain begins; at once while one is on.
    pub fn begun(&self) -> CancellationToken {
        self.0.current.lock().expect("no holder of the lock panics").clone()
    }

    /// Cancelled when the gateway shuts down.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.0.shutdown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_can_be_undone_and_no_watcher_misses_it() {
        let shutdown = CancellationToken::new();
        let drain = Drain::new(shutdown.clone());
        let (other, begun) = (drain.clone(), drain.begun());
        assert!(!drain.is_on());
        other.begin();
        other.begin();
        assert!(drain.is_on() && begun.is_cancelled() && !shutdown.is_cancelled());
        other.end();
        assert!(!drain.is_on() && begun.is_cancelled(), "what watched the first drain heard of it");
        assert!(!drain.begun().is_cancelled());
    }

    #[test]
    fn a_shutdown_is_a_drain_that_cannot_be_undone() {
        let shutdown = CancellationToken::new();
        let drain = Drain::new(shutdown.clone());
        shutdown.cancel();
        assert!(drain.is_on());
        drain.end();
        assert!(drain.is_on());
    }
}
