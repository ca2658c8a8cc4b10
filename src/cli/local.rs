//! Nodes as child processes on this machine: for `demo` and `bench --local`.
//!
//! A child is in a process group of its own, so that Ctrl-C reaches only us, and we stop it in
//! order. It watches its standard input, whose other end we hold: should we be killed, it stops by
//! itself. Dropping a [`Local`] kills what still runs.

use std::fs::{File, TryLockError};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::cli::failure::{Failure, Outcome};
use crate::client::{Client, ClientOptions};

/// How long nodes may take to stop before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// Distance of the nodes' ports.
const PORT_STEP: u16 = 10;

/// Nodes to start.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// How many.
    pub nodes: u16,
    /// Where they keep their data, a directory each.
    pub dir: PathBuf,
    /// Client port of the first; its peer port is the next one.
    pub base_port: u16,
    /// Where their logs go.
    pub logs: Logs,
}

/// Where nodes' logs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logs {
    /// To our standard error, each line with the node's name before it.
    Stderr,
    /// To a file beside each node's directory.
    Files,
}

/// One node.
#[derive(Debug)]
pub(super) struct LocalNode {
    /// From 1.
    pub number: u16,
    /// Its process.
    pub pid: u32,
    /// Its data.
    pub dir: PathBuf,
    /// Where clients reach it.
    pub client: SocketAddr,
    /// Where its peers reach it.
    pub peer: SocketAddr,
    /// Has not been seen to end.
    pub running: bool,
    /// Its standard input: closing it stops the node.
    _stdin: Option<ChildStdin>,
}

/// Nodes on this machine.
#[derive(Debug)]
pub(super) struct Local {
    /// In order of their numbers.
    pub nodes: Vec<LocalNode>,
    exits: mpsc::Receiver<(u16, String)>,
    kill: CancellationToken,
    _lock: File,
}

impl LocalNode {
    /// The address for clients.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.client)
    }

    /// What starts this very node again, by hand.
    pub(super) fn command_line(&self, program: &str, join: &[SocketAddr]) -> String {
        format!("{program} {}", serve_args(&self.dir, self.client, self.peer, join).join(" "))
    }
}

impl Plan {
    /// Client and peer address of a node, which counts from 1.
    fn addresses(&self, number: u16) -> Option<(SocketAddr, SocketAddr)> {
        let client = self.base_port.checked_add((number - 1).checked_mul(PORT_STEP)?)?;
        if client == 0 {
            return None; // any free port: then nobody knows which
        }
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        Some((local(client), local(client.checked_add(1)?)))
    }

    /// Client and peer address of each node, all of which are free.
    pub(super) fn free_addresses(&self) -> Outcome<Vec<(SocketAddr, SocketAddr)>> {
        let addresses: Option<Vec<_>> =
            (1..=self.nodes).map(|number| self.addresses(number)).collect();
        let addresses = addresses.ok_or_else(|| {
            Failure::Usage(format!(
                "--base-port {} does not give every node its ports",
                self.base_port
            ))
        })?;
        for (client, peer) in &addresses {
            check_free(*client)?;
            check_free(*peer)?;
        }
        Ok(addresses)
    }

    /// Starts the nodes, after checking that every port is free and that nobody else runs nodes on this
    /// directory: beside others of another address, one that had died would be started there.
    pub(super) fn start(&self) -> Outcome<Local> {
        let addresses = self.free_addresses()?;
        let lock = self.lock()?;
        let (exited, exits) = mpsc::channel(usize::from(self.nodes));
        let kill = CancellationToken::new();
        let peers: Vec<SocketAddr> = addresses.iter().map(|(_, peer)| *peer).collect();
        let mut nodes = Vec::new();
        for (number, (client, peer)) in (1..=self.nodes).zip(addresses) {
            let dir = self.dir.join(format!("node{number}"));
            let args = serve_args(&dir, client, peer, &peers);
            let mut child = self.spawn(number, &args)?;
            let node = LocalNode {
                number,
                pid: child.id().unwrap_or_default(),
                dir,
                client,
                peer,
                running: true,
                _stdin: child.stdin.take(),
            };
            nodes.push(node);
            tokio::spawn(watch(number, child, kill.clone(), exited.clone()));
        }
        Ok(Local { nodes, exits, kill, _lock: lock })
    }

    /// Keeps others from the directory for as long as the file is open.
    fn lock(&self) -> Outcome<File> {
        let path = self.dir.join("lock");
        let failed = |error: std::io::Error| {
            Failure::failed(format!("cannot lock {}: {error}", path.display()))
        };
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::Error(error)) => Err(failed(error)),
            Err(TryLockError::WouldBlock) => Err(Failure::failed(format!(
                "the nodes in {} are run by another folkmoot; stop that first, or choose another \
                 --dir",
                self.dir.display()
            ))),
        }
    }

    fn spawn(&self, number: u16, args: &[String]) -> Outcome<Child> {
        let failed = |what: &str, error: std::io::Error| {
            Failure::failed(format!("cannot start node{number}: {what}: {error}"))
        };
        let program = std::env::current_exe().map_err(|error| failed("our program", error))?;
        let stderr = match self.logs {
            Logs::Stderr => Stdio::piped(),
            Logs::Files => {
                let path = self.dir.join(format!("node{number}.log"));
                std::fs::File::create(&path).map_err(|error| failed("its log", error))?.into()
            }
        };
        let mut child = Command::new(&program)
            .args(args)
            .arg("--until-stdin-closes")
            .env_remove("FOLKMOOT_CONFIG")
            .env_remove("NOTIFY_SOCKET") // it is about us
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&program.display().to_string(), error))?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(prefix(number, stderr));
        }
        Ok(child)
    }
}

fn serve_args(
    dir: &Path,
    client: SocketAddr,
    peer: SocketAddr,
    peers: &[SocketAddr],
) -> Vec<String> {
    let join: Vec<String> = peers.iter().map(SocketAddr::to_string).collect();
    let mut args: Vec<String> = vec!["serve".into(), "--data-dir".into()];
    args.push(dir.display().to_string());
    args.extend(["--client-listen".into(), client.to_string()]);
    args.extend(["--peer-listen".into(), peer.to_string()]);
    args.extend(["--join".into(), join.join(",")]);
    args
}

fn check_free(address: SocketAddr) -> Outcome {
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            Err(Failure::failed(format!(
                "port {} is in use; stop what uses it (another demo?), or choose others with \
                 --base-port",
                address.port()
            )))
        }
        Err(error) => Err(Failure::failed(format!("cannot listen on {address}: {error}"))),
    }
}

/// Passes a node's log on, line by line.
async fn prefix(number: u16, stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        eprintln!("[node{number}] {}", String::from_utf8_lossy(&line));
    }
}

/// Waits for a node to end, or ends it.
async fn watch(
    number: u16,
    mut child: Child,
    kill: CancellationToken,
    exited: mpsc::Sender<(u16, String)>,
) {
    let status = tokio::select! {
        status = child.wait() => status,
        () = kill.cancelled() => {
            let _ = child.start_kill();
            child.wait().await
        }
    };
    let _ = exited.send((number, status.map_or_else(|error| error.to_string(), describe))).await;
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

impl Local {
    /// Client addresses of all nodes.
    pub(super) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(LocalNode::url).collect()
    }

    /// Peer addresses of all nodes.
    pub(super) fn peers(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.peer).collect()
    }

    /// Waits until a node ends: its number and how. Pending once all have. Cancel safe.
    pub(super) async fn exited(&mut self) -> (u16, String) {
        let Some((number, how)) = self.exits.recv().await else {
            return std::future::pending().await;
        };
        for node in self.nodes.iter_mut().filter(|node| node.number == number) {
            node.running = false;
        }
        (number, how)
    }

    /// Runs something that needs all nodes; fails as soon as one ends.
    pub(super) async fn while_running<T>(
        &mut self,
        work: impl Future<Output = Outcome<T>>,
    ) -> Outcome<T> {
        tokio::select! {
            done = work => done,
            (number, how) = self.exited() => {
                // What it said last is still on its way through the pipe.
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err(Failure::failed(format!("node{number} ended ({how}); its log says why")))
            }
        }
    }

    /// Waits until every node answers.
    pub(super) async fn answering(urls: Vec<String>) -> Outcome {
        for url in urls {
            let options = ClientOptions { servers: vec![url], ..ClientOptions::default() };
            Client::connect(options)?.cluster_status().await?;
        }
        Ok(())
    }

    /// Stops all nodes gracefully; kills those that take too long, or all when `at_once` resolves.
    pub(super) async fn stop(mut self, at_once: impl Future<Output = ()>) {
        for node in self.nodes.iter().filter(|node| node.running) {
            let pid = i32::try_from(node.pid).ok().and_then(Pid::from_raw);
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM); // it may have ended just now
            }
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        tokio::pin!(at_once);
        while self.nodes.iter().any(|node| node.running) {
            tokio::select! {
                exited = timeout_at(deadline, self.exited()) => {
                    if exited.is_err() {
                        break;
                    }
                }
                () = &mut at_once => break,
            }
        }
        let killed: Vec<u16> = self.nodes.iter().filter(|n| n.running).map(|n| n.number).collect();
        self.kill.cancel();
        for number in &killed {
            eprintln!("folkmoot: node{number} did not stop in time and is killed");
        }
        while self.nodes.iter().any(|node| node.running) {
            self.exited().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(base_port: u16) -> Plan {
        Plan { nodes: 3, dir: "d".into(), base_port, logs: Logs::Stderr }
    }

    #[test]
    fn node_i_has_base_port_plus_ten_times_i_less_one_and_the_next() {
        let (client, peer) = plan(7400).addresses(3).unwrap();
        assert_eq!((client.port(), peer.port()), (7420, 7421));
        assert_eq!(plan(65_530).addresses(2), None);
        assert_eq!(plan(0).addresses(1), None);
    }

    #[tokio::test]
    async fn a_port_in_use_is_said_before_anything_starts() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = plan(port).start().unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} is in use")), "{error}");
    }
}
