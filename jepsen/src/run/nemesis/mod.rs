//! Attacks the cluster: one fault after another, at times two at once, with quiet phases between.
//!
//! Whom an attack hits is in `strike.rs`, and how it is done in `act.rs`; here is when. All of it follows from the
//! seed, but for how long nodes take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::history::Phase;
use crate::run::status::{Placement, Status};
use crate::run::workload::World;

pub mod act;
pub mod damage;
pub mod kind;
pub mod strike;

use act::Undo;
use kind::Kind;
use strike::{Ground, Strike};

/// What attacks.
pub struct Nemesis {
    world: Arc<World>,
    cluster: Arc<Cluster>,
    status: Status,
    placement: Placement,
    kinds: Vec<Kind>,
    rng: SmallRng,
    active: Vec<Active>,
    /// Nodes whose disks forgot what they had acknowledged, and that refuse to go on, as they must:
    /// they would have to be replaced.
    pub lost: BTreeSet<usize>,
    /// What went wrong with the attack itself.
    pub problems: Vec<String>,
    /// What nodes did and should not have.
    pub findings: Vec<String>,
    /// How often each attack struck, and what came of it where that differs.
    pub struck: BTreeMap<String, u64>,
}

/// A fault that is not healed yet.
struct Active {
    name: String,
    on: Vec<String>,
    /// Nodes that cannot take part.
    broken: BTreeSet<usize>,
    undo: Undo,
}

impl Nemesis {
    /// Has done nothing yet.
    #[must_use]
    pub fn new(
        world: Arc<World>,
        cluster: Arc<Cluster>,
        status: Status,
        placement: Placement,
        kinds: Vec<Kind>,
    ) -> Nemesis {
        let rng = SmallRng::seed_from_u64(world.seed);
        Nemesis {
            world,
            cluster,
            status,
            placement,
            kinds,
            rng,
            active: vec![],
            lost: BTreeSet::new(),
            problems: vec![],
            findings: vec![],
            struck: BTreeMap::new(),
        }
    }

    /// Attacks until then; all is healed when this returns.
    pub async fn run(mut self, until: Instant) -> Nemesis {
        let mut bag: Vec<Kind> = vec![];
        let time = until.saturating_duration_since(Instant::now());
        while !self.kinds.is_empty() {
            let quiet = self.between(1_500, 4_000);
            if Instant::now() + quiet + Duration::from_millis(500) > until {
                break;
            }
            sleep_until(Instant::now() + quiet).await;
            self.revive().await;
            // Every kind has its turn, in an order of its own each time.
            if bag.is_empty() {
                bag.clone_from(&self.kinds);
                bag.shuffle(&mut self.rng);
            }
            let Some(kind) = bag.pop() else { break };
            let late = until.saturating_duration_since(Instant::now()) < time / 5;
            self.strike(kind, late).await;
            if self.rng.random_bool(0.25)
                && let Some(second) = self.second(kind)
            {
                sleep_until((Instant::now() + self.between(100, 3_000)).min(until)).await;
                self.strike(second, late).await;
            }
            let lasts = self.between(kind.lasts_ms().0, kind.lasts_ms().1);
            sleep_until((Instant::now() + lasts).min(until)).await;
            self.heal_all().await;
        }
        self
    }

    fn between(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from_ms..=to_ms))
    }

    /// A fault that goes with another.
    fn second(&mut self, first: Kind) -> Option<Kind> {
        let others: Vec<Kind> =
            self.kinds.iter().copied().filter(|kind| kind.mixes_with(first)).collect();
        others.choose(&mut self.rng).copied()
    }

    /// The nodes that cannot take part now.
    fn broken(&self) -> BTreeSet<usize> {
        let active = self.active.iter().flat_map(|active| active.broken.iter().copied());
        active.chain(self.lost.iter().copied()).collect()
    }

    async fn strike(&mut self, kind: Kind, late: bool) {
        if kind.damages() && !self.lost.is_empty() {
            return; // what two nodes forgot, nobody may remember
        }
        let mut hit = self.broken();
        let nodes = self.cluster.nodes.iter().enumerate();
        hit.extend(nodes.filter(|(_, node)| node.running().is_none()).map(|(place, _)| place));
        let leader = self.status.leader(&self.placement, &mut self.rng).await;
        let local = self.cluster.proxy.is_some();
        let ground =
            Ground::new(self.cluster.nodes.len(), &hit, leader, (late, local), &mut self.rng);
        let Some(strike) = Strike::plan(kind, &ground, &mut self.rng) else { return };
        let name = strike.name.clone();
        let on: Vec<String> =
            strike.on.iter().map(|node| self.cluster.nodes[*node].name.clone()).collect();
        let broken: BTreeSet<usize> = hit.union(&strike.broken).copied().collect();
        let majority = Some(strike.clear && self.placement.has_majority(&broken));
        self.world.recorder.fault(&name, Phase::Start, &on, majority);
        let broken = strike.broken.clone();
        let cluster = self.cluster.clone();
        let injecting = tokio::task::spawn_blocking(move || {
            let mut undo = Undo::default();
            let injected = strike.act.inject(&cluster, &mut undo);
            (undo, injected)
        });
        let undo = match injecting.await {
            Ok((mut undo, injected)) => {
                self.findings.append(&mut undo.findings);
                let came = match undo.notes.last() {
                    Some(note) => format!("{name}: {note}"),
                    None => name.clone(),
                };
                *self.struck.entry(came).or_default() += 1;
                self.problems.extend(injected.err().map(|problem| format!("{name}: {problem}")));
                undo
            }
            Err(error) => {
                self.problems.push(format!("{name}: {error}"));
                Undo::default()
            }
        };
        self.active.push(Active { name, on, broken, undo });
    }

    /// Starts nodes that ended by themselves, as whatever watches over them would.
    async fn revive(&mut self) {
        let (cluster, lost) = (self.cluster.clone(), self.lost.clone());
        let reviving = tokio::task::spawn_blocking(move || {
            let left = (0..cluster.nodes.len()).filter(|place| !lost.contains(place));
            let nodes = left.map(|place| &cluster.nodes[place]);
            let dead = nodes.filter(|node| node.running().is_none());
            dead.filter_map(|node| node.start().err()).map(|e| e.to_string()).collect::<Vec<_>>()
        });
        self.problems.extend(reviving.await.unwrap_or_default());
    }

    /// Heals everything, the first fault first.
    pub async fn heal_all(&mut self) {
        while !self.active.is_empty() {
            let active = self.active.remove(0);
            let (cluster, undo, name) = (self.cluster.clone(), active.undo, active.name.clone());
            let healed = tokio::task::spawn_blocking(move || undo.heal(&cluster)).await;
            let problem = match healed {
                Ok(Ok(lost)) => {
                    self.lost.extend(lost);
                    None
                }
                Ok(Err(problem)) => Some(problem),
                Err(error) => Some(error.to_string()),
            };
            self.problems.extend(problem.map(|problem| format!("healing {name}: {problem}")));
            let broken = self.broken();
            let majority = (!self.active.is_empty()).then(|| self.placement.has_majority(&broken));
            self.world.recorder.fault(&active.name, Phase::Stop, &active.on, majority);
        }
    }
}
