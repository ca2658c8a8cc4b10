//! A process that was started here, told apart from a later one with the same number.

use std::fs;
use std::io;

use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

/// A process by its number and when it started: numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its number.
    pub pid: u32,
    /// Clock ticks between the machine's start and its own: field 22 of `/proc/PID/stat`.
    pub start_time: u64,
}

impl Running {
    /// The process that has this number now.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn of(pid: u32) -> io::Result<Running> {
        Ok(Running { pid, start_time: stat(pid)?.1 })
    }

    /// This very process.
    ///
    /// # Errors
    ///
    /// When `/proc` is not there.
    pub fn this() -> io::Result<Running> {
        Running::of(std::process::id())
    }

    /// Whether it runs. One that has ended and was not waited for does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_ok_and(|(state, start)| start == self.start_time && state != 'Z')
    }

    /// Sends a signal; whether it was there to get it.
    pub fn signal(&self, signal: Signal) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        match pid {
            Some(pid) if self.is_alive() => rustix::process::kill_process(pid, signal).is_ok(),
            _ => false,
        }
    }
}

/// A process's state and start time.
fn stat(pid: u32) -> io::Result<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything.
    let fields = text.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect::<Vec<_>>());
    let parsed = fields
        .and_then(|fields| Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?)));
    parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an odd /proc/PID/stat"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let this = Running::this().unwrap();
        assert!(this.is_alive());
        let other = Running { start_time: this.start_time + 1, ..this };
        assert!(!other.is_alive());
        assert!(!other.signal(Signal::KILL), "it would have killed the test");
    }

    #[test]
    fn a_process_that_ended_is_not_alive_even_before_it_is_waited_for() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let running = Running::of(child.id()).unwrap();
        let ended =
            crate::cluster::made::wait(std::time::Duration::from_secs(10), || !running.is_alive());
        assert!(ended);
        child.wait().unwrap();
        assert!(!running.is_alive());
    }
}
