//! Hunts a fault that was planted in the nodes (`src/mutants.rs`): lives with it, seed by seed, until
//! a check finds it.
//!
//! A catch counts only if the same seed passes without the mutant: what is wrong with the nodes as
//! they are, or with the simulator, catches nothing.

use std::ops::Range;

use crate::plan::Wishes;

/// Where to look.
#[derive(Debug, Clone)]
pub struct Hunt {
    /// These seeds, in order.
    pub seeds: Range<u64>,
    /// Lives at once.
    pub jobs: usize,
    /// What lives are to be like.
    pub wishes: Wishes,
    /// Print what happens.
    pub spoken: bool,
}

/// Without `cfg(mutants)` there is nothing to hunt.
#[cfg(not(mutants))]
pub fn run(_name: Option<&str>, _hunt: &Hunt) -> std::process::ExitCode {
    crate::output::tell(format_args!(
        "folkmoot-sim: no faults are planted in this build: build with RUSTFLAGS=\"--cfg mutants\""
    ));
    std::process::ExitCode::from(2)
}

#[cfg(mutants)]
pub use planted::run;

#[cfg(mutants)]
mod planted {
    use std::process::ExitCode;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};

    use folkmoot::mutants::{self, Mutant};

    use super::Hunt;
    use crate::life;
    use crate::output::{say, tell};
    use crate::plan::Plan;

    /// Lists the mutants, or hunts the one of this name. 0: caught, 1: not caught, 2: no such mutant.
    pub fn run(name: Option<&str>, hunt: &Hunt) -> ExitCode {
        let Some(name) = name else {
            for mutant in Mutant::ALL {
                let (name, place, what) = (mutant.name(), mutant.place(), mutant.what());
                say(format_args!("{name}\t{place}\t{what}"));
            }
            return ExitCode::SUCCESS;
        };
        let Some(mutant) = Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name) else {
            tell(format_args!("folkmoot-sim: there is no mutant {name:?}: see --mutants-list"));
            return ExitCode::from(2);
        };
        let mut from = hunt.seeds.start;
        while let Some(catch) = first_failure(mutant, from, hunt) {
            mutants::choose(None);
            if failures(catch.seed, hunt).is_empty() {
                let seeds = catch.seed - hunt.seeds.start + 1;
                let Catch { checks, seed, .. } = &catch;
                say(format_args!("{name}\tcaught\t{checks}\t{seeds}\tseed {seed}"));
                for failure in catch.failures.iter().take(3) {
                    let lines: Vec<&str> = failure.lines().take(4).collect();
                    tell(format_args!("  {}", lines.join("\n  ")));
                }
                return ExitCode::SUCCESS;
            }
            tell(format_args!("seed {} fails without the mutant, too: passed over", catch.seed));
            from = catch.seed + 1;
        }
        say(format_args!("{name}\tNOT CAUGHT\t\t{}\t", hunt.seeds.end - hunt.seeds.start));
        ExitCode::FAILURE
    }

    struct Catch {
        seed: u64,
        checks: String,
        failures: Vec<String>,
    }

    /// The lowest of the seeds from `from` on whose life fails with the mutant.
    fn first_failure(mutant: Mutant, from: u64, hunt: &Hunt) -> Option<Catch> {
        mutants::choose(Some(mutant));
        let next = AtomicU64::new(from);
        let found: Mutex<Option<Catch>> = Mutex::new(None);
        let lowest = || found.lock().expect("no holder panics").as_ref().map(|catch| catch.seed);
        std::thread::scope(|scope| {
            for _ in 0..hunt.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        // Lower seeds than one that failed are lived to the end: so the answer does
                        // not depend on which thread is quicker.
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= hunt.seeds.end || lowest().is_some_and(|low| low < seed) {
                            return;
                        }
                        let failures = failures(seed, hunt);
                        if failures.is_empty() {
                            continue;
                        }
                        let catch = Catch { seed, checks: checks(&failures), failures };
                        let mut found = found.lock().expect("no holder panics");
                        if found.as_ref().is_none_or(|known| seed < known.seed) {
                            *found = Some(catch);
                        }
                    }
                });
            }
        });
        found.into_inner().expect("no holder panics")
    }

    /// What is wrong with a life.
    fn failures(seed: u64, hunt: &Hunt) -> Vec<String> {
        life::live(&Plan::draw(seed, &hunt.wishes), hunt.spoken).failures
    }

    /// How failures begin, or what they contain, and the check that says so.
    const CHECKS: &[(&str, &str)] = &[
        ("election safety", "election safety"),
        ("committed entry", "log matching"),
        ("log matching: ", "log matching"),
        ("on the disks of", "quorum of disks"),
        ("has purged the log", "purged what is on disk"),
        ("opened a log", "lost end refused"),
        ("replicas diverged", "chains at every step"),
        ("replicas of shard", "replicas at the end"),
        ("dedup: ", "dedup at the end"),
        ("idempotence: ", "idempotence"),
        ("liveness: ", "liveness"),
        ("convergence: ", "convergence"),
        ("stopped without cause", "stopped without cause"),
        ("had applied entry", "applied goes on"),
        ("seqs: ", "seqs"),
        ("panicked", "panic"),
        ("placement: ", "placement"),
        ("join: ", "join"),
        ("no room could be created", "liveness"),
        ("unknown: ", "no verdict"),
        ("determinism: ", "determinism"),
    ];

    /// The checks that failed, each once, the first one first.
    fn checks(failures: &[String]) -> String {
        let mut names: Vec<String> = Vec::new();
        let mut add = |name: &str| {
            if !names.iter().any(|known| known == name) {
                names.push(name.into());
            }
        };
        for failure in failures {
            let first = failure.lines().next().unwrap_or_default();
            if let Some(anomalies) = first.strip_prefix("invalid: ") {
                for anomaly in anomalies.split(", ") {
                    add(anomaly.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' '));
                }
                continue;
            }
            let known = CHECKS.iter().find(|(text, _)| failure.contains(text));
            add(known.map_or("other", |(_, name)| name));
        }
        names.join(", ")
    }
}
