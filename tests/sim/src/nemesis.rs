//! Makes things go wrong, as planned.

use std::sync::Arc;
use std::time::Duration;

use folkmoot::id::NodeId;
use folkmoot::shard::runtime::AsyncRuntime;
use folkmoot_jepsen::history::{self, Op, Phase};
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::cluster::{Excuse, Node};
use crate::disk::DiskFault;
use crate::network::Weather;
use crate::operator::Operator;
use crate::plan::{Fault, Plan, Strike};
use crate::record::now;
use crate::runtime::{Sim, between, elapsed, set_fsync};
use crate::workload::{World, name};

/// Clocks that are set wrong are so by up to this, in milliseconds.
const SKEW_MAX_MS: i64 = 60_000;

/// Carries out a plan's strikes.
pub struct Nemesis {
    world: Arc<World>,
    plan: Plan,
    operator: Operator,
}

impl Nemesis {
    /// For a world.
    pub fn new(world: Arc<World>, plan: &Plan) -> Nemesis {
        let operator = Operator::new(world.clone(), plan);
        Nemesis { world, plan: plan.clone(), operator }
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
            let cluster = &self.world.cluster;
            let nodes = cluster.nodes.values().filter(|node| !cluster.is_unborn(node));
            replicas = nodes.map(|node| node.id).collect();
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
            Fault::Damage => self.damage(strike, on, rng).await,
            Fault::Move
            | Fault::Wipe
            | Fault::Drain
            | Fault::Rebalance
            | Fault::Replace
            | Fault::Absence
            | Fault::Join => self.operator.carry_out(strike, on, rng).await,
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
                // Also from nodes that join meanwhile.
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
        if !self.operator.is_formed() {
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
}
