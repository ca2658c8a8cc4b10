//! A failed fsync: `fsync` and `fdatasync` of a node answer EIO. strace attaches to the process and
//! lets go when the fault is healed; the node should have stopped by then.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::fault::plan::{Held, Step};
use crate::fault::tool::{self, await_that};
use crate::fault::{FaultError, Missing, Plan, Target};

/// How long strace may take to attach.
const WITHIN: Duration = Duration::from_secs(20);

/// Lets each fsync of a node fail, from the `nth` on, for `at_most` so long.
pub fn fail(target: &Target, nth: u32, at_most: Duration) -> Plan {
    let strace = Strace { pid: target.pid, nth: nth.max(1), at_most };
    Plan::new("fsyncfail", &[target]).inject_by(strace).while_we_run()
}

/// Lets the fsync of a process of its own fail.
///
/// # Errors
///
/// What is missing.
pub fn probe() -> Result<(), Missing> {
    tool::root()?;
    let how = "this process must be allowed to trace others (root, CAP_SYS_PTRACE, and \
               /proc/sys/kernel/yama/ptrace_scope below 3)";
    let failed = |why: String| Missing::new(why, how);
    let file = std::env::temp_dir().join(format!("folkmoot-probe-{}-fsync", std::process::id()));
    // It waits for a line, by which time strace has attached.
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo x >\"$1\" && read line && exec sync -d \"$1\"", "probe"]).arg(&file);
    let child = shell.stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(|error| failed(format!("sh: {error}")))?;
    let strace = Strace { pid: child.id(), nth: 1, at_most: WITHIN };
    let mut held = Held::default();
    let attached = strace.run(&mut held);
    drop(child.stdin.take().map(|mut stdin| std::io::Write::write_all(&mut stdin, b"go\n")));
    let status = child.wait();
    // It was made a moment ago, or could not be.
    let _ = fs::remove_file(&file);
    match (attached, status) {
        (Err(FaultError::Missing(missing)), _) => Err(missing),
        (Err(error), _) => Err(failed(error.to_string())),
        (Ok(()), Ok(status)) if !status.success() => Ok(()),
        _ => Err(failed("strace attached, and fsync did not fail".into())),
    }
}

#[derive(Debug)]
struct Strace {
    pid: u32,
    nth: u32,
    at_most: Duration,
}

impl Strace {
    fn arguments(&self) -> Vec<String> {
        let calls = "fsync,fdatasync";
        let inject = format!("inject={calls}:error=EIO:when={}+", self.nth);
        // A limit of its own, should nobody be left to end it.
        let limit = self.at_most.as_secs_f64().to_string();
        let words = ["-s", "TERM", &limit, "strace", "-f", "-qq", "-o", "/dev/null", "-e"];
        let words = words.into_iter().map(str::to_owned);
        let rest = [format!("trace={calls}"), "-e".into(), inject, "-p".into()];
        words.chain(rest).chain([self.pid.to_string()]).collect()
    }
}

impl fmt::Display for Strace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "timeout {} &", self.arguments().join(" "))
    }
}

impl Step for Strace {
    fn run(&self, held: &mut Held) -> Result<(), FaultError> {
        if !tool::is_there("strace") {
            return Err(tool::missing("strace").into());
        }
        let mut command = Command::new("timeout");
        command.args(self.arguments()).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::piped()).spawn().map_err(FaultError::io("timeout"))?;
        let mut tracer = Tracer(child);
        let attached = await_that("strace to attach", WITHIN, || {
            is_traced(self.pid) || tracer.0.try_wait().is_ok_and(|status| status.is_some())
        });
        if tracer.0.try_wait().is_ok_and(|status| status.is_some()) {
            let said = tracer.0.stderr.take().map(std::io::read_to_string);
            let said = said.and_then(Result::ok).unwrap_or_default().trim().to_owned();
            return Err(FaultError::Tool { command: self.to_string(), said });
        }
        held.keep(tracer);
        attached
    }
}

/// Whether each thread of a process is traced.
fn is_traced(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        let status = fs::read_to_string(Path::new(&thread.path()).join("status"));
        // A thread that has ended meanwhile does not count.
        status.map_or(true, |status| !status.contains("TracerPid:\t0\n"))
    })
}

/// strace lets go of what it traces when asked to end.
struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none())
            && let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
        {
            // Not waited for yet, so the number is still its own; `timeout` hands it on.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}
