//! Before a run: is everything there, and does the cluster form?

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::cluster::node::Node;
use crate::cluster::{Admin, Cluster};
use crate::run::client::Outcome;
use crate::run::client::rest::Rest;
use crate::run::nemesis::kind::Kind;
use crate::run::options::Options;
use crate::run::status::{Placement, Status};
use crate::run::store::Missing;
use crate::run::verdict::NodeResult;
use crate::run::workload::User;

/// How long the cluster may take to form.
const FORM_WITHIN: Duration = Duration::from_secs(60);
/// The size of each node's disk. Images are sparse: they take what is written.
pub const DISK_BYTES: u64 = 1 << 30;
/// What a node's disk takes while a run lasts, more or less.
const DISK_BYTES_USED: u64 = 400 << 20;
/// Tools that root mode needs, and the Debian packages that have them.
const TOOLS: &[(&str, &str)] =
    &[("ip", "iproute2"), ("mkfs.ext4", "e2fsprogs"), ("mount", "mount"), ("umount", "mount")];

/// Now, as people write it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the date of a run is the machine's")]
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// What the program under test says of its version.
///
/// # Errors
///
/// When it does not run.
pub fn version(bin: &Path) -> Result<String, String> {
    let output = Command::new(bin).arg("--version").output();
    let output = output.map_err(|error| format!("{}: {error}", bin.display()))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && said.starts_with("folkmoot ") {
        return Ok(said);
    }
    Err(format!("{} is not folkmoot: `--version` says {said:?}", bin.display()))
}

/// The commit of the directory that this is run in; empty elsewhere.
#[must_use]
pub fn commit() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    String::from_utf8_lossy(&text.unwrap_or_default()).trim().to_owned()
}

/// Tries every attack that is asked for; those that work here, and what is missing for the others.
///
/// # Errors
///
/// What is missing for any run.
pub fn probe(options: &Options) -> Result<(Vec<Kind>, Vec<Missing>), String> {
    if !options.local {
        for (tool, package) in TOOLS {
            if !is_there(tool) {
                return Err(format!(
                    "{tool} is missing: `apt-get install {package}`, or run with --local"
                ));
            }
        }
    }
    let (mut kinds, mut missing) = (vec![], vec![]);
    for kind in &options.nemeses {
        // A busy machine may be too slow once.
        match kind.probe(options.local).or_else(|_| kind.probe(options.local)) {
            Ok(()) => kinds.push(*kind),
            Err(why) => missing.push(Missing { fault: kind.name().into(), why: why.to_string() }),
        }
    }
    Ok((kinds, missing))
}

fn is_there(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Into::into);
    std::env::split_paths(&path).chain(system).any(|directory| directory.join(tool).is_file())
}

/// Whether there is room for the nodes' disks.
///
/// # Errors
///
/// How much is missing.
pub fn space(directory: &Path, options: &Options) -> Result<(), String> {
    let stat = rustix::fs::statvfs(directory).map_err(|error| error.to_string())?;
    let free = stat.f_bavail * stat.f_frsize;
    let needed = options.nodes as u64 * DISK_BYTES_USED;
    if free >= needed {
        return Ok(());
    }
    Err(format!(
        "{} has {} MiB free, and {} nodes take about {} MiB: make room, or use another --store",
        directory.display(),
        free >> 20,
        options.nodes,
        needed >> 20
    ))
}

/// The settings of the nodes: small disks, and checkpoints often enough to be hit.
#[must_use]
pub fn settings(options: &Options) -> Vec<String> {
    let ours = ["store.min_free_disk=64MiB", "store.ballast=16MiB", "store.checkpoint_interval=1s"];
    ours.iter().map(ToString::to_string).chain(options.settings.iter().cloned()).collect()
}

/// Starts the nodes and forms a cluster of them.
///
/// # Errors
///
/// What a node or the command line said.
pub async fn form(cluster: &Arc<Cluster>) -> Result<(Admin, Status, Placement), String> {
    let starting = cluster.clone();
    let formed = tokio::task::spawn_blocking(move || {
        for node in &starting.nodes {
            node.start().map_err(|error| format!("{}: {error}", node.name))?;
        }
        let begin = std::time::Instant::now();
        loop {
            match starting.init() {
                Ok(admin) => return Ok(admin),
                Err(why) => {
                    dead(&starting)?;
                    if begin.elapsed() > FORM_WITHIN {
                        return Err(format!("the cluster did not form: {why}"));
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let admin = formed.await.map_err(|error| error.to_string())??;
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| (node.name.clone(), node.client)).collect();
    let mut status = Status::new(&nodes, &admin.token);
    let deadline = Instant::now() + FORM_WITHIN;
    for (node, (name, _)) in nodes.iter().enumerate() {
        while let Err(why) = status.ready(node).await {
            dead(cluster)?;
            if Instant::now() > deadline {
                return Err(format!("{name} did not become ready: {why}"));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    let placement = status.placement().await?;
    Ok((admin, status, placement))
}

/// A node that ended before anything was done to it.
fn dead(cluster: &Cluster) -> Result<(), String> {
    let exit = |node: &Arc<Node>| Some((node.name.clone(), node.exits().pop()?));
    match cluster.nodes.iter().find_map(exit) {
        Some((name, exit)) => Err(format!("{name} ended with {}: {}", exit.status, exit.said)),
        None => Ok(()),
    }
}

/// Makes users.
///
/// # Errors
///
/// What a node said.
pub async fn users(
    nodes: &[(String, std::net::SocketAddr)],
    admin: &Admin,
    count: usize,
) -> Result<Vec<User>, String> {
    let mut rest = Rest::new(nodes[0].1, &admin.token);
    let mut users = vec![];
    for n in 1..=count {
        let body = json!({ "user": format!("u{n}") });
        match rest.request("POST", "/v1/users", Some(body)).await {
            Outcome::Ok(answer) => {
                let token = answer["token"].as_str().ok_or("a user without a token")?.to_owned();
                users.push(User { token });
            }
            Outcome::Failed(why) | Outcome::Unknown(why) => {
                return Err(format!("user u{n} could not be made: {why}"));
            }
        }
    }
    Ok(users)
}

/// Waits for somebody to interrupt; which signal it was.
pub async fn interrupted() -> &'static str {
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        },
        // Then it cannot be interrupted but by its end.
        _ => std::future::pending().await,
    }
}

/// What happened to each node.
#[must_use]
pub fn node_results(
    cluster: &Cluster,
    well: &BTreeSet<usize>,
    lost: &BTreeSet<usize>,
) -> Vec<NodeResult> {
    let result = |(place, node): (usize, &Arc<Node>)| {
        let exits = node.exits();
        let log = std::fs::read(&node.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let panics = log.lines().filter(|line| line.contains("panicked at"));
        NodeResult {
            name: node.name.clone(),
            stopped_by_itself: exits.len() as u64,
            why: exits.into_iter().map(|exit| format!("{}\n{}", exit.status, exit.said)).collect(),
            panics: panics.map(ToOwned::to_owned).collect(),
            well: well.contains(&place),
            lost: lost.contains(&place),
        }
    };
    cluster.nodes.iter().enumerate().map(result).collect()
}
