//! What must hold at any time, looked at from outside every few milliseconds: the simulator sees all nodes
//! at once. What comes and goes between two looks is seen only by what it leaves in logs and states.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use folkmoot::chat::state::{Room, State};
use folkmoot::id::{NodeId, RoomId, Seq, ShardId};
use folkmoot::meta::ClusterMap;
use folkmoot::shard::{Shard, Stamp};

use crate::cluster::{Cluster, Excuse, Node};
use crate::log_matching::Entries;
use crate::placement::Placements;
use crate::runtime::{Process, Sim};

/// At every so many looks, also what seems to be as it was is looked at anew.
const ANEW_LOOKS: u64 = 16;

/// A replica, as it was at the last look.
#[derive(Default)]
struct Known {
    shard: Weak<Shard<Sim>>,
    /// How many its node has had of its shard, with this one.
    nth: u64,
    stamp: Option<Stamp>,
    /// Its last committed entry (index, term).
    committed: Option<(u64, u64)>,
    /// Its term, and where its log ends, for which what is not committed was read.
    tail: Option<(u64, u64)>,
}

/// Which processes there are, and which of them have a replica of which shard.
type Hosts = Vec<(NodeId, Weak<Process>, Vec<ShardId>)>;

/// What was seen so far.
#[derive(Default)]
pub struct Invariants {
    /// Who led a group in a term.
    leaders: BTreeMap<(ShardId, u64), NodeId>,
    committed: BTreeMap<(ShardId, u64), Committed>,
    /// Every entry that was in a log, committed or not.
    entries: Entries,
    /// Up to where the entries of each process' logs were read that are committed.
    read: BTreeMap<(ShardId, String), u64>,
    /// The head of each room of each process, up to which its events were looked at.
    heads: BTreeMap<(RoomId, String), Seq>,
    /// A room's chain at a seq, and who had it first.
    chains: BTreeMap<(RoomId, Seq), ([u8; 32], NodeId)>,
    /// Up to where each process was seen to have a group's log on its disk, as it is committed. The
    /// next process of the node may have less.
    on_disk: BTreeMap<(ShardId, String), u64>,
    /// What each replica had applied, to see that it does not go back while it runs.
    applied: BTreeMap<(ShardId, NodeId, String), u64>,
    /// Each node's replica of a shard: one that has moved away and comes back begins anew.
    replicas: BTreeMap<(ShardId, NodeId), Known>,
    hosts: Hosts,
    placements: Placements,
    looks: u64,
}

/// The term of a committed entry, and a hash of what it carries once a log was read.
type Committed = (u64, Option<[u8; 32]>);

fn is_read((_, carried): &Committed) -> bool {
    carried.is_some()
}

fn hosts(cluster: &Cluster) -> Hosts {
    let of = |node: &Arc<Node>| {
        let (process, host) = node.hosting()?;
        let shards = host.all().iter().map(|shard| shard.id()).collect();
        Some((node.id, Arc::downgrade(&process), shards))
    };
    cluster.nodes.values().filter_map(of).collect()
}

fn same(before: &Hosts, now: &Hosts) -> bool {
    let alike = |((a, process, had), (b, other, has)): (&(_, _, _), &(_, _, _))| {
        a == b && Weak::ptr_eq(process, other) && had == has
    };
    before.len() == now.len() && before.iter().zip(now).all(alike)
}

impl Invariants {
    /// Looks at the cluster.
    pub fn look(&mut self, cluster: &Arc<Cluster>) {
        let anew = self.looks.is_multiple_of(ANEW_LOOKS);
        self.looks += 1;
        cluster.judge_panics();
        cluster.note_ends();
        let hosts = hosts(cluster);
        let moved = !same(&self.hosts, &hosts);
        self.hosts = hosts;
        // What of a group is committed, and whether anything about it has changed.
        let mut newest: BTreeMap<ShardId, ((u64, u64), bool)> = BTreeMap::new();
        for node in cluster.nodes.values() {
            let Some(running) = node.running() else { continue };
            for shard in running.router.host().all() {
                let stamp = shard.stamp();
                let known = self.known(node.id, &shard);
                let changed = anew || known.stamp.as_ref() != Some(&stamp);
                if changed {
                    let name = self.replica_name(node.id, &running.process, &shard);
                    let found = (&*running.router.map(), &*shard);
                    let committed = self.replica(cluster, node, name, found);
                    let known = self.known(node.id, &shard);
                    (known.stamp, known.committed) = (Some(stamp), committed);
                }
                if let Some(committed) = self.known(node.id, &shard).committed {
                    let group = newest.entry(shard.id()).or_insert((committed, false));
                    *group = (group.0.max(committed), group.1 || changed);
                }
            }
        }
        let starting = |node: &Arc<Node>| node.hosting().is_some() && node.running().is_none();
        let moved = moved || cluster.nodes.values().any(starting);
        for (shard, ((index, term), changed)) in newest {
            if changed || moved {
                self.on_quorum(cluster, shard, index, term);
            }
        }
        let committed = &self.committed;
        self.placements.look(cluster, &|at| committed.get(&at).map(|(term, _)| *term), anew);
    }

    fn known(&mut self, node: NodeId, shard: &Arc<Shard<Sim>>) -> &mut Known {
        let known = self.replicas.entry((shard.id(), node)).or_default();
        if !std::ptr::eq(known.shard.as_ptr(), Arc::as_ptr(shard)) {
            let (shard, nth) = (Arc::downgrade(shard), known.nth + 1);
            *known = Known { shard, nth, ..Known::default() };
        }
        known
    }

    /// Tells a replica from an earlier one of the same shard in the same process.
    fn replica_name(&mut self, node: NodeId, process: &Process, shard: &Arc<Shard<Sim>>) -> String {
        format!("{process:?}#{}", self.known(node, shard).nth)
    }

    /// One replica; its last committed entry (index, term).
    fn replica(
        &mut self,
        cluster: &Cluster,
        looked_at: &Node,
        process: String,
        (map, shard): (&ClusterMap, &Shard<Sim>),
    ) -> Option<(u64, u64)> {
        let (node, id, status) = (looked_at.id, shard.id(), shard.status());
        if status.state == "leader" {
            let first = *self.leaders.entry((id, status.term)).or_insert(node);
            if first != node {
                cluster.violation(format!(
                    "election safety: nodes {first} and {node} both led shard {id} in term {}",
                    status.term
                ));
            }
        }
        let applied_before = (id, node, process.clone());
        let before = self.applied.insert(applied_before, status.applied).unwrap_or(0);
        if before > status.applied {
            cluster.violation(format!(
                "node {node} had applied entry {before} of shard {id}, and now {}",
                status.applied
            ));
        }
        let (purged, durable) = (shard.purged_on_disk(), status.durable);
        if purged > durable {
            cluster.violation(format!(
                "node {node} has purged the log of shard {id} up to entry {purged}, and its state \
                 is on disk only up to {durable}"
            ));
        }
        let rooms = || {
            let rooms = shard.replica().read().rooms(None, usize::MAX);
            self.dense(cluster, node, &process, shard, &rooms);
            rooms
        };
        let rooms = cluster.look(looked_at, rooms).unwrap_or_default();
        self.placements.rooms(cluster, map, id, &rooms);
        self.rooms(cluster, node, rooms);
        // What openraft says of the commit comes a little after the apply; both must be final.
        let applied = shard.replica().read().applied().log_id;
        let finals = [shard.committed(), applied].into_iter().flatten();
        for (term, index) in finals.clone() {
            self.committed(cluster, node, (id, index), term, None);
        }
        let last = finals.map(|(term, index)| (index, term)).max();
        if let Some((last, _)) = last {
            let read = self.read.entry((id, process)).or_insert(0);
            let before = *read;
            let entries = shard.entries(before + 1, last);
            *read = entries.last().map_or(before, |entry| entry.index);
            let before = self.committed.get(&(id, before)).map(|(term, _)| (before, *term));
            let found = entries.iter().map(|entry| (entry.index, entry.term, entry.carried));
            self.matching(cluster, (node, id), before, found);
            for entry in entries {
                let at = (id, entry.index);
                self.committed(cluster, node, at, entry.term, Some(entry.carried));
                if let Some(voters) = entry.voters {
                    let read = |index| self.committed.get(&(id, index)).is_some_and(is_read);
                    self.placements.committed(cluster, at, voters, read);
                }
            }
        }
        // What is not committed may still be replaced, so it is read anew whenever it may be another; with
        // the one before it, which this log may have purged, or have otherwise than the state.
        let tail = Some((status.term, status.last_log));
        let known = self.replicas.entry((id, node)).or_default();
        let changed = known.tail != tail;
        known.tail = tail;
        let committed = last.map_or(0, |(index, _)| index);
        if changed && status.last_log > committed {
            let entries = shard.entries(committed.max(1), status.last_log);
            let found = entries.iter().map(|entry| (entry.index, entry.term, entry.carried));
            self.matching(cluster, (node, id), None, found);
        }
        last
    }

    /// Entries of a log, in order, and the one before them (index, term), if it is known, match what other
    /// logs have had.
    fn matching(
        &mut self,
        cluster: &Cluster,
        (node, shard): (NodeId, ShardId),
        mut before: Option<(u64, u64)>,
        entries: impl Iterator<Item = (u64, u64, [u8; 32])>,
    ) {
        for (index, term, carried) in entries {
            // A log that was purged meanwhile begins later.
            let next = before.filter(|(before, _)| before + 1 == index).map(|(_, term)| term);
            before = Some((index, term));
            if let Some(wrong) = self.entries.note(node, (shard, index, term), carried, next) {
                cluster.violation(wrong);
            }
        }
    }

    /// A committed entry is the same in every log, at any time.
    fn committed(
        &mut self,
        cluster: &Cluster,
        node: NodeId,
        (shard, index): (ShardId, u64),
        term: u64,
        carried: Option<[u8; 32]>,
    ) {
        let (first, known) = self.committed.entry((shard, index)).or_insert((term, carried));
        *known = known.or(carried);
        if *first != term {
            cluster.violation(format!(
                "committed entry {index} of shard {shard} is of term {first}, and on node {node} \
                 of {term}"
            ));
        } else if carried.is_some() && *known != carried {
            cluster.violation(format!(
                "committed entry {index} of shard {shard} carries something else on node {node}"
            ));
        }
    }

    /// What a room gained since the last look has each seq once, in order.
    fn dense(
        &mut self,
        cluster: &Cluster,
        node: NodeId,
        process: &str,
        shard: &Shard<Sim>,
        rooms: &[Arc<Room>],
    ) {
        for room in rooms {
            let before = self.heads.entry((room.id.clone(), process.into())).or_default();
            if *before == room.head {
                continue;
            }
            let first = Seq(before.0 + 1).max(room.first_seq);
            *before = room.head;
            let state = shard.replica().read();
            let events = state.events(&room.id, first, room.head, usize::MAX, usize::MAX);
            let found = events.iter().map(|event| event.seq);
            if !found.eq((first.0..=room.head.0).map(Seq)) {
                cluster.violation(format!(
                    "seqs: room {} on node {node} has {} events from {first} to {}",
                    room.id,
                    events.len(),
                    room.head
                ));
            }
        }
    }

    /// Equal seq, equal chain: on every replica, at any time.
    fn rooms(&mut self, cluster: &Cluster, node: NodeId, rooms: Vec<Arc<Room>>) {
        for room in rooms {
            let (chain, first) =
                *self.chains.entry((room.id.clone(), room.head)).or_insert((room.chain, node));
            if chain != room.chain {
                cluster.violation(format!(
                    "replicas diverged: room {} has another chain at seq {} on node {node} than on \
                     node {first}",
                    room.id, room.head
                ));
            }
        }
    }

    /// A committed entry is on the disks of a majority, by some membership that somebody goes by. What is
    /// down, or has lost its disk, counts with what it had there when its last process ended: that was
    /// acknowledged rightly.
    fn on_quorum(&mut self, cluster: &Cluster, shard: ShardId, index: u64, term: u64) {
        let (mut holds, mut memberships) = (BTreeSet::new(), BTreeSet::new());
        for node in cluster.nodes.values() {
            let found =
                node.hosting().and_then(|(process, host)| Some((process, host.get(shard)?)));
            let Some((process, replica)) = found else {
                if let Some(had) = node.had(shard) {
                    holds.extend(had.has(index, term).then_some(node.id));
                    memberships.extend(had.memberships);
                }
                continue;
            };
            node.forget_had(shard);
            memberships.extend(replica.memberships().map(|(_, voters)| voters));
            let name = self.replica_name(node.id, &process, &replica);
            let known = self.on_disk.entry((shard, name)).or_insert(0);
            // One that fails may only be unable to read it just now.
            let unreadable = || node.excused(Excuse::Disk) && replica.last_on_disk() >= index;
            if *known >= index || unreadable() {
                holds.insert(node.id);
            } else if replica.has_on_disk(index, term) {
                *known = index;
                holds.insert(node.id);
            }
        }
        let majority =
            |voters: &BTreeSet<NodeId>| voters.intersection(&holds).count() * 2 > voters.len();
        memberships.retain(|sets: &Vec<_>| !sets.is_empty());
        if !memberships.is_empty() && !memberships.iter().any(|sets| sets.iter().all(majority)) {
            cluster.violation(format!(
                "entry {index} of shard {shard} is committed, and on the disks of at most nodes \
                 {holds:?}, which is no majority of any of {memberships:?}"
            ));
        }
    }

    /// How often it was looked.
    pub fn looks(&self) -> u64 {
        self.looks
    }
}
