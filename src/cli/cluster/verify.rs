//! `folkmoot cluster verify`: compare all replicas, and have one repaired that differs.

use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::order;
use crate::cli::output;
use crate::cli::progress::Progress;
use crate::cli::signal;
use crate::client::Client;
use crate::error::{Code, Error};
use crate::proto::v1 as pb;
use pb::verify_response::Said;

/// Options of `cluster verify`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Verify {
    /// Only these shards.
    #[arg(long, value_name = "SHARD", value_delimiter = ',')]
    shard: Vec<u32>,
    /// Have a replica that differs from the majority set aside at its node's next start, and taken
    /// from the others.
    #[arg(long, value_name = "NODE/SHARD", value_parser = replica, conflicts_with = "shard")]
    repair: Option<(u64, u32)>,
    /// With --repair: do not ask.
    #[arg(long, requires = "repair")]
    yes: bool,
    /// With --repair: say whether it could be done, and change nothing.
    #[arg(long, requires = "repair")]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

fn replica(text: &str) -> Result<(u64, u32), String> {
    let parts = text.split_once('/');
    let parsed = parts.and_then(|(node, shard)| Some((node.parse().ok()?, shard.parse().ok()?)));
    parsed.ok_or_else(|| "use NODE/SHARD, like 2/5".into())
}

/// What a verification came to.
#[derive(Debug, Default)]
struct Verified {
    shards: u32,
    rooms: u64,
    events: u64,
    findings: Vec<pb::VerifyFinding>,
}

/// Runs the command.
pub(super) async fn run(args: Verify) -> Outcome {
    let client = args.connection.client()?;
    let shards = args.repair.map_or_else(|| args.shard.clone(), |(_, shard)| vec![shard]);
    let verifying = async { Ok(verify(&client, shards, args.connection.json).await?) };
    // Signals that were caught once do nothing by themselves any more, also while a prompt is answered.
    let asks = args.repair.is_some() && !args.yes && !args.dry_run;
    let verified = match asks {
        true => verifying.await?,
        false => signal::unless_stopped(verifying, "nothing was changed").await?,
    };
    match args.repair {
        None => report(&verified, args.connection.json),
        Some((node, shard)) => repair(&args, &client, &verified, node, shard).await,
    }
}

async fn verify(client: &Client, shards: Vec<u32>, quiet: bool) -> Result<Verified, Error> {
    let mut stream = client.verify(shards).await?;
    let mut verified = Verified::default();
    let mut bar: Option<Progress> = None;
    while let Some(said) = stream.next().await? {
        match said {
            Said::Finding(finding) => verified.findings.push(finding),
            Said::Progress(progress) => {
                let total = u64::from(progress.shards);
                let bar = bar.get_or_insert_with(|| Progress::start("shards", total, quiet));
                bar.add(u64::from(progress.shards_verified - verified.shards));
                verified.shards = progress.shards_verified;
                (verified.rooms, verified.events) = (progress.rooms, progress.events);
                if progress.done {
                    bar.finish();
                    return Ok(verified);
                }
            }
        }
    }
    Err(Error::new(Code::Unavailable, "the node stopped before all was verified; run it again"))
}

fn report(verified: &Verified, as_json: bool) -> Outcome {
    let Verified { shards, rooms, events, findings } = verified;
    if as_json {
        output::line(json!({
            "ok": findings.is_empty(), "shards": shards, "rooms": rooms, "events": events,
            "findings": findings.iter().map(finding_json).collect::<Vec<_>>(),
        }))?;
    } else {
        for finding in findings {
            output::line(finding_line(finding))?;
        }
        output::line(format!("compared {rooms} rooms with {events} events in {shards} shards"))?;
    }
    match findings.iter().filter(|finding| finding.kind != "unverified").count() {
        0 if findings.is_empty() && as_json => Ok(()),
        0 if findings.is_empty() => Ok(output::line("all replicas are the same")?),
        0 => Err(Failure::failed("not all replicas could be compared")),
        _ => {
            let what = "replicas differ, or are damaged; `folkmoot cluster verify --repair \
                        NODE/SHARD` mends one where a majority agrees";
            Err(Failure::failed(what))
        }
    }
}

fn finding_line(finding: &pb::VerifyFinding) -> String {
    let room = match &*finding.room {
        "" => String::new(),
        room => format!(", room {room}, at seq {}", finding.seq),
    };
    format!("{}: shard {}{room}: {}", finding.kind, finding.shard, finding.detail)
}

fn finding_json(finding: &pb::VerifyFinding) -> serde_json::Value {
    json!({
        "shard": finding.shard, "room": finding.room, "kind": finding.kind, "seq": finding.seq,
        "nodes": finding.nodes, "detail": finding.detail,
    })
}

async fn repair(
    args: &Verify,
    client: &Client,
    verified: &Verified,
    node: u64,
    shard: u32,
) -> Outcome {
    let as_json = args.connection.json;
    if !as_json {
        for finding in &verified.findings {
            output::line(finding_line(finding))?;
        }
    }
    if !verified.findings.iter().any(|finding| finding.nodes.contains(&node)) {
        let what = format!("node {node} differs from nobody in shard {shard}: nothing to repair");
        return Err(Failure::failed(what));
    }
    if args.dry_run {
        let plan = format!("would have node {node} set its state of shard {shard} aside");
        let as_object = json!({ "dry_run": true, "node": node, "shard": shard }).to_string();
        output::line(if as_json { as_object } else { plan })?;
        return Ok(());
    }
    let what = "The replica is set aside and taken from the others.";
    order::confirm(what, &format!("{node}/{shard}"), args.yes)?;
    let repairing = async { Ok(client.repair(node, shard).await?) };
    let stands = "the node may have been told all the same: run the same command again to be sure";
    signal::unless_stopped(repairing, stands).await?;
    if as_json {
        output::line(json!({ "node": node, "shard": shard, "restart_needed": true }))?;
    } else {
        output::line(format!(
            "node {node} sets its state of shard {shard} aside when it starts next, and takes the \
             others': restart it now, wait until it is ready, and verify again"
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_a_node_and_a_shard() {
        assert_eq!(replica("2/5"), Ok((2, 5)));
        for bad in ["", "2", "2/", "/5", "2/5/1", "a/5", "-1/2"] {
            assert!(replica(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_finding_says_where_and_who() {
        let finding = pb::VerifyFinding {
            shard: 3,
            room: "tea".into(),
            kind: "differs".into(),
            seq: 41,
            nodes: vec![2],
            detail: "node 2 differs from 1, 3".into(),
        };
        let line = "differs: shard 3, room tea, at seq 41: node 2 differs from 1, 3";
        assert_eq!(finding_line(&finding), line);
        assert_eq!(finding_json(&finding)["nodes"][0], 2);
    }
}
