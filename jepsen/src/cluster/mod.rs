//! The cluster under test: real nodes on this machine, in network namespaces of their own with
//! disks of their own (as root), or at 127.0.0.1, 127.0.0.2, … (`--local`).
//!
//! ```text
//! namespace fmj…-sw: bridge ─┬─ fmj…-n1: folkmoot serve ── data/n1, ext4 over data/n1.img
//!                            ├─ fmj…-n2: …
//!                            └─ fmj…-cl: the clients' threads
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

pub mod disk;
pub mod interrupt;
pub mod made;
pub mod network;
pub mod node;
pub mod process;
pub mod proxy;

use crate::fault;
use disk::Disk;
use made::Made;
use network::{Namespace, Network};
use node::Node;
use proxy::Proxy;

/// Ports that nodes take in namespaces of their own.
const CLIENT_PORT: u16 = 7400;
const PEER_PORT: u16 = 7401;
/// Ports that the system does not hand out by itself: a node must find its own free again.
const LOCAL_PORTS: Range<u16> = 10_000..30_000;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The product's program.
    pub bin: PathBuf,
    /// How many nodes form the cluster.
    pub nodes: usize,
    /// How many more there are, which are away at first.
    pub spares: usize,
    /// No namespaces and no disks.
    pub local: bool,
    /// Whether links between nodes are to be cut. Without namespaces all that they carry passes through
    /// this program then, which takes its time.
    pub cuts: bool,
    /// The directory for data and logs.
    pub directory: PathBuf,
    /// The size of each node's disk.
    pub disk_bytes: u64,
    /// Settings of the nodes, `section.field=value`.
    pub settings: Vec<String>,
    /// Whether the nodes' wall clocks can be set wrong.
    pub clocks: bool,
}

/// A cluster that was made, whatever runs of it.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, `n1` first; spare ones after those that form the cluster.
    pub nodes: Vec<Arc<Node>>,
    /// Where clients belong, if not here.
    pub clients: Option<Namespace>,
    /// The links between nodes without namespaces of their own, if they can be cut.
    pub proxy: Option<Proxy>,
    bin: PathBuf,
    /// How many nodes form the cluster.
    founders: usize,
    made: Arc<Made>,
    admin: OnceLock<Admin>,
}

/// The first admin.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Their token.
    pub token: String,
}

impl Cluster {
    /// Makes what the nodes need, and starts none of them.
    ///
    /// # Errors
    ///
    /// What a tool said, or which ports are taken.
    pub fn make(plan: &Plan, made: Arc<Made>) -> Result<Cluster, String> {
        let data = plan.directory.join("data");
        let logs = plan.directory.join("logs");
        for directory in [&data, &logs] {
            fs::create_dir_all(directory)
                .map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        let mut network = None;
        let count = plan.nodes + plan.spares;
        if !plan.local {
            network = Some(Network::make(&made, count)?);
        }
        let mut places = vec![];
        for i in 0..count {
            let ports = match &network {
                None => {
                    let ip = local_address(i)?;
                    let at = |port| SocketAddr::from((ip, port));
                    let [client, peer, peer_listen] = free_ports(ip, LOCAL_PORTS)?.map(at);
                    (client, peer, if plan.cuts { peer_listen } else { peer })
                }
                Some(network) => {
                    let ip: IpAddr = network.nodes[i].1;
                    let peer = SocketAddr::new(ip, PEER_PORT);
                    (SocketAddr::new(ip, CLIENT_PORT), peer, peer)
                }
            };
            places.push(ports);
        }
        let mut nodes = vec![];
        for i in 0..count {
            let name = format!("n{}", i + 1);
            let disk = match plan.local {
                true => None,
                false => Some(Disk::make(&made, &data, &name, plan.disk_bytes)?),
            };
            let (client, peer, peer_listen) = places[i];
            let mut node = Node {
                data_dir: data.join(&name).join("folkmoot"),
                log: logs.join(format!("{name}.log")),
                client,
                peer,
                peer_listen,
                disk,
                namespace: network.as_ref().map(|network| network.nodes[i].0.clone()),
                command: vec![],
                environment: vec![],
                state: Mutex::new(node::State::new(i >= plan.nodes)),
                made: made.clone(),
                name,
            };
            let join: Vec<_> = places.iter().map(|(_, peer, _)| peer.to_string()).collect();
            if plan.clocks {
                let clock = data.join(format!("{}.clock", node.name));
                node.environment =
                    fault::clock::environment(&clock).map_err(|error| error.to_string())?;
            }
            node.command = serve(plan, &node, &join.join(","));
            nodes.push(Arc::new(node));
        }
        let clients = network.map(|network| network.clients);
        let proxy = if plan.local && plan.cuts { Some(Proxy::start(&nodes)?) } else { None };
        let (bin, founders, admin) = (plan.bin.clone(), plan.nodes, OnceLock::new());
        Ok(Cluster { nodes, clients, proxy, bin, founders, made, admin })
    }

    /// Forms the cluster out of nodes that run.
    ///
    /// # Errors
    ///
    /// What `folkmoot cluster init` said.
    pub fn init(&self) -> Result<Admin, String> {
        let count = self.founders.to_string();
        let server = format!("http://{}", self.nodes[0].client);
        let arguments = ["cluster", "init", "--json", "--nodes", &count, "--server", &server];
        let output = self.folkmoot(&arguments)?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let formed: serde_json::Value =
            serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        let token = formed["admin_token"].as_str().ok_or("`cluster init` printed no token")?;
        let admin = Admin { token: token.to_owned() };
        Ok(self.admin.get_or_init(|| admin).clone())
    }

    /// Runs the product's command line where clients belong, as the first admin if there is one; what
    /// it printed.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn folkmoot(&self, arguments: &[&str]) -> Result<Output, String> {
        let mut command = Command::new(&self.bin);
        command.args(arguments);
        self.run(command)
    }

    /// Runs a program that runs the product's command line, as [`Cluster::folkmoot`] does.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub fn run(&self, mut command: Command) -> Result<Output, String> {
        command.stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FOLKMOOT_") {
                command.env_remove(name);
            }
        }
        if let Some(admin) = self.admin() {
            command.env("FOLKMOOT_TOKEN", &admin.token);
        }
        let program = command.get_program().to_owned();
        let output = match &self.clients {
            None => command.output(),
            Some(namespace) => namespace.inside(move || command.output()).and_then(|output| output),
        };
        output.map_err(|error| format!("{}: {error}", program.display()))
    }

    /// The program that is tested.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The nodes that are part of the cluster, or are to be, by their place.
    #[must_use]
    pub fn present(&self) -> BTreeSet<usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(_, node)| !node.is_away()).map(|(place, _)| place).collect()
    }

    /// The first admin, once the cluster is formed.
    #[must_use]
    pub fn admin(&self) -> Option<&Admin> {
        self.admin.get()
    }

    /// The node of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Lets every node end soon, and none start again.
    pub fn close(&self) {
        self.nodes.iter().for_each(|node| node.close());
    }

    /// Kills every node, and takes away all that was made. What could not be taken away is said.
    pub fn remove(&self) -> Vec<String> {
        for node in &self.nodes {
            node.kill();
        }
        self.made.undo()
    }
}

fn serve(plan: &Plan, node: &Node, join: &str) -> Vec<String> {
    let mut command = vec![plan.bin.display().to_string(), "serve".into()];
    let mut option = |name: &str, value: &dyn std::fmt::Display| {
        command.extend([name.to_owned(), value.to_string()]);
    };
    option("--data-dir", &node.data_dir.display());
    option("--client-listen", &node.client);
    option("--peer-listen", &node.peer_listen);
    option("--peer-advertise", &node.peer);
    option("--join", &join);
    for setting in &plan.settings {
        option("--set", setting);
    }
    command.push("--until-stdin-closes".into());
    command
}

/// An address of this machine's own for each node, the first of which is 127.0.0.1.
fn local_address(node: usize) -> Result<Ipv4Addr, String> {
    let last = u8::try_from(node + 1).map_err(|error| error.to_string())?;
    Ok(Ipv4Addr::new(127, 0, 0, last))
}

/// Three free ports at an address, of which this process gets none again.
fn free_ports(ip: Ipv4Addr, among: Range<u16>) -> Result<[u16; 3], String> {
    static TAKEN: Mutex<Vec<u16>> = Mutex::new(vec![]);
    let mut taken = TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let spread = (std::process::id() % 200) as u16 * 100 % (among.end - among.start);
    let mut found = vec![];
    for port in (among.start + spread..among.end).chain(among.clone()) {
        if !taken.contains(&port) && TcpListener::bind((ip, port)).is_ok() {
            taken.push(port);
            found.push(port);
        }
        if let [client, peer, peer_listen] = found[..] {
            return Ok([client, peer, peer_listen]);
        }
    }
    let (first, last) = (among.start, among.end - 1);
    Err(format!("{ip} has no three free ports among {first}-{last}: end what listens there"))
}

/// The product's program: as given, or beside this one.
///
/// # Errors
///
/// Where it is not.
pub fn find_bin(given: Option<&Path>) -> Result<PathBuf, String> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => {
            let this = std::env::current_exe().map_err(|error| error.to_string())?;
            this.with_file_name("folkmoot")
        }
    };
    if path.is_file() {
        // Faults know a node by the name of its program.
        if path.file_name().is_none_or(|name| name != "folkmoot") {
            return Err(format!("{}: the program must be called folkmoot", path.display()));
        }
        return std::path::absolute(path).map_err(|error| error.to_string());
    }
    Err(format!(
        "there is no folkmoot at {}: build it with `cargo build --release`, or say where with --bin",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_away_once_and_taken_ones_never() {
        let ip = Ipv4Addr::new(127, 0, 0, 77);
        let base = free_ports(ip, 30_000..30_400).unwrap()[0];
        let among = base + 10..base + 16;
        let held: Vec<_> =
            among.clone().take(3).map(|port| TcpListener::bind((ip, port))).collect();
        assert!(held.iter().all(Result::is_ok), "{held:?}");
        let mut found = free_ports(ip, among.clone()).unwrap();
        found.sort_unstable();
        assert_eq!(found, [base + 13, base + 14, base + 15]);
        drop(held);
        let rest = free_ports(ip, among.clone());
        assert!(rest.is_ok(), "{rest:?}");
        let said = free_ports(ip, among).unwrap_err();
        assert!(said.contains("127.0.0.77") && said.contains("free ports"), "{said}");
    }

    #[test]
    fn each_local_node_has_an_address_of_its_own() {
        let all: Vec<_> = (0..5).map(|node| local_address(node).unwrap().to_string()).collect();
        assert_eq!(all, ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"]);
    }
}
