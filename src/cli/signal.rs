//! Signals that ask the program to stop, or to read its configuration again.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::failure::{Failure, Outcome};

/// Ctrl-C and SIGTERM. Once there was one, neither ends the program by itself any more.
#[derive(Debug)]
pub(super) struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    /// Begins to catch them.
    pub(super) fn catch() -> Outcome<Stop> {
        let catch = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("cannot catch signals: {error}")))
        };
        let (interrupt, terminate) =
            (catch(SignalKind::interrupt())?, catch(SignalKind::terminate())?);
        Ok(Stop { interrupt, terminate })
    }

    /// Waits for the next one. Cancel safe.
    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Does something that may be interrupted; `stands` says what stands then, or that nothing does.
///
/// # Errors
/// [`Failure::Interrupted`] at Ctrl-C and SIGTERM.
pub(super) async fn unless_stopped<T>(
    doing: impl Future<Output = Outcome<T>>,
    stands: &str,
) -> Outcome<T> {
    let mut stop = Stop::catch()?;
    tokio::select! {
        outcome = doing => outcome,
        () = stop.asked() => Err(Failure::Interrupted(format!("interrupted; {stands}"))),
    }
}

/// SIGHUP, which asks a daemon to read its configuration again. While this exists, it does not end
/// the program.
#[derive(Debug)]
pub(super) struct Reload(Signal);

impl Reload {
    /// Begins to catch it.
    pub(super) fn catch() -> Outcome<Reload> {
        let caught = signal(SignalKind::hangup());
        caught
            .map(Reload)
            .map_err(|error| Failure::failed(format!("cannot catch signals: {error}")))
    }

    /// Waits for the next one. Cancel safe.
    pub(super) async fn asked(&mut self) {
        let _ = self.0.recv().await;
    }
}
