//! Programs of the system that faults make use of.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fault::plan::{Held, Step};
use crate::fault::{FaultError, Missing};

/// Where a tool comes from, on Debian.
const PACKAGES: &[(&str, &str)] = &[
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("ip6tables", "iptables"),
    ("strace", "strace"),
    ("fsfreeze", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("umount", "mount"),
    ("mkfs.ext4", "e2fsprogs"),
    ("ip", "iproute2"),
];

/// A command line.
#[derive(Clone, Debug)]
pub struct Tool {
    program: &'static str,
    arguments: Vec<String>,
    input: String,
    /// What it may say and fail.
    allowed: Option<&'static str>,
    /// How long it may go on failing.
    patience: Duration,
}

impl Tool {
    /// A program with arguments.
    pub fn new<A: AsRef<OsStr>>(
        program: &'static str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Tool {
        let arguments =
            arguments.into_iter().map(|a| a.as_ref().to_string_lossy().into_owned()).collect();
        let (input, allowed, patience) = (String::new(), None, Duration::ZERO);
        Tool { program, arguments, input, allowed, patience }
    }

    /// What it reads.
    #[must_use]
    pub fn input(mut self, text: impl Into<String>) -> Tool {
        self.input = text.into();
        self
    }

    /// It may fail with this.
    #[must_use]
    pub fn allow(mut self, said: &'static str) -> Tool {
        self.allowed = Some(said);
        self
    }

    /// It may fail, as what it undoes may not be there.
    #[must_use]
    pub fn may_fail(self) -> Tool {
        self.allow("")
    }

    /// It is tried until it works, for so long.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Tool {
        self.patience = patience;
        self
    }

    /// Runs it; what it wrote.
    ///
    /// # Errors
    ///
    /// When it is missing, or what it said when it failed.
    pub fn output(&self) -> Result<String, FaultError> {
        let begin = Instant::now();
        loop {
            let outcome = self.once();
            if outcome.is_ok() || begin.elapsed() >= self.patience {
                return outcome;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn once(&self) -> Result<String, FaultError> {
        let mut command = Command::new(self.program);
        command.args(&self.arguments).env("LC_ALL", "C");
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().map_err(|error| self.not_started(error))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading says why by itself.
            let _ = stdin.write_all(self.input.as_bytes());
        }
        let output = child.wait_with_output().map_err(FaultError::io(self.program))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let allowed = self.allowed.is_some_and(|allowed| said.contains(allowed));
        if output.status.success() || allowed {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = if said.is_empty() { output.status.to_string() } else { said };
        Err(FaultError::Tool { command: self.line(), said })
    }

    fn not_started(&self, error: io::Error) -> FaultError {
        match error.kind() {
            io::ErrorKind::NotFound => missing(self.program).into(),
            _ => FaultError::Io { what: self.program.into(), error },
        }
    }

    fn line(&self) -> String {
        let words = self.arguments.iter().map(|word| quoted(word));
        std::iter::once(self.program.to_owned()).chain(words).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())?;
        match self.input.is_empty() {
            true => Ok(()),
            false => write!(f, " <<'.'\n{}\n.", self.input.trim_end()),
        }?;
        match self.allowed {
            Some(_) => f.write_str(" || true"),
            None => Ok(()),
        }
    }
}

impl Step for Tool {
    fn run(&self, _: &mut Held) -> Result<(), FaultError> {
        self.output().map(drop)
    }
}

/// Says how to get a program.
pub(crate) fn missing(program: &str) -> Missing {
    let package = PACKAGES.iter().find(|(name, _)| *name == program);
    let package = package.map_or(program, |(_, package)| package);
    Missing::new(format!("no program {program}"), format!("apt-get install {package}"))
}

/// Whether a program is found where it would be looked for when it is run: on `PATH`.
pub(crate) fn is_there(program: &str) -> bool {
    // Without a PATH the C library looks in these two.
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    is_on(&path, program)
}

fn is_on(path: &OsStr, program: &str) -> bool {
    let may_run = |file: &Path| {
        fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 > 0)
    };
    std::env::split_paths(path).any(|directory| may_run(&directory.join(program)))
}

/// Some faults are for root only.
pub(super) fn root() -> Result<(), Missing> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Missing::new("not root", "run this as root (sudo)")),
    }
}

/// A word as a shell would take it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// Waits until it is so.
///
/// # Errors
///
/// When it is not in time.
pub(super) fn await_that(
    what: &str,
    within: Duration,
    mut is_so: impl FnMut() -> bool,
) -> Result<(), FaultError> {
    let begin = Instant::now();
    while !is_so() {
        if begin.elapsed() > within {
            let error = io::Error::new(io::ErrorKind::TimedOut, format!("not within {within:?}"));
            return Err(FaultError::Io { what: what.into(), error });
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_there_when_it_would_be_found_and_may_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().as_os_str();
        let file = directory.path().join("nft");
        assert!(!is_on(path, "nft"));
        fs::write(&file, "").unwrap();
        assert!(!is_on(path, "nft"), "it may not be run");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(is_on(path, "nft"));
        assert!(!is_on(OsStr::new(""), "nft"));
        fs::create_dir(directory.path().join("ip")).unwrap();
        assert!(!is_on(path, "ip"), "a directory is no program");
    }
}
