//! Damage to the files of a node that does not run: a flipped bit, a file cut short, files put back
//! to an earlier state. What was there is kept beside the data directory, in
//! `folkmoot-fault-NAME/`, and can be put back; but no log once the node has run on the damaged one:
//! it would lose what it has acknowledged since.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FlockOperation, flock};

use crate::fault::plan::{Held, Step};
use crate::fault::{FaultError, Missing, Plan};

/// Which of a node's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The Raft log.
    Log,
    /// The state, in sled.
    Sled,
    /// Who the node is.
    Identity,
    /// How far the log has been synced.
    Watermark,
}

impl What {
    /// Each, by its name.
    pub const ALL: [(&str, What); 4] = [
        ("log", What::Log),
        ("sled", What::Sled),
        ("identity", What::Identity),
        ("watermark", What::Watermark),
    ];

    /// Where these files are, relative to the data directory.
    fn path(self) -> &'static str {
        match self {
            What::Log => "log",
            What::Sled => "rooms",
            What::Identity => "log/identity.json",
            What::Watermark => "log/watermark",
        }
    }

    /// The directory that belongs together with these files.
    fn unit(self) -> &'static str {
        if self == What::Sled { "rooms" } else { "log" }
    }

    /// The files with something in them, in order.
    fn files(self, data_dir: &Path) -> Result<Vec<PathBuf>, FaultError> {
        let path = data_dir.join(self.path());
        let named = |path: &Path| match self {
            What::Log => path.extension().is_some_and(|e| e == "raftlog" || e == "rewrite"),
            What::Sled => path.file_name().is_some_and(|name| name == "db"),
            What::Identity | What::Watermark => true,
        };
        let mut files = vec![path.clone()];
        if path.is_dir() {
            let entries =
                fs::read_dir(&path).map_err(FaultError::io(path.display().to_string()))?;
            files = entries.flatten().map(|entry| entry.path()).collect();
        }
        files.retain(|file| named(file) && written(file).is_ok_and(|length| length > 0));
        files.sort();
        match files.is_empty() {
            true => Err(FaultError::Refused(format!("nothing is in {}", path.display()))),
            false => Ok(files),
        }
    }
}

/// How much of a file was written: zeros at its end are room for more.
fn written(file: &Path) -> io::Result<u64> {
    let bytes = fs::read(file)?;
    Ok(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1))
}

/// A data directory whose node does not run.
#[derive(Clone, Debug)]
struct Stopped(PathBuf);

impl Stopped {
    fn new(data_dir: &Path) -> Result<Stopped, FaultError> {
        let path = data_dir.to_path_buf();
        if !path.join("LOCK").is_file() || !path.join("log").is_dir() {
            let why = format!("{} is no folkmoot data directory: no LOCK, no log/", path.display());
            return Err(FaultError::Refused(why));
        }
        let stopped = Stopped(fs::canonicalize(&path).map_err(FaultError::io("data directory"))?);
        drop(stopped.lock()?);
        Ok(stopped)
    }

    /// Keeps the node from being started for as long.
    fn lock(&self) -> Result<Lock, FaultError> {
        let path = self.0.join("LOCK");
        let file = File::open(&path).map_err(FaultError::io(path.display().to_string()))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(FaultError::Refused(format!(
                "a node runs on {}: stop it first; under a running node files are not damaged",
                self.0.display()
            ))),
            Err(error) => Err(FaultError::io(path.display().to_string())(error.into())),
        }
    }

    /// Where what was there is kept.
    fn backup(&self) -> PathBuf {
        let name = self.0.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.0.with_file_name(format!("folkmoot-fault-{name}"))
    }

    fn plan(&self, fault: &'static str, what: What, path: PathBuf, how: How) -> Plan {
        let unit = Unit { directory: self.clone(), name: what.unit() };
        Plan::new(fault, &[])
            .inject_by(Keep(unit.clone()))
            .inject_by(Change { unit: unit.clone(), path, how })
            .heal_by(Restore(unit))
    }
}

/// The lock of a data directory.
struct Lock(File);

impl Drop for Lock {
    /// Closing it is not enough: a process that another thread starts has it, too, for a moment.
    fn drop(&mut self) {
        // It goes with the last of them at the latest.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Flips one bit in what was written. The seed says where.
///
/// # Errors
///
/// When a node runs there, or there is no such file.
pub fn flip(data_dir: &Path, what: What, seed: u64) -> Result<Plan, FaultError> {
    let directory = Stopped::new(data_dir)?;
    let (file, at) = place(&directory, what, seed)?;
    let bit = (mixed(seed ^ 2) % 8) as u8;
    Ok(directory.plan("bitflip", what, file, How::Flip { at, bit }))
}

/// Cuts a file short within what was written. The seed says where.
///
/// # Errors
///
/// When a node runs there, or there is no such file.
pub fn truncate(data_dir: &Path, what: What, seed: u64) -> Result<Plan, FaultError> {
    let directory = Stopped::new(data_dir)?;
    let (file, at) = place(&directory, what, seed)?;
    Ok(directory.plan("truncate", what, file, How::Truncate(at)))
}

/// Copies a stopped node's files for a later [`roll_back`].
///
/// # Errors
///
/// When a node runs there, or the copy exists.
pub fn save(data_dir: &Path, copy: &Path) -> Result<Plan, FaultError> {
    let directory = Stopped::new(data_dir)?;
    if copy.exists() {
        return Err(FaultError::Refused(format!("{} exists: name a new one", copy.display())));
    }
    Ok(Plan::new("save", &[]).inject_by(Save { directory, copy: copy.into() }))
}

/// Puts files back to how they were when [`save`] copied them.
///
/// # Errors
///
/// When a node runs there, or the copy does not have them.
pub fn roll_back(data_dir: &Path, what: What, copy: &Path) -> Result<Plan, FaultError> {
    let directory = Stopped::new(data_dir)?;
    let from = copy.join(what.path());
    if !from.exists() {
        let why = format!("{} does not exist: make it with `save`", from.display());
        return Err(FaultError::Refused(why));
    }
    let path = directory.0.join(what.path());
    Ok(directory.plan("rollback", what, path, How::Replace(from)))
}

/// Puts back what was there before the damage.
///
/// # Errors
///
/// When a node runs there.
pub fn restore(data_dir: &Path) -> Result<Plan, FaultError> {
    let directory = Stopped::new(data_dir)?;
    let unit = |name| Unit { directory: directory.clone(), name };
    Ok(Plan::new("restore", &[]).inject_by(Restore(unit("log"))).inject_by(Restore(unit("rooms"))))
}

/// Damages a file of its own, and puts it back.
///
/// # Errors
///
/// Why files cannot be changed, or copied back, here.
pub fn probe() -> Result<(), Missing> {
    static PROBES: AtomicU32 = AtomicU32::new(0);
    let number = PROBES.fetch_add(1, Ordering::Relaxed);
    let name = format!("folkmoot-probe-{}-files-{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    let tried = try_damage(&directory);
    // It may not have been made.
    let _ = remove(&directory);
    let how = "a directory for temporary files (TMPDIR) that can be written is needed";
    tried.map_err(|error| Missing::new(format!("{}: {error}", directory.display()), how))
}

/// Flips a bit, cuts the file short, and copies back what was there.
fn try_damage(directory: &Path) -> io::Result<()> {
    const TEXT: &[u8] = b"what was written";
    let [file, kept] = ["file", "kept"].map(|name| directory.join(name));
    fs::create_dir(directory)?;
    fs::write(&file, TEXT)?;
    copy(&file, &kept)?;
    let reads = |expected: &[u8]| match fs::read(&file)? == expected {
        true => Ok(()),
        false => Err(io::Error::other("a file has not what was written to it")),
    };
    flip_bit(&file, 3, 0)?;
    reads(b"whau was written")?;
    cut_short(&file, 4)?;
    reads(b"whau")?;
    copy(&kept, &file)?;
    reads(TEXT)
}

/// A file, and a place in what was written there: any byte of them all is as likely.
fn place(directory: &Stopped, what: What, seed: u64) -> Result<(PathBuf, u64), FaultError> {
    let mut files = vec![];
    for file in what.files(&directory.0)? {
        let length = written(&file).map_err(FaultError::io(file.display().to_string()))?;
        files.push((file, length));
    }
    let all: u64 = files.iter().map(|(_, length)| length).sum();
    let mut at = mixed(seed) % all.max(1);
    for (file, length) in files {
        if at < length {
            return Ok((file, at));
        }
        at -= length;
    }
    Err(FaultError::Refused(format!("nothing is in {}", directory.0.display())))
}

/// SplitMix64: the same seed hits the same place.
fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A directory in a data directory that is kept and put back as a whole.
#[derive(Clone, Debug)]
struct Unit {
    directory: Stopped,
    name: &'static str,
}

impl Unit {
    fn path(&self) -> PathBuf {
        self.directory.0.join(self.name)
    }

    fn kept(&self) -> PathBuf {
        self.directory.backup().join(self.name)
    }

    /// Holds what the damaged files looked like when we left them.
    fn note(&self) -> PathBuf {
        self.directory.backup().join(format!("{}.state", self.name))
    }

    /// Whether what was kept is what was there before damage that no node has seen.
    fn is_kept(&self) -> bool {
        let noted = fs::read_to_string(self.note());
        noted.is_ok_and(|noted| state(&self.path()).is_ok_and(|state| state == noted))
    }
}

/// The files below a directory, and when they were changed.
fn state(directory: &Path) -> io::Result<String> {
    let mut lines = vec![];
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            lines.push(state(&path)?);
        } else {
            let meta = fs::metadata(&path)?;
            let (time, nanos) = (meta.mtime(), meta.mtime_nsec());
            lines.push(format!("{} {} {time}.{nanos:09}\n", path.display(), meta.len()));
        }
    }
    lines.sort();
    Ok(lines.concat())
}

/// Copies a unit before it is damaged.
#[derive(Debug)]
struct Keep(Unit);

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cp -a {} {}", self.0.path().display(), self.0.kept().display())
    }
}

impl Step for Keep {
    fn run(&self, _: &mut Held) -> Result<(), FaultError> {
        let _lock = self.0.directory.lock()?;
        if self.0.is_kept() {
            return Ok(());
        }
        let kept = self.0.kept();
        let done = remove(&kept).and_then(|()| copy(&self.0.path(), &kept));
        done.map_err(FaultError::io(self.to_string()))
    }
}

#[derive(Debug)]
enum How {
    Flip {
        at: u64,
        bit: u8,
    },
    Truncate(u64),
    /// Puts that in its place.
    Replace(PathBuf),
}

#[derive(Debug)]
struct Change {
    unit: Unit,
    path: PathBuf,
    how: How,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.how {
            How::Flip { at, bit } => write!(f, "# flip bit {bit} of byte {at} of {path}"),
            How::Truncate(length) => write!(f, "truncate -s {length} {path}"),
            How::Replace(from) => write!(f, "rm -r {path} && cp -a {} {path}", from.display()),
        }
    }
}

impl Step for Change {
    fn run(&self, _: &mut Held) -> Result<(), FaultError> {
        let _lock = self.unit.directory.lock()?;
        let path = &self.path;
        let done = match &self.how {
            How::Flip { at, bit } => flip_bit(path, *at, *bit),
            How::Truncate(length) => cut_short(path, *length),
            How::Replace(from) => remove(path).and_then(|()| copy(from, path)),
        };
        let noted = done.and_then(|()| fs::write(self.unit.note(), state(&self.unit.path())?));
        noted.map_err(FaultError::io(self.to_string()))
    }
}

/// Puts what was kept back, and the copy away.
#[derive(Debug)]
struct Restore(Unit);

impl fmt::Display for Restore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kept, path) = (self.0.kept(), self.0.path());
        write!(f, "rm -r {1} && mv {0} {1}", kept.display(), path.display())
    }
}

impl Step for Restore {
    fn run(&self, _: &mut Held) -> Result<(), FaultError> {
        let _lock = self.0.directory.lock()?;
        let (kept, path) = (self.0.kept(), self.0.path());
        if !kept.exists() {
            return Ok(());
        }
        // An older state is no loss: the log and the other nodes have what it lacks.
        if self.0.name == "log" && !self.0.is_kept() {
            return Err(FaultError::Refused(format!(
                "a node has run on {} since it was damaged: what it has acknowledged since would \
                 be lost. Remove {} to keep things as they are",
                path.display(),
                kept.display()
            )));
        }
        let done = remove(&path)
            .and_then(|()| copy(&kept, &path))
            .and_then(|()| remove(&kept))
            .and_then(|()| remove(&self.0.note()));
        done.map_err(FaultError::io(self.to_string()))
    }
}

/// Copies a whole data directory.
#[derive(Debug)]
struct Save {
    directory: Stopped,
    copy: PathBuf,
}

impl fmt::Display for Save {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cp -a {} {}", self.directory.0.display(), self.copy.display())
    }
}

impl Step for Save {
    fn run(&self, _: &mut Held) -> Result<(), FaultError> {
        let _lock = self.directory.lock()?;
        copy(&self.directory.0, &self.copy).map_err(FaultError::io(self.to_string()))
    }
}

fn flip_bit(path: &Path, at: u64, bit: u8) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ (1 << bit)], at)?;
    file.sync_all()
}

fn cut_short(path: &Path, length: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(length)?;
    file.sync_all()
}

/// Removes what may not be there.
fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies a file, or a directory with all that is in it. The copy is on disk when this returns: the
/// node does not write again what it wrote once, and a power cut may follow.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let above = to.parent().unwrap_or(to);
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        fs::create_dir_all(above)?;
        fs::copy(from, to)?;
    }
    File::open(to)?.sync_all()?;
    File::open(above)?.sync_all()
}
