//! The JSON shapes of REST: snake_case names as in the protocol, times as RFC 3339 in UTC with
//! milliseconds, ids as text, hashes as lower-case hex, absent values left out.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Serialize, Serializer};

use crate::chat::command::Done;
use crate::chat::event::{Body, Event, Role};
use crate::chat::query::{Annotated, Events, OwnRoom, Unread};
use crate::chat::state::{Part, Participant, Room, User};
use crate::gateway::convert::{self, TIME_MS_MAX};
use crate::id::{RequestId, UserId};
use crate::presence::Seen;
use crate::router::Consistency;

/// A time in milliseconds since the Unix epoch, written as RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The formatter knows four digits of year only.
        let time = UNIX_EPOCH + Duration::from_millis(self.0.min(TIME_MS_MAX));
        humantime::format_rfc3339_millis(time).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes as lower-case hex.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A role's name.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Moderator => "moderator",
        Role::Member => "member",
        Role::Muted => "muted",
        Role::Banned => "banned",
    }
}

/// An event on a page, or live.
#[derive(Debug, Serialize)]
pub struct EventJson<'a> {
    seq: u64,
    at: Time,
    sender: &'a str,
    kind: &'static str,
    client_msg_id: String,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "is_false")]
    redacted: bool,
    #[serde(skip_serializing_if = "is_false")]
    withdrawn: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Time>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mentions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_at: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_sender: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_at: Option<Time>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    edits: Vec<EditJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reactions: Vec<ReactionJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_reply: Option<u64>,
}

#[derive(Debug, Serialize)]
struct EditJson<'a> {
    seq: u64,
    at: Time,
    text: &'a str,
}

#[derive(Debug, Serialize)]
struct ReactionJson<'a> {
    symbol: &'a str,
    users: Vec<&'a str>,
}

fn some(number: u64) -> Option<u64> {
    Some(number).filter(|number| *number > 0)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl<'a> From<&'a Event> for EventJson<'a> {
    fn from(event: &'a Event) -> EventJson<'a> {
        EventJson {
            seq: event.seq.0,
            at: Time(event.at_ms),
            sender: event.sender.as_str(),
            kind: event.kind.name(),
            client_msg_id: event.request_id.to_string(),
            text: event.body.text(),
            target: event.target.map(|seq| seq.0),
            subject: event.subject.as_ref().map(UserId::as_str),
            role: event.role.map(role),
            redacted: matches!(event.body, Body::Erased { .. }),
            withdrawn: event.withdrawn,
            until: event.until_ms.map(Time),
            mentions: convert::mentions(event.kind, event.body.text()),
            original_at: event.original_at_ms.map(Time),
            original_sender: event.original_sender.as_deref(),
            edited_at: None,
            edits: Vec::new(),
            reactions: Vec::new(),
            reply_count: None,
            last_reply: None,
        }
    }
}

impl<'a> From<&'a Annotated> for EventJson<'a> {
    fn from(annotated: &'a Annotated) -> EventJson<'a> {
        let mut shown = EventJson::from(&*annotated.event);
        if let Some((_, at_ms, text)) = annotated.edits.last()
            && !shown.redacted
        {
            shown.text = text;
            shown.mentions = convert::mentions(annotated.event.kind, text);
            shown.edited_at = Some(Time(*at_ms));
            let edits = annotated.edits.iter();
            shown.edits = edits
                .map(|(seq, at_ms, text)| EditJson { seq: seq.0, at: Time(*at_ms), text })
                .collect();
        }
        if let Some((count, last)) = annotated.replies {
            shown.reply_count = Some(count);
            shown.last_reply = Some(last.0);
        }
        if let Some(notes) = &annotated.notes {
            let reactions = notes.reactions.iter();
            shown.reactions = reactions
                .map(|(symbol, users)| ReactionJson {
                    symbol,
                    users: users.iter().map(UserId::as_str).collect(),
                })
                .collect();
        }
        shown
    }
}

/// An event as live delivery shows it, encoded.
pub fn encoded_event(event: &Event) -> Bytes {
    serde_json::to_vec(&EventJson::from(event)).unwrap_or_default().into()
}

/// A page of a room's log.
#[derive(Debug, Serialize)]
pub struct EventsJson<'a> {
    epoch: &'a str,
    first_seq: u64,
    head: u64,
    recovered: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    consistency: Option<&'static str>,
    events: Vec<EventJson<'a>>,
}

impl<'a> EventsJson<'a> {
    /// A page, marked as such where it is only what a replica had.
    pub fn new(events: &'a Events, consistency: Consistency) -> EventsJson<'a> {
        EventsJson {
            epoch: events.epoch.as_str(),
            first_seq: events.first_seq.0,
            head: events.head.0,
            recovered: events.recovered,
            consistency: (consistency == Consistency::Local).then_some("local"),
            events: events.events.iter().map(EventJson::from).collect(),
        }
    }
}

/// A room's state.
#[derive(Debug, Serialize)]
pub struct RoomJson<'a> {
    room: &'a str,
    title: &'a str,
    kind: &'static str,
    topic: &'a str,
    head: u64,
    first_seq: u64,
    epoch: &'a str,
    chain: String,
    created_at: Time,
    participant_count: u64,
    archived: bool,
    pins: Vec<u64>,
    retention: RetentionJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    participants: Option<Vec<ParticipantJson<'a>>>,
}

/// How much of a room's log is kept; absent = no limit.
#[derive(Debug, Serialize)]
struct RetentionJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_events: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ParticipantJson<'a> {
    user: &'a str,
    role: &'static str,
    since: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Time>,
    #[serde(skip_serializing_if = "is_false")]
    invited: bool,
    read: u64,
}

/// How present somebody is.
#[derive(Debug, Serialize)]
pub struct PersonJson<'a> {
    user: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Time>,
}

impl<'a> PersonJson<'a> {
    /// Somebody.
    pub fn new(user: &'a UserId, seen: Seen) -> PersonJson<'a> {
        let last_seen = seen.last_seen_ms.map(Time);
        PersonJson { user: user.as_str(), status: seen.status.name(), last_seen }
    }
}

/// A participant in a list of them, and how present they are, if whoever asks may know.
#[derive(Debug, Serialize)]
pub struct MemberJson<'a> {
    #[serde(flatten)]
    participant: ParticipantJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Time>,
}

impl<'a> MemberJson<'a> {
    /// A participant.
    pub fn new(participant: &'a (UserId, Participant), seen: Option<Seen>) -> MemberJson<'a> {
        MemberJson {
            participant: ParticipantJson::new(&participant.0, &participant.1),
            status: seen.map(|seen| seen.status.name()),
            last_seen: seen.and_then(|seen| seen.last_seen_ms).map(Time),
        }
    }
}

/// A room of somebody's own, with what they have not read there.
#[derive(Debug, Serialize)]
pub struct OwnRoomJson<'a> {
    #[serde(flatten)]
    room: RoomJson<'a>,
    own: ParticipantJson<'a>,
    unread: UnreadJson,
}

#[derive(Debug, Serialize)]
struct UnreadJson {
    messages: u64,
    mentions: u64,
    more: bool,
}

impl<'a> From<&'a OwnRoom> for OwnRoomJson<'a> {
    fn from(own: &'a OwnRoom) -> OwnRoomJson<'a> {
        let OwnRoom { room, own: (user, part), unread } = own;
        let Unread { messages, mentions, more } = *unread;
        OwnRoomJson {
            room: RoomJson::new(room, None),
            own: ParticipantJson::new(user, part),
            unread: UnreadJson { messages, mentions, more },
        }
    }
}

impl<'a> ParticipantJson<'a> {
    fn new(user: &'a UserId, participant: &Participant) -> ParticipantJson<'a> {
        ParticipantJson {
            user: user.as_str(),
            role: role(participant.role),
            since: Time(participant.since_ms),
            until: participant.until_ms.map(Time),
            invited: participant.part == Part::Invited,
            read: participant.read.0,
        }
    }
}

impl<'a> RoomJson<'a> {
    /// A room in a list, or with its participants.
    pub fn new(room: &'a Room, participants: Option<&'a [(UserId, Participant)]>) -> RoomJson<'a> {
        let participants = participants.map(|participants| {
            participants.iter().map(|(user, part)| ParticipantJson::new(user, part)).collect()
        });
        RoomJson {
            room: room.id.as_str(),
            title: &room.title,
            kind: room.kind.name(),
            topic: &room.topic,
            head: room.head.0,
            first_seq: room.first_seq.0,
            epoch: room.epoch.as_str(),
            chain: Hex(&room.chain).to_string(),
            created_at: Time(room.created_at_ms),
            participant_count: room.participants,
            archived: room.archived,
            pins: room.pins.iter().map(|seq| seq.0).collect(),
            retention: RetentionJson {
                max_age_ms: some(room.retention.max_age_ms),
                max_events: some(room.retention.max_events),
            },
            participants,
        }
    }
}

/// A user's public profile, with the token when it was just made.
#[derive(Debug, Serialize)]
pub struct UserJson<'a> {
    user: &'a str,
    display_name: &'a str,
    admin: bool,
    created_at: Time,
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'a str,
    #[serde(skip_serializing_if = "is_false")]
    disabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl UserJson<'_> {
    /// The same, with the user's new token; an empty one is left out.
    pub fn with_token(mut self, token: String) -> Self {
        self.token = (!token.is_empty()).then_some(token);
        self
    }
}

impl<'a> From<&'a User> for UserJson<'a> {
    fn from(user: &'a User) -> UserJson<'a> {
        UserJson {
            user: user.id.as_str(),
            display_name: &user.display_name,
            admin: user.admin,
            created_at: Time(user.created_at_ms),
            status: &user.status,
            disabled: user.disabled,
            token: None,
        }
    }
}

/// The outcome of a command on a room.
#[derive(Debug, Serialize)]
pub struct AckJson {
    seq: u64,
    epoch: Option<String>,
    at: Time,
    duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<String>,
}

impl AckJson {
    /// The same, with the message's id, which the node minted when the client sent none.
    pub fn with_id(mut self, id: RequestId) -> Self {
        self.client_msg_id = Some(id.to_string());
        self
    }
}

impl From<Done> for AckJson {
    fn from(done: Done) -> AckJson {
        AckJson {
            seq: done.seq.0,
            epoch: done.epoch.map(|epoch| epoch.as_str().to_owned()),
            at: Time(done.at_ms),
            duplicate: done.duplicate,
            client_msg_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_can_be_written() {
        assert_eq!(Time(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Time(1_700_000_000_123).to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(Time(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
