//! Whether what was acknowledged is still there.
//!
//! As in `jepsen.tests.kafka`, an acknowledged message that nobody was ever shown is a
//! `lost-write` when a reader passed over its place, and `unseen` when the room was read to its
//! end and the end came before it. One that was shown once and is missing later is a `lost-write`,
//! acknowledged or not: what anybody was shown is committed.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::check::heads::{self, Heads};
use crate::check::report::{Anomaly, Findings};
use crate::check::room::{Hold, NONE, Reading, Room, Send};
use crate::history::Name;

/// How a room ended: on a node, by all pages of its final reads; or by one reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The invoke of the first page.
    pub(super) call: u32,
    /// The line of the last page.
    pub(super) line: u32,
    pub(super) head: u64,
}

impl End {
    fn of(reading: &Reading) -> End {
        End { call: reading.call, line: reading.line, head: reading.head }
    }
}

/// How a room ended, node by node.
pub(super) fn ends<'h>(room: &Room<'h>) -> BTreeMap<&'h Name, End> {
    let mut ends: BTreeMap<&Name, End> = BTreeMap::new();
    for (node, page) in heads::final_pages(room) {
        let end = ends.entry(node).or_insert(End::of(page));
        end.call = end.call.min(page.call);
        end.line = page.line;
        end.head = end.head.max(page.head);
    }
    ends
}

/// Reports acknowledged messages that are missing. Each page of a final read is held to what there was
/// when it began: a node may lose its log's end between two of them.
pub(super) fn check(room: &Room, heads: &Heads, findings: &mut Findings) {
    let mut missing = vec![false; room.sends.len()];
    passed_over(room, findings, &mut missing);
    let pages = heads::final_pages(room);
    let mut pages: Vec<End> = pages.map(|(_, page)| End::of(page)).collect();
    if pages.is_empty() {
        pages.extend(last_read(room));
    }
    let lowest = lowest(pages);
    for (at, send) in room.sends.iter().enumerate() {
        if send.ret == NONE || missing[at] {
            continue;
        }
        // Of the pages that began after the acknowledgement, the one that goes least far.
        let next = lowest.partition_point(|(call, _)| *call <= send.ret);
        let Some((_, end)) = lowest.get(next).filter(|(_, end)| end.head < send.seq) else {
            continue;
        };
        missing[at] = true;
        let (anomaly, and) = if send.shown == NONE {
            (Anomaly::Unseen, "nobody was ever shown it")
        } else {
            (Anomaly::LostWrite, "it had been shown")
        };
        let lines = [send.ret, send.shown, end.line].map(|line| line as usize);
        let lines = if send.shown == NONE { &[lines[0], lines[2]][..] } else { &lines };
        findings.add(anomaly, Some(room.name), lines, || {
            format!(
                "{} was acknowledged as seq {}, {and}, and the room ends at seq {}",
                send.id, send.seq, end.head
            )
        });
    }
    forgotten(room, heads, &missing, findings);
}

/// For each page, in the order in which they began: its invoke, and which page goes least far of it and all
/// that began later; of those that do, the first.
fn lowest(mut pages: Vec<End>) -> Vec<(u32, End)> {
    pages.sort_unstable_by_key(|page| Reverse(page.call));
    let mut lowest: Vec<(u32, End)> = Vec::with_capacity(pages.len());
    for page in pages {
        let least = match lowest.last() {
            Some((_, later)) if later.head < page.head => *later,
            _ => page,
        };
        lowest.push((page.call, least));
    }
    lowest.reverse();
    lowest
}

/// Whether a page of a final read ends before what somebody had seen when it began, a client or the same
/// node, though no acknowledgement says so. What another node had is said where replicas are compared.
fn forgotten(room: &Room, heads: &Heads, missing: &[bool], findings: &mut Findings) {
    if missing.contains(&true) {
        return;
    }
    for (node, page) in heads::final_pages(room) {
        let own = heads.nodes.get(node).and_then(|own| own.before(page.call));
        let seen = [heads.clients.before(page.call), own].into_iter().flatten();
        // Of those that saw the most, the first.
        let Some(seen) = seen.max_by_key(|seen| (seen.head, Reverse(seen.line))) else { continue };
        if seen.head > page.head {
            let lines = [seen.line as usize, page.line as usize];
            findings.add(Anomaly::LostWrite, Some(room.name), &lines, || {
                format!(
                    "the log had been seen to reach seq {}, and {node} ends at seq {}",
                    seen.head, page.head
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
    let last = End::of(linear.max_by_key(|reading| reading.call)?);
    let goes_on = |seen: &Reading| seen.line > last.call && seen.head > last.head;
    (!room.readings.iter().any(goes_on)).then_some(last)
}
