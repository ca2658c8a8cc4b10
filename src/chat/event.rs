//! A room's event, and the hash chain over a room's events.

use crate::id::{RequestId, Seq, UserId};

/// What happened. The numbers are on disk and on the wire (`folkmoot.v1.EventKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum EventKind {
    Message = 1,
    Action = 2,
    Notice = 3,
    Edit = 4,
    Redaction = 5,
    Reaction = 6,
    Join = 7,
    Leave = 8,
    Role = 9,
    Topic = 10,
    Invite = 11,
    Pin = 12,
    Archive = 13,
    Retention = 14,
    Trim = 15,
}

impl EventKind {
    /// The kind with this number.
    pub fn from_number(number: u32) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// All, in order of their numbers.
    pub const ALL: [EventKind; 15] = {
        use EventKind::*;
        [
            Message, Action, Notice, Edit, Redaction, Reaction, Join, Leave, Role, Topic, Invite,
            Pin, Archive, Retention, Trim,
        ]
    };

    /// Its name, as people and JSON have it.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Message => "message",
            EventKind::Action => "action",
            EventKind::Notice => "notice",
            EventKind::Edit => "edit",
            EventKind::Redaction => "redaction",
            EventKind::Reaction => "reaction",
            EventKind::Join => "join",
            EventKind::Leave => "leave",
            EventKind::Role => "role",
            EventKind::Topic => "topic",
            EventKind::Invite => "invite",
            EventKind::Pin => "pin",
            EventKind::Archive => "archive",
            EventKind::Retention => "retention",
            EventKind::Trim => "trim",
        }
    }

    /// Whether the event is something said, which can be edited, redacted and reacted to.
    pub fn is_message(self) -> bool {
        matches!(self, EventKind::Message | EventKind::Action | EventKind::Notice)
    }
}

/// What a participant may do. The numbers are on disk and on the wire (`folkmoot.v1.Role`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Role {
    Owner = 1,
    Moderator = 2,
    Member = 3,
    Muted = 4,
    Banned = 5,
}

impl Role {
    /// The role with this number.
    pub fn from_number(number: u32) -> Option<Role> {
        use Role::*;
        [Owner, Moderator, Member, Muted, Banned].into_iter().find(|r| *r as u32 == number)
    }
}

/// 16 random bytes, minted where a request enters, that keep a short erased body from being
/// guessed from its hash.
pub type Salt = [u8; 16];

/// A blake3 hash.
pub type Hash = [u8; 32];

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// There to be read.
    Present {
        /// Kept secret until the body is exported; erased with it.
        salt: Salt,
        /// Message text, reaction symbol, topic, a kick's or a ban's reason, what retention is; empty
        /// where there is nothing to say.
        text: String,
    },
    /// Erased for good. `blake3(salt ‖ text)` stays, so that the chain still verifies.
    Erased {
        /// The erased body's hash.
        hash: Hash,
    },
}

impl Body {
    /// `blake3(salt ‖ text)`.
    pub fn hash(&self) -> Hash {
        match self {
            Body::Present { salt, text } => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(salt);
                hasher.update(text.as_bytes());
                *hasher.finalize().as_bytes()
            }
            Body::Erased { hash } => *hash,
        }
    }

    /// The text; empty once erased.
    pub fn text(&self) -> &str {
        match self {
            Body::Present { text, .. } => text,
            Body::Erased { .. } => "",
        }
    }
}

/// One entry of a room's log. Immutable, except that its body may be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Position in the room.
    pub seq: Seq,
    /// Log time, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who caused it.
    pub sender: UserId,
    /// What happened.
    pub kind: EventKind,
    /// The request that caused it; a message's `client_msg_id`.
    pub request_id: RequestId,
    /// The event this one is about: replied to, edited, redacted, reacted to, pinned.
    pub target: Option<Seq>,
    /// The user that a Role, an Invite, or another's Join or Leave, is about; `None` when it is the
    /// sender.
    pub subject: Option<UserId>,
    /// Role events: the new role.
    pub role: Option<Role>,
    /// It takes back what an earlier one of its kind did: a reaction, a pin, an archiving, a ban, a
    /// mute.
    pub withdrawn: bool,
    /// Role events that ban or mute for a time: log time until when, milliseconds since the Unix
    /// epoch.
    pub until_ms: Option<u64>,
    /// Imported lines: original time in milliseconds since the Unix epoch.
    pub original_at_ms: Option<u64>,
    /// Imported lines: the sender's name at the source.
    pub original_sender: Option<String>,
    /// What it says.
    pub body: Body,
}

impl Event {
    /// The event with its body erased.
    pub fn erased(&self) -> Event {
        Event { body: Body::Erased { hash: self.body.hash() }, ..self.clone() }
    }

    /// The room's chain after this event, given the chain before it:
    /// `blake3(previous ‖ header ‖ body hash)`.
    ///
    /// The header has every other field in declaration order, integers little-endian, strings
    /// prefixed by their length as u32, absent options as a zero byte and present ones after a one
    /// byte. An event with `until_ms` has the second version of it, in which that follows last. It
    /// is pinned by a test: a change breaks every chain ever exported.
    pub fn chain(&self, previous: &Hash) -> Hash {
        let mut header = Vec::with_capacity(192);
        header.extend_from_slice(previous);
        header.push(if self.until_ms.is_none() { 1 } else { 2 }); // version of this encoding
        header.extend_from_slice(&self.seq.0.to_le_bytes());
        header.extend_from_slice(&self.at_ms.to_le_bytes());
        push_str(&mut header, self.sender.as_str());
        header.push(self.kind as u8);
        header.extend_from_slice(self.request_id.as_bytes());
        push_option(&mut header, self.target, |out, seq| {
            out.extend_from_slice(&seq.0.to_le_bytes());
        });
        push_option(&mut header, self.subject.as_ref(), |out, user| push_str(out, user.as_str()));
        push_option(&mut header, self.role, |out, role| out.push(role as u8));
        header.push(u8::from(self.withdrawn));
        push_option(&mut header, self.original_at_ms, |out, ms| {
            out.extend_from_slice(&ms.to_le_bytes());
        });
        push_option(&mut header, self.original_sender.as_deref(), push_str);
        if let Some(ms) = self.until_ms {
            header.extend_from_slice(&ms.to_le_bytes());
        }
        header.extend_from_slice(&self.body.hash());
        *blake3::hash(&header).as_bytes()
    }
}

fn push_str(out: &mut Vec<u8>, s: &str) {
    out.extend_from_slice(&(s.len() as u32).to_le_bytes());
    out.extend_from_slice(s.as_bytes());
}

fn push_option<T>(out: &mut Vec<u8>, value: Option<T>, push: impl FnOnce(&mut Vec<u8>, T)) {
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            push(out, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    fn event() -> Event {
        Event {
            seq: Seq(7),
            at_ms: 1_700_000_000_000,
            sender: UserId::parse("ann").unwrap(),
            kind: EventKind::Message,
            request_id: RequestId::mint(1_700_000_000_000, [7; 10]),
            target: None,
            subject: None,
            role: None,
            withdrawn: false,
            until_ms: None,
            original_at_ms: None,
            original_sender: None,
            body: Body::Present { salt: [9; 16], text: "hi".into() },
        }
    }

    #[test]
    fn the_chain_is_pinned() {
        let plain = event();
        assert_eq!(
            hex(&plain.chain(&[0; 32])),
            "73003f9212b95a819d0ac9f44c4a970e35232143c99af989c490f0730b2af988"
        );
        let mut full = event();
        full.target = Some(Seq(5));
        full.subject = Some(UserId::parse("bob").unwrap());
        full.role = Some(Role::Muted);
        full.withdrawn = true;
        full.original_at_ms = Some(1000);
        full.original_sender = Some("Ann|away".into());
        assert_eq!(
            hex(&full.chain(&plain.chain(&[0; 32]))),
            "6f6bc4973e35679767a5e3b1ce3deed2eecac87938c6039b4d147cc5b7405fb1"
        );
        let timed = Event { until_ms: Some(1_700_000_060_000), ..full.clone() };
        assert_eq!(
            hex(&timed.chain(&full.chain(&plain.chain(&[0; 32])))),
            "f9de4e8854d46f0f9cc74da00aebc383b3a12c56588d881582c628b9d580dec5"
        );
    }

    #[test]
    fn erasing_a_body_keeps_the_chain() {
        let before = event();
        let after = before.erased();
        assert_eq!(before.chain(&[3; 32]), after.chain(&[3; 32]));
        assert_eq!(after.body.text(), "");
    }

    #[test]
    fn the_chain_tells_every_field_apart() {
        type Change = fn(&mut Event);
        let changes: [Change; 13] = [
            |e| e.seq = Seq(8),
            |e| e.at_ms += 1,
            |e| e.sender = UserId::parse("anna").unwrap(),
            |e| e.kind = EventKind::Action,
            |e| e.request_id = RequestId::mint(1, [0; 10]),
            |e| e.target = Some(Seq(1)),
            |e| e.subject = Some(UserId::parse("bob").unwrap()),
            |e| e.role = Some(Role::Owner),
            |e| e.withdrawn = true,
            |e| e.until_ms = Some(0),
            |e| e.original_at_ms = Some(1),
            |e| e.original_sender = Some("x".into()),
            |e| e.body = Body::Present { salt: [9; 16], text: "ho".into() },
        ];
        let mut chains = vec![event().chain(&[0; 32]), event().chain(&[1; 32])];
        for change in changes {
            let mut event = event();
            change(&mut event);
            chains.push(event.chain(&[0; 32]));
        }
        chains.sort();
        chains.dedup();
        assert_eq!(chains.len(), 15);
    }
}
