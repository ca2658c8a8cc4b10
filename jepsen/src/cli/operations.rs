//! `folkmoot-jepsen operations`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use folkmoot_jepsen::run;
use folkmoot_jepsen::run::client::session::Transport;
use folkmoot_jepsen::run::operations::{self, Operation, Plan};
use folkmoot_jepsen::run::options::{Asked, Options};
use folkmoot_jepsen::run::verdict::Limits;

use rand::Rng;

use super::{Failure, verdict_code};

/// Options of `operations`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot-jepsen operations --local\n  \
    folkmoot-jepsen operations --local --prefill 0 --only drain,move --rate 300\n  \
    folkmoot-jepsen operations --table jepsen-store/3-nodes-operations/TIME\n\n\
    Prints a Markdown table, as in docs/operations.md. Exits with 0 when the run is valid\n\
    and all was reached (a p99 under 500 ms, no failed post, a replacement within 60 s), 1 when not,\n\
    and 2 when there is no verdict.")]
pub(super) struct OperationsArgs {
    /// The folkmoot to test; by default the one beside this program.
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,
    /// What to do, with commas between, in this order: nothing, rolling-restart, drain, leaders, grow,
    /// move, shrink, crash, replace; by default all of it.
    #[arg(long, value_name = "NAMES", value_parser = operations::parse)]
    only: Option<std::vec::Vec<Operation>>,
    /// Messages that are there before.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    prefill: u64,
    /// Posts a second.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    rate: u32,
    /// Rooms that are posted to.
    #[arg(long, value_name = "N", default_value_t = 32)]
    rooms: usize,
    /// Users who post, one message at a time each: with few, a stall holds back most of what is due.
    #[arg(long, value_name = "N", default_value_t = 400)]
    workers: usize,
    /// Users who follow.
    #[arg(long, value_name = "N", default_value_t = 100)]
    subscribers: usize,
    /// Spare nodes: two join, and one takes the place of one that died.
    #[arg(long, value_name = "N", default_value_t = 2)]
    spares: usize,
    /// Decides what clients do; by default one is drawn.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The directory for results: DIR/TEST/TIME/.
    #[arg(long, value_name = "DIR", default_value = "jepsen-store")]
    store: PathBuf,
    /// Without root: nodes at 127.0.0.1, 127.0.0.2, ….
    #[arg(long)]
    local: bool,
    /// A setting of the nodes, as `folkmoot serve --set` takes it.
    #[arg(long, value_name = "SECTION.FIELD=VALUE")]
    set: Vec<String>,
    /// Print the table of the run in this directory, and run nothing.
    #[arg(long, value_name = "DIR")]
    table: Option<PathBuf>,
    /// No progress.
    #[arg(long, short)]
    quiet: bool,
}

/// Runs `operations`.
pub(super) fn run(args: OperationsArgs) -> Result<u8, Failure> {
    if let Some(directory) = &args.table {
        return tell(directory);
    }
    let seed = args.seed.unwrap_or_else(|| u64::from(rand::rng().random::<u32>()));
    let mut command: Vec<String> = std::env::args().collect();
    if args.seed.is_none() {
        command.extend(["--seed".into(), seed.to_string()]);
    }
    let operations = args.only.unwrap_or_else(|| Operation::ALL.to_vec());
    let options = Options {
        bin: args.bin,
        nodes: 3,
        spares: args.spares,
        time: Duration::from_secs(60),
        rate: args.rate,
        rooms: args.rooms,
        workers: args.workers,
        subscribers: args.subscribers,
        transports: Transport::ALL.to_vec(),
        asked: Asked::default(),
        operations: Some(Plan { operations, prefill: args.prefill }),
        limits: Limits::default(),
        settle_within: Duration::from_millis(Limits::default().recover_ms),
        seed,
        store: args.store,
        test: None,
        local: args.local,
        settings: args.set,
        keep_data: false,
        quiet: args.quiet,
        command,
    };
    let outcome = run::run(options).map_err(failed)?;
    let code = tell(&outcome.store)?;
    let outside = &outcome.results.outside;
    for why in outside.findings.iter().chain(&outside.problems).chain(&outcome.results.too_slow) {
        eprintln!("{why}");
    }
    eprintln!("{}", outcome.store.join("report.html").display());
    Ok(code)
}

fn failed(message: String) -> Failure {
    Failure::Run { message, json: false }
}

/// Prints the table of a run, and what was not reached.
fn tell(directory: &Path) -> Result<u8, Failure> {
    let (table, verdict, missed) = run::operations_table(directory).map_err(failed)?;
    super::run::print(&table, false)?;
    missed.iter().for_each(|what| eprintln!("not reached: {what}"));
    Ok(match verdict_code(verdict) {
        0 if !missed.is_empty() => 1,
        code => code,
    })
}
