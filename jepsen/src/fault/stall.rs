//! A disk that stalls: whoever writes waits, until it is thawed.
//!
//! A process of its own thaws it after a while, whatever becomes of this one: a frozen file system
//! cannot be unmounted, and who writes to it cannot be killed.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
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
    let freeze = Freeze { mount: disk.mount.clone(), at_most };
    Ok(Plan::new("diskstall", &[target]).inject_by(freeze).heal_by(thaw(&disk)).while_we_run())
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

/// Freezes a disk of its own, which thaws by itself.
///
/// # Errors
///
/// What is missing.
pub fn probe() -> Result<(), Missing> {
    Scratch::probe("stall", |disk| {
        let mut held = Held::default();
        Freeze { mount: disk.mount.clone(), at_most: Duration::from_millis(200) }.run(&mut held)?;
        // It waits until it is thawed.
        let written = std::fs::write(disk.mount.join("file"), "x");
        thaw(disk).output()?;
        written.map_err(FaultError::io("a file on a scratch disk"))
    })
}

/// Freezes, and thaws in the end. One process does both: nothing is thawed before it is frozen.
#[derive(Debug)]
struct Freeze {
    mount: PathBuf,
    at_most: Duration,
}

/// Says when it is frozen; whether anybody hears it makes no difference.
const FREEZE: &str = r#"
trap '' PIPE
fsfreeze -f "$2" || exit
echo frozen
sleep "$1"
exec fsfreeze -u "$2"
"#;

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at_most, mount) = (self.at_most.as_secs_f64(), self.mount.display());
        write!(f, "(fsfreeze -f {mount}; sleep {at_most}; fsfreeze -u {mount}) &")
    }
}

impl Step for Freeze {
    fn run(&self, held: &mut Held) -> Result<(), FaultError> {
        // A shell would not say as clearly that it is missing.
        Tool::new("fsfreeze", ["--version"]).output()?;
        let mut command = Command::new("sh");
        command.args(["-c", FREEZE, "freeze"]);
        command.arg(self.at_most.as_secs_f64().to_string()).arg(&self.mount);
        // Neither ctrl-c nor a closed terminal ends it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running(command.spawn().map_err(FaultError::io("sh"))?);
        let mut first = String::new();
        let said = running.0.stdout.take().map(BufReader::new);
        said.map(|mut said| said.read_line(&mut first))
            .transpose()
            .map_err(FaultError::io("sh"))?;
        if first.is_empty() {
            let mut said = String::new();
            if let Some(mut stderr) = running.0.stderr.take() {
                stderr.read_to_string(&mut said).map_err(FaultError::io("sh"))?;
            }
            return Err(FaultError::Tool { command: self.to_string(), said: said.trim().into() });
        }
        held.keep(running);
        Ok(())
    }
}

/// What is not needed any more when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have done its work. What it sleeps in ends by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
