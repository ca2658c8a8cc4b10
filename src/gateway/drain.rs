//! Whether this gateway sends its clients to other nodes.
//!
//! While it does, `/health/ready` and `grpc.health.v1` say no, sessions and event streams end with
//! a hint to resume elsewhere, long polls are answered at once, and each connection closes after
//! the answer that it waits for. Other requests are served as ever: load balancers take a moment
//! to notice, and some clients know no other node. How many streams have yet to end is counted here.

use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// Seats that are taken.
    seats: AtomicUsize,
}

/// One of a gateway's sessions, WebSockets, event streams and long polls, for as long as it lives.
#[derive(Debug)]
pub struct Seat(Drain);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.0.seats.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drain {
    /// Off, until a drain begins or `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken) -> Drain {
        let current = Mutex::new(shutdown.child_token());
        Drain(Arc::new(Switch { shutdown, current, seats: AtomicUsize::new(0) }))
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

    /// Counts a session, a WebSocket, an event stream or a long poll in for as long as the seat lives;
    /// `None` when there are `max`.
    pub fn take_seat(&self, max: usize) -> Option<Seat> {
        let seat = Seat(self.clone());
        (self.0.seats.fetch_add(1, Ordering::Relaxed) < max).then_some(seat)
    }

    /// How many sessions, WebSockets, event streams and long polls there are.
    pub fn streams(&self) -> usize {
        self.0.seats.load(Ordering::Relaxed)
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
    fn seats_are_counted_up_to_a_limit() {
        let drain = Drain::new(CancellationToken::new());
        let seats = [drain.take_seat(2), drain.clone().take_seat(2)];
        assert!(seats.iter().all(Option::is_some) && drain.take_seat(2).is_none());
        assert_eq!(drain.streams(), 2);
        drop(seats);
        assert_eq!(drain.streams(), 0);
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
