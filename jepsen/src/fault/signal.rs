//! Kill, pause and resume: signals to a node's process.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::fault::plan::{Held, Step};
use crate::fault::target::stat;
use crate::fault::tool::await_that;
use crate::fault::{FaultError, Missing, Plan, Target};

/// How long a process may take to stop or to end; one that writes to a slow disk takes its time.
const WITHIN: Duration = Duration::from_secs(20);

/// Kills a node: what it had not synced is in the page cache still, and the disk has it in the end.
pub fn kill(target: &Target) -> Plan {
    Plan::new("kill", &[target])
        .inject_by(Send::new(target, Signal::KILL))
        .inject_by(Gone::of(target))
}

/// Pauses a node: its connections stay open, and nobody answers.
pub fn pause(target: &Target) -> Plan {
    Plan::new("pause", &[target])
        .inject_by(Send::new(target, Signal::STOP))
        .inject_by(Still::of(target))
        .heal_by(Send::new(target, Signal::CONT))
}

/// Lets a paused node go on.
pub fn resume(target: &Target) -> Plan {
    Plan::new("resume", &[target]).inject_by(Send::new(target, Signal::CONT))
}

/// Tries the signals on a process of its own.
///
/// # Errors
///
/// What is missing.
pub fn probe() -> Result<(), Missing> {
    let failed = |why: String| Missing::new(why, "Linux 5.3 or later with /proc is needed");
    let mut child = Command::new("sleep")
        .arg("10")
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| failed(format!("sleep: {error}")))?;
    let tried = (|| {
        let path = format!("/proc/{}/stat", child.id());
        let (_, start_time) = stat(path.as_ref()).map_err(FaultError::io(path.clone()))?;
        let send = |signal| Send { name: "probe".into(), pid: child.id(), start_time, signal };
        send(Signal::STOP).run(&mut Held::default())?;
        await_that("a pause", WITHIN, || stat(path.as_ref()).is_ok_and(|(state, _)| state == 'T'))?;
        send(Signal::CONT).run(&mut Held::default())?;
        send(Signal::KILL).run(&mut Held::default())
    })();
    // It may have been killed just now.
    let _ = child.kill();
    let _ = child.wait();
    tried.map_err(|error: FaultError| failed(error.to_string()))
}

/// A signal to one certain process.
#[derive(Debug)]
pub(super) struct Send {
    name: String,
    pid: u32,
    start_time: u64,
    signal: Signal,
}

impl Send {
    pub(super) fn new(target: &Target, signal: Signal) -> Send {
        let (pid, start_time) = (target.pid, target.start_time);
        Send { name: target.name.clone(), pid, start_time, signal }
    }
}

impl fmt::Display for Send {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signal = match self.signal {
            Signal::KILL => "KILL",
            Signal::STOP => "STOP",
            _ => "CONT",
        };
        write!(f, "kill -{signal} {} # {}", self.pid, self.name)
    }
}

impl Step for Send {
    /// The number is looked up once, and what was found is what gets the signal. Who has ended
    /// meanwhile gets none.
    fn run(&self, _: &mut Held) -> Result<(), FaultError> {
        let what = || format!("a signal to {} (process {})", self.name, self.pid);
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| FaultError::Refused(format!("no process {}", self.pid)))?;
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            other => other.map_err(|error| FaultError::io(what())(error.into()))?,
        };
        let start = stat(format!("/proc/{}/stat", self.pid).as_ref()).map(|(_, start)| start);
        if start.is_ok_and(|start| start == self.start_time) {
            let sent = pidfd_send_signal(process, self.signal);
            match sent {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(FaultError::io(what())(error.into())),
            }
        }
        Ok(())
    }
}

/// Waits until a process has ended.
#[derive(Debug)]
pub(super) struct Gone(Target);

impl Gone {
    pub(super) fn of(target: &Target) -> Gone {
        Gone(target.clone())
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# wait until process {} has ended", self.0.pid)
    }
}

impl Step for Gone {
    fn run(&self, _: &mut Held) -> Result<(), FaultError> {
        await_that(&format!("the end of process {}", self.0.pid), WITHIN, || self.0.is_gone())
    }
}

/// Waits until no thread of a stopped process does anything: what waits for the disk may be in the
/// kernel still, but comes back to nobody.
#[derive(Debug)]
pub(super) struct Still(Target);

impl Still {
    pub(super) fn of(target: &Target) -> Still {
        Still(target.clone())
    }

    fn is_so(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.0.pid)) else {
            return true;
        };
        threads.flatten().all(|thread| {
            // A thread that has ended meanwhile does nothing.
            stat(&thread.path().join("stat")).map_or(true, |(state, _)| "TtDZX".contains(state))
        })
    }
}

impl fmt::Display for Still {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "# wait until process {} has stopped", self.0.pid)
    }
}

impl Step for Still {
    /// A process that does not come to a stop is let go on.
    fn run(&self, held: &mut Held) -> Result<(), FaultError> {
        let what = format!("process {} to stop", self.0.pid);
        await_that(&what, WITHIN, || self.is_so()).inspect_err(|_| {
            // The first error is the one to tell.
            let _ = Send::new(&self.0, Signal::CONT).run(held);
        })
    }
}
