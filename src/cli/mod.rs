//! The command line: one file for each command.
//!
//! `main` parses the arguments, starts a runtime and runs one command. Results go to standard
//! output, everything else to standard error. Exit codes: 0 done, 1 failed, 64 bad usage,
//! 130 interrupted while it waited for what goes on without it.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

mod bench;
mod cluster;
mod config;
mod connection;
mod credentials;
mod demo;
mod event_json;
mod event_text;
mod export;
mod failure;
mod history;
mod import;
mod irc;
mod local;
mod login;
mod nick;
mod node;
mod order;
mod output;
mod post;
mod progress;
mod room;
mod scheduling;
mod serve;
mod shard;
mod signal;
mod tail;
#[cfg(test)]
mod tests;
mod user;
mod verify;

use failure::{Failure, Outcome};

/// Bad usage, as sysexits.h has it.
const EXIT_USAGE: u8 = 64;
/// Interrupted, as shells say it of SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// A chat server that self-hosters run on three machines and trust.
#[derive(Debug, Parser)]
#[command(
    name = "folkmoot",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Try it: folkmoot demo"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node.
    Serve(serve::Args),
    /// Run a whole cluster on this machine, ready to chat.
    Demo(demo::Args),
    /// Sign in by a provider of OpenID Connect, for this and other commands.
    Login(login::Login),
    /// End the session that `login` has begun.
    Logout(login::Logout),
    /// Accounts: users, passwords, sessions, tokens, invites.
    #[command(subcommand)]
    User(user::Command),
    /// Rooms: create, find, join and leave them, look after them and who is in them.
    #[command(subcommand)]
    Room(room::Command),
    /// Post messages to a room.
    Post(post::Args),
    /// Follow a room live.
    Tail(tail::Args),
    /// Show a page of a room's history.
    History(history::Args),
    /// Bring history from elsewhere into rooms.
    #[command(subcommand)]
    Import(import::Command),
    /// Write rooms' whole logs, verifiable offline.
    Export(export::Args),
    /// Check exported rooms offline: bodies, hash chain, no gaps.
    Verify(verify::Args),
    /// Form a cluster, show its state.
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// List, drain, remove, replace and maintain nodes.
    #[command(subcommand)]
    Node(node::Command),
    /// Show and change where shards are and who leads them.
    #[command(subcommand)]
    Shard(shard::Command),
    /// Measure a cluster under load, and check what it acknowledged.
    Bench(bench::Args),
    /// Check and print configurations.
    #[command(subcommand)]
    Config(config::Command),
}

/// Runs the program with these arguments, its own name first.
///
/// Not generic: otherwise the program would have all of a node compiled once more.
pub fn main(args: Vec<OsString>) -> ExitCode {
    // Every command that has something to say to programs has `--json`, and means its errors, too.
    let json = args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json");
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    if let Command::Serve(_) = cli.command {
        scheduling::wake_without_preempting(); // before there are other threads
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(worker_threads()).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::failed(format!("cannot start: {error}")).report(json),
    };
    match drive(runtime, run(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

/// Runs to the end, or to a panic, which goes on once the runtime is gone.
fn drive(runtime: tokio::runtime::Runtime, command: impl Future<Output = Outcome>) -> Outcome {
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(command)));
    // Whatever still runs was told to stop; a hung file operation must not hold the exit. Nor must
    // anything after a panic: dropping the runtime would wait for it for ever.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

async fn run(command: Command) -> Outcome {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Login(args) => login::login(args).await,
        Command::Logout(args) => login::logout(args).await,
        Command::User(command) => user::run(command).await,
        Command::Room(command) => room::run(command).await,
        Command::Post(args) => post::run(args).await,
        Command::Tail(args) => tail::run(args).await,
        Command::History(args) => history::run(args).await,
        Command::Import(command) => import::run(command).await,
        Command::Export(args) => export::run(args).await,
        Command::Verify(args) => verify::run(&args),
        Command::Cluster(command) => cluster::run(command).await,
        Command::Node(command) => node::run(command).await,
        Command::Shard(command) => shard::run(command).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Config(command) => config::run(command),
    }
}

/// One core is left to the log's writer, which a node waits for with everything it acknowledges.
fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1)
}
