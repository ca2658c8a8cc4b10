//! Builds and joins every layer; the only file that knows all.

use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Why a node stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The layers are not joined yet.
    #[error("not linked yet")]
    NotLinked,
}

/// Runs a node until `shutdown` is cancelled.
///
/// # Errors
/// Why it could not start, or had to stop.
#[expect(clippy::unused_async, reason = "a placeholder")]
pub async fn run(_config: Config, _shutdown: CancellationToken) -> Result<(), Error> {
    Err(Error::NotLinked)
}
