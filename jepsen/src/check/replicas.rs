//! Whether replicas agree: final reads of each room on each node, and hash chains.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::check::log::Log;
use crate::check::presence::End;
use crate::check::report::{Anomaly, Findings};
use crate::check::room::{Hold, NONE, Reading, Room};
use crate::history::{Event, History, Id, Name, Value};

/// Compares the final reads of a room.
pub(super) fn final_reads(
    room: &Room,
    log: &Log,
    ends: &BTreeMap<&Name, End>,
    findings: &mut Findings,
) {
    different_events(room, log, findings);
    for (node, end) in ends {
        // Whoever has caught up has what another node had before.
        let earlier = ends.iter().filter(|(_, other)| other.line < end.call);
        if let Some((longer, other)) = earlier.max_by_key(|(_, other)| other.head)
            && other.head > end.head
        {
            let lines = [other.line as usize, end.line as usize];
            findings.add(Anomaly::Diverged, Some(room.name), &lines, || {
                format!(
                    "at the end, {node} has the log up to seq {}, and {longer} had it up to seq {}",
                    end.head, other.head
                )
            });
        }
    }
    for node in ends.keys() {
        if let Some(problem) = incomplete(room, node, ends[*node].head) {
            findings.unknown(problem);
        }
    }
}

/// Two nodes end with different ids at one seq.
fn different_events(room: &Room, log: &Log, findings: &mut Findings) {
    let finals: Vec<&Reading> =
        room.readings.iter().filter(|reading| reading.hold == Hold::Final).collect();
    let node =
        |line: u32| room.history.partner(line as usize).map(|call| &room.history.ops()[call].node);
    for (line, Event { seq, id }) in &log.final_conflicts {
        if !findings.keeps(Anomaly::Diverged) {
            break; // counted already: each pair is a search through all final reads
        }
        let bound = room.sends.get(log.slot(*seq).send as usize).map(|send| send.id);
        let differs = |reading: &&&Reading| {
            let there: Option<Id> = event_at(room, reading, *seq);
            // Each pair once: with what the log has, or with an earlier conflict.
            there
                .is_some_and(|other| other != *id && (bound == Some(other) || reading.line < *line))
                && node(reading.line) != node(*line)
        };
        let Some(other) = finals.iter().find(differs) else { continue };
        let lines = [other.line as usize, *line as usize];
        findings.add(Anomaly::Diverged, Some(room.name), &lines, || {
            let there = event_at(room, other, *seq).map(|id| id.to_string()).unwrap_or_default();
            format!("at the end, seq {seq} is {there} on one node and {id} on another")
        });
    }
}

fn event_at(room: &Room, reading: &Reading, seq: u64) -> Option<Id> {
    let events = room.op(reading.line).events();
    let place = seq.checked_sub(events.first()?.seq).and_then(|place| usize::try_from(place).ok());
    // Where it is in a page without gaps; else wherever it is.
    let there = place.and_then(|place| events.get(place)).filter(|event| event.seq == seq);
    there.or_else(|| events.iter().find(|event| event.seq == seq)).map(|event| event.id)
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

/// Every room was read to its end on every node, if any was anywhere.
pub(super) fn everywhere(ends: &[(&Name, BTreeMap<&Name, End>)], findings: &mut Findings) {
    let nodes: BTreeSet<&Name> = ends.iter().flat_map(|(_, ends)| ends.keys().copied()).collect();
    for (room, ends) in ends {
        let missing: Vec<&str> =
            nodes.iter().filter(|node| !ends.contains_key(*node)).map(|n| n.as_str()).collect();
        if !missing.is_empty() {
            findings.unknown(format!(
                "room {room}: no final read on {}, but on other nodes or of other rooms",
                missing.join(", ")
            ));
        }
    }
}

/// Compares the hash chains that replicas have of a room at a seq.
pub(super) fn chains(history: &History, findings: &mut Findings) {
    let mut known: HashMap<(&Name, u64), (&str, usize)> = HashMap::new();
    for (line, op) in history.ops().iter().enumerate() {
        let (Value::Chain { seq, chain }, Some(room)) = (&op.value, &op.room) else { continue };
        let (other, before) = *known.entry((room, *seq)).or_insert((chain, line));
        if other != &**chain {
            findings.add(Anomaly::Diverged, Some(room), &[before, line], || {
                format!("two replicas' hash chains differ at seq {seq}")
            });
        }
    }
}

/// A room whose sends were acknowledged and that nobody read says nothing of what was lost.
pub(super) fn unread(room: &Room, findings: &mut Findings) {
    let acknowledged = room.sends.iter().filter(|send| send.ret != NONE).count();
    if acknowledged > 0 && room.readings.is_empty() {
        findings.unknown(format!(
            "room {}: sends were acknowledged ({acknowledged}), and nobody read it",
            room.name
        ));
    }
}
