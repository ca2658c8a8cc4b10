//! What operators do to a cluster, as planned, and what it does by itself: replicas and leads are moved,
//! nodes join, are drained, replaced and removed.
//!
//! Orders go the way of the admin API, at any node ([`Router::operate`]), and are given again until they
//! are answered; faults strike meanwhile. What is ordered is done by the nodes in their own time: a life
//! ends well only once no order is open and all of it is done (`life.rs`, `placement.rs`).
//!
//! [`Router::operate`]: folkmoot::router::Router::operate

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use folkmoot::error::{Code, Error};
use folkmoot::id::NodeId;
use folkmoot::meta::{ClusterMap, NodeState, join_token};
use folkmoot::node::groups::Membership;
use folkmoot::proto::internal as pb;
use folkmoot::router::operator::Order;
use folkmoot::shard::runtime::AsyncRuntime;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::cluster::{Node, Running};
use crate::plan::{Fault, Plan, Strike};
use crate::runtime::{Sim, between};
use crate::workload::World;

/// How long an answer to an order is waited for.
const ORDER_WITHIN: Duration = Duration::from_secs(5);
/// For how long a join token is valid: a life is shorter, however wrong its clocks are.
const TOKEN_TTL_MS: u64 = 600_000;
/// How often, and at what intervals, it is looked whether a node may go.
const LOSS_LOOKS: u32 = 40;
const LOSS_LOOK: Duration = Duration::from_millis(50);
/// What an order is called that takes a node out of the cluster.
const LOSS: &str = "lose node";

/// What was begun and is not done yet.
#[derive(Debug, Default)]
pub struct Orders(Mutex<Vec<String>>);

impl Orders {
    /// What is open, if anything is that begins so.
    pub fn open(&self, begins: &str) -> Option<String> {
        let open = self.0.lock().expect("no holder of the lock panics");
        open.iter().find(|what| what.starts_with(begins)).cloned()
    }
}

/// An order that is open until this is dropped.
struct Open(Arc<World>, String);

impl Open {
    fn new(world: &Arc<World>, what: String) -> Open {
        let orders = &world.cluster.orders;
        orders.0.lock().expect("no holder of the lock panics").push(what.clone());
        Open(world.clone(), what)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = self.0.cluster.orders.0.lock().expect("no holder of the lock panics");
        if let Some(at) = open.iter().position(|what| *what == self.1) {
            open.remove(at);
        }
    }
}

/// Gives orders, as planned.
pub struct Operator {
    world: Arc<World>,
    plan: Plan,
    /// Set once every founder was seen to have its groups.
    formed: AtomicBool,
    /// One node joins at a time, so that it is known which id each is to get.
    joining: Arc<tokio::sync::Mutex<()>>,
}

impl Operator {
    /// For a world.
    pub fn new(world: Arc<World>, plan: &Plan) -> Operator {
        Operator {
            world,
            plan: plan.clone(),
            formed: AtomicBool::new(false),
            joining: Arc::default(),
        }
    }

    fn node(&self, id: NodeId) -> &Arc<Node> {
        &self.world.cluster.nodes[&id]
    }

    /// Carries out a strike that changes the cluster.
    pub async fn carry_out(&self, strike: &Strike, on: &[NodeId], rng: &mut SmallRng) {
        match strike.fault {
            Fault::Move => self.relocate(strike, on, rng).await,
            Fault::Wipe => self.wipe(on[0], rng),
            Fault::Drain => self.drain(strike, on[0], rng),
            Fault::Rebalance => self.rebalance(on, rng).await,
            Fault::Replace => self.replace(strike, on[0], rng).await,
            Fault::Absence => self.leave(on[0], rng).await,
            Fault::Join => {
                let rng = SmallRng::seed_from_u64(rng.random());
                drop(Sim::spawn(join(self.world.clone(), self.joining.clone(), rng)));
            }
            _ => {}
        }
    }

    /// `cluster init` has succeeded once every founder has its groups; who founds a cluster on a disk
    /// that is lost before that begins anew.
    pub fn is_formed(&self) -> bool {
        if self.formed.load(Ordering::Relaxed) {
            return true;
        }
        let formed = self.world.cluster.replicas().all(|node| {
            node.running().is_some_and(|running| {
                let shards = running.router.host().all();
                shards.iter().all(|shard| shard.status().last_log > 0)
            })
        });
        // Founders may be replaced later.
        self.formed.store(formed && self.plan.changes(), Ordering::Relaxed);
        formed
    }

    /// Moves a replica, and now and then takes the move back before it is done; or transfers a lead.
    /// Refusals are as good as any other outcome: moves go on by themselves.
    async fn relocate(&self, strike: &Strike, on: &[NodeId], rng: &mut SmallRng) {
        let Some(running) = on.iter().find_map(|id| self.node(*id).running()) else { return };
        let map = running.router.map();
        let placements: Vec<_> = map.placements().collect();
        let Some(placement) = placements.choose(rng) else { return };
        let shard = placement.shard;
        let others: Vec<NodeId> =
            map.nodes().map(|node| node.id).filter(|id| !placement.target.contains(id)).collect();
        let (Some(from), to) = (placement.target.choose(rng).copied(), others.choose(rng).copied())
        else {
            return;
        };
        let order = match to {
            Some(to) if rng.random_bool(0.75) => Order::MoveShard { shard, from, to },
            _ => Order::TransferLeader { shard, to: from },
        };
        give(&self.world, &running, &order).await;
        if let Order::MoveShard { from, to, .. } = order
            && rng.random_bool(0.25)
        {
            Sim::sleep(strike.lasts / 8).await;
            give(&self.world, &running, &Order::MoveShard { shard, from: to, to: from }).await;
        }
    }

    /// Loses a node's disk for good, and tells the cluster until it has removed the node. Only where
    /// there is another one for its replicas.
    fn wipe(&self, id: NodeId, rng: &mut SmallRng) {
        if !self.can_lose(id) {
            return;
        }
        self.lose(id);
        let rng = SmallRng::seed_from_u64(rng.random());
        drop(Sim::spawn(remove(self.world.clone(), id, rng)));
    }

    fn lose(&self, id: NodeId) {
        let lost = self.node(id);
        self.world.cluster.kill(lost);
        lost.lose_disk();
    }

    /// Whether the cluster can do without a node: there is another one for its replicas, and none is
    /// about to go.
    fn can_lose(&self, id: NodeId) -> bool {
        let cluster = &self.world.cluster;
        let nodes: Vec<_> =
            cluster.nodes.values().filter(|node| !cluster.is_unborn(node)).collect();
        if !self.plan.changes() {
            let knows_all = |running: Running| running.router.map().nodes().count() == nodes.len();
            let joined = nodes.iter().all(|node| node.running().is_some_and(knows_all));
            return self.is_formed() && joined && nodes.iter().all(|node| !node.is_gone());
        }
        let Some(map) = cluster.newest_map().filter(|_| self.is_formed()) else { return false };
        let is_up = |node: &&Arc<Node>| node.running().is_some();
        let is_lost = |id| cluster.nodes.get(&id).is_none_or(|node| node.is_gone());
        let active = map.nodes().filter(|node| node.state == NodeState::Active);
        let stays = map.nodes().all(|node| node.state != NodeState::Leaving && !is_lost(node.id));
        let here = map.node(id).is_some_and(|node| node.state == NodeState::Active);
        nodes.iter().filter(|node| map.node(node.id).is_some()).all(is_up)
            && cluster.orders.open(LOSS).is_none()
            && (stays && here)
            && active.count() as u64 > self.plan.replicas
    }

    /// Waits for that, for a while.
    async fn until_can_lose(&self, id: NodeId) -> bool {
        for _ in 0..LOSS_LOOKS {
            if self.can_lose(id) {
                return true;
            }
            Sim::sleep(LOSS_LOOK).await;
        }
        self.world.cluster.trace.say(format_args!("n{} cannot be done without", id.0));
        false
    }

    /// Drains a node, and resumes it; leaves it drained now and then, where no other one goes that would
    /// need it.
    fn drain(&self, strike: &Strike, id: NodeId, rng: &mut SmallRng) {
        let needed = [Fault::Wipe, Fault::Replace, Fault::Absence];
        let stays = rng.random_bool(0.25) && !needed.iter().any(|f| self.plan.faults.contains(f));
        let (world, lasts) = (self.world.clone(), strike.lasts);
        let mut rng = SmallRng::seed_from_u64(rng.random());
        drop(Sim::spawn(async move {
            let _open = Open::new(&world, format!("drain node {id}"));
            if !insist(&world, &Order::Drain(id), &mut rng).await {
                return;
            }
            Sim::sleep(lasts).await;
            let drains = || {
                let is_draining = |map: Arc<ClusterMap>| {
                    map.node(id).is_some_and(|node| node.state == NodeState::Draining)
                };
                world.cluster.newest_map().is_none_or(is_draining)
            };
            while !stays && !insist(&world, &Order::Resume(id), &mut rng).await && drains() {}
        }));
    }

    /// Has replicas, leads or both spread evenly. A refusal is as good as any other outcome.
    async fn rebalance(&self, on: &[NodeId], rng: &mut SmallRng) {
        let Some(running) = on.iter().find_map(|id| self.node(*id).running()) else { return };
        let replicas = rng.random_bool(0.6);
        let order = Order::Rebalance { replicas, leaders: !replicas || rng.random_bool(0.5) };
        give(&self.world, &running, &order).await;
    }

    /// Has a node replaced: one that runs, or one whose disk is gone.
    async fn replace(&self, strike: &Strike, id: NodeId, rng: &mut SmallRng) {
        if !self.until_can_lose(id).await {
            return;
        }
        let open = Open::new(&self.world, format!("{LOSS} {id} to another one"));
        let lost = rng.random_bool(0.4);
        if lost {
            self.lose(id);
        }
        let taken_back = (!lost && rng.random_bool(0.25)).then_some(strike.lasts / 8);
        let rng = SmallRng::seed_from_u64(rng.random());
        drop(Sim::spawn(replace(open, id, taken_back, rng)));
    }

    /// Takes a node away, for good or until the cluster has waited for it: that replaces it unasked.
    async fn leave(&self, id: NodeId, rng: &mut SmallRng) {
        if !self.until_can_lose(id).await {
            return;
        }
        if rng.random_bool(0.4) {
            return self.lose(id);
        }
        let _open = Open::new(&self.world, format!("{LOSS} {id} for a while"));
        let node = self.node(id);
        node.hold(true);
        self.world.cluster.kill(node);
        Sim::sleep(self.plan.replace_after.mul_f64(rng.random_range(1.0..2.5))).await;
        node.hold(false);
        self.world.cluster.boot(node);
    }
}

/// Takes back that a node is replaced, once: it was away, came back, and stays on its way out, as there is
/// no other one left for its replicas. That is what an operator is to do then.
pub fn resume(world: &Arc<World>, node: NodeId) {
    let order = format!("resume node {node}, which nobody can replace");
    if world.cluster.orders.open(&order).is_some() {
        return;
    }
    let open = Open::new(world, order);
    let mut rng = SmallRng::seed_from_u64(node.0);
    drop(Sim::spawn(async move { insist(&open.0, &Order::Resume(node), &mut rng).await }));
}

/// Asks one node after another to remove one, as an operator does, until one knows that it is removed.
async fn remove(world: Arc<World>, lost: NodeId, mut rng: SmallRng) {
    loop {
        Sim::sleep(between((Duration::from_millis(50), Duration::from_millis(400)))).await;
        let Some(running) = world.any_node(&mut rng).running() else { continue };
        if running.router.map().is_removed(lost) {
            return;
        }
        let order = Order::Remove { node: lost, successor: None };
        give(&world, &running, &order).await;
    }
}

/// The same with a successor, another one after each refusal; or takes the order back after a while.
/// What was replaced is switched off, at once or at the end of the life.
async fn replace(open: Open, old: NodeId, taken_back: Option<Duration>, mut rng: SmallRng) {
    let world = open.0.clone();
    let mut named: Option<NodeId> = None;
    loop {
        Sim::sleep(between((Duration::from_millis(50), Duration::from_millis(400)))).await;
        let Some(running) = world.any_node(&mut rng).running() else { continue };
        let map = running.router.map();
        if map.is_removed(old) {
            break;
        }
        if named.is_none() && rng.random_bool(0.8) {
            let others: Vec<NodeId> = map
                .nodes()
                .filter(|node| node.takes_replicas() && node.id != old)
                .map(|node| node.id)
                .collect();
            named = others.choose(&mut rng).copied();
        }
        let order = Order::Remove { node: old, successor: named };
        match give(&world, &running, &order).await {
            Some(Ok(())) => {}
            _ => named = None,
        }
        if let Some(after) = taken_back {
            Sim::sleep(after).await;
            if insist(&world, &Order::Resume(old), &mut rng).await {
                return;
            }
        }
    }
    let node = world.cluster.nodes[&old].clone();
    if rng.random_bool(0.5) {
        world.cluster.kill(&node);
        node.discard();
    }
}

/// Lets the next node join: makes a token, and shows it to one node after another until one admits it.
/// A token that nobody made admits nobody, nor does one that is used up.
async fn join(world: Arc<World>, joining: Arc<tokio::sync::Mutex<()>>, mut rng: SmallRng) {
    let _open = Open::new(&world, "a node joins".into());
    let _alone = joining.lock().await;
    let cluster = world.cluster.clone();
    let Some(node) = cluster.nodes.values().find(|node| cluster.is_unborn(node)).cloned() else {
        return;
    };
    let mut made: Option<String> = None;
    loop {
        Sim::sleep(between((Duration::from_millis(50), Duration::from_millis(400)))).await;
        let Some(running) = world.any_node(&mut rng).running() else { continue };
        let map = running.router.map();
        if ((map.nodes().count() + map.removed().count()) as u64) < node.id.0 - 1 {
            continue;
        }
        let Some(token) = &made else {
            made = make_token(&running, &mut rng).await;
            continue;
        };
        if rng.random_bool(0.3) {
            intrude(&world, &running, "nobody's").await;
        }
        let hello = pb::Hello { join_token: token.clone(), ..cluster.hello(&node) };
        match admit(&running, hello).await {
            Some(Ok(reply)) if reply.node_id == node.id.0 => {
                take_in(&world, &node, &reply);
                intrude(&world, &running, token).await;
                return;
            }
            Some(Ok(reply)) => {
                let id = reply.node_id;
                return cluster.violation(format!("join: node {} was given id {id}", node.id));
            }
            Some(Err(error)) if error.code == Code::Forbidden => made = None,
            _ => {}
        }
    }
}

async fn make_token(running: &Running, rng: &mut SmallRng) -> Option<String> {
    let token = format!("token-{:x}", rng.random::<u64>());
    let (router, hash) = (running.router.clone(), join_token::hash(&token));
    let issue = async move { router.issue_join_token("nemesis", hash, TOKEN_TTL_MS).await };
    ask(running, issue).await?.ok().map(|_| token)
}

async fn admit(running: &Running, hello: pb::Hello) -> Option<Result<pb::AdmitReply, Error>> {
    let groups = running.groups.clone();
    ask(running, async move { groups.admit(hello).await }).await
}

/// A node notes whom it belongs to, and starts.
fn take_in(world: &World, node: &Arc<Node>, reply: &pb::AdmitReply) {
    let cluster = &world.cluster;
    let Ok(map) = ClusterMap::decode(&reply.map) else {
        return cluster.violation(format!("join: node {} was told no map", node.id));
    };
    let cluster_id = map.cluster_id().to_owned();
    node.keep(Membership { cluster_id, node_id: node.id, map, seed: None });
    cluster.boot(node);
}

/// Shows a token that must admit nobody.
async fn intrude(world: &World, running: &Running, token: &str) {
    let hello = pb::Hello {
        instance: "intruder".into(),
        client_address: "10.0.0.99:7400".into(),
        peer_address: "10.0.0.99:7401".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        join_token: token.into(),
        ..Default::default()
    };
    if let Some(Ok(reply)) = admit(running, hello).await {
        let id = reply.node_id;
        world.cluster.violation(format!("join: {token:?} has admitted an intruder as node {id}"));
    }
}

/// Gives an order to one node after another until it is done, true, or refused, false.
async fn insist(world: &World, order: &Order, rng: &mut SmallRng) -> bool {
    loop {
        Sim::sleep(between((Duration::from_millis(50), Duration::from_millis(400)))).await;
        let Some(running) = world.any_node(rng).running() else { continue };
        match give(world, &running, order).await {
            Some(Ok(())) => return true,
            Some(Err(error)) if !error.temporary() => return false,
            _ => {}
        }
    }
}

/// Gives an order to a node; `None` when it does not answer.
async fn give(world: &World, running: &Running, order: &Order) -> Option<Result<(), Error>> {
    let (router, given) = (running.router.clone(), order.clone());
    let asked = async move { router.operate("nemesis", given, false).await };
    let answer = ask(running, asked).await;
    let outcome = match &answer {
        Some(Ok(plan)) => format!("{:?}", plan.steps),
        Some(Err(error)) => error.to_string(),
        None => "no answer".into(),
    };
    world.cluster.trace.say(format_args!("{order:?}: {outcome}"));
    answer.map(|answer| answer.map(|_| ()))
}

/// Runs something in a node's process; `None` when it does not answer.
async fn ask<T: Send + 'static>(
    running: &Running,
    asked: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Option<Result<T, Error>> {
    let asked = running.process.spawn(asked);
    Sim::timeout(ORDER_WITHIN, asked).await.ok()?.ok()
}
