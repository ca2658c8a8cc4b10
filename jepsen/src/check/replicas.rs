//! Whether replicas agree: final reads of each room on each node, and hash chains.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::check::heads::{self, Heads};
use crate::check::log::Log;
use crate::check::presence::End;
use crate::check::report::{Anomaly, Findings};
use crate::check::room::{Hold, NONE, Room};
use crate::history::{Event, F, History, Id, Kind, Name, Value};

/// Compares the final reads of a room.
pub(super) fn final_reads(
    room: &Room,
    log: &Log,
    (ends, heads): (&BTreeMap<&Name, End>, &Heads),
    findings: &mut Findings,
) {
    different_events(room, log, findings);
    shorter(room, heads, findings);
    for node in ends.keys() {
        if let Some(problem) = incomplete(room, node, ends[*node].head) {
            findings.unknown(problem);
        }
    }
}

/// A page of a node's final read goes less far than another node's that had been read when it began: whoever
/// has caught up has what another node had before. Each node once.
fn shorter(room: &Room, heads: &Heads, findings: &mut Findings) {
    let mut said: BTreeSet<&Name> = BTreeSet::new();
    for (node, page) in heads::final_pages(room) {
        let others = heads.nodes.iter().filter(|(other, _)| **other != node);
        let earlier = others.filter_map(|(other, seen)| Some((other, seen.before(page.call)?)));
        if let Some((longer, seen)) = earlier.max_by_key(|(_, seen)| seen.head)
            && seen.head > page.head
            && said.insert(node)
        {
            let lines = [seen.line as usize, page.line as usize];
            findings.add(Anomaly::Diverged, Some(room.name), &lines, || {
                format!(
                    "at the end, {node} has the log up to seq {}, and {longer} had it up to seq {}",
                    page.head, seen.head
                )
            });
        }
    }
}

/// Two nodes end with different ids at one seq.
fn different_events(room: &Room, log: &Log, findings: &mut Findings) {
    let mut shown: HashMap<u64, BTreeMap<Option<&Name>, Shown>> =
        log.final_conflicts.iter().map(|(_, event)| (event.seq, BTreeMap::new())).collect();
    if shown.is_empty() {
        return;
    }
    let bound = |seq: u64| room.sends.get(log.slot(seq).send as usize).map(|send| send.id);
    for reading in room.readings.iter().filter(|reading| reading.hold == Hold::Final) {
        let node = room.op(reading.call).node.as_ref();
        for Event { seq, id } in room.op(reading.line).events() {
            if let Some(nodes) = shown.get_mut(seq) {
                nodes.entry(node).or_default().take((reading.line, *id), bound(*seq));
            }
        }
    }
    let node = |line: u32| {
        let call = room.history.partner(line as usize);
        call.and_then(|call| room.history.ops()[call].node.as_ref())
    };
    for (line, Event { seq, id }) in &log.final_conflicts {
        let (here, bound) = (node(*line), bound(*seq));
        let others = shown[seq].iter().filter(|(node, _)| **node != here);
        // Each pair once: with what the log has, or with an earlier conflict.
        let differs =
            |(before, other): &(u32, Id)| other != id && (bound == Some(*other) || before < line);
        let seen = others.flat_map(|(_, shown)| shown.all()).filter(differs);
        let Some((before, other)) = seen.min_by_key(|(before, _)| *before) else { continue };
        let lines = [before as usize, *line as usize];
        findings.add(Anomaly::Diverged, Some(room.name), &lines, || {
            format!("at the end, seq {seq} is {other} on one node and {id} on another")
        });
    }
}

/// What a node's final reads have at one seq, and the line that showed it first, as far as it can differ
/// from another node's: the first id, the first other one, and the one that the log has there.
#[derive(Default)]
struct Shown([Option<(u32, Id)>; 3]);

impl Shown {
    fn take(&mut self, seen: (u32, Id), bound: Option<Id>) {
        let [first, other, as_bound] = &mut self.0;
        let (_, known) = *first.get_or_insert(seen);
        if seen.1 != known {
            other.get_or_insert(seen);
        }
        if Some(seen.1) == bound {
            as_bound.get_or_insert(seen);
        }
    }

    fn all(&self) -> impl Iterator<Item = (u32, Id)> {
        self.0.into_iter().flatten()
    }
}

/// What is missing of a node's final read: the pages must cover the room.
fn incomplete(room: &Room, node: &Name, head: u64) -> Option<String> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for reading in room.readings.iter().filter(|reading| reading.hold == Hold::Final) {
        if room.op(reading.call).node.as_ref() == Some(node) {
            ranges.extend(room.covered(reading));
        }
    }
    ranges.sort_unstable();
    let mut covered = 0_u64;
    for (first, last) in ranges {
        if first > covered.saturating_add(1) {
            break;
        }
        covered = covered.max(last);
    }
    (covered < head).then(|| {
        format!(
            "room {}: the final read on {node} ends before seq {}, and the head is {head}",
            room.name,
            covered + 1
        )
    })
}

/// Every room was read to its end on every node that clients asked anything, if that was asked for anywhere.
pub(super) fn everywhere(
    history: &History,
    ends: &[(&Name, BTreeMap<&Name, End>)],
    findings: &mut Findings,
) {
    let none = ends.iter().all(|(_, ends)| ends.is_empty());
    if none && !history.ops().iter().any(|op| op.f == F::FinalRead) {
        return;
    }
    let why =
        if none { "though some were asked for" } else { "but on other nodes or of other rooms" };
    let nodes = left(history);
    for (room, ends) in ends {
        let missing: Vec<&str> =
            nodes.iter().filter(|node| !ends.contains_key(*node)).map(|n| n.as_str()).collect();
        if !missing.is_empty() {
            findings
                .unknown(format!("room {room}: no final read on {}, {why}", missing.join(", ")));
        }
    }
}

/// The nodes that were asked anything, without those that are gone for good, as the history says.
fn left(history: &History) -> BTreeSet<&Name> {
    // The line that says that a node is gone, if one does.
    let mut nodes: BTreeMap<&Name, Option<usize>> = BTreeMap::new();
    for (line, op) in history.ops().iter().enumerate().filter(|(_, op)| op.f != F::Nemesis) {
        let call = history.partner(line);
        let asked = call.and_then(|call| history.ops()[call].node.as_ref());
        let Some(node) = op.node.as_ref().or(asked) else { continue };
        let gone = op.f == F::Admin && matches!(&op.value, Value::Admin(admin) if admin.is_gone());
        if gone {
            if op.kind == Kind::Ok {
                nodes.insert(node, Some(line));
            }
            continue;
        }
        let known = nodes.entry(node).or_default();
        // Whatever it answers to a later question, it is there. What it had delivered may come late, and to
        // end a subscription takes no node.
        let later = call.is_some_and(|call| known.is_some_and(|gone| call > gone));
        let answers = !matches!(op.f, F::Deliver | F::Unsubscribe);
        if later && op.kind == Kind::Ok && answers {
            *known = None;
        }
    }
    nodes.into_iter().filter(|(_, gone)| gone.is_none()).map(|(node, _)| node).collect()
}

/// Compares the hash chains that replicas have of a room at a seq.
pub(super) fn chains(history: &History, findings: &mut Findings) {
    let mut known: HashMap<(&Name, u64), (&str, usize)> = HashMap::new();
    for (line, op) in history.ops().iter().enumerate() {
        let (Value::Chain { seq, chain }, Some(room)) = (&op.value, &op.room) else { continue };
        let (other, before) = *known.entry((room, *seq)).or_insert((chain, line));
        if !other.eq_ignore_ascii_case(chain) {
            findings.add(Anomaly::Diverged, Some(room), &[before, line], || {
                format!("two replicas' hash chains differ at seq {seq}")
            });
        }
    }
}

/// What was acknowledged, and no reading says whether it is there: nobody was shown it, or a node's final
/// read began before.
pub(super) fn unverified(room: &Room, ends: &BTreeMap<&Name, End>, findings: &mut Findings) {
    let acknowledged = || room.sends.iter().filter(|send| send.ret != NONE);
    let count = acknowledged().count();
    if count > 0 && room.readings.is_empty() {
        findings.unknown(format!(
            "room {}: sends were acknowledged ({count}), and nobody read it",
            room.name
        ));
        return;
    }
    let mut unshown = acknowledged().filter(|send| send.shown == NONE);
    if let Some(first) = unshown.next() {
        let (more, name) = (unshown.count(), room.name);
        findings.unknown(format!(
            "room {name}: {} of {count} acknowledged sends were never shown to anybody, {} first",
            more + 1,
            first.id
        ));
    }
    for (node, end) in ends {
        let late = acknowledged().filter(|send| send.ret >= end.call && send.seq > end.head);
        let late = late.count();
        if late > 0 {
            findings.unknown(format!(
                "room {}: {late} of {count} sends were acknowledged after the final read on {node} had \
                 begun, which does not have them",
                room.name
            ));
        }
    }
}
