//! `folkmoot-sim`: runs simulated lives of a cluster, and judges them.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "it is a command")]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use folkmoot_sim::life::{self, Outcomes};
use folkmoot_sim::mutants::{self, Hunt};
use folkmoot_sim::plan::{Fault, Plan, Wishes};
use folkmoot_sim::runtime;

/// Runs simulated lives of a Folkmoot cluster, and judges them.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// One seed.
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// A range of seeds, A..B, without B.
    #[arg(long, value_parser = range, default_value = "0..100")]
    seeds: (u64, u64),
    /// Lives at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Stop at the first failure.
    #[arg(long)]
    until_failure: bool,
    /// Live each life twice, and compare the traces.
    #[arg(long)]
    twice: bool,
    /// Print what happens.
    #[arg(long)]
    trace: bool,
    /// Only these sorts of faults.
    #[arg(long, value_delimiter = ',')]
    faults: Option<Vec<Fault>>,
    /// None of these sorts of faults.
    #[arg(long, value_delimiter = ',')]
    without: Vec<Fault>,
    /// Plant this fault in the nodes, and look for the first of the seeds that shows it. Needs a
    /// build with RUSTFLAGS="--cfg mutants".
    #[arg(long)]
    mutant: Option<String>,
    /// List the faults that can be planted.
    #[arg(long)]
    mutants_list: bool,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("seeds are a range, as in 0..100")?;
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is not a number"));
    let (from, to) = (number(from)?, number(to)?);
    if from < to { Ok((from, to)) } else { Err("the range is empty".into()) }
}

fn main() -> ExitCode {
    let args = Args::parse();
    runtime::quiet_panics();
    let wishes = Wishes {
        faults: args.faults.clone().map(|faults| faults.into_iter().collect::<BTreeSet<_>>()),
        without: args.without.iter().copied().collect(),
        ..Wishes::default()
    };
    let (from, to) = args.seed.map_or(args.seeds, |seed| (seed, seed + 1));
    if args.mutants_list || args.mutant.is_some() {
        let hunt = Hunt { seeds: from..to, jobs: args.jobs, wishes, spoken: args.trace };
        return mutants::run(args.mutant.as_deref(), &hunt);
    }
    let next = AtomicU64::new(from);
    let failed = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let totals = std::sync::Mutex::new((0u64, 0u64, 0u64, Duration::ZERO));
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        return;
                    }
                    let plan = Plan::draw(seed, &wishes);
                    let mut outcome = life::live(&plan, args.trace);
                    if args.twice {
                        let again = life::live(&plan, false);
                        if again.hash != outcome.hash {
                            outcome.failures.push(format!(
                                "not deterministic: {} then {}",
                                outcome.hash, again.hash
                            ));
                        }
                    }
                    {
                        let mut totals = totals.lock().expect("no holder panics");
                        totals.0 += 1;
                        totals.1 += outcome.ok;
                        totals.2 += outcome.polls;
                        totals.3 += outcome.took;
                    }
                    if args.seed.is_some() {
                        println!(
                            "{} hash {} ok {} steps {} polls {} took {:?}",
                            plan,
                            outcome.hash,
                            outcome.ok,
                            outcome.steps,
                            outcome.polls,
                            outcome.took
                        );
                    }
                    if !outcome.failures.is_empty() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        report(&outcome);
                        if args.until_failure {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    let took = began.elapsed();
    let totals = totals.into_inner().expect("no holder panics");
    println!(
        "{} lives, {} failed, {:.1} s, {:.0} a minute; {} ok, {} polls, {:?} virtual",
        totals.0,
        failed,
        took.as_secs_f64(),
        totals.0 as f64 / took.as_secs_f64() * 60.0,
        totals.1,
        totals.2,
        totals.3
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(outcome: &Outcomes) {
    eprintln!("FAILED {}", outcome.plan);
    for failure in outcome.failures.iter().take(5) {
        eprintln!("  {failure}");
    }
}
