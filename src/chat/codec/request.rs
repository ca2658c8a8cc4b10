//! Commands and batches of them: what the Raft log holds.

use bytes::Bytes;

use crate::chat::codec::{
    Malformed, array, change, copied, moderation, nonzero, open, parse, seal,
};
use crate::chat::command::{Actor, Command, ImportLine, Request};
use crate::chat::event::{Hash, Salt};
use crate::chat::recover::Recovery;
use crate::id::{RoomId, Seq};
use crate::proto::internal as proto;
use crate::proto::internal::request::Command as Wire;

/// Encodes a log entry's payload.
pub fn encode_batch(stamp_ms: u64, requests: Vec<Bytes>) -> Bytes {
    seal(&proto::Batch { stamp_ms, requests })
}

/// Decodes a log entry's payload. The requests share its memory.
///
/// # Errors
/// [`Malformed`]; that its requests decode is not checked.
pub fn decode_batch(bytes: Bytes) -> Result<proto::Batch, Malformed> {
    open(bytes, "batch")
}

/// Encodes a command with who asks.
pub fn encode_request(request: &Request) -> Bytes {
    seal(&proto::Request {
        actor: request.actor.user.as_str().into(),
        actor_is_admin: request.actor.admin,
        request_id: Bytes::copy_from_slice(request.id.as_bytes()),
        audit: None,
        command: Some(encode_command(&request.command)),
    })
}

/// Decodes a command with who asks.
///
/// # Errors
/// [`Malformed`]; for the meta group's commands too.
pub fn decode_request(bytes: &Bytes) -> Result<Request, Malformed> {
    let request: proto::Request = open(bytes.clone(), "request")?;
    Ok(Request {
        actor: Actor { user: parse::user(&request.actor)?, admin: request.actor_is_admin },
        id: parse::request_id(&request.request_id)?,
        command: decode_command(request.command.ok_or(Malformed("command"))?)?,
    })
}

/// Encodes the command of `folkmoot cluster recover` to a data shard.
pub fn encode_recovery(recovery: &Recovery) -> Bytes {
    let rooms = proto::RecoverRooms { recovery: copied(recovery) };
    seal(&proto::Request { command: Some(Wire::RecoverRooms(rooms)), ..Default::default() })
}

/// Decodes the command of `folkmoot cluster recover`.
///
/// # Errors
/// [`Malformed`], for every other command too.
pub fn decode_recovery(bytes: &Bytes) -> Result<Recovery, Malformed> {
    let request: proto::Request = open(bytes.clone(), "request")?;
    match request.command {
        Some(Wire::RecoverRooms(rooms)) => array(&rooms.recovery, "recovery"),
        _ => Err(Malformed("recovery")),
    }
}

fn encode_command(command: &Command) -> Wire {
    match command {
        Command::CreateUser { user, display_name, admin, token_hash } => {
            Wire::CreateUser(proto::CreateUser {
                user: user.as_str().into(),
                display_name: display_name.clone(),
                admin: *admin,
                token_hash: token_hash.as_ref().map(copied).unwrap_or_default(),
            })
        }
        Command::IssueToken { user, token_hash, label } => Wire::IssueToken(proto::IssueToken {
            user: user.as_str().into(),
            token_hash: copied(token_hash),
            label: label.clone(),
        }),
        Command::RevokeToken { user, token_hash } => Wire::RevokeToken(proto::RevokeToken {
            user: user.as_str().into(),
            token_hash: copied(token_hash),
        }),
        Command::ChangeUser { user, change } => Wire::ChangeUser(change::encode(user, change)),
        Command::CreateRoom { room, title, kind, epoch, salt } => {
            Wire::CreateRoom(proto::CreateRoom {
                room: room.as_str().into(),
                title: title.clone(),
                kind: *kind as u32,
                epoch: epoch.as_str().into(),
                salt: copied(salt),
            })
        }
        Command::Join { room, salt } => {
            Wire::Join(proto::Join { room: room.as_str().into(), salt: copied(salt) })
        }
        Command::Leave { room, salt } => {
            Wire::Leave(proto::Leave { room: room.as_str().into(), salt: copied(salt) })
        }
        Command::Post { room, kind, text, reply_to, salt } => Wire::Post(proto::Post {
            room: room.as_str().into(),
            kind: *kind as u32,
            text: text.clone(),
            reply_to: reply_to.map_or(0, |seq| seq.0),
            salt: copied(salt),
        }),
        Command::Edit { room, target, text, salt } => Wire::Edit(proto::Edit {
            room: room.as_str().into(),
            target: target.0,
            text: text.clone(),
            salt: copied(salt),
        }),
        Command::Redact { room, target, salt } => Wire::Redact(proto::Redact {
            room: room.as_str().into(),
            target: target.0,
            salt: copied(salt),
        }),
        Command::React { room, target, symbol, withdraw, salt } => Wire::React(proto::React {
            room: room.as_str().into(),
            target: target.0,
            symbol: symbol.clone(),
            withdraw: *withdraw,
            salt: copied(salt),
        }),
        Command::SetRole { room, user, role, salt } => Wire::SetRole(proto::SetRole {
            room: room.as_str().into(),
            user: user.as_str().into(),
            role: *role as u32,
            salt: copied(salt),
        }),
        Command::Import { room, source, lines, salt } => encode_import(room, source, lines, salt),
        other => moderation::encode(other),
    }
}

fn encode_import(room: &RoomId, source: &str, lines: &[ImportLine], salt: &Salt) -> Wire {
    Wire::Import(proto::Import {
        room: room.as_str().into(),
        source: source.into(),
        lines: lines.iter().map(encode_line).collect(),
        salt: copied(salt),
    })
}

fn encode_line(line: &ImportLine) -> proto::ImportLine {
    proto::ImportLine {
        line: line.line,
        original_at_ms: line.original_at_ms,
        sender: line.sender.as_str().into(),
        original_sender: line.original_sender.clone(),
        kind: line.kind as u32,
        text: line.text.clone(),
    }
}

fn decode_command(command: Wire) -> Result<Command, Malformed> {
    Ok(match command {
        Wire::CreateUser(c) => Command::CreateUser {
            user: parse::user(&c.user)?,
            display_name: c.display_name,
            admin: c.admin,
            token_hash: if c.token_hash.is_empty() { None } else { Some(hash(&c.token_hash)?) },
        },
        Wire::IssueToken(c) => Command::IssueToken {
            user: parse::user(&c.user)?,
            token_hash: hash(&c.token_hash)?,
            label: c.label,
        },
        Wire::RevokeToken(c) => {
            Command::RevokeToken { user: parse::user(&c.user)?, token_hash: hash(&c.token_hash)? }
        }
        Wire::ChangeUser(c) => change::decode(c)?,
        Wire::CreateRoom(c) => decode_create_room(c)?,
        Wire::Join(c) => Command::Join { room: parse::room(&c.room)?, salt: salt(&c.salt)? },
        Wire::Leave(c) => Command::Leave { room: parse::room(&c.room)?, salt: salt(&c.salt)? },
        Wire::Post(c) => Command::Post {
            room: parse::room(&c.room)?,
            kind: parse::event_kind(c.kind)?,
            text: c.text,
            reply_to: nonzero(c.reply_to).map(Seq),
            salt: salt(&c.salt)?,
        },
        Wire::Edit(c) => Command::Edit {
            room: parse::room(&c.room)?,
            target: Seq(c.target),
            text: c.text,
            salt: salt(&c.salt)?,
        },
        Wire::Redact(c) => Command::Redact {
            room: parse::room(&c.room)?,
            target: Seq(c.target),
            salt: salt(&c.salt)?,
        },
        Wire::React(c) => Command::React {
            room: parse::room(&c.room)?,
            target: Seq(c.target),
            symbol: c.symbol,
            withdraw: c.withdraw,
            salt: salt(&c.salt)?,
        },
        Wire::SetRole(c) => Command::SetRole {
            room: parse::room(&c.room)?,
            user: parse::user(&c.user)?,
            role: parse::role(c.role)?,
            salt: salt(&c.salt)?,
        },
        Wire::Import(c) => decode_import(c)?,
        // Those of the meta group, which has rules of its own, and what nobody asks for (see
        // `decode_recovery`) are not known there either.
        other => moderation::decode(other)?,
    })
}

fn decode_create_room(c: proto::CreateRoom) -> Result<Command, Malformed> {
    Ok(Command::CreateRoom {
        room: parse::room(&c.room)?,
        title: c.title,
        kind: parse::room_kind(c.kind)?,
        epoch: parse::epoch(&c.epoch)?,
        salt: salt(&c.salt)?,
    })
}

fn decode_import(c: proto::Import) -> Result<Command, Malformed> {
    Ok(Command::Import {
        room: parse::room(&c.room)?,
        source: c.source,
        lines: c.lines.into_iter().map(decode_line).collect::<Result<_, _>>()?,
        salt: salt(&c.salt)?,
    })
}

fn decode_line(line: proto::ImportLine) -> Result<ImportLine, Malformed> {
    Ok(ImportLine {
        line: line.line,
        original_at_ms: line.original_at_ms,
        sender: parse::user(&line.sender)?,
        original_sender: line.original_sender,
        kind: parse::event_kind(line.kind)?,
        text: line.text,
    })
}

/// A salt out of bytes.
pub(super) fn salt(bytes: &[u8]) -> Result<Salt, Malformed> {
    array(bytes, "salt")
}

fn hash(bytes: &[u8]) -> Result<Hash, Malformed> {
    array(bytes, "token hash")
}
