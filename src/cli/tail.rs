//! `folkmoot tail`: follow a room live, across failovers.

use crate::cli::connection::{self, Connection};
use crate::cli::event_json::EventJson;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::{event_text, output, signal};
use crate::client::{Client, Delivered, Session};
use crate::error::Error;
use crate::id::{Cursor, RoomId, Seq};
use crate::proto::v1 as pb;

/// Options of `tail`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot tail general\n  \
    folkmoot tail general --after 0 --json | jq .text\n\n\
    Each event comes once and in order, across failovers and reconnects, until interrupted.")]
pub(super) struct Args {
    /// The room.
    #[arg(value_parser = connection::room)]
    room: RoomId,
    /// Start after this seq, or epoch:seq; 0 for all history.
    #[arg(long, value_name = "CURSOR", value_parser = connection::cursor, conflicts_with = "lines")]
    after: Option<Cursor>,
    /// Start with this many of the newest events.
    #[arg(short = 'n', long, default_value_t = 10)]
    lines: u64,
    /// End after this many events.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(super) async fn run(args: Args) -> Outcome {
    let client = args.connection.client()?;
    let mut stop = signal::Stop::catch()?;
    tokio::select! {
        outcome = follow(&args, &client) => outcome,
        () = stop.asked() => Ok(()),
    }
}

async fn follow(args: &Args, client: &Client) -> Outcome {
    let failure = |error: Error| Failure::Call(error);
    let after = match &args.after {
        Some(cursor) => cursor.clone(),
        None => newest(client, args).await.map_err(failure)?,
    };
    let session = Session::open(client).await.map_err(failure)?;
    let mut follow = session.follow(&args.room, Some(after)).await.map_err(failure)?;
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        match follow.next().await {
            Some(Ok(Delivered::Event(event))) => {
                print(args, &event)?;
                left -= 1;
            }
            Some(Ok(Delivered::CaughtUp(_))) => {}
            Some(Ok(Delivered::Lost { epoch, first_seq })) => {
                eprintln!(
                    "folkmoot: history between here and seq {first_seq} is gone or was replaced \
                     (epoch {epoch})"
                );
            }
            Some(Err(error)) => return Err(failure(error)),
            None => return Err(Failure::failed("the session ended")),
        }
    }
    Ok(())
}

/// The cursor before the newest events.
async fn newest(client: &Client, args: &Args) -> Result<Cursor, Error> {
    let room = client.get_room(&args.room, pb::Consistency::Linearizable).await?;
    let first = room.first_seq.saturating_sub(1);
    Ok(Cursor { epoch: None, seq: Seq(room.head.saturating_sub(args.lines).max(first)) })
}

fn print(args: &Args, event: &pb::Event) -> Outcome {
    if args.connection.json {
        let event = serde_json::to_string(&EventJson::from(event));
        output::line(event.map_err(|error| Failure::failed(error.to_string()))?)?;
    } else {
        output::line(event_text::render(event))?;
    }
    Ok(())
}
