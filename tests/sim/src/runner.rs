//! Many lives at once, and what came of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::life::{self, Outcomes};
use crate::plan::{Plan, Wishes};

/// Which lives, and how.
#[derive(Debug, Clone)]
pub struct Run {
    /// The seeds, in order.
    pub seeds: Vec<u64>,
    /// What is wished of every life.
    pub wishes: Wishes,
    /// Lives at once.
    pub jobs: usize,
    /// No new life begins after a failure.
    pub until_failure: bool,
    /// No new life begins after this time.
    pub at_most: Option<Duration>,
    /// Each life is lived twice, and must have the same trace.
    pub twice: bool,
    /// What happens is printed.
    pub trace: bool,
}

/// How it went, all lives together.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Lives that came to an end.
    pub lives: u64,
    /// Those with failures.
    pub failed: u64,
    /// Operations that were answered.
    pub ok: u64,
    /// Times that a task was polled.
    pub polls: u64,
    /// Virtual time.
    pub virtual_time: Duration,
    /// Real time.
    pub took: Duration,
}

impl Totals {
    /// Lives a minute.
    pub fn rate(&self) -> f64 {
        self.lives as f64 / self.took.as_secs_f64().max(1e-9) * 60.0
    }
}

impl Run {
    /// Lives all the lives; `ended` is told of each.
    pub fn run(&self, ended: &(dyn Fn(&Outcomes) + Sync)) -> Totals {
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let (totals, began) = (Mutex::new(Totals::default()), Instant::now());
        let over = || self.at_most.is_some_and(|most| began.elapsed() >= most);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) && !over() {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(seed) = self.seeds.get(at as usize) else { return };
                        let outcome = self.life(*seed);
                        let failed = !outcome.failures.is_empty();
                        {
                            let mut totals = totals.lock().expect("no holder of the lock panics");
                            totals.lives += 1;
                            totals.failed += u64::from(failed);
                            totals.ok += outcome.ok;
                            totals.polls += outcome.polls;
                            totals.virtual_time += outcome.took;
                        }
                        ended(&outcome);
                        if failed && self.until_failure {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let totals = totals.into_inner().expect("no holder of the lock panics");
        Totals { took: began.elapsed(), ..totals }
    }

    /// Lives one life, or the same one twice.
    pub fn life(&self, seed: u64) -> Outcomes {
        let plan = Plan::draw(seed, &self.wishes);
        let mut outcome = life::live(&plan, self.trace);
        if self.twice {
            outcome.failures.extend(differ(&outcome, &life::live(&plan, false)));
        }
        outcome
    }
}

/// What is wrong if two lives of one seed are not the same.
fn differ(first: &Outcomes, second: &Outcomes) -> Option<String> {
    let (first, second) = (first.hash, second.hash);
    (first != second)
        .then(|| format!("determinism: two lives of one seed have the traces {first} and {second}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_that_goes_another_way_is_told_from_the_same_again() {
        let [one, again, another] =
            [1, 1, 2].map(|seed| life::live(&Plan::draw(seed, &Wishes::default()), false));
        assert_eq!(differ(&one, &again), None);
        let said = differ(&one, &another).unwrap();
        assert!(said.starts_with("determinism: "), "{said}");
    }
}
