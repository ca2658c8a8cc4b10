//! A line on the terminal while a run lasts: time left, operations a second, the present fault.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, interval};

use crate::run::workload::World;

/// How often a line is written where no terminal shows it.
const LOG_EVERY: u64 = 10;

/// The line.
#[derive(Debug)]
pub struct Progress {
    stop: Arc<AtomicBool>,
    quiet: bool,
}

impl Progress {
    /// Shows it from now on; the history reaches its file once a second, too.
    #[must_use]
    pub fn start(world: &Arc<World>, time: Duration, quiet: bool) -> Progress {
        let stop = Arc::new(AtomicBool::new(false));
        tokio::spawn(show(world.clone(), Instant::now() + time, quiet, stop.clone()));
        Progress { stop, quiet }
    }

    /// Says what comes after the attack.
    pub fn say(&self, what: &str) {
        self.end();
        if !self.quiet {
            eprintln!("{what}");
        }
    }

    /// Shows it no more.
    pub fn end(&self) {
        if !self.stop.swap(true, Ordering::Relaxed) && !self.quiet && is_terminal() {
            eprintln!();
        }
    }
}

fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

async fn show(world: Arc<World>, until: Instant, quiet: bool, stop: Arc<AtomicBool>) {
    let mut ticks = interval(Duration::from_secs(1));
    let mut before = world.recorder.ok_count();
    for second in 0_u64.. {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // An error stays with the recorder, and is reported at the end.
        let _ = world.recorder.flush();
        let count = world.recorder.ok_count();
        let rate = count - before;
        before = count;
        if quiet {
            continue;
        }
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        let faults = world.recorder.faults();
        let fault = if faults.is_empty() { "no fault".into() } else { faults.join(", ") };
        let line = format!("{left:4} s left  {rate:5} ok/s  {count:8} ok  {fault}");
        if is_terminal() {
            eprint!("\r{line:<78.78}");
            let _ = std::io::stderr().flush();
        } else if second % LOG_EVERY == 0 {
            eprintln!("{line}");
        }
    }
}
