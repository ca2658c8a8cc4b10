//! `folkmoot user set`, `disable`, `enable`; tokens, sessions and invites.

use std::time::Duration;

use serde_json::json;

use crate::cli::connection::{self, Connection};
use crate::cli::failure::Outcome;
use crate::cli::output::{self, Table};
use crate::id::UserId;
use crate::proto::v1 as pb;

/// Options of `user set`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Set {
    /// The user's id.
    #[arg(value_parser = connection::user)]
    user: UserId,
    /// The name that people see; the id when empty.
    #[arg(long, required_unless_present = "status")]
    name: Option<String>,
    /// What the user is about; empty takes it back.
    #[arg(long)]
    status: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `user disable`, `user enable` and `user tokens`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Whom {
    /// The user's id.
    #[arg(value_parser = connection::user)]
    user: UserId,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `user revoke-token`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RevokeToken {
    /// The user's id.
    #[arg(value_parser = connection::user)]
    user: UserId,
    /// The token's id, as `user tokens` shows it.
    id: String,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `user sessions` and `user invites`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Own {
    #[command(flatten)]
    connection: Connection,
}

/// Options of `user end-session`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct EndSession {
    /// The session's id, as `user sessions` shows it.
    #[arg(required_unless_present = "others")]
    id: Option<String>,
    /// End all but the one of this token.
    #[arg(long, conflicts_with = "id")]
    others: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `user invite`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Invite {
    /// How many it lets in.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    uses: u32,
    /// For how long.
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = humantime::parse_duration)]
    ttl: Duration,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `user drop-invite`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct DropInvite {
    /// The invite's id, as `user invites` shows it.
    id: String,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `user link`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Link {
    /// The user's id.
    #[arg(value_parser = connection::user)]
    user: UserId,
    /// The provider's name, as in [oidc.<name>].
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// What the provider calls the user: the claim `sub` of its tokens.
    #[arg(long, value_name = "SUB")]
    subject: String,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn link(args: Link) -> Outcome {
    let Link { user, provider, subject, connection } = args;
    let user = connection.client()?.link_user(&user, &provider, &subject).await?;
    match connection.json {
        true => output::line(output::user_json(&user))?,
        false => eprintln!("folkmoot: done"),
    }
    Ok(())
}

async fn update(connection: &Connection, update: pb::UpdateUserRequest) -> Outcome {
    let user = connection.client()?.update_user(&update).await?;
    match connection.json {
        true => output::line(output::user_json(&user))?,
        false => eprintln!("folkmoot: done"),
    }
    Ok(())
}

/// Says that something is done, to programs too.
fn done(connection: &Connection) -> Outcome {
    match connection.json {
        true => output::line(json!({}))?,
        false => eprintln!("folkmoot: done"),
    }
    Ok(())
}

pub(super) async fn set(args: Set) -> Outcome {
    let Set { user, name: display_name, status, connection } = args;
    let user = user.to_string();
    let wanted = pb::UpdateUserRequest { user, display_name, status, disabled: None };
    update(&connection, wanted).await
}

pub(super) async fn set_disabled(args: Whom, disabled: bool) -> Outcome {
    let (user, disabled) = (args.user.to_string(), Some(disabled));
    let wanted = pb::UpdateUserRequest { user, disabled, ..Default::default() };
    update(&args.connection, wanted).await
}

pub(super) async fn tokens(args: Whom) -> Outcome {
    let connection = args.connection;
    let tokens = connection.client()?.list_tokens(&args.user).await?;
    let ends = |at_ms: u64| Some(at_ms).filter(|at_ms| *at_ms > 0);
    if connection.json {
        let shown = |token: &pb::Token| {
            json!({
                "id": token.id,
                "label": token.label,
                "issued_at": output::time(token.issued_at_ms),
                "scopes": token.scopes,
                "expires_at": ends(token.expires_at_ms).map(output::time),
            })
        };
        let tokens: Vec<_> = tokens.iter().map(shown).collect();
        output::line(json!({ "tokens": tokens }))?;
        return Ok(());
    }
    let mut table = Table::new(&["ID", "LABEL", "ISSUED", "SCOPES", "EXPIRES"]);
    for token in tokens {
        let expires = ends(token.expires_at_ms).map_or("never".into(), output::time_short);
        let issued = output::time_short(token.issued_at_ms);
        table.row([token.id, token.label, issued, token.scopes.join(" "), expires]);
    }
    table.print()?;
    Ok(())
}

pub(super) async fn revoke_token(args: RevokeToken) -> Outcome {
    let connection = args.connection;
    let revoked = connection.client()?.revoke_token(&args.user, &args.id).await;
    revoked?;
    done(&connection)
}

pub(super) async fn sessions(args: Own) -> Outcome {
    let connection = args.connection;
    let sessions = connection.client()?.list_sessions().await?;
    if connection.json {
        let shown = |session: &pb::Session| {
            json!({
                "id": session.id,
                "created_at": output::time(session.created_at_ms),
                "used_at": output::time(session.used_at_ms),
                "ends_at": output::time(session.ends_at_ms),
                "user_agent": session.user_agent,
                "address": session.address,
                "current": session.current,
            })
        };
        let sessions: Vec<_> = sessions.iter().map(shown).collect();
        output::line(json!({ "sessions": sessions }))?;
        return Ok(());
    }
    let mut table = Table::new(&["ID", "BEGAN", "USED", "FROM", "WITH"]);
    for session in sessions {
        let id = if session.current { format!("{} *", session.id) } else { session.id };
        let began = output::time_short(session.created_at_ms);
        let used = output::time_short(session.used_at_ms);
        table.row([id, began, used, session.address, session.user_agent]);
    }
    table.print()?;
    Ok(())
}

pub(super) async fn end_session(args: EndSession) -> Outcome {
    let connection = args.connection;
    let ended = connection.client()?.end_session(args.id.as_deref().unwrap_or_default()).await;
    ended?;
    done(&connection)
}

pub(super) async fn invite(args: Invite) -> Outcome {
    let connection = args.connection;
    let ttl_ms = u64::try_from(args.ttl.as_millis()).unwrap_or(u64::MAX);
    let made = connection.client()?.make_invite(args.uses, ttl_ms).await?;
    if connection.json {
        let expires_at = output::time(made.expires_at_ms);
        output::line(json!({ "invite": made.invite, "expires_at": expires_at }))?;
    } else {
        output::line(made.invite)?;
    }
    Ok(())
}

pub(super) async fn invites(args: Own) -> Outcome {
    let connection = args.connection;
    let invites = connection.client()?.list_invites().await?;
    if connection.json {
        let shown = |invite: &pb::Invite| {
            json!({
                "id": invite.id,
                "created_at": output::time(invite.created_at_ms),
                "expires_at": output::time(invite.expires_at_ms),
                "uses": invite.uses,
                "used_by": invite.used_by,
            })
        };
        let invites: Vec<_> = invites.iter().map(shown).collect();
        output::line(json!({ "invites": invites }))?;
        return Ok(());
    }
    let mut table = Table::new(&["ID", "EXPIRES", "USES", "USED BY"]);
    for invite in invites {
        let expires = output::time_short(invite.expires_at_ms);
        let uses = format!("{} of {}", invite.used_by.len(), invite.uses);
        table.row([invite.id, expires, uses, invite.used_by.join(" ")]);
    }
    table.print()?;
    Ok(())
}

pub(super) async fn drop_invite(args: DropInvite) -> Outcome {
    let connection = args.connection;
    let dropped = connection.client()?.drop_invite(&args.id).await;
    dropped?;
    done(&connection)
}
