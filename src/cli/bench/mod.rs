//! `folkmoot bench`: a closed-loop load, measured, and what was acknowledged checked afterwards.
//!
//! The load and the names in the report are those of the benchmark that the project compares
//! itself and its peers with: each client has one unacknowledged message; client i posts over
//! connection i mod connections, its n-th message to room (i + n) mod rooms; subscriber i follows
//! room i mod rooms over a connection of its own; connections and subscribers are spread over the
//! nodes. A message carries when it was sent, so that deliveries can be timed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cli::connection::Connection;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::local::{Local, Logs, Plan};
use crate::cli::{output, signal};
use crate::client::{Client, ClientOptions};
use crate::error::Error;
use crate::id::RoomId;
use crate::limits;
use crate::proto::v1 as pb;

mod body;
mod check;
mod load;
mod report;
mod stats;

/// Options of `bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    folkmoot bench --local 3 --clients 256 --connections 16\n  \
    folkmoot bench --json --server $SERVERS --token $ADMIN --pids 101,102,103 --data folkmoot-data\n\n\
    Makes rooms of its own, so the token must be allowed to. Exits with 1 when nothing is acknowledged,\n\
    when an acknowledged message is not in history exactly once and in order, and when a subscriber\n\
    misses one.")]
pub(super) struct Args {
    /// Clients, each with at most one unacknowledged message.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Connections that the clients share; 0: one each.
    #[arg(long, alias = "conns", default_value_t = 0)]
    connections: usize,
    /// Rooms that messages are spread over.
    #[arg(long, default_value_t = 16)]
    rooms: usize,
    /// Bytes of a message; 24 at least: it says when it was sent, and by whom.
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Measured seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Seconds of load before the measured ones.
    #[arg(long, default_value_t = 3)]
    warmup: u64,
    /// Subscriber i gets every message of room i mod rooms.
    #[arg(long, default_value_t = 8)]
    subscribers: usize,
    /// Start this many nodes for it: 1, 3 or 5, in a directory that is removed afterwards.
    #[arg(long, value_name = "NODES")]
    local: Option<u16>,
    /// With --local: where the nodes' data go, on the disk that is to be measured.
    #[arg(long, value_name = "DIR", requires = "local")]
    dir: Option<PathBuf>,
    /// With --local: the first node's port.
    #[arg(long, value_name = "PORT", default_value_t = 17400)]
    base_port: u16,
    /// The servers' process ids, or a folder with *.pid files: reports their CPU, memory and I/O.
    #[arg(long, value_name = "PIDS")]
    pids: Option<String>,
    /// A folder with all servers' data: reports its growth.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// What the report calls this setup.
    #[arg(long, default_value = "default")]
    mode: String,
    /// Begin once other programs use fewer cores than this.
    #[arg(long, value_name = "CORES", default_value_t = 0.15)]
    max_other: f64,
    /// Begin after this many seconds all the same.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    max_wait: u64,
    /// Skip the check of history after the run.
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    connection: Connection,
}

/// The cluster under load.
struct Target {
    servers: Vec<String>,
    token: Option<String>,
    pids: Vec<u32>,
    data: Option<PathBuf>,
}

/// A room of the load.
#[derive(Debug, Clone)]
struct BenchRoom {
    id: RoomId,
    /// Its head before the load.
    start: u64,
}

/// Runs the command.
pub(super) async fn run(args: Args) -> Outcome {
    if args.clients == 0 || args.rooms == 0 || args.seconds == 0 || args.size < body::SIZE_MIN {
        return Err(Failure::Usage(format!(
            "--clients, --rooms and --seconds must be above 0, --size at least {}",
            body::SIZE_MIN
        )));
    }
    if args.size > limits::TEXT_BYTES_MAX {
        let max = limits::TEXT_BYTES_MAX;
        return Err(Failure::Usage(format!("--size is at most {max}: no text is longer")));
    }
    if args.local.is_some_and(|nodes| ![1, 3, 5].contains(&nodes)) {
        return Err(Failure::Usage("--local must be 1, 3 or 5".into()));
    }
    let Some(nodes) = args.local else {
        let pids = args.pids.as_deref().map(stats::read_pids).unwrap_or_default();
        if args.pids.is_some() && pids.is_empty() {
            return Err(Failure::failed("no process in --pids is alive"));
        }
        let target = Target {
            servers: args.connection.server.clone(),
            token: args.connection.token()?,
            pids,
            data: args.data.clone(),
        };
        return measure(&args, target).await;
    };
    let mut stop = signal::Stop::catch()?;
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = parent.join(format!("folkmoot-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir)
        .map_err(|error| Failure::failed(format!("cannot make {}: {error}", dir.display())))?;
    if is_memory(&dir) {
        eprintln!(
            "folkmoot: {} is in memory, where a sync costs nothing; --dir puts the data on a disk",
            parent.display()
        );
    }
    let plan = Plan { nodes, dir: dir.clone(), base_port: args.base_port, logs: Logs::Files };
    let mut local = match plan.start() {
        Ok(local) => local,
        Err(failure) => {
            let _ = std::fs::remove_dir_all(&dir);
            return Err(failure);
        }
    };
    let (urls, pids) = (local.urls(), local.nodes.iter().map(|node| node.pid).collect());
    let work = async {
        Local::answering(urls.clone()).await?;
        let options = ClientOptions { servers: urls.clone(), ..ClientOptions::default() };
        let formed = Client::connect(options)?.init_cluster(u32::from(nodes), 0, "").await?;
        let token = Some(formed.admin_token);
        measure(&args, Target { servers: urls, token, pids, data: Some(dir.clone()) }).await
    };
    let outcome = tokio::select! {
        outcome = local.while_running(work) => outcome,
        () = stop.asked() => Err(Failure::failed("interrupted")),
    };
    local.stop(async { stop.asked().await }).await;
    match &outcome {
        Ok(()) => drop(std::fs::remove_dir_all(&dir)),
        Err(_) => eprintln!("folkmoot: data and logs of the nodes are left in {}", dir.display()),
    }
    outcome
}

/// Whether a directory is on a file system in memory.
#[cfg(target_os = "linux")]
fn is_memory(dir: &Path) -> bool {
    /// `TMPFS_MAGIC` of linux/magic.h.
    const TMPFS: i128 = 0x0102_1994;
    rustix::fs::statfs(dir).is_ok_and(|about| i128::from(about.f_type) == TMPFS)
}

#[cfg(not(target_os = "linux"))]
fn is_memory(_dir: &Path) -> bool {
    false
}

/// A client of its own connection, whose first server is the n-th.
fn client_at(args: &Args, target: &Target, n: usize) -> Outcome<Client> {
    let mut servers = target.servers.clone();
    let first = n % servers.len();
    servers.rotate_left(first);
    let options = ClientOptions {
        servers,
        token: target.token.clone(),
        deadline: args.connection.timeout,
        posts_in_flight_max: args.clients.max(1024),
        ..ClientOptions::default()
    };
    Ok(Client::connect(options)?)
}

async fn make_rooms(args: &Args, client: &Client) -> Outcome<Vec<BenchRoom>> {
    let run: u32 = rand::random();
    let mut rooms = Vec::with_capacity(args.rooms);
    for n in 0..args.rooms {
        let id = RoomId::parse(&format!("bench-{run:08x}-{n}")).map_err(Error::from)?;
        client.create_room(&id, "bench", pb::RoomKind::Public).await?;
        let start = client.get_room(&id, pb::Consistency::Linearizable).await?.head;
        rooms.push(BenchRoom { id, start });
    }
    Ok(rooms)
}

async fn measure(args: &Args, target: Target) -> Outcome {
    let load_before = stats::load_average();
    let quiet = stats::Quiet {
        pids: target.pids.clone(),
        cores_max: args.max_other,
        wait_max: Duration::from_secs(args.max_wait),
    };
    let waited = tokio::task::spawn_blocking(move || quiet.wait())
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;

    let client = client_at(args, &target, 0)?;
    let rooms: Arc<[BenchRoom]> = make_rooms(args, &client).await?.into();
    let measured = load::run(args, &target, rooms.clone()).await?;
    let verdict = if args.no_check {
        None
    } else {
        Some(check::history(&client, &rooms, &measured.acked).await?)
    };
    let report = report::Report { args, load_before, waited, measured: &measured, verdict };
    if args.connection.json {
        output::line(report.json())?;
    } else {
        output::line(report.text())?;
    }
    let broken = report.verdict.as_ref().filter(|verdict| !verdict.ok()).map(|verdict| {
        format!("what was acknowledged is not in history once and in order: {}", verdict.text())
    });
    match broken.or_else(|| measured.failure()) {
        Some(why) => Err(Failure::failed(why)),
        None => Ok(()),
    }
}
