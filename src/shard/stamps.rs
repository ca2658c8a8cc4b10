//! Stamps for entries: the wall clock, as far as a majority of the group's voters confirms it.
//!
//! Log time never goes back, so one entry with a stamp that is far ahead would make the requests of
//! every right clock look old for good. A leader stamps nothing before a majority of voters, itself
//! among them, has been found to have about its time, and from then on nothing that is later than
//! the monotonic clock makes it. One clock of that majority is right if a majority is, so stamps are
//! ahead by twice [`DIFFERENCE_MAX_MS`] at most. The router's clock watch asks.

use std::sync::{Arc, Mutex};

use crate::clock::{Clock, DIFFERENCE_MAX_MS};
use crate::id::NodeId;
use crate::shard::Shard;
use crate::shard::runtime::{Instant, Runtime};

/// A wall clock that cannot run away.
pub(crate) struct Stamps<R: Runtime> {
    clock: Arc<dyn Clock>,
    confirmed: Mutex<Option<Confirmed<R::Instant>>>,
}

/// What the clock said when a majority confirmed it last.
#[derive(Debug, Clone, Copy)]
struct Confirmed<I> {
    at: I,
    ms: u64,
    /// Nobody was asked since who did not confirm it.
    still: bool,
}

impl<R: Runtime> Stamps<R> {
    pub fn new(clock: Arc<dyn Clock>) -> Stamps<R> {
        Stamps { clock, confirmed: Mutex::new(None) }
    }

    /// A stamp for an entry; `None` while there can be none.
    pub fn next(&self) -> Option<u64> {
        let confirmed = *self.confirmed.lock().expect("no holder of the lock panics");
        let Confirmed { at, ms, still } = confirmed?;
        let since = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
        bounded(self.clock.now_ms(), ms.saturating_add(since), still)
    }

    /// Takes the time that a majority confirmed just now, or that it did not.
    fn note(&self, confirmed_ms: Option<u64>) {
        let mut confirmed = self.confirmed.lock().expect("no holder of the lock panics");
        match (confirmed_ms, &mut *confirmed) {
            (Some(ms), known) => {
                *known = Some(Confirmed { at: R::Instant::now(), ms, still: true });
            }
            (None, Some(known)) => known.still = false,
            (None, None) => {}
        }
    }
}

/// The stamp of a clock that says `now_ms`, when by what was confirmed it should say `due_ms`.
///
/// A clock beyond that was set, or the machine slept, which stops the monotonic clock. While it is
/// to be asked about, there is no stamp, so that nothing is decided by a wrong time; once it is not
/// confirmed, what was goes on.
fn bounded(now_ms: u64, due_ms: u64, still: bool) -> Option<u64> {
    let latest = due_ms.saturating_add(DIFFERENCE_MAX_MS);
    match now_ms <= latest {
        true => Some(now_ms),
        false => (!still).then_some(latest),
    }
}

impl<R: Runtime> Shard<R> {
    /// Takes the time that this node's clock had when voters were asked for theirs, and which of
    /// them agree with it; whether they and this node are a majority of the voters.
    pub fn confirm_clock(&self, now_ms: u64, agrees: impl Fn(NodeId) -> bool) -> bool {
        let confirmed = self.is_majority(agrees);
        self.stamps.note(confirmed.then_some(now_ms));
        confirmed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::shard::runtime::TokioRuntime;

    const DAY_MS: u64 = 24 * 3600 * 1000;
    const HOUR_MS: u64 = 3600 * 1000;

    struct Set(AtomicU64);

    impl Clock for Set {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn stamps(ms: u64) -> (Arc<Set>, Stamps<TokioRuntime>) {
        let clock = Arc::new(Set(AtomicU64::new(ms)));
        (clock.clone(), Stamps::new(clock))
    }

    #[test]
    fn a_clock_that_was_never_confirmed_stamps_nothing() {
        let (_, stamps) = stamps(DAY_MS);
        assert_eq!(stamps.next(), None);
        stamps.note(None);
        assert_eq!(stamps.next(), None);
        stamps.note(Some(DAY_MS));
        assert_eq!(stamps.next(), Some(DAY_MS));
    }

    #[test]
    fn a_clock_set_ahead_stamps_nothing_until_it_was_asked_about() {
        let (clock, stamps) = stamps(DAY_MS);
        stamps.note(Some(DAY_MS));
        clock.0.store(DAY_MS + HOUR_MS, Ordering::Relaxed);
        assert_eq!(stamps.next(), None);
        // It was right to be set.
        stamps.note(Some(DAY_MS + HOUR_MS));
        assert_eq!(stamps.next(), Some(DAY_MS + HOUR_MS));
        // It was not, or nobody answers: the time goes on from what was confirmed.
        clock.0.store(DAY_MS + 2 * HOUR_MS, Ordering::Relaxed);
        stamps.note(None);
        let latest = DAY_MS + HOUR_MS + DIFFERENCE_MAX_MS;
        let stamp = stamps.next().unwrap();
        assert!((latest..latest + 60_000).contains(&stamp), "{stamp}");
    }

    #[test]
    fn a_confirmed_clock_counts_for_as_long_as_it_agrees_with_the_monotonic_one() {
        let latest = DAY_MS + DIFFERENCE_MAX_MS;
        for still in [true, false] {
            assert_eq!(bounded(DAY_MS, DAY_MS, still), Some(DAY_MS));
            assert_eq!(bounded(latest, DAY_MS, still), Some(latest));
            // One that is set back is no danger.
            assert_eq!(bounded(HOUR_MS, DAY_MS, still), Some(HOUR_MS));
        }
        assert_eq!(bounded(latest + 1, DAY_MS, true), None);
        assert_eq!(bounded(latest + 1, DAY_MS, false), Some(latest));
    }
}
