//! The commands on who is in a room, and on the room itself. Called by `request`.

use crate::chat::codec::request::salt;
use crate::chat::codec::{Malformed, copied, parse};
use crate::chat::command::{Command, Restriction};
use crate::chat::state::Retention;
use crate::id::Seq;
use crate::proto::internal as proto;
use crate::proto::internal::request::Command as Wire;

/// Encodes one of these commands.
///
/// # Panics
/// For every other one.
pub(super) fn encode(command: &Command) -> Wire {
    match command {
        Command::Invite { room, user, salt } => Wire::Invite(proto::Invite {
            room: room.as_str().into(),
            user: user.as_str().into(),
            salt: copied(salt),
        }),
        Command::Kick { room, user, reason, salt } => Wire::Kick(proto::Kick {
            room: room.as_str().into(),
            user: user.as_str().into(),
            reason: reason.clone(),
            salt: copied(salt),
        }),
        Command::Restrict { room, user, restriction, for_ms, reason, salt } => {
            Wire::Restrict(proto::Restrict {
                room: room.as_str().into(),
                user: user.as_str().into(),
                restriction: *restriction as u32,
                for_ms: *for_ms,
                reason: reason.clone(),
                salt: copied(salt),
            })
        }
        Command::Lift { room, user, restriction, salt } => Wire::Lift(proto::Lift {
            room: room.as_str().into(),
            user: user.as_str().into(),
            restriction: *restriction as u32,
            salt: copied(salt),
        }),
        Command::SetTopic { room, topic, salt } => Wire::SetTopic(proto::SetTopic {
            room: room.as_str().into(),
            topic: topic.clone(),
            salt: copied(salt),
        }),
        Command::Pin { room, target, withdraw, salt } => Wire::Pin(proto::Pin {
            room: room.as_str().into(),
            target: target.0,
            withdraw: *withdraw,
            salt: copied(salt),
        }),
        Command::Archive { room, withdraw, salt } => Wire::Archive(proto::Archive {
            room: room.as_str().into(),
            withdraw: *withdraw,
            salt: copied(salt),
        }),
        Command::SetRetention { room, retention, salt } => {
            Wire::SetRetention(proto::SetRetention {
                room: room.as_str().into(),
                max_age_ms: retention.max_age_ms,
                max_events: retention.max_events,
                salt: copied(salt),
            })
        }
        Command::Trim { room, salt } => {
            Wire::Trim(proto::Trim { room: room.as_str().into(), salt: copied(salt) })
        }
        Command::MarkRead { room, seq } => {
            Wire::MarkRead(proto::MarkRead { room: room.as_str().into(), seq: seq.0 })
        }
        _ => unreachable!("`request` encodes the others"),
    }
}

/// Decodes one of these commands.
///
/// # Errors
/// [`Malformed`], for every other one too.
pub(super) fn decode(command: Wire) -> Result<Command, Malformed> {
    Ok(match command {
        Wire::Invite(c) => Command::Invite {
            room: parse::room(&c.room)?,
            user: parse::user(&c.user)?,
            salt: salt(&c.salt)?,
        },
        Wire::Kick(c) => Command::Kick {
            room: parse::room(&c.room)?,
            user: parse::user(&c.user)?,
            reason: c.reason,
            salt: salt(&c.salt)?,
        },
        Wire::Restrict(c) => Command::Restrict {
            room: parse::room(&c.room)?,
            user: parse::user(&c.user)?,
            restriction: restriction(c.restriction)?,
            for_ms: c.for_ms,
            reason: c.reason,
            salt: salt(&c.salt)?,
        },
        Wire::Lift(c) => Command::Lift {
            room: parse::room(&c.room)?,
            user: parse::user(&c.user)?,
            restriction: restriction(c.restriction)?,
            salt: salt(&c.salt)?,
        },
        Wire::SetTopic(c) => {
            Command::SetTopic { room: parse::room(&c.room)?, topic: c.topic, salt: salt(&c.salt)? }
        }
        Wire::Pin(c) => Command::Pin {
            room: parse::room(&c.room)?,
            target: Seq(c.target),
            withdraw: c.withdraw,
            salt: salt(&c.salt)?,
        },
        Wire::Archive(c) => Command::Archive {
            room: parse::room(&c.room)?,
            withdraw: c.withdraw,
            salt: salt(&c.salt)?,
        },
        Wire::SetRetention(c) => Command::SetRetention {
            room: parse::room(&c.room)?,
            retention: Retention { max_age_ms: c.max_age_ms, max_events: c.max_events },
            salt: salt(&c.salt)?,
        },
        Wire::Trim(c) => Command::Trim { room: parse::room(&c.room)?, salt: salt(&c.salt)? },
        Wire::MarkRead(c) => Command::MarkRead { room: parse::room(&c.room)?, seq: Seq(c.seq) },
        _ => return Err(Malformed("command")),
    })
}

fn restriction(number: u32) -> Result<Restriction, Malformed> {
    Restriction::from_number(number).ok_or(Malformed("restriction"))
}
