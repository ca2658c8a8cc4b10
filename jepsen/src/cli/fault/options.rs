//! What `folkmoot-jepsen fault` can be told.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use folkmoot_jepsen::fault::files::What;

/// Faults, one at a time, against running nodes of one's own.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  folkmoot-jepsen fault list\n  \
    folkmoot-jepsen fault partition --pid 4711 --for 30s\n  \
    folkmoot-jepsen fault heal --pid 4711\n\n\
    Nothing is done to what is not a Folkmoot node (a process folkmoot serve that holds its data\n\
    directory), nor to more than a minority of the nodes. --dry-run prints what would be done.\n\
    Exit code 2: refused, missing, or failed.")]
pub(crate) enum Command {
    /// Say which faults work on this machine, and what is missing.
    #[command(
        after_help = "Examples:\n  folkmoot-jepsen fault list --json | jq '.[] | select(.missing)'\n  \
            folkmoot-jepsen fault list --need partition,powercut"
    )]
    List(List),
    /// Cut nodes off from other nodes.
    #[command(after_help = "Examples:\n  folkmoot-jepsen fault partition --pid 4711 --for 30s\n  \
        folkmoot-jepsen fault partition --pid 4711 --peers 10.0.0.2:7401")]
    Partition(Partition),
    /// Cut nodes off from other nodes in one direction.
    #[command(
        after_help = "Example:\n  folkmoot-jepsen fault oneway --pid 4711 --direction in --for 30s"
    )]
    Oneway(Oneway),
    /// Cut nodes off from their clients.
    #[command(after_help = "Example:\n  folkmoot-jepsen fault clients --pid 4711 --for 30s")]
    Clients(Node),
    /// Lose some of a node's packets.
    #[command(
        after_help = "Example:\n  folkmoot-jepsen fault loss --pid 4711 --percent 20 --for 1m"
    )]
    Loss(Lossy),
    /// Answer some of a node's packets with a TCP reset.
    #[command(
        after_help = "Example:\n  folkmoot-jepsen fault reset --pid 4711 --percent 100 --for 1s"
    )]
    Reset(Lossy),
    /// Let what a node sends wait.
    #[command(after_help = "Examples:\n  \
        folkmoot-jepsen fault delay --pid 4711 --delay 100ms --for 30s\n  \
        folkmoot-jepsen fault delay --pid 4711 --delay 20ms --jitter 80ms --reorder 10 --for 30s")]
    Delay(Delay),
    /// Kill nodes with SIGKILL.
    #[command(after_help = "Example:\n  folkmoot-jepsen fault kill --pid 4711")]
    Kill(Node),
    /// Stop nodes with SIGSTOP.
    #[command(after_help = "Example:\n  folkmoot-jepsen fault pause --pid 4711 --for 10s")]
    Pause(Node),
    /// Let paused nodes go on.
    #[command(after_help = "Example:\n  folkmoot-jepsen fault resume --pid 4711")]
    Resume(Node),
    /// Cut the power of nodes' disks and end the nodes: what they had not synced is gone.
    #[command(after_help = "Example:\n  folkmoot-jepsen fault powercut --pid 4711\n\n\
        The file system is mounted again; start the nodes again yourself.")]
    Powercut(Node),
    /// Fill a node's disk.
    #[command(after_help = "Examples:\n  folkmoot-jepsen fault diskfull --pid 4711 --for 30s\n  \
        folkmoot-jepsen fault diskfull --pid 4711 --leave 8388608")]
    Diskfull(Full),
    /// Let a node's writes wait.
    #[command(after_help = "Example:\n  folkmoot-jepsen fault diskstall --pid 4711 --for 5s")]
    Diskstall(Node),
    /// Let a node's fsyncs fail.
    #[command(after_help = "Example:\n  folkmoot-jepsen fault fsyncfail --pid 4711 --for 10s")]
    Fsyncfail(Fsync),
    /// Flip a bit in a file of a stopped node.
    #[command(after_help = "Examples:\n  \
        folkmoot-jepsen fault bitflip --data-dir /srv/n1 --others 4712,4713 --what log --seed 7\n  \
        folkmoot-jepsen fault restore --data-dir /srv/n1")]
    Bitflip(Damage),
    /// Cut off the end of a file of a stopped node.
    #[command(after_help = "Example:\n  \
        folkmoot-jepsen fault truncate --data-dir /srv/n1 --others 4712,4713 --what sled")]
    Truncate(Damage),
    /// Copy a stopped node's files, to put them back later with rollback.
    #[command(
        after_help = "Example:\n  folkmoot-jepsen fault save --data-dir /srv/n1 --copy /srv/n1.old"
    )]
    Save(Copy),
    /// Put files of a stopped node back to how they were at a save.
    #[command(after_help = "Example:\n  folkmoot-jepsen fault rollback --data-dir /srv/n1 \
        --copy /srv/n1.old --others 4712,4713")]
    Rollback(Rollback),
    /// Undo bitflip, truncate and rollback, if no node has run on the files since.
    #[command(after_help = "Example:\n  folkmoot-jepsen fault restore --data-dir /srv/n1")]
    Restore(Directory),
    /// Set a node's wall clock wrong.
    #[command(after_help = "Examples:\n  \
        folkmoot-jepsen fault clock --pid 4711 --offset 120 --for 30s\n  \
        folkmoot-jepsen fault clock --pid 4711 --offset=-60 --strobe 2s --for 30s")]
    Clock(Clock),
    /// Undo whatever was done to nodes that run.
    #[command(after_help = "Example:\n  folkmoot-jepsen fault heal --pid 4711,4712")]
    Heal(Node),
}

/// Options of `list`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Try these only, and exit with 2 when one of them does not work here.
    #[arg(long, value_name = "FAULTS", value_delimiter = ',')]
    pub need: Vec<String>,
    /// Write JSON for programs.
    #[arg(long)]
    pub json: bool,
}

/// What every fault can be told.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// The nodes that are not to be hit, by process id or peer address; else those that the node
    /// was told to join.
    #[arg(long, value_name = "PID|HOST:PORT", value_delimiter = ',')]
    pub others: Vec<String>,
    /// Hit a majority of the nodes, or leave none.
    #[arg(long)]
    pub majority: bool,
    /// Heal it after so long, or when this program is told to stop.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub how_long: Option<Duration>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Write JSON for programs.
    #[arg(long)]
    pub json: bool,
}

/// Running nodes.
#[derive(Debug, Args)]
pub(crate) struct Node {
    /// Process ids of the nodes to hit, on this machine.
    #[arg(long, value_name = "PID", required = true, value_delimiter = ',')]
    pub pid: Vec<u32>,
    #[command(flatten)]
    pub how: How,
}

/// Options of `partition`.
#[derive(Debug, Args)]
pub(crate) struct Partition {
    #[command(flatten)]
    pub node: Node,
    /// Peer addresses of the nodes to cut off; else those that the node was told to join.
    #[arg(long, value_name = "IP:PORT", value_delimiter = ',')]
    pub peers: Vec<SocketAddr>,
}

/// One direction.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Way {
    /// What the node is sent is dropped.
    In,
    /// What it sends is dropped.
    Out,
}

/// Options of `oneway`.
#[derive(Debug, Args)]
pub(crate) struct Oneway {
    #[command(flatten)]
    pub partition: Partition,
    /// Which packets are dropped: those that the node is sent, or those that it sends.
    #[arg(long, value_enum)]
    pub direction: Way,
}

/// Which links.
#[derive(Debug, Args)]
pub(crate) struct Lines {
    #[command(flatten)]
    pub partition: Partition,
    /// Packets of clients as well.
    #[arg(long)]
    pub clients: bool,
}

/// Options of `loss` and `reset`.
#[derive(Debug, Args)]
pub(crate) struct Lossy {
    #[command(flatten)]
    pub lines: Lines,
    /// So many of a hundred packets.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub percent: u8,
}

/// Options of `delay`.
#[derive(Debug, Args)]
pub(crate) struct Delay {
    #[command(flatten)]
    pub lines: Lines,
    /// How long each packet waits.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub delay: Duration,
    /// Up to so much longer, at random.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "0s")]
    pub jitter: Duration,
    /// So many of a hundred packets do not wait, and overtake others.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=100), default_value_t = 0)]
    pub reorder: u8,
}

/// Options of `diskfull`.
#[derive(Debug, Args)]
pub(crate) struct Full {
    #[command(flatten)]
    pub node: Node,
    /// Bytes to leave free.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub leave: u64,
}

/// Options of `fsyncfail`.
#[derive(Debug, Args)]
pub(crate) struct Fsync {
    #[command(flatten)]
    pub node: Node,
    /// The first of each thread's fsyncs that fails.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub nth: u32,
}

/// Files of a node that does not run.
#[derive(Debug, Args)]
pub(crate) struct Directory {
    /// The data directory of a node that does not run.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    #[command(flatten)]
    pub how: How,
}

/// Options of `bitflip` and `truncate`.
#[derive(Debug, Args)]
pub(crate) struct Damage {
    #[command(flatten)]
    pub directory: Directory,
    /// Which file: log, sled, identity or watermark.
    #[arg(long, value_parser = what, default_value = "log")]
    pub what: What,
    /// Decides where in the file.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Options of `save`.
#[derive(Debug, Args)]
pub(crate) struct Copy {
    #[command(flatten)]
    pub directory: Directory,
    /// Where the copy is.
    #[arg(long, value_name = "DIR")]
    pub copy: PathBuf,
}

/// Options of `rollback`.
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    #[command(flatten)]
    pub copy: Copy,
    /// Which files: log (with identity and watermark), sled, identity or watermark.
    #[arg(long, value_parser = what, default_value = "log")]
    pub what: What,
}

/// Options of `clock`.
#[derive(Debug, Args)]
pub(crate) struct Clock {
    #[command(flatten)]
    pub node: Node,
    /// Seconds to add to the right time.
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    pub offset: f64,
    /// Between that and the right time, to and fro, this often.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub strobe: Option<Duration>,
}

fn what(text: &str) -> Result<What, String> {
    let found = What::ALL.iter().find(|(name, _)| *name == text);
    found.map(|(_, what)| *what).ok_or_else(|| "use log, sled, identity or watermark".into())
}
