//! `folkmoot user login` and `folkmoot user password`.

use std::io::{BufRead, IsTerminal};

use serde_json::json;

use crate::cli::connection::{self, Connection};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::error::Error;
use crate::id::UserId;

/// Options of `user login`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Login {
    /// The user's id.
    #[arg(value_parser = connection::user)]
    user: UserId,
    /// Read the password from standard input, its only line.
    #[arg(long)]
    stdin: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `user password`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Password {
    /// Whose; your own when not given. For somebody else's the node chooses one, unless --stdin.
    #[arg(value_parser = connection::user)]
    user: Option<UserId>,
    /// Read the new password from standard input; for your own the old one in a line before it.
    #[arg(long)]
    stdin: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Signs in, and prints the session's token.
pub(in crate::cli) async fn login(args: Login) -> Outcome {
    let password = match args.stdin {
        true => lines()?.pop().unwrap_or_default(),
        false => ask("Password: ")?,
    };
    let connection = args.connection;
    let session = connection.client()?.login(&args.user, &password).await?;
    if connection.json {
        output::line(json!({
            "user": args.user.as_str(),
            "token": session.token,
            "expires_at": output::time(session.expires_at_ms),
        }))?;
    } else {
        output::line(session.token)?;
    }
    Ok(())
}

/// Sets a password; prints it when the node has chosen it.
pub(in crate::cli) async fn set(args: Password) -> Outcome {
    let connection = args.connection;
    let client = connection.client()?;
    let me = client.who_am_i().await?;
    let me = UserId::parse(&me.user.unwrap_or_default().user).map_err(Error::from)?;
    let user = args.user.unwrap_or_else(|| me.clone());
    let (new, old) = match (user == me, args.stdin) {
        (true, false) => {
            let old = ask("Old password (empty if you have none): ")?;
            (Some(ask_twice()?), old)
        }
        (_, true) => {
            let mut lines = lines()?;
            let new = lines.pop();
            (Some(new.unwrap_or_default()), lines.pop().unwrap_or_default())
        }
        (false, false) => (None, String::new()),
    };
    let old = Some(old.as_str()).filter(|old| !old.is_empty());
    let chosen = client.set_password(&user, new.as_deref(), old).await?;
    if connection.json {
        let password = Some(chosen).filter(|chosen| !chosen.is_empty());
        output::line(json!({ "user": user.as_str(), "password": password }))?;
    } else if chosen.is_empty() {
        eprintln!("folkmoot: the password of {user} is set; other sessions have ended");
    } else {
        output::line(chosen)?;
    }
    Ok(())
}

/// At most two lines of standard input.
fn lines() -> Outcome<Vec<String>> {
    let lines = std::io::stdin().lock().lines().take(2).collect::<Result<Vec<_>, _>>();
    lines.map_err(|error| Failure::failed(format!("cannot read the password: {error}")))
}

fn ask_twice() -> Outcome<String> {
    let password = ask("New password: ")?;
    if ask("Again: ")? != password {
        return Err(Failure::failed("these differ; nothing was changed"));
    }
    Ok(password)
}

fn ask(prompt: &str) -> Outcome<String> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "there is no terminal to ask for a password: use --stdin".into(),
        ));
    }
    rpassword::prompt_password(prompt)
        .map_err(|error| Failure::failed(format!("cannot read the password: {error}")))
}
