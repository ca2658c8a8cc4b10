//! A file system of its own in a file, whose power can be cut.

#![expect(unsafe_code, reason = "an ioctl")]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// `EXT4_IOC_SHUTDOWN`, from then on every call fails; and its flag "without flushing the journal".
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
const NO_LOG_FLUSH: u32 = 2;

const BYTES: u64 = 512 << 20;

/// An ext4 in a file. Unmounted and gone when dropped.
pub struct Disk {
    dir: tempfile::TempDir,
    mount: PathBuf,
}

impl Disk {
    /// Makes and mounts one, or says why that is not possible here.
    pub fn new() -> Result<Disk, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("not root".into());
        }
        let dir =
            tempfile::Builder::new().prefix("power-cut-").tempdir().map_err(|e| e.to_string())?;
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        std::fs::create_dir(&mount).map_err(|e| e.to_string())?;
        let file = File::create(&image).map_err(|e| e.to_string())?;
        file.set_len(BYTES).map_err(|e| e.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image))?;
        let disk = Disk { dir, mount };
        disk.try_mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// A file that is not on it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Cuts the power: what is not on the disk by now will never be.
    pub fn cut(&self) {
        let root = File::open(&self.mount).unwrap();
        // SAFETY: the descriptor is open, and the ioctl reads one u32.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &NO_LOG_FLUSH) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// Turns it on again. Whoever used it must be gone.
    pub fn mount_again(&self) {
        // Busy for a moment longer: sled's threads, and other tests' children before their `exec`.
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(e) = run(Command::new("umount").arg(&self.mount)) {
            assert!(Instant::now() < deadline, "{e}");
            std::thread::sleep(Duration::from_millis(20));
        }
        self.try_mount().unwrap();
    }

    fn try_mount(&self) -> Result<(), String> {
        let image = self.dir.path().join("image");
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(image).arg(&self.mount))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, as a failed test may still hold files open.
        let _ = run(Command::new("umount").arg("-l").arg(&self.mount));
    }
}

/// Tells whether a mounted [`Disk`] still has power.
///
/// A real cut ends the process with the disk. The ioctl lets an `fdatasync` that is under way answer
/// that all is well: the commit it waits for was aborted, and that counts as ended (33 of 300 cuts
/// of a program that only appends and syncs lost what such an answer had promised, and nothing
/// else). So an answer counts if the power was still on once it was there.
pub struct Power(File);

impl Power {
    /// Watches the file system mounted at `mount`.
    pub fn of(mount: &Path) -> std::io::Result<Power> {
        File::options().read(true).append(true).create(true).open(mount.join("power")).map(Power)
    }

    /// Whether it was on at the time of the call: every read fails once it is off.
    pub fn is_on(&self) -> bool {
        self.0.read_at(&mut [0], 0).is_ok()
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
