//! A power cut: what a node has not synced is gone.
//!
//! The file system is told to shut down without writing its journal, and mounted again. `kill -9`
//! alone never loses a write, as the page cache lives on.
//!
//! The order matters. A real cut ends the process with the disk. The ioctl alone would not: an
//! `fdatasync` that waits for a commit which is then aborted answers that all is well, so a node
//! could still acknowledge what is lost. So the process is stopped first: what is in the kernel
//! stays there, half written as it is, and comes back to nobody.

use std::fmt;
use std::fs::{self, File};
use std::path::PathBuf;

use rustix::process::Signal;

use crate::fault::disk::{Disk, Scratch};
use crate::fault::plan::{Held, Step};
use crate::fault::signal::{Gone, Send, Still};
use crate::fault::{FaultError, Missing, Plan, Target};

/// Cuts the power of these nodes at once, and turns it on again. Whoever started the nodes starts
/// them again.
///
/// # Errors
///
/// When a node's data is not on a file system of its own.
pub fn cut(targets: &[&Target]) -> Result<Plan, FaultError> {
    let mut disks = vec![];
    for target in targets {
        let disk = Disk::of(target)?;
        disk.must_shut_down()?;
        disks.push(disk);
    }
    let mut plan = Plan::new("powercut", targets);
    let signal = |signal| move |target: &&Target| Send::new(target, signal);
    plan = targets.iter().map(signal(Signal::STOP)).fold(plan, Plan::inject_by);
    plan = targets.iter().map(|target| Still::of(target)).fold(plan, Plan::inject_by);
    plan = disks.iter().map(Shutdown::of).fold(plan, Plan::inject_by);
    plan = targets.iter().map(signal(Signal::KILL)).fold(plan, Plan::inject_by);
    plan = targets.iter().map(|target| Gone::of(target)).fold(plan, Plan::inject_by);
    for disk in &disks {
        plan = plan.inject_by(disk.unmount()).inject_by(disk.mount());
    }
    Ok(plan)
}

/// Cuts the power of a disk of its own: a file that was not synced must be gone.
///
/// # Errors
///
/// What is missing.
pub fn probe() -> Result<(), Missing> {
    Scratch::probe("power", |disk| {
        let io = || FaultError::io("a file on a scratch disk");
        let [synced, not] = ["synced", "not"].map(|name| disk.mount.join(name));
        fs::write(&synced, "x").map_err(io())?;
        File::open(&synced).and_then(|file| file.sync_all()).map_err(io())?;
        File::open(&disk.mount).and_then(|file| file.sync_all()).map_err(io())?;
        fs::write(&not, "x").map_err(io())?;
        Shutdown::of(disk).run(&mut Held::default())?;
        disk.unmount().output()?;
        disk.mount().output()?;
        match (synced.exists(), not.exists()) {
            (true, false) => Ok(()),
            found => {
                let said = format!("synced and not synced files exist after a cut: {found:?}");
                Err(FaultError::Tool { command: "EXT4_IOC_SHUTDOWN".into(), said })
            }
        }
    })
}

/// Turns a file system off: from here on every call on it fails.
#[derive(Debug)]
pub(super) struct Shutdown(PathBuf);

impl Shutdown {
    pub(super) fn of(disk: &Disk) -> Shutdown {
        Shutdown(disk.mount.clone())
    }
}

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mount = self.0.display();
        write!(f, "# ioctl({mount}, EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH): power off")
    }
}

impl Step for Shutdown {
    fn run(&self, _: &mut Held) -> Result<(), FaultError> {
        let what = format!("{}: EXT4_IOC_SHUTDOWN", self.0.display());
        let root = File::open(&self.0).map_err(FaultError::io(&*what))?;
        shut_down(&root).map_err(|error| FaultError::io(what)(error.into()))
    }
}

#[expect(unsafe_code, reason = "an ioctl that no library has")]
fn shut_down(root: &File) -> rustix::io::Result<()> {
    const SHUTDOWN: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);
    const NO_LOG_FLUSH: u32 = 2;
    // SAFETY: the opcode takes a pointer to a u32 which it only reads.
    unsafe {
        let ioctl = rustix::ioctl::Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH);
        rustix::ioctl::ioctl(root, ioctl)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_ioctl_has_its_number() {
        assert_eq!(rustix::ioctl::opcode::read::<u32>(b'X', 125), 0x8004_587d);
    }
}
