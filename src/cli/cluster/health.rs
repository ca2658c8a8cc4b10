//! `folkmoot cluster health`: what is wrong, in a sentence each; for people, scripts and monitors.

use std::collections::BTreeSet;

use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::limits::CAUGHT_UP_LAG_MAX;
use crate::proto::v1 as pb;

/// Options of `cluster health`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Health {
    #[command(flatten)]
    connection: Connection,
}

/// What is wrong with a cluster.
#[derive(Debug, Default, PartialEq, Eq)]
struct Problems {
    /// Nobody can post to, or read, what this is about.
    outages: Vec<String>,
    /// All goes on, with less to spare.
    losses: Vec<String>,
}

impl Problems {
    fn verdict(&self) -> &'static str {
        match (self.outages.is_empty(), self.losses.is_empty()) {
            (true, true) => "healthy",
            (true, false) => "degraded",
            (false, _) => "unavailable",
        }
    }
}

/// Runs the command.
pub(super) async fn run(args: Health) -> Outcome {
    let connection = args.connection;
    let status = connection.client()?.cluster_status().await?;
    let problems = problems(&status);
    let verdict = problems.verdict();
    if connection.json {
        output::line(json!({
            "health": verdict, "outages": problems.outages, "losses": problems.losses,
        }))?;
    } else {
        for problem in problems.outages.iter().chain(&problems.losses) {
            output::line(problem)?;
        }
    }
    match verdict {
        "healthy" if connection.json => Ok(()),
        "healthy" => Ok(output::line(format!(
            "healthy: {} nodes, every shard has a leader and all its replicas",
            status.nodes.len()
        ))?),
        verdict => Err(Failure::failed(format!("the cluster is {verdict}"))),
    }
}

fn problems(status: &pb::StatusResponse) -> Problems {
    let mut problems = Problems::default();
    if status.cluster_id.is_empty() {
        let how = "the cluster is not formed yet: run `folkmoot cluster init`";
        problems.outages.push(how.into());
        return problems;
    }
    for node in status.nodes.iter().filter(|node| node.state != "up") {
        problems.losses.push(format!("node {} at {} does not answer", node.id, node.peer_address));
    }
    // A shard that no node which answers has a replica of is in no report.
    let reported = status.shards.iter().map(|replica| replica.shard);
    let shards: BTreeSet<u32> = reported.chain(status.leaderless.iter().copied()).collect();
    for shard in shards {
        let replicas: Vec<_> = status.shards.iter().filter(|r| r.shard == shard).collect();
        let name = output::shard(shard);
        // One that was cut off may take itself for the leader still.
        let leading = replicas.iter().filter(|replica| replica.state == "leader");
        let leader = leading.max_by_key(|replica| replica.term);
        let Some(leader) = leader.filter(|_| !status.leaderless.contains(&shard)) else {
            problems.outages.push(format!("{name} has no leader that answers"));
            continue;
        };
        for voter in &leader.voters {
            match replicas.iter().find(|replica| replica.node == *voter) {
                None => problems.losses.push(format!("{name}: node {voter}'s replica is away")),
                Some(replica) if replica.state == "stopped" => {
                    problems.losses.push(format!("{name}: node {voter}'s replica has stopped"));
                }
                Some(replica) if replica.lag > CAUGHT_UP_LAG_MAX => problems
                    .losses
                    .push(format!("{name}: node {voter} trails leader by {} entries", replica.lag)),
                Some(_) => {}
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(replicas: &[(u32, u64, &str, u64)]) -> pb::StatusResponse {
        let replica = |(shard, node, state, lag): &(u32, u64, &str, u64)| pb::ShardStatus {
            shard: *shard,
            node: *node,
            state: (*state).into(),
            lag: *lag,
            voters: vec![1, 2, 3],
            ..pb::ShardStatus::default()
        };
        let node = |id| pb::NodeStatus { id, state: "up".into(), ..pb::NodeStatus::default() };
        pb::StatusResponse {
            cluster_id: "c".into(),
            nodes: (1..=3).map(node).collect(),
            shards: replicas.iter().map(replica).collect(),
            ..pb::StatusResponse::default()
        }
    }

    #[test]
    fn what_is_lost_and_what_is_out_are_told_apart() {
        let well = status(&[(0, 1, "leader", 0), (0, 2, "follower", 64), (0, 3, "follower", 0)]);
        assert_eq!(problems(&well).verdict(), "healthy");
        let mut away = status(&[(0, 1, "leader", 0), (0, 2, "follower", 65)]);
        away.nodes[2].state = "down".into();
        let found = problems(&away);
        assert_eq!((found.verdict(), found.losses.len()), ("degraded", 3), "{found:?}");
        let mut out = away.clone();
        out.shards.push(pb::ShardStatus {
            shard: 1,
            state: "follower".into(),
            ..out.shards[1].clone()
        });
        let found = problems(&out);
        assert_eq!(found.verdict(), "unavailable");
        assert_eq!(found.outages, ["shard 1 has no leader that answers"]);
        // One that nobody tells of is out as well.
        let silent = pb::StatusResponse { leaderless: vec![2], ..well };
        assert_eq!(problems(&silent).outages, ["shard 2 has no leader that answers"]);
        assert_eq!(problems(&pb::StatusResponse::default()).verdict(), "unavailable");
    }
}
