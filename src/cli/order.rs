//! What `folkmoot node` and `folkmoot shard` have in common: an order is given, and its end is
//! waited for. Interrupting the waiting leaves the order to the cluster, which goes on with it.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::cli::progress::Progress;
use crate::cli::signal;
use crate::proto::v1 as pb;
use crate::proto::v1::order_request::Order;

/// How often it is asked how far an order has come.
const ASK_EVERY: Duration = Duration::from_millis(200);

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

/// Gives an order and waits until `is_done` says so of the placement.
///
/// # Errors
/// [`Failure::Interrupted`] at Ctrl-C and SIGTERM: the cluster goes on with the order.
pub(super) async fn give(
    order: Order,
    options: &Options,
    is_done: impl Fn(&pb::PlacementResponse) -> bool,
) -> Outcome {
    let mut stop = signal::Stop::catch()?;
    tokio::select! {
        outcome = give_and_wait(order, options, is_done) => outcome,
        () = stop.asked() => Err(interrupted(&order, options)),
    }
}

async fn give_and_wait(
    order: Order,
    options: &Options,
    is_done: impl Fn(&pb::PlacementResponse) -> bool,
) -> Outcome {
    let connection = &options.connection;
    let client = connection.client()?;
    let failure = |error| connection.failure(error);
    let steps = client.order(order, options.dry_run).await.map_err(failure)?;
    if !connection.json {
        for step in &steps {
            output::line(step)?;
        }
        if steps.is_empty() {
            output::line("nothing to do")?;
        }
    }
    let waits = !options.dry_run && !options.no_wait;
    if waits {
        let progress = Progress::start("steps", steps.len().max(1) as u64, connection.json);
        let mut version = 0;
        loop {
            let placement = client.placement().await.map_err(failure)?;
            if is_done(&placement) {
                break;
            }
            // Two changes of the map a step: its beginning and its end.
            if placement.version >= version + 2 {
                progress.add(u64::from(version != 0));
                version = placement.version;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        progress.finish();
    }
    if connection.json {
        output::line(json!({ "steps": steps, "dry_run": options.dry_run, "done": waits }))?;
    } else if waits {
        output::line("done")?;
    }
    Ok(())
}

/// What is to be said to whoever does not want to wait.
fn interrupted(order: &Order, options: &Options) -> Failure {
    if options.dry_run {
        return Failure::Interrupted("interrupted; nothing was changed".into());
    }
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
    Failure::Interrupted(format!(
        "interrupted; the cluster goes on with it: run the same command again to watch it{undo}"
    ))
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
