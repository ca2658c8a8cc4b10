//! `folkmoot cluster recover`: make a cluster of one node out of a survivor's data directory.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::cli::failure::{Failure, Outcome};
use crate::cli::order;
use crate::cli::output::{self, Table};
use crate::cli::serve::Settings;
use crate::id::ShardId;
use crate::node::recover::{Found, Part, RecoverError, Recovery};

/// Options of `cluster recover`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Recover {
    /// The survivor's configuration file.
    #[arg(long, env = "FOLKMOOT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The survivor's data directory.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Only say what would be done, and what may be lost.
    #[arg(long)]
    dry_run: bool,
    /// Let shards that this node has not begin empty.
    #[arg(long)]
    accept_lost_shards: bool,
    /// Do not ask for a confirmation.
    #[arg(long)]
    yes: bool,
    /// Write JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) async fn run(args: Recover) -> Outcome {
    let config = Settings::of_directory(args.config.clone(), args.data_dir.clone()).load()?;
    let cache_bytes = config.store.sled_cache.0;
    let opened = Recovery::open(&config.node.data_dir, cache_bytes);
    let mut recovery = opened.map_err(failed)?;
    let resumed = recovery.is_resumed();
    // What is decided is only to be finished: nobody has to be asked, and nobody can be in the way.
    if !recovery.is_decided() {
        let found = recovery.find_others().await;
        if !args.json {
            say(&recovery, &found)?;
        }
        let runs: Vec<String> = found
            .iter()
            .filter(|(_, found)| *found != Found::Gone)
            .map(|(node, found)| match found {
                Found::Silent => format!(
                    "at {}, the address of node {}, something takes \
                    connections and does not say who it is",
                    node.peer_address, node.id
                ),
                _ => format!("node {} runs at {}", node.id, node.peer_address),
            })
            .collect();
        if !runs.is_empty() {
            return Err(Failure::failed(format!(
                "{}. Beside a cluster that lives, a second one would be made of the same rooms. If a \
                 majority runs, or can be started, nothing has to be recovered. Otherwise stop all \
                 nodes, and recover from the one that has the most",
                runs.join("; ")
            )));
        }
        if args.dry_run {
            return facts(&args, &recovery, resumed, false);
        }
        if !args.accept_lost_shards && !recovery.lost().is_empty() {
            let lost = RecoverError::LostShards(recovery.lost());
            return Err(Failure::failed(format!(
                "{lost}. Recover from a node that has them; if there is none, \
                 --accept-lost-shards lets them begin empty"
            )));
        }
        if !args.json {
            output::line("")?;
        }
        order::confirm("This cannot be undone.", recovery.cluster_id(), args.yes)?;
    } else if args.dry_run {
        if !args.json {
            output::line("A recovery was interrupted here. Running it again finishes it.")?;
        }
        return facts(&args, &recovery, resumed, false);
    }
    recovery.carry_out(args.accept_lost_shards).map_err(failed)?;
    if !args.json {
        let id = recovery.new_cluster_id().unwrap_or_default();
        if resumed {
            output::line("An earlier recovery had been interrupted; it is finished.")?;
        }
        output::line(format!(
            "Node {} is cluster {id} now. Start it, then let empty nodes join.",
            recovery.node()
        ))?;
    }
    facts(&args, &recovery, resumed, true)
}

fn failed(error: RecoverError) -> Failure {
    Failure::failed(error.to_string())
}

/// What a person has to know before they confirm.
fn say(recovery: &Recovery, found: &[(crate::meta::Node, Found)]) -> Outcome {
    let node = recovery.node();
    output::line(format!("cluster {}, from what node {node} has\n", recovery.cluster_id()))?;
    let headings =
        ["SHARD>", "HERE", "LAST LOG>", "TERM>", "COMMIT>", "APPLIED>", "LAST WRITE", "ELSEWHERE"];
    let mut table = Table::new(&headings);
    for part in recovery.parts() {
        let holding = &part.holding;
        let index = |at: Option<(u64, u64)>| at.map_or("-".into(), |(_, index)| index.to_string());
        table.row([
            name(part.shard),
            state(recovery, part).into(),
            index(holding.last),
            holding.last.map_or("-".into(), |(term, _)| term.to_string()),
            index(holding.committed),
            index(holding.applied),
            holding.last_at_ms.filter(|ms| *ms > 0).map_or("-".into(), output::time_short),
            order::ids(&part.others.iter().map(|node| node.0).collect::<Vec<_>>()),
        ]);
    }
    table.print()?;
    output::line("")?;
    for (node, found) in found {
        let how = match found {
            Found::Gone => "does not answer",
            Found::Runs => "runs",
            Found::Silent => "takes connections, and does not say who it is",
        };
        output::line(format!("node {} at {} {how}", node.id, node.peer_address))?;
    }
    output::line(format!(
        "\nEverything in node {node}'s log is kept. What was acknowledged after it last heard of a \
         shard's leader\nmay be lost: only the others had it, and nothing here tells what it was. \
         Every room gets a new\nepoch, so clients that come back are told `recovered: false`. The \
         other nodes are removed for good:\ntheir data directories are of no use to the new cluster, \
         and must not be started again."
    ))?;
    if let Some(shards) = names(recovery) {
        output::line(format!(
            "\nNode {node} has nothing, or not all, of shard {shards}: rooms and users there would be \
             gone."
        ))?;
    }
    Ok(())
}

fn name(shard: ShardId) -> String {
    if shard == ShardId::META { "meta".into() } else { shard.to_string() }
}

fn names(recovery: &Recovery) -> Option<String> {
    let lost: Vec<_> = recovery.lost().iter().map(|(shard, _)| name(*shard)).collect();
    (!lost.is_empty()).then(|| lost.join(", "))
}

/// What this node is, or was, to the shard.
fn state(recovery: &Recovery, part: &Part) -> &'static str {
    match part.whole {
        false => "lost",
        true if part.holding.voters.contains(&recovery.node()) => "voter",
        true => "learner",
    }
}

/// The same as JSON.
fn facts(args: &Recover, recovery: &Recovery, resumed: bool, done: bool) -> Outcome {
    if !args.json {
        return Ok(());
    }
    let part = |part: &Part| -> Value {
        let holding = &part.holding;
        let index = |at: Option<(u64, u64)>| at.map(|(_, index)| index);
        json!({
            "shard": part.shard.0, "here": state(recovery, part),
            "last_log": index(holding.last), "term": holding.last.map(|(term, _)| term),
            "commit": index(holding.committed), "applied": index(holding.applied),
            "last_write": holding.last_at_ms.filter(|ms| *ms > 0).map(output::time),
            "elsewhere": part.others.iter().map(|node| node.0).collect::<Vec<_>>(),
        })
    };
    let other =
        |node: crate::meta::Node| json!({ "id": node.id.0, "peer_address": node.peer_address });
    output::line(json!({
        "lost_cluster_id": recovery.cluster_id(),
        "cluster_id": recovery.new_cluster_id(),
        "node_id": recovery.node().0,
        "shards": recovery.parts().iter().map(part).collect::<Vec<_>>(),
        "lost_shards": recovery.lost().iter().map(|(shard, _)| shard.0).collect::<Vec<_>>(),
        "other_nodes": recovery.others().into_iter().map(other).collect::<Vec<_>>(),
        "dry_run": args.dry_run,
        "resumed": resumed,
        "done": done,
    }))?;
    Ok(())
}
