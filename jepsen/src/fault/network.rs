//! What happens to a node's packets: partitions, one-way too, loss, resets. As nft rules in the
//! node's own network namespace, in a table of our own, on the ports of Folkmoot only.
//!
//! ```text
//! table inet folkmoot_fault
//!   chain partition_in, partition_out   each fault has two chains of its own, so that faults add up,
//!   chain loss_in, loss_out             and each is replaced or healed by itself
//! ```
//!
//! It takes one side to break a link: a partition of two halves is one call for each node of the
//! smaller half, with the nodes of the other half as `peers`.

use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::fault::plan::{Held, Step};
use crate::fault::target::network_namespace;
use crate::fault::tool::{self, Tool, await_that};
use crate::fault::{FaultError, Missing, Plan, Target};

/// The nft table of all faults.
const TABLE: &str = "inet folkmoot_fault";

/// So many connections of a probe: half of the packets of each are lost, at least.
const PROBE_CONNECTIONS: u32 = 12;
/// How long one of them may take; a first packet is sent again after a second only.
const PROBE_WITHIN: Duration = Duration::from_millis(700);

/// Which packets of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Those that it is sent.
    In,
    /// Those that it sends.
    Out,
    /// All.
    Both,
}

impl Direction {
    fn hooks(self) -> &'static [Hook] {
        match self {
            Direction::In => &[Hook::In],
            Direction::Out => &[Hook::Out],
            Direction::Both => &[Hook::In, Hook::Out],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hook {
    In,
    Out,
}

/// Which of a node's links.
#[derive(Clone, Debug, Default)]
pub struct Links {
    /// Those to these peers; by their peer addresses.
    pub peers: Vec<SocketAddr>,
    /// Those of all clients.
    pub clients: bool,
}

/// Packets of one link, in one of its two roles.
pub(super) struct Packets {
    /// The other end; `None` for any.
    pub far: Option<IpAddr>,
    /// A port of the other end, if `at_far`; else of the node.
    pub port: u16,
    /// Whose the port is.
    pub at_far: bool,
}

impl Packets {
    /// As nft has it.
    fn nft(&self, hook: Hook) -> String {
        let address = match (self.far, hook) {
            (None, _) => String::new(),
            (Some(IpAddr::V4(ip)), Hook::In) => format!("ip saddr {ip} "),
            (Some(IpAddr::V4(ip)), Hook::Out) => format!("ip daddr {ip} "),
            (Some(IpAddr::V6(ip)), Hook::In) => format!("ip6 saddr {ip} "),
            (Some(IpAddr::V6(ip)), Hook::Out) => format!("ip6 daddr {ip} "),
        };
        let end = if self.at_far == (hook == Hook::In) { "sport" } else { "dport" };
        format!("{address}tcp {end} {}", self.port)
    }
}

impl Links {
    /// The packets on these links: the node has connected to the peer, or the peer to the node.
    pub(super) fn packets(&self, target: &Target) -> Vec<Packets> {
        let mut found = vec![];
        for peer in &self.peers {
            let far = Some(peer.ip());
            found.push(Packets { far, port: peer.port(), at_far: true });
            found.push(Packets { far, port: target.peer.port(), at_far: false });
        }
        if self.clients {
            found.push(Packets { far: None, port: target.client.port(), at_far: false });
        }
        found
    }

    pub(super) fn check(&self, target: &Target) -> Result<(), FaultError> {
        if self.peers.is_empty() && !self.clients {
            return Err(FaultError::Refused(format!("no links of {} are named", target.name)));
        }
        let shared = self.peers.iter().find(|peer| {
            let ip = peer.ip();
            ip.is_loopback() || ip == target.peer.ip()
        });
        match shared {
            None => Ok(()),
            Some(peer) => Err(FaultError::Refused(format!(
                "{peer} and {} are on one machine's address, so their packets cannot be told \
                 apart; give each node an address of its own (`folkmoot-jepsen run` as root does)",
                target.name
            ))),
        }
    }
}

/// Cuts a node off from these peers.
///
/// # Errors
///
/// When the peers are not told apart by their addresses.
pub fn partition(
    target: &Target,
    peers: &[SocketAddr],
    direction: Direction,
) -> Result<Plan, FaultError> {
    let links = Links { peers: peers.to_vec(), clients: false };
    let fault = if direction == Direction::Both { "partition" } else { "oneway" };
    plan(fault, target, &links, direction, "drop")
}

/// Cuts all clients off from a node; its peers go on.
///
/// # Errors
///
/// When the node is gone.
pub fn clients(target: &Target) -> Result<Plan, FaultError> {
    let links = Links { peers: vec![], clients: true };
    plan("clients", target, &links, Direction::Both, "drop")
}

/// Loses so many of a hundred packets.
///
/// # Errors
///
/// When the peers are not told apart by their addresses.
pub fn loss(target: &Target, links: &Links, percent: u8) -> Result<Plan, FaultError> {
    let verdict = format!("{}drop", some(percent)?);
    plan("loss", target, links, Direction::Both, &verdict)
}

/// Answers so many of a hundred packets with a TCP reset: connections break, on both sides.
///
/// # Errors
///
/// When the peers are not told apart by their addresses.
pub fn reset(target: &Target, links: &Links, percent: u8) -> Result<Plan, FaultError> {
    let verdict = format!("{}reject with tcp reset", some(percent)?);
    plan("reset", target, links, Direction::Both, &verdict)
}

/// Removes every network fault from a node.
///
/// # Errors
///
/// When the node is gone.
pub fn heal(target: &Target) -> Result<Plan, FaultError> {
    let namespace = Namespace::of(target)?;
    let ruleset = format!("add table {TABLE}\ndelete table {TABLE}\n");
    Ok(Plan::new("heal", &[target]).inject_by(Inside::nft(&namespace, ruleset)))
}

/// So many of a hundred packets.
fn some(percent: u8) -> Result<String, FaultError> {
    match percent {
        100 => Ok(String::new()),
        1..100 => Ok(format!("numgen random mod 100 < {percent} ")),
        _ => Err(FaultError::Refused(format!("{percent} percent: use 1 to 100"))),
    }
}

fn plan(
    fault: &'static str,
    target: &Target,
    links: &Links,
    direction: Direction,
    verdict: &str,
) -> Result<Plan, FaultError> {
    links.check(target)?;
    let namespace = Namespace::of(target)?;
    let rules = inject_rules(fault, target, links, direction, verdict);
    Ok(Plan::new(fault, &[target])
        .inject_by(Inside::nft(&namespace, rules))
        .heal_by(Inside::nft(&namespace, heal_rules(fault))))
}

/// Both chains, empty. Packets pass them after the machine's own firewall.
fn chains(fault: &str) -> String {
    let mut rules = format!("add table {TABLE}\n");
    for (end, hook) in [("in", "input"), ("out", "output")] {
        let chain = format!("{TABLE} {fault}_{end}");
        rules += &format!("add chain {chain} {{ type filter hook {hook} priority 10; }}\n");
        rules += &format!("flush chain {chain}\n");
    }
    rules
}

fn inject_rules(
    fault: &str,
    target: &Target,
    links: &Links,
    direction: Direction,
    verdict: &str,
) -> String {
    let mut rules = chains(fault);
    for &hook in direction.hooks() {
        let end = if hook == Hook::In { "in" } else { "out" };
        for packets in links.packets(target) {
            let packets = packets.nft(hook);
            rules += &format!("add rule {TABLE} {fault}_{end} {packets} {verdict}\n");
        }
    }
    rules
}

fn heal_rules(fault: &str) -> String {
    let mut rules = chains(fault);
    for end in ["in", "out"] {
        rules += &format!("delete chain {TABLE} {fault}_{end}\n");
    }
    rules
}

/// A network namespace, held open.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    file: Arc<File>,
    pid: u32,
}

impl Namespace {
    pub(super) fn of(target: &Target) -> Result<Namespace, FaultError> {
        tool::root()?;
        let file = Arc::new(network_namespace(target)?);
        Ok(Namespace { file, pid: target.pid })
    }

    /// Does something in there, in a thread of its own.
    pub(super) fn inside<T: Send>(
        &self,
        work: impl FnOnce() -> Result<T, FaultError> + Send,
    ) -> Result<T, FaultError> {
        let thread = || {
            self.enter()?;
            work()
        };
        std::thread::scope(|scope| match scope.spawn(thread).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Moves this thread there.
    pub(super) fn enter(&self) -> Result<(), FaultError> {
        let entered =
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network));
        entered.map_err(|error| FaultError::io("network namespace")(error.into()))
    }
}

/// A tool that runs in a namespace.
#[derive(Debug)]
pub(super) struct Inside {
    namespace: Namespace,
    tool: Tool,
}

impl Inside {
    pub(super) fn new(namespace: &Namespace, tool: Tool) -> Inside {
        Inside { namespace: namespace.clone(), tool }
    }

    /// Loads rules, all or none.
    fn nft(namespace: &Namespace, ruleset: String) -> Inside {
        Inside::new(namespace, Tool::new("nft", ["-f", "-"]).input(ruleset))
    }
}

impl fmt::Display for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nsenter -t {} -n {}", self.namespace.pid, self.tool)
    }
}

impl Step for Inside {
    fn run(&self, _: &mut Held) -> Result<(), FaultError> {
        self.namespace.inside(|| self.tool.output().map(drop))
    }
}

/// A network namespace for a probe, gone when dropped.
pub(super) struct Scratch(Child);

impl Scratch {
    pub(super) fn new() -> Result<Scratch, FaultError> {
        tool::root()?;
        // `cat` ends when its input does, whatever becomes of us.
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let child = command.spawn().map_err(|_| tool::missing("unshare"))?;
        let scratch = Scratch(child);
        let ours = std::fs::read_link("/proc/self/ns/net").ok();
        let theirs = || std::fs::read_link(format!("/proc/{}/ns/net", scratch.0.id())).ok();
        await_that("a network namespace", Duration::from_secs(10), || {
            theirs().is_some() && theirs() != ours
        })?;
        Ok(scratch)
    }

    pub(super) fn namespace(&self) -> Result<Namespace, FaultError> {
        let path = format!("/proc/{}/ns/net", self.0.id());
        let file = Arc::new(File::open(&path).map_err(FaultError::io(path))?);
        Ok(Namespace { file, pid: self.0.id() })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node that nobody will ever reach, for probes.
pub(super) fn nobody() -> (Target, Links) {
    let at = |last: u8, port| SocketAddr::from(([192, 0, 2, last], port));
    let target = Target {
        name: "probe".into(),
        pid: 0,
        start_time: 0,
        peer: at(1, 7401),
        client: at(1, 7400),
        data_dir: "probe".into(),
    };
    (target, Links { peers: vec![at(2, 7401)], clients: true })
}

/// Tries rules with this verdict in a namespace of its own: connections are made, then are not,
/// and once the rules are gone are made again.
fn probe_verdict(verdict: &str) -> Result<(), Missing> {
    let tried = Scratch::new().and_then(|scratch| {
        let namespace = scratch.namespace()?;
        let up = Tool::new("ip", ["link", "set", "lo", "up"]);
        Inside::new(&namespace, up).run(&mut Held::default())?;
        let listen = || {
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .map_err(FaultError::io("a port for a probe"))
        };
        let listener = namespace.inside(listen)?;
        let peer = listener.local_addr().map_err(FaultError::io("a port for a probe"))?;
        let (mut target, _) = nobody();
        target.peer.set_ip(peer.ip());
        let links = Links { peers: vec![peer], clients: false };
        let rules = inject_rules("probe", &target, &links, Direction::Both, verdict);
        let all_connect = || namespace.inside(|| Ok(all_connect(peer)));
        let told = |so: bool, what: &str| match so {
            true => Ok(()),
            false => {
                Err(FaultError::Tool { command: format!("nft … {verdict}"), said: what.into() })
            }
        };
        told(all_connect()?, "there was no connection even without the rule")?;
        Inside::nft(&namespace, rules).run(&mut Held::default())?;
        told(!all_connect()?, "the rule did nothing to packets")?;
        Inside::nft(&namespace, heal_rules("probe")).run(&mut Held::default())?;
        told(all_connect()?, "there was no connection after the rule was removed")
    });
    tried.map_err(|error| error.missing("a kernel with nf_tables is needed"))
}

/// Whether each of a few connections is made at once.
fn all_connect(address: SocketAddr) -> bool {
    (0..PROBE_CONNECTIONS).all(|_| TcpStream::connect_timeout(&address, PROBE_WITHIN).is_ok())
}

/// Tries to drop packets.
///
/// # Errors
///
/// What is missing.
pub fn probe_drop() -> Result<(), Missing> {
    probe_verdict("drop")
}

/// Tries to lose packets at random.
///
/// # Errors
///
/// What is missing.
pub fn probe_loss() -> Result<(), Missing> {
    probe_verdict("numgen random mod 100 < 50 drop")
}

/// Tries to reset connections.
///
/// # Errors
///
/// What is missing.
pub fn probe_reset() -> Result<(), Missing> {
    probe_verdict("reject with tcp reset")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_fails_when_a_rule_does_nothing_to_packets() {
        // Needs what the probe needs.
        if probe_drop().is_err() {
            return;
        }
        let missing = probe_verdict("accept").unwrap_err();
        assert!(missing.to_string().contains("did nothing"), "{missing}");
    }
}
