//! A disk that stalls: whoever writes waits, until it is thawed.
//!
//! A process of its own thaws it after a while, whatever becomes of this one: a frozen file system
//! cannot be unmounted, and who writes to it cannot be killed.

use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::fault::disk::{Disk, Scratch};
use crate::fault::plan::{Held, Step};
use crate::fault::tool::Tool;
use crate::fault::{FaultError, Missing, Plan, Target};

/// What thawing a file system says that is not frozen.
const NOT_FROZEN: &str = "Invalid argument";

/// Freezes a node's disk, for `at_most` so long.
///
/// # Errors
///
/// When the node's data is not on a file system of its own.
pub fn stall(target: &Target, at_most: Duration) -> Result<Plan, FaultError> {
    let disk = Disk::of(target)?;
    let guard = Guard { mount: disk.mount.clone(), after: at_most };
    Ok(Plan::new("diskstall", &[target])
        .inject_by(guard)
        .inject_by(Tool::new("fsfreeze", ["-f".as_ref(), disk.mount.as_os_str()]))
        .heal_by(thaw(&disk))
        .while_we_run())
}

/// Thaws a node's disk, whoever froze it.
///
/// # Errors
///
/// When the node's data is not on a file system of its own.
pub fn release(target: &Target) -> Result<Plan, FaultError> {
    Ok(Plan::new("diskstall", &[target]).inject_by(thaw(&Disk::of(target)?)))
}

fn thaw(disk: &Disk) -> Tool {
    Tool::new("fsfreeze", ["-u".as_ref(), disk.mount.as_os_str()]).allow(NOT_FROZEN)
}

/// Freezes a disk of its own, and has the guard thaw it.
///
/// # Errors
///
/// What is missing.
pub fn probe() -> Result<(), Missing> {
    Scratch::probe("stall", |disk| {
        let mut held = Held::default();
        Guard { mount: disk.mount.clone(), after: Duration::from_millis(200) }.run(&mut held)?;
        Tool::new("fsfreeze", ["-f".as_ref(), disk.mount.as_os_str()]).output()?;
        // It waits for the guard.
        let written = std::fs::write(disk.mount.join("file"), "x");
        thaw(disk).output()?;
        written.map_err(FaultError::io("a file on a scratch disk"))
    })
}

/// Thaws in the end.
#[derive(Debug)]
struct Guard {
    mount: PathBuf,
    after: Duration,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (after, mount) = (self.after.as_secs_f64(), self.mount.display());
        write!(f, "(sleep {after}; fsfreeze -u {mount}) & # whatever happens")
    }
}

impl Step for Guard {
    fn run(&self, held: &mut Held) -> Result<(), FaultError> {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep \"$1\"; exec fsfreeze -u \"$2\"", "guard"]);
        command.arg(self.after.as_secs_f64().to_string()).arg(&self.mount);
        // Neither ctrl-c nor a closed terminal ends it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        held.keep(Running(command.spawn().map_err(FaultError::io("sh"))?));
        Ok(())
    }
}

/// A guard that is not needed any more when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have done its work. What it sleeps in ends by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
