//! `folkmoot shard`: where shards are, and who leads them.

use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::order::{self, ids};
use crate::cli::output::{self, Table};
use crate::proto::v1 as pb;
use crate::proto::v1::order_request::Order;

/// Where shards are.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List shards: who votes, who should, who leads.
    #[command(after_help = "Example:\n  folkmoot shard list --json | jq .shards")]
    List(List),
    /// Show one shard.
    #[command(after_help = "Example:\n  folkmoot shard show 3")]
    Show(Show),
    /// Hand the lead of a shard to another of its voters.
    #[command(after_help = "Example:\n  folkmoot shard transfer-leader 3 2")]
    TransferLeader(TransferLeader),
    /// Move a replica of a shard from one node to another.
    #[command(after_help = "Example:\n  folkmoot shard move 3 1 4\n\nThe cluster goes on with a \
        move by itself: an interrupted command can be run again, and a move under way be taken \
        back by the opposite one.")]
    Move(Move),
    /// Spread replicas and leaders evenly over active nodes.
    #[command(after_help = "Examples:\n  folkmoot shard rebalance --dry-run\n  \
        folkmoot shard rebalance --leaders")]
    Rebalance(Rebalance),
}

/// Options of `shard list`.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    connection: Connection,
}

/// Options of `shard show`.
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// The shard's number; 0 is the meta group.
    shard: u32,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `shard transfer-leader`.
#[derive(Debug, clap::Args)]
pub(super) struct TransferLeader {
    /// The shard's number; 0 is the meta group.
    shard: u32,
    /// The id of the node that is to lead.
    to: u64,
    #[command(flatten)]
    options: order::Options,
}

/// Options of `shard move`.
#[derive(Debug, clap::Args)]
pub(super) struct Move {
    /// The shard's number; 0 is the meta group.
    shard: u32,
    /// The id of the node that has a replica.
    from: u64,
    /// The id of the node that is to have it.
    to: u64,
    #[command(flatten)]
    options: order::Options,
}

/// Options of `shard rebalance`.
#[derive(Debug, clap::Args)]
pub(super) struct Rebalance {
    /// Only who leads.
    #[arg(long, conflicts_with = "replicas")]
    leaders: bool,
    /// Only where replicas are.
    #[arg(long)]
    replicas: bool,
    #[command(flatten)]
    options: order::Options,
}

/// Runs the command.
pub(super) async fn run(command: Command) -> Outcome {
    match command {
        Command::List(List { connection }) => show(None, &connection).await,
        Command::Show(Show { shard, connection }) => show(Some(shard), &connection).await,
        Command::TransferLeader(TransferLeader { shard, to, options }) => {
            let order = Order::TransferLeader(pb::TransferLeader { shard, to });
            order::give(order, &options, |_| true).await
        }
        Command::Move(Move { shard, from, to, options }) => {
            let order = Order::MoveShard(pb::MoveShard { shard, from, to });
            order::give(order, &options, |placement| {
                let shard = placement.shards.iter().find(|placed| placed.shard == shard);
                shard.is_some_and(|s| s.settled.contains(&to) && !s.settled.contains(&from))
            })
            .await
        }
        Command::Rebalance(Rebalance { leaders, replicas, options }) => {
            let both = !leaders && !replicas;
            let (replicas, leaders) = (replicas || both, leaders || both);
            let order = Order::Rebalance(pb::RebalanceOrder { replicas, leaders });
            order::give(order, &options, |placement| !placement.rebalancing).await
        }
    }
}

async fn show(only: Option<u32>, connection: &Connection) -> Outcome {
    let placement = connection.client()?.placement().await?;
    let mut shards = placement.shards;
    shards.retain(|placed| only.is_none_or(|shard| placed.shard == shard));
    if let Some(shard) = only.filter(|_| shards.is_empty()) {
        return Err(Failure::failed(format!("there is no shard {shard}")));
    }
    if connection.json {
        let coming = |node: &pb::CatchUp| {
            json!({
                "node": node.node, "received_bytes": node.received_bytes,
                "total_bytes": node.total_bytes, "lag": node.lag,
            })
        };
        let shard = |placed: &pb::PlacedShard| {
            json!({
                "shard": placed.shard, "leader": placed.leader,
                "voters": placed.settled, "target": placed.target,
                "coming": placed.coming.iter().map(coming).collect::<Vec<_>>(),
            })
        };
        output::line(json!({ "shards": shards.iter().map(shard).collect::<Vec<_>>() }))?;
        return Ok(());
    }
    let mut table = Table::new(&["SHARD>", "LEADER>", "VOTERS", "MOVES TO"]);
    for placed in &shards {
        let moves =
            if placed.target == placed.settled { String::new() } else { ids(&placed.target) };
        let leader = if placed.leader == 0 { "?".into() } else { placed.leader.to_string() };
        let shard = if placed.shard == 0 { "meta".into() } else { placed.shard.to_string() };
        table.row([shard, leader, ids(&placed.settled), moves]);
    }
    Ok(table.print()?)
}
