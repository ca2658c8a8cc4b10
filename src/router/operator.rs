//! What operators ask of a cluster: where replicas and leaders are to be, and which nodes are to go.
//!
//! An order changes the cluster map, or hands over a lead, and returns: what follows from a changed
//! map is done by whoever leads the groups (`node/placement/`), also if whoever gave the order is
//! gone by then. Giving the same order again does nothing more.

use std::time::Duration;

use crate::error::{Code, Error};
use crate::id::{NodeId, ShardId};
use crate::limits::CAUGHT_UP_LAG_MAX;
use crate::meta::planner::{self, Action, Facts};
use crate::meta::{ClusterMap, Node};
use crate::proto::internal as pb;
use crate::proto::internal::request::Command;
use crate::proto::v1;
use crate::router::{Router, forward, odd_reply, placement};
use crate::shard::runtime::{Instant, Runtime};
use crate::shard::{Refused, Shard};

/// How often an order that was given on a map that has changed since is given again.
const ATTEMPTS: u32 = 5;
/// How long the meta group may take to give the map, where an old one will do.
const MAP_WITHIN: Duration = Duration::from_secs(2);
/// For how long a transfer of a lead is tried.
const TRANSFER_FOR: Duration = Duration::from_secs(10);
/// Before it is tried again.
const TRANSFER_PAUSE: Duration = Duration::from_millis(20);

/// An order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Move a replica of a shard from one node to another.
    MoveShard {
        /// The shard.
        shard: ShardId,
        /// The node that has it.
        from: NodeId,
        /// The node that is to have it.
        to: NodeId,
    },
    /// Hand the lead of a shard to one of its voters.
    TransferLeader {
        /// The shard.
        shard: ShardId,
        /// The node that is to lead.
        to: NodeId,
    },
    /// Spread replicas, or leaders, or both evenly.
    Rebalance {
        /// Whether replicas are to be moved.
        replicas: bool,
        /// Whether leaders are to be moved.
        leaders: bool,
    },
    /// Move all leaders away from a node, and let none come.
    Drain(NodeId),
    /// Let a node that was drained, or was to be removed, take part as before.
    Resume(NodeId),
    /// Move all replicas away from a node, then forget it.
    Remove {
        /// The node.
        node: NodeId,
        /// The node that is to have its replicas; `None` = those with the fewest.
        successor: Option<NodeId>,
    },
}

/// As a person reads it in the audit log.
impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Order::MoveShard { shard, from, to } => {
                write!(f, "move shard {shard} from node {from} to node {to}")
            }
            Order::TransferLeader { shard, to } => {
                write!(f, "transfer the lead of shard {shard} to node {to}")
            }
            Order::Rebalance { replicas: true, leaders: true } => {
                write!(f, "spread replicas and leaders evenly")
            }
            Order::Rebalance { replicas: true, .. } => write!(f, "spread replicas evenly"),
            Order::Rebalance { .. } => write!(f, "spread leaders evenly"),
            Order::Drain(node) => write!(f, "drain node {node}"),
            Order::Resume(node) => write!(f, "resume node {node}"),
            Order::Remove { node, successor: None } => write!(f, "remove node {node}"),
            Order::Remove { node, successor: Some(successor) } => {
                write!(f, "replace node {node} by node {successor}")
            }
        }
    }
}

/// What an order means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Steps, for a person, in order. Empty: it is so already.
    pub steps: Vec<String>,
}

impl<R: Runtime> Router<R> {
    /// Carries out an order of `who`'s, or says what it would do. Returns once it is decided and known
    /// to the cluster; replicas are moved from then on ([`Router::read_map`] shows how far that is).
    ///
    /// What is done is recorded with it, a transfer before it is begun; a refusal, too, if it can be.
    ///
    /// # Errors
    /// Why it is refused, and nothing is changed then; or why the cluster could not be reached.
    pub async fn operate(&self, who: &str, order: Order, dry_run: bool) -> Result<Plan, Error> {
        if dry_run {
            let map = self.read_map().await?;
            return Ok(self.decide(&map, &order).await?.1);
        }
        let action = order.to_string();
        let outcome = self.operate_on(who, &action, &order).await;
        if let Err(error) = &outcome
            && !error.temporary()
        {
            self.try_record(who, &action, &format!("refused: {}", error.message)).await;
        }
        outcome
    }

    async fn operate_on(&self, who: &str, action: &str, order: &Order) -> Result<Plan, Error> {
        let mut attempt = 1;
        loop {
            let map = self.read_map().await?;
            let (command, plan) = self.decide(&map, order).await?;
            let Some(command) = command else {
                self.record(who, action, "nothing to do").await?;
                break Ok(plan);
            };
            match self.carry_out(command, who, action).await {
                Ok(()) => break Ok(plan),
                // Somebody else, or the planner, has changed the map meanwhile.
                Err(error)
                    if attempt < ATTEMPTS
                        && error.code == Code::Forbidden
                        && self.read_map().await?.version() != map.version() =>
                {
                    attempt += 1;
                }
                Err(error) => break Err(error),
            }
        }
    }

    /// What an order comes to on a map.
    async fn decide(&self, map: &ClusterMap, order: &Order) -> Decision {
        if !map.is_formed() {
            return Err(placement::no_cluster());
        }
        match *order {
            Order::MoveShard { shard, from, to } => move_shard(map, shard, from, to),
            Order::TransferLeader { shard, to } => transfer(map, shard, to),
            Order::Rebalance { replicas, leaders } => {
                // What is wished for already stays so: a node that has joined waits for its part.
                let (so_far, leaders_so_far) = map.rebalance();
                let wanted = pb::Rebalance {
                    replicas: replicas || so_far,
                    leaders: leaders || leaders_so_far,
                };
                let set =
                    pb::SetRebalance { wanted: Some(wanted), expected_version: map.version() };
                self.decide_meta(map, Command::SetRebalance(set)).await
            }
            Order::Drain(node) => {
                let (command, mut plan) =
                    self.set_state(map, node, pb::NodeState::Draining, None).await?;
                plan.steps.clear();
                if command.is_some() {
                    let facts = self.facts().await;
                    check_drain(map, node, &facts)?;
                    let leads = facts.leaders.into_iter();
                    let leads = leads.filter(|(_, leader)| *leader == node);
                    plan.steps.push(format!("let node {node} lead nothing"));
                    plan.steps.extend(leads.map(|(shard, _)| {
                        format!("transfer the lead of shard {shard} away from node {node}")
                    }));
                }
                Ok((command, plan))
            }
            Order::Resume(node) => {
                let (command, mut plan) =
                    self.set_state(map, node, pb::NodeState::Active, None).await?;
                if command.is_some() {
                    plan.steps.insert(0, format!("let node {node} take part as before"));
                }
                Ok((command, plan))
            }
            Order::Remove { node, successor } if map.is_removed(node) => {
                successor.map_or(Ok(()), |successor| map.check_known(successor))?;
                Ok((None, Plan::default()))
            }
            Order::Remove { node, successor } => {
                self.set_state(map, node, pb::NodeState::Leaving, successor).await
            }
        }
    }

    async fn set_state(
        &self,
        map: &ClusterMap,
        node: NodeId,
        state: pb::NodeState,
        successor: Option<NodeId>,
    ) -> Decision {
        let successor = successor.map_or(0, |node| node.0);
        let set = pb::SetNodeState { node: node.0, state: state.into(), successor };
        self.decide_meta(map, Command::SetNodeState(set)).await
    }

    /// A command of the meta group, and what the planner will make of it.
    async fn decide_meta(&self, map: &ClusterMap, command: Command) -> Decision {
        let mut then = map.clone();
        let done = then.carry_out(command.clone()).map_err(Error::from)?;
        if done.duplicate {
            return Ok((None, Plan::default()));
        }
        let steps = planner::preview(&then, &self.facts().await);
        let steps = steps.iter().map(ToString::to_string).collect();
        Ok((Some(Decided::Meta(command)), Plan { steps }))
    }

    async fn carry_out(&self, decided: Decided, who: &str, action: &str) -> Result<(), Error> {
        match decided {
            Decided::Meta(command) => {
                let audit = pb::Audit { who: who.into(), action: action.into() };
                self.propose_meta_for(command, Some(audit)).await.map(|_| ())
            }
            Decided::Transfer { shard, to } => {
                self.record(who, action, "begun").await?;
                let done = self.transfer_leader(shard, to).await;
                match &done {
                    Ok(()) => self.try_record(who, action, "done").await,
                    Err(error) if error.temporary() => {
                        self.try_record(who, action, &format!("failed: {}", error.message)).await;
                    }
                    // Refused, and recorded as such.
                    Err(_) => {}
                }
                done
            }
        }
    }

    /// Hands the lead of a shard to a node, wherever its leader is; returns once that node says that
    /// it leads.
    ///
    /// # Errors
    /// When the node trails, or has not taken the lead within ten seconds.
    pub async fn transfer_leader(&self, shard: ShardId, to: NodeId) -> Result<(), Error> {
        let began = R::Instant::now();
        loop {
            let mut maybe_applied = false;
            // Only the node itself knows whether it leads: who else thinks so may know old things.
            let ask = |leader| async move {
                if Some(leader) == self.node_id() {
                    let replica = self.host().get(shard);
                    let replica = replica.ok_or_else(|| crate::shard::not_leader(None))?;
                    self.hand_over(&replica, to).await?;
                    return Ok(leader == to);
                }
                let request = forward::Request::Transfer(pb::TransferLead { to: to.0 });
                match self.forwarder(leader).ask(shard, request).await? {
                    forward::Reply::Transferring(_) => Ok(leader == to),
                    _ => Err(odd_reply()),
                }
            };
            let error = match self.at_leader(shard, &mut maybe_applied, ask).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    self.note_leader(shard, Some(to));
                    let why = format!("node {to} has not taken the lead of shard {shard} yet");
                    Error::new(Code::Unavailable, why).maybe_applied()
                }
                Err(error) => error,
            };
            let again = error.code == Code::Unavailable && self.worth_a_retry(&error);
            if !again || began.elapsed() > TRANSFER_FOR {
                return Err(error);
            }
            R::sleep(TRANSFER_PAUSE).await;
        }
    }

    /// Hands over the lead of a replica here, if it leads, to one that has caught up; well if it is the
    /// one that is to.
    pub(super) async fn hand_over(&self, shard: &Shard<R>, to: NodeId) -> Result<(), Refused> {
        let refused = |error| Refused { error, leader: None };
        match shard.leader() {
            leader if leader != self.node_id() => return Err(crate::shard::not_leader(leader)),
            Some(leader) if leader == to => return Ok(()),
            _ => {}
        }
        if !shard.has_voter(to) {
            let why = format!("node {to} does not vote in shard {}", shard.id());
            return Err(refused(Error::invalid(why)));
        }
        if let Some(why) = shard.trails(to.0) {
            let why = format!("{why}, and cannot lead shard {} yet: try again later", shard.id());
            return Err(refused(Error::new(Code::Forbidden, why)));
        }
        if !shard.hand_over_to(to).await {
            let why = format!("node {to} has not taken the lead of shard {}", shard.id());
            return Err(refused(Error::new(Code::Unavailable, why).maybe_applied()));
        }
        Ok(())
    }

    /// The shards that would have no quorum if a node stopped now.
    ///
    /// # Errors
    /// When there is no such node, or no cluster.
    pub async fn quorum_critical(&self, node: NodeId) -> Result<Vec<ShardId>, Error> {
        // What is known here may be old; where nobody can say better, it is what there is to go by.
        let read = R::timeout(MAP_WITHIN, self.read_map()).await;
        let map = read.ok().and_then(Result::ok).unwrap_or_else(|| self.map());
        if !map.is_formed() {
            return Err(placement::no_cluster());
        }
        if map.node(node).is_none() {
            let nodes: Vec<NodeId> = map.nodes().map(|node| node.id).collect();
            let why = format!("there is no node {node}: the nodes are {}", ids(&nodes));
            return Err(Error::invalid(why));
        }
        let status = self.status().await;
        let serves = |shard: ShardId, id: NodeId| {
            let mut replicas = status.shards.iter();
            replicas.any(|replica| {
                (replica.shard, replica.node) == (u32::from(shard.0), id.0)
                    && replica.state != "stopped"
                    && replica.lag <= CAUGHT_UP_LAG_MAX
            })
        };
        let critical = map.placements().filter(|placement| {
            // Without a leader nobody knows who has caught up.
            let leaderless = status.leaderless.contains(&u32::from(placement.shard.0));
            // While members change, each decision takes a majority of those before and of those after;
            // and the leader knows of what the map has not heard yet.
            let leads = |replica: &&v1::ShardStatus| {
                replica.shard == u32::from(placement.shard.0) && replica.state == "leader"
            };
            let leader = status.shards.iter().filter(leads).max_by_key(|replica| replica.term);
            let voting: Vec<NodeId> =
                leader.iter().flat_map(|replica| &replica.voters).map(|id| NodeId(*id)).collect();
            [&placement.settled, &placement.target, &voting].into_iter().any(|voters| {
                let others = voters.iter().filter(|id| **id != node);
                let serving = others.filter(|id| serves(placement.shard, **id)).count();
                voters.contains(&node) && (leaderless || serving <= voters.len() / 2)
            })
        });
        Ok(critical.map(|placement| placement.shard).collect())
    }
}

/// What an order comes to, and its steps; nothing, if it is so already.
type Decision = Result<(Option<Decided>, Plan), Error>;

/// What is to be done about an order.
enum Decided {
    Meta(Command),
    Transfer { shard: ShardId, to: NodeId },
}

/// Whether somebody that answers could lead what a node leads, were that drained. (That nobody at all
/// could is refused by the rules.)
fn check_drain(map: &ClusterMap, node: NodeId, facts: &Facts) -> Result<(), Error> {
    let may_lead = |id: &NodeId| {
        let takes = map.node(*id).is_some_and(|known| known.takes_replicas());
        *id != node && takes && facts.reachable.contains(id)
    };
    let mut its = map.placements().filter(|placement| placement.settled.contains(&node));
    match its.find(|placement| !placement.settled.iter().any(may_lead)) {
        None => Ok(()),
        Some(placement) => Err(Error::new(
            Code::Forbidden,
            format!(
                "nobody that answers could lead shard {} then: it is on nodes {}",
                placement.shard,
                ids(&placement.settled)
            ),
        )),
    }
}

/// To a voter that may lead.
fn transfer(map: &ClusterMap, shard: ShardId, to: NodeId) -> Decision {
    let placement = map.placement(shard).ok_or_else(|| no_shard(map, shard))?;
    if !placement.settled.contains(&to) {
        return Err(Error::invalid(format!(
            "node {to} does not vote in shard {shard}: those that do are {}",
            ids(&placement.settled)
        )));
    }
    let named = map.node(to);
    if !named.as_ref().is_some_and(Node::takes_replicas) {
        let state = named.map_or("removed", |node| node.standing());
        let message = format!("node {to} is {state}, and leads nothing");
        return Err(Error::new(Code::Forbidden, message));
    }
    let plan = Plan { steps: vec![Action::TransferLeader { shard, to }.to_string()] };
    Ok((Some(Decided::Transfer { shard, to }), plan))
}

fn move_shard(map: &ClusterMap, shard: ShardId, from: NodeId, to: NodeId) -> Decision {
    let placement = map.placement(shard).ok_or_else(|| no_shard(map, shard))?;
    let has = |node| placement.target.contains(&node);
    if !has(from) && has(to) {
        return Ok((None, Plan::default()));
    }
    let why = match (has(from), has(to)) {
        (false, _) => format!(
            "node {from} has no replica of shard {shard}: those that do are {}",
            ids(&placement.target)
        ),
        (_, true) => format!("node {to} has a replica of shard {shard} already"),
        _ => String::new(),
    };
    if !why.is_empty() {
        return Err(Error::invalid(why));
    }
    let target = placement.replaced(from, to);
    map.check_target(shard, &target).map_err(Error::from)?;
    // What goes back goes: there it is, for all that the map knows.
    if target != placement.settled {
        map.check_lead(shard, &target, None).map_err(Error::from)?;
    }
    let steps = vec![Action::SetTarget { shard, target: target.clone() }.to_string()];
    let set = pb::SetTarget {
        shard: u32::from(shard.0),
        target: target.iter().map(|node| node.0).collect(),
        expected_version: map.version(),
    };
    Ok((Some(Decided::Meta(Command::SetTarget(set))), Plan { steps }))
}

fn no_shard(map: &ClusterMap, shard: ShardId) -> Error {
    let last = map.placements().map(|placement| placement.shard.0).max().unwrap_or(0);
    Error::invalid(format!("there is no shard {shard}: they are 0 (meta) to {last}"))
}

fn ids(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
