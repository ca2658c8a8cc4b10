//! How an attack is done and undone: with the faults of [`crate::fault`], and by starting nodes.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::cluster::made::wait;
use crate::cluster::node::Node;
use crate::fault::delay::Delay;
use crate::fault::network::{self, Direction, Links};
use crate::fault::{self, FaultError, Plan, Target};
use crate::run::nemesis::cut::Cut;
use crate::run::nemesis::damage::Damage;
use crate::run::nemesis::storm::{self, Checkpoints};

/// How long a node may take to be ready once it was started.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a node may take to stop once its syncs fail.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// What is done.
#[derive(Debug)]
pub enum Act {
    /// Nodes are killed, and others paused.
    Stop {
        /// Killed.
        kill: Vec<usize>,
        /// Paused.
        pause: Vec<usize>,
    },
    /// Something happens to packets on each of these.
    Links(Vec<Link>),
    /// The power goes.
    PowerCut(Cut),
    /// A disk is filled until so many bytes are left.
    Fill {
        /// Whose.
        node: usize,
        /// Bytes.
        leave: u64,
    },
    /// A disk answers nobody.
    Stall {
        /// Whose.
        node: usize,
        /// Whatever happens.
        at_most: Duration,
    },
    /// A disk's syncs fail, from the nth on.
    FailSync {
        /// Whose.
        node: usize,
        /// Which.
        nth: u32,
    },
    /// A node's files change while it is down.
    Damage(Damage),
    /// A wall clock is wrong.
    Clock {
        /// Whose.
        node: usize,
        /// By how much it is ahead.
        seconds: f64,
        /// To and fro, so often; `None`: all the time.
        every: Option<Duration>,
    },
    /// Nodes are stopped and started, one after the other.
    RollingRestart(Vec<usize>),
    /// A node falls behind and comes back, several times.
    Storm {
        /// Who.
        node: usize,
    },
    /// A node takes checkpoints and rewrites its base all the time.
    CheckpointStorm {
        /// Who.
        node: usize,
        /// Whether it loses power in the end; else it is killed.
        cut: bool,
    },
}

/// A node, its peers, with clients or not, and what happens to packets between them.
type Link = (usize, Vec<usize>, bool, Packets);

/// What happens to packets.
#[derive(Clone, Copy, Debug)]
pub enum Packets {
    /// They are dropped.
    Drop(Direction),
    /// So many of a hundred are dropped.
    Lose(u8),
    /// So many of a hundred are answered with a reset.
    Reset(u8),
    /// They wait.
    Wait(Delay),
}

/// How an attack is undone. The default undoes nothing.
#[derive(Default)]
pub struct Undo {
    active: Vec<fault::Active>,
    /// Links were cut where the proxy has them.
    proxy: bool,
    /// Nodes to start.
    pub(super) start: Vec<usize>,
    /// Nodes whose files are to be put back, unless they have run on what was left of them.
    pub(super) damaged: Vec<(usize, fault::Active)>,
    /// Nodes that go on with a log that was damaged: what that means may show later.
    pub suspects: Vec<usize>,
    pub(super) checkpoints: Option<Checkpoints>,
    /// What came of it, worth counting: of each node, where it hits several.
    pub notes: Vec<String>,
    /// What a node should not have done.
    pub findings: Vec<String>,
}

impl Act {
    /// Drops packets on these links.
    pub(super) fn partition(links: Vec<(usize, Vec<usize>, Direction)>) -> Act {
        let dropped = |(node, peers, direction)| (node, peers, false, Packets::Drop(direction));
        Act::Links(links.into_iter().map(dropped).collect())
    }

    /// Something happens to one node's packets.
    pub(super) fn links(node: usize, peers: Vec<usize>, clients: bool, packets: Packets) -> Act {
        Act::Links(vec![(node, peers, clients, packets)])
    }

    /// Whether there is somebody to hit: an attack on packets needs a node that runs and sends some.
    pub(super) fn hits(&self, runs: impl Fn(usize) -> bool) -> bool {
        match self {
            Act::Links(links) => links.iter().any(|(node, ..)| runs(*node)),
            _ => true,
        }
    }

    /// Does it. What was done is in `undo` also when something went wrong.
    ///
    /// # Errors
    ///
    /// What went wrong.
    pub fn inject(&self, cluster: &Cluster, undo: &mut Undo) -> Result<(), String> {
        let node = |place: usize| &cluster.nodes[place];
        match self {
            Act::Stop { kill, pause } => {
                for place in pause {
                    undo.put(target(node(*place)).map(|target| fault::signal::pause(&target)))?;
                }
                undo.start.extend(kill);
                end(cluster, kill, |targets| {
                    targets.iter().try_for_each(|target| keep(fault::signal::kill(target)))
                })
            }
            Act::Links(links) if cluster.proxy.is_some() => cut_links(cluster, links, undo),
            Act::Links(links) => sending(links, |place| node(place).running().is_some())
                .into_iter()
                .try_for_each(|(place, peers, clients, packets)| {
                    let peers: Vec<_> = peers.iter().map(|peer| node(*peer).peer).collect();
                    let target = target(node(*place))?;
                    undo.put(plan_links(&target, peers, *clients, *packets))
                }),
            Act::PowerCut(cut) => cut.inject(cluster, undo),
            Act::Fill { node: place, leave } => {
                undo.put(fault::full::fill(&target(node(*place))?, *leave))
            }
            Act::Stall { node: place, at_most } => {
                undo.put(fault::stall::stall(&target(node(*place))?, *at_most))
            }
            Act::FailSync { node: place, nth } => fail_sync(node(*place), *place, *nth, undo),
            Act::Damage(damage) => damage.inject(cluster, undo),
            Act::Clock { node: place, seconds, every } => {
                let target = target(node(*place))?;
                undo.put(match every {
                    None => fault::clock::jump(&target, *seconds),
                    Some(every) => fault::clock::strobe(&target, *seconds, *every),
                })
            }
            Act::RollingRestart(places) => places.iter().try_for_each(|place| {
                node(*place).stop()?;
                start(node(*place))
            }),
            Act::Storm { node: place } => storm::snapshots(cluster, *place, undo),
            Act::CheckpointStorm { node: place, cut } => {
                undo.checkpoints = Some(Checkpoints::begin(cluster, *place, *cut)?);
                Ok(())
            }
        }
    }
}

/// Those links whose nodes run: one that another attack has ended has no packets, and stays away
/// until both are over. Where none of them runs there is nobody to attack, and that is told.
fn sending(links: &[Link], runs: impl Fn(usize) -> bool) -> Vec<&Link> {
    let running: Vec<&Link> = links.iter().filter(|(node, ..)| runs(*node)).collect();
    if running.is_empty() { links.iter().collect() } else { running }
}

/// Cuts links where the proxy has them.
fn cut_links(cluster: &Cluster, links: &[Link], undo: &mut Undo) -> Result<(), String> {
    let mut cut = BTreeSet::new();
    for (node, peers, _, packets) in links {
        let Packets::Drop(direction) = packets else {
            return Err("without namespaces links can be cut, and no more".into());
        };
        for peer in peers {
            if *direction != Direction::Out {
                cut.insert((*peer, *node));
            }
            if *direction != Direction::In {
                cut.insert((*node, *peer));
            }
        }
    }
    undo.proxy = true;
    if let Some(proxy) = &cluster.proxy {
        proxy.set(cut);
    }
    Ok(())
}

/// Lets a node's syncs fail, and sees whether it stops, as it must.
fn fail_sync(node: &Node, place: usize, nth: u32, undo: &mut Undo) -> Result<(), String> {
    let target = target(node)?;
    undo.put(Ok::<_, FaultError>(fault::fsync::fail(&target, nth, 2 * STOP_WITHIN)))?;
    undo.start.push(place);
    if wait(STOP_WITHIN, || node.running().is_none()) {
        undo.notes.push("stopped".into());
    } else {
        undo.findings.push(format!(
            "{} went on for {STOP_WITHIN:?} though its syncs failed: it must stop",
            node.name
        ));
    }
    Ok(())
}

impl Undo {
    /// Injects a fault, and keeps how to heal it.
    pub(super) fn put(&mut self, plan: Result<Plan, impl ToString>) -> Result<(), String> {
        let injected = plan.map_err(|error| error.to_string())?.inject();
        self.active.push(injected.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// Undoes it, and tells what came of that.
    pub fn heal(self, cluster: &Cluster) -> Healed {
        let mut healed = Healed::default();
        for (place, damage) in self.damaged {
            match damage.heal() {
                Ok(()) => {}
                Err(FaultError::Refused(_)) => healed.lost.push(place),
                Err(error) => healed.problems.push(error.to_string()),
            }
        }
        if let Some(proxy) = cluster.proxy.as_ref().filter(|_| self.proxy) {
            proxy.set(BTreeSet::new());
        }
        for active in self.active {
            healed.problems.extend(active.heal().err().map(|error| error.to_string()));
        }
        match self.checkpoints.map(|checkpoints| checkpoints.end(cluster)) {
            Some(Ok(times)) => healed.compactions = times,
            Some(Err(problem)) => healed.problems.push(problem),
            None => {}
        }
        for place in self.start.into_iter().filter(|place| !healed.lost.contains(place)) {
            let node = &cluster.nodes[place];
            let failed = node.start().err().map(|error| format!("{}: {error}", node.name));
            healed.problems.extend(failed);
        }
        healed
    }
}

/// What came of undoing an attack.
#[derive(Debug, Default)]
pub struct Healed {
    /// Nodes that cannot be undone: their disks forgot what they had acknowledged.
    pub lost: Vec<usize>,
    /// How often a base was rewritten.
    pub compactions: u64,
    /// What went wrong; all was tried.
    pub problems: Vec<String>,
}

/// A node as faults know it.
///
/// # Errors
///
/// When it does not run.
fn target(node: &Node) -> Result<Target, String> {
    let running = node.running().ok_or_else(|| format!("{} does not run", node.name))?;
    Ok(Target {
        name: node.name.clone(),
        pid: running.pid,
        start_time: running.start_time,
        peer: node.peer,
        client: node.client,
        data_dir: node.data_dir.clone(),
    })
}

/// Does something that ends nodes, of those that run; afterwards none of these does.
pub(super) fn end(
    cluster: &Cluster,
    places: &[usize],
    act: impl FnOnce(&[Target]) -> Result<(), FaultError>,
) -> Result<(), String> {
    let nodes: Vec<&Node> = places.iter().map(|place| &*cluster.nodes[*place]).collect();
    let targets: Vec<Target> = nodes.iter().filter_map(|node| target(node).ok()).collect();
    // From here on it is no news that they end.
    let children: Vec<_> = nodes.iter().filter_map(|node| node.take()).collect();
    let acted = act(&targets);
    for mut child in children {
        let _ = child.kill();
        let _ = child.wait();
    }
    acted.map_err(|error| error.to_string())
}

/// Injects what need not be healed.
pub(super) fn keep(plan: Plan) -> Result<(), FaultError> {
    plan.inject().map(fault::Active::stay)
}

/// Starts a node, and waits until it is ready.
pub(super) fn start(node: &Node) -> Result<(), String> {
    node.start().map_err(|error| format!("{}: {error}", node.name))?;
    let over = wait(READY_WITHIN, || node.is_ready() || node.running().is_none());
    match (over, node.running()) {
        (true, Some(_)) => Ok(()),
        (true, None) => Err(format!("{} ended instead of becoming ready", node.name)),
        (false, _) => Err(format!("{} was not ready within {READY_WITHIN:?}", node.name)),
    }
}

fn plan_links(
    target: &Target,
    peers: Vec<std::net::SocketAddr>,
    clients: bool,
    packets: Packets,
) -> Result<Plan, FaultError> {
    match packets {
        Packets::Drop(_) if clients => network::clients(target),
        Packets::Drop(direction) => network::partition(target, &peers, direction),
        Packets::Lose(percent) => network::loss(target, &Links { peers, clients }, percent),
        Packets::Reset(percent) => network::reset(target, &Links { peers, clients }, percent),
        Packets::Wait(how) => fault::delay::delay(target, &Links { peers, clients }, how),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_another_attack_ended_have_no_links() {
        let link = |node| (node, vec![0, 1, 2], false, Packets::Drop(Direction::Both));
        let links: Vec<Link> = (0..3).map(link).collect();
        let of = |runs: fn(usize) -> bool| {
            sending(&links, runs).into_iter().map(|(node, ..)| *node).collect::<Vec<_>>()
        };
        assert_eq!(of(|_| true), [0, 1, 2]);
        assert_eq!(of(|node| node != 1), [0, 2]);
        assert_eq!(of(|_| false), [0, 1, 2], "so that it is told that they do not run");
    }
}
