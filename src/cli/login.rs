//! `folkmoot login` and `folkmoot logout`: a session by a provider of OpenID Connect, kept for other
//! commands.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cli::connection::Connection;
use crate::cli::credentials::{self, Login as Kept};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::client::Client;
use crate::error::Code;
use crate::proto::v1 as pb;

/// So much longer is waited when the provider says that it is asked too often (RFC 8628, section 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// Options of `login`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot login --server https://chat.example.org\n  \
    folkmoot login --provider keycloak --json\n\nIt shows an address and a code: open the address in \
    any browser, and type the code.\nThe session is kept in ~/.config/folkmoot/credentials.json (or \
    $FOLKMOOT_CREDENTIALS), readable by you\nonly, and used by all commands with the same --server \
    and no --token. `folkmoot logout` ends it.\nWith a password: `folkmoot user login`.")]
pub(super) struct Login {
    /// By which provider; needed when there are several.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Options of `logout`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  folkmoot logout --server https://chat.example.org")]
pub(super) struct Logout {
    #[command(flatten)]
    connection: Connection,
}

/// Signs in, and keeps the session.
pub(super) async fn login(args: Login) -> Outcome {
    let connection = args.connection;
    let client = connection.client_without_token()?;
    let provider = choose(client.list_providers().await?, args.provider)?;
    let begun = client.begin_device_login(&provider).await?;
    if connection.json {
        output::line(json!({
            "provider": provider,
            "user_code": begun.user_code,
            "verification_uri": begun.verification_uri,
            "verification_uri_complete": begun.verification_uri_complete,
            "expires_in_ms": begun.expires_in_ms,
        }))?;
    } else {
        show(&begun);
    }
    let session = wait(&client, &provider, &begun).await?;
    let user = session.user.unwrap_or_default().user;
    let (servers, expires_at_ms) = (connection.server.clone(), session.expires_at_ms);
    let kept = credentials::keep(Kept {
        servers,
        user: user.clone(),
        token: session.token,
        expires_at_ms,
    })?;
    if connection.json {
        let expires_at = output::time(expires_at_ms);
        let file = kept.display().to_string();
        output::line(json!({ "user": user, "expires_at": expires_at, "credentials": file }))?;
    } else {
        eprintln!("folkmoot: you are {user}; the session is kept in {}", kept.display());
    }
    Ok(())
}

/// The provider that is meant.
fn choose(providers: Vec<pb::Provider>, wanted: Option<String>) -> Outcome<String> {
    let names: Vec<String> = providers.into_iter().map(|provider| provider.name).collect();
    match (names.as_slice(), wanted) {
        ([], _) => Err(Failure::failed(
            "this cluster has no provider of OpenID Connect: use `folkmoot user login`, or a token",
        )),
        (_, Some(wanted)) if names.contains(&wanted) => Ok(wanted),
        (_, Some(wanted)) => Err(Failure::Usage(format!(
            "there is no provider {wanted}; use {}",
            names.join(" or ")
        ))),
        ([only], None) => Ok(only.clone()),
        (_, None) => Err(Failure::Usage(format!("say which --provider: {}", names.join(" or ")))),
    }
}

fn show(begun: &pb::BeginDeviceLoginResponse) {
    let printable = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
    let (uri, code) = (printable(&begun.verification_uri), printable(&begun.user_code));
    eprintln!(
        "To sign in, open this address in a browser:\n\n    {uri}\n\nand type this code:\n\n    {code}\n"
    );
    let complete = printable(&begun.verification_uri_complete);
    if !complete.is_empty() {
        eprintln!("Or open this one, and see that it shows the same code:\n\n    {complete}\n");
    }
}

/// Waits until somebody has signed in.
async fn wait(
    client: &Client,
    provider: &str,
    begun: &pb::BeginDeviceLoginResponse,
) -> Outcome<pb::LoginResponse> {
    let end = Instant::now() + Duration::from_millis(begun.expires_in_ms);
    let mut pause = Duration::from_millis(begun.interval_ms);
    while Instant::now() < end {
        tokio::time::sleep(pause).await;
        match client.poll_device_login(provider, &begun.handle).await {
            Ok(pb::PollDeviceLoginResponse { login: Some(session), .. }) => return Ok(session),
            Ok(pb::PollDeviceLoginResponse { slow_down: true, .. }) => pause += SLOW_DOWN,
            Ok(_) => {}
            // Nobody has been waited for in vain: the provider, or the node, may be back in time.
            Err(error) if error.temporary() => pause += SLOW_DOWN,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::failed("nobody has signed in with this code, and it is not good any more"))
}

/// Ends the session, and forgets it.
pub(super) async fn logout(args: Logout) -> Outcome {
    let connection = args.connection;
    let Some(kept) = credentials::login(&connection.server)? else {
        return Err(Failure::failed(format!(
            "there is no session at {}: see `folkmoot login`",
            connection.server.join(",")
        )));
    };
    let client = connection.client_without_token()?.with_token(&kept.token)?;
    match client.logout().await {
        // It has ended already.
        Err(error) if error.code == Code::Unauthenticated => {}
        ended => ended?,
    }
    credentials::forget(&connection.server)?;
    match connection.json {
        true => output::line(json!({ "user": kept.user }))?,
        false => eprintln!("folkmoot: the session of {} has ended", kept.user),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_named_where_there_are_several() {
        let provider = |name: &&str| pb::Provider { name: (*name).into(), title: String::new() };
        let choose = |names: &[&str], wanted: Option<&str>| {
            super::choose(names.iter().map(provider).collect(), wanted.map(String::from)).ok()
        };
        assert_eq!(choose(&["a"], None).as_deref(), Some("a"));
        assert_eq!(choose(&["a", "b"], Some("b")).as_deref(), Some("b"));
        for (names, wanted) in [(&[][..], None), (&["a", "b"], None), (&["a"], Some("b"))] {
            assert_eq!(choose(names, wanted), None, "{names:?}");
        }
    }
}
