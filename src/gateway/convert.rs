//! Between protocol messages and the rules' types, with validation at the edge: each size, range,
//! encoding and identifier of what a client sends is checked here before anything is proposed.
//!
//! REST goes through the same checks (`http/`), so both interfaces refuse the same things.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use crate::chat::command::{Done, ImportLine, Restriction};
use crate::chat::event::{Body, Event, EventKind, Hash, Role};
use crate::chat::mention;
use crate::chat::query::{Annotated, Events, OwnRoom, Page, Unread};
use crate::chat::state::{Part, Participant, Room, RoomKind, User};
use crate::error::{Code, Error};
use crate::id::{Cursor, Epoch, RequestId, RoomId, Seq, UserId};
use crate::limits;
use crate::presence::{Seen, Status};
use crate::proto::v1 as proto;
use crate::router::Consistency;

/// 9999-12-31T23:59:59.999Z, the last time that can be written as RFC 3339.
pub const TIME_MS_MAX: u64 = 253_402_300_799_999;

/// How long an invite is good for when its maker does not say, in milliseconds: a week.
pub const INVITE_TTL_MS: u64 = 7 * 24 * 3600 * 1000;

/// A request id; `None` when the client left it to the node.
pub fn request_id(bytes: &[u8]) -> Result<Option<RequestId>, Error> {
    if bytes.is_empty() { Ok(None) } else { Ok(Some(RequestId::from_slice(bytes)?)) }
}

/// Text that must not be empty nor longer than `max` bytes.
pub fn text(what: &str, text: &str, max: usize) -> Result<(), Error> {
    if text.is_empty() {
        return Err(Error::invalid(format!("{what} is empty")));
    }
    at_most(what, text, max)
}

/// Text that must not be longer than `max` bytes.
pub fn at_most(what: &str, text: &str, max: usize) -> Result<(), Error> {
    if text.len() > max {
        return Err(Error::new(Code::TooLarge, format!("{what} is larger than {max} bytes")));
    }
    Ok(())
}

/// How present somebody is, by its name.
pub fn status(name: &str) -> Result<Status, Error> {
    let unknown = || Error::invalid("status must be online, away or offline");
    Status::of_name(name).ok_or_else(unknown)
}

/// For how long somebody is present who has no session, in milliseconds; a minute if it is not said.
pub fn presence_for(for_ms: Option<u64>) -> Result<Duration, Error> {
    const MAX_MS: u64 = 10 * 60 * 1000;
    match for_ms {
        None => Ok(Duration::from_secs(60)),
        Some(for_ms @ 1000..=MAX_MS) => Ok(Duration::from_millis(for_ms)),
        Some(_) => Err(Error::invalid(format!("for_ms must be 1000 to {MAX_MS}"))),
    }
}

/// The seq of an event that a request is about.
pub fn target(seq: u64) -> Result<Seq, Error> {
    if seq == 0 { Err(Error::invalid("a message's seq counts from 1")) } else { Ok(Seq(seq)) }
}

/// How many items a page may have; 0 stands for the default.
pub fn page_limit(limit: u32) -> Result<usize, Error> {
    match limit as usize {
        0 => Ok(limits::PAGE_ITEMS_DEFAULT),
        limit if limit <= limits::PAGE_ITEMS_MAX => Ok(limit),
        _ => Err(Error::invalid(format!("limit must be 1 to {}", limits::PAGE_ITEMS_MAX))),
    }
}

/// After which room a page begins; empty = with the first.
pub fn after_room(id: &str) -> Result<Option<RoomId>, Error> {
    if id.is_empty() { Ok(None) } else { Ok(Some(RoomId::parse(id)?)) }
}

/// A position in a room's log.
pub fn cursor(cursor: proto::Cursor) -> Result<Cursor, Error> {
    let epoch = match cursor.epoch.as_str() {
        "" => None,
        epoch => Some(Epoch::parse(epoch)?),
    };
    Ok(Cursor { epoch, seq: Seq(cursor.seq) })
}

/// Which page is asked for.
pub fn page(after: Option<Cursor>, before: Option<Cursor>) -> Result<Page, Error> {
    match (after, before) {
        (Some(_), Some(_)) => Err(Error::invalid("give either `after` or `before`, not both")),
        (Some(after), None) => Ok(Page::After(after)),
        (None, Some(before)) => Ok(Page::Before(before)),
        (None, None) => Ok(Page::Newest),
    }
}

/// What a read must see.
pub fn consistency(number: i32) -> Result<Consistency, Error> {
    match proto::Consistency::try_from(number) {
        Ok(proto::Consistency::Linearizable) => Ok(Consistency::Linearizable),
        Ok(proto::Consistency::Local) => Ok(Consistency::Local),
        Err(_) => Err(Error::invalid("this consistency is not known")),
    }
}

/// A room's kind.
pub fn room_kind(number: i32) -> Result<RoomKind, Error> {
    u32::try_from(number)
        .ok()
        .and_then(RoomKind::from_number)
        .ok_or_else(|| Error::invalid("kind must be public, private, direct or group"))
}

/// A participant's role.
pub fn role(number: i32) -> Result<Role, Error> {
    u32::try_from(number)
        .ok()
        .and_then(Role::from_number)
        .ok_or_else(|| Error::invalid("role must be owner, moderator, member, muted or banned"))
}

/// A mute or a ban.
pub fn restriction(number: i32) -> Result<Restriction, Error> {
    u32::try_from(number)
        .ok()
        .and_then(Restriction::from_number)
        .ok_or_else(|| Error::invalid("restriction must be mute or ban"))
}

/// What a user may post.
pub fn posted_kind(number: i32) -> Result<EventKind, Error> {
    match proto::EventKind::try_from(number) {
        Ok(proto::EventKind::Unspecified | proto::EventKind::Message) => Ok(EventKind::Message),
        Ok(proto::EventKind::Action) => Ok(EventKind::Action),
        _ => Err(Error::invalid("kind must be message or action")),
    }
}

/// The lines of an import; `importer` stands in for an absent sender.
pub fn import_lines(
    lines: Vec<proto::ImportLine>,
    importer: &UserId,
) -> Result<Vec<ImportLine>, Error> {
    if lines.len() > limits::IMPORT_LINES_MAX {
        let message = format!("import at most {} lines at once", limits::IMPORT_LINES_MAX);
        return Err(Error::new(Code::TooLarge, message));
    }
    if lines.iter().map(|line| line.text.len()).sum::<usize>() > limits::IMPORT_BYTES_MAX {
        let message = format!("import at most {} bytes of text at once", limits::IMPORT_BYTES_MAX);
        return Err(Error::new(Code::TooLarge, message));
    }
    lines.into_iter().map(|line| import_line(line, importer)).collect()
}

fn import_line(line: proto::ImportLine, importer: &UserId) -> Result<ImportLine, Error> {
    let kind = match proto::EventKind::try_from(line.kind) {
        Ok(proto::EventKind::Message) => EventKind::Message,
        Ok(proto::EventKind::Action) => EventKind::Action,
        Ok(proto::EventKind::Notice) => EventKind::Notice,
        _ => return Err(Error::invalid("an imported line is a message, an action or a notice")),
    };
    at_most("a line's text", &line.text, limits::TEXT_BYTES_MAX)?;
    at_most("original_sender", &line.original_sender, limits::SOURCE_BYTES_MAX)?;
    if line.original_at_ms > TIME_MS_MAX {
        return Err(Error::invalid("original_at_ms is after the year 9999"));
    }
    let sender = match line.sender.as_str() {
        "" => importer.clone(),
        sender => UserId::parse(sender)?,
    };
    Ok(ImportLine {
        line: line.line,
        original_at_ms: line.original_at_ms,
        sender,
        original_sender: line.original_sender,
        kind,
        text: line.text,
    })
}

/// The outcome of a command on a room.
pub fn ack(done: Done) -> proto::Ack {
    proto::Ack {
        seq: done.seq.0,
        epoch: done.epoch.map(|epoch| epoch.as_str().to_owned()).unwrap_or_default(),
        at_ms: done.at_ms,
        duplicate: done.duplicate,
    }
}

/// An event as live delivery shows it.
pub fn event(event: &Event) -> proto::Event {
    proto::Event {
        seq: event.seq.0,
        at_ms: event.at_ms,
        sender: event.sender.as_str().to_owned(),
        kind: event.kind as i32,
        client_msg_id: Bytes::copy_from_slice(event.request_id.as_bytes()),
        text: event.body.text().to_owned(),
        target: event.target.map_or(0, |seq| seq.0),
        subject: event.subject.as_ref().map(|user| user.as_str().to_owned()).unwrap_or_default(),
        role: event.role.map_or(0, |role| role as i32),
        redacted: matches!(event.body, Body::Erased { .. }),
        original_at_ms: event.original_at_ms.unwrap_or(0),
        original_sender: event.original_sender.clone().unwrap_or_default(),
        withdrawn: event.withdrawn,
        until_ms: event.until_ms.unwrap_or(0),
        mentions: mentions(event.kind, event.body.text()),
        ..proto::Event::default()
    }
}

/// The users that what somebody said mentions.
pub fn mentions(kind: EventKind, text: &str) -> Vec<String> {
    if !kind.is_message() && kind != EventKind::Edit {
        return Vec::new();
    }
    mention::mentions(text).iter().map(|user| user.as_str().to_owned()).collect()
}

/// An event as live delivery shows it, encoded.
pub fn encoded_event(event: &Event) -> Bytes {
    self::event(event).encode_to_vec().into()
}

/// An event as a history page shows it: its current text, its edits and its reactions.
pub fn annotated(annotated: &Annotated) -> proto::Event {
    let mut shown = event(&annotated.event);
    if let Some((_, at_ms, text)) = annotated.edits.last()
        && !shown.redacted
    {
        shown.text.clone_from(text);
        shown.mentions = mentions(annotated.event.kind, text);
        shown.edited_at_ms = *at_ms;
        shown.edits = annotated
            .edits
            .iter()
            .map(|(seq, at_ms, text)| proto::Edit { seq: seq.0, at_ms: *at_ms, text: text.clone() })
            .collect();
    }
    if let Some((count, last)) = annotated.replies {
        shown.reply_count = count;
        shown.last_reply = last.0;
    }
    if let Some(notes) = &annotated.notes {
        shown.reactions = notes
            .reactions
            .iter()
            .map(|(symbol, users)| proto::Reaction {
                symbol: symbol.clone(),
                users: users.iter().map(|user| user.as_str().to_owned()).collect(),
            })
            .collect();
    }
    shown
}

/// A page of a room's log, or of a thread.
pub fn events(events: &Events, consistency: Consistency) -> proto::EventsResponse {
    proto::EventsResponse {
        epoch: events.epoch.as_str().to_owned(),
        first_seq: events.first_seq.0,
        head: events.head.0,
        recovered: events.recovered,
        events: events.events.iter().map(annotated).collect(),
        consistency: match consistency {
            Consistency::Linearizable => proto::Consistency::Linearizable,
            Consistency::Local => proto::Consistency::Local,
        }
        .into(),
    }
}

/// An event as an export shows it: with what verifies it offline.
pub fn exported(event: &Event, chain: &Hash) -> proto::Event {
    proto::Event {
        salt: match &event.body {
            Body::Present { salt, .. } => Bytes::copy_from_slice(salt),
            Body::Erased { .. } => Bytes::new(),
        },
        body_hash: Bytes::copy_from_slice(&event.body.hash()),
        chain: Bytes::copy_from_slice(chain),
        ..self::event(event)
    }
}

/// A room's state.
pub fn room(room: &Room, participants: &[(UserId, Participant)]) -> proto::Room {
    proto::Room {
        room: room.id.as_str().to_owned(),
        title: room.title.clone(),
        kind: room.kind as i32,
        head: room.head.0,
        first_seq: room.first_seq.0,
        epoch: room.epoch.as_str().to_owned(),
        chain: Bytes::copy_from_slice(&room.chain),
        created_at_ms: room.created_at_ms,
        topic: room.topic.clone(),
        participant_count: room.participants,
        participants: participants.iter().map(participant).collect(),
        archived: room.archived,
        pins: room.pins.iter().map(|seq| seq.0).collect(),
        retention: Some(proto::Retention {
            max_age_ms: room.retention.max_age_ms,
            max_events: room.retention.max_events,
        }),
    }
}

/// Somebody's part in a room.
pub fn participant((user, participant): &(UserId, Participant)) -> proto::Participant {
    proto::Participant {
        presence: None,
        user: user.as_str().to_owned(),
        role: participant.role as i32,
        since_ms: participant.since_ms,
        until_ms: participant.until_ms.unwrap_or(0),
        invited: participant.part == Part::Invited,
        read: participant.read.0,
    }
}

/// How present somebody is.
pub fn seen(user: &UserId, seen: Seen) -> proto::Presence {
    let status = match seen.status {
        Status::Offline => proto::PresenceStatus::Offline,
        Status::Away => proto::PresenceStatus::Away,
        Status::Online => proto::PresenceStatus::Online,
    };
    let (user, last_seen_ms) = (user.as_str().to_owned(), seen.last_seen_ms.unwrap_or(0));
    proto::Presence { user, status: status as i32, last_seen_ms }
}

/// How present somebody says that they are.
pub fn presence_status(status: i32) -> Result<Status, Error> {
    match proto::PresenceStatus::try_from(status) {
        Ok(proto::PresenceStatus::Offline) => Ok(Status::Offline),
        Ok(proto::PresenceStatus::Away) => Ok(Status::Away),
        Ok(proto::PresenceStatus::Online) => Ok(Status::Online),
        _ => Err(Error::invalid("status must be online, away or offline")),
    }
}

/// A room of somebody's own, with what they have not read there.
pub fn own_room(own: &OwnRoom) -> proto::OwnRoom {
    let Unread { messages, mentions, more } = own.unread;
    proto::OwnRoom {
        room: Some(room(&own.room, &[])),
        own: Some(participant(&own.own)),
        unread: Some(proto::Unread { messages, mentions, more }),
    }
}

/// A user's public profile.
pub fn user(user: &User) -> proto::User {
    proto::User {
        user: user.id.as_str().to_owned(),
        display_name: user.display_name.clone(),
        admin: user.admin,
        created_at_ms: user.created_at_ms,
        status: user.status.clone(),
        disabled: user.disabled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ranges_are_checked() {
        assert_eq!(page_limit(0).unwrap(), 100);
        assert_eq!(page_limit(1000).unwrap(), 1000);
        assert_eq!(page_limit(1001).unwrap_err().code, Code::InvalidArgument);
        assert_eq!(text("text", "", 4).unwrap_err().code, Code::InvalidArgument);
        assert_eq!(text("text", "12345", 4).unwrap_err().code, Code::TooLarge);
        assert_eq!(request_id(&[]).unwrap(), None);
        assert_eq!(request_id(&[0; 16]).unwrap_err().code, Code::InvalidArgument);
        assert_eq!(request_id(&[0; 3]).unwrap_err().code, Code::InvalidArgument);
        let epoch = proto::Cursor { epoch: "a:b".into(), seq: 1 };
        assert_eq!(cursor(epoch).unwrap_err().code, Code::InvalidCursor);
        for kind in [-1, 3, 4, 99] {
            assert!(posted_kind(kind).is_err());
        }
        assert!(room_kind(0).is_err() && room_kind(-1).is_err() && room_kind(5).is_err());
        assert!(restriction(0).is_err() && restriction(3).is_err());
        assert!(role(0).is_err() && role(6).is_err());
        assert!(consistency(2).is_err());
    }

    #[test]
    fn import_lines_are_checked() {
        let me = UserId::parse("admin").unwrap();
        let good = proto::ImportLine { line: 1, kind: 3, text: "x".into(), ..Default::default() };
        assert_eq!(import_lines(vec![good.clone()], &me).unwrap()[0].sender, me);
        let code = |line: proto::ImportLine| import_lines(vec![line], &me).unwrap_err().code;
        assert_eq!(code(proto::ImportLine { kind: 4, ..good.clone() }), Code::InvalidArgument);
        let far = proto::ImportLine { original_at_ms: u64::MAX, ..good.clone() };
        assert_eq!(code(far), Code::InvalidArgument);
        let nick = proto::ImportLine { sender: "[Nick]".into(), ..good.clone() };
        assert_eq!(code(nick), Code::InvalidArgument);
        let many = vec![good.clone(); limits::IMPORT_LINES_MAX + 1];
        assert_eq!(import_lines(many, &me).unwrap_err().code, Code::TooLarge);
        let long = proto::ImportLine { text: "x".repeat(64 * 1024), ..good };
        assert_eq!(import_lines(vec![long; 13], &me).unwrap_err().code, Code::TooLarge);
    }
}
