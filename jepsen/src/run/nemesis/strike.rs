//! One attack: whom it hits. How it is done is in `act.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::fault::delay::Delay;
use crate::fault::files::What;
use crate::fault::network::Direction;
use crate::run::nemesis::act::{Act, Packets};
use crate::run::nemesis::cut::{Aim, Cut};
use crate::run::nemesis::damage::{Damage, How};
use crate::run::nemesis::kind::Kind;

/// By how many seconds a clock is wrong: less and more than peers put up with, and than ids may be
/// ahead.
const CLOCK_JUMPS: &[f64] = &[-3600.0, -60.0, -11.0, -2.0, 2.0, 11.0, 60.0, 400.0, 3600.0];

/// An attack that was decided on.
#[derive(Debug)]
pub struct Strike {
    /// Its name in the history, such as `kill-leader`.
    pub name: String,
    /// The nodes that it hits.
    pub on: Vec<usize>,
    /// Those that cannot take part while it lasts.
    pub broken: BTreeSet<usize>,
    /// Whether `broken` says all there is to say about majorities.
    pub clear: bool,
    /// What is done.
    pub act: Act,
}

/// The ground for a decision.
#[derive(Debug)]
pub struct Ground {
    /// The nodes that there are.
    all: Vec<usize>,
    /// Those that are not hit yet, shuffled.
    free: Vec<usize>,
    leader: Option<usize>,
    /// The end is near.
    late: bool,
    /// Neither clients' links nor power can be cut.
    local: bool,
    /// So many more nodes may forget what they acknowledged.
    may_forget: usize,
}

impl Ground {
    /// None of those that are hit already is hit again.
    #[must_use]
    pub fn new(
        all: Vec<usize>,
        hit: &BTreeSet<usize>,
        leader: Option<usize>,
        (late, local): (bool, bool),
        rng: &mut SmallRng,
    ) -> Ground {
        let mut free: Vec<usize> = all.iter().copied().filter(|node| !hit.contains(node)).collect();
        free.shuffle(rng);
        let leader = leader.filter(|leader| free.contains(leader));
        let may_forget = (all.len() - 1) / 2;
        Ground { all, free, leader, late, local, may_forget }
    }

    /// So many have forgotten something already, for good.
    #[must_use]
    pub fn forgotten(mut self, nodes: usize) -> Ground {
        self.may_forget = self.may_forget.saturating_sub(nodes);
        self
    }

    fn others(&self, nodes: &[usize]) -> Vec<usize> {
        self.all.iter().copied().filter(|node| !nodes.contains(node)).collect()
    }

    /// How many nodes there are.
    fn count(&self) -> usize {
        self.all.len()
    }

    /// Mostly one node or a leader; at times a minority, a majority, or all.
    fn crowd(&self, rng: &mut SmallRng) -> Option<(&'static str, Vec<usize>)> {
        let one = vec![*self.free.first()?];
        let (minority, majority) = ((self.count() - 1) / 2, self.count() / 2 + 1);
        let first = |count: usize| self.free.get(..count).map(<[usize]>::to_vec);
        let drawn = match (rng.random_range(0..100), self.leader) {
            (0..45, Some(leader)) => Some(("leader", vec![leader])),
            (60..70, _) if minority > 1 => first(minority).map(|nodes| ("minority", nodes)),
            (70..80, _) => first(majority).map(|nodes| ("majority", nodes)),
            (80..100, _) => first(self.count()).map(|nodes| ("all", nodes)),
            _ => None,
        };
        Some(drawn.unwrap_or(("one", one)))
    }

    /// One node, of the sort that hurts more: a leader, if it can be.
    fn one(&self, rng: &mut SmallRng) -> Option<usize> {
        match self.leader {
            Some(leader) if rng.random_bool(0.6) => Some(leader),
            _ => self.free.first().copied(),
        }
    }
}

impl Strike {
    fn new(name: impl Into<String>, on: Vec<usize>, act: Act) -> Strike {
        let broken = on.iter().copied().collect();
        Strike { name: name.into(), on, broken, clear: true, act }
    }

    /// It harms in a way that says nothing of majorities.
    fn unclear(mut self) -> Strike {
        self.clear = false;
        self
    }

    /// Decides whom to hit. `None` when nobody is left.
    #[must_use]
    pub fn plan(kind: Kind, ground: &Ground, rng: &mut SmallRng) -> Option<Strike> {
        Some(match kind {
            Kind::Kill => {
                let (who, nodes) = ground.crowd(rng)?;
                let act = Act::Stop { kill: nodes.clone(), pause: vec![] };
                Strike::new(format!("kill-{who}"), nodes, act)
            }
            Kind::Pause => {
                let (who, nodes) = ground.crowd(rng)?;
                let act = Act::Stop { kill: vec![], pause: nodes.clone() };
                Strike::new(format!("pause-{who}"), nodes, act)
            }
            Kind::KillPause => {
                let both = *ground.free.first_chunk::<2>()?;
                let act = Act::Stop { kill: vec![both[0]], pause: vec![both[1]] };
                Strike::new("kill-pause", both.to_vec(), act)
            }
            Kind::KillLeader => {
                let kill = vec![ground.leader?];
                Strike::new(kind.name(), kill.clone(), Act::Stop { kill, pause: vec![] })
            }
            Kind::PowerCut => power_cut(ground, rng)?,
            Kind::PowerCutOne => cut("one", vec![ground.one(rng)?], None),
            Kind::PowerCutAll => cut("all", ground.free.clone(), None),
            Kind::Partition => partition(ground, rng)?,
            Kind::Loss | Kind::Reset | Kind::Delay => packets(kind, ground, rng)?,
            Kind::DiskFull => {
                let node = ground.one(rng)?;
                // Below the watermark, or so full that the ballast has to go.
                let leave = *[40 << 20, 8 << 20, 1 << 20, 0].choose(rng)?;
                Strike::new(kind.name(), vec![node], Act::Fill { node, leave }).unclear()
            }
            Kind::DiskStall => {
                let node = ground.one(rng)?;
                let act = Act::Stall { node, at_most: Duration::from_secs(30) };
                Strike::new(kind.name(), vec![node], act).unclear()
            }
            Kind::FsyncFail => {
                let node = ground.one(rng)?;
                let act = Act::FailSync { node, nth: rng.random_range(1..20) };
                Strike::new(kind.name(), vec![node], act)
            }
            Kind::BitFlip | Kind::Truncate | Kind::Rollback => damage(kind, ground, rng)?,
            Kind::Clock => {
                let node = ground.one(rng)?;
                let seconds = *CLOCK_JUMPS.choose(rng)?;
                let every = rng.random_bool(0.3).then(|| Duration::from_millis(200));
                Strike::new(kind.name(), vec![node], Act::Clock { node, seconds, every }).unclear()
            }
            Kind::RollingRestart => {
                // Not one that is lost: it would refuse again, as it must.
                let mut nodes = ground.free.clone();
                nodes.sort_unstable();
                Strike::new(kind.name(), nodes.clone(), Act::RollingRestart(nodes)).unclear()
            }
            Kind::Storm => {
                let node = *ground.free.first()?;
                Strike::new(kind.name(), vec![node], Act::Storm { node })
            }
            Kind::CheckpointStorm => {
                let node = ground.one(rng)?;
                let cut = !ground.local && rng.random_bool(0.7);
                Strike::new(kind.name(), vec![node], Act::CheckpointStorm { node, cut }).unclear()
            }
            // An operator's doing, who is a task of its own.
            Kind::Churn => return None,
        })
    }
}

/// Links of one node are bad.
fn packets(kind: Kind, ground: &Ground, rng: &mut SmallRng) -> Option<Strike> {
    let node = ground.one(rng)?;
    let percent = rng.random_range(5..60);
    let ms = |ms| Duration::from_millis(ms);
    let packets = match kind {
        Kind::Delay => Packets::Wait(Delay {
            base: ms(rng.random_range(0..100)),
            jitter: ms(rng.random_range(1..200)),
            reorder_percent: rng.random_range(0..30),
        }),
        Kind::Loss => Packets::Lose(percent),
        _ => Packets::Reset(percent),
    };
    let clients = rng.random_bool(0.5);
    let act = Act::links(node, ground.others(&[node]), clients, packets);
    Some(Strike::new(kind.name(), vec![node], act).unclear())
}

/// Files of a few nodes change behind their backs: of so many at most that a majority remembers.
fn damage(kind: Kind, ground: &Ground, rng: &mut SmallRng) -> Option<Strike> {
    let most = ground.may_forget.min(ground.free.len());
    if most == 0 {
        return None;
    }
    let first = ground.one(rng)?;
    let others = ground.free.iter().copied().filter(|node| *node != first);
    let nodes: Vec<usize> =
        std::iter::once(first).chain(others).take(rng.random_range(1..=most)).collect();
    let seed = rng.random();
    let drawn = rng.random_range(0..10);
    let (name, what) = match kind {
        Kind::Rollback => match drawn {
            // A node finds out about an old log only once it has run on it, and is lost then.
            0..5 if ground.late => ("log", What::Log),
            0..6 => ("sled", What::Sled),
            6 => ("watermark", What::Watermark),
            7 => ("identity", What::Identity),
            _ => ("foreign-identity", What::Identity),
        },
        _ => match drawn {
            0..5 => ("log", What::Log),
            5..8 => ("sled", What::Sled),
            8 => ("identity", What::Identity),
            _ => ("watermark", What::Watermark),
        },
    };
    let how = match kind {
        Kind::BitFlip => How::Flip,
        Kind::Truncate => How::Truncate,
        _ if name == "foreign-identity" => How::Foreign,
        _ => How::RollBack,
    };
    let act = Act::Damage(Damage { nodes: nodes.clone(), what, how, seed });
    Some(Strike::new(format!("{}-{name}", kind.name()), nodes, act))
}

fn power_cut(ground: &Ground, rng: &mut SmallRng) -> Option<Strike> {
    let (who, mut nodes) = ground.crowd(rng)?;
    let (aim, name) = match rng.random_range(0..10) {
        0..2 => (Some(Aim::Checkpoint), "checkpoint"),
        2 => (Some(Aim::Purge), "purge"),
        3..5 => (Some(Aim::Snapshot), "snapshot"),
        _ => (None, who),
    };
    if aim.is_some() {
        nodes.truncate(1);
    }
    Some(cut(name, nodes, aim))
}

fn cut(name: &str, nodes: Vec<usize>, aim: Option<Aim>) -> Strike {
    let act = Act::PowerCut(Cut { nodes: nodes.clone(), aim });
    Strike::new(format!("power-cut-{name}"), nodes, act)
}

/// Who is cut off from whom.
fn partition(ground: &Ground, rng: &mut SmallRng) -> Option<Strike> {
    let node = *ground.free.first()?;
    let links = |node, peers, direction| (node, peers, direction);
    let (count, all) = (ground.count(), ground.all.clone());
    let (name, on, links, broken) = match rng.random_range(0..if ground.local { 8 } else { 9 }) {
        0 | 1 => {
            let node = ground.leader?;
            let cut = links(node, ground.others(&[node]), Direction::Both);
            ("leader", vec![node], vec![cut], Some(vec![node]))
        }
        2 => {
            let node = *ground.free.iter().find(|node| Some(**node) != ground.leader)?;
            let cut = links(node, ground.others(&[node]), Direction::Both);
            ("one", vec![node], vec![cut], Some(vec![node]))
        }
        3 => {
            let minority = ground.free.get(..(count - 1) / 2)?.to_vec();
            let others = ground.others(&minority);
            let cut = minority.iter().map(|node| links(*node, others.clone(), Direction::Both));
            ("halves", minority.clone(), cut.collect(), Some(minority.clone()))
        }
        4 => {
            // Nobody hears anybody.
            let cut = all.iter().map(|node| links(*node, ground.others(&[*node]), Direction::Both));
            ("all", all.clone(), cut.collect(), Some(all.clone()))
        }
        5 if count > 3 => {
            // Each hears its neighbours in a ring only.
            let far = |at: usize| {
                ground.others(&[all[(at + count - 1) % count], all[at], all[(at + 1) % count]])
            };
            let cut = (0..count).map(|at| links(all[at], far(at), Direction::Both));
            ("ring", all.clone(), cut.collect(), None)
        }
        5 | 6 => {
            // Two halves, and one node that both hear.
            let around: Vec<usize> = ground.others(&[node]);
            let (left, right) = around.split_at(around.len() / 2);
            let cut = left.iter().map(|node| links(*node, right.to_vec(), Direction::Both));
            ("bridge", all.clone(), cut.collect(), None)
        }
        7 => {
            let direction = if rng.random_bool(0.5) { Direction::In } else { Direction::Out };
            let cut = links(node, ground.others(&[node]), direction);
            ("one-way", vec![node], vec![cut], None)
        }
        _ => {
            let act = Act::links(node, vec![], true, Packets::Drop(Direction::Both));
            return Some(Strike::new("partition-clients", vec![node], act).unclear());
        }
    };
    let mut strike = Strike::new(format!("partition-{name}"), on, Act::partition(links));
    match broken {
        Some(broken) => strike.broken = broken.into_iter().collect(),
        None => strike = strike.unclear(),
    }
    Some(strike)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn every_kind_finds_someone_and_never_who_is_hit_already() {
        for count in [3, 5] {
            for seed in 0..300 {
                let mut rng = SmallRng::seed_from_u64(seed);
                let hit = BTreeSet::from([0]);
                let all = || (0..count).collect();
                for kind in Kind::all().filter(|kind| *kind != Kind::Churn) {
                    let ground =
                        Ground::new(all(), &BTreeSet::new(), Some(1), (true, false), &mut rng);
                    let strike = Strike::plan(kind, &ground, &mut rng).expect("all are free");
                    assert!(strike.name.starts_with(kind.name()), "{strike:?}");
                    assert!(!strike.on.is_empty() && strike.on.iter().all(|node| *node < count));
                    let ground = Ground::new(all(), &hit, Some(0), (false, true), &mut rng);
                    for kind in [Kind::Kill, Kind::RollingRestart, kind] {
                        let Some(strike) = Strike::plan(kind, &ground, &mut rng) else { continue };
                        let partition = strike.name.starts_with("partition");
                        assert!(partition || !strike.on.contains(&0), "{strike:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_shape_of_a_partition_comes_up() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let strike = partition(&ground(5, &mut rng), &mut rng).expect("all are free");
            for (name, leads) in [("partition-leader", true), ("partition-one", false)] {
                assert!(strike.name != name || (strike.on == [1]) == leads, "{strike:?}");
            }
            seen.insert(strike.name);
        }
        let expected = ["all", "bridge", "clients", "halves", "leader", "one", "one-way", "ring"];
        let expected: BTreeSet<_> =
            expected.iter().map(|name| format!("partition-{name}")).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_bridge_has_two_halves_that_do_not_hear_each_other() {
        for count in [3, 5] {
            let bridge = (0..200).find_map(|seed| {
                let mut rng = SmallRng::seed_from_u64(seed);
                let ground = ground(count, &mut rng);
                partition(&ground, &mut rng).filter(|strike| strike.name == "partition-bridge")
            });
            let strike = bridge.expect("a bridge comes up");
            let Act::Links(links) = strike.act else { panic!("{:?}", strike.act) };
            let cut: BTreeSet<(usize, usize)> = links
                .iter()
                .flat_map(|(node, peers, ..)| peers.iter().map(|peer| (*node, *peer)))
                .collect();
            let half = (count - 1) / 2;
            assert_eq!(cut.len(), half * half, "{cut:?}");
            let joined = |node: usize| !cut.iter().any(|(a, b)| *a == node || *b == node);
            assert_eq!((0..count).filter(|node| joined(*node)).count(), 1, "{cut:?}");
        }
    }

    #[test]
    fn a_minority_is_damaged_at_most_and_two_of_five_at_times() {
        let mut most = [0; 4];
        let mut names = BTreeSet::new();
        for seed in 0..400 {
            let mut rng = SmallRng::seed_from_u64(seed);
            for (n, (count, forgotten)) in [(3, 0), (5, 0), (5, 1), (3, 1)].into_iter().enumerate()
            {
                for kind in [Kind::BitFlip, Kind::Truncate, Kind::Rollback] {
                    let ground = ground(count, &mut rng).forgotten(forgotten);
                    let Some(strike) = Strike::plan(kind, &ground, &mut rng) else { continue };
                    assert_eq!(strike.on.iter().collect::<BTreeSet<_>>().len(), strike.on.len());
                    most[n] = strike.on.len().max(most[n]);
                    names.insert(strike.name);
                }
            }
        }
        assert_eq!(most, [1, 2, 1, 0]);
        let expected = ["sled", "watermark", "identity", "foreign-identity"];
        for what in expected {
            assert!(names.contains(&format!("rollback-{what}")), "{names:?}");
        }
        assert!(!names.contains("rollback-log"), "it is not late: {names:?}");
    }

    fn ground(count: usize, rng: &mut SmallRng) -> Ground {
        Ground::new((0..count).collect(), &BTreeSet::new(), Some(1), (false, false), rng)
    }
}
