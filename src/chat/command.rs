//! What can be asked of the rules, and what they answer.

use std::fmt;

use crate::chat::account::Change;
use crate::chat::event::{EventKind, Hash, Role, Salt};
use crate::chat::permission::Action;
use crate::chat::state::{Retention, RoomKind};
use crate::error::{Code, Error};
use crate::id::{Epoch, RequestId, RoomId, Seq, UserId};

/// A command with who asks. Encoded once, where it enters the cluster; the same bytes are
/// forwarded, logged and applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks, as the gateway authenticated them.
    pub actor: Actor,
    /// Makes repeats harmless for the dedup horizon.
    pub id: RequestId,
    /// What is asked.
    pub command: Command,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The user.
    pub user: UserId,
    /// Whether they administer the cluster; an admin may do all.
    pub admin: bool,
}

/// Every mutating command of data shards. The meta group has its own (`meta`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields are as in proto/folkmoot/v1, where they are described")]
pub enum Command {
    CreateUser {
        user: UserId,
        display_name: String,
        admin: bool,
        token_hash: Option<Hash>,
    },
    IssueToken {
        user: UserId,
        token_hash: Hash,
        label: String,
    },
    RevokeToken {
        user: UserId,
        token_hash: Hash,
    },
    ChangeUser {
        user: UserId,
        change: Change,
    },
    CreateRoom {
        room: RoomId,
        title: String,
        kind: RoomKind,
        epoch: Epoch,
        salt: Salt,
    },
    Join {
        room: RoomId,
        salt: Salt,
    },
    Leave {
        room: RoomId,
        salt: Salt,
    },
    Post {
        room: RoomId,
        kind: EventKind,
        text: String,
        reply_to: Option<Seq>,
        salt: Salt,
    },
    Edit {
        room: RoomId,
        target: Seq,
        text: String,
        salt: Salt,
    },
    Redact {
        room: RoomId,
        target: Seq,
        salt: Salt,
    },
    React {
        room: RoomId,
        target: Seq,
        symbol: String,
        withdraw: bool,
        salt: Salt,
    },
    SetRole {
        room: RoomId,
        user: UserId,
        role: Role,
        salt: Salt,
    },
    Import {
        room: RoomId,
        source: String,
        lines: Vec<ImportLine>,
        salt: Salt,
    },
    Invite {
        room: RoomId,
        user: UserId,
        salt: Salt,
    },
    Kick {
        room: RoomId,
        user: UserId,
        reason: String,
        salt: Salt,
    },
    Restrict {
        room: RoomId,
        user: UserId,
        restriction: Restriction,
        for_ms: u64,
        reason: String,
        salt: Salt,
    },
    Lift {
        room: RoomId,
        user: UserId,
        restriction: Restriction,
        salt: Salt,
    },
    SetTopic {
        room: RoomId,
        topic: String,
        salt: Salt,
    },
    Pin {
        room: RoomId,
        target: Seq,
        withdraw: bool,
        salt: Salt,
    },
    Archive {
        room: RoomId,
        withdraw: bool,
        salt: Salt,
    },
    SetRetention {
        room: RoomId,
        retention: Retention,
        salt: Salt,
    },
    MarkRead {
        room: RoomId,
        seq: Seq,
    },
    /// The cluster's own: drops what a room's retention keeps no longer.
    Trim {
        room: RoomId,
        salt: Salt,
    },
}

/// What keeps somebody from speaking, or out. The numbers are on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Restriction {
    /// They may read, not speak.
    Mute = 1,
    /// They may do nothing in the room.
    Ban = 2,
}

impl Restriction {
    /// The restriction with this number.
    pub fn from_number(number: u32) -> Option<Restriction> {
        [Restriction::Mute, Restriction::Ban].into_iter().find(|r| *r as u32 == number)
    }

    /// The role that it makes of theirs.
    pub fn role(self) -> Role {
        match self {
            Restriction::Mute => Role::Muted,
            Restriction::Ban => Role::Banned,
        }
    }

    /// What whoever imposes or lifts it must be allowed.
    pub fn action(self) -> Action {
        match self {
            Restriction::Mute => Action::Mute,
            Restriction::Ban => Action::Ban,
        }
    }
}

impl fmt::Display for Restriction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Restriction::Mute => "mute",
            Restriction::Ban => "ban",
        })
    }
}

/// One line of foreign history.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in proto/folkmoot/v1, where they are described")]
pub struct ImportLine {
    pub line: u64,
    pub original_at_ms: u64,
    pub sender: UserId,
    pub original_sender: String,
    pub kind: EventKind,
    pub text: String,
}

/// What a command's target is, which decides its shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target<'a> {
    /// A room.
    Room(&'a RoomId),
    /// A user.
    User(&'a UserId),
}

impl Command {
    /// The room or user that the command changes.
    pub fn target(&self) -> Target<'_> {
        match self {
            Command::CreateUser { user, .. }
            | Command::IssueToken { user, .. }
            | Command::RevokeToken { user, .. }
            | Command::ChangeUser { user, .. } => Target::User(user),
            Command::CreateRoom { room, .. }
            | Command::Join { room, .. }
            | Command::Leave { room, .. }
            | Command::Post { room, .. }
            | Command::Edit { room, .. }
            | Command::Redact { room, .. }
            | Command::React { room, .. }
            | Command::SetRole { room, .. }
            | Command::Import { room, .. }
            | Command::Invite { room, .. }
            | Command::Kick { room, .. }
            | Command::Restrict { room, .. }
            | Command::Lift { room, .. }
            | Command::SetTopic { room, .. }
            | Command::Pin { room, .. }
            | Command::Archive { room, .. }
            | Command::SetRetention { room, .. }
            | Command::MarkRead { room, .. }
            | Command::Trim { room, .. } => Target::Room(room),
        }
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The event's seq; the room's head when there was nothing to do; where a read mark is; 0 for users.
    pub seq: Seq,
    /// The room's epoch; `None` for users.
    pub epoch: Option<Epoch>,
    /// Log time, milliseconds since the Unix epoch: of the first attempt when `duplicate`.
    pub at_ms: u64,
    /// An earlier request with this id, or the very state asked for, was there already.
    pub duplicate: bool,
    /// Import only: how many lines became events, and the source's mark after the call.
    pub imported: Option<Imported>,
}

/// The outcome of an import command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// The source's high-water mark.
    pub line: u64,
    /// Lines that became events now.
    pub count: u64,
}

/// What `apply` answers: what was done, or a deterministic no.
pub type Reply = Result<Done, Rejection>;

/// A deterministic no, the same on every replica. Speaks of this attempt only: an earlier one may
/// have been applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Rejection {
    #[error("{0}")]
    InvalidArgument(String),
    #[error("the text is larger than {max} bytes")]
    TooLarge { max: usize },
    #[error("there is no room {0}")]
    RoomNotFound(RoomId),
    #[error("there is no user {0}")]
    UserNotFound(UserId),
    #[error("room {room} has no message at seq {seq}")]
    EventNotFound { room: RoomId, seq: Seq },
    #[error("{0} exists already, and differs from what was asked")]
    AlreadyExists(String),
    #[error("join room {0} first")]
    NotParticipant(RoomId),
    #[error("you are muted in room {0}")]
    Muted(RoomId),
    #[error("you are banned from room {0}")]
    Banned(RoomId),
    #[error("{0}")]
    Forbidden(String),
    #[error("{user} is not in room {room}")]
    NotInRoom { room: RoomId, user: UserId },
    #[error("room {0} is archived")]
    Archived(RoomId),
    #[error("this makes no sense in a {0} room")]
    WrongRoomKind(&'static str),
    #[error("this request id was used before, with other content")]
    IdReused,
    #[error(
        "this request id is older than {} days, for which repeats are recognised; look in the room \
         whether it was applied",
        .horizon_ms / 86_400_000
    )]
    Expired { horizon_ms: u64 },
    #[error("this request id's time is too far ahead of the server's")]
    ClockSkew { server_time_ms: u64 },
    #[error("the message was redacted")]
    Redacted,
    #[error("{0}")]
    LimitReached(String),
    #[error("the command could not be decoded")]
    Undecodable,
}

impl Rejection {
    /// The row of the error table.
    pub fn code(&self) -> Code {
        match self {
            Rejection::InvalidArgument(_) | Rejection::Undecodable => Code::InvalidArgument,
            Rejection::TooLarge { .. } => Code::TooLarge,
            Rejection::RoomNotFound(_) => Code::RoomNotFound,
            Rejection::UserNotFound(_) => Code::UserNotFound,
            Rejection::EventNotFound { .. } => Code::EventNotFound,
            Rejection::AlreadyExists(_) => Code::AlreadyExists,
            Rejection::NotParticipant(_) => Code::NotParticipant,
            Rejection::Muted(_) => Code::Muted,
            Rejection::Banned(_) => Code::Banned,
            Rejection::Forbidden(_) => Code::Forbidden,
            Rejection::NotInRoom { .. } => Code::UserNotFound,
            Rejection::Archived(_) => Code::Archived,
            Rejection::WrongRoomKind(_) => Code::WrongRoomKind,
            Rejection::IdReused => Code::IdReused,
            Rejection::Expired { .. } => Code::Expired,
            Rejection::ClockSkew { .. } => Code::ClockSkew,
            Rejection::Redacted => Code::Redacted,
            Rejection::LimitReached(_) => Code::LimitReached,
        }
    }
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Error {
        let server_time_ms = match rejection {
            Rejection::ClockSkew { server_time_ms } => Some(server_time_ms),
            _ => None,
        };
        Error { server_time_ms, ..Error::new(rejection.code(), rejection.to_string()) }
    }
}
