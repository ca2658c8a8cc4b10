//! The file system that a node's data directory is on: it must be the node's alone, as whoever else
//! is on it would be hit as well.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fault::tool::{self, Tool};
use crate::fault::{FaultError, Missing, Target};

/// How long somebody may still have files open on it.
const BUSY: Duration = Duration::from_secs(30);
/// The size of a disk for probes.
const SCRATCH_BYTES: u64 = 32 << 20;

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// What is mounted: a device, or the file behind a loop device that goes with the mount.
    pub source: PathBuf,
    /// Its type.
    pub kind: String,
    /// Mount options.
    pub options: String,
}

/// A line of `/proc/self/mountinfo`.
struct Line {
    device: String,
    root: String,
    mount: PathBuf,
    options: String,
    kind: String,
    source: String,
    super_options: String,
}

impl Disk {
    /// The file system of a node's data directory.
    ///
    /// # Errors
    ///
    /// When it is shared with anything else.
    pub fn of(target: &Target) -> Result<Disk, FaultError> {
        let disk = Disk::below(&target.data_dir)?;
        // In a container the same path may be another directory.
        let inside = format!("/proc/{}/root{}", target.pid, target.data_dir.display());
        let device = |path: &Path| {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok()
        };
        match device(Path::new(&inside)) == device(&target.data_dir) {
            true => Ok(disk),
            false => Err(FaultError::Refused(format!(
                "{} of process {} is on a file system that is not mounted there for us; run this in \
                 the same container",
                target.data_dir.display(),
                target.pid
            ))),
        }
    }

    /// The same, of a directory.
    ///
    /// # Errors
    ///
    /// When it is shared with anything else.
    pub fn below(data_dir: &Path) -> Result<Disk, FaultError> {
        let path = fs::canonicalize(data_dir)
            .map_err(FaultError::io(format!("{}", data_dir.display())))?;
        let text = fs::read_to_string("/proc/self/mountinfo")
            .map_err(FaultError::io("/proc/self/mountinfo"))?;
        let lines: Vec<Line> = text.lines().filter_map(parse).collect();
        let refused = |why: String| {
            Err(FaultError::Refused(format!(
                "{why}. Give the node's data directory a file system of its own: a partition, or \
                 `truncate -s 1G n1.img; mkfs.ext4 n1.img; mount -o loop n1.img DIR`"
            )))
        };
        // The last of several at one place is the one on top.
        let over = lines.iter().rev().filter(|line| path.starts_with(&line.mount));
        let Some(line) = over.max_by_key(|line| line.mount.components().count()) else {
            return refused(format!("{} is on no file system", path.display()));
        };
        let shown = line.mount.display();
        if line.mount == Path::new("/") || line.root != "/" {
            return refused(format!("{} shares the file system at {shown}", path.display()));
        }
        if lines.iter().filter(|other| other.device == line.device).count() > 1 {
            return refused(format!("the file system at {shown} is mounted elsewhere, too"));
        }
        if let Some(other) = others(&line.mount, &path)? {
            return refused(format!("{} shares {shown} with {other}", path.display()));
        }
        Ok(Disk {
            mount: line.mount.clone(),
            source: loop_file(&line.source).unwrap_or_else(|| PathBuf::from(&line.source)),
            kind: line.kind.clone(),
            options: options(line),
        })
    }

    /// What unmounts it, once nobody uses it.
    #[must_use]
    pub fn unmount(&self) -> Tool {
        Tool::new("umount", [&self.mount]).patient(BUSY)
    }

    /// What mounts it as it was.
    #[must_use]
    pub fn mount(&self) -> Tool {
        let arguments =
            ["-t", &self.kind, "-o", &self.options].map(AsRef::<std::ffi::OsStr>::as_ref);
        let paths = [&self.source, &self.mount].map(|path| path.as_os_str());
        Tool::new("mount", arguments.into_iter().chain(paths))
    }

    /// Refuses what has no `EXT4_IOC_SHUTDOWN` or its like.
    pub(super) fn must_shut_down(&self) -> Result<(), FaultError> {
        match ["ext4", "xfs", "f2fs"].contains(&&*self.kind) {
            true => Ok(()),
            false => Err(FaultError::Refused(format!(
                "the file system at {} is {}, whose power cannot be cut: use ext4",
                self.mount.display(),
                self.kind
            ))),
        }
    }
}

/// A name on the file system that is not on the way to the data directory, nor ours.
fn others(mount: &Path, data_dir: &Path) -> Result<Option<String>, FaultError> {
    let way = data_dir.strip_prefix(mount).unwrap_or(data_dir);
    let mut at = mount.to_path_buf();
    for step in way.components() {
        let entries = fs::read_dir(&at).map_err(FaultError::io(at.display().to_string()))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let ours = name.to_string_lossy().starts_with("folkmoot-fault");
            if name != step.as_os_str() && name != "lost+found" && !ours {
                return Ok(Some(entry.path().display().to_string()));
            }
        }
        at.push(step);
    }
    Ok(None)
}

fn parse(line: &str) -> Option<Line> {
    let (first, last) = line.split_once(" - ")?;
    let first: Vec<&str> = first.split(' ').collect();
    let last: Vec<&str> = last.split(' ').collect();
    Some(Line {
        device: (*first.get(2)?).into(),
        root: (*first.get(3)?).into(),
        mount: unescaped(first.get(4)?).into(),
        options: (*first.get(5)?).into(),
        kind: (*last.first()?).into(),
        source: unescaped(last.get(1)?),
        super_options: (*last.get(2)?).into(),
    })
}

/// Blanks and the like are written in octal there.
fn unescaped(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// The options to mount with again; the kernel's own list, without what an error has set.
fn options(line: &Line) -> String {
    let mut options: Vec<&str> = vec![];
    for option in line.options.split(',').chain(line.super_options.split(',')) {
        let transient = ["shutdown", "emergency_ro"].contains(&option);
        if !transient && !options.contains(&option) {
            options.push(option);
        }
    }
    if loop_file(&line.source).is_some() {
        options.push("loop");
    }
    options.join(",")
}

/// The file behind a loop device that goes away with its mount.
fn loop_file(source: &str) -> Option<PathBuf> {
    let name = source.strip_prefix("/dev/")?;
    let about = Path::new("/sys/block").join(name).join("loop");
    let goes = fs::read_to_string(about.join("autoclear")).ok()?;
    let file = fs::read_to_string(about.join("backing_file")).ok()?;
    (goes.trim() == "1").then(|| PathBuf::from(file.trim_end_matches('\n')))
}

/// A small disk for probes, gone when dropped.
pub(super) struct Scratch {
    directory: PathBuf,
    pub(super) disk: Disk,
}

impl Scratch {
    pub(super) fn new(purpose: &str) -> Result<Scratch, FaultError> {
        tool::root()?;
        let name = format!("folkmoot-probe-{}-{purpose}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).map_err(FaultError::io(directory.display().to_string()))?;
        let disk = Disk {
            mount: directory.join("mount"),
            source: directory.join("image"),
            kind: "ext4".into(),
            options: "loop".into(),
        };
        let scratch = Scratch { directory, disk };
        let disk = &scratch.disk;
        let made = fs::create_dir(&disk.mount)
            .and_then(|()| File::create_new(&disk.source))
            .and_then(|file| file.set_len(SCRATCH_BYTES));
        made.map_err(FaultError::io("a disk image"))?;
        Tool::new("mkfs.ext4", ["-q".as_ref(), "-F".as_ref(), disk.source.as_os_str()]).output()?;
        disk.mount().output()?;
        Ok(scratch)
    }

    /// Tries something on a disk of its own.
    pub(super) fn probe(
        purpose: &str,
        try_it: impl FnOnce(&Disk) -> Result<(), FaultError>,
    ) -> Result<(), Missing> {
        let tried = Scratch::new(purpose).and_then(|scratch| try_it(&scratch.disk));
        tried.map_err(|error| {
            error.missing("loop devices, ext4 and a kernel that lets root mount are needed")
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What a failed probe has left may be neither mounted nor whole.
        let _ = Tool::new("umount", [&self.disk.mount]).output();
        let _ = fs::remove_file(&self.disk.source);
        let _ = fs::remove_dir(&self.disk.mount);
        let _ = fs::remove_dir(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_on_the_root_file_system_is_refused() {
        let error = Disk::below(Path::new(".")).unwrap_err().to_string();
        assert!(error.starts_with("refused") && error.contains("mkfs.ext4"), "{error}");
    }

    #[test]
    fn a_line_with_blanks_in_its_paths_is_read() {
        let line =
            "36 35 7:0 / /a\\040b rw,noatime shared:1 - ext4 /dev/loop7777777 rw,errors=remount-ro";
        let line = parse(line).unwrap();
        assert_eq!(line.mount, Path::new("/a b"));
        assert_eq!(options(&line), "rw,noatime,errors=remount-ro");
    }
}
