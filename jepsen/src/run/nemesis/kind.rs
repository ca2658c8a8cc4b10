//! The kinds of attack, by the names that `--nemesis` knows.

use crate::fault::{Missing, clock, delay, files, fsync, full, network, power, signal, stall};

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Packets between nodes, or between nodes and clients, get lost: all of them on some links.
    Partition,
    /// Packets take their time, each its own.
    Delay,
    /// Some packets get lost.
    Loss,
    /// Connections break.
    Reset,
    /// Nodes stand still, and go on as if nothing had been.
    Pause,
    /// Nodes die, and are started again.
    Kill,
    /// One node that leads dies: for measuring how soon others lead.
    KillLeader,
    /// One node dies while another stands still.
    KillPause,
    /// Nodes lose all that they have not synced.
    PowerCut,
    /// One node does.
    PowerCutOne,
    /// All nodes do, at once.
    PowerCutAll,
    /// A disk is full for a while.
    DiskFull,
    /// A disk answers nobody for a while.
    DiskStall,
    /// A disk says that it could not sync.
    FsyncFail,
    /// A bit of a file has changed while a node was down.
    BitFlip,
    /// A file has become shorter while a node was down.
    Truncate,
    /// Files are as they were some time ago, when a node comes up.
    Rollback,
    /// Wall clocks jump, or move to and fro.
    Clock,
    /// One node after the other is stopped and started, as for an upgrade.
    RollingRestart,
    /// One node falls behind again and again, so that it needs a snapshot each time.
    Storm,
    /// One node takes checkpoints and rewrites its base all the time, and loses power over it.
    CheckpointStorm,
    /// Nodes join, leave and are replaced, replicas and leads move: all the time, whatever else
    /// happens (`run/churn/`).
    Churn,
}

impl Kind {
    /// Those that `all` stands for: every kind, but for those that are part of another.
    pub const MIXED: &[Kind] = &[
        Kind::Partition,
        Kind::Delay,
        Kind::Loss,
        Kind::Reset,
        Kind::Pause,
        Kind::Kill,
        Kind::KillPause,
        Kind::PowerCut,
        Kind::DiskFull,
        Kind::DiskStall,
        Kind::FsyncFail,
        Kind::BitFlip,
        Kind::Truncate,
        Kind::Rollback,
        Kind::Clock,
        Kind::RollingRestart,
        Kind::Storm,
        Kind::CheckpointStorm,
    ];

    /// Kinds that are part of another, or a workload of their own.
    const PARTS: &[Kind] = &[Kind::KillLeader, Kind::PowerCutOne, Kind::PowerCutAll, Kind::Churn];

    /// Every kind.
    pub fn all() -> impl Iterator<Item = Kind> {
        Kind::MIXED.iter().chain(Kind::PARTS).copied()
    }

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Partition => "partition",
            Kind::Delay => "delay",
            Kind::Loss => "loss",
            Kind::Reset => "reset",
            Kind::Pause => "pause",
            Kind::Kill => "kill",
            Kind::KillLeader => "kill-leader",
            Kind::KillPause => "kill-pause",
            Kind::PowerCut => "power-cut",
            Kind::PowerCutOne => "power-cut-one",
            Kind::PowerCutAll => "power-cut-all",
            Kind::DiskFull => "disk-full",
            Kind::DiskStall => "disk-stall",
            Kind::FsyncFail => "fsync-fail",
            Kind::BitFlip => "bit-flip",
            Kind::Truncate => "truncate",
            Kind::Rollback => "rollback",
            Kind::Clock => "clock",
            Kind::RollingRestart => "rolling-restart",
            Kind::Storm => "storm",
            Kind::CheckpointStorm => "checkpoint-storm",
            Kind::Churn => "churn",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Kind> {
        Kind::all().find(|kind| kind.name() == name)
    }

    /// Whether it works without root, namespaces and disks.
    #[must_use]
    pub const fn is_local(self) -> bool {
        use Kind::{CheckpointStorm, Churn, RollingRestart, Storm};
        use Kind::{Kill, KillLeader, KillPause, Partition, Pause};
        matches!(self, Kill | KillLeader | KillPause | Partition | Pause)
            || matches!(self, RollingRestart | Storm | CheckpointStorm | Churn)
            || self.damages()
    }

    /// Tries it on something of its own.
    ///
    /// # Errors
    ///
    /// What is missing here.
    pub fn probe(self, local: bool) -> Result<(), Missing> {
        match self {
            Kind::Partition if local => Ok(()), // our own proxy
            Kind::Partition => network::probe_drop(),
            Kind::Delay => delay::probe(),
            Kind::Loss => network::probe_loss(),
            Kind::Reset => network::probe_reset(),
            Kind::Pause | Kind::Kill | Kind::KillLeader | Kind::KillPause => signal::probe(),
            Kind::PowerCut | Kind::PowerCutOne | Kind::PowerCutAll => power::probe(),
            Kind::DiskFull => full::probe(),
            Kind::DiskStall => stall::probe(),
            Kind::FsyncFail => fsync::probe(),
            Kind::BitFlip | Kind::Truncate | Kind::Rollback => files::probe(),
            Kind::Clock => clock::probe(),
            // Nodes are stopped and started, which no run is without.
            Kind::RollingRestart | Kind::Storm | Kind::Churn => Ok(()),
            Kind::CheckpointStorm if local => Ok(()),
            Kind::CheckpointStorm => power::probe(),
        }
    }

    /// How long it lasts, from and to, in milliseconds.
    #[must_use]
    pub const fn lasts_ms(self) -> (u64, u64) {
        match self {
            Kind::Kill | Kind::KillPause | Kind::PowerCut => (300, 4_000),
            // Long enough for others to lead.
            Kind::KillLeader => (2_500, 4_000),
            Kind::PowerCutOne | Kind::PowerCutAll => (100, 1_500),
            Kind::Churn => (0, 0), // never over
            Kind::RollingRestart
            | Kind::Storm
            | Kind::FsyncFail
            | Kind::BitFlip
            | Kind::Truncate
            | Kind::Rollback => (0, 1_500),
            Kind::Clock => (2_000, 10_000),
            Kind::CheckpointStorm => (3_000, 6_000),
            Kind::DiskStall => (500, 5_000),
            Kind::DiskFull => (2_000, 8_000),
            Kind::Partition | Kind::Delay | Kind::Loss | Kind::Reset | Kind::Pause => {
                (1_000, 8_000)
            }
        }
    }

    /// Whether both may be active at a time.
    #[must_use]
    pub fn mixes_with(self, other: Kind) -> bool {
        self != other && !self.is_alone() && !other.is_alone()
    }

    /// What waits for a node waits in vain while others are hit; and a node whose disk forgot what
    /// it had acknowledged is a fault that the others must be whole to make good.
    const fn is_alone(self) -> bool {
        matches!(self, Kind::FsyncFail | Kind::RollingRestart | Kind::Storm) || self.damages()
    }

    /// Whether a node may have to end, and libraries of its may panic: its disk fails, or forgets.
    #[must_use]
    pub const fn may_end_nodes(self) -> bool {
        matches!(self, Kind::DiskFull | Kind::FsyncFail) || self.damages()
    }

    /// Whether it goes with churn. What waits for a certain node waits in vain once that was removed;
    /// and how many disks may forget is counted for replicas that stay where they are.
    #[must_use]
    pub const fn goes_with_churn(self) -> bool {
        use Kind::{Churn, Clock, Delay, DiskStall, Loss, Partition, Reset};
        use Kind::{Kill, KillLeader, KillPause, Pause, PowerCut, PowerCutAll, PowerCutOne};
        matches!(self, Churn | Clock | Delay | DiskStall | Loss | Partition | Reset)
            || matches!(self, Kill | KillLeader | KillPause | Pause)
            || matches!(self, PowerCut | PowerCutAll | PowerCutOne)
    }

    /// Whether a disk forgets what was on it.
    #[must_use]
    pub const fn damages(self) -> bool {
        matches!(self, Kind::BitFlip | Kind::Truncate | Kind::Rollback)
    }
}
