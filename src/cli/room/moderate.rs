//! `folkmoot room invite|kick|ban|unban|mute|unmute|role`: who is in a room.

use std::time::Duration;

use crate::cli::connection::{self, Connection};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::room::acked;
use crate::id::{RoomId, UserId};
use crate::proto::v1 as pb;

/// Options of commands on somebody in a room.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Somebody {
    /// The room's id.
    #[arg(value_parser = connection::room)]
    room: RoomId,
    /// The user's id.
    #[arg(value_parser = connection::user)]
    user: UserId,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `room kick`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Kick {
    /// Why; everybody in the room sees it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    somebody: Somebody,
}

/// Options of `room ban` and `room mute`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Restrict {
    /// For how long, such as 90m or 7d; for good when not given.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Why; everybody in the room sees it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    somebody: Somebody,
}

/// Options of `room role`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Role {
    #[command(flatten)]
    somebody: Somebody,
    /// What they are to be.
    #[arg(long, value_enum)]
    role: RoleName,
}

/// A role that is given.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RoleName {
    /// Has a say over everything in the room.
    Owner,
    /// Has a say over members.
    Moderator,
    /// Reads and posts.
    Member,
}

/// `room invite`.
pub(super) async fn invite(args: Somebody) -> Outcome {
    let ack = args.connection.client()?.invite(&args.room, &args.user).await;
    args.acked(ack, "invited", "already invited, or in:")
}

/// `room kick`.
pub(super) async fn kick(args: Kick) -> Outcome {
    let Kick { reason, somebody } = args;
    let client = somebody.connection.client()?;
    let ack = client.kick(&somebody.room, &somebody.user, &reason).await;
    somebody.acked(ack, "removed", "not in:")
}

/// `room ban` and `room mute`.
pub(super) async fn restrict(args: Restrict, restriction: pb::Restriction) -> Outcome {
    let Restrict { lasts, reason, somebody } = args;
    let for_ms = match lasts {
        None => 0,
        Some(lasts) => match u64::try_from(lasts.as_millis()) {
            Ok(ms) if ms > 0 => ms,
            _ => return Err(Failure::Usage("--for must be at least a millisecond".into())),
        },
    };
    let client = somebody.connection.client()?;
    let ack = client.restrict(&somebody.room, &somebody.user, restriction, for_ms, &reason).await;
    match restriction {
        pb::Restriction::Ban => somebody.acked(ack, "banned", "already banned:"),
        _ => somebody.acked(ack, "muted", "already muted:"),
    }
}

/// `room unban` and `room unmute`.
pub(super) async fn lift(args: Somebody, restriction: pb::Restriction) -> Outcome {
    let ack = args.connection.client()?.lift(&args.room, &args.user, restriction).await;
    match restriction {
        pb::Restriction::Ban => args.acked(ack, "no longer banned:", "not banned:"),
        _ => args.acked(ack, "no longer muted:", "not muted:"),
    }
}

/// `room role`.
pub(super) async fn role(args: Role) -> Outcome {
    let role = match args.role {
        RoleName::Owner => pb::Role::Owner,
        RoleName::Moderator => pb::Role::Moderator,
        RoleName::Member => pb::Role::Member,
    };
    let Somebody { room, user, connection } = &args.somebody;
    let ack = connection.client()?.set_role(room, user, role).await;
    let name = crate::cli::output::role(role);
    args.somebody.acked(ack, &format!("now {name}:"), &format!("already {name}:"))
}

impl Somebody {
    fn acked(
        &self,
        ack: Result<pb::Ack, crate::error::Error>,
        done: &str,
        nothing: &str,
    ) -> Outcome {
        acked(&self.connection, self.user.as_str(), ack, done, nothing)
    }
}
