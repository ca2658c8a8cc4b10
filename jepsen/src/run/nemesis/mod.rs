//! Attacks the cluster: one fault after another, at times two at once, with quiet phases between.
//!
//! Whom an attack hits is in `strike.rs`, and how it is done in `act.rs`; here is when, and in
//! `excuses.rs` who may end over it. All of it follows from the seed, but for how long nodes take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use tokio::time::{Instant, sleep_until};

use crate::cluster::Cluster;
use crate::history::Phase;
use crate::run::roster::Roster;
use crate::run::status::Status;
use crate::run::workload::World;

pub mod act;
pub mod cut;
pub mod damage;
pub mod excuses;
pub mod kind;
pub mod storm;
pub mod strike;

use act::{Healed, Undo};
use excuses::Excuses;
use kind::Kind;
use strike::{Ground, Strike};

/// How often whom to hit is drawn, where the draw hits nobody.
const PLANS: usize = 4;

/// What attacks.
pub struct Nemesis {
    world: Arc<World>,
    cluster: Arc<Cluster>,
    status: Status,
    roster: Arc<Roster>,
    kinds: Vec<Kind>,
    rng: SmallRng,
    active: Vec<Active>,
    /// Nodes whose disks forgot what they had acknowledged, and that refuse to go on, as they must:
    /// they would have to be replaced.
    pub lost: BTreeSet<usize>,
    /// Nodes that went on with a log that was damaged, each with what was done: what they forgot may
    /// come to light later.
    pub suspects: BTreeMap<usize, String>,
    /// Who may end.
    pub excuses: Excuses,
    /// The kinds that struck.
    pub kinds_struck: BTreeSet<Kind>,
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
    /// Nodes that it may end.
    may_end: BTreeSet<usize>,
    /// Nodes that cannot take part.
    broken: BTreeSet<usize>,
    /// Those that it hits in whatever way.
    struck: BTreeSet<usize>,
    undo: Undo,
}

impl Nemesis {
    /// Has done nothing yet.
    #[must_use]
    pub fn new(
        world: Arc<World>,
        cluster: Arc<Cluster>,
        status: Status,
        roster: Arc<Roster>,
        kinds: Vec<Kind>,
    ) -> Nemesis {
        let rng = SmallRng::seed_from_u64(world.seed);
        Nemesis {
            world,
            excuses: Excuses::new(cluster.clone()),
            cluster,
            status,
            roster,
            kinds,
            rng,
            active: vec![],
            lost: BTreeSet::new(),
            suspects: BTreeMap::new(),
            kinds_struck: BTreeSet::new(),
            problems: vec![],
            findings: vec![],
            struck: BTreeMap::new(),
        }
    }

    /// Attacks until then, and no shorter; all is healed when this returns.
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
        sleep_until(until).await;
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
        active.chain(self.lost.iter().copied()).chain(self.roster.dead()).collect()
    }

    /// Tells the operator, if there is one, who is hit.
    fn tell(&self) {
        let struck = self.active.iter().flat_map(|active| active.struck.iter().copied());
        self.roster.set_struck(struck.collect());
    }

    /// Nodes that have forgotten what they had acknowledged, or may have.
    fn forgetful(&self) -> BTreeSet<usize> {
        self.lost.iter().chain(self.suspects.keys()).copied().collect()
    }

    /// Whom an attack of this kind hits. `None`: nobody, as things are.
    async fn plan(&mut self, kind: Kind, late: bool, hit: &BTreeSet<usize>) -> Option<Strike> {
        let local = self.cluster.proxy.is_some();
        for _ in 0..PLANS {
            let placement = self.roster.placement();
            let leader = self.status.leader(&placement, &mut self.rng).await;
            let all = self.cluster.present().into_iter().collect();
            let forgetful = self.forgetful();
            let ground = Ground::new(all, hit, leader, (late, local), &mut self.rng);
            let ground = ground.forgotten(forgetful.len());
            let Some(strike) = Strike::plan(kind, &ground, &mut self.rng) else { continue };
            // With churn, those whose packets it would hit may all be gone.
            if !strike.act.hits(|place| self.cluster.nodes[place].running().is_some()) {
                continue;
            }
            // What a majority of a shard's replicas forgets, nobody remembers.
            let all = forgetful.union(&strike.broken).copied().collect();
            if !kind.damages() || placement.has_majority(&all) {
                return Some(strike);
            }
        }
        None
    }

    async fn strike(&mut self, kind: Kind, late: bool) {
        let roster = self.roster.clone();
        let _hands = roster.hands().await;
        let mut hit = self.broken();
        let nodes = self.cluster.nodes.iter().enumerate();
        hit.extend(nodes.filter(|(_, node)| node.running().is_none()).map(|(place, _)| place));
        let Some(strike) = self.plan(kind, late, &hit).await else { return };
        let name = strike.name.clone();
        let on: Vec<String> =
            strike.on.iter().map(|node| self.cluster.nodes[*node].name.clone()).collect();
        let mut may_end = BTreeSet::new();
        if kind.may_end_nodes() {
            self.excuses.excuse(&strike.on);
            may_end.extend(&strike.on);
        }
        let broken: BTreeSet<usize> = hit.union(&strike.broken).copied().collect();
        let majority = Some(strike.clear && roster.has_majority(&broken));
        self.world.recorder.fault(&name, Phase::Start, &on, majority);
        self.kinds_struck.insert(kind);
        let (broken, struck) =
            (strike.broken.clone(), strike.broken.iter().chain(&strike.on).copied().collect());
        let cluster = self.cluster.clone();
        let injecting = tokio::task::spawn_blocking(move || {
            let mut undo = Undo::default();
            let injected = strike.act.inject(&cluster, &mut undo);
            (undo, injected)
        });
        let undo = match injecting.await {
            Ok((undo, injected)) => {
                self.problems.extend(injected.err().map(|problem| format!("{name}: {problem}")));
                self.take(&name, undo)
            }
            Err(error) => {
                self.problems.push(format!("{name}: {error}"));
                Undo::default()
            }
        };
        self.active.push(Active { name, on, may_end, broken, struck, undo });
        self.tell();
    }

    /// Notes what came of an attack.
    fn take(&mut self, name: &str, mut undo: Undo) -> Undo {
        self.findings.append(&mut undo.findings);
        if undo.notes.is_empty() {
            self.count(name.to_owned(), 1);
        }
        for note in undo.notes.drain(..) {
            self.count(format!("{name}: {note}"), 1);
        }
        for place in undo.suspects.drain(..) {
            self.excuses.excuse_for_good(place);
            // Only an old log is whole in itself, so that nothing may come to light.
            if name.starts_with(Kind::Rollback.name()) {
                self.suspects.insert(place, name.to_owned());
            }
        }
        undo
    }

    fn count(&mut self, what: String, times: u64) {
        *self.struck.entry(what).or_default() += times;
    }

    /// Looks at what has happened to all nodes. One that says that its log has lost something, once
    /// it has run on that, is lost.
    pub fn look(&mut self) {
        for place in 0..self.cluster.nodes.len() {
            if !self.excuses.look(place) || self.cluster.nodes[place].running().is_some() {
                continue;
            }
            self.lost.insert(place);
            if let Some(name) = self.suspects.remove(&place) {
                self.count(format!("{name}: noticed later"), 1);
            }
        }
    }

    /// What is known in the end: logs that were put back to before, and nobody noticed, were filled
    /// again by the leaders.
    pub fn conclude(&mut self) {
        self.look();
        for (_, name) in std::mem::take(&mut self.suspects) {
            self.count(format!("{name}: refilled"), 1);
        }
        self.findings.append(&mut self.excuses.findings);
    }

    /// Takes excuses from nodes that are well again, once what hit them is over.
    async fn forgive(&mut self) {
        let hit: BTreeSet<usize> =
            self.active.iter().flat_map(|active| active.may_end.iter().copied()).collect();
        for place in self.excuses.waiting().difference(&hit) {
            if self.status.ready(*place).await.is_ok() {
                self.excuses.well(*place);
            }
        }
    }

    /// Starts nodes that ended by themselves, as whatever watches over them would.
    async fn revive(&mut self) {
        self.look();
        self.forgive().await;
        let cluster = self.cluster.clone();
        let lost: BTreeSet<usize> = self.lost.union(&self.roster.dead()).copied().collect();
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
            let (cluster, undo) = (self.cluster.clone(), active.undo);
            let healed = tokio::task::spawn_blocking(move || undo.heal(&cluster)).await;
            let healed = healed.unwrap_or_else(|error| Healed {
                problems: vec![error.to_string()],
                ..Healed::default()
            });
            self.lost.extend(healed.lost);
            if healed.compactions > 0 {
                self.count(format!("{}: bases rewritten", active.name), healed.compactions);
            }
            let problem = |problem| format!("healing {}: {problem}", active.name);
            self.problems.extend(healed.problems.into_iter().map(problem));
            let broken = self.broken();
            let majority = (!self.active.is_empty()).then(|| self.roster.has_majority(&broken));
            self.world.recorder.fault(&active.name, Phase::Stop, &active.on, majority);
            self.tell();
        }
    }
}
