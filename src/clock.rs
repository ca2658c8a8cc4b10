//! The wall clock behind a trait, so that a simulation can skew it.

use std::time::SystemTime;

/// Clocks that differ by no more than this, in milliseconds, agree.
pub const DIFFERENCE_MAX_MS: u64 = 10_000;

/// Tells wall-clock time. Used for stamps and minted ids only; never for timeouts, and never in
/// `apply`.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
        let now = SystemTime::now();
        // A clock before 1970 is a broken machine; stamps then stay at zero and log time stands.
        now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }
}
