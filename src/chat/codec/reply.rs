//! What comes back to the node that forwarded a request: replies and errors; and who asked.

use bytes::{Buf, Bytes};

use crate::chat::codec::{Malformed, open, parse, seal};
use crate::chat::command::{Actor, Done, Imported, Rejection, Reply};
use crate::chat::state::RoomKind;
use crate::error::{Code, Error};
use crate::id::Seq;
use crate::proto::internal::chat_reply as wire;
use crate::proto::internal::{ChatActor, ChatError, ChatReply};

/// Encodes who asks.
pub fn encode_actor(actor: &Actor) -> Bytes {
    seal(&ChatActor { user: actor.user.as_str().into(), admin: actor.admin })
}

/// Decodes who asks.
///
/// # Errors
/// [`Malformed`].
pub fn decode_actor(bytes: impl Buf) -> Result<Actor, Malformed> {
    let actor: ChatActor = open(bytes, "actor")?;
    Ok(Actor { user: parse::user(&actor.user)?, admin: actor.admin })
}

/// Encodes an error.
pub fn encode_error(error: &Error) -> Bytes {
    seal(&ChatError {
        code: error.code.as_str().into(),
        message: error.message.clone(),
        may_have_applied: error.may_have_applied,
        retry_after_ms: error.retry_after_ms,
        server_time_ms: error.server_time_ms,
    })
}

/// Decodes an error. A code that only a later version knows is [`Code::Internal`] here.
///
/// # Errors
/// [`Malformed`].
pub fn decode_error(bytes: impl Buf) -> Result<Error, Malformed> {
    let error: ChatError = open(bytes, "error")?;
    Ok(Error {
        code: Code::parse(&error.code).unwrap_or(Code::Internal),
        message: error.message,
        may_have_applied: error.may_have_applied,
        retry_after_ms: error.retry_after_ms,
        server_time_ms: error.server_time_ms,
    })
}

/// Encodes a reply.
pub fn encode_reply(reply: &Reply) -> Bytes {
    let reply = match reply {
        Ok(done) => wire::Reply::Done(wire::Done {
            seq: done.seq.0,
            epoch: done.epoch.as_ref().map_or("", |epoch| epoch.as_str()).into(),
            at_ms: done.at_ms,
            duplicate: done.duplicate,
            imported: done.imported.map(|i| wire::Imported { line: i.line, count: i.count }),
        }),
        Err(rejection) => wire::Reply::Rejection(rejection_to_wire(rejection)),
    };
    seal(&ChatReply { reply: Some(reply) })
}

/// Decodes a reply.
///
/// # Errors
/// [`Malformed`].
pub fn decode_reply(bytes: impl Buf) -> Result<Reply, Malformed> {
    let reply: ChatReply = open(bytes, "reply")?;
    Ok(match reply.reply.ok_or(Malformed("reply"))? {
        wire::Reply::Done(done) => Ok(Done {
            seq: Seq(done.seq),
            epoch: parse::maybe_epoch(&done.epoch)?,
            at_ms: done.at_ms,
            duplicate: done.duplicate,
            imported: done.imported.map(|i| Imported { line: i.line, count: i.count }),
        }),
        wire::Reply::Rejection(rejection) => Err(rejection_from_wire(rejection)?),
    })
}

/// The table of kinds is here and in [`rejection_from_wire`]. Numbers are not reused.
fn rejection_to_wire(rejection: &Rejection) -> wire::Rejection {
    let none = wire::Rejection::default;
    let text = |kind, text: &str| wire::Rejection { kind, text: text.into(), ..none() };
    let room = |kind, room: &crate::id::RoomId| wire::Rejection {
        kind,
        room: room.as_str().into(),
        ..none()
    };
    let number = |kind, number| wire::Rejection { kind, number, ..none() };
    match rejection {
        Rejection::InvalidArgument(reason) => text(1, reason),
        Rejection::TooLarge { max } => number(2, *max as u64),
        Rejection::RoomNotFound(id) => room(3, id),
        Rejection::UserNotFound(user) => text(4, user.as_str()),
        Rejection::EventNotFound { room: id, seq } => {
            wire::Rejection { number: seq.0, ..room(5, id) }
        }
        Rejection::AlreadyExists(what) => text(6, what),
        Rejection::NotParticipant(id) => room(7, id),
        Rejection::Muted(id) => room(8, id),
        Rejection::Banned(id) => room(9, id),
        Rejection::Forbidden(reason) => text(10, reason),
        Rejection::WrongRoomKind(kind) => text(11, kind),
        Rejection::IdReused => number(12, 0),
        Rejection::Expired { horizon_ms } => number(13, *horizon_ms),
        Rejection::ClockSkew { server_time_ms } => number(14, *server_time_ms),
        Rejection::Redacted => number(15, 0),
        Rejection::LimitReached(reason) => text(16, reason),
        Rejection::Undecodable => number(17, 0),
        Rejection::NotInRoom { room: id, user } => {
            wire::Rejection { text: user.as_str().into(), ..room(30, id) }
        }
        Rejection::Archived(id) => room(31, id),
    }
}

fn rejection_from_wire(wire: wire::Rejection) -> Result<Rejection, Malformed> {
    let wire::Rejection { kind, text, room, number } = wire;
    let room = || parse::room(&room);
    Ok(match kind {
        1 => Rejection::InvalidArgument(text),
        2 => Rejection::TooLarge {
            max: usize::try_from(number).map_err(|_| Malformed("rejection"))?,
        },
        3 => Rejection::RoomNotFound(room()?),
        4 => Rejection::UserNotFound(parse::user(&text)?),
        5 => Rejection::EventNotFound { room: room()?, seq: Seq(number) },
        6 => Rejection::AlreadyExists(text),
        7 => Rejection::NotParticipant(room()?),
        8 => Rejection::Muted(room()?),
        9 => Rejection::Banned(room()?),
        10 => Rejection::Forbidden(text),
        11 => Rejection::WrongRoomKind(
            RoomKind::ALL
                .into_iter()
                .map(RoomKind::name)
                .find(|kind| *kind == text)
                .ok_or(Malformed("rejection"))?,
        ),
        12 => Rejection::IdReused,
        13 => Rejection::Expired { horizon_ms: number },
        14 => Rejection::ClockSkew { server_time_ms: number },
        15 => Rejection::Redacted,
        16 => Rejection::LimitReached(text),
        17 => Rejection::Undecodable,
        30 => Rejection::NotInRoom { room: room()?, user: parse::user(&text)? },
        31 => Rejection::Archived(room()?),
        _ => return Err(Malformed("rejection")),
    })
}
