//! The node that a fault is pointed at, and what makes sure that it is one.

use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::fault::FaultError;

/// A running Folkmoot node on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What to call it: `n1`.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`, so that a later process of that number is never touched.
    pub start_time: u64,
    /// Where its peers reach it.
    pub peer: SocketAddr,
    /// Where clients reach it.
    pub client: SocketAddr,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
}

/// A node with the others that it was told of.
#[derive(Clone, Debug)]
pub struct Described {
    /// The node.
    pub target: Target,
    /// Peer addresses of the others, from its settings.
    pub others: Vec<SocketAddr>,
}

impl Target {
    /// The node with this process id.
    ///
    /// # Errors
    ///
    /// When it is none, or does not say where it listens.
    pub fn of_pid(pid: u32) -> Result<Target, FaultError> {
        Target::describe(pid).map(|described| described.target)
    }

    /// The same, with the others that it was told to join. The node's own program is asked for the
    /// settings that it runs with.
    ///
    /// # Errors
    ///
    /// When it is none, or does not say where it listens.
    pub fn describe(pid: u32) -> Result<Described, FaultError> {
        let not_a_node = |why: String| FaultError::Refused(format!("process {pid} {why}"));
        let start_time = is_node(pid).map_err(not_a_node)?;
        let settings = settings(pid)?;
        let text = |field: &str| settings["node"][field].as_str().unwrap_or_default().to_owned();
        let advertised = |advertise: &str, listen: &str| {
            let address = match text(advertise) {
                address if address.is_empty() => text(listen),
                address => address,
            };
            let resolved = address.to_socket_addrs().map_err(|e| e.to_string());
            resolved
                .and_then(|mut found| found.next().ok_or_else(|| "no address".into()))
                .map_err(|why| not_a_node(format!("listens at {address:?}: {why}")))
        };
        let working = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let data_dir = working.join(text("data_dir"));
        holds(pid, &data_dir).map_err(not_a_node)?;
        let target = Target {
            name: data_dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            pid,
            start_time,
            peer: advertised("peer_advertise", "peer_listen")?,
            client: advertised("client_advertise", "client_listen")?,
            data_dir,
        };
        let join = settings["node"]["join"].as_array().into_iter().flatten();
        let join = join.filter_map(|address| address.as_str()?.to_socket_addrs().ok());
        let others = join.flatten().filter(|address| *address != target.peer).collect();
        target.check()?;
        Ok(Described { target, others })
    }

    /// Makes sure that this is still the process that it was, and a node.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub fn check(&self) -> Result<(), FaultError> {
        let refused = |why: String| FaultError::Refused(format!("process {} {why}", self.pid));
        match is_node(self.pid).map_err(refused)? {
            start if start == self.start_time => Ok(()),
            _ => Err(refused(format!("is not {} any more: that one has ended", self.name))),
        }
    }

    /// Its process's state in `/proc/PID/stat`, as long as it is the same process.
    pub(super) fn state(&self) -> Option<char> {
        let (state, start) = stat(Path::new(&format!("/proc/{}/stat", self.pid))).ok()?;
        (start == self.start_time).then_some(state)
    }

    /// Whether it has ended; its parent may not have noticed yet.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.state().is_none_or(|state| state == 'Z')
    }
}

/// A thread's or process's state, and when it started.
pub(super) fn stat(path: &Path) -> io::Result<(char, u64)> {
    let text = fs::read_to_string(path)?;
    // The name, in brackets, may hold anything.
    let fields = text.rsplit_once(") ").map(|(_, rest)| rest.split(' ').collect::<Vec<_>>());
    let parsed = fields
        .and_then(|fields| Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?)));
    parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "an odd stat file"))
}

/// The start of a process that runs `folkmoot serve`, or what it is instead.
fn is_node(pid: u32) -> Result<u64, String> {
    let (state, start) = stat(Path::new(&format!("/proc/{pid}/stat")))
        .map_err(|_| "does not run (`pgrep -f 'folkmoot serve'` lists nodes)".to_owned())?;
    if state == 'Z' {
        return Err("has ended".into());
    }
    let exe = fs::read_link(format!("/proc/{pid}/exe"))
        .map_err(|error| format!("does not show its program ({error}): run this as root"))?;
    let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Linux says so when the file has been replaced since.
    let name = name.trim_end_matches(" (deleted)");
    if name != "folkmoot" {
        return Err(format!("is {}, not folkmoot", exe.display()));
    }
    match arguments(pid).iter().any(|argument| argument == "serve") {
        true => Ok(start),
        false => Err("runs folkmoot, but not as a node (folkmoot serve)".into()),
    }
}

fn arguments(pid: u32) -> Vec<String> {
    words(&format!("/proc/{pid}/cmdline"))
}

/// The words of a file in which each ends with a zero.
pub(super) fn words(path: &str) -> Vec<String> {
    let bytes = fs::read(path).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// The settings that a node runs with.
fn settings(pid: u32) -> Result<Value, FaultError> {
    let mut command = Command::new(format!("/proc/{pid}/exe"));
    command.args(["config", "print", "--json"]);
    let arguments = arguments(pid).into_iter().skip_while(|argument| argument != "serve").skip(1);
    command.args(arguments.filter(|argument| argument != "--until-stdin-closes"));
    command.env_clear();
    for variable in words(&format!("/proc/{pid}/environ")) {
        if let Some((name, value)) = variable.split_once('=')
            && name.starts_with("FOLKMOOT_")
        {
            command.env(name, value);
        }
    }
    command.current_dir(format!("/proc/{pid}/cwd")).stdin(Stdio::null());
    let output = command.output().map_err(FaultError::io(format!("settings of process {pid}")))?;
    serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        FaultError::Refused(format!("process {pid} does not tell its settings: {}", said.trim()))
    })
}

/// Makes sure that a process has a data directory's lock: it is that one's node.
fn holds(pid: u32, data_dir: &Path) -> Result<(), String> {
    if !data_dir.join("log/identity.json").exists() {
        let shown = data_dir.display();
        return Err(format!("has no log/identity.json in {shown}: it is in no cluster yet"));
    }
    let lock = data_dir.join("LOCK");
    let owner = fs::read_to_string(&lock).unwrap_or_default();
    match owner.trim() == pid.to_string() || is_open(pid, &lock) {
        true => Ok(()),
        false => Err(format!("does not hold {}", lock.display())),
    }
}

/// Whether a process has a file open.
fn is_open(pid: u32, path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == path))
}

/// A process's network namespace. It stays usable when the process has ended.
pub(super) fn network_namespace(target: &Target) -> Result<File, FaultError> {
    target.check()?;
    let path = format!("/proc/{}/ns/net", target.pid);
    let file = File::open(&path).map_err(FaultError::io(path))?;
    target.check()?;
    Ok(file)
}
