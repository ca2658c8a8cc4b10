//! What a life is like: everything that is drawn from its seed before it begins.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use folkmoot::shard::Timing;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::network::Weather;
use crate::runtime::Machine;

/// A sort of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Fault {
    /// A process is killed, and started again.
    Kill,
    /// A node's power is cut: what was not synced may be lost.
    PowerCut,
    /// The power fails in the middle of a write or sync.
    PowerCutMidway,
    /// The power of every node is cut at once.
    Blackout,
    /// A node is stopped as an operator does, and started again.
    Restart,
    /// A process stands still for a while.
    Pause,
    /// Nodes cannot reach each other.
    Partition,
    /// One direction between two nodes is cut.
    OneWay,
    /// Connections are reset.
    Reset,
    /// Frames take long, and are resent.
    SlowNetwork,
    /// Writes take long.
    SlowDisk,
    /// A minority's wall clocks are wrong, and jump.
    Clock,
    /// A disk is full, then freed.
    DiskFull,
    /// A disk fails to read, write or sync.
    DiskError,
    /// A bit of a stopped node's log flips, or the log's end is gone, on a minority.
    Damage,
    /// A replica is moved to the node without one, or back, or halfway and back; or a lead is
    /// transferred.
    Move,
    /// A node's disk is gone for good, and an operator removes the node: the one that had no replica
    /// gets its replicas. Once a life.
    Wipe,
    /// An operator drains a node, and resumes it; or leaves it drained.
    Drain,
    /// An operator has replicas, leads or both spread evenly.
    Rebalance,
    /// An operator has a node replaced by another one: one that runs, or one whose disk is gone. Now and
    /// then the order is taken back before it is done.
    Replace,
    /// A node is away for longer than the cluster waits for it, or for good: it is replaced without
    /// being asked.
    Absence,
    /// A new node joins, with a token.
    Join,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 22] = [
        Fault::Kill,
        Fault::PowerCut,
        Fault::PowerCutMidway,
        Fault::Blackout,
        Fault::Restart,
        Fault::Pause,
        Fault::Partition,
        Fault::OneWay,
        Fault::Reset,
        Fault::SlowNetwork,
        Fault::SlowDisk,
        Fault::Clock,
        Fault::DiskFull,
        Fault::DiskError,
        Fault::Damage,
        Fault::Move,
        Fault::Wipe,
        Fault::Drain,
        Fault::Rebalance,
        Fault::Replace,
        Fault::Absence,
        Fault::Join,
    ];

    /// What changes who is of the cluster, and who leads, beyond moves.
    pub const CHANGES: [Fault; 5] =
        [Fault::Drain, Fault::Rebalance, Fault::Replace, Fault::Absence, Fault::Join];

    /// Whether replicas are moved by it.
    pub fn moves(self) -> bool {
        [Fault::Move, Fault::Wipe].contains(&self) || Fault::CHANGES.contains(&self)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = clap::ValueEnum::to_possible_value(self);
        f.write_str(value.as_ref().map_or("fault", |value| value.get_name()))
    }
}

/// A fault that is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// When, after the start of the life.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
    /// Decides whom it hits, and how.
    pub seed: u64,
}

/// What a life is like.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// How long faults and load last.
    pub time: Duration,
    /// Nodes with replicas.
    pub replicas: u64,
    /// Whether there is a node without a replica besides, or with none at first.
    pub gateway: bool,
    /// Nodes that may join later.
    pub joiners: u64,
    /// How long a node may be away until it is replaced; zero: for ever.
    pub replace_after: Duration,
    /// Data shards.
    pub shards: u32,
    /// Rooms at the start.
    pub rooms: usize,
    /// Clients that send and read.
    pub clients: usize,
    /// Clients that follow rooms.
    pub subscribers: usize,
    /// Messages are shorter than this, in bytes.
    pub text_bytes: usize,
    /// A client's pause between operations, at most.
    pub think: Duration,
    /// How long the router tries.
    pub request_timeout: Duration,
    /// Raft's timing.
    pub timing: Timing,
    /// How often checkpoints are taken.
    pub checkpoint_interval: Duration,
    /// When they are taken at once.
    pub overlay_bytes_max: usize,
    /// Tasks and disks.
    pub machine: Machine,
    /// The network.
    pub weather: Weather,
    /// The faults that were drawn.
    pub faults: BTreeSet<Fault>,
    /// When they happen.
    pub strikes: Vec<Strike>,
    /// Disks say that they synced, and do not.
    pub lying_disks: bool,
}

/// What the caller wants otherwise than drawn.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Only these sorts of faults.
    pub faults: Option<BTreeSet<Fault>>,
    /// None of these sorts of faults.
    pub without: BTreeSet<Fault>,
    /// Of the strikes, only those with these numbers.
    pub strikes: Option<BTreeSet<usize>>,
    /// How long faults and load last.
    pub time: Option<Duration>,
    /// How many nodes have replicas.
    pub replicas: Option<u64>,
    /// At most so many clients.
    pub clients_max: Option<usize>,
    /// Disks that do not sync.
    pub lying_disks: bool,
    /// Every life is one in which the cluster changes ([`Fault::CHANGES`]).
    pub changes: bool,
}

/// Lives with changes are drawn with this, by which no kept seed is one: they are what they were.
const CHANGES_SALT: u64 = 0x1482;
/// How long they last, since a change takes its time.
const CHANGES_TIME: Duration = ms(8000);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Plan {
    /// Draws a plan.
    pub fn draw(seed: u64, wishes: &Wishes) -> Plan {
        let rng = &mut SmallRng::seed_from_u64(seed);
        let drawn = wishes.replicas.unwrap_or(*[3, 3, 3, 4, 5].choose(rng).unwrap_or(&3));
        let time = wishes.time.unwrap_or(ms(5000));
        // Now and then enough for followers to fall behind, and for files and blocks to fill.
        let text_bytes = match SmallRng::seed_from_u64(!seed).random_bool(0.25) {
            true => 8000,
            false => 400,
        };
        let plan = Plan {
            seed,
            time,
            replicas: drawn,
            gateway: rng.random_bool(0.25),
            joiners: 0,
            replace_after: Duration::ZERO,
            shards: 2,
            rooms: rng.random_range(1..=4),
            clients: rng.random_range(2..=6).min(wishes.clients_max.unwrap_or(usize::MAX)),
            subscribers: rng.random_range(1..=3),
            text_bytes,
            think: ms(rng.random_range(10..=120)),
            request_timeout: ms(rng.random_range(500..=2500)),
            timing: Timing::default(),
            checkpoint_interval: ms(rng.random_range(200..=2000)),
            overlay_bytes_max: rng.random_range(4 << 10..=256 << 10),
            machine: Machine {
                put_off_per_mille: rng.random_range(0..=100),
                fsync: (
                    Duration::from_micros(50),
                    Duration::from_micros(rng.random_range(100..=5000)),
                ),
                blocking: (Duration::ZERO, Duration::from_micros(rng.random_range(0..=3000))),
            },
            weather: Weather {
                delay: (
                    Duration::from_micros(30),
                    Duration::from_micros(rng.random_range(100..=5000)),
                ),
                resent_per_mille: if rng.random_bool(0.5) { 0 } else { rng.random_range(0..=20) },
                resend: ms(rng.random_range(20..=200)),
                silence: ms(rng.random_range(300..=3000)),
            },
            faults: BTreeSet::new(),
            strikes: vec![],
            lying_disks: wishes.lying_disks,
        };
        plan.with_faults(rng, wishes)
    }

    /// Draws the sorts of faults of this life (swarm testing: a random subset, since some hide
    /// others; Groce et al., ISSTA 2012), then when they happen.
    fn with_faults(mut self, rng: &mut SmallRng, wishes: &Wishes) -> Plan {
        let share = *[0.1, 0.25, 0.5].choose(rng).unwrap_or(&0.25);
        let others = Fault::ALL.into_iter().filter(|fault| !fault.moves());
        let drawn = others.filter(|_| rng.random_bool(share));
        let mut drawn: BTreeSet<Fault> = drawn.collect();
        // From a seed of its own, so that lives without it are what they were.
        let placing = &mut SmallRng::seed_from_u64(self.seed ^ 0x0e0e);
        if placing.random_bool(0.25) {
            drawn.insert(Fault::Move);
            if placing.random_bool(0.5) {
                drawn.insert(Fault::Wipe);
            }
        }
        let changing = &mut SmallRng::seed_from_u64(self.seed ^ CHANGES_SALT);
        if changing.random_bool(0.25) || wishes.changes {
            let some = Fault::CHANGES.into_iter().filter(|_| changing.random_bool(0.5));
            drawn.extend(some.collect::<Vec<_>>());
            drawn.extend(Fault::CHANGES.choose(changing));
        }
        self.faults = wishes.faults.clone().unwrap_or(drawn);
        self.faults.retain(|fault| !wishes.without.contains(fault));
        if wishes.changes && !self.changes() {
            // What was drawn is left out.
            let left = Fault::CHANGES.into_iter().filter(|fault| !wishes.without.contains(fault));
            self.faults.extend(left.collect::<Vec<_>>().choose(changing));
        }
        if self.moves() {
            // A move to or from a node that is gone for good never ends.
            self.faults.remove(&Fault::Damage);
            self.gateway = true;
        }
        if self.changes() {
            self.time = wishes.time.unwrap_or(CHANGES_TIME);
            let has = |fault| self.faults.contains(&fault);
            self.joiners = if has(Fault::Join) { changing.random_range(1..=2) } else { 0 };
            let after = ms(changing.random_range(1500..=3500));
            self.replace_after = if has(Fault::Absence) { after } else { Duration::ZERO };
        }
        let sorts: Vec<Fault> = self.faults.iter().copied().collect();
        let pause = rng.random_range(100..=1200);
        let mut at = ms(rng.random_range(200..=1200));
        while let Some(fault) = sorts.choose(rng)
            && at < self.time
        {
            let lasts = ms(rng.random_range(10..=1800));
            self.strikes.push(Strike { at, lasts, fault: *fault, seed: rng.random() });
            at += ms(rng.random_range(10..=pause));
        }
        if let Some(only) = &wishes.strikes {
            let strikes = std::mem::take(&mut self.strikes).into_iter().enumerate();
            self.strikes = strikes.filter(|(at, _)| only.contains(at)).map(|(_, s)| s).collect();
        }
        self
    }
}

impl Plan {
    /// Whether replicas are moved.
    pub fn moves(&self) -> bool {
        self.faults.iter().any(|fault| fault.moves())
    }

    /// Whether the cluster is changed beyond moves.
    pub fn changes(&self) -> bool {
        Fault::CHANGES.iter().any(|fault| self.faults.contains(fault))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gateway = if self.gateway { " + 1 gateway" } else { "" };
        let faults: Vec<String> = self.faults.iter().map(Fault::to_string).collect();
        let faults = if faults.is_empty() { "none".into() } else { faults.join(",") };
        write!(
            f,
            "seed {}: {} nodes{gateway}, {} rooms, {} clients, {} subscribers, {} s, {} strikes of {faults}",
            self.seed,
            self.replicas,
            self.rooms,
            self.clients,
            self.subscribers,
            self.time.as_secs_f64(),
            self.strikes.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also where what was drawn for it is left out.
    #[test]
    fn each_life_with_changes_has_some() {
        let without = BTreeSet::from([Fault::Drain, Fault::Replace, Fault::Join]);
        let wishes = Wishes { changes: true, without, ..Wishes::default() };
        for seed in 0..200 {
            let plan = Plan::draw(seed, &wishes);
            assert!(plan.changes() && plan.faults.is_disjoint(&wishes.without), "{plan}");
        }
    }

    /// Without its strikes a life is what it was: as many nodes, as long.
    #[test]
    fn without_strikes_all_else_stays() {
        for seed in 0..50 {
            let wishes = Wishes { changes: true, ..Wishes::default() };
            let whole = Plan::draw(seed, &wishes);
            let bare = Plan::draw(seed, &Wishes { strikes: Some(BTreeSet::new()), ..wishes });
            assert!(bare.strikes.is_empty());
            let same = Plan { strikes: whole.strikes.clone(), ..bare };
            assert_eq!(format!("{same:?}"), format!("{whole:?}"));
        }
    }
}
