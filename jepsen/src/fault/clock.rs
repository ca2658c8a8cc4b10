//! Wrong wall clocks: a node that was started under libfaketime reads its clock's offset from a
//! file, which these faults rewrite. Only the wall clock: Rust hangs when its monotonic one is faked.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fault::plan::{Held, Step};
use crate::fault::target::words;
use crate::fault::{FaultError, Missing, Plan, Target};

const FILE: &str = "FAKETIME_TIMESTAMP_FILE";
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";
const PLACES: [&str; 4] =
    ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];

/// What to start a node with, so that its clock can be set by way of this file. Makes the file,
/// with a right clock.
///
/// # Errors
///
/// When libfaketime is missing, or the file cannot be written.
pub fn environment(file: &Path) -> Result<Vec<(String, String)>, FaultError> {
    let library = library()?;
    Set::offset(file, 0.0).run(&mut Held::default())?;
    let variables = [
        ("LD_PRELOAD", library.display().to_string()),
        (FILE, file.display().to_string()),
        ("FAKETIME_CACHE_DURATION", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ];
    Ok(variables.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

/// Sets a node's clock so many seconds ahead of the right time, or behind it.
///
/// # Errors
///
/// When the node was not started for that.
pub fn jump(target: &Target, seconds: f64) -> Result<Plan, FaultError> {
    let file = file(target)?;
    let plan = Plan::new("clock", &[target]).inject_by(Set::offset(&file, seconds));
    Ok(plan.heal_by(Set::offset(&file, 0.0)))
}

/// Moves a node's clock to and fro.
///
/// # Errors
///
/// When the node was not started for that.
pub fn strobe(target: &Target, seconds: f64, every: Duration) -> Result<Plan, FaultError> {
    let file = file(target)?;
    let strobe = Strobe { file: file.clone(), seconds, every };
    let plan = Plan::new("clock", &[target]).inject_by(strobe).while_we_run();
    Ok(plan.heal_by(StopStrobe).heal_by(Set::offset(&file, 0.0)))
}

/// Runs `date` with a wrong clock.
///
/// # Errors
///
/// What is missing.
pub fn probe() -> Result<(), Missing> {
    let file = std::env::temp_dir().join(format!("folkmoot-probe-{}-clock", std::process::id()));
    let tried = (|| {
        let environment = environment(&file)?;
        Set::offset(&file, 7200.0).run(&mut Held::default())?;
        let now = |variables: Vec<(String, String)>| {
            let output = Command::new("date").arg("+%s").envs(variables).output();
            let output = output.map_err(FaultError::io("date"))?;
            let said = String::from_utf8_lossy(&output.stdout);
            Ok::<i64, FaultError>(said.trim().parse().unwrap_or_default())
        };
        Ok(now(environment)? - now(vec![])?)
    })();
    // It may not have been made.
    let _ = fs::remove_file(&file);
    match tried {
        Ok(7100..7300) => Ok(()),
        Ok(offset) => {
            let what = format!("under libfaketime `date` is {offset} s off instead of 7200");
            Err(Missing::new(what, "apt-get install faketime"))
        }
        Err(FaultError::Missing(missing)) => Err(missing),
        Err(error) => Err(Missing::new(error.to_string(), "apt-get install faketime")),
    }
}

fn library() -> Result<PathBuf, Missing> {
    let mut found = PLACES.iter().map(|place| Path::new(place).join(LIBRARY));
    let found = found.find(|library| library.exists());
    found.ok_or_else(|| Missing::new("no libfaketime", "apt-get install faketime"))
}

/// The file that a node's clock is read from.
fn file(target: &Target) -> Result<PathBuf, FaultError> {
    target.check()?;
    let variables = words(&format!("/proc/{}/environ", target.pid));
    let value = |name: &str| {
        let mut values = variables.iter().filter_map(|v| v.strip_prefix(name)?.strip_prefix('='));
        values.next().map(str::to_owned)
    };
    let faked = value("LD_PRELOAD").is_some_and(|library| library.contains("libfaketime"));
    let file = value(FILE).filter(|_| faked).map(PathBuf::from);
    file.ok_or_else(|| {
        let what = format!("process {} was not started under libfaketime", target.pid);
        let how = format!(
            "start it with LD_PRELOAD=…/{LIBRARY} {FILE}=FILE FAKETIME_CACHE_DURATION=1 \
             FAKETIME_DONT_FAKE_MONOTONIC=1, and +0 in FILE"
        );
        Missing::new(what, how).into()
    })
}

/// Writes an offset; by a rename, so that half of it is never read.
#[derive(Debug)]
struct Set {
    file: PathBuf,
    offset: String,
}

impl Set {
    fn offset(file: &Path, seconds: f64) -> Set {
        Set { file: file.into(), offset: format!("{seconds:+}") }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (offset, file) = (&self.offset, self.file.display());
        write!(f, "echo {offset} >{file}.new && mv {file}.new {file} # seconds")
    }
}

impl Step for Set {
    fn run(&self, _: &mut Held) -> Result<(), FaultError> {
        let mut new = self.file.clone().into_os_string();
        new.push(".new");
        fs::write(&new, &self.offset)
            .and_then(|()| fs::rename(&new, &self.file))
            .map_err(FaultError::io(self.file.display().to_string()))
    }
}

#[derive(Debug)]
struct Strobe {
    file: PathBuf,
    seconds: f64,
    every: Duration,
}

impl fmt::Display for Strobe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Strobe { file, seconds, every } = self;
        write!(f, "# every {every:?}: {seconds:+} and +0 in turn into {}", file.display())
    }
}

impl Step for Strobe {
    fn run(&self, held: &mut Held) -> Result<(), FaultError> {
        let sets = [self.seconds, 0.0].map(|seconds| Set::offset(&self.file, seconds));
        sets[0].run(held)?;
        let (stop, stopped) = channel::<()>();
        let every = self.every;
        let thread = std::thread::spawn(move || {
            for turn in 1.. {
                if stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                // It worked a moment ago, and healing says so if it does not any more.
                let _ = sets[turn % 2].run(&mut Held::default());
            }
        });
        held.keep(Strobing { stop: Some(stop), thread: Some(thread) });
        Ok(())
    }
}

struct Strobing {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Strobing {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It cannot fail.
            let _ = thread.join();
        }
    }
}

/// The strobe must not write after the clock has been put right.
#[derive(Debug)]
struct StopStrobe;

impl fmt::Display for StopStrobe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("# no more of it")
    }
}

impl Step for StopStrobe {
    fn run(&self, held: &mut Held) -> Result<(), FaultError> {
        held.end();
        Ok(())
    }
}
