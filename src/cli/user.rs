//! `folkmoot user`: accounts.

mod account;
mod password;

use std::time::Duration;

use serde_json::json;

use crate::cli::connection::{self, Connection};
use crate::cli::failure::Outcome;
use crate::cli::output::{self, Table};
use crate::id::UserId;

/// Accounts.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Create a user and print its first token. Admins only.
    #[command(after_help = "Example:\n  folkmoot user add alice --name 'Alice Liddell'")]
    Add(Add),
    /// Let a user sign in by an account of a provider of OpenID Connect. Admins only.
    #[command(
        after_help = "Example:\n  folkmoot user link alice --provider keycloak --subject 7f3a-21"
    )]
    Link(account::Link),
    /// List users in order of id.
    #[command(after_help = "Example:\n  folkmoot user list --json")]
    List(List),
    /// Issue a further token for a user.
    #[command(after_help = "Examples:\n  folkmoot user token alice --label laptop\n  \
        folkmoot user token newsbot --scope read --scope post --ttl 365d\n\nScopes: read; post; rooms \
        (create, join, manage); account (password, tokens); admin.\nA token without any is good for \
        all that its user may do.")]
    Token(Token),
    /// List a user's tokens.
    #[command(after_help = "Example:\n  folkmoot user tokens alice --json | jq .tokens")]
    Tokens(account::Whom),
    /// Revoke a user's token: it stops working everywhere within a second.
    #[command(after_help = "Example:\n  folkmoot user revoke-token alice 0123456789abcdef")]
    RevokeToken(account::RevokeToken),
    /// Sign in with a password and print the session's token.
    #[command(after_help = "Example:\n  export FOLKMOOT_TOKEN=$(folkmoot user login alice)\n  \
        folkmoot user login alice --stdin < password.txt")]
    Login(password::Login),
    /// Set your password, or as an administrator somebody else's.
    #[command(
        after_help = "Examples:\n  folkmoot user password            # your own: asks for it\n  \
        folkmoot user password alice      # prints a new one for alice\n  \
        folkmoot user password alice --stdin < password.txt\n\nIt ends all other sessions. The first \
        admin has none until this sets one: use the token that `cluster init` printed."
    )]
    Password(password::Password),
    /// List where you are signed in.
    #[command(after_help = "Example:\n  folkmoot user sessions")]
    Sessions(account::Own),
    /// End one of your sessions, or all others: they stop working everywhere within a second.
    #[command(after_help = "Examples:\n  folkmoot user end-session 0123456789abcdef\n  \
        folkmoot user end-session --others")]
    EndSession(account::EndSession),
    /// Change the name and the status that people see.
    #[command(
        after_help = "Example:\n  folkmoot user set alice --name 'Alice L.' --status 'at lunch'"
    )]
    Set(account::Set),
    /// Lock a user out: nothing by which they sign in works any more. Admins only.
    #[command(after_help = "Example:\n  folkmoot user disable mallory")]
    Disable(account::Whom),
    /// Let a user in again who was locked out. Admins only.
    #[command(after_help = "Example:\n  folkmoot user enable alice")]
    Enable(account::Whom),
    /// Make an invite, with which others register where `accounts.registration` is `invite`. Admins only.
    #[command(after_help = "Example:\n  folkmoot user invite --uses 10 --ttl 30d")]
    Invite(account::Invite),
    /// List your invites, and whom they have let in. Admins only.
    #[command(after_help = "Example:\n  folkmoot user invites")]
    Invites(account::Own),
    /// Take an invite back. Admins only.
    #[command(after_help = "Example:\n  folkmoot user drop-invite 0123456789abcdef")]
    DropInvite(account::DropInvite),
}

/// Options of `user add`.
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// The user's id.
    #[arg(value_parser = connection::user)]
    user: UserId,
    /// The name that people see; the id when not given.
    #[arg(long, default_value = "")]
    name: String,
    /// May administer the whole cluster.
    #[arg(long)]
    admin: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `user list`.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    connection: Connection,
}

/// Options of `user token`.
#[derive(Debug, clap::Args)]
pub(super) struct Token {
    /// The user's id.
    #[arg(value_parser = connection::user)]
    user: UserId,
    /// What the token is for.
    #[arg(long, default_value = "")]
    label: String,
    /// What it is good for; give several. Everything when not given.
    #[arg(long = "scope", value_name = "SCOPE",
        value_parser = ["read", "post", "rooms", "account", "admin"])]
    scopes: Vec<String>,
    /// For how long; until it is revoked when not given.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(super) async fn run(command: Command) -> Outcome {
    match command {
        Command::Add(args) => add(args).await,
        Command::Link(args) => account::link(args).await,
        Command::List(args) => list(args).await,
        Command::Token(args) => token(args).await,
        Command::Tokens(args) => account::tokens(args).await,
        Command::RevokeToken(args) => account::revoke_token(args).await,
        Command::Login(args) => password::login(args).await,
        Command::Password(args) => password::set(args).await,
        Command::Sessions(args) => account::sessions(args).await,
        Command::EndSession(args) => account::end_session(args).await,
        Command::Set(args) => account::set(args).await,
        Command::Disable(args) => account::set_disabled(args, true).await,
        Command::Enable(args) => account::set_disabled(args, false).await,
        Command::Invite(args) => account::invite(args).await,
        Command::Invites(args) => account::invites(args).await,
        Command::DropInvite(args) => account::drop_invite(args).await,
    }
}

async fn add(args: Add) -> Outcome {
    let connection = args.connection;
    let created = connection.client()?.create_user(&args.user, &args.name, args.admin).await?;
    if connection.json {
        let mut user = output::user_json(&created.user.unwrap_or_default());
        user["token"] = json!(created.token);
        output::line(user)?;
    } else {
        output::line(created.token)?;
    }
    Ok(())
}

async fn list(args: List) -> Outcome {
    let connection = args.connection;
    let client = connection.client()?;
    let (mut users, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.list_users(&after, 1000).await?;
        users.extend(page.users);
        after = page.next;
        if after.is_empty() {
            break;
        }
    }
    if connection.json {
        let users: Vec<_> = users.iter().map(output::user_json).collect();
        output::line(json!({ "users": users }))?;
        return Ok(());
    }
    let mut table = Table::new(&["USER", "NAME", "ADMIN", "CREATED", "STATUS"]);
    for user in users {
        let admin = if user.admin { "yes" } else { "no" };
        let created = output::time_short(user.created_at_ms);
        let status = if user.disabled { "disabled".into() } else { user.status };
        table.row([user.user, user.display_name, admin.into(), created, status]);
    }
    table.print()?;
    Ok(())
}

async fn token(args: Token) -> Outcome {
    let connection = args.connection;
    let ttl_ms = args.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let client = connection.client()?;
    let token = client.issue_scoped_token(&args.user, &args.label, &args.scopes, ttl_ms).await?;
    if connection.json {
        output::line(json!({ "user": args.user.as_str(), "token": token }))?;
    } else {
        output::line(token)?;
    }
    Ok(())
}
