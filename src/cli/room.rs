//! `folkmoot room`: rooms and who is in them.

use serde_json::json;

use crate::cli::connection::{self, Connection};
use crate::cli::failure::Outcome;
use crate::cli::output::{self, Table};
use crate::client::Client;
use crate::error::Error;
use crate::id::RoomId;
use crate::proto::v1 as pb;

/// Rooms.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create a room; you are its owner. Creating the same room again changes nothing.
    #[command(after_help = "Examples:\n  folkmoot room create general --title 'General chat'\n  \
        folkmoot room create dm:alice:bob --kind direct")]
    Create(Create),
    /// List the rooms that you may see.
    #[command(after_help = "Example:\n  folkmoot room list --json")]
    List(List),
    /// Show a room's state and participants.
    #[command(after_help = "Example:\n  folkmoot room show general")]
    Show(One),
    /// Join a room, so that you can post.
    #[command(after_help = "Example:\n  folkmoot room join general")]
    Join(One),
    /// Leave a room.
    #[command(after_help = "Example:\n  folkmoot room leave general")]
    Leave(One),
}

/// Options of `room create`.
#[derive(Debug, clap::Args)]
pub(super) struct Create {
    /// The room's id: a slug, or dm:<a>:<b> for a direct room.
    #[arg(value_parser = connection::room)]
    room: RoomId,
    /// The title that people see.
    #[arg(long, default_value = "")]
    title: String,
    /// Who may see it.
    #[arg(long, value_enum, default_value = "public")]
    kind: Kind,
    #[command(flatten)]
    connection: Connection,
}

/// A room's kind.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Anyone with an account may read and join it.
    Public,
    /// Only its participants see it.
    Private,
    /// Between two users.
    Direct,
}

/// Options of `room list`.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    connection: Connection,
}

/// Options of commands on one room.
#[derive(Debug, clap::Args)]
pub(super) struct One {
    /// The room's id.
    #[arg(value_parser = connection::room)]
    room: RoomId,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(super) async fn run(command: Command) -> Outcome {
    match command {
        Command::Create(args) => create(args).await,
        Command::List(args) => list(args).await,
        Command::Show(args) => show(args).await,
        Command::Join(args) => {
            let ack = args.connection.client()?.join(&args.room).await;
            acked(&args, ack, "joined", "already in")
        }
        Command::Leave(args) => {
            let ack = args.connection.client()?.leave(&args.room).await;
            acked(&args, ack, "left", "not in")
        }
    }
}

async fn create(args: Create) -> Outcome {
    let connection = args.connection;
    let kind = match args.kind {
        Kind::Public => pb::RoomKind::Public,
        Kind::Private => pb::RoomKind::Private,
        Kind::Direct => pb::RoomKind::Direct,
    };
    let created = connection.client()?.create_room(&args.room, &args.title, kind).await;
    let created = created.map_err(|error| connection.failure(error))?;
    if connection.json {
        let mut room = output::room_json(&created.room.unwrap_or_default());
        room["created"] = json!(created.created);
        output::line(room)?;
    } else {
        let what = if created.created { "created" } else { "was there already:" };
        output::line(format!("{what} {}", args.room))?;
    }
    Ok(())
}

/// Every room that the caller may see.
pub(super) async fn all(client: &Client) -> Result<Vec<pb::Room>, Error> {
    let (mut rooms, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.list_rooms(&after, 1000).await?;
        rooms.extend(page.rooms);
        after = page.next;
        if after.is_empty() {
            return Ok(rooms);
        }
    }
}

async fn list(args: List) -> Outcome {
    let connection = args.connection;
    let client = connection.client()?;
    let rooms = all(&client).await.map_err(|error| connection.failure(error))?;
    if connection.json {
        let rooms: Vec<_> = rooms.iter().map(output::room_json).collect();
        output::line(json!({ "rooms": rooms }))?;
        return Ok(());
    }
    let mut table = Table::new(&["ROOM", "KIND", "HEAD>", "PARTICIPANTS>", "TITLE"]);
    for room in rooms {
        let kind = output::room_kind(room.kind()).to_string();
        let (head, participants) = (room.head.to_string(), room.participant_count.to_string());
        table.row([room.room, kind, head, participants, room.title]);
    }
    table.print()?;
    Ok(())
}

async fn show(args: One) -> Outcome {
    let connection = args.connection;
    let client = connection.client()?;
    let room = client.get_room(&args.room, pb::Consistency::Linearizable).await;
    let room = room.map_err(|error| connection.failure(error))?;
    if connection.json {
        output::line(output::room_json(&room))?;
        return Ok(());
    }
    let mut table = Table::new(&["ROOM", &output::printable(&room.room)]);
    table.row(["title".into(), room.title.clone()]);
    table.row(["topic".into(), room.topic.clone()]);
    table.row(["kind".into(), output::room_kind(room.kind()).into()]);
    table.row(["created".into(), output::time_short(room.created_at_ms)]);
    table.row(["head".into(), room.head.to_string()]);
    table.row(["first seq".into(), room.first_seq.to_string()]);
    table.row(["epoch".into(), room.epoch.clone()]);
    table.row(["chain".into(), output::hex(&room.chain)]);
    table.row(["participants".into(), room.participant_count.to_string()]);
    for participant in &room.participants {
        let role = output::role(participant.role());
        let since = output::time_short(participant.since_ms);
        table.row([format!("  {}", participant.user), format!("{role} since {since}")]);
    }
    table.print()?;
    Ok(())
}

fn acked(args: &One, ack: Result<pb::Ack, Error>, done: &str, nothing: &str) -> Outcome {
    let ack = ack.map_err(|error| args.connection.failure(error))?;
    if args.connection.json {
        output::line(output::ack_json(&ack))?;
    } else {
        let what = if ack.duplicate { nothing } else { done };
        output::line(format!("{what} {}", args.room))?;
    }
    Ok(())
}
