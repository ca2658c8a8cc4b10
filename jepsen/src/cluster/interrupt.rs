//! Somebody interrupts a run: SIGINT, SIGTERM or SIGHUP, at any time from its first moment on. None
//! of them ends the process: whoever runs asks between steps, and takes away what was made.

use std::io;
use std::sync::mpsc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The bit of SIGHUP in the masks of `/proc/PID/status`.
const HANGUP_BIT: u64 = 1;

/// Whether somebody has interrupted. Clones know the same.
#[derive(Clone, Debug)]
pub struct Interrupt(watch::Receiver<Option<&'static str>>);

impl Interrupt {
    /// Takes signals from here on, for as long as the process lives: a second one while things are
    /// being taken away changes nothing. Under `nohup` SIGHUP stays ignored.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn listen() -> io::Result<Interrupt> {
        let (told, watching) = watch::channel(None);
        let (ready, begun) = mpsc::sync_channel(1);
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async move {
                match Signals::new() {
                    Err(error) => drop(ready.send(Err(error))),
                    Ok(mut signals) => {
                        drop(ready.send(Ok(())));
                        loop {
                            let name = signals.next().await;
                            told.send_if_modified(|known| {
                                let first = known.is_none();
                                known.get_or_insert(name);
                                first
                            });
                        }
                    }
                }
            });
        })?;
        begun.recv().map_err(io::Error::other)??;
        Ok(Interrupt(watching))
    }

    /// One that never comes.
    #[cfg(test)]
    pub(crate) fn never() -> Interrupt {
        Interrupt(watch::channel(None).1)
    }

    /// Goes on only when nobody has interrupted.
    ///
    /// # Errors
    ///
    /// Which signal it was.
    pub fn check(&self) -> Result<(), String> {
        match *self.0.borrow() {
            None => Ok(()),
            Some(signal) => Err(format!("interrupted by {signal}")),
        }
    }

    /// Waits until somebody interrupts; which signal it was.
    pub async fn wait(&self) -> &'static str {
        let mut watching = self.0.clone();
        match watching.wait_for(Option::is_some).await.map(|signal| *signal) {
            Ok(Some(signal)) => signal,
            _ => std::future::pending().await,
        }
    }
}

/// The signals that are taken.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        let hangup = match ignores_hangup() {
            true => None,
            false => Some(signal(SignalKind::hangup())?),
        };
        let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        Ok(Signals { interrupt: interrupt?, terminate: terminate?, hangup })
    }

    async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = hangup => "SIGHUP",
        }
    }
}

fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & HANGUP_BIT != 0)
}
