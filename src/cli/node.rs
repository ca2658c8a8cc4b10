//! `folkmoot node`: nodes come, drain and go, and are maintained.

mod status;

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::order;
use crate::cli::output::{self, Table};
use crate::cli::progress::Progress;
use crate::cli::signal;
use crate::error::Error;
use crate::meta::join_token::{TTL_MS, TTL_RULE};
use crate::proto::v1 as pb;
use crate::proto::v1::order_request::Order;

/// For how long a drain waits for clients once the node leads nothing: they are sent away at once, and only
/// one that takes nothing any more stays.
const STREAMS_FOR: Duration = Duration::from_secs(10);

/// The cluster's nodes.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Rewrite a node's base, so that redacted and trimmed data is gone from its disk.
    #[command(
        after_help = "Examples:\n  folkmoot node compact --server http://chat2.example.org:7400\n  \
        folkmoot node compact --dry-run --json | jq .bytes_before\n\n\
        Compacts the one node that --server names; run it for each."
    )]
    Compact(Compact),
    /// List the cluster's nodes.
    #[command(after_help = "Example:\n  folkmoot node list --json | jq .nodes")]
    List(List),
    /// Show one node: its replicas, how far they trail, what it is being caught up for.
    #[command(after_help = "Example:\n  folkmoot node status 2 --json | jq .replicas")]
    Status(status::Status),
    /// Move all leaders away from a node, and say whether it may be stopped; it keeps its replicas.
    #[command(after_help = "Example:\n  folkmoot node drain 2 && ssh chat2 systemctl restart \
        folkmoot && folkmoot node resume 2\n\nExit code 1 when a quorum would be lost if it stopped \
        now. Refused when nobody else could lead one of its shards.")]
    Drain(Drain),
    /// Let a node that was drained, or is being removed, take part as before: it gets its part of
    /// the leaders again.
    #[command(after_help = "Example:\n  folkmoot node resume 2")]
    Resume(Resume),
    /// Move all replicas away from a node, then remove it from the cluster for good.
    #[command(
        after_help = "Example:\n  folkmoot node remove 3 --yes\n\nRefused when too few nodes \
        would stay. Until it is done, `node resume` takes it back."
    )]
    Remove(Remove),
    /// Put a new node in the place of one that is lost, or is to go.
    #[command(
        after_help = "Example:\n  folkmoot node replace 3 4 --yes\n\nThe new node must have \
        joined: start it with --join first."
    )]
    Replace(Replace),
    /// Make a token that lets one more node join: `serve --join ADDRESS --join-token TOKEN`.
    #[command(after_help = "Examples:\n  folkmoot node token\n  \
        folkmoot node token --ttl 10m --json | jq -r .token\n\nThe token is shown once, admits one \
        node, and expires.")]
    Token(Token),
    /// Say whether a quorum would be lost if a node stopped now; exit code 1 if so.
    #[command(after_help = "Example:\n  folkmoot node quorum-critical 2 && ssh chat2 reboot")]
    QuorumCritical(QuorumCritical),
}

/// Options of `node list`.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    connection: Connection,
}

/// Options of `node drain`.
#[derive(Debug, clap::Args)]
pub(super) struct Drain {
    /// The node's id.
    node: u64,
    #[command(flatten)]
    options: order::Options,
}

/// Options of `node resume`.
#[derive(Debug, clap::Args)]
pub(super) struct Resume {
    /// The node's id.
    node: u64,
    #[command(flatten)]
    options: order::Options,
}

/// Options of `node remove`.
#[derive(Debug, clap::Args)]
pub(super) struct Remove {
    /// The node's id.
    node: u64,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    options: order::Options,
}

/// Options of `node replace`.
#[derive(Debug, clap::Args)]
pub(super) struct Replace {
    /// The id of the node that goes.
    old: u64,
    /// The id of the node that takes its place.
    new: u64,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    options: order::Options,
}

/// Options of `node token`.
#[derive(Debug, clap::Args)]
pub(super) struct Token {
    /// For how long it is valid: a second to thirty days.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `node quorum-critical`.
#[derive(Debug, clap::Args)]
pub(super) struct QuorumCritical {
    /// The node's id.
    node: u64,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `node compact`.
#[derive(Debug, clap::Args)]
pub(super) struct Compact {
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(super) async fn run(command: Command) -> Outcome {
    match command {
        Command::Compact(Compact { dry_run, connection }) => compact(dry_run, &connection).await,
        Command::List(List { connection }) => list(&connection).await,
        Command::Status(args) => status::run(args).await,
        Command::Drain(Drain { node, options }) => {
            let handed_over = Cell::new(None);
            order::give(Order::Drain(node), &options, |placement| {
                is_drained(placement, node, &handed_over)
            })
            .await
        }
        Command::Resume(Resume { node, options }) => {
            order::give(Order::Resume(node), &options, |placement| !placement.rebalancing).await
        }
        Command::Remove(Remove { node, yes, options }) => {
            let what = format!("Node {node} is removed for good: its id is never used again.");
            remove(&what, pb::RemoveNodeOrder { node, successor: 0 }, yes, &options).await
        }
        Command::Replace(Replace { old, new, yes, options }) => {
            let what = format!(
                "Node {new} takes the place of node {old}, which is removed for good: its id is \
                 never used again."
            );
            remove(&what, pb::RemoveNodeOrder { node: old, successor: new }, yes, &options).await
        }
        Command::Token(Token { ttl, dry_run, connection }) => {
            token(ttl, dry_run, &connection).await
        }
        Command::QuorumCritical(QuorumCritical { node, connection }) => {
            quorum_critical(node, &connection).await
        }
    }
}

/// Whether somebody else leads each of a node's groups, and its clients have left, or had their time to.
/// `handed_over`: since when it leads nothing, as far as was seen.
fn is_drained(
    placement: &pb::PlacementResponse,
    node: u64,
    handed_over: &Cell<Option<Instant>>,
) -> bool {
    let mut its = placement.shards.iter().filter(|shard| shard.settled.contains(&node));
    if !its.all(|placed| placed.leader != 0 && placed.leader != node) {
        handed_over.set(None);
        return false;
    }
    let since = handed_over.get().unwrap_or_else(Instant::now);
    handed_over.set(Some(since));
    let has_left = |it: &pb::PlacedNode| it.id == node && it.in_force && it.streams == 0;
    placement.nodes.iter().any(has_left) || since.elapsed() >= STREAMS_FOR
}

async fn remove(
    what: &str,
    order: pb::RemoveNodeOrder,
    yes: bool,
    options: &order::Options,
) -> Outcome {
    order::confirm(what, &order.node.to_string(), yes || options.dry_run)?;
    order::give(Order::Remove(order), options, |placement| placement.removed.contains(&order.node))
        .await
}

async fn list(connection: &Connection) -> Outcome {
    let placement = connection.client()?.placement().await?;
    if connection.json {
        let node = |node: &pb::PlacedNode| {
            json!({
                "id": node.id, "membership": node.membership, "up": node.up,
                "client_address": node.client_address, "peer_address": node.peer_address,
                "version": node.version, "replicas": node.replicas, "leaders": node.leaders,
                "streams": node.streams,
            })
        };
        let nodes: Vec<_> = placement.nodes.iter().map(node).collect();
        output::line(json!({
            "nodes": nodes, "removed": placement.removed, "rebalancing": placement.rebalancing,
        }))?;
        return Ok(());
    }
    let mut table = Table::new(&[
        "NODE>",
        "STATE",
        "UP",
        "CLIENT",
        "PEER",
        "VERSION",
        "LEADS>",
        "REPLICAS>",
        "STREAMS>",
    ]);
    for node in placement.nodes {
        let up = if node.up { "up" } else { "down" };
        table.row([
            node.id.to_string(),
            node.membership,
            up.into(),
            node.client_address,
            node.peer_address,
            node.version,
            node.leaders.to_string(),
            node.replicas.to_string(),
            node.streams.to_string(),
        ]);
    }
    Ok(table.print()?)
}

async fn token(ttl: Duration, dry_run: bool, connection: &Connection) -> Outcome {
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    if dry_run {
        if !TTL_MS.contains(&ttl_ms) {
            return Err(Error::invalid(TTL_RULE).into());
        }
        must_be_admin(connection).await?;
        let ttl_said = humantime::format_duration(ttl).to_string();
        if connection.json {
            output::line(json!({ "dry_run": true, "ttl_ms": ttl_ms }))?;
        } else {
            output::line(format!("would make a token that lets one node join within {ttl_said}"))?;
        }
        return Ok(());
    }
    let making = async { Ok(connection.client()?.join_token(ttl_ms).await?) };
    let stands = "a token may have been made that nobody knows: it expires by itself";
    let (token, expires_at_ms) = signal::unless_stopped(making, stands).await?;
    if connection.json {
        output::line(json!({ "token": token, "expires_at": output::time(expires_at_ms) }))?;
    } else {
        output::line(&token)?;
        let until = output::time_short(expires_at_ms);
        eprintln!("shown once; it lets one node join until {until} UTC");
    }
    Ok(())
}

async fn quorum_critical(node: u64, connection: &Connection) -> Outcome {
    let shards = order::quorum_critical(&connection.client()?, node).await?;
    if connection.json {
        output::line(json!({ "node": node, "shards": shards }))?;
    }
    order::may_stop(node, &shards, connection.json)
}

/// # Errors
/// Unless the caller is an administrator, as it would be asked if this were no dry run.
async fn must_be_admin(connection: &Connection) -> Outcome {
    let placement = connection.client()?.placement().await;
    placement.map(drop).map_err(Failure::from)
}

async fn compact(dry_run: bool, connection: &Connection) -> Outcome {
    if connection.server.len() != 1 {
        return Err(Failure::Usage("give exactly one --server: the node to compact".into()));
    }
    if dry_run {
        must_be_admin(connection).await?;
        let status = connection.client()?.cluster_status().await?;
        let node = status.node_id;
        let it = status.nodes.into_iter().find(|node| node.id == status.node_id);
        let bytes = it.map_or(0, |node| node.disk_bytes);
        if connection.json {
            output::line(json!({ "dry_run": true, "node": node, "bytes_before": bytes }))?;
        } else {
            let bytes = output::bytes(bytes);
            output::line(format!(
                "would rewrite the base of node {node}, whose data takes {bytes}; as much as the base \
                 takes must be free"
            ))?;
        }
        return Ok(());
    }
    let waiting = Progress::waiting("rewriting the node's base", connection.json);
    let compacting = async { Ok(connection.client()?.compact_node().await?) };
    let stands =
        "the node finishes what it is at: run the same command again to have all rewritten";
    let sizes = signal::unless_stopped(compacting, stands).await?;
    waiting.finish();
    if connection.json {
        output::line(json!({
            "bytes_before": sizes.bytes_before,
            "bytes_after": sizes.bytes_after,
        }))?;
    } else {
        let (before, after) = (output::bytes(sizes.bytes_before), output::bytes(sizes.bytes_after));
        output::line(format!("compacted {before} to {after}"))?;
    }
    Ok(())
}
