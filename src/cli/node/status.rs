//! `folkmoot node status`: one node, as the cluster sees it. It works without a leader.

use std::time::Duration;

use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output::{self, Table};
use crate::proto::v1 as pb;

/// For how long the meta group's leader is asked what the node is being caught up for.
const PLACEMENT_WITHIN: Duration = Duration::from_secs(3);

/// Options of `node status`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Status {
    /// The node's id.
    node: u64,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(in crate::cli) async fn run(args: Status) -> Outcome {
    let Status { node: id, connection } = args;
    let client = connection.client()?;
    let status = client.cluster_status().await?;
    let Some(node) = status.nodes.iter().find(|node| node.id == id) else {
        let known: Vec<String> = status.nodes.iter().map(|node| node.id.to_string()).collect();
        let known = known.join(", ");
        return Err(Failure::failed(format!("there is no node {id}: the nodes are {known}")));
    };
    // What nobody can tell just now is left out; the rest is of use all the same.
    let placement = tokio::time::timeout(PLACEMENT_WITHIN, client.placement()).await;
    let incoming = placement.ok().and_then(Result::ok).map(|placement| incoming(&placement, id));
    let replicas: Vec<_> = status.shards.iter().filter(|replica| replica.node == id).collect();
    if connection.json {
        let replica = |replica: &&pb::ShardStatus| {
            json!({
                "shard": replica.shard, "state": replica.state, "term": replica.term,
                "applied": replica.applied, "durable": replica.durable, "lag": replica.lag,
                "size_bytes": replica.size_bytes,
            })
        };
        output::line(json!({
            "id": node.id, "membership": node.membership, "up": node.state == "up",
            "client_address": node.client_address, "peer_address": node.peer_address,
            "version": node.version, "leaders": node.leaders, "streams": node.streams,
            "disk_bytes": node.disk_bytes,
            "replicas": replicas.iter().map(replica).collect::<Vec<_>>(),
            "incoming": incoming, "stale": status.stale,
        }))?;
        return Ok(());
    }
    let coming = match &incoming {
        None => "unknown: the meta group has no leader that answers this user".into(),
        Some(shards) if shards.is_empty() => "nothing".into(),
        Some(shards) => shards.iter().map(|shard| name(*shard)).collect::<Vec<_>>().join(", "),
    };
    let mut facts = Table::new(&["NODE", &id.to_string()]);
    for (what, value) in [
        ("state", format!("{}, {}", node.membership, node.state)),
        ("client", node.client_address.clone()),
        ("peer", node.peer_address.clone()),
        ("version", node.version.clone()),
        ("leads", node.leaders.to_string()),
        ("replicas", node.replicas.to_string()),
        ("streams", node.streams.to_string()),
        ("disk", output::bytes(node.disk_bytes)),
        ("is caught up for", coming),
    ] {
        facts.row([what.into(), value]);
    }
    facts.print()?;
    show_replicas(&replicas)
}

fn show_replicas(replicas: &[&pb::ShardStatus]) -> Outcome {
    if replicas.is_empty() {
        return Ok(());
    }
    output::line("")?;
    let headings =
        ["SHARD>", "STATE", "TERM>", "APPLIED>", "DURABLE>", "TRAILS LEADER BY>", "SIZE>"];
    let mut table = Table::new(&headings);
    for replica in replicas {
        table.row([
            name(replica.shard),
            replica.state.clone(),
            replica.term.to_string(),
            replica.applied.to_string(),
            replica.durable.to_string(),
            replica.lag.to_string(),
            output::bytes(replica.size_bytes),
        ]);
    }
    Ok(table.print()?)
}

/// The shards that a node is to have a replica of, and does not vote in yet.
fn incoming(placement: &pb::PlacementResponse, node: u64) -> Vec<u32> {
    let comes = |placed: &&pb::PlacedShard| {
        placed.target.contains(&node) && !placed.settled.contains(&node)
    };
    placement.shards.iter().filter(comes).map(|placed| placed.shard).collect()
}

fn name(shard: u32) -> String {
    if shard == 0 { "meta".into() } else { shard.to_string() }
}
