//! `folkmoot serve`: run a node until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::cli::failure::{Failure, Outcome};
use crate::cli::signal;
use crate::config::{Config, Log, LogFormat};
use crate::node::systemd::Supervisor;

/// Options of `serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot serve --config /etc/folkmoot/node.toml\n  \
    folkmoot serve --data-dir /var/lib/folkmoot --set log.format=json\n\n\
    Settings come from the file, then from FOLKMOOT_<SECTION>_<FIELD> in the environment, then from\n\
    flags. `folkmoot config print` lists them all.\n\n\
    SIGTERM and Ctrl-C drain the node, then stop it; a second one stops it at once. SIGHUP reads the\n\
    file again, and puts in force what may change while the node runs.")]
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
    /// What lets a new node join a cluster that has been formed: see `folkmoot node token`.
    #[arg(long, value_name = "TOKEN")]
    join_token: Option<String>,
    /// Serve clients only, without replicas of any shard.
    #[arg(long)]
    gateway: bool,
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
    /// Those of a command that looks at a data directory offline.
    pub(super) fn of_directory(config: Option<PathBuf>, data_dir: Option<PathBuf>) -> Settings {
        Settings {
            config,
            data_dir,
            client_listen: None,
            peer_listen: None,
            client_advertise: None,
            peer_advertise: None,
            join: Vec::new(),
            join_token: None,
            gateway: false,
            set: Vec::new(),
        }
    }

    /// The configuration that results.
    pub(super) fn load(&self) -> Outcome<Config> {
        let flags = [
            ("data_dir", self.data_dir.as_ref().map(|dir| dir.display().to_string())),
            ("client_listen", self.client_listen.map(|address| address.to_string())),
            ("peer_listen", self.peer_listen.map(|address| address.to_string())),
            ("client_advertise", self.client_advertise.clone()),
            ("peer_advertise", self.peer_advertise.clone()),
            ("join", (!self.join.is_empty()).then(|| self.join.join(","))),
            ("join_token", self.join_token.clone()),
            ("gateway", self.gateway.then(|| "true".into())),
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
    let log_filter = start_log(&config.log)?;
    let supervisor =
        Supervisor::from_environment(|name| std::env::var_os(name), std::process::id());
    let (shutdown, at_once) = (CancellationToken::new(), CancellationToken::new());
    let stopper =
        stop_on(signal::Stop::catch()?, args.until_stdin_closes, shutdown.clone(), at_once.clone());
    let stopper = tokio::spawn(stopper);
    let (reloaded, configs) = watch::channel(config);
    let reloader = reload_on(signal::Reload::catch()?, args.settings, log_filter, reloaded);
    let reloader = tokio::spawn(reloader);
    let outcome = tokio::select! {
        outcome = crate::node::run(configs, shutdown, supervisor) => {
            outcome.map_err(|error| Failure::failed(error.to_string()))
        }
        () = at_once.cancelled() => Err(Failure::failed("stopped at once, as asked twice")),
    };
    stopper.abort();
    reloader.abort();
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

/// Reads the configuration again at each SIGHUP, and puts in force what may change. One that cannot
/// be used changes nothing.
async fn reload_on(
    mut signal: signal::Reload,
    settings: Settings,
    log_filter: LogFilter,
    configs: watch::Sender<Config>,
) {
    loop {
        signal.asked().await;
        let newer = match settings.load() {
            Ok(newer) => newer,
            Err(failure) => {
                error!(%failure, "the configuration stays as it was: what was to be reloaded is bad");
                continue;
            }
        };
        let reload = configs.borrow().reload(&newer);
        if reload.changed.iter().any(|name| name == "log.filter")
            && let Err(why) = log_filter(&reload.config.log.filter)
        {
            error!(why, "the configuration stays as it was: the log's filter cannot be changed");
            continue;
        }
        for setting in &reload.needs_restart {
            warn!(setting, "changed in the configuration; takes effect at the next restart");
        }
        configs.send_replace(reload.config);
        info!(changed = reload.changed.join(" "), "configuration reloaded");
    }
}

/// Puts another filter in force.
type LogFilter = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

fn start_log(log: &Log) -> Outcome<LogFilter> {
    let parse = |filter: &str| {
        tracing_subscriber::EnvFilter::try_new(filter).map_err(|error| error.to_string())
    };
    let filter = parse(&log.filter).map_err(|why| Failure::failed(format!("log.filter: {why}")))?;
    // Where nobody reads the log, nothing is to be said of that either: `eprintln!` would panic.
    let log_to = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    // The handles differ in type.
    Ok(match log.format {
        LogFormat::Text => {
            let log_to = log_to.with_ansi(false).with_filter_reloading();
            let handle = log_to.reload_handle();
            log_to.init();
            Box::new(move |filter| handle.reload(parse(filter)?).map_err(|e| e.to_string()))
        }
        LogFormat::Json => {
            let log_to = log_to.json().with_filter_reloading();
            let handle = log_to.reload_handle();
            log_to.init();
            Box::new(move |filter| handle.reload(parse(filter)?).map_err(|e| e.to_string()))
        }
    })
}
