//! `folkmoot cluster`: form a cluster, see how it is, and recover it.

mod health;
mod recover;
mod verify;

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::connection::Connection;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::order::ids;
use crate::cli::output::{self, Table};
use crate::cli::progress::Progress;
use crate::cli::signal;
use crate::error::{Code, Error};
use crate::gateway::founding::{check_first_token, mint_first_token};
use crate::proto::v1 as pb;

/// The cluster.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Form a cluster out of nodes that have started with --join; prints the first admin's token.
    #[command(after_help = "Examples:\n  folkmoot cluster init --nodes 3\n  \
        folkmoot cluster init --single\n\nThe token is shown once: keep it.")]
    Init(Init),
    /// Show nodes and shards as one node sees them.
    #[command(after_help = "Examples:\n  folkmoot cluster status\n  \
        folkmoot cluster status --watch\n  folkmoot cluster status --json | jq .shards")]
    Status(Status),
    /// Say in a few words whether all is well; exit code 1 if not.
    #[command(after_help = "Examples:\n  folkmoot cluster health\n  \
        folkmoot cluster health --json | jq -r .health    # healthy, degraded or unavailable\n\n\
        Degraded: everything is served, with less to spare. Unavailable: some shard is not served.")]
    Health(health::Health),
    /// Compare what all replicas have of every room, and verify each one's hash chain.
    #[command(after_help = "Examples:\n  folkmoot cluster verify\n  \
        folkmoot cluster verify --json | jq .findings\n  \
        folkmoot cluster verify --repair 2/5    # node 2's replica of shard 5\n\n\
        Reads everything, on all nodes; people may go on chatting. Exits with 1 when replicas\n\
        differ, one is damaged, or not all could be compared.")]
    Verify(verify::Verify),
    /// Make a cluster of one node out of a survivor's data, when a majority is lost for good.
    #[command(after_help = "Examples:\n  \
        folkmoot cluster recover --data-dir /var/lib/folkmoot --dry-run\n  \
        folkmoot cluster recover --config /etc/folkmoot/node.toml\n\n\
        Offline: no node may run. Says what is kept and what may be lost, and asks for the lost\n\
        cluster's id to be typed. The node starts as a cluster of its own then, which is grown by\n\
        nodes that join. Interrupted, it is finished by running it again. See\n\
        docs/disaster/majority-lost.md. Exits with 64 when it is not confirmed by a terminal or --yes,\n\
        and with 1 when it is refused.")]
    Recover(recover::Recover),
    /// Show the last administrative actions: who has done what, with what outcome.
    #[command(after_help = "Examples:\n  folkmoot cluster audit --limit 20\n  \
        folkmoot cluster audit --json | jq '.actions[] | select(.who != \"the cluster\")'\n\nThe last \
        1000 are kept. What was done by itself is the doing of `the cluster`.")]
    Audit(Audit),
}

/// Options of `cluster audit`.
#[derive(Debug, clap::Args)]
pub(super) struct Audit {
    /// At most so many, the last ones.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `cluster init`.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// How many nodes to wait for: 1, 3 or 5. Each has a replica of everything; of nodes that join
    /// later, three have one of each shard.
    #[arg(long, default_value_t = 3)]
    nodes: u32,
    /// A cluster of one node: no copies, no failover.
    #[arg(long, conflicts_with = "nodes")]
    single: bool,
    /// How many shards rooms and users are spread over; cannot be changed later.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    shards: u32,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// The administrator's token to be: `fm_admin_` and 64 random hex digits. One is made up if none is
    /// given. Whoever has given it may run this again, whatever became of the first time.
    #[arg(long, env = "FOLKMOOT_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `cluster status`.
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Show it again every second, until interrupted.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(super) async fn run(command: Command) -> Outcome {
    match command {
        Command::Init(args) => init(args).await,
        Command::Status(args) => status(args).await,
        Command::Health(args) => health::run(args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Recover(args) => recover::run(args).await,
        Command::Audit(Audit { limit, connection }) => audit(limit, &connection).await,
    }
}

async fn init(args: Init) -> Outcome {
    let connection = args.connection;
    let nodes = if args.single { 1 } else { args.nodes };
    if ![1, 3, 5].contains(&nodes) {
        return Err(Failure::Usage("--nodes must be 1, 3 or 5".into()));
    }
    if let Some(token) = &args.admin_token {
        // Not the parser of arguments, which would show a secret that is nearly right.
        check_first_token(token).map_err(|error| Failure::Usage(error.message))?;
    }
    if args.dry_run {
        return would_init(nodes, args.shards, &connection).await;
    }
    let formed = form(nodes, args.shards, args.admin_token, &connection).await?;
    if connection.json {
        output::line(json!({
            "cluster_id": formed.cluster_id,
            "admin_user": formed.admin_user,
            "admin_token": formed.admin_token,
        }))?;
    } else {
        output::line(format!("cluster {} is ready", formed.cluster_id))?;
        output::line(format!("admin user:  {}", formed.admin_user))?;
        output::line(format!("admin token: {}  (shown once)", formed.admin_token))?;
    }
    Ok(())
}

/// Forms a cluster, with an administrator's token that is known from the first: the cluster may be formed
/// though this is interrupted, or no answer comes.
async fn form(
    nodes: u32,
    shards: u32,
    admin_token: Option<String>,
    connection: &Connection,
) -> Outcome<pb::InitResponse> {
    let client = connection.client()?;
    let given = admin_token.is_some();
    let token = admin_token.map_or_else(mint_first_token, Ok)?;
    // Whoever has given it knows it.
    let may_be_formed = match given {
        true => "the cluster may be formed all the same: run the same command again".to_owned(),
        false => format!(
            "the cluster may be formed all the same: run the same command again with --admin-token \
             {token}, which is its administrator's token then"
        ),
    };
    let _waiting = Progress::waiting(format!("waiting for {nodes} nodes"), connection.json);
    let forming = async { Ok(client.init_cluster(nodes, shards, &token).await) };
    let formed = signal::unless_stopped(forming, &may_be_formed).await?;
    formed.map_err(|error| {
        let further = match error.code {
            Code::AlreadyInitialized if !given => {
                "if its administrator's token was never shown, as an init was killed, and nothing is in \
                 it yet, stop the nodes, empty their data directories, and begin anew"
                    .into()
            }
            _ if error.may_have_applied => may_be_formed,
            _ => return Failure::Call(error),
        };
        Failure::Call(Error { message: format!("{}; {further}", error.message), ..error })
    })
}

async fn would_init(nodes: u32, shards: u32, connection: &Connection) -> Outcome {
    let status = connection.client()?.cluster_status().await?;
    if !status.cluster_id.is_empty() {
        let there = format!("cluster {} is initialised already", status.cluster_id);
        return Err(Failure::Call(Error::new(Code::AlreadyInitialized, there)));
    }
    if connection.json {
        output::line(json!({ "dry_run": true, "nodes": nodes, "shards": shards }))?;
    } else {
        output::line(format!(
            "would form a cluster of {nodes} with {shards} shards, once so many nodes have come, and \
             make its first administrator"
        ))?;
    }
    Ok(())
}

async fn audit(limit: u64, connection: &Connection) -> Outcome {
    let actions = connection.client()?.audit(limit).await?;
    if connection.json {
        let action = |action: &pb::AuditedAction| {
            json!({
                "at": output::time(action.at_ms), "who": action.who,
                "action": action.action, "outcome": action.outcome,
            })
        };
        output::line(json!({ "actions": actions.iter().map(action).collect::<Vec<_>>() }))?;
        return Ok(());
    }
    let mut table = Table::new(&["TIME (UTC)", "WHO", "ACTION", "OUTCOME"]);
    for action in actions {
        let when = output::time_short(action.at_ms);
        table.row([when, action.who, action.action, action.outcome]);
    }
    Ok(table.print()?)
}

async fn status(args: Status) -> Outcome {
    let connection = &args.connection;
    let client = connection.client()?;
    let mut stop = signal::Stop::catch()?;
    let show = async {
        loop {
            let status = client.cluster_status().await;
            let status = status.map_err(Failure::from);
            match status {
                Ok(status) => print(&args, &status)?,
                Err(failure) if args.watch => eprintln!("folkmoot: {failure}"),
                Err(failure) => return Err(failure),
            }
            if !args.watch {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        outcome = show => outcome,
        () = stop.asked() => Ok(()),
    }
}

fn print(args: &Status, status: &pb::StatusResponse) -> Outcome {
    if args.connection.json {
        output::line(status_json(status))?;
        return Ok(());
    }
    if args.watch && std::io::stdout().is_terminal() {
        output::line("\x1b[H\x1b[2J")?; // home, and clear
    }
    let stale = if status.stale { "  (stale: some shard has no leader that answers)" } else { "" };
    let cluster = if status.cluster_id.is_empty() { "not formed yet" } else { &status.cluster_id };
    output::line(format!("cluster {cluster}, as node {} sees it{stale}\n", status.node_id))?;
    let down: Vec<u64> =
        status.nodes.iter().filter(|node| node.state == "down").map(|node| node.id).collect();
    if !down.is_empty() {
        output::line(format!("no answer from node {}\n", ids(&down)))?;
    }
    output::line(nodes_table(status).render())?;
    output::line("")?;
    output::line(shards_table(status).render())?;
    Ok(())
}

fn nodes_table(status: &pb::StatusResponse) -> Table {
    let headings = [
        "NODE>",
        "STATE",
        "UP",
        "CLIENT",
        "PEER",
        "VERSION",
        "LEADS>",
        "REPLICAS>",
        "STREAMS>",
        "LAG>",
        "DISK>",
    ];
    let mut table = Table::new(&headings);
    for node in &status.nodes {
        table.row([
            node.id.to_string(),
            node.membership.clone(),
            node.state.clone(),
            node.client_address.clone(),
            node.peer_address.clone(),
            node.version.clone(),
            node.leaders.to_string(),
            node.replicas.to_string(),
            node.streams.to_string(),
            node.lag.to_string(),
            output::bytes(node.disk_bytes),
        ]);
    }
    table
}

fn shards_table(status: &pb::StatusResponse) -> Table {
    let headings = [
        "SHARD>",
        "NODE>",
        "STATE",
        "LEADER>",
        "TERM>",
        "LAST LOG>",
        "COMMIT>",
        "APPLIED>",
        "DURABLE>",
        "TRAILS LEADER BY>",
        "SIZE>",
        "VOTERS",
        "LEARNERS",
    ];
    let mut table = Table::new(&headings);
    let unknown_or = |id: u64| if id == 0 { "?".to_string() } else { id.to_string() };
    for replica in &status.shards {
        let shard = if replica.shard == 0 { "meta".to_string() } else { replica.shard.to_string() };
        table.row([
            shard,
            replica.node.to_string(),
            replica.state.clone(),
            unknown_or(replica.leader),
            replica.term.to_string(),
            replica.last_log.to_string(),
            replica.commit.to_string(),
            replica.applied.to_string(),
            replica.durable.to_string(),
            replica.lag.to_string(),
            output::bytes(replica.size_bytes),
            ids(&replica.voters),
            ids(&replica.learners),
        ]);
    }
    table
}

/// The cluster as JSON.
fn status_json(status: &pb::StatusResponse) -> Value {
    let node = |node: &pb::NodeStatus| {
        json!({
            "id": node.id, "state": node.state, "membership": node.membership, "version": node.version,
            "client_address": node.client_address, "peer_address": node.peer_address,
            "leaders": node.leaders, "replicas": node.replicas, "disk_bytes": node.disk_bytes,
            "lag": node.lag, "streams": node.streams,
        })
    };
    let replica = |replica: &pb::ShardStatus| {
        json!({
            "shard": replica.shard, "node": replica.node, "state": replica.state,
            "leader": replica.leader, "term": replica.term, "last_log": replica.last_log,
            "commit": replica.commit, "applied": replica.applied, "durable": replica.durable,
            "lag": replica.lag, "size_bytes": replica.size_bytes,
            "voters": replica.voters, "learners": replica.learners,
        })
    };
    json!({
        "cluster_id": status.cluster_id,
        "node_id": status.node_id,
        "stale": status.stale,
        "leaderless": status.leaderless,
        "nodes": status.nodes.iter().map(node).collect::<Vec<_>>(),
        "shards": status.shards.iter().map(replica).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_replica_has_its_row() {
        let replica = pb::ShardStatus { voters: vec![1, 2, 3], ..pb::ShardStatus::default() };
        let status = pb::StatusResponse {
            nodes: vec![pb::NodeStatus::default()],
            shards: vec![replica.clone(), pb::ShardStatus { shard: 8, leader: 2, ..replica }],
            ..pb::StatusResponse::default()
        };
        assert_eq!(nodes_table(&status).render().lines().count(), 2);
        let shards = shards_table(&status).render();
        assert_eq!(shards.lines().count(), 3);
        assert!(shards.contains("meta") && shards.contains("1,2,3"), "{shards}");
        assert_eq!(status_json(&status)["shards"][1]["leader"], 2);
    }
}
