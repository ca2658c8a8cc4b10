//! A node of a simulated cluster: what outlives its processes, and the one that runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use folkmoot::clock::Clock;
use folkmoot::id::{NodeId, ShardId};
use folkmoot::node::groups::{Groups, Membership};
use folkmoot::router::Router;
use folkmoot::shard::Shard;
use folkmoot::shard::host::Host;

use crate::disk::Disk;
use crate::placement::Voters;
use crate::runtime::{Process, Sim, elapsed};

/// Wall-clock time at the start of a life, in milliseconds since the Unix epoch.
const START_MS: u64 = 1_800_000_000_000;

/// Why a node may end, and may not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excuse {
    /// Its disk fails, or is full, or loses power, for a while.
    Disk,
    /// Bits of its log were flipped: if that comes to light, it stays away.
    Damage,
}

/// A node's wall clock.
#[derive(Debug, Default)]
pub struct SimClock {
    /// How far it is ahead, in milliseconds.
    skew_ms: AtomicI64,
}

impl SimClock {
    /// Sets how far it is ahead.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
    }

    /// How far it is ahead.
    pub fn skew_ms(&self) -> i64 {
        self.skew_ms.load(Ordering::Relaxed)
    }
}

/// The right time, in milliseconds since the Unix epoch.
pub fn true_ms() -> u64 {
    START_MS + elapsed().as_millis() as u64
}

impl Clock for SimClock {
    fn now_ms(&self) -> u64 {
        true_ms().saturating_add_signed(self.skew_ms())
    }
}

/// A node, and what outlives its processes.
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its disk.
    pub disk: Disk,
    /// Its clock.
    pub clock: Arc<SimClock>,
    /// What is being done to its disk, which may end its processes.
    excuses: Mutex<Vec<Excuse>>,
    /// It will not start again.
    pub(crate) gone: AtomicBool,
    /// It is not started now.
    held: AtomicBool,
    /// What it starts from, if that is not the founders' map: its file is always whole.
    membership: Mutex<Option<Membership>>,
    /// Its log has lost its end, and it must not start again.
    pub(crate) must_refuse: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) boots: u64,
    /// It was asked to stop.
    pub(crate) stopping: bool,
    pub(crate) process: Option<Arc<Process>>,
    pub(crate) running: Option<Running>,
    /// Where the process has its replicas, also while it starts.
    pub(crate) host: Option<Arc<Host<Sim>>>,
    /// The process whose state could not be looked at, as its disk failed.
    broken: Option<Arc<Process>>,
    /// What processes that have ended had of each group.
    pub(crate) had: BTreeMap<ShardId, Had>,
}

/// What a process had of a group on its disk when it ended, and by which members it went.
#[derive(Debug, Clone, Default)]
pub struct Had {
    /// Up to which entry.
    last: u64,
    /// The terms of those that it had not applied, which need not be the group's.
    terms: BTreeMap<u64, u64>,
    /// Its memberships: the last one, and the last one that it knew to be committed.
    pub memberships: [Voters; 2],
}

impl Had {
    /// Of a process that broke off where nobody can look any more: it may have had everything.
    pub const UNKNOWN: Had =
        Had { last: u64::MAX, terms: BTreeMap::new(), memberships: [Voters::new(), Voters::new()] };

    /// What a replica has now.
    pub fn of(shard: &Shard<Sim>) -> Had {
        let status = shard.status();
        let last = shard.last_on_disk().max(status.durable);
        let entries = shard.entries(status.applied + 1, last);
        Had {
            last,
            // None when the disk cannot be read any more: then it counts as having them.
            terms: entries.iter().map(|entry| (entry.index, entry.term)).collect(),
            memberships: shard.memberships().map(|(_, voters)| voters),
        }
    }

    /// Whether it had a committed entry.
    pub fn has(&self, index: u64, term: u64) -> bool {
        self.last >= index && self.terms.get(&index).is_none_or(|here| *here == term)
    }
}

/// What a running process of a node has.
#[derive(Clone)]
pub struct Running {
    /// The process.
    pub process: Arc<Process>,
    /// Takes requests.
    pub router: Arc<Router<Sim>>,
    /// The node's groups.
    pub groups: Arc<Groups<Sim>>,
}

impl Node {
    /// A node that is off, with an empty disk.
    pub(crate) fn new(id: NodeId, disk: Disk) -> Node {
        Node {
            id,
            disk,
            clock: Arc::default(),
            excuses: Mutex::default(),
            gone: AtomicBool::new(false),
            held: AtomicBool::new(false),
            membership: Mutex::default(),
            must_refuse: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the lock panics")
    }

    /// The running process, if there is one.
    pub fn running(&self) -> Option<Running> {
        self.lock().running.clone().filter(|running| !running.process.is_dead())
    }

    /// The process, and where it has its replicas, which may still be starting: they take part by then.
    pub fn hosting(&self) -> Option<(Arc<Process>, Arc<Host<Sim>>)> {
        let state = self.lock();
        let process = state.process.clone().filter(|process| !process.is_dead())?;
        Some((process, state.host.clone()?))
    }

    /// The process, which may still be starting.
    pub fn process(&self) -> Option<Arc<Process>> {
        self.lock().process.clone().filter(|process| !process.is_dead())
    }

    /// What its last process with a replica of a group had of that on the disk, if it has ended.
    pub fn had(&self, shard: ShardId) -> Option<Had> {
        self.lock().had.get(&shard).cloned()
    }

    /// Its process has the replica in hand.
    pub fn forget_had(&self, shard: ShardId) {
        self.lock().had.remove(&shard);
    }

    /// Its process' state can be looked at no more.
    pub fn note_broken(&self) {
        let mut state = self.lock();
        state.broken = state.process.clone();
    }

    /// Whether its process panicked, or would have, had it looked where somebody else did.
    pub fn is_broken(&self) -> bool {
        let state = self.lock();
        let Some(process) = &state.process else { return true };
        process.is_dead() || state.broken.as_ref().is_some_and(|it| Arc::ptr_eq(it, process))
    }

    /// Whether its disk may fail just now.
    pub fn disk_may_fail(&self) -> bool {
        self.excused(Excuse::Disk) || !self.disk.has_power()
    }

    /// Whether it will not start again.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Whether it is kept from starting.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// Keeps it from starting, or lets it.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// Switches it off for good. Its process is dead.
    pub fn discard(&self) {
        self.gone.store(true, Ordering::Relaxed);
    }

    /// What it has noted to start from.
    pub fn membership(&self) -> Option<Membership> {
        self.membership.lock().expect("no holder of the lock panics").clone()
    }

    /// Notes what it is to start from.
    pub fn keep(&self, membership: Membership) {
        *self.membership.lock().expect("no holder of the lock panics") = Some(membership);
    }

    /// Takes its disk away, for good. Its process is dead.
    pub fn lose_disk(&self) {
        self.gone.store(true, Ordering::Relaxed);
        self.disk.wipe();
    }

    /// From now on its log must not open.
    pub fn expect_refusal(&self) {
        self.must_refuse.store(true, Ordering::Relaxed);
    }

    /// From now on its processes may end for this reason.
    pub fn excuse(&self, why: Excuse) {
        self.excuses.lock().expect("no holder of the lock panics").push(why);
    }

    /// Takes back one [`Node::excuse`].
    pub fn expect_well(&self, why: Excuse) {
        let mut excuses = self.excuses.lock().expect("no holder of the lock panics");
        if let Some(at) = excuses.iter().position(|excuse| *excuse == why) {
            excuses.remove(at);
        }
    }

    /// Whether there is such a reason now.
    pub fn excused(&self, why: Excuse) -> bool {
        self.excuses.lock().expect("no holder of the lock panics").contains(&why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_another_term_is_not_the_one_that_was_committed() {
        let had = Had { last: 7, terms: BTreeMap::from([(6, 2), (7, 2)]), ..Had::default() };
        assert!(had.has(5, 1), "it had been applied");
        assert!(had.has(7, 2) && !had.has(7, 3) && !had.has(8, 2));
        assert!(!Had::default().has(1, 1) && Had::UNKNOWN.has(9, 9));
    }
}
