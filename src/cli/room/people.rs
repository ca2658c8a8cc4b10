//! `folkmoot room people`: who is in a room, and who of them is there.

use serde_json::{Value, json};

use crate::cli::failure::Outcome;
use crate::cli::output::{self, Table};
use crate::cli::room::{One, pages};
use crate::proto::v1 as pb;

pub(super) async fn people(args: One) -> Outcome {
    let client = args.connection.client()?;
    let people = pages(async |after| {
        let page = client.list_participants(&args.room, &after, 1000).await?;
        Ok((page.participants, page.next))
    })
    .await?;
    if args.connection.json {
        let people: Vec<Value> = people.iter().map(person_json).collect();
        output::line(json!({ "participants": people }))?;
        return Ok(());
    }
    let mut table = Table::new(&["USER", "ROLE", "STATUS", "LAST SEEN"]);
    for person in people {
        let role = match person.invited {
            true => "invited".to_owned(),
            false => output::role(person.role()).to_owned(),
        };
        let status = person.presence.as_ref().map_or("", |presence| status(presence.status()));
        let seen_ms = person.presence.as_ref().map_or(0, |presence| presence.last_seen_ms);
        let seen = if seen_ms == 0 { String::new() } else { output::time_short(seen_ms) };
        table.row([person.user, role, status.to_owned(), seen]);
    }
    table.print()?;
    Ok(())
}

fn status(status: pb::PresenceStatus) -> &'static str {
    match status {
        pb::PresenceStatus::Online => "online",
        pb::PresenceStatus::Away => "away",
        pb::PresenceStatus::Offline => "offline",
        pb::PresenceStatus::Unspecified => "",
    }
}

/// As REST has it.
fn person_json(person: &pb::Participant) -> Value {
    let mut json = output::participant_json(person);
    if let Some(presence) = &person.presence {
        json["status"] = json!(status(presence.status()));
        if presence.last_seen_ms > 0 {
            json["last_seen"] = json!(output::time(presence.last_seen_ms));
        }
    }
    json
}
