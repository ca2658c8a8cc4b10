//! Before a run: is everything there, and does the cluster form?

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::cluster::interrupt::Interrupt;
use crate::cluster::node::Node;
use crate::cluster::{Admin, Cluster};
use crate::fault::tool;
use crate::run::client::Outcome;
use crate::run::client::rest::Rest;
use crate::run::nemesis::excuses::Excuses;
use crate::run::nemesis::kind::Kind;
use crate::run::nemesis::storm;
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
/// What a message takes that was there before, on each disk; more or less.
const PREFILLED_BYTES: u64 = 1500;
/// Tools that root mode needs.
const TOOLS: &[&str] = &["ip", "mkfs.ext4", "mount", "umount"];

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

/// What works here of what was asked for.
#[derive(Clone, Debug, Default)]
pub struct Probed {
    /// The attacks that do.
    pub kinds: Vec<Kind>,
    /// What is missing for the others.
    pub missing: Vec<Missing>,
}

/// Tries every attack that is asked for; those that work here, and what is missing for the others.
/// What is missing is said at once.
///
/// # Errors
///
/// What is missing for any run; or for all attacks that were asked for; or who interrupted.
pub fn probe(options: &Options, interrupt: &Interrupt) -> Result<Probed, String> {
    if !options.local
        && let Some(tool) = TOOLS.iter().find(|tool| !tool::is_there(tool))
    {
        return Err(format!("{}, or run with --local", tool::missing(tool)));
    }
    let mut probed = Probed { kinds: vec![], missing: options.asked.missing() };
    for kind in &options.asked.kinds {
        interrupt.check()?;
        // A busy machine may be too slow once.
        match kind.probe(options.local).or_else(|_| kind.probe(options.local)) {
            Ok(()) => probed.kinds.push(*kind),
            Err(why) => {
                let why = why.to_string();
                probed.missing.push(Missing { fault: kind.name().into(), why });
            }
        }
    }
    for missing in &probed.missing {
        eprintln!("MISSING: {}: {}", missing.fault, missing.why);
    }
    if probed.kinds.is_empty() && !options.asked.kinds.is_empty() {
        return Err("none of the attacks that were asked for works here: `folkmoot-jepsen fault \
             list` says of each what is missing; `--nemesis none` runs without any"
            .into());
    }
    Ok(probed)
}

/// Whether there is room for the nodes' disks, where a store is or is going to be.
///
/// # Errors
///
/// How much is missing.
pub fn space(directory: &Path, options: &Options) -> Result<(), String> {
    let whole = std::path::absolute(directory).map_err(|error| error.to_string())?;
    let there = whole.ancestors().find(|above| above.exists()).unwrap_or(&whole);
    let stat = rustix::fs::statvfs(there)
        .map_err(|error| format!("{}: {}", there.display(), io::Error::from(error)))?;
    let free = stat.f_bavail * stat.f_frsize;
    let node = DISK_BYTES_USED + options.prefill() * PREFILLED_BYTES;
    let needed = options.nodes_max() as u64 * node;
    if free >= needed {
        return Ok(());
    }
    Err(format!(
        "{} has {} MiB free, and {} nodes take about {} MiB: make room, or use another --store",
        directory.display(),
        free >> 20,
        options.nodes_max(),
        needed >> 20
    ))
}

/// The settings of the nodes: few users do what many do otherwise, and disks are small, and checkpoints
/// often enough to be hit. What is measured is measured with those that nodes have by themselves, but
/// for the first.
#[must_use]
pub fn settings(options: &Options) -> Vec<String> {
    let mut settings: Vec<String> = ["user", "token", "address"]
        .map(|whose| format!("limits.{whose}_requests_per_second=0"))
        .to_vec();
    if options.operations.is_none() {
        let ours =
            ["store.min_free_disk=64MiB", "store.ballast=16MiB", "store.checkpoint_interval=1s"];
        settings.extend(ours.map(str::to_owned));
    }
    settings.extend(options.settings.iter().cloned());
    settings
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
        if cluster.nodes[node].is_away() {
            continue;
        }
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
        let deadline = Instant::now() + FORM_WITHIN;
        let mut tries = 0;
        let answer = loop {
            // A try of which nothing was heard may have taken the name.
            let body = json!({ "user": format!("u{n}-{tries}") });
            match rest.request("POST", "/v1/users", Some(body)).await {
                Outcome::Ok(answer) => break answer,
                Outcome::Failed(why) | Outcome::Unknown(why) if Instant::now() > deadline => {
                    return Err(format!("user u{n} could not be made: {why}"));
                }
                Outcome::Failed(_) | Outcome::Unknown(_) => sleep(Duration::from_millis(50)).await,
            }
            tries += 1;
        };
        let token = answer["token"].as_str().ok_or("a user without a token")?.to_owned();
        users.push(User { token });
    }
    Ok(users)
}

/// What happened to each node.
#[must_use]
pub fn node_results(
    cluster: &Cluster,
    well: &BTreeSet<usize>,
    lost: &BTreeSet<usize>,
    excuses: &Excuses,
) -> Vec<NodeResult> {
    let result = |(place, node): (usize, &Arc<Node>)| {
        let exits = node.exits();
        NodeResult {
            name: node.name.clone(),
            stopped_by_itself: exits.len() as u64,
            why: exits.into_iter().map(|exit| format!("{}\n{}", exit.status, exit.said)).collect(),
            panics: excuses.panics(place),
            well: well.contains(&place),
            away: node.is_away(),
            lost: lost.contains(&place),
            snapshots_installed: node.said_since(0, storm::INSTALLED) as u64,
        }
    };
    cluster.nodes.iter().enumerate().map(result).collect()
}
