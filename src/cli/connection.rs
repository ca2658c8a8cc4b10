//! The options of every command that talks to a cluster.

use std::time::Duration;

use crate::cli::credentials;
use crate::cli::failure::{Failure, Outcome};
use crate::client::{Client, ClientOptions};

/// Where the cluster is and who asks.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Connection {
    /// A node's client address, http://host:port; give several, and the next one is asked when one
    /// fails.
    #[arg(
        long,
        env = "FOLKMOOT_SERVER",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7400"
    )]
    pub server: Vec<String>,
    /// The token to sign in with; that of `folkmoot login` when there is none.
    #[arg(long, env = "FOLKMOOT_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Write JSON for programs.
    #[arg(long)]
    pub json: bool,
    /// How long to keep trying.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
}

impl Connection {
    /// The token: the one given, or that of who has logged in at these servers.
    pub(super) fn token(&self) -> Outcome<Option<String>> {
        match &self.token {
            Some(token) => Ok(Some(token.clone())),
            None => credentials::token(&self.server),
        }
    }

    /// A client with these options.
    pub(super) fn client(&self) -> Outcome<Client> {
        self.client_with(self.token()?)
    }

    /// A client of nobody.
    pub(super) fn client_without_token(&self) -> Outcome<Client> {
        self.client_with(None)
    }

    fn client_with(&self, token: Option<String>) -> Outcome<Client> {
        let defaults = ClientOptions::default();
        let options = ClientOptions {
            servers: self.server.clone(),
            token,
            deadline: self.timeout,
            attempt_timeout: defaults.attempt_timeout.min(self.timeout), // the deadline is no less
            ..defaults
        };
        Client::connect(options).map_err(|error| Failure::Usage(error.message))
    }
}

/// Parses a room id, for arguments.
pub(super) fn room(text: &str) -> Result<crate::id::RoomId, crate::id::InvalidId> {
    crate::id::RoomId::parse(text)
}

/// Parses a user id, for arguments.
pub(super) fn user(text: &str) -> Result<crate::id::UserId, crate::id::InvalidId> {
    crate::id::UserId::parse(text)
}

/// Parses a cursor, for arguments.
pub(super) fn cursor(text: &str) -> Result<crate::id::Cursor, crate::id::InvalidId> {
    crate::id::Cursor::parse(text)
}
