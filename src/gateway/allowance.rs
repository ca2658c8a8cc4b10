//! Allowances that are used up and come back with time, for a fixed number of places: the generic cell
//! rate algorithm (ITU-T I.371), which keeps one number for each.
//!
//! A place is a keyed hash, which nobody outside can choose, of whoever has the allowance; who shares
//! a place shares it. So memory does not grow, whoever comes.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So many at once, and one more after each pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least one.
    pub burst: u32,
    /// At least a microsecond.
    pub pause: Duration,
}

impl Rate {
    fn pause_us(self) -> u64 {
        u64::try_from(self.pause.as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// How long until there is one left.
    fn wait_us(self, until: u64, now_us: u64) -> u64 {
        let allowed = self.pause_us().saturating_mul(u64::from(self.burst.saturating_sub(1)));
        until.saturating_sub(now_us).saturating_sub(allowed)
    }

    fn used(self, until: u64, now_us: u64) -> u64 {
        until.max(now_us).saturating_add(self.pause_us())
    }
}

/// The allowances of one kind.
#[derive(Debug)]
pub struct Allowances {
    hasher: RandomState,
    begin: Instant,
    /// Of each place: until when what was used is not back yet, in microseconds since `begin`.
    until: Vec<AtomicU64>,
}

impl Allowances {
    /// Of so many places.
    pub fn new(places: usize) -> Allowances {
        let until = (0..places.max(1)).map(|_| AtomicU64::new(0)).collect();
        Allowances { hasher: RandomState::new(), begin: Instant::now(), until }
    }

    fn place(&self, who: impl Hash) -> &AtomicU64 {
        let hash = self.hasher.hash_one(who);
        &self.until[(hash % self.until.len() as u64) as usize]
    }

    fn us(&self, now: Instant) -> u64 {
        u64::try_from(now.duration_since(self.begin).as_micros()).unwrap_or(u64::MAX)
    }

    /// How long whoever it is has to wait until there is one left; zero where there is.
    pub fn wait(&self, who: impl Hash, rate: Rate, now: Instant) -> Duration {
        let until = self.place(who).load(Ordering::Relaxed);
        Duration::from_micros(rate.wait_us(until, self.us(now)))
    }

    /// Uses one up, if there is one left.
    ///
    /// # Errors
    /// How long to wait until there is; nothing is used up then.
    pub fn take(&self, who: impl Hash, rate: Rate, now: Instant) -> Result<(), Duration> {
        let now_us = self.us(now);
        let used = |until| (rate.wait_us(until, now_us) == 0).then(|| rate.used(until, now_us));
        let taken = self.place(who).fetch_update(Ordering::Relaxed, Ordering::Relaxed, used);
        taken.map(drop).map_err(|until| Duration::from_micros(rate.wait_us(until, now_us)))
    }

    /// Gives one back that was used up.
    pub fn give_back(&self, who: impl Hash, rate: Rate) {
        let given = |until: u64| Some(until.saturating_sub(rate.pause_us()));
        let _always = self.place(who).fetch_update(Ordering::Relaxed, Ordering::Relaxed, given);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 10, pause: Duration::from_millis(2) };

    #[test]
    fn a_burst_and_then_one_after_each_pause() {
        let (allowances, now) = (Allowances::new(1 << 16), Instant::now());
        let taken = (0..100).filter(|_| allowances.take("ann", RATE, now).is_ok()).count();
        assert_eq!(taken, 10);
        let wait = allowances.take("ann", RATE, now).unwrap_err();
        assert_eq!(wait, RATE.pause);
        assert_eq!(allowances.wait("ann", RATE, now), wait);
        allowances.take("bob", RATE, now).unwrap();
        allowances.take("ann", RATE, now + wait).unwrap();
        assert!(allowances.take("ann", RATE, now + wait).is_err());
        allowances.give_back("ann", RATE);
        allowances.take("ann", RATE, now + wait).unwrap();
        let later = now + Duration::from_secs(1);
        let taken = (0..100).filter(|_| allowances.take("ann", RATE, later).is_ok()).count();
        assert_eq!(taken, 10, "never more than a burst");
    }

    #[test]
    fn who_shares_a_place_shares_the_allowance() {
        let (allowances, now) = (Allowances::new(1), Instant::now());
        let taken = (0..100).filter(|n| allowances.take(n, RATE, now).is_ok()).count();
        assert_eq!(taken, 10);
    }
}
