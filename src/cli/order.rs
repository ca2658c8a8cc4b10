//! What `folkmoot node` and `folkmoot shard` have in common: an order is given, and its end is
//! waited for. Interrupting the waiting leaves the order to the cluster, which goes on with it.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::cli::progress::Progress;
use crate::cli::signal;
use crate::client::Client;
use crate::error::{Code, Error};
use crate::proto::v1 as pb;
use crate::proto::v1::order_request::Order;

/// How often it is asked how far an order has come.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// After how long it is said what an order waits for, and again when that is something else.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// After how long it is believed that a node must not stop: a replica may answer late, or a leader may
/// just have changed.
const CRITICAL_FOR: Duration = Duration::from_secs(5);

/// Options of every command that changes where something is.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Options {
    /// Only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait until it is done.
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub connection: Connection,
}

/// Gives an order and waits until `is_done` says so of the placement. A drain that is done says, too,
/// whether the node may stop.
///
/// # Errors
/// [`Failure::Interrupted`] at Ctrl-C and SIGTERM: the cluster goes on with the order.
pub(super) async fn give(
    order: Order,
    options: &Options,
    is_done: impl Fn(&pb::PlacementResponse) -> bool,
) -> Outcome {
    let mut stop = signal::Stop::catch()?;
    let is_given = AtomicBool::new(false);
    tokio::select! {
        outcome = give_and_wait(order, options, &is_given, is_done) => outcome,
        () = stop.asked() => Err(interrupted(&order, options, is_given.load(Ordering::Relaxed))),
    }
}

async fn give_and_wait(
    order: Order,
    options: &Options,
    is_given: &AtomicBool,
    is_done: impl Fn(&pb::PlacementResponse) -> bool,
) -> Outcome {
    let connection = &options.connection;
    let client = connection.client()?;
    let steps = client.order(order, options.dry_run).await?;
    is_given.store(true, Ordering::Relaxed);
    let stands = |error: Error| match options.dry_run {
        true => Failure::Call(error),
        false => {
            let message = format!("{}; {}", error.message, goes_on(&order));
            Failure::Call(Error { message, ..error })
        }
    };
    let mut state = None;
    if steps.is_empty() {
        let placement = client.placement().await.map_err(stands)?;
        state = Some(without_steps(&placement, is_done(&placement)));
    }
    if !connection.json {
        for step in steps.iter().chain(&state) {
            output::line(step)?;
        }
    }
    let waits = !options.dry_run && !options.no_wait;
    let mut critical = None;
    let mut drained = None;
    if waits {
        let waited = wait(&client, &order, steps.len(), connection.json, is_done).await;
        let placement = waited.map_err(stands)?;
        if let Order::Drain(node) = order {
            critical = Some(quorum_critical(&client, node).await.map_err(stands)?);
            drained = of(&placement, node).cloned();
        }
    }
    if connection.json {
        let mut said = json!({ "steps": steps, "dry_run": options.dry_run, "done": waits });
        if let Some(state) = state {
            said["state"] = json!(state);
        }
        if let Some(shards) = &critical {
            said["quorum_critical"] = json!(shards);
            said["streams"] = json!(drained.as_ref().map_or(0, |it| it.streams));
            said["in_force"] = json!(drained.as_ref().is_some_and(|it| it.in_force));
        }
        output::line(said)?;
    } else if waits {
        if let Some(left) = drained.as_ref().and_then(what_is_left) {
            output::line(left)?;
        }
        output::line("done")?;
    }
    match (order, critical) {
        (Order::Drain(node), Some(shards)) => may_stop(node, &shards, connection.json),
        _ => Ok(()),
    }
}

/// The shards that would have no quorum without a node, once there are none or that has lasted.
///
/// # Errors
/// Why it could not be asked.
pub(super) async fn quorum_critical(client: &Client, node: u64) -> Result<Vec<u32>, Error> {
    let begin = Instant::now();
    loop {
        let shards = client.quorum_critical(node).await?;
        if shards.is_empty() || begin.elapsed() >= CRITICAL_FOR {
            return Ok(shards);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Waits until an order is carried out, and returns what is then; says what it waits for when that takes
/// long.
async fn wait(
    client: &Client,
    order: &Order,
    steps: usize,
    quiet: bool,
    is_done: impl Fn(&pb::PlacementResponse) -> bool,
) -> Result<pb::PlacementResponse, Error> {
    let progress = Progress::share(quiet);
    let mut began_at = None;
    let mut said = (Instant::now(), String::new());
    loop {
        let placement = client.placement().await?;
        if let Order::Drain(node) = order
            && of(&placement, *node).is_none_or(|it| it.membership == "active")
        {
            let message =
                format!("node {node} was resumed, or removed, meanwhile: it does not drain");
            return Err(Error::new(Code::Unavailable, message));
        }
        if is_done(&placement) {
            return Ok(placement);
        }
        let done = match order {
            Order::Drain(node) => {
                let leads = of(&placement, *node).map_or(0, |it| it.leaders as usize);
                steps.saturating_sub(leads) as f64
            }
            // Two changes of the map a step: its beginning and its end.
            _ => {
                let changes = placement.version - *began_at.get_or_insert(placement.version);
                (changes / 2) as f64 + caught_up(&placement)
            }
        };
        progress.set(done / steps.max(1) as f64);
        if let Some(reason) = waits_for(&placement) {
            progress.at(&reason);
            if said.0.elapsed() >= SAY_EVERY && !progress.is_shown() {
                if reason != said.1 {
                    progress.note(&reason);
                }
                said = (Instant::now(), reason);
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// What a node has not done that leads nothing any more, and had its time.
fn what_is_left(drained: &pb::PlacedNode) -> Option<String> {
    match drained {
        it if !it.in_force => {
            Some(format!("node {} does not say that it drains: it may be down, or cut off", it.id))
        }
        it if it.streams > 0 => Some(format!(
            "{}, whose clients take nothing, end when it stops",
            streams_said(it.streams)
        )),
        _ => None,
    }
}

fn of(placement: &pb::PlacementResponse, node: u64) -> Option<&pb::PlacedNode> {
    placement.nodes.iter().find(|it| it.id == node)
}

/// How much of what is being moved now has come, of 1. What a node has already is not sent again, so the
/// rest may come all at once.
fn caught_up(placement: &pb::PlacementResponse) -> f64 {
    let coming = placement.shards.iter().flat_map(|shard| &shard.coming);
    let shares: Vec<f64> = coming.map(share).collect();
    shares.iter().sum::<f64>() / shares.len().max(1) as f64
}

/// How much of a shard a node has received, of 1.
fn share(node: &pb::CatchUp) -> f64 {
    (node.received_bytes as f64 / node.total_bytes.max(1) as f64).min(1.0)
}

/// What an order comes to that has no steps: it is carried out; it was given before, and is under way; or
/// it stands, and nothing of it can be done now.
fn without_steps(placement: &pb::PlacementResponse, is_done: bool) -> String {
    match waits_for(placement) {
        _ if is_done => "nothing to do".into(),
        Some(reason) => format!("no new step: {reason}"),
        None => "no new step: the cluster is at it".into(),
    }
}

/// What the cluster is at, or cannot go on without; `None` when it is just deciding.
fn waits_for(placement: &pb::PlacementResponse) -> Option<String> {
    let is_up = |id: &u64| placement.nodes.iter().any(|node| node.id == *id && node.up);
    if let Some(shard) = placement.shards.iter().find(|shard| shard.leader == 0) {
        return Some(format!("waiting for {} to have a leader", output::shard(shard.shard)));
    }
    let moving = placement.shards.iter().find(|shard| shard.target != shard.settled);
    let Some(moving) = moving else { return waits_for_nodes(placement) };
    let mut coming = moving.target.iter().filter(|id| !moving.settled.contains(id));
    let what = format!("{} moves to nodes {}", output::shard(moving.shard), ids(&moving.target));
    Some(match coming.clone().find(|id| !is_up(id)) {
        Some(away) => format!("{what}: waiting for node {away}, which does not answer"),
        None => match coming.next() {
            Some(node) => {
                let known = moving.coming.iter().find(|coming| coming.node == *node);
                let far = known.map_or(String::new(), how_far);
                format!("{what}: node {node} is being caught up{far}")
            }
            None => what,
        },
    })
}

/// How far a node has been caught up: what has come of a snapshot, or what it lacks of the log.
fn how_far(node: &pb::CatchUp) -> String {
    match node.received_bytes {
        0 => format!(", {} entries behind", node.lag),
        received => format!(
            ", {} of about {} ({:.0}%)",
            output::bytes(received),
            output::bytes(node.total_bytes.max(received)),
            100.0 * share(node)
        ),
    }
}

/// What is to be spread while no shard moves, and the nodes without which that does not go on.
fn waits_for_nodes(placement: &pb::PlacementResponse) -> Option<String> {
    let leaving = placement.nodes.iter().find(|node| node.membership == "leaving");
    let what = match leaving {
        Some(node) => format!("node {} is to leave, with {} replicas", node.id, node.replicas),
        None if placement.rebalancing => "replicas and leaders are to be spread".into(),
        None => return waits_for_streams(placement),
    };
    let stays = placement.nodes.iter().filter(|node| node.membership == "active");
    let away: Vec<u64> = stays.filter(|node| !node.up).map(|node| node.id).collect();
    Some(match away[..] {
        [] => what,
        [node] => format!("{what}: it may wait for node {node}, which does not answer"),
        _ => format!("{what}: it may wait for nodes {}, which do not answer", ids(&away)),
    })
}

/// Clients that have yet to leave a node that is drained.
fn waits_for_streams(placement: &pb::PlacementResponse) -> Option<String> {
    let mut drained = placement.nodes.iter().filter(|node| node.membership == "draining");
    let node = drained.find(|node| !node.in_force || node.streams > 0)?;
    Some(match node.streams {
        0 => format!("waiting for node {} to say that its clients have left", node.id),
        some => format!("waiting for {} on node {} to end", streams_said(some), node.id),
    })
}

fn streams_said(streams: u32) -> String {
    if streams == 1 { "1 stream".into() } else { format!("{streams} streams") }
}

/// Whether a node that was drained may be stopped.
///
/// # Errors
/// That it may not.
pub(super) fn may_stop(node: u64, shards: &[u32], json: bool) -> Outcome {
    if shards.is_empty() {
        if !json {
            output::line(format!("node {node} may stop: every shard keeps its quorum"))?;
        }
        return Ok(());
    }
    let shards: Vec<String> = shards.iter().map(|shard| output::shard(*shard)).collect();
    Err(Failure::failed(format!(
        "node {node} must not stop now: {} would have no quorum",
        shards.join(", ")
    )))
}

/// What is to be said to whoever does not want to wait.
fn interrupted(order: &Order, options: &Options, is_given: bool) -> Failure {
    Failure::Interrupted(if options.dry_run {
        "interrupted; nothing was changed".into()
    } else if is_given {
        format!("interrupted; {}", goes_on(order))
    } else {
        format!(
            "interrupted before the cluster had answered: it may have been given all the same \
             (`folkmoot cluster audit` tells); if so, {}",
            goes_on(order)
        )
    })
}

/// That an order stands, and what takes it back.
fn goes_on(order: &Order) -> String {
    let undo = match order {
        Order::MoveShard(order) => {
            Some(format!("shard move {} {} {}", order.shard, order.to, order.from))
        }
        Order::Drain(node) => Some(format!("node resume {node}")),
        Order::Resume(node) => Some(format!("node drain {node}")),
        Order::Remove(order) => Some(format!("node resume {}", order.node)),
        Order::TransferLeader(_) | Order::Rebalance(_) => None,
    };
    let undo = undo.map_or(String::new(), |undo| format!(", or `folkmoot {undo}` to take it back"));
    format!("the cluster goes on with it: run the same command again to watch it{undo}")
}

/// Asks for a typed confirmation of what cannot be undone, unless `yes`.
pub(super) fn confirm(what: &str, word: &str, yes: bool) -> Outcome {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("{what} Give --yes to confirm it.")));
    }
    eprint!("{what}\nType {word} to go on: ");
    std::io::stderr().flush().map_err(|error| Failure::failed(error.to_string()))?;
    let mut typed = String::new();
    let read = std::io::stdin().lock().read_line(&mut typed);
    read.map_err(|error| Failure::failed(error.to_string()))?;
    if typed.trim() == word {
        Ok(())
    } else {
        Err(Failure::failed("not confirmed; nothing was changed"))
    }
}

/// Nodes, comma-separated.
pub(super) fn ids(nodes: &[u64]) -> String {
    nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_is_named() {
        let node =
            |id, up| pb::PlacedNode { id, up, membership: "active".into(), ..Default::default() };
        let shard = |shard, target: &[u64], leader| pb::PlacedShard {
            shard,
            target: target.to_vec(),
            settled: vec![1, 2, 3],
            leader,
            coming: vec![],
        };
        let mut placement = pb::PlacementResponse {
            nodes: vec![node(1, true), node(2, true), node(3, false), node(4, true)],
            shards: vec![shard(0, &[1, 2, 3], 1), shard(1, &[1, 2, 4], 2)],
            ..Default::default()
        };
        let says = |placement: &_| waits_for(placement).unwrap_or_default();
        assert_eq!(says(&placement), "shard 1 moves to nodes 1,2,4: node 4 is being caught up");
        placement.shards[1].coming =
            vec![pb::CatchUp { node: 4, received_bytes: 0, total_bytes: 4 << 20, lag: 321 }];
        assert!(says(&placement).ends_with("node 4 is being caught up, 321 entries behind"));
        placement.shards[1].coming[0].received_bytes = 1 << 20;
        assert!(says(&placement).ends_with("caught up, 1.0 MiB of about 4.0 MiB (25%)"));
        assert_eq!(caught_up(&placement), 0.25);
        // What a leader has is told in round figures: it may be less than what it sends.
        placement.shards[1].coming[0].received_bytes = 5 << 20;
        assert!(says(&placement).ends_with("5.0 MiB of about 5.0 MiB (100%)"));
        placement.nodes[3].up = false;
        assert!(says(&placement).ends_with("waiting for node 4, which does not answer"));
        placement.shards[0].leader = 0;
        assert_eq!(says(&placement), "waiting for the meta group to have a leader");
        placement.shards = vec![shard(1, &[1, 2, 3], 2)];
        assert_eq!(waits_for(&placement), None);
        assert_eq!(without_steps(&placement, true), "nothing to do");
        assert!(without_steps(&placement, false).contains("at it"));
        placement.nodes[1].membership = "draining".into();
        assert!(says(&placement).contains("node 2 to say that its clients have left"));
        placement.nodes[1].in_force = true;
        assert_eq!(waits_for(&placement), None);
        placement.nodes[1].streams = 1;
        assert_eq!(says(&placement), "waiting for 1 stream on node 2 to end");
        placement.nodes[1].streams = 7;
        assert_eq!(says(&placement), "waiting for 7 streams on node 2 to end");
        let left = |node: &pb::PlacedNode| what_is_left(node).unwrap_or_default();
        assert!(left(&placement.nodes[1]).starts_with("7 streams, whose clients take nothing"));
        assert!(left(&placement.nodes[0]).contains("node 1 does not say that it drains"));
        placement.nodes[1].membership = "active".into();
        placement.rebalancing = true;
        assert!(says(&placement).ends_with("it may wait for nodes 3,4, which do not answer"));
        placement.nodes[2].membership = "draining".into();
        assert!(says(&placement).ends_with("it may wait for node 4, which does not answer"));
        placement.nodes[2].membership = "leaving".into();
        let said = without_steps(&placement, false);
        assert!(said.contains("no new step: node 3 is to leave"), "{said}");
        assert!(said.ends_with("it may wait for node 4, which does not answer"), "{said}");
    }

    #[test]
    fn whoever_interrupts_hears_whether_it_was_given() {
        let options = |dry_run| Options {
            dry_run,
            no_wait: false,
            connection: Connection {
                server: vec![],
                token: None,
                json: false,
                timeout: Duration::ZERO,
            },
        };
        let said =
            |given, dry_run| interrupted(&Order::Drain(2), &options(dry_run), given).to_string();
        assert!(said(true, false).contains("the cluster goes on with it"));
        assert!(said(false, false).contains("may have been given all the same"));
        assert!(said(false, false).contains("folkmoot node resume 2"));
        assert!(said(false, true).contains("nothing was changed"));
        assert!(may_stop(2, &[], true).is_ok());
        let why = may_stop(2, &[1, 4], false).unwrap_err().to_string();
        assert!(why.contains("must not stop now: shard 1, shard 4 "), "{why}");
    }
}
