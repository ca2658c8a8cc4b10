//! `folkmoot post`: messages from the arguments or standard input.

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::cli::connection::{self, Connection};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::client::{Post, Session};
use crate::error::Error;
use crate::id::{RequestId, RoomId, Seq};
use crate::proto::v1 as pb;

/// Lines of standard input that may be unacknowledged at a time. They are sent in order on one
/// stream; only an error can reorder them.
const PIPELINE: usize = 64;

/// Options of `post`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot post general 'Hello, world'\n  \
    dmesg | folkmoot post ops\n  folkmoot post general --action waves\n\n\
    Without TEXT, each line of standard input is a message; blank ones are skipped.")]
pub(super) struct Args {
    /// The room.
    #[arg(value_parser = connection::room)]
    room: RoomId,
    /// What to say.
    text: Option<String>,
    /// Say it in the third person, like /me.
    #[arg(long)]
    action: bool,
    /// Answer the message with this seq.
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    reply_to: Option<u64>,
    /// A UUIDv7 of your own: posting it again has no further effect. For one message.
    #[arg(long, value_name = "UUID", value_parser = RequestId::parse, requires = "text")]
    id: Option<RequestId>,
    #[command(flatten)]
    connection: Connection,
}

impl Args {
    fn message(&self, text: String) -> Post {
        let kind = if self.action { pb::EventKind::Action } else { pb::EventKind::Message };
        let reply_to = self.reply_to.map(Seq);
        Post { kind, reply_to, id: self.id, ..Post::message(&self.room, text) }
    }

    fn print(&self, ack: Result<pb::Ack, Error>) -> Outcome {
        let ack = ack?;
        if self.connection.json {
            output::line(output::ack_json(&ack))?;
        } else {
            let again = if ack.duplicate { " (was there already)" } else { "" };
            output::line(format!("#{}{again}", ack.seq))?;
        }
        Ok(())
    }
}

/// Runs the command.
pub(super) async fn run(args: Args) -> Outcome {
    let client = args.connection.client()?;
    if let Some(text) = args.text.clone() {
        let ack = client.post(&args.message(text)).await;
        return args.print(ack);
    }
    let session = Session::open(&client).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    // Polls its futures for the first time in order, so lines go out in order.
    let mut pending = FuturesOrdered::new();
    let mut open = true;
    while open || !pending.is_empty() {
        tokio::select! {
            line = lines.next_line(), if open && pending.len() < PIPELINE => match line {
                Ok(Some(text)) if text.trim().is_empty() => {} // a message needs a text
                Ok(Some(text)) => pending.push_back(session.post(args.message(text))),
                Ok(None) => open = false,
                Err(error) => {
                    return Err(Failure::failed(format!("cannot read standard input: {error}")));
                }
            },
            Some(ack) = pending.next(), if !pending.is_empty() => args.print(ack)?,
        }
    }
    Ok(())
}
