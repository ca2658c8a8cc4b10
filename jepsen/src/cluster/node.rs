//! One node: a `folkmoot serve` that is started, ended and started again.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::cluster::disk::Disk;
use crate::cluster::made::{Made, Thing, wait};
use crate::cluster::network::Namespace;
use crate::cluster::process::Running;

/// How long a node may take to stop when asked.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take to say whether it is ready.
const ASK_WITHIN: Duration = Duration::from_secs(1);
/// Lines of a node's log that say why it stopped.
const LAST_LINES: usize = 4;

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
}

/// A node ended by itself.
#[derive(Clone, Debug)]
pub struct Exit {
    /// How.
    pub status: String,
    /// The last lines of its log.
    pub said: String,
}

impl Node {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it; nothing when it runs.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn start(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.child.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log)?;
        let (program, arguments) = self.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
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
        state.exits.push(Exit { status: status.to_string(), said: self.last_lines() });
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
                let said = self.last_lines();
                self.state().exits.push(Exit { status: status.to_string(), said });
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
        let ask = || -> io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&self.client, ASK_WITHIN)?;
            stream.set_read_timeout(Some(ASK_WITHIN))?;
            stream.write_all(b"GET /health/ready HTTP/1.0\r\n\r\n")?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line)?;
            Ok(line)
        };
        ask().is_ok_and(|line| line.split(' ').nth(1) == Some("200"))
    }

    /// Sends a signal; whether it ran.
    pub fn signal(&self, signal: Signal) -> bool {
        self.running().is_some_and(|running| running.signal(signal))
    }

    /// What its log ends with, without tracing's time stamps being parsed or cut.
    fn last_lines(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}
