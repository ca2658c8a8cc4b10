//! `folkmoot user`: accounts.

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
    /// List users in order of id.
    #[command(after_help = "Example:\n  folkmoot user list --json")]
    List(List),
    /// Issue a further token for a user.
    #[command(after_help = "Example:\n  folkmoot user token alice --label laptop")]
    Token(Token),
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
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
pub(super) async fn run(command: Command) -> Outcome {
    match command {
        Command::Add(args) => add(args).await,
        Command::List(args) => list(args).await,
        Command::Token(args) => token(args).await,
    }
}

async fn add(args: Add) -> Outcome {
    let connection = args.connection;
    let created = connection.client()?.create_user(&args.user, &args.name, args.admin).await;
    let created = created.map_err(|error| connection.failure(error))?;
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
        let page = client.list_users(&after, 1000).await;
        let page = page.map_err(|error| connection.failure(error))?;
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
    let mut table = Table::new(&["USER", "NAME", "ADMIN", "CREATED"]);
    for user in users {
        let admin = if user.admin { "yes" } else { "no" };
        let created = output::time_short(user.created_at_ms);
        table.row([user.user, user.display_name, admin.into(), created]);
    }
    table.print()?;
    Ok(())
}

async fn token(args: Token) -> Outcome {
    let connection = args.connection;
    let token = connection.client()?.issue_token(&args.user, &args.label).await;
    let token = token.map_err(|error| connection.failure(error))?;
    if connection.json {
        output::line(json!({ "user": args.user.as_str(), "token": token }))?;
    } else {
        output::line(token)?;
    }
    Ok(())
}
