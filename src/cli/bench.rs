//! x
use crate::cli::failure::Outcome;
#[derive(Debug, clap::Args)]
pub(super) struct Args {}
pub(super) async fn run(_args: Args) -> Outcome {
    Ok(())
}
