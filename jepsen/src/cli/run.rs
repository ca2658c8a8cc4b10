//! `folkmoot-jepsen run` and `cleanup`.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use folkmoot_jepsen::check::{self, Verdict};
use folkmoot_jepsen::cluster::made;
use folkmoot_jepsen::run::client::session::Transport;
use folkmoot_jepsen::run::nemesis::kind::Kind;
use folkmoot_jepsen::run::options::{Asked, Options};
use folkmoot_jepsen::run::timing::Times;
use folkmoot_jepsen::run::verdict::{Limits, Results};
use folkmoot_jepsen::run::{self, Outcome};
use rand::Rng;
use serde_json::json;

use super::{EXIT_ERROR, Failure, printable, verdict_code};

/// How many spare nodes churn has unless it is told.
const SPARES: usize = 2;

/// Options of `run`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot-jepsen run --time 60s\n  \
    folkmoot-jepsen run --local --nodes 3 --time 20s --nemesis kill,pause\n  \
    folkmoot-jepsen run --nodes 5 --nemesis partition,power-cut --seed 7\n  \
    folkmoot-jepsen run --local --spares 2 --nemesis churn,kill --time 2m\n  \
    folkmoot-jepsen run --local --follow ws --nemesis kill\n  \
    folkmoot-jepsen run --json --time 5m | jq .failover_ms\n  \
    folkmoot-jepsen run --nemesis kill-leader --failover-within 2s --failover-median 1200ms\n\n\
    Without --local it takes root: each node gets a network namespace and a disk of its own, and\n\
    nothing of the machine's own network or disks is touched. Exits with 0 when the run is valid, 1\n\
    when it is invalid, and 2 when there is no verdict. It may be interrupted at any time, and takes\n\
    away what it made. After a crash of this program itself, `folkmoot-jepsen cleanup` does that.")]
pub(super) struct RunArgs {
    /// The folkmoot to test; by default the one beside this program.
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,
    /// Nodes: 3 or 5.
    #[arg(long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// Spare nodes, for churn: they join, and take others' places. By default two with churn.
    #[arg(long, value_name = "N")]
    spares: Option<usize>,
    /// How long to attack.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "60s")]
    time: Duration,
    /// Operations a second that all workers together begin, at most.
    #[arg(long, value_name = "N", default_value_t = 400)]
    rate: u32,
    /// Rooms in use at a time.
    #[arg(long, value_name = "N", default_value_t = 24)]
    rooms: usize,
    /// Users who send and read.
    #[arg(long, value_name = "N", default_value_t = 32)]
    workers: usize,
    /// Users who follow.
    #[arg(long, value_name = "N", default_value_t = 12)]
    subscribers: usize,
    /// How they follow, with commas between, one of these each time: sse, session, ws.
    #[arg(long, value_name = "TRANSPORTS", default_value = "sse,session,ws")]
    follow: String,
    /// The attacks, with commas between; all; or none. One that is named must be had, and strike;
    /// all are those that work here. What does not is named at the begin and in the results, and
    /// `folkmoot-jepsen fault list` says what each fault needs.
    #[arg(long, value_name = "NAMES", default_value = "all")]
    nemesis: String,
    /// A finding when, with all faults over, a room that is asked has no ok for longer.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "10s")]
    recover_within: Duration,
    /// A finding when the worst failover, from a node's death to the next acknowledgement, is longer.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "10s")]
    failover_within: Duration,
    /// A finding when the median failover is longer.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "5s")]
    failover_median: Duration,
    /// A finding when, with all faults over, a replica is longer on its way to another node: churn. By
    /// default as --recover-within.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    settle_within: Option<Duration>,
    /// Decides everything that is random; by default one is drawn.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The directory for results: DIR/TEST/TIME/.
    #[arg(long, value_name = "DIR", default_value = "jepsen-store")]
    store: PathBuf,
    /// The test's name; by default after its attacks.
    #[arg(long, value_name = "NAME")]
    test: Option<String>,
    /// Without root: nodes at 127.0.0.1, 127.0.0.2, …, and fewer attacks.
    #[arg(long)]
    local: bool,
    /// A setting of the nodes, as `folkmoot serve --set` takes it.
    #[arg(long, value_name = "SECTION.FIELD=VALUE")]
    set: Vec<String>,
    /// Keep the nodes' data.
    #[arg(long)]
    keep_data: bool,
    /// Write JSON for programs.
    #[arg(long)]
    json: bool,
    /// No progress.
    #[arg(long, short)]
    quiet: bool,
}

/// Options of `cleanup`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  folkmoot-jepsen cleanup\n  folkmoot-jepsen cleanup --json\n\n\
    Only what a run noted down as its own is touched, and only when that run is over."
)]
pub(super) struct CleanupArgs {
    /// Write JSON for programs.
    #[arg(long)]
    json: bool,
}

/// Runs `run`.
pub(super) fn run(args: RunArgs) -> Result<u8, Failure> {
    let json = args.json;
    let failed = |message: String| Failure::Run { message, json };
    let asked = Asked::parse(&args.nemesis, args.local).map_err(failed)?;
    let churns = asked.kinds.contains(&Kind::Churn);
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let limits = Limits {
        recover_ms: ms(args.recover_within),
        failover_worst_ms: ms(args.failover_within),
        failover_median_ms: ms(args.failover_median),
    };
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::rng().random::<u32>()));
    let mut command: Vec<String> = std::env::args().collect();
    if args.seed.is_none() {
        command.extend(["--seed".into(), seed.to_string()]);
    }
    let options = Options {
        bin: args.bin,
        nodes: args.nodes,
        spares: args.spares.unwrap_or(if churns { SPARES } else { 0 }),
        time: args.time,
        rate: args.rate,
        rooms: args.rooms,
        workers: args.workers,
        subscribers: args.subscribers,
        transports: Transport::parse(&args.follow).map_err(failed)?,
        asked,
        operations: None,
        limits,
        settle_within: args.settle_within.unwrap_or(args.recover_within),
        seed,
        store: args.store,
        test: args.test,
        local: args.local,
        settings: args.set,
        keep_data: args.keep_data,
        quiet: args.quiet,
        command,
    };
    let outcome = run::run(options).map_err(failed)?;
    let text = if json {
        let store = outcome.store.display().to_string();
        let mut value = json!(outcome.results);
        value["store"] = json!(store);
        value["seed"] = json!(seed);
        format!("{value}\n")
    } else {
        printable(&summary(&outcome, seed))
    };
    print(&text, json)?;
    Ok(verdict_code(outcome.results.report.verdict))
}

/// Judges the directory of a run anew: the verdict, and what to print.
pub(super) fn check(
    directory: &Path,
    options: &check::Options,
    recover_within: Option<Duration>,
    json: bool,
) -> Result<(Verdict, String), Failure> {
    let results = run::judge_again(directory, options, recover_within)
        .map_err(|message| Failure::Run { message, json })?;
    let text = if json { format!("{}\n", json!(results)) } else { printable(&numbers(&results)) };
    Ok((results.report.verdict, text))
}

/// Runs `cleanup`.
pub(super) fn cleanup(args: &CleanupArgs) -> Result<u8, Failure> {
    let failed = |message: String| Failure::Run { message, json: args.json };
    let cleaned = made::cleanup()
        .map_err(|error| failed(format!("{}: {error}", made::directory().display())))?;
    let text = if args.json {
        format!("{}\n", json!(cleaned))
    } else {
        let mut text = match cleaned.runs {
            0 if cleaned.things == 0 => "nothing to clean up\n".to_owned(),
            runs => format!("{runs} runs cleaned up: {} things taken away\n", cleaned.things),
        };
        for pid in &cleaned.running {
            let _ = writeln!(text, "left alone: the run of process {pid}, which is under way");
        }
        for problem in &cleaned.problems {
            let _ = writeln!(text, "not taken away: {problem}");
        }
        text
    };
    print(&text, args.json)?;
    Ok(if cleaned.problems.is_empty() { 0 } else { EXIT_ERROR })
}

pub(super) fn print(text: &str, json: bool) -> Result<(), Failure> {
    let written = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    written.map_err(|error| Failure::File { file: "standard output".into(), error, json })
}

/// What came of a run, for people.
fn summary(outcome: &Outcome, seed: u64) -> String {
    let mut text = numbers(&outcome.results);
    let _ = writeln!(text, "seed {seed}");
    let report = outcome.store.join("report.html");
    let word = match outcome.results.report.verdict {
        Verdict::Valid => "VALID",
        Verdict::Invalid => "INVALID",
        Verdict::Unknown => "UNKNOWN",
    };
    let _ = writeln!(text, "\n{word}   {}", report.display());
    text
}

/// The checkers' report and the numbers.
fn numbers(results: &Results) -> String {
    let mut text = format!("\n{}\n", results.report);
    let failover = times(&results.failover_ms);
    let _ = writeln!(
        text,
        "lost {}   duplicate {}   gap {}   failover {failover}",
        results.lost, results.duplicate, results.gap
    );
    let _ = writeln!(text, "first ok after healing {}", times(&results.first_ok_after_heal_ms));
    let _ = writeln!(text, "{:.0} operations a second", results.throughput_per_s);
    for (attack, count) in &results.outside.attacks {
        let _ = writeln!(text, "{count:5} × {attack}");
    }
    for node in results.outside.nodes.iter().filter(|node| node.stopped_by_itself > 0) {
        let why = node.why.last().map_or("", |why| why.lines().last().unwrap_or_default());
        let (name, times) = (&node.name, node.stopped_by_itself);
        let _ = writeln!(text, "{name} stopped by itself, times: {times}; it last said: {why}");
    }
    for missing in &results.outside.missing {
        let _ = writeln!(text, "MISSING: {}: {}", missing.fault, missing.why);
    }
    for finding in results.outside.findings.iter().chain(&results.too_slow) {
        let _ = writeln!(text, "FOUND: {finding}");
    }
    // Otherwise they are among the reasons for the verdict.
    if results.report.verdict == Verdict::Invalid {
        for problem in &results.outside.problems {
            let _ = writeln!(text, "PROBLEM: {problem}");
        }
    }
    text
}

fn times(times: &Times) -> String {
    match (times.median, times.worst) {
        (Some(median), Some(worst)) => {
            format!("median {median:.0} ms, worst {worst:.0} ms of {}", times.count)
        }
        _ => "not measured".into(),
    }
}
