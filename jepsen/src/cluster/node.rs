//! One node: a `folkmoot serve` that is started, ended and started again.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cluster::disk::Disk;
use crate::cluster::made::{Made, Thing, wait};
use crate::cluster::network::Namespace;
use crate::cluster::process::Running;

/// How long a node may take to stop when asked.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take to say whether it is ready.
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// How long it may take to rewrite its base.
const COMPACT_WITHIN: Duration = Duration::from_secs(30);
/// Lines of a node's log that say why it stopped.
const LAST_LINES: usize = 4;
/// What a node says that must not go on under its id, as its log has lost something.
const LOST: &str = "must not vote";

/// A node of the cluster under test.
#[derive(Debug)]
pub struct Node {
    /// `n1`, …
    pub name: String,
    /// Where clients reach it.
    pub client: SocketAddr,
    /// Where its peers reach it.
    pub peer: SocketAddr,
    /// Where it listens for its peers: a proxy may stand before it.
    pub peer_listen: SocketAddr,
    /// Where it keeps everything.
    pub data_dir: PathBuf,
    /// What it says, over all its starts.
    pub log: PathBuf,
    /// The file system of its data, when it has one of its own.
    pub disk: Option<Disk>,
    pub(super) namespace: Option<Namespace>,
    pub(super) command: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) state: Mutex<State>,
    pub(super) made: Arc<Made>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    child: Option<Child>,
    running: Option<Running>,
    /// Times that it ended though nobody had asked it to.
    exits: Vec<Exit>,
    /// Where in its log the present life began, in bytes.
    life: u64,
    /// How far its log was looked through for panics, in bytes.
    read: u64,
    /// Further options of its next start.
    extra: Vec<String>,
    /// It is not started any more.
    closed: bool,
    /// It is no part of the cluster, and is not started until it is to be.
    away: bool,
}

impl State {
    /// It does not run; whether it is away.
    pub(super) fn new(away: bool) -> State {
        State { away, ..State::default() }
    }
}

/// A node ended by itself.
#[derive(Clone, Debug)]
pub struct Exit {
    /// When that was noticed.
    pub at: Instant,
    /// How.
    pub status: String,
    /// The last lines of its log.
    pub said: String,
    /// Whether it said that its log has lost what it had acknowledged.
    pub lost: bool,
}

impl Node {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it; nothing when it runs, or is away.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.child.is_some() || state.away {
            return Ok(());
        }
        if state.closed {
            return Err(io::Error::other("the run is over"));
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        state.life = log.metadata()?.len();
        let (program, arguments) = self.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(&state.extra)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FOLKMOOT_") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let child = match &self.namespace {
            None => command.spawn()?,
            Some(namespace) => namespace.inside(move || command.spawn())??,
        };
        let running = Running::of(child.id())?;
        // Its standard input is held open by the child: it stops when this program is gone.
        state.child = Some(child);
        state.running = Some(running);
        self.made.note(Thing::Process(running))
    }

    /// Its process, when it runs. A node that ended by itself meanwhile is noted as such.
    pub fn running(&self) -> Option<Running> {
        let mut state = self.state();
        let exited = state.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        if let Some(status) = exited {
            self.note_exit(&mut state, status);
        }
        state.running
    }

    fn note_exit(&self, state: &mut State, status: ExitStatus) {
        state.child = None;
        state.running = None;
        let exit = self.exit(state, status);
        state.exits.push(exit);
    }

    fn exit(&self, state: &State, status: ExitStatus) -> Exit {
        let life = String::from_utf8_lossy(&self.log_from(state.life)).into_owned();
        let lines: Vec<&str> = life.lines().collect();
        Exit {
            at: Instant::now(),
            status: status.to_string(),
            said: lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"),
            lost: life.contains(LOST),
        }
    }

    /// Its log from a byte on.
    fn log_from(&self, from: u64) -> Vec<u8> {
        let mut read = vec![];
        let whole = File::open(&self.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(from))?;
            file.read_to_end(&mut read)
        });
        // A log that is not there says nothing.
        drop(whole);
        read
    }

    /// Lines of its log that should never be there, and that were not told before.
    pub fn new_panics(&self) -> Vec<String> {
        let mut state = self.state();
        let new = self.log_from(state.read);
        // A line that is still being written is for the next time.
        let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        state.read += whole as u64;
        let text = String::from_utf8_lossy(&new[..whole]);
        text.lines().filter(|line| line.contains("panicked at")).map(ToOwned::to_owned).collect()
    }

    /// How long its log is now, in bytes.
    pub fn log_length(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |meta| meta.len())
    }

    /// How often its log has this from a byte on.
    pub fn said_since(&self, from: u64, what: &str) -> usize {
        String::from_utf8_lossy(&self.log_from(from)).matches(what).count()
    }

    /// Options that come after the others from its next start on.
    pub fn set_extra(&self, options: &[&str]) {
        self.state().extra = options.iter().map(ToString::to_string).collect();
    }

    /// Whether it is no part of the cluster.
    pub fn is_away(&self) -> bool {
        self.state().away
    }

    /// Ends it, and takes away all that it has: when it is started again it is another node at the
    /// same address. Until [`Node::enter`] nobody starts it.
    ///
    /// # Errors
    ///
    /// When its directory cannot be removed.
    pub fn leave(&self) -> io::Result<()> {
        self.state().away = true;
        self.kill();
        match fs::remove_dir_all(&self.data_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Starts it where it is away, with these options until others are set.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn enter(&self, options: &[String]) -> io::Result<()> {
        {
            let mut state = self.state();
            state.away = false;
            state.extra = options.to_vec();
        }
        self.start()
    }

    /// Lets it end soon, and never start again.
    pub fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        if let Some(child) = &mut state.child {
            // It may have ended meanwhile.
            let _ = child.kill();
        }
    }

    /// How often it ended by itself, and why.
    pub fn exits(&self) -> Vec<Exit> {
        self.running();
        self.state().exits.clone()
    }

    /// Kills it; whether it ran.
    pub fn kill(&self) -> bool {
        if self.running().is_none() {
            return false;
        }
        let mut state = self.state();
        let Some(mut child) = state.child.take() else { return false };
        state.running = None;
        drop(state);
        // It can only have ended by itself meanwhile.
        let _ = child.kill();
        let _ = child.wait();
        true
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    ///
    /// When it does not: it is killed then.
    pub fn stop(&self) -> Result<(), String> {
        let Some(running) = self.running() else { return Ok(()) };
        running.signal(Signal::TERM);
        let mut state = self.state();
        let Some(mut child) = state.child.take() else { return Ok(()) };
        state.running = None;
        drop(state);
        let mut status = None;
        let ended = wait(STOP_WITHIN, || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        });
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{} did not stop within {STOP_WITHIN:?} of SIGTERM", self.name));
        }
        match status {
            Some(status) if !status.success() => {
                let mut state = self.state();
                let exit = self.exit(&state, status);
                state.exits.push(exit);
                Err(format!("{} stopped with {status} when asked to stop", self.name))
            }
            _ => Ok(()),
        }
    }

    /// Its process, for somebody who is about to end it and will wait for it: from here on it does
    /// not run.
    pub fn take(&self) -> Option<Child> {
        self.running()?;
        let mut state = self.state();
        state.running = None;
        state.child.take()
    }

    /// Whether it answers that it is ready. To be asked where clients belong.
    pub fn is_ready(&self) -> bool {
        self.ask("GET", "/health/ready", "", ASK_WITHIN).is_ok()
    }

    /// The cluster as it sees it. To be asked where clients belong.
    pub fn cluster(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.ask("GET", "/v1/cluster", "", ASK_WITHIN).ok()?).ok()
    }

    /// Lets it rewrite its base, as this admin. To be asked where clients belong.
    ///
    /// # Errors
    ///
    /// When it does not, or not in time.
    pub fn compact(&self, token: &str) -> io::Result<()> {
        self.ask("POST", "/v1/node/compact", token, COMPACT_WITHIN).map(drop)
    }

    /// What it answers, if that is 200.
    fn ask(&self, method: &str, path: &str, token: &str, within: Duration) -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.client, ASK_WITHIN)?;
        stream.set_read_timeout(Some(within))?;
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.client);
        head += "connection: close\r\ncontent-length: 0\r\n";
        if !token.is_empty() {
            head += &format!("authorization: Bearer {token}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match (answer.split(' ').nth(1), answer.split_once("\r\n\r\n")) {
            (Some("200"), Some((_, body))) => Ok(body.to_owned()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Sends a signal; whether it ran.
    pub fn signal(&self, signal: Signal) -> bool {
        self.running().is_some_and(|running| running.signal(signal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::interrupt::Interrupt;

    /// A node that runs this shell script in place of a server.
    fn node(directory: &std::path::Path, script: &str) -> Node {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Node {
            name: "n1".into(),
            client: address,
            peer: address,
            peer_listen: address,
            data_dir: directory.join("data"),
            log: directory.join("n1.log"),
            disk: None,
            namespace: None,
            command: ["/bin/sh", "-c", script, "sh"].map(str::to_owned).to_vec(),
            environment: vec![],
            state: Mutex::default(),
            made: Arc::new(Made::begin(Interrupt::never()).unwrap()),
        }
    }

    #[test]
    fn what_a_node_said_before_it_ended_is_of_that_life() {
        let directory = tempfile::tempdir().unwrap();
        let script = "echo thread a panicked at b; test $# -gt 0 && echo it must not vote; exit 3";
        let node = node(directory.path(), script);
        let live = || {
            node.start().unwrap();
            assert!(wait(Duration::from_secs(20), || node.running().is_none()));
            node.exits().pop().unwrap()
        };
        node.set_extra(&["x"]);
        let first = live();
        assert!(first.lost && first.said.ends_with("it must not vote"), "{first:?}");
        assert_eq!(first.status, "exit status: 3");
        let length = node.log_length();
        node.set_extra(&[]);
        let second = live();
        assert!(!second.lost && second.at > first.at, "that was another life: {second:?}");
        assert_eq!(node.exits().len(), 2);
        assert_eq!(node.said_since(length, "panicked"), 1);
        assert_eq!(node.new_panics().len(), 2);
        assert_eq!(node.new_panics(), Vec::<String>::new(), "each is told once");
        fs::create_dir_all(node.data_dir.join("log")).unwrap();
        node.leave().unwrap();
        assert!(node.is_away() && !node.data_dir.exists());
        node.start().unwrap();
        assert!(node.running().is_none(), "it is away");
        node.enter(&["x".into()]).unwrap();
        assert!(wait(Duration::from_secs(20), || node.exits().len() == 3));
        assert!(!node.is_away() && node.exits()[2].lost, "it had the option");
        node.close();
        node.start().unwrap_err();
        assert_eq!(node.made.undo(), Vec::<String>::new());
    }
}
