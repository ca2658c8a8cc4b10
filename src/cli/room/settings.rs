//! `folkmoot room topic|pin|unpin|archive|unarchive|retention|thread`: the room itself.

use std::time::Duration;

use crate::cli::connection::{self, Connection};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::history;
use crate::cli::room::{One, acked};
use crate::id::{Cursor, RoomId, Seq};
use crate::proto::v1 as pb;

/// Options of `room topic`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Topic {
    /// The room's id.
    #[arg(value_parser = connection::room)]
    room: RoomId,
    /// The topic; an empty one takes it away.
    topic: String,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `room pin` and `room unpin`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Message {
    /// The room's id.
    #[arg(value_parser = connection::room)]
    room: RoomId,
    /// The message's seq.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    seq: u64,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `room retention`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("limit").required(true).multiple(true))]
pub(in crate::cli) struct Retention {
    /// The room's id.
    #[arg(value_parser = connection::room)]
    room: RoomId,
    /// Keep what is younger than this, such as 30d.
    #[arg(long, value_name = "DURATION", group = "limit", value_parser = humantime::parse_duration)]
    max_age: Option<Duration>,
    /// Keep so many of the newest events.
    #[arg(long, value_name = "COUNT", group = "limit", value_parser = clap::value_parser!(u64).range(1..))]
    max_events: Option<u64>,
    /// Keep everything from now on.
    #[arg(long, group = "limit", conflicts_with_all = ["max_age", "max_events"])]
    everything: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `room thread`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Thread {
    #[command(flatten)]
    message: Message,
    /// Replies after this seq, or epoch:seq.
    #[arg(long, value_name = "CURSOR", value_parser = connection::cursor, conflicts_with = "before")]
    after: Option<Cursor>,
    /// The newest replies before this seq, or epoch:seq.
    #[arg(long, value_name = "CURSOR", value_parser = connection::cursor)]
    before: Option<Cursor>,
    /// At most this many, 1 to 1,000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

/// `room topic`.
pub(super) async fn topic(args: Topic) -> Outcome {
    let ack = args.connection.client()?.set_topic(&args.room, &args.topic).await;
    acked(&args.connection, args.room.as_str(), ack, "set the topic of", "as it was:")
}

/// `room pin` and `room unpin`.
pub(super) async fn pin(args: Message, withdraw: bool) -> Outcome {
    let ack = args.connection.client()?.pin(&args.room, Seq(args.seq), withdraw).await;
    let (done, nothing) = match withdraw {
        false => ("pinned", "already pinned:"),
        true => ("unpinned", "not pinned:"),
    };
    acked(&args.connection, &format!("#{}", args.seq), ack, done, nothing)
}

/// `room archive` and `room unarchive`.
pub(super) async fn archive(args: One, withdraw: bool) -> Outcome {
    let ack = args.connection.client()?.archive(&args.room, withdraw).await;
    let (done, nothing) = match withdraw {
        false => ("archived", "already archived:"),
        true => ("unarchived", "not archived:"),
    };
    acked(&args.connection, args.room.as_str(), ack, done, nothing)
}

/// `room retention`.
pub(super) async fn retention(args: Retention) -> Outcome {
    let max_age_ms = match args.max_age {
        None => 0,
        Some(age) => match u64::try_from(age.as_millis()) {
            Ok(ms) if ms > 0 => ms,
            _ => return Err(Failure::Usage("--max-age must be at least a second".into())),
        },
    };
    let retention = pb::Retention { max_age_ms, max_events: args.max_events.unwrap_or(0) };
    let ack = args.connection.client()?.set_retention(&args.room, retention).await;
    acked(&args.connection, args.room.as_str(), ack, "set what is kept of", "as it was:")
}

/// `room thread`.
pub(super) async fn thread(args: Thread) -> Outcome {
    let Message { room, seq, connection } = &args.message;
    let request = pb::ThreadRequest {
        room: room.to_string(),
        root: *seq,
        after: args.after.as_ref().map(history::wire),
        before: args.before.as_ref().map(history::wire),
        limit: args.limit,
        consistency: pb::Consistency::Linearizable as i32,
    };
    let page = connection.client()?.thread(&request).await?;
    history::print(&page, connection.json)
}
