//! What the tests against real binaries share: a cluster, an HTTP client, a load.
//!
//! Waiting is always for a condition, with a deadline. A failing test prints the end of each
//! node's log.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub mod browser;
pub mod cluster;
pub mod follower;
pub mod http;
pub mod lines;
pub mod load;
pub mod orders;
pub mod proxy;
pub mod sse;
pub mod verified;
pub mod ws;

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::Signal;

/// Says something past the test harness, which hides what a test prints unless it fails: what was
/// measured, and what was skipped and why.
#[allow(unused_macros, reason = "each test file uses its own part")]
macro_rules! say {
    ($($argument:tt)*) => { $crate::common::say_line(&format!($($argument)*)) };
}
#[allow(unused_imports, reason = "each test file uses its own part")]
pub(crate) use say;

/// For [`say!`].
pub fn say_line(line: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    std::io::stderr().write_all(format!("{test}: {line}\n").as_bytes()).unwrap();
}

/// Arguments of `serve` for these settings, each `name=value`.
pub fn settings(settings: &[&str]) -> Vec<String> {
    settings.iter().flat_map(|setting| ["--set".to_owned(), (*setting).to_owned()]).collect()
}

/// Tries until `attempt` succeeds.
///
/// # Panics
/// When it has not within `deadline`, with the last reason.
pub fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut attempt: impl FnMut() -> Result<T, String>,
) -> T {
    let begin = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(reason) if begin.elapsed() > deadline => {
                panic!("waited {deadline:?} for {what}: {reason}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Whether a process has a handler for a signal: proc_pid_status(5), SigCgt.
pub fn catches(pid: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    caught >> (signal.as_raw() - 1) & 1 == 1
}

/// A fresh request id.
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
