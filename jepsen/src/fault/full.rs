//! A full disk: a file that takes up what is left, and goes when healed.

use std::fmt;
use std::fs::{self, File};
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;

use crate::fault::disk::{Disk, Scratch};
use crate::fault::plan::{Held, Step};
use crate::fault::{FaultError, Missing, Plan, Target};

/// The file that takes up space, at the root of the node's file system.
pub const HOG: &str = "folkmoot-fault-hog";

/// Fills a node's disk until so many bytes are left.
///
/// # Errors
///
/// When the node's data is not on a file system of its own.
pub fn fill(target: &Target, leave: u64) -> Result<Plan, FaultError> {
    let hog = Disk::of(target)?.mount.join(HOG);
    let plan = Plan::new("diskfull", &[target]).inject_by(Fill { hog: hog.clone(), leave });
    Ok(plan.heal_by(Free { hog }))
}

/// Frees what [`fill`] took, whoever did it.
///
/// # Errors
///
/// When the node's data is not on a file system of its own.
pub fn free(target: &Target) -> Result<Plan, FaultError> {
    let hog = Disk::of(target)?.mount.join(HOG);
    Ok(Plan::new("diskfull", &[target]).inject_by(Free { hog }))
}

/// Fills a disk of its own.
///
/// # Errors
///
/// What is missing.
pub fn probe() -> Result<(), Missing> {
    Scratch::probe("full", |disk| {
        let hog = disk.mount.join(HOG);
        Fill { hog: hog.clone(), leave: 0 }.run(&mut Held::default())?;
        if fs::write(disk.mount.join("more"), [1; 65536]).is_ok() {
            let said = "the disk took more".to_owned();
            return Err(FaultError::Tool { command: "fallocate".into(), said });
        }
        Free { hog }.run(&mut Held::default())
    })
}

#[derive(Debug)]
struct Fill {
    hog: PathBuf,
    leave: u64,
}

impl fmt::Display for Fill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hog, leave) = (self.hog.display(), self.leave);
        write!(f, "fallocate -l ALL {hog} # until {leave} bytes are left on that file system")
    }
}

impl Step for Fill {
    /// Big pieces first. What is reserved for root is taken as well.
    fn run(&self, _: &mut Held) -> Result<(), FaultError> {
        let io = || FaultError::io(self.hog.display().to_string());
        let opened = File::options().create(true).append(true).open(&self.hog);
        let file = match opened {
            // So full that there is no room for a name.
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            opened => opened.map_err(io())?,
        };
        let mut piece = u64::MAX;
        loop {
            let stat = fstatvfs(&file).map_err(|error| io()(error.into()))?;
            let left = stat.f_bfree * stat.f_frsize;
            let wanted = left.saturating_sub(self.leave);
            piece = piece.min(wanted) / stat.f_frsize * stat.f_frsize;
            if piece == 0 {
                return Ok(());
            }
            let end = file.metadata().map_err(io())?.len();
            match fallocate(&file, FallocateFlags::empty(), end, piece) {
                Ok(()) => {}
                Err(Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(io()(error.into())),
            }
        }
    }
}

#[derive(Debug)]
struct Free {
    hog: PathBuf,
}

impl fmt::Display for Free {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rm -f {}", self.hog.display())
    }
}

impl Step for Free {
    fn run(&self, _: &mut Held) -> Result<(), FaultError> {
        match fs::remove_file(&self.hog) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(FaultError::io(self.hog.display().to_string())(error))
            }
            _ => Ok(()),
        }
    }
}
