//! `folkmoot history`: a page of a room's log.

use serde_json::json;

use crate::cli::connection::{self, Connection};
use crate::cli::event_json::EventJson;
use crate::cli::failure::Outcome;
use crate::cli::{event_text, output};
use crate::id::{Cursor, Epoch, RoomId};
use crate::proto::v1 as pb;

/// Options of `history`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot history general\n  \
    folkmoot history general --before 1200 --limit 50\n  folkmoot history general --after 0 --json")]
pub(super) struct Args {
    /// The room.
    #[arg(value_parser = connection::room)]
    room: RoomId,
    /// Events after this seq, or epoch:seq.
    #[arg(long, value_name = "CURSOR", value_parser = connection::cursor, conflicts_with = "before")]
    after: Option<Cursor>,
    /// The newest events before this seq, or epoch:seq.
    #[arg(long, value_name = "CURSOR", value_parser = connection::cursor)]
    before: Option<Cursor>,
    /// At most this many, 1 to 1,000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Read what the asked node has, without asking a leader.
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    connection: Connection,
}

/// A cursor on the wire.
pub(super) fn wire(cursor: &Cursor) -> pb::Cursor {
    let epoch = cursor.epoch.as_ref().map(Epoch::to_string).unwrap_or_default();
    pb::Cursor { epoch, seq: cursor.seq.0 }
}

/// Runs the command.
pub(super) async fn run(args: Args) -> Outcome {
    let connection = &args.connection;
    let consistency =
        if args.local { pb::Consistency::Local } else { pb::Consistency::Linearizable };
    let request = pb::EventsRequest {
        room: args.room.to_string(),
        after: args.after.as_ref().map(wire),
        before: args.before.as_ref().map(wire),
        limit: args.limit,
        wait_ms: 0,
        consistency: consistency as i32,
    };
    let page = connection.client()?.events(&request).await?;
    print(&page, connection.json)
}

/// Prints a page of events; to people, what is kept when their cursor is older.
pub(super) fn print(page: &pb::EventsResponse, json: bool) -> Outcome {
    if !page.recovered && !json {
        eprintln!(
            "folkmoot: the cursor is older than what is kept; history begins at seq {} of epoch {}",
            page.first_seq, page.epoch
        );
    }
    if json {
        let events: Vec<_> = page.events.iter().map(EventJson::from).collect();
        output::line(json!({
            "epoch": page.epoch,
            "first_seq": page.first_seq,
            "head": page.head,
            "recovered": page.recovered,
            "events": events,
        }))?;
        return Ok(());
    }
    for event in &page.events {
        output::line(event_text::render(event))?;
    }
    Ok(())
}
