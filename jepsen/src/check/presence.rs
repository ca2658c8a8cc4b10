//! Whether what was acknowledged is still there.
//!
//! As in `jepsen.tests.kafka`, an acknowledged message that nobody was ever shown is a
//! `lost-write` when a reader passed over its place, and `unseen` when the room was read to its
//! end and the end came before it. One that was shown once and is missing later is a `lost-write`,
//! acknowledged or not: what anybody was shown is committed.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::check::report::{Anomaly, Findings};
use crate::check::room::{Hold, NONE, Reading, Room, Send};
use crate::history::Name;

/// How a room ended on a node, by its final reads, which may be many pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The invoke of the first page.
    pub(super) call: u32,
    /// The line of the last page.
    pub(super) line: u32,
    pub(super) head: u64,
}

/// How a room ended, node by node.
pub(super) fn ends<'h>(room: &Room<'h>) -> BTreeMap<&'h Name, End> {
    let mut ends: BTreeMap<&Name, End> = BTreeMap::new();
    for reading in room.readings.iter().filter(|reading| reading.hold == Hold::Final) {
        let Some(node) = &room.op(reading.call).node else { continue };
        let Reading { line, call, head, .. } = *reading;
        let end = ends.entry(node).or_insert(End { call, line, head });
        end.call = end.call.min(call);
        end.line = line;
        end.head = end.head.max(head);
    }
    ends
}

/// Reports acknowledged messages that are missing.
pub(super) fn check(room: &Room, ends: &BTreeMap<&Name, End>, findings: &mut Findings) {
    let mut missing = vec![false; room.sends.len()];
    passed_over(room, findings, &mut missing);
    let mut lasts: Vec<End> = ends.values().copied().collect();
    if lasts.is_empty() {
        lasts.extend(last_read(room));
    }
    for last in lasts {
        let acknowledged = |send: &Send| send.ret != NONE && send.ret < last.call;
        for (at, send) in room.sends.iter().enumerate() {
            if acknowledged(send) && send.seq > last.head && !missing[at] {
                missing[at] = true;
                let (anomaly, and) = if send.shown == NONE {
                    (Anomaly::Unseen, "nobody was ever shown it")
                } else {
                    (Anomaly::LostWrite, "it had been shown")
                };
                let lines = [send.ret, send.shown, last.line].map(|line| line as usize);
                let lines = if send.shown == NONE { &[lines[0], lines[2]][..] } else { &lines };
                findings.add(anomaly, Some(room.name), lines, || {
                    format!(
                        "{} was acknowledged as seq {}, {and}, and the room ends at seq {}",
                        send.id, send.seq, last.head
                    )
                });
            }
        }
    }
    forgotten(room, ends, &missing, findings);
}

/// Whether a node's final read ends before what somebody had seen when it began, though no acknowledgement
/// says so. What another final read had is said where replicas are compared.
fn forgotten(room: &Room, ends: &BTreeMap<&Name, End>, missing: &[bool], findings: &mut Findings) {
    if missing.contains(&true) {
        return;
    }
    for (node, end) in ends {
        let before = room.readings.iter().take_while(|reading| reading.line < end.call);
        let before = before.filter(|reading| reading.hold != Hold::Final);
        // Of those that saw the most, the first.
        let Some(seen) = before.max_by_key(|seen| (seen.head, Reverse(seen.line))) else {
            continue;
        };
        if seen.head > end.head {
            let lines = [seen.line as usize, end.line as usize];
            findings.add(Anomaly::LostWrite, Some(room.name), &lines, || {
                format!(
                    "the log had been seen to reach seq {}, and {node} ends at seq {}",
                    seen.head, end.head
                )
            });
            return;
        }
    }
}

/// Acknowledged, shown to nobody, and a page goes past their place.
fn passed_over(room: &Room, findings: &mut Findings, missing: &mut [bool]) {
    let never_shown = |send: &Send| send.ret != NONE && send.shown == NONE;
    if !room.sends.iter().any(never_shown) {
        return;
    }
    let covered = covered(room);
    for (at, send) in room.sends.iter().enumerate().filter(|(_, send)| never_shown(send)) {
        let next = covered.partition_point(|(first, _)| *first <= send.seq);
        if covered[..next].last().is_none_or(|(_, last)| *last < send.seq) {
            continue;
        }
        missing[at] = true;
        let mut lines = vec![send.ret as usize];
        if findings.keeps(Anomaly::LostWrite) {
            let covers = |(first, last): (u64, u64)| (first..=last).contains(&send.seq);
            let passes = |reading: &&Reading| room.covered(reading).is_some_and(covers);
            lines.extend(room.readings.iter().find(passes).map(|reading| reading.line as usize));
        }
        findings.add(Anomaly::LostWrite, Some(room.name), &lines, || {
            format!(
                "{} was acknowledged as seq {}, nobody was ever shown it, and a reader went past",
                send.id, send.seq
            )
        });
    }
}

/// The seqs that were read or passed over, as ranges that do not overlap, in order.
fn covered(room: &Room) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> =
        room.readings.iter().filter_map(|reading| room.covered(reading)).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(range) if first <= range.1.saturating_add(1) => range.1 = range.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Without final reads: the linearizable read that began last, unless something saw more later.
fn last_read(room: &Room) -> Option<End> {
    let linear = room.readings.iter().filter(|reading| reading.hold == Hold::Linear);
    let last = linear.max_by_key(|reading| reading.call)?;
    let Reading { line, call, head, .. } = *last;
    let more = room.readings.iter().any(|reading| reading.line > call && reading.head > head);
    (!more).then_some(End { call, line, head })
}
