//! `folkmoot room mine` and `read`: what one has read, and what not.

use serde_json::{Value, json};

use crate::cli::connection::{self, Connection};
use crate::cli::failure::Outcome;
use crate::cli::output::{self, Table};
use crate::cli::room::pages;
use crate::id::{RoomId, Seq};
use crate::proto::v1 as pb;

/// Options of `room mine`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Mine {
    #[command(flatten)]
    connection: Connection,
}

/// Options of `room read`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Read {
    /// The room's id.
    #[arg(value_parser = connection::room)]
    room: RoomId,
    /// The last event that you have read; the room's head if you do not say.
    seq: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn mine(args: Mine) -> Outcome {
    let client = args.connection.client()?;
    let rooms = pages(async |after| {
        let page = client.list_own_rooms(&after, 1000).await?;
        Ok((page.rooms, page.next))
    })
    .await?;
    if args.connection.json {
        let rooms: Vec<Value> = rooms.iter().map(own_room_json).collect();
        output::line(json!({ "rooms": rooms }))?;
        return Ok(());
    }
    let mut table = Table::new(&["ROOM", "UNREAD>", "MENTIONS>", "READ>", "HEAD>", "TITLE"]);
    for pb::OwnRoom { room, own, unread } in rooms {
        let (room, own) = (room.unwrap_or_default(), own.unwrap_or_default());
        let unread = unread.unwrap_or_default();
        let count = match (own.invited, unread.more) {
            (true, _) => "invited".into(),
            (false, true) => format!("{}+", unread.messages),
            (false, false) => unread.messages.to_string(),
        };
        let mentions = unread.mentions.to_string();
        let (read, head) = (own.read.to_string(), room.head.to_string());
        table.row([room.room, count, mentions, read, head, room.title]);
    }
    table.print()?;
    Ok(())
}

/// As REST has it.
fn own_room_json(own: &pb::OwnRoom) -> Value {
    let mut room = output::room_json(&own.room.clone().unwrap_or_default());
    let unread = own.unread.unwrap_or_default();
    let part = own.own.clone().unwrap_or_default();
    room["own"] = output::participant_json(&part);
    room["unread"] =
        json!({ "messages": unread.messages, "mentions": unread.mentions, "more": unread.more });
    room
}

pub(super) async fn read(args: Read) -> Outcome {
    let client = args.connection.client()?;
    let seq = match args.seq {
        Some(seq) => Seq(seq),
        None => Seq(client.get_room(&args.room, pb::Consistency::Linearizable).await?.head),
    };
    let ack = client.mark_read(&args.room, seq).await?;
    if args.connection.json {
        output::line(output::ack_json(&ack))?;
    } else {
        output::line(format!("read {} up to #{}", args.room, ack.seq))?;
    }
    Ok(())
}
