//! Events as JSON, with REST's names, and back: `tail`, `history`, `export` write it, `verify` and
//! scripts read it.

use serde::{Deserialize, Serialize};

use crate::chat::event::{Body, Event, EventKind, Hash, Role};
use crate::cli::output::{hex, role, time};
use crate::id::{RequestId, Seq, UserId};
use crate::proto::v1 as pb;

/// One event. Absent values are left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct EventJson {
    pub seq: u64,
    pub at: String,
    pub sender: String,
    pub kind: String,
    pub client_msg_id: String,
    pub text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redacted: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_sender: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited_at: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<EditJson>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<ReactionJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reply: Option<u64>,
    /// Exports: 16 bytes in hex, until erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Exports: blake3(salt ‖ text) in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_hash: Option<String>,
    /// Exports: the room's chain at this event, in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
}

/// One edit of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct EditJson {
    seq: u64,
    at: String,
    text: String,
}

/// Everyone who reacted with one symbol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ReactionJson {
    symbol: String,
    users: Vec<String>,
}

const ROLES: &[(Role, &str)] = &[
    (Role::Owner, "owner"),
    (Role::Moderator, "moderator"),
    (Role::Member, "member"),
    (Role::Muted, "muted"),
    (Role::Banned, "banned"),
];

/// An event kind's name; a kind of a newer server has a number.
pub(super) fn kind_name(kind: i32) -> String {
    let known = EventKind::ALL.into_iter().find(|known| *known as i32 == kind);
    known.map_or_else(|| kind.to_string(), |known| known.name().to_string())
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

fn some_hex(bytes: &[u8]) -> Option<String> {
    (!bytes.is_empty()).then(|| hex(bytes))
}

impl From<&pb::Event> for EventJson {
    fn from(event: &pb::Event) -> EventJson {
        let request_id = RequestId::from_slice(&event.client_msg_id);
        let edit = |edit: &pb::Edit| EditJson {
            seq: edit.seq,
            at: time(edit.at_ms),
            text: edit.text.clone(),
        };
        let reaction = |reaction: &pb::Reaction| ReactionJson {
            symbol: reaction.symbol.clone(),
            users: reaction.users.clone(),
        };
        EventJson {
            seq: event.seq,
            at: time(event.at_ms),
            sender: event.sender.clone(),
            kind: kind_name(event.kind),
            client_msg_id: request_id.map(|id| id.to_string()).unwrap_or_default(),
            text: event.text.clone(),
            target: (event.target > 0).then_some(event.target),
            subject: some(&event.subject),
            role: (event.role != 0).then(|| role(event.role()).to_string()),
            redacted: event.redacted,
            withdrawn: event.withdrawn,
            until: (event.until_ms > 0).then(|| time(event.until_ms)),
            mentions: event.mentions.clone(),
            original_at: (event.original_at_ms > 0).then(|| time(event.original_at_ms)),
            original_sender: some(&event.original_sender),
            edited_at: (event.edited_at_ms > 0).then(|| time(event.edited_at_ms)),
            edits: event.edits.iter().map(edit).collect(),
            reactions: event.reactions.iter().map(reaction).collect(),
            reply_count: (event.reply_count > 0).then_some(event.reply_count),
            last_reply: (event.last_reply > 0).then_some(event.last_reply),
            salt: some_hex(&event.salt),
            body_hash: some_hex(&event.body_hash),
            chain: some_hex(&event.chain),
        }
    }
}

impl EventJson {
    /// The event as the rules know it, whose chain can be computed.
    ///
    /// # Errors
    /// Which field is missing or malformed.
    pub(super) fn to_event(&self) -> Result<Event, String> {
        let bad = |field: &str| format!("{field} is missing or malformed");
        let user = |field: &str, text: &str| UserId::parse(text).map_err(|_| bad(field));
        let kind = EventKind::ALL.into_iter().find(|kind| kind.name() == self.kind);
        let role = |name: &String| {
            let known = ROLES.iter().find(|(_, known)| known == name);
            known.map(|(role, _)| *role).ok_or_else(|| bad("role"))
        };
        let body = if self.redacted {
            if !self.text.is_empty() || self.salt.is_some() {
                return Err("a redacted event still has its text or salt".into());
            }
            Body::Erased { hash: unhex(self.body_hash.as_deref()).ok_or_else(|| bad("body_hash"))? }
        } else {
            let salt = unhex(self.salt.as_deref()).ok_or_else(|| bad("salt"))?;
            Body::Present { salt, text: self.text.clone() }
        };
        Ok(Event {
            seq: Seq(self.seq),
            at_ms: parse_time(&self.at).ok_or_else(|| bad("at"))?,
            sender: user("sender", &self.sender)?,
            kind: kind.ok_or_else(|| bad("kind"))?,
            request_id: RequestId::parse(&self.client_msg_id).map_err(|_| bad("client_msg_id"))?,
            target: self.target.map(Seq),
            subject: self.subject.as_deref().map(|text| user("subject", text)).transpose()?,
            role: self.role.as_ref().map(role).transpose()?,
            withdrawn: self.withdrawn,
            until_ms: match &self.until {
                Some(text) => Some(parse_time(text).ok_or_else(|| bad("until"))?),
                None => None,
            },
            original_at_ms: match &self.original_at {
                Some(text) => Some(parse_time(text).ok_or_else(|| bad("original_at"))?),
                None => None,
            },
            original_sender: self.original_sender.clone(),
            body,
        })
    }

    /// The chain that the export states.
    pub(super) fn stated_chain(&self) -> Option<Hash> {
        unhex(self.chain.as_deref())
    }

    /// The body hash that the export states.
    pub(super) fn stated_body_hash(&self) -> Option<Hash> {
        unhex(self.body_hash.as_deref())
    }
}

/// Reads a time as [`time`] writes it.
pub(super) fn parse_time(text: &str) -> Option<u64> {
    let at = humantime::parse_rfc3339(text).ok()?;
    let since = at.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// Reads exactly N bytes of hex.
pub(super) fn unhex<const N: usize>(text: Option<&str>) -> Option<[u8; N]> {
    let text = text?.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks(2)) {
        let digit = |b: u8| (b as char).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_role_has_its_name() {
        for kind in EventKind::ALL {
            assert_eq!(kind_name(kind as i32), kind.name());
        }
        assert_eq!(kind_name(99), "99", "of a newer server");
        for (known, name) in ROLES {
            let number = *known as i32;
            assert_eq!(role(pb::Role::try_from(number).unwrap()), *name);
        }
    }

    #[test]
    fn times_are_exact() {
        for ms in [0, 1, 1_700_000_000_123, 253_402_300_799_999] {
            assert_eq!(parse_time(&time(ms)), Some(ms));
        }
    }

    #[test]
    fn hex_is_exact() {
        assert_eq!(unhex::<2>(Some("00fF")), Some([0, 255]));
        for bad in [None, Some(""), Some("0"), Some("0g00"), Some("000000")] {
            assert_eq!(unhex::<2>(bad), None);
        }
    }
}
