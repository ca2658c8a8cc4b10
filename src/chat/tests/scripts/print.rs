//! Replies, answers and events as a script shows them.

use std::fmt::Write as _;

use crate::chat::command::{Rejection, Reply};
use crate::chat::event::{Body, Event};
use crate::chat::query::{Annotated, Answer, OwnRoom, Unread};
use crate::chat::state::{Part, Room};
use crate::id::UserId;

pub(super) fn print_reply(reply: &Reply, out: &mut String) {
    match reply {
        Ok(done) => {
            write!(out, "ok seq={} at={}", done.seq, done.at_ms).unwrap();
            if let Some(epoch) = &done.epoch {
                write!(out, " epoch={epoch}").unwrap();
            }
            if done.duplicate {
                out.push_str(" duplicate");
            }
            if let Some(imported) = done.imported {
                write!(out, " imported={} mark={}", imported.count, imported.line).unwrap();
            }
            out.push('\n');
        }
        Err(rejection) => {
            writeln!(out, "no {}: {rejection}", rejection.code().as_str()).unwrap();
            if let Rejection::ClockSkew { server_time_ms } = rejection {
                writeln!(out, "  server time {server_time_ms}").unwrap();
            }
        }
    }
}

pub(super) fn print_answer(answer: &Answer, out: &mut String) {
    match answer {
        Answer::Room { room, participants, .. } => {
            writeln!(out, "{}", shown_room(room)).unwrap();
            for (user, part) in participants {
                write!(out, "  {user} {:?} since={}", part.role, part.since_ms).unwrap();
                if part.part != Part::In {
                    write!(out, " {:?}", part.part).unwrap();
                }
                if let Some(until_ms) = part.until_ms {
                    write!(out, " until={until_ms}").unwrap();
                }
                out.push('\n');
            }
        }
        Answer::Rooms { rooms } => {
            writeln!(out, "{} rooms", rooms.len()).unwrap();
            for room in rooms {
                writeln!(out, "  {}", shown_room(room)).unwrap();
            }
        }
        Answer::Events(page) => {
            let gap = if page.recovered { "" } else { " NOT RECOVERED" };
            let (epoch, first, head) = (&page.epoch, page.first_seq, page.head);
            writeln!(out, "epoch={epoch} first={first} head={head}{gap}").unwrap();
            page.events.iter().for_each(|annotated| print_annotated(annotated, out));
        }
        Answer::Export { room, events } => {
            writeln!(out, "{}", shown_room(room)).unwrap();
            for event in events {
                writeln!(out, "  {}", shown(event)).unwrap();
            }
        }
        Answer::User { user } => {
            let admin = if user.admin { " admin" } else { "" };
            writeln!(out, "{} {:?}{admin}", user.id, user.display_name).unwrap();
            for token in &user.tokens {
                let (n, label, at) = (token.hash[0], &token.label, token.issued_at_ms);
                writeln!(out, "  token {n} {label:?} at={at}").unwrap();
            }
        }
        Answer::Mine { rooms, next } => {
            let next = next.as_ref().map_or(String::new(), |next| format!(" next={next}"));
            writeln!(out, "{} of my rooms{next}", rooms.len()).unwrap();
            for OwnRoom { room, own: (_, part), unread } in rooms {
                let Unread { messages, mentions, more } = unread;
                let more = if *more { "+" } else { "" };
                let (id, head, read) = (&room.id, room.head, part.read);
                write!(out, "  {id} {:?} {:?} head={head} read={read}", part.part, part.role)
                    .unwrap();
                writeln!(out, " unread={messages}{more} mentions={mentions}").unwrap();
            }
        }
        Answer::Users { users } => {
            let ids: Vec<&str> = users.iter().map(|user| user.id.as_str()).collect();
            writeln!(out, "{} users {}", users.len(), ids.join(" ")).unwrap();
        }
        Answer::Revocations { count } => writeln!(out, "{count} revocations").unwrap(),
    }
}

fn print_annotated(annotated: &Annotated, out: &mut String) {
    writeln!(out, "  {}", shown(&annotated.event)).unwrap();
    for (seq, at_ms, text) in &annotated.edits {
        writeln!(out, "      edited by #{seq} at={at_ms} {}", shown_text(text)).unwrap();
    }
    if let Some((count, last)) = annotated.replies {
        writeln!(out, "      {count} replies, the last #{last}").unwrap();
    }
    let Some(notes) = &annotated.notes else { return };
    for (symbol, users) in &notes.reactions {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        writeln!(out, "      {symbol} from {}", users.join(", ")).unwrap();
    }
    if let Some(seq) = notes.redacted_by {
        writeln!(out, "      redacted by #{seq}").unwrap();
    }
}

fn shown_room(room: &Room) -> String {
    let Room { id, kind, title, head, participants, creator, .. } = room;
    let mut out = format!(
        "{id} {kind:?} {title:?} head={head} participants={participants} creator={creator}"
    );
    if !room.topic.is_empty() {
        write!(out, " topic={:?}", room.topic).unwrap();
    }
    if room.first_seq.0 > 1 {
        write!(out, " first={}", room.first_seq).unwrap();
    }
    if room.archived {
        out.push_str(" archived");
    }
    if !room.pins.is_empty() {
        let pins: Vec<String> = room.pins.iter().map(|seq| format!("#{seq}")).collect();
        write!(out, " pins={}", pins.join(",")).unwrap();
    }
    out
}

pub(super) fn shown(event: &Event) -> String {
    let mut out = format!("#{} at={} {} {:?}", event.seq, event.at_ms, event.sender, event.kind);
    if event.withdrawn {
        out.push_str(" withdrawn");
    }
    if let Some(subject) = &event.subject {
        write!(out, " of {subject}").unwrap();
    }
    if let Some(role) = event.role {
        write!(out, " {role:?}").unwrap();
    }
    if let Some(until_ms) = event.until_ms {
        write!(out, " until={until_ms}").unwrap();
    }
    if let Some(target) = event.target {
        write!(out, " about #{target}").unwrap();
    }
    if let (Some(sender), Some(at_ms)) = (&event.original_sender, event.original_at_ms) {
        write!(out, " originally {sender} at={at_ms}").unwrap();
    }
    match &event.body {
        Body::Erased { .. } => out.push_str(" erased"),
        body if body.text().is_empty() => {}
        body => write!(out, " {}", shown_text(body.text())).unwrap(),
    }
    out
}

fn shown_text(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((cut, _)) => format!("{:?}… ({} bytes)", &text[..cut], text.len()),
        None => format!("{text:?}"),
    }
}
