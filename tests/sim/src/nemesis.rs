//! Makes things go wrong, as planned.

use std::sync::Arc;
use std::time::Duration;

use folkmoot::id::NodeId;
use folkmoot::router::operator::Order;
use folkmoot::shard::runtime::AsyncRuntime;
use folkmoot_jepsen::history::{self, Op, Phase};
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::cluster::{Excuse, Node, Running};
use crate::disk::DiskFault;
use crate::network::Weather;
use crate::plan::{Fault, Plan, Strike};
use crate::record::now;
use crate::runtime::{Sim, between, elapsed, set_fsync};
use crate::workload::{World, name};

/// Clocks that are set wrong are so by up to this, in milliseconds.
const SKEW_MAX_MS: i64 = 60_000;

/// How long an answer to an order is waited for.
const ORDER_WITHIN: Duration = Duration::from_secs(5);

/// Carries out a plan's strikes.
pub struct Nemesis {
    world: Arc<World>,
    plan: Plan,
}

impl Nemesis {
    /// For a world.
    pub fn new(world: Arc<World>, plan: &Plan) -> Nemesis {
        Nemesis { world, plan: plan.clone() }
    }

    /// Carries out every strike in its time; returns when the last one is over.
    pub async fn run(&self) {
        let striking = self.plan.strikes.iter().enumerate().map(|(number, strike)| async move {
            Sim::sleep(strike.at.saturating_sub(elapsed())).await;
            self.strike(number, strike).await;
        });
        futures_util::future::join_all(striking).await;
    }

    async fn strike(&self, number: usize, strike: &Strike) {
        let rng = &mut SmallRng::seed_from_u64(strike.seed);
        let on = self.victims(strike.fault, rng);
        self.world.cluster.trace.say(format_args!("strike {number}: {} on {on:?}", strike.fault));
        let note = |phase| {
            let fault = history::Fault {
                fault: format!("{}.{number}", strike.fault).into(),
                phase,
                on: on.iter().map(|node| format!("n{}", node.0).into()).collect(),
                majority: None,
            };
            self.world.push(Op::nemesis(now(), fault));
        };
        note(Phase::Start);
        self.carry_out(strike, &on, rng).await;
        note(Phase::Stop);
    }

    /// Whom a strike hits: one node, a minority, or all.
    fn victims(&self, fault: Fault, rng: &mut SmallRng) -> Vec<NodeId> {
        let mut replicas: Vec<NodeId> = self.world.cluster.replicas().map(|node| node.id).collect();
        let minority = (replicas.len() - 1) / 2;
        if self.plan.moves() {
            // Any of them may have replicas.
            replicas = self.world.cluster.nodes.keys().copied().collect();
        }
        replicas.shuffle(rng);
        let count = match fault {
            Fault::Blackout | Fault::SlowDisk | Fault::SlowNetwork => replicas.len(),
            Fault::Clock | Fault::Damage => minority,
            Fault::OneWay | Fault::Reset => 2,
            Fault::Partition => rng.random_range(1..replicas.len()),
            // Now and then more than a minority: then nothing is acknowledged, and nothing lost.
            _ => *[1, 1, 1, 2].choose(rng).unwrap_or(&1),
        };
        replicas.truncate(count);
        replicas
    }

    fn node(&self, id: NodeId) -> &Arc<Node> {
        &self.world.cluster.nodes[&id]
    }

    async fn carry_out(&self, strike: &Strike, on: &[NodeId], rng: &mut SmallRng) {
        match strike.fault {
            Fault::Kill | Fault::PowerCut | Fault::PowerCutMidway | Fault::Blackout => {
                self.down(strike, on, rng).await;
            }
            Fault::Restart => {
                for node in on {
                    self.world.cluster.stop(self.node(*node)).await;
                }
                Sim::sleep(strike.lasts / 4).await;
                self.boot(on);
            }
            Fault::Pause => {
                let processes: Vec<_> =
                    on.iter().filter_map(|id| self.node(*id).process()).collect();
                processes.iter().for_each(|process| process.pause(true));
                Sim::sleep(strike.lasts).await;
                processes.iter().for_each(|process| process.pause(false));
            }
            Fault::Partition | Fault::OneWay | Fault::Reset => self.cut(strike, on).await,
            Fault::SlowNetwork => {
                let weather = &self.plan.weather;
                self.world.cluster.network.set_weather(Weather {
                    delay: (weather.delay.0, Duration::from_millis(rng.random_range(5..150))),
                    resent_per_mille: 30,
                    ..weather.clone()
                });
                Sim::sleep(strike.lasts).await;
                self.world.cluster.network.set_weather(weather.clone());
            }
            Fault::SlowDisk => {
                set_fsync((Duration::ZERO, Duration::from_millis(rng.random_range(10..400))));
                Sim::sleep(strike.lasts).await;
                set_fsync(self.plan.machine.fsync);
            }
            Fault::Clock => {
                for node in on {
                    let skew = rng.random_range(-SKEW_MAX_MS..SKEW_MAX_MS);
                    self.node(*node).clock.set_skew_ms(skew);
                }
                Sim::sleep(strike.lasts).await;
                on.iter().for_each(|node| self.node(*node).clock.set_skew_ms(0));
            }
            Fault::DiskFull | Fault::DiskError => self.spoil(strike, on, rng).await,
            Fault::Move => self.relocate(strike, on, rng).await,
            Fault::Damage => self.damage(strike, on, rng).await,
            Fault::Wipe => self.wipe(on[0], rng),
        }
    }

    /// Takes nodes down, and starts them again.
    async fn down(&self, strike: &Strike, on: &[NodeId], rng: &mut SmallRng) {
        let cluster = &self.world.cluster;
        for id in on {
            let node = self.node(*id);
            match strike.fault {
                Fault::Kill => cluster.kill(node),
                Fault::PowerCutMidway => {
                    let nth = rng.random_range(1..40);
                    node.excuse(Excuse::Disk);
                    node.disk.arm(match rng.random_bool(0.5) {
                        true => DiskFault::PowerCutAtWrite { nth },
                        false => DiskFault::PowerCutAtSync { nth },
                    });
                }
                _ => cluster.cut_power(node),
            }
        }
        Sim::sleep(strike.lasts).await;
        for id in on {
            let node = self.node(*id);
            if strike.fault == Fault::PowerCutMidway {
                node.disk.heal();
                if !node.disk.has_power() {
                    cluster.sweep();
                }
                cluster.judge_panics();
                node.expect_well(Excuse::Disk);
            }
        }
        self.boot(on);
    }

    fn boot(&self, on: &[NodeId]) {
        self.world.cluster.sweep();
        on.iter().for_each(|id| self.world.cluster.boot(self.node(*id)));
    }

    async fn cut(&self, strike: &Strike, on: &[NodeId]) {
        let network = &self.world.cluster.network;
        let pairs: Vec<(NodeId, NodeId)> = match (strike.fault, on) {
            (Fault::Partition, inside) => {
                let nodes = self.world.cluster.nodes.keys();
                let outside = nodes.filter(|node| !inside.contains(node));
                let both = |a: NodeId| inside.iter().flat_map(move |b| [(a, *b), (*b, a)]);
                outside.flat_map(|node| both(*node)).collect()
            }
            (_, [a, b, ..]) => vec![(*a, *b)],
            _ => vec![],
        };
        if strike.fault == Fault::Reset {
            pairs.iter().for_each(|(from, to)| network.reset(*from, *to));
            return;
        }
        pairs.iter().for_each(|(from, to)| network.cut(*from, *to, true));
        Sim::sleep(strike.lasts).await;
        pairs.iter().for_each(|(from, to)| network.cut(*from, *to, false));
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

    /// Lets disks be full, or fail.
    async fn spoil(&self, strike: &Strike, on: &[NodeId], rng: &mut SmallRng) {
        for id in on {
            let disk = &self.node(*id).disk;
            self.node(*id).excuse(Excuse::Disk);
            let nth = rng.random_range(1..30);
            match strike.fault {
                Fault::DiskFull => {
                    disk.capacity(Some(disk.used_bytes() + rng.random_range(0..64 << 10)))
                }
                _ => disk.arm(match rng.random_range(0..3) {
                    0 => DiskFault::Reads { nth },
                    1 => DiskFault::Writes { nth },
                    _ => DiskFault::Syncs { nth },
                }),
            }
        }
        Sim::sleep(strike.lasts).await;
        for id in on {
            let node = self.node(*id);
            node.disk.capacity(None);
            node.disk.heal();
            if let Some(running) = node.running() {
                running.router.set_disk_full(false);
            }
            self.settle(node).await;
            self.world.cluster.judge_panics();
            node.expect_well(Excuse::Disk);
        }
        self.boot(on);
    }

    /// Waits until what a fault did to a node has shown: that takes a little, and a process that is
    /// paused shows nothing.
    async fn settle(&self, node: &Node) {
        let paused = || node.running().is_some_and(|running| running.process.is_paused());
        loop {
            let before = paused();
            Sim::sleep(between((Duration::from_millis(300), Duration::from_millis(600)))).await;
            if !before && !paused() {
                return;
            }
        }
    }

    /// Damages stopped nodes' logs: they may refuse to start, and stay away.
    async fn damage(&self, strike: &Strike, on: &[NodeId], rng: &mut SmallRng) {
        if !self.is_formed() {
            return;
        }
        let minority = (self.plan.replicas as usize - 1) / 2;
        for id in on {
            let node = self.node(*id);
            let damaged = |node: &&Arc<Node>| node.excused(Excuse::Damage);
            let others = self.world.cluster.replicas().filter(damaged).count();
            if !node.excused(Excuse::Damage) {
                if others == minority {
                    continue;
                }
                // For good: nobody knows when it comes to light.
                node.excuse(Excuse::Damage);
            }
            self.world.cluster.kill(node);
            Sim::sleep(strike.lasts / 4).await;
            if node.process().is_some() {
                continue;
            }
            let what = match rng.random_bool(0.5) {
                true => node.disk.flip_bit(),
                // A disk that fails has other reasons for what is missing.
                false if node.excused(Excuse::Disk) => None,
                false => node.disk.lose_end().inspect(|_| node.expect_refusal()),
            };
            if let Some(what) = what {
                self.world.cluster.trace.say(format_args!("{}: {what}", name(node)));
            }
        }
        self.boot(on);
    }

    /// `cluster init` has succeeded once every founder has its groups; who founds a cluster on a disk
    /// that is lost before that begins anew.
    fn is_formed(&self) -> bool {
        self.world.cluster.replicas().all(|node| {
            node.running().is_some_and(|running| {
                let shards = running.router.host().all();
                shards.iter().all(|shard| shard.status().last_log > 0)
            })
        })
    }

    /// Loses a node's disk for good, and tells the cluster until it has removed the node. Only where
    /// there is another one for its replicas.
    fn wipe(&self, id: NodeId, rng: &mut SmallRng) {
        let world = self.world.clone();
        let nodes: Vec<_> = world.cluster.nodes.values().cloned().collect();
        let knows_all = |running: Running| running.router.map().nodes().count() == nodes.len();
        let joined = nodes.iter().all(|node| node.running().is_some_and(knows_all));
        if !self.is_formed() || !joined || nodes.iter().any(|node| node.is_gone()) {
            return;
        }
        let lost = self.node(id).clone();
        world.cluster.kill(&lost);
        lost.lose_disk();
        let rng = SmallRng::seed_from_u64(rng.random());
        drop(Sim::spawn(remove(world, id, rng)));
    }
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

async fn give(world: &World, running: &Running, order: &Order) {
    let (router, given) = (running.router.clone(), order.clone());
    let asked = running.process.spawn(async move { router.operate("nemesis", given, false).await });
    let outcome = match Sim::timeout(ORDER_WITHIN, asked).await {
        Ok(Ok(Ok(plan))) => format!("{:?}", plan.steps),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) | Err(_) => "no answer".into(),
    };
    world.cluster.trace.say(format_args!("{order:?}: {outcome}"));
}
