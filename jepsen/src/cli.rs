//! The command line of `folkmoot-jepsen`: run a test, inject a fault; check a history, export it,
//! show it.
//!
//! Results go to standard output, everything else to standard error. Exit codes of `run` and
//! `check` are the verdict: 0 valid, 1 invalid, 2 unknown. Whatever goes wrong is 2 as well, and
//! prints no verdict.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use folkmoot_jepsen::check::{self, Options, Verdict};
use folkmoot_jepsen::export;
use folkmoot_jepsen::history::{self, History, ReadError};
use folkmoot_jepsen::report::ReportError;
use serde_json::json;

mod fault;
mod operations;
mod report;
mod run;

/// No verdict: the history is malformed, or the usage is wrong.
const EXIT_ERROR: u8 = 2;

/// Attacks Folkmoot clusters, and checks histories for lost, repeated and misordered messages.
#[derive(Debug, Parser)]
#[command(
    name = "folkmoot-jepsen",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Try it: folkmoot-jepsen run --local --time 20s"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a cluster, attack it while clients chat, and judge what they saw.
    Run(run::RunArgs),
    /// Measure what operators do to a cluster while clients chat: a rolling restart, a drain, a move, nodes
    /// that come and go.
    Operations(operations::OperationsArgs),
    /// Take away what a run left behind that did not end by itself.
    Cleanup(run::CleanupArgs),
    /// Judge a history: valid, invalid or unknown.
    Check(CheckArgs),
    /// Write a history for another checker.
    Export(ExportArgs),
    /// Inject one fault into running nodes, or list the faults that work here.
    #[command(subcommand, arg_required_else_help = true)]
    Fault(fault::Command),
    /// Write a page that shows what happened: verdict, charts, and what is wrong.
    Report(report::ReportArgs),
}

/// Options of `check`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot-jepsen check history.jsonl\n  \
    folkmoot-jepsen check --json history.jsonl | jq .anomalies\n  \
    folkmoot-jepsen check jepsen-store/TEST/TIME\n  \
    zstdcat history.jsonl.zst | folkmoot-jepsen check -\n\n\
    Exits with 0 when the history is valid, 1 when it is invalid, and 2 when nobody can say:\n\
    too little was done or read, or the file is malformed. jepsen/semantics.md has the format.")]
struct CheckArgs {
    /// The history, JSON lines; the directory of a run; - for standard input.
    #[arg(value_name = "HISTORY")]
    history: PathBuf,
    /// Write JSON for programs.
    #[arg(long)]
    json: bool,
    /// With fewer sends and reads that were ok the verdict is unknown, never valid.
    #[arg(long, value_name = "N", default_value_t = Options::default().min_ok)]
    min_ok: u64,
    /// Show so many violations of each anomaly, with their witness; all are counted.
    #[arg(long, value_name = "N", default_value_t = Options::default().witnesses_max)]
    witnesses: u64,
    /// Seconds within which each room has an ok once all faults are over and somebody asked; by
    /// default 30, and for the directory of a run what the run was told.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    recover_within: Option<f64>,
}

/// Options of `export`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  folkmoot-jepsen export --edn history.jsonl -o history.edn\n  \
    folkmoot-jepsen export --kafka history.jsonl -o kafka.edn\n  \
    folkmoot-jepsen export --porcupine - < history.jsonl"
)]
#[command(group = clap::ArgGroup::new("format").required(true).multiple(true).args(["edn", "kafka", "porcupine"]))]
struct ExportArgs {
    /// The history, JSON lines; - for standard input.
    #[arg(value_name = "HISTORY")]
    history: PathBuf,
    /// Jepsen op maps.
    #[arg(long)]
    edn: bool,
    /// Op maps as jepsen.tests.kafka has them: sends and polls.
    #[arg(long)]
    kafka: bool,
    /// Porcupine operations with call and return times, JSON lines.
    #[arg(long, conflicts_with_all = ["edn", "kafka"])]
    porcupine: bool,
    /// Write to a file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The history could not be read.
    #[error("{file}: {error}")]
    Read { file: String, error: ReadError, json: bool },
    /// A run's directory could not be shown.
    #[error("{error}")]
    Report { error: ReportError, json: bool },
    /// A file could not be opened or written.
    #[error("{file}: {error}")]
    File { file: String, error: io::Error, json: bool },
    /// A run came to no verdict.
    #[error("{message}")]
    Run { message: String, json: bool },
}

/// Runs the program with these arguments.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_ERROR } else { 0 });
        }
    };
    let outcome = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Operations(args) => operations::run(args),
        Command::Cleanup(args) => run::cleanup(&args),
        Command::Check(args) => run_check(&args),
        Command::Export(args) => run_export(&args).map(|()| 0),
        Command::Fault(command) => Ok(fault::run(&command)),
        Command::Report(args) => {
            args.run().map(|()| 0).map_err(|(error, json)| Failure::Report { error, json })
        }
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.report();
            ExitCode::from(EXIT_ERROR)
        }
    }
}

impl Failure {
    fn report(&self) {
        let (json, line) = match self {
            Failure::Read { json, error, .. } => (*json, Some(error.line())),
            Failure::Report { json, error: ReportError::History { error, .. } } => {
                (*json, Some(error.line()))
            }
            // Nobody is left to read it.
            Failure::Report { error: ReportError::File { error, .. }, .. }
            | Failure::File { error, .. }
                if error.kind() == io::ErrorKind::BrokenPipe =>
            {
                return;
            }
            Failure::Report { json, .. }
            | Failure::File { json, .. }
            | Failure::Run { json, .. } => (*json, None),
        };
        if json {
            let error = json!({ "error": { "message": self.to_string(), "line": line } });
            eprintln!("{error}");
        } else {
            eprintln!("folkmoot-jepsen: {}", printable(&self.to_string()));
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_string())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    Ok(seconds)
}

fn run_check(args: &CheckArgs) -> Result<u8, Failure> {
    let recover_within = args.recover_within.map(Duration::from_secs_f64);
    let options = Options {
        min_ok: args.min_ok,
        witnesses_max: args.witnesses,
        recover_within: recover_within.unwrap_or(Options::default().recover_within),
    };
    let (verdict, text) = if args.history.is_dir() {
        run::check(&args.history, &options, recover_within, args.json)?
    } else {
        let report = check::check(&read(&args.history, args.json)?, &options);
        let json = args.json.then(|| format!("{}\n", json!(report)));
        (report.verdict, json.unwrap_or_else(|| printable(&report.to_string())))
    };
    let written = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    written.map_err(|error| Failure::File {
        file: "standard output".into(),
        error,
        json: args.json,
    })?;
    Ok(verdict_code(verdict))
}

/// The exit code of a verdict.
const fn verdict_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Valid => 0,
        Verdict::Invalid => 1,
        Verdict::Unknown => EXIT_ERROR,
    }
}

fn run_export(args: &ExportArgs) -> Result<(), Failure> {
    let history = read(&args.history, false)?;
    let file = match &args.output {
        Some(file) => file.display().to_string(),
        None => "standard output".into(),
    };
    let out: io::Result<Box<dyn Write>> = match &args.output {
        Some(file) => File::create(file).map(|file| Box::new(file) as Box<dyn Write>),
        None => Ok(Box::new(io::stdout())),
    };
    let written = out.map(BufWriter::new).and_then(|out| {
        if args.porcupine {
            export::porcupine(&history, out)
        } else if args.kafka {
            export::kafka(&history, out)
        } else {
            export::edn(&history, out)
        }
    });
    written.map_err(|error| Failure::File { file, error, json: false })
}

/// Text that cannot move a terminal's cursor or change its colours, whatever names and error codes
/// a history has: control characters become their Unicode pictures.
fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => c,
        '\u{7f}' => '\u{2421}',
        c if (c as u32) < 0x20 => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        // C1 controls, and marks that reorder what is read.
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

fn read(path: &Path, json: bool) -> Result<History, Failure> {
    let file = path.display().to_string();
    let read = if path.as_os_str() == "-" {
        history::read(io::stdin().lock())
    } else {
        match File::open(path) {
            Ok(open) => history::read(BufReader::with_capacity(1 << 20, open)),
            Err(error) => return Err(Failure::File { file, error, json }),
        }
    };
    read.map_err(|error| Failure::Read { file, error, json })
}
