//! `folkmoot config`: check and print configurations.

use std::path::PathBuf;

use serde_json::json;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::{output, serve};
use crate::config::Config;

/// Configurations.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Say whether a configuration file is usable, and what to change if not.
    #[command(after_help = "Example:\n  folkmoot config check /etc/folkmoot/node.toml")]
    Check(Check),
    /// Print the configuration that `serve` would run with, each field with its description.
    #[command(after_help = "Examples:\n  folkmoot config print > node.toml\n  \
        folkmoot config print --config node.toml --set log.format=json\n  \
        folkmoot config print --json | jq .limits")]
    Print(Box<Print>),
}

/// Options of `config check`.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The file.
    file: PathBuf,
    /// Write JSON for programs.
    #[arg(long)]
    json: bool,
}

/// Options of `config print`.
#[derive(Debug, clap::Args)]
pub(super) struct Print {
    #[command(flatten)]
    settings: serve::Settings,
    /// Write JSON for programs, without the descriptions.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(command: Command) -> Outcome {
    match command {
        Command::Check(args) => {
            // The file alone: what this machine's environment says is not its fault.
            let loaded = Config::load(Some(&args.file), [], &[]);
            let problems = loaded.err().map(|invalid| invalid.problems).unwrap_or_default();
            if args.json {
                output::line(json!({ "ok": problems.is_empty(), "problems": problems }))?;
            }
            match (problems.is_empty(), args.json) {
                (true, true) => Ok(()),
                (true, false) => Ok(output::line(format!("{} is usable", args.file.display()))?),
                (false, true) => Err(Failure::failed("the configuration is not usable")),
                (false, false) => Err(Failure::failed(problems.join("\n"))),
            }
        }
        Command::Print(args) => {
            let config = args.settings.load()?;
            let text = config.to_toml();
            if args.json {
                let values: serde_json::Value = toml::from_str(&text)
                    .map_err(|error| Failure::failed(format!("cannot print it: {error}")))?;
                return Ok(output::line(values)?);
            }
            Ok(output::line(text.trim_end())?)
        }
    }
}
