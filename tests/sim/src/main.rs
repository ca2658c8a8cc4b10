//! `folkmoot-sim`: runs simulated lives of a cluster, and judges them.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use folkmoot_sim::life::Outcomes;
use folkmoot_sim::mutants::{self, Hunt};
use folkmoot_sim::output::{say, tell};
use folkmoot_sim::plan::{Fault, Plan, Wishes};
use folkmoot_sim::runner::{Run, Totals};
use folkmoot_sim::shrink::shrink;
use folkmoot_sim::{kept, runtime};
use indicatif::{ProgressBar, ProgressStyle};

/// A sixth of a life was the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs simulated lives of a Folkmoot cluster, and judges them.
///
/// A life is drawn from its seed: how many nodes, clients and rooms there are, how disks and the
/// network behave, and which faults happen when. The same seed of the same build has the same
/// trace. Exits with 0 when all is well, with 1 when a life failed, and with 2 when it was asked
/// for something impossible.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// One seed.
    #[arg(long, conflicts_with_all = ["seeds", "kept"])]
    seed: Option<u64>,
    /// The seeds from A on, without B.
    #[arg(long, value_name = "A..B", value_parser = range, default_value = "0..1000")]
    seeds: (u64, u64),
    /// The seeds that found something once.
    #[arg(long, conflicts_with = "seeds")]
    kept: bool,
    /// Lives at once.
    #[arg(long, default_value_t = 2, value_parser = jobs)]
    jobs: usize,
    /// Begin no new life after this time, as in 180 (seconds).
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    at_most: Option<u64>,
    /// Begin no new life after a failure.
    #[arg(long)]
    until_failure: bool,
    /// Live each life twice, and compare the traces.
    #[arg(long)]
    twice: bool,
    /// Print everything that happens, on standard error.
    #[arg(long)]
    trace: bool,
    /// Print what the nodes log as well, as in "folkmoot=debug,openraft=info", on standard error.
    #[arg(long, value_name = "FILTER", value_parser = filter)]
    log: Option<String>,
    /// Look for a smaller life that fails, too. With --twice also for one whose traces differ.
    #[arg(long)]
    shrink: bool,
    /// Write what clients saw to this file, for folkmoot-jepsen.
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Only these sorts of faults; "none" for none.
    #[arg(long, value_delimiter = ',', value_parser = fault)]
    faults: Option<Vec<Option<Fault>>>,
    /// None of these sorts of faults.
    #[arg(long, value_name = "FAULT,…", value_delimiter = ',')]
    without: Vec<Fault>,
    /// Of the strikes that were drawn, only those with these numbers; "none" for none. All else stays as
    /// it was drawn, unlike with --faults none.
    #[arg(long, value_delimiter = ',', value_parser = strike)]
    strikes: Option<Vec<Option<usize>>>,
    /// How many nodes have replicas, from 3 to 5.
    #[arg(long, value_parser = clap::value_parser!(u64).range(3..=5))]
    nodes: Option<u64>,
    /// At most so many clients.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    clients: Option<u64>,
    /// How long load and faults last, in virtual milliseconds.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=600_000))]
    time: Option<u64>,
    /// Only lives in which nodes join, are drained and replaced, and all is spread anew.
    #[arg(long)]
    changes: bool,
    /// Let disks say that they synced, and not do it, as no disk may: so lives fail, to see what
    /// that looks like.
    #[arg(long)]
    lying_disks: bool,
    /// Plant this bug in the nodes, and look for the first of the seeds that shows it. Needs a
    /// build with RUSTFLAGS="--cfg mutants".
    #[arg(long, value_name = "NAME", conflicts_with = "kept")]
    mutant: Option<String>,
    /// List the bugs that can be planted.
    #[arg(long)]
    mutants_list: bool,
}

const EXAMPLES: &str = "\
Examples:
  folkmoot-sim --seeds 0..2000
  folkmoot-sim --seeds 0..1000000 --until-failure --jobs 8
  folkmoot-sim --seed 7496 --trace
  folkmoot-sim --seed 7496 --shrink
  folkmoot-sim --seeds 0..500 --faults power-cut,kill --nodes 5
  folkmoot-sim --seeds 0..50 --lying-disks --until-failure";

fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("seeds are a range, as in 0..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
    let (from, to) = (number(from)?, number(to)?);
    match to.checked_sub(from) {
        None | Some(0) => Err("the range is empty".into()),
        Some(1..=100_000_000) => Ok((from, to)),
        Some(_) => Err("that is more than 100,000,000 seeds".into()),
    }
}

fn jobs(text: &str) -> Result<usize, String> {
    let jobs = text.parse().ok().filter(|jobs| (1..=1024).contains(jobs));
    jobs.ok_or_else(|| format!("{text:?} is not a number from 1 to 1024"))
}

fn filter(text: &str) -> Result<String, String> {
    let parsed = tracing_subscriber::EnvFilter::try_new(text);
    parsed.map(|_| text.to_owned()).map_err(|why| format!("{why}; as in \"folkmoot=debug\""))
}

fn strike(text: &str) -> Result<Option<usize>, String> {
    match text {
        "none" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| format!("{text:?} is neither a number nor none")),
    }
}

fn fault(text: &str) -> Result<Option<Fault>, String> {
    if text == "none" {
        return Ok(None);
    }
    let fault = <Fault as clap::ValueEnum>::from_str(text, false);
    let all: Vec<String> = Fault::ALL.iter().map(Fault::to_string).collect();
    fault.map(Some).map_err(|_| format!("there are none and {}", all.join(", ")))
}

impl Args {
    /// What cannot be done together. (clap takes one seed for granted where a range is given.)
    fn check(&self) -> Result<(), String> {
        let one_seed = [
            ("--trace", self.trace),
            ("--shrink", self.shrink),
            ("--history", self.history.is_some()),
            ("--strikes", self.strikes.is_some()),
        ];
        let wanted = one_seed.iter().find(|(_, given)| *given && self.seed.is_none());
        if let Some((option, _)) = wanted {
            return Err(format!("{option} needs one --seed"));
        }
        let hunts = self.mutant.is_some() || self.mutants_list;
        let more = self.shrink || self.twice || self.until_failure || self.history.is_some();
        if hunts && (more || self.at_most.is_some()) {
            return Err(
                "a hunt for a mutant ends at the first seed that shows it, and does no more: \
                        leave --shrink, --twice, --until-failure, --history and --at-most out"
                    .into(),
            );
        }
        self.check_faults()?;
        let strikes = self.strikes.as_deref().unwrap_or_default();
        if strikes.len() > 1 && strikes.contains(&None) {
            return Err("--strikes none stands alone".into());
        }
        let drawn = |seed| Plan::draw(seed, &Wishes { strikes: None, ..self.wishes() }).strikes;
        if let Some(seed) = self.seed
            && let Some(strike) = strikes.iter().flatten().find(|it| **it >= drawn(seed).len())
        {
            return Err(format!(
                "seed {seed} has {} strikes, from 0 on: no {strike}",
                drawn(seed).len()
            ));
        }
        Ok(())
    }

    /// Which sorts of faults cannot be had together.
    fn check_faults(&self) -> Result<(), String> {
        let faults = self.faults.as_deref().unwrap_or_default();
        if faults.len() > 1 && faults.contains(&None) {
            return Err("--faults none stands alone".into());
        }
        if let Some(both) = faults.iter().flatten().find(|fault| self.without.contains(fault)) {
            return Err(format!("{both} is asked for, and left out"));
        }
        let changes = Fault::CHANGES.map(|fault| fault.to_string()).join(", ");
        let changing = |fault: &Fault| Fault::CHANGES.contains(fault);
        if self.changes && self.faults.is_some() && !faults.iter().flatten().any(changing) {
            return Err(format!(
                "with --changes every life has one of {changes}: name at least one of them in --faults, or \
                 leave --changes out"
            ));
        }
        if self.changes && Fault::CHANGES.iter().all(|fault| self.without.contains(fault)) {
            return Err(format!(
                "with --changes every life has one of {changes}: leave at least one of them in, or leave \
                 --changes out"
            ));
        }
        let moves = faults.iter().flatten().find(|fault| fault.moves());
        if let Some(moves) = moves.filter(|_| faults.contains(&Some(Fault::Damage))) {
            return Err(format!(
                "{} and {moves} are in no life together, as a move to or from a node that is gone for good \
                 never ends: ask for them in two runs",
                Fault::Damage
            ));
        }
        Ok(())
    }

    fn wishes(&self) -> Wishes {
        Wishes {
            faults: self.faults.clone().map(|faults| faults.into_iter().flatten().collect()),
            without: self.without.iter().copied().collect(),
            strikes: self.strikes.clone().map(|strikes| strikes.into_iter().flatten().collect()),
            time: self.time.map(Duration::from_millis),
            replicas: self.nodes,
            clients_max: self.clients.map(|clients| clients as usize),
            lying_disks: self.lying_disks,
            changes: self.changes,
        }
    }

    fn run(&self) -> Run {
        let (from, to) = self.seeds;
        Run {
            seeds: match self.seed {
                Some(seed) => vec![seed],
                None if self.kept => kept::seeds(),
                None => (from..to).collect(),
            },
            wishes: self.wishes(),
            jobs: self.jobs,
            until_failure: self.until_failure,
            at_most: self.at_most.map(Duration::from_secs),
            twice: self.twice,
            trace: self.trace,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(why) = args.check() {
        Args::command().error(ErrorKind::ArgumentConflict, why).exit();
    }
    runtime::quiet_panics();
    if let Some(filter) = &args.log {
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .without_time()
            .with_ansi(false)
            .init();
    }
    if args.mutants_list || args.mutant.is_some() {
        let (from, to) = args.seed.map_or(args.seeds, |seed| (seed, seed + 1));
        let wishes = args.wishes();
        let hunt = Hunt { seeds: from..to, jobs: args.jobs, wishes, spoken: args.trace };
        return mutants::run(args.mutant.as_deref(), &hunt);
    }
    let run = args.run();
    let bar = progress(&run, &args);
    let (failed, begun) = (AtomicU64::new(0), Instant::now());
    let history = std::sync::Mutex::new(Ok(()));
    let totals = run.run(&|outcome| {
        if !outcome.failures.is_empty() {
            failed.fetch_add(1, Ordering::Relaxed);
            bar.suspend(|| report(outcome, &run.wishes));
        }
        if args.seed.is_some() {
            match args.trace {
                true => say(format_args!("{:#?}", outcome.plan)),
                false => say(format_args!("{}", outcome.plan)),
            }
            let (hash, steps, took) = (outcome.hash, outcome.steps, outcome.took);
            say(format_args!("trace {hash}, {steps} steps, {took:?} virtual"));
        }
        if let Some(path) = &args.history {
            *history.lock().expect("no holder of the lock panics") = write(path, outcome);
        }
        bar.set_message(format!("{} failed", failed.load(Ordering::Relaxed)));
        bar.inc(1);
        let done = bar.position();
        if bar.is_hidden() && done.is_multiple_of(REPORT_EVERY) && done < run.seeds.len() as u64 {
            let (of, failed) = (run.seeds.len(), failed.load(Ordering::Relaxed));
            let rate = done as f64 / begun.elapsed().as_secs_f64() * 60.0;
            tell(format_args!("{done} of {of} lives, {rate:.0} a minute, {failed} failed"));
        }
    });
    bar.finish_and_clear();
    sum_up(&totals);
    if let Err(error) = history.into_inner().expect("no holder of the lock panics") {
        tell(format_args!("cannot write the history: {error}"));
        return ExitCode::from(2);
    }
    if totals.lives == 0 {
        tell(format_args!("folkmoot-sim: there was no time for any life"));
        return ExitCode::from(2);
    }
    if let Some(seed) = args.seed.filter(|_| args.shrink && totals.failed > 0) {
        let twice = if args.twice { " --twice" } else { "" };
        let mut smaller = |smaller: &Wishes| {
            tell(format_args!("smaller: {}{twice}", command(seed, smaller)));
        };
        let smallest = shrink(seed, &run, &mut smaller);
        say(format_args!("smallest found: {}{twice}", command(seed, &smallest)));
    }
    ExitCode::from(u8::from(totals.failed > 0))
}

/// After how many lives progress is told where there is no terminal for a bar.
const REPORT_EVERY: u64 = 1000;

fn progress(run: &Run, args: &Args) -> ProgressBar {
    if args.trace || run.seeds.len() < 2 || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{bar:30} {pos}/{len} lives, {per_sec}, {msg}, {eta} left";
    let style = ProgressStyle::with_template(style).unwrap_or(ProgressStyle::default_bar());
    ProgressBar::new(run.seeds.len() as u64).with_style(style)
}

fn write(path: &PathBuf, outcome: &Outcomes) -> io::Result<()> {
    outcome.history.write(BufWriter::new(File::create(path)?))
}

/// Says what failed, and how to see it again.
fn report(outcome: &Outcomes, wishes: &Wishes) {
    tell(format_args!("FAILED {}", outcome.plan));
    for failure in outcome.failures.iter().take(5) {
        tell(format_args!("  {failure}"));
    }
    if outcome.failures.len() > 5 {
        tell(format_args!("  … and {} more", outcome.failures.len() - 5));
    }
    let differs = outcome.failures.iter().any(|failure| failure.starts_with("determinism:"));
    let twice = if differs { " --twice" } else { "" };
    tell(format_args!("  again: {} --trace{twice}", command(outcome.plan.seed, wishes)));
}

/// The command that lives a life again.
fn command(seed: u64, wishes: &Wishes) -> String {
    let mut command = format!("cargo run --release -p folkmoot-sim -- --seed {seed}");
    let list = |items: Vec<String>| items.join(",");
    let or_none = |items: Vec<String>| if items.is_empty() { "none".into() } else { list(items) };
    if let Some(faults) = &wishes.faults {
        let faults = or_none(faults.iter().map(Fault::to_string).collect());
        command += &format!(" --faults {faults}");
    }
    if !wishes.without.is_empty() {
        let without = list(wishes.without.iter().map(Fault::to_string).collect());
        command += &format!(" --without {without}");
    }
    if let Some(strikes) = &wishes.strikes {
        let strikes = or_none(strikes.iter().map(usize::to_string).collect());
        command += &format!(" --strikes {strikes}");
    }
    if let Some(nodes) = wishes.replicas {
        command += &format!(" --nodes {nodes}");
    }
    if let Some(clients) = wishes.clients_max {
        command += &format!(" --clients {clients}");
    }
    if let Some(time) = wishes.time {
        command += &format!(" --time {}", time.as_millis());
    }
    if wishes.changes {
        command += " --changes";
    }
    if wishes.lying_disks {
        command += " --lying-disks";
    }
    command
}

fn sum_up(totals: &Totals) {
    say(format_args!(
        "{} lives, {} failed; {:.1} s, {:.0} lives a minute; {} operations ok, {:.0} s of virtual \
         time, {:.0} polls a life",
        totals.lives,
        totals.failed,
        totals.took.as_secs_f64(),
        totals.rate(),
        totals.ok,
        totals.virtual_time.as_secs_f64(),
        totals.polls as f64 / totals.lives.max(1) as f64,
    ));
}
