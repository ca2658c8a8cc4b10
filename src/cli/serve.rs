//! `folkmoot serve`: run a node until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::signal;
use crate::config::{Config, Log, LogFormat};

/// Options of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot serve --config /etc/folkmoot/node.toml\n  \
    folkmoot serve --data-dir /var/lib/folkmoot --set log.format=json\n\n\
    Settings come from the file, then from FOLKMOOT_<SECTION>_<FIELD> in the environment, then from\n\
    flags. `folkmoot config print` lists them all.")]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Stop when standard input closes, so that no node outlives the program that started it.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// Where settings come from.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// The configuration file.
    #[arg(long, env = "FOLKMOOT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for everything that the node keeps.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Address for clients.
    #[arg(long, value_name = "IP:PORT")]
    client_listen: Option<SocketAddr>,
    /// Address for the other nodes.
    #[arg(long, value_name = "IP:PORT")]
    peer_listen: Option<SocketAddr>,
    /// host:port at which clients reach this node.
    #[arg(long, value_name = "HOST:PORT")]
    client_advertise: Option<String>,
    /// host:port at which the other nodes reach this one.
    #[arg(long, value_name = "HOST:PORT")]
    peer_advertise: Option<String>,
    /// Peer addresses of nodes to join.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    join: Vec<String>,
    /// Any setting, by its name.
    #[arg(long, value_name = "SECTION.FIELD=VALUE", value_parser = assignment)]
    set: Vec<(String, String, String)>,
}

fn assignment(text: &str) -> Result<(String, String, String), String> {
    let parts = text.split_once('=').and_then(|(name, value)| {
        let (section, field) = name.split_once('.')?;
        Some((section.to_string(), field.to_string(), value.to_string()))
    });
    parts.ok_or_else(|| "use section.field=value, like log.format=json".into())
}

impl Settings {
    /// The configuration that results.
    pub(super) fn load(&self) -> Outcome<Config> {
        let flags = [
            ("data_dir", self.data_dir.as_ref().map(|dir| dir.display().to_string())),
            ("client_listen", self.client_listen.map(|address| address.to_string())),
            ("peer_listen", self.peer_listen.map(|address| address.to_string())),
            ("client_advertise", self.client_advertise.clone()),
            ("peer_advertise", self.peer_advertise.clone()),
            ("join", (!self.join.is_empty()).then(|| self.join.join(","))),
        ];
        let flags = flags.into_iter().filter_map(|(field, text)| Some(("node", field, text?)));
        let set =
            self.set.iter().map(|(section, field, text)| (&**section, &**field, text.clone()));
        let overrides: Vec<_> = flags.chain(set).collect();
        // Variables that are not UTF-8 cannot be ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)));
        Config::load(self.config.as_deref(), environment, &overrides)
            .map_err(|invalid| Failure::failed(format!("bad configuration\n{invalid}")))
    }
}

/// Runs the command.
pub(super) async fn run(args: Args) -> Outcome {
    let config = args.settings.load()?;
    start_log(&config.log)?;
    let (shutdown, at_once) = (CancellationToken::new(), CancellationToken::new());
    let stopper =
        stop_on(signal::Stop::catch()?, args.until_stdin_closes, shutdown.clone(), at_once.clone());
    let stopper = tokio::spawn(stopper);
    let outcome = tokio::select! {
        outcome = crate::node::run(config, shutdown) => {
            outcome.map_err(|error| Failure::failed(error.to_string()))
        }
        () = at_once.cancelled() => Err(Failure::failed("stopped at once, as asked twice")),
    };
    stopper.abort();
    outcome
}

/// Asks for a graceful stop at the first signal, and for an immediate one at the second.
async fn stop_on(
    mut stop: signal::Stop,
    until_stdin_closes: bool,
    shutdown: CancellationToken,
    at_once: CancellationToken,
) {
    let stdin_closes = async {
        if !until_stdin_closes {
            std::future::pending::<()>().await;
        }
        let mut buffer = [0; 64];
        while let Ok(1..) = tokio::io::stdin().read(&mut buffer).await {}
    };
    tokio::select! {
        () = stop.asked() => {}
        () = stdin_closes => {}
    }
    shutdown.cancel();
    info!("stopping");
    stop.asked().await;
    at_once.cancel();
}

fn start_log(log: &Log) -> Outcome {
    let filter = tracing_subscriber::EnvFilter::try_new(&log.filter)
        .map_err(|error| Failure::failed(format!("log.filter: {error}")))?;
    // Where nobody reads the log, nothing is to be said of that either: `eprintln!` would panic.
    let log_to = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    match log.format {
        LogFormat::Text => log_to.with_ansi(false).init(),
        LogFormat::Json => log_to.json().init(),
    }
    Ok(())
}
