//! The record of what a run makes on this machine, so that all of it can be taken away again, also
//! by somebody else after the run itself was killed.
//!
//! A line is written before a thing is made; a process's once it has a pid (a node ends by itself
//! when the program that started it is gone). Taking away what was never made is no error.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::cluster::interrupt::Interrupt;
use crate::cluster::process::Running;

/// What the names of all begin with that probes of faults make in the directory for temporary files;
/// the process id and the purpose follow.
const PROBE: &str = "folkmoot-probe-";

/// Something that is there for the time of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Thing {
    /// The run itself; the first line.
    Harness(Running),
    /// A node.
    Process(Running),
    /// A network namespace with this name.
    Namespace(String),
    /// A file system mounted here.
    Mount(PathBuf),
    /// A file, such as the image of a mounted file system.
    File(PathBuf),
}

/// The open record of this run.
#[derive(Debug)]
pub struct Made {
    interrupt: Interrupt,
    path: PathBuf,
    state: Mutex<(File, Vec<Thing>)>,
}

/// Where records are kept.
#[must_use]
pub fn directory() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/folkmoot-jepsen");
    }
    std::env::temp_dir().join(format!("folkmoot-jepsen-{}", rustix::process::getuid().as_raw()))
}

impl Made {
    /// Begins a record. Once somebody interrupts, nothing more is made.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn begin(interrupt: Interrupt) -> io::Result<Made> {
        let directory = directory();
        fs::create_dir_all(&directory)?;
        let harness = Running::this()?;
        let path = directory.join(format!("{}-{}.jsonl", harness.pid, harness.start_time));
        let file = File::options().create_new(true).append(true).open(&path)?;
        let made = Made { interrupt, path, state: Mutex::new((file, vec![])) };
        made.note(Thing::Harness(harness))?;
        Ok(made)
    }

    /// Notes a thing.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or somebody has interrupted: then it must not be made.
    pub fn note(&self, thing: Thing) -> io::Result<()> {
        // A process is there already.
        if !matches!(thing, Thing::Process(_)) {
            self.interrupt.check().map_err(io::Error::other)?;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{}\n", serde_json::to_string(&thing)?);
        state.0.write_all(line.as_bytes())?;
        state.1.push(thing);
        Ok(())
    }

    /// Takes everything away, and the record with it. What could not be taken away is said, and
    /// stays in the record.
    pub fn undo(&self) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let problems = undo(&state.1);
        if problems.is_empty() {
            let _ = fs::remove_file(&self.path);
        }
        problems
    }
}

/// What a cleanup did.
#[derive(Debug, Default, Serialize)]
pub struct Cleaned {
    /// Records of runs that are over, and of which nothing is left now.
    pub runs: u64,
    /// Runs that are under way.
    pub running: Vec<u32>,
    /// What was taken away.
    pub things: u64,
    /// What could not be.
    pub problems: Vec<String>,
}

/// Takes away what runs left behind that are no more.
///
/// # Errors
///
/// When the records cannot be read.
pub fn cleanup() -> io::Result<Cleaned> {
    let mut cleaned = Cleaned::default();
    cleanup_probes(&std::env::temp_dir(), &mut cleaned);
    let entries = match fs::read_dir(directory()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(cleaned),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let things = read(&path)?;
        if let Some(Thing::Harness(harness)) = things.first()
            && harness.is_alive()
        {
            cleaned.running.push(harness.pid);
            continue;
        }
        let problems = undo(&things);
        if problems.is_empty() {
            cleaned.runs += 1;
            cleaned.things += things.len().saturating_sub(1) as u64;
            fs::remove_file(&path)?;
        }
        cleaned.problems.extend(problems);
    }
    Ok(cleaned)
}

/// Takes away what probes left behind in this directory whose process is no more. They are not in
/// any record, as each takes away what it made; but for one that was killed.
fn cleanup_probes(directory: &Path, cleaned: &mut Cleaned) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PROBE).and_then(|rest| rest.split('-').next()?.parse().ok());
        // Whoever has this number now may be somebody else; then it is taken away later.
        if pid.is_none_or(|pid| Running::of(pid).is_ok_and(|process| process.is_alive())) {
            continue;
        }
        let path = entry.path();
        let removed = unmount(&path.join("mount")).and_then(|()| {
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            removed.map_err(|error| format!("{}: {error}", path.display()))
        });
        match removed {
            Ok(()) => cleaned.things += 1,
            Err(problem) => cleaned.problems.push(problem),
        }
    }
}

/// The things of a record; a last line that was cut off is of a thing that was not made.
fn read(path: &Path) -> io::Result<Vec<Thing>> {
    let text = fs::read_to_string(path)?;
    Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
}

fn undo(things: &[Thing]) -> Vec<String> {
    let mut problems = vec![];
    for thing in things {
        if let Thing::Process(running) = thing {
            running.signal(Signal::KILL);
        }
    }
    for thing in things {
        if let Thing::Process(running) = thing
            && !wait(Duration::from_secs(10), || !running.is_alive())
        {
            problems.push(format!("process {} does not end", running.pid));
        }
    }
    for thing in things.iter().rev() {
        let outcome = match thing {
            Thing::Harness(_) | Thing::Process(_) => Ok(()),
            Thing::Mount(path) => unmount(path),
            Thing::Namespace(name) => delete_namespace(name),
            Thing::File(path) => remove(path),
        };
        problems.extend(outcome.err());
    }
    problems
}

fn unmount(path: &Path) -> Result<(), String> {
    let is_mounted = || {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|at| Path::new(at) == path))
    };
    if !is_mounted() {
        return Ok(());
    }
    // A frozen file system cannot be unmounted; thawing one that is not frozen fails, and may.
    let _ = Command::new("fsfreeze").arg("-u").arg(path).output();
    let mut said = String::new();
    let gone = wait(Duration::from_secs(20), || {
        said = run(Command::new("umount").arg(path)).err().unwrap_or_default();
        !is_mounted()
    });
    if gone { Ok(()) } else { Err(said) }
}

fn delete_namespace(name: &str) -> Result<(), String> {
    if !Path::new("/run/netns").join(name).exists() {
        return Ok(());
    }
    run(Command::new("ip").args(["netns", "delete", name]))
}

fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Runs a tool; what it said when it failed.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let arguments: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} {}: {}", arguments.join(" "), said.trim()))
}

/// Waits until it is so; whether it was in time.
pub(crate) fn wait(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        if is_so() {
            return true;
        }
        if begin.elapsed() > within {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_probe_left_goes_once_its_process_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let (dead, ours) = (child.id(), std::process::id());
        let names = [
            format!("{PROBE}{dead}-power"),
            format!("{PROBE}{dead}-fsync"),
            format!("{PROBE}{ours}-power"),
            format!("{PROBE}x-power"),
            format!("other-{dead}-power"),
        ];
        let [gone, file, left @ ..] = names.map(|name| directory.path().join(name));
        for path in [&gone].into_iter().chain(&left) {
            fs::create_dir_all(path.join("mount")).unwrap();
            fs::write(path.join("image"), "x").unwrap();
        }
        fs::write(&file, "x").unwrap();
        let mut cleaned = Cleaned::default();
        cleanup_probes(directory.path(), &mut cleaned);
        assert_eq!((cleaned.things, cleaned.problems), (2, vec![]));
        assert!(!gone.exists() && !file.exists());
        assert!(left.iter().all(|path| path.is_dir()), "{left:?}");
    }
}
