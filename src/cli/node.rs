//! `folkmoot node`: maintenance of one node.

use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;

/// Maintenance of one node.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Rewrite a node's base, so that redacted and trimmed data is gone from its disk.
    #[command(
        after_help = "Example:\n  folkmoot node compact --server http://chat2.example.org:7400\n\n\
        Compacts the one node that --server names; run it for each."
    )]
    Compact(Compact),
}

/// Options of `node compact`.
#[derive(Debug, clap::Args)]
pub(super) struct Compact {
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(super) async fn run(command: Command) -> Outcome {
    let Command::Compact(Compact { connection }) = command;
    if connection.server.len() != 1 {
        return Err(Failure::Usage("give exactly one --server: the node to compact".into()));
    }
    let sizes = connection.client()?.compact_node().await;
    let sizes = sizes.map_err(|error| connection.failure(error))?;
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
