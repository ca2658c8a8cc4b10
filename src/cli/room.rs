//! `folkmoot room`: rooms and who is in them.

mod marks;
mod moderate;
mod people;
mod settings;

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
    /// List the rooms that you may see, or find some of them.
    #[command(after_help = "Examples:\n  folkmoot room list --json\n  \
        folkmoot room list --search rust")]
    List(List),
    /// List the rooms that you are in or invited to, with what you have not read there.
    #[command(after_help = "Example:\n  folkmoot room mine --json")]
    Mine(marks::Mine),
    /// Say up to where you have read a room; without a seq, all of it.
    #[command(after_help = "Examples:\n  folkmoot room read general\n  \
        folkmoot room read general 42\n\n\
        The mark holds on all your devices, and never goes back.")]
    Read(marks::Read),
    /// List everybody who is in a room, and, if you are, who of them is there.
    #[command(after_help = "Example:\n  folkmoot room people general")]
    People(One),
    /// Show a room's state and participants.
    #[command(after_help = "Example:\n  folkmoot room show general")]
    Show(One),
    /// Join a room, so that you can post; or accept an invitation.
    #[command(after_help = "Example:\n  folkmoot room join general")]
    Join(One),
    /// Leave a room, or decline an invitation.
    #[command(after_help = "Example:\n  folkmoot room leave general")]
    Leave(One),
    /// Invite somebody: they see the room then, and may join.
    #[command(after_help = "Example:\n  folkmoot room invite secret bob")]
    Invite(moderate::Somebody),
    /// Remove somebody, or take back an invitation. They may come back as they came.
    #[command(after_help = "Example:\n  folkmoot room kick general bob --reason 'off topic'")]
    Kick(moderate::Kick),
    /// Keep somebody out, for a time or for good.
    #[command(after_help = "Examples:\n  folkmoot room ban general bob --for 7d --reason spam\n  \
        folkmoot room ban general bob")]
    Ban(moderate::Restrict),
    /// Lift a ban. They may join again.
    #[command(after_help = "Example:\n  folkmoot room unban general bob")]
    Unban(moderate::Somebody),
    /// Keep somebody from speaking, for a time or for good.
    #[command(after_help = "Example:\n  folkmoot room mute general bob --for 90m")]
    Mute(moderate::Restrict),
    /// Lift a mute.
    #[command(after_help = "Example:\n  folkmoot room unmute general bob")]
    Unmute(moderate::Somebody),
    /// Make somebody owner, moderator or member.
    #[command(after_help = "Example:\n  folkmoot room role general bob --role moderator")]
    Role(moderate::Role),
    /// Set a room's topic.
    #[command(after_help = "Example:\n  folkmoot room topic general 'Release on Friday'")]
    Topic(settings::Topic),
    /// Pin a message.
    #[command(after_help = "Example:\n  folkmoot room pin general 42")]
    Pin(settings::Message),
    /// Unpin a message.
    #[command(after_help = "Example:\n  folkmoot room unpin general 42")]
    Unpin(settings::Message),
    /// Make a room read-only.
    #[command(after_help = "Example:\n  folkmoot room archive general")]
    Archive(One),
    /// Open an archived room again.
    #[command(after_help = "Example:\n  folkmoot room unarchive general")]
    Unarchive(One),
    /// Say how much of a room's log is kept. The rest is deleted for good.
    #[command(after_help = "Examples:\n  folkmoot room retention general --max-age 30d\n  \
        folkmoot room retention general --max-events 10000\n  \
        folkmoot room retention general --everything\n\n\
        What is beyond is gone for readers at once, and from a node's disk with `folkmoot node compact`.")]
    Retention(settings::Retention),
    /// Show the replies to a message.
    #[command(after_help = "Example:\n  folkmoot room thread general 42 --json")]
    Thread(settings::Thread),
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
    /// Only its participants see it, and they are equals.
    Group,
}

/// Options of `room list`.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only rooms with this in their id or title, whatever its case.
    #[arg(long, value_name = "TEXT", default_value = "")]
    search: String,
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
        Command::Mine(args) => marks::mine(args).await,
        Command::Read(args) => marks::read(args).await,
        Command::People(args) => people::people(args).await,
        Command::Show(args) => show(args).await,
        Command::Join(args) => {
            let ack = args.connection.client()?.join(&args.room).await;
            acked(&args.connection, args.room.as_str(), ack, "joined", "already in")
        }
        Command::Leave(args) => {
            let ack = args.connection.client()?.leave(&args.room).await;
            acked(&args.connection, args.room.as_str(), ack, "left", "not in")
        }
        Command::Invite(args) => moderate::invite(args).await,
        Command::Kick(args) => moderate::kick(args).await,
        Command::Ban(args) => moderate::restrict(args, pb::Restriction::Ban).await,
        Command::Unban(args) => moderate::lift(args, pb::Restriction::Ban).await,
        Command::Mute(args) => moderate::restrict(args, pb::Restriction::Mute).await,
        Command::Unmute(args) => moderate::lift(args, pb::Restriction::Mute).await,
        Command::Role(args) => moderate::role(args).await,
        Command::Topic(args) => settings::topic(args).await,
        Command::Pin(args) => settings::pin(args, false).await,
        Command::Unpin(args) => settings::pin(args, true).await,
        Command::Archive(args) => settings::archive(args, false).await,
        Command::Unarchive(args) => settings::archive(args, true).await,
        Command::Retention(args) => settings::retention(args).await,
        Command::Thread(args) => settings::thread(args).await,
    }
}

async fn create(args: Create) -> Outcome {
    let connection = args.connection;
    let kind = match args.kind {
        Kind::Public => pb::RoomKind::Public,
        Kind::Private => pb::RoomKind::Private,
        Kind::Direct => pb::RoomKind::Direct,
        Kind::Group => pb::RoomKind::Group,
    };
    let created = connection.client()?.create_room(&args.room, &args.title, kind).await?;
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

/// Every room that the caller may see, with `search` in its id or title.
pub(super) async fn all(client: &Client, search: &str) -> Result<Vec<pb::Room>, Error> {
    pages(async |after| {
        let page = client.list_rooms(&after, 1000, search).await?;
        Ok((page.rooms, page.next))
    })
    .await
}

/// All items of a list that comes in pages: `page` gets the items after an id, and the id to go on with,
/// which is empty at the end.
///
/// # Errors
/// The first page's that fails.
async fn pages<T>(
    mut page: impl AsyncFnMut(String) -> Result<(Vec<T>, String), Error>,
) -> Result<Vec<T>, Error> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let (items, next) = page(after).await?;
        all.extend(items);
        if next.is_empty() {
            return Ok(all);
        }
        after = next;
    }
}

async fn list(args: List) -> Outcome {
    let connection = args.connection;
    let client = connection.client()?;
    let rooms = all(&client, &args.search).await?;
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
    let room = client.get_room(&args.room, pb::Consistency::Linearizable).await?;
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
    if room.archived {
        table.row(["archived".into(), "yes".into()]);
    }
    if !room.pins.is_empty() {
        let pins: Vec<_> = room.pins.iter().map(|seq| format!("#{seq}")).collect();
        table.row(["pinned".into(), pins.join(" ")]);
    }
    table.row(["kept".into(), kept(room.retention.unwrap_or_default())]);
    table.row(["participants".into(), room.participant_count.to_string()]);
    for participant in &room.participants {
        let role = output::role(participant.role());
        let since = output::time_short(participant.since_ms);
        let what = match participant.invited {
            true => format!("invited since {since}"),
            false => format!("{role} since {since}"),
        };
        let until = match participant.until_ms {
            0 => String::new(),
            ms => format!(", until {}", output::time_short(ms)),
        };
        table.row([format!("  {}", participant.user), what + &until]);
    }
    table.print()?;
    Ok(())
}

/// What is kept of a room's log, for people.
fn kept(retention: pb::Retention) -> String {
    let age = std::time::Duration::from_millis(retention.max_age_ms);
    match (retention.max_age_ms, retention.max_events) {
        (0, 0) => "everything".into(),
        (_, 0) => humantime::format_duration(age).to_string(),
        (0, events) => format!("{events} events"),
        (_, events) => format!("{}, {events} events", humantime::format_duration(age)),
    }
}

fn acked(
    connection: &Connection,
    what_of: &str,
    ack: Result<pb::Ack, Error>,
    done: &str,
    nothing: &str,
) -> Outcome {
    let ack = ack?;
    if connection.json {
        output::line(output::ack_json(&ack))?;
    } else {
        let what = if ack.duplicate { nothing } else { done };
        output::line(format!("{what} {what_of}"))?;
    }
    Ok(())
}
