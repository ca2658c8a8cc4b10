//! A cluster of real `folkmoot` processes on this machine.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::http::Http;
use super::wait_for;

/// How long a node may take to become ready, on a busy machine.
const READY: Duration = Duration::from_secs(60);
/// Lines of each node's log that a failing test prints.
const LOG_LINES: usize = 60;

/// A running cluster. Its processes die with it, and its directories go.
pub struct TestCluster {
    nodes: Vec<Node>,
    admin_token: String,
    directory: tempfile::TempDir,
    options: Options,
}

/// How nodes are started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Further arguments of `serve`.
    pub arguments: Vec<String>,
    /// Environment of the nodes; `{node}` in a value stands for the node's number.
    pub environment: Vec<(String, String)>,
    /// Further arguments of `cluster init`.
    pub init_arguments: Vec<String>,
    /// A config file for each node, given as `--config`.
    pub configs: Vec<PathBuf>,
    /// Where each node is, if not on this machine's own network and disk.
    pub places: Vec<Place>,
}

/// A machine of a node's own, as far as it is to be told apart from others'.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its address.
    pub ip: IpAddr,
    /// The node's data directory.
    pub data_dir: PathBuf,
    /// What runs the node's command line there, as its first arguments.
    pub wrapper: Vec<String>,
}

struct Node {
    directory: PathBuf,
    log: PathBuf,
    client: String,
    peer: String,
    child: Option<Child>,
    /// Further arguments of its `serve`.
    arguments: Vec<String>,
}

impl Node {
    fn new(directory: &Path, i: usize, place: Option<&Place>) -> Node {
        let log = directory.join(format!("node{i}.log"));
        let Some(place) = place else {
            let address = || format!("127.0.0.1:{}", free_port());
            let directory = directory.join(format!("node{i}"));
            let (client, peer) = (address(), address());
            return Node { directory, log, client, peer, child: None, arguments: vec![] };
        };
        let address = |port: u16| SocketAddr::new(place.ip, port).to_string();
        let (client, peer) = (address(7400), address(7401));
        let directory = place.data_dir.clone();
        Node { directory, log, client, peer, child: None, arguments: vec![] }
    }
}

/// A port that is free now, and that the system does not hand out by itself: a node must find its
/// own port free again after a restart.
pub fn free_port() -> u16 {
    free_ports(1)
}

/// The first of so many free ports in a row, none of which this process gets again soon.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + (std::process::id() % 400) as u16 * 50;
    for _ in 0..20_000 {
        let first = base + NEXT.fetch_add(count, Ordering::Relaxed) % 2_000;
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
    panic!("no {count} free ports in a row");
}

/// The product's binary. To another crate's tests cargo does not tell where it is: beside them.
fn binary() -> PathBuf {
    if let Some(path) = option_env!("CARGO_BIN_EXE_folkmoot") {
        return path.into();
    }
    let deps = std::env::current_exe().unwrap();
    let path = deps.ancestors().nth(2).unwrap().join("folkmoot");
    assert!(path.exists(), "no {}: cargo build --release --workspace", path.display());
    path
}

/// The product's program, without settings from the tests' own environment.
pub fn folkmoot() -> Command {
    command_of(&[])
}

fn command_of(wrapper: &[String]) -> Command {
    let words: Vec<_> = wrapper.iter().map(OsString::from).chain([binary().into()]).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FOLKMOOT_") {
            command.env_remove(name);
        }
    }
    command
}

/// The standard output of a command that must succeed.
pub fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output.stdout
}

impl TestCluster {
    /// Starts a cluster of `n` nodes and waits until it is ready.
    pub fn start(n: usize) -> TestCluster {
        TestCluster::start_with(n, Options::default())
    }

    /// The same, with options.
    pub fn start_with(n: usize, options: Options) -> TestCluster {
        let mut cluster = TestCluster::start_uninitialized(n, options);
        cluster.init();
        cluster.wait_ready();
        cluster
    }

    /// Starts three nodes with two shards, which write checkpoints all the time, and six rooms in them.
    pub fn start_with_rooms() -> (TestCluster, Vec<String>) {
        let options = Options {
            arguments: vec!["--set".into(), "store.checkpoint_interval=200ms".into()],
            init_arguments: vec!["--shards".into(), "2".into()],
            ..Options::default()
        };
        let cluster = TestCluster::start_with(3, options);
        let rooms: Vec<_> = (0..6).map(|i| format!("room-{i}")).collect();
        rooms.iter().for_each(|room| cluster.room(room));
        (cluster, rooms)
    }

    /// Starts nodes that form no cluster yet.
    pub fn start_uninitialized(n: usize, options: Options) -> TestCluster {
        let directory = tempfile::tempdir().unwrap();
        let node = |i| Node::new(directory.path(), i, options.places.get(i));
        let nodes = (0..n).map(node).collect();
        let mut cluster = TestCluster { nodes, admin_token: String::new(), directory, options };
        for i in 0..n {
            cluster.restart(i);
        }
        cluster
    }

    /// Forms the cluster with `folkmoot cluster init`.
    pub fn init(&mut self) {
        let nodes = self.nodes.len().to_string();
        let mut command = folkmoot();
        command.args(["cluster", "init", "--json", "--nodes", &nodes]);
        command.args(["--server", &self.url(0)]).args(&self.options.init_arguments);
        let init = wait_for("cluster init", READY, || {
            let output = command.output().map_err(|e| e.to_string())?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned());
            }
            serde_json::from_slice::<Value>(&output.stdout).map_err(|e| e.to_string())
        });
        self.admin_token = init["admin_token"].as_str().expect("an admin_token").to_owned();
    }

    /// Starts one more node, which joins the cluster and gets its part of the replicas and leaders.
    /// Returns its number.
    pub fn add_node(&mut self) -> usize {
        self.add_node_with(&[])
    }

    /// Starts one more node, which joins the cluster as a gateway: it never has a replica.
    pub fn add_gateway(&mut self) -> usize {
        self.add_node_with(&["--gateway"])
    }

    /// Starts one more node with further arguments, and with a join token.
    pub fn add_node_with(&mut self, arguments: &[&str]) -> usize {
        let token = self.join_token("1h");
        self.add_node_of(&[arguments, &["--join-token", &token]].concat())
    }

    /// What a command says to programs, asked of node `i`; it must succeed.
    pub fn json(&self, i: usize, arguments: &[&str]) -> Value {
        let mut command = self.cli(i, arguments);
        command.args(["--json", "--timeout", "60s"]);
        serde_json::from_slice(&succeed(&mut command)).unwrap()
    }

    /// Makes a token that lets one more node join.
    pub fn join_token(&self, ttl: &str) -> String {
        let running = self.nodes.iter().position(|node| node.child.is_some());
        let made = self.json(running.expect("a node runs"), &["node", "token", "--ttl", ttl]);
        made["token"].as_str().expect("a token").to_owned()
    }

    /// Starts one more node with these further arguments, which may not let it join.
    pub fn add_node_of(&mut self, arguments: &[&str]) -> usize {
        let i = self.len();
        let mut node = Node::new(self.directory.path(), i, self.options.places.get(i));
        node.arguments = arguments.iter().map(ToString::to_string).collect();
        self.nodes.push(node);
        self.restart(i);
        i
    }

    /// Changes the further arguments with which a node starts next.
    pub fn set_arguments(&mut self, i: usize, arguments: &[&str]) {
        self.nodes[i].arguments = arguments.iter().map(ToString::to_string).collect();
    }

    /// The command that starts a node, for tests that start it in another way.
    pub fn serve_command(&self, i: usize) -> Command {
        let others = self.nodes.iter().enumerate().filter(|(j, _)| *j != i);
        let join: Vec<_> = others.map(|(_, node)| node.peer.clone()).collect();
        let node = &self.nodes[i];
        let place = self.options.places.get(i);
        let mut command = command_of(place.map_or(&[], |place| &place.wrapper));
        command.arg("serve").arg("--data-dir").arg(&node.directory);
        command.args(["--client-listen", &node.client, "--peer-listen", &node.peer]);
        if !join.is_empty() {
            command.args(["--join", &join.join(",")]);
        }
        if let Some(config) = self.options.configs.get(i) {
            // The file's addresses are those of other machines.
            command.arg("--config").arg(config);
            command.args(["--client-advertise", &node.client, "--peer-advertise", &node.peer]);
        }
        // One user of a test often does what many do otherwise.
        for limit in ["user", "token"] {
            command.args(["--set", &format!("limits.{limit}_requests_per_second=0")]);
        }
        command.args(&self.options.arguments).args(&node.arguments);
        let environment = self.options.environment.iter();
        command.envs(environment.map(|(k, v)| (k, v.replace("{node}", &i.to_string()))));
        command.stdin(Stdio::null());
        command
    }

    /// The command line, pointed at a node as the admin.
    pub fn cli(&self, i: usize, arguments: &[&str]) -> Command {
        let mut command = folkmoot();
        command.args(arguments).stdin(Stdio::null());
        command.env("FOLKMOOT_SERVER", self.url(i)).env("FOLKMOOT_TOKEN", &self.admin_token);
        command
    }

    /// How many nodes there are, running or not.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The admin's token.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// A node's peer address.
    pub fn peer(&self, i: usize) -> SocketAddr {
        self.nodes[i].peer.parse().unwrap()
    }

    /// Takes note that a node was killed by other means.
    pub fn killed(&mut self, i: usize) {
        let mut child = self.nodes[i].child.take().expect("the node ran");
        child.wait().unwrap();
    }

    /// A node's client URL.
    pub fn url(&self, i: usize) -> String {
        format!("http://{}", self.nodes[i].client)
    }

    /// Every node's client URL.
    pub fn client_urls(&self) -> Vec<String> {
        (0..self.len()).map(|i| self.url(i)).collect()
    }

    /// A client of a node, without a token.
    pub fn http(&self, i: usize) -> Http {
        Http::new(&self.url(i))
    }

    /// A client of a node, as the admin.
    pub fn admin(&self, i: usize) -> Http {
        self.http(i).with_token(&self.admin_token)
    }

    /// A node's data directory.
    pub fn data_dir(&self, i: usize) -> &Path {
        &self.nodes[i].directory
    }

    /// A directory for the test's own files, gone with the cluster.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A running node's process id.
    pub fn pid(&self, i: usize) -> u32 {
        self.nodes[i].child.as_ref().expect("the node runs").id()
    }

    /// Starts a node that does not run, on its old directory and ports.
    pub fn restart(&mut self, i: usize) {
        let node = &self.nodes[i];
        assert!(node.child.is_none(), "node {i} runs already");
        let log = File::options().create(true).append(true).open(&node.log).unwrap();
        let mut command = self.serve_command(i);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.nodes[i].child = Some(command.spawn().expect("the binary starts"));
    }

    /// Starts a node that may find that it cannot run; waits until it is ready or has failed.
    ///
    /// # Errors
    /// What it said then.
    pub fn try_restart(&mut self, i: usize) -> Result<(), String> {
        let begin = self.log(i).len();
        self.restart(i);
        let http = self.http(i);
        let child = self.nodes[i].child.as_mut().expect("the node runs");
        let ended = wait_for(&format!("node {i} to run or give up"), READY, || {
            match (child.try_wait().unwrap(), http.get("/health/ready")) {
                (Some(status), _) => Ok(Some(status)),
                (None, Ok(answer)) if answer.status == 200 => Ok(None),
                (None, _) => Err("neither".into()),
            }
        });
        let Some(status) = ended else { return Ok(()) };
        self.nodes[i].child = None;
        let said = self.log(i)[begin..].to_owned();
        assert!(status.code().is_some_and(|code| code != 0), "{status}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        Err(said)
    }

    /// What a node has logged so far, over all its starts.
    pub fn log(&self, i: usize) -> String {
        fs::read_to_string(&self.nodes[i].log).unwrap_or_default()
    }

    /// Waits until a node has exited by itself.
    pub fn wait_exit(&mut self, i: usize) -> ExitStatus {
        let child = self.nodes[i].child.as_mut().expect("the node runs");
        let status = wait_for(&format!("node {i} to exit"), READY, || {
            child.try_wait().unwrap().ok_or_else(|| "it runs".into())
        });
        self.nodes[i].child = None;
        status
    }

    /// How the replicas stand, as `GET /v1/cluster` of a node tells it: of each shard and node.
    pub fn shards(&self, via: usize) -> Vec<Value> {
        let status = self.admin(via).get("/v1/cluster").unwrap().expect(200);
        status["shards"].as_array().expect("shards").clone()
    }

    /// The id that the cluster knows a node by.
    pub fn node_id(&self, via: usize, i: usize) -> u64 {
        wait_for("the node to be known", READY, || {
            let status = self.admin(via).get("/v1/cluster").unwrap().expect(200);
            let mut nodes = status["nodes"].as_array().expect("nodes").iter();
            let node = nodes.find(|node| node["client_address"] == *self.nodes[i].client);
            node.and_then(|node| node["id"].as_u64()).ok_or_else(|| status.to_string())
        })
    }

    /// A node that leads a shard: the `turn`th of them, in turn.
    pub fn a_leader(&self, turn: usize) -> usize {
        wait_for("a shard with a leader", Duration::from_secs(30), || {
            let shards = self.shards(turn % self.len());
            let leads = |id: u64| shards.iter().any(|s| s["node"] == id && s["state"] == "leader");
            let leaders: Vec<usize> =
                (0..self.len()).filter(|i| leads(self.node_id(turn % self.len(), *i))).collect();
            let one = leaders.get(turn % leaders.len().max(1));
            one.copied().ok_or_else(|| "nobody leads".into())
        })
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, i: usize) {
        let mut child = self.nodes[i].child.take().expect("the node runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks a node to stop with SIGTERM, and waits until it has.
    pub fn stop(&mut self, i: usize) -> ExitStatus {
        self.signal(i, Signal::TERM);
        let mut child = self.nodes[i].child.take().expect("the node runs");
        let begin = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if begin.elapsed() > Duration::from_secs(30) {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("node {i} does not stop on SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal to a running node.
    pub fn signal(&self, i: usize, signal: Signal) {
        let pid = i32::try_from(self.pid(i)).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).unwrap();
    }

    /// Waits until every running node answers `/health/ready` with 200.
    ///
    /// # Panics
    /// After a minute, and at once where a node has exited.
    pub fn wait_ready(&mut self) {
        for i in 0..self.len() {
            if self.nodes[i].child.is_some() {
                self.wait_ready_node(i);
            }
        }
    }

    /// Waits until one node is ready.
    pub fn wait_ready_node(&mut self, i: usize) {
        let http = self.http(i);
        let child = self.nodes[i].child.as_mut().expect("the node runs");
        wait_for(&format!("node {i} to be ready"), READY, || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("node {i} exited with {status}");
            }
            match http.get("/health/ready") {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(String::from_utf8_lossy(&answer.body).into_owned()),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// Creates a user; their token.
    pub fn user(&self, user: &str) -> String {
        let made = self.admin(0).post("/v1/users", &json!({ "user": user })).unwrap().expect_made();
        made["token"].as_str().expect("a token").to_owned()
    }

    /// Creates a public room, as the admin, who is in it then.
    pub fn room(&self, room: &str) {
        let body = json!({ "room": room, "title": room, "kind": "public" });
        self.admin(0).post("/v1/rooms", &body).unwrap().expect_made();
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                // A node that has exited by itself can't be killed; the log says why.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        if std::thread::panicking() {
            for node in &self.nodes {
                let log = fs::read_to_string(&node.log).unwrap_or_default();
                let lines: Vec<_> = log.lines().collect();
                let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
                eprintln!("---- end of {}\n{tail}", node.log.display());
            }
        }
    }
}
