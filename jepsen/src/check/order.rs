//! The order of a log against real time, in one pass.
//!
//! Each operation has a key: a send at seq `s` comes after whatever saw the log end before `s` and
//! before whatever saw it reach `s`. In the order of keys, an operation that returned before one of
//! a strictly smaller key was called happened too early. That is all there is to linearizability
//! when each place is known; `tests/histories/brute_force.rs` compares it with a search.

use std::cmp::{Ordering, Reverse};

use crate::check::log::Log;
use crate::check::report::{Anomaly, Findings};
use crate::check::room::{Hold, NONE, Room};
use crate::history::{Id, Value};

/// What an element of the order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Send,
    /// A send of unknown outcome that nobody saw: it must fill a place that something has to fill.
    Filler,
    Reading(Hold),
}

#[derive(Clone, Copy, Debug)]
struct Element {
    seq: u64,
    sort: Sort,
    /// Not before this line; −1: any time.
    call: i64,
    /// Not after this line.
    ret: u32,
    line: u32,
}

impl Element {
    /// A send at s: 2 s + 1. A reading with head h: 2 h + 2.
    fn key(&self) -> (u64, bool) {
        (self.seq, matches!(self.sort, Sort::Reading(_)))
    }
}

/// Reports places that nothing can fill, and whatever is out of order.
pub(super) fn check(room: &Room, log: &Log, findings: &mut Findings) {
    let mut elements = Vec::with_capacity(room.sends.len() + room.readings.len());
    for (seq, slot) in log.places() {
        let send = &room.sends[slot.send as usize];
        if send.possible() {
            let (call, line) = (i64::from(send.call), send.call);
            elements.push(Element { seq, sort: Sort::Send, call, ret: send.ret, line });
        }
    }
    for reading in &room.readings {
        let call = if reading.hold == Hold::Linear { i64::from(reading.call) } else { -1 };
        elements.push(Element {
            seq: reading.head,
            sort: Sort::Reading(reading.hold),
            call,
            ret: reading.line,
            line: reading.line,
        });
    }
    let fillers = fill_holes(room, log, findings, &mut elements);
    elements.sort_unstable_by(|a, b| match a.key().cmp(&b.key()) {
        Ordering::Equal => a.line.cmp(&b.line),
        order => order,
    });
    let mut holder: Option<Element> = None;
    for group in elements.chunk_by(|a, b| a.key() == b.key()) {
        if let Some(holder) = &holder {
            for element in group.iter().filter(|element| i64::from(element.ret) < holder.call) {
                report((room, log, &fillers), findings, element, holder);
            }
        }
        let latest = group.iter().max_by_key(|element| element.call);
        holder = [holder.as_ref(), latest].into_iter().flatten().max_by_key(|e| e.call).copied();
    }
}

/// Every place up to the highest that is known of has a send. What is not bound is given to the
/// unresolved sends that nobody saw, the earliest first: no other choice does better, as they may
/// all have taken effect arbitrarily late. Returns the lines on which those sends began, in order.
fn fill_holes(
    room: &Room,
    log: &Log,
    findings: &mut Findings,
    elements: &mut Vec<Element>,
) -> Vec<u32> {
    let bound = log.last().map(|(seq, slot)| (seq, slot.line));
    let readings = room.readings.iter().map(|reading| (reading.head, reading.line));
    // The highest, and of those that reach it the first.
    let highest = readings.chain(bound).max_by_key(|(seq, line)| (*seq, Reverse(*line)));
    let Some((highest, line)) = highest else { return Vec::new() };
    let holes = log.holes(highest);
    if holes == 0 {
        return Vec::new();
    }
    let unseen = |send: &&crate::check::room::Send| {
        send.possible() && send.ret == NONE && send.shown == NONE
    };
    let mut fillers: Vec<u32> = room.sends.iter().filter(unseen).map(|send| send.call).collect();
    fillers.sort_unstable();
    let empty = |seq: &u64| log.slot(*seq).send == NONE;
    if holes > fillers.len() as u64 {
        let first = (1..=highest).find(empty).unwrap_or(highest);
        findings.add(Anomaly::Gap, Some(room.name), &[line as usize], || {
            format!(
                "the log reaches seq {highest}; {holes} places of it, from seq {first} on, were \
                 never seen, and only {} unresolved sends could be there",
                fillers.len()
            )
        });
    }
    for (seq, line) in (1..=highest).filter(empty).zip(fillers.iter().copied()) {
        let call = i64::from(line);
        elements.push(Element { seq, sort: Sort::Filler, call, ret: NONE, line });
    }
    fillers
}

/// The first try of the send at a place, if it was refused for certain: then what was shown there before any
/// other try began can only be of one that was refused.
fn refused(room: &Room, log: &Log, seq: u64) -> Option<(Id, u32)> {
    let send = room.sends.get(log.slot(seq).send as usize)?;
    (send.invoked < send.call).then_some((send.id, send.invoked))
}

/// That sends which could fill what nobody saw had not begun when the log reached beyond.
fn too_few(fillers: &[u32], early: &Element) -> String {
    let begun = match fillers.partition_point(|call| *call < early.ret) {
        0 => "none".into(),
        begun => format!("only {begun}"),
    };
    format!(
        "the log had reached seq {} when {begun} of the sends of unknown outcome had begun that could be \
         at the places up to there that nobody saw",
        early.seq
    )
}

/// `early` returned before `late` was called, and yet comes after it in the log.
fn report(
    (room, log, fillers): (&Room, &Log, &[u32]),
    findings: &mut Findings,
    early: &Element,
    late: &Element,
) {
    let shown = |seq: u64| match &room.op(early.line).value {
        Value::Page { events, .. } => events.iter().any(|event| event.seq == seq),
        Value::Delivery { seq: delivered, .. } => *delivered == seq,
        _ => false,
    };
    if matches!((early.sort, late.sort), (Sort::Reading(_), Sort::Send))
        && shown(late.seq)
        && let Some((id, first)) = refused(room, log, late.seq)
        && first < early.line
    {
        let lines = [first as usize, early.line as usize];
        findings.add(Anomaly::AbortedRead, Some(room.name), &lines, || {
            format!(
                "{id} at seq {}, when each send of it that had begun failed for certain",
                late.seq
            )
        });
        return;
    }
    let (anomaly, what) = match (early.sort, late.sort) {
        (_, Sort::Filler) => (Anomaly::Gap, too_few(fillers, early)),
        (Sort::Reading(_), Sort::Reading(_)) => (
            Anomaly::StaleRead,
            format!(
                "a read that began when seq {} had been seen has the log end at seq {}",
                early.seq, late.seq
            ),
        ),
        (_, Sort::Reading(_)) => (
            Anomaly::StaleRead,
            format!(
                "a read that began when seq {} was acknowledged has the log end at seq {}",
                early.seq, late.seq
            ),
        ),
        (Sort::Reading(_), Sort::Send) if shown(late.seq) => {
            (Anomaly::Phantom, format!("seq {} was seen before it was sent", late.seq))
        }
        (Sort::Reading(_), Sort::Send) => (
            Anomaly::NonmonotonicSend,
            format!(
                "a send that began when the log had been seen to reach seq {} got seq {}",
                early.seq, late.seq
            ),
        ),
        (_, Sort::Send) => (
            Anomaly::NonmonotonicSend,
            format!(
                "a send that began when seq {} was acknowledged got seq {}",
                early.seq, late.seq
            ),
        ),
    };
    let line = |element: &Element| match element.sort {
        // The acknowledgement may be that of a later try.
        Sort::Send if element.ret != NONE && std::ptr::eq(element, early) => element.ret,
        _ => element.line,
    };
    findings.add(anomaly, Some(room.name), &[line(early) as usize, line(late) as usize], || what);
}
