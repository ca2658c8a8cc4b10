//! Binds each place of a room's log to the id there: from acknowledgements, pages, deliveries.
//!
//! In a log that is right there are at least as many sends as places, so places up to the number
//! of sends are a vector; whatever is beyond is wrong already, and kept aside.

use std::collections::{BTreeMap, HashSet};

use crate::check::report::{Anomaly, Findings};
use crate::check::room::{Hold, NONE, Reading, Room, Send};
use crate::history::{Event, Id, Value};

/// A place in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Which send is there; `NONE`: none is known.
    pub(super) send: u32,
    /// The line that said so first.
    pub(super) line: u32,
}

const EMPTY: Slot = Slot { send: NONE, line: NONE };

/// What is known of a room's log.
#[derive(Debug)]
pub(super) struct Log {
    /// By seq; the first is no place.
    pub(super) slots: Vec<Slot>,
    beyond: BTreeMap<u64, Slot>,
    /// Events of final reads that differ from what was bound before: their line, and the event.
    pub(super) final_conflicts: Vec<(u32, Event)>,
    said: HashSet<(Anomaly, u64, Id)>,
}

impl Log {
    /// What is at a place.
    pub(super) fn slot(&self, seq: u64) -> Slot {
        match usize::try_from(seq).ok().and_then(|seq| self.slots.get(seq)) {
            Some(slot) => *slot,
            None => self.beyond.get(&seq).copied().unwrap_or(EMPTY),
        }
    }

    fn set(&mut self, seq: u64, slot: Slot) {
        match usize::try_from(seq).ok().and_then(|seq| self.slots.get_mut(seq)) {
            Some(place) => *place = slot,
            None => drop(self.beyond.insert(seq, slot)),
        }
    }

    /// The last place that has a send.
    pub(super) fn last(&self) -> Option<(u64, Slot)> {
        let beyond = self.beyond.last_key_value().map(|(seq, slot)| (*seq, *slot));
        beyond.or_else(|| {
            let last = self.slots.iter().rposition(|slot| slot.send != NONE)?;
            Some((last as u64, self.slots[last]))
        })
    }

    /// Every place that has a send, in order.
    pub(super) fn places(&self) -> impl Iterator<Item = (u64, Slot)> {
        let within = self.slots.iter().enumerate().map(|(seq, slot)| (seq as u64, *slot));
        within
            .filter(|(_, slot)| slot.send != NONE)
            .chain(self.beyond.iter().map(|(seq, slot)| (*seq, *slot)))
    }

    /// How many places up to `seq` have no send.
    pub(super) fn holes(&self, seq: u64) -> u64 {
        let filled = self.places().take_while(|(place, _)| *place <= seq).count() as u64;
        seq - filled
    }
}

/// Binds a room's log; reports what contradicts itself.
pub(super) fn bind(room: &mut Room, findings: &mut Findings) -> Log {
    let possible = room.sends.iter().filter(|send| send.possible()).count();
    let mut log = Log {
        slots: vec![EMPTY; possible + 1],
        beyond: BTreeMap::new(),
        final_conflicts: Vec::new(),
        said: HashSet::new(),
    };
    for line in std::mem::take(&mut room.acks) {
        if let Some((id, Some(seq))) = room.op(line).value.written() {
            bind_one(room, &mut log, findings, line, Event { seq, id }, false);
        }
    }
    for at in 0..room.readings.len() {
        let reading = room.readings[at];
        match &room.op(reading.line).value {
            Value::Delivery { seq, id, .. } => {
                let event = Event { seq: *seq, id: *id };
                bind_one(room, &mut log, findings, reading.line, event, true);
            }
            Value::Page { events, .. } => {
                check_page(room, findings, &reading, events);
                for event in events {
                    let bound = bind_one(room, &mut log, findings, reading.line, *event, true);
                    if !bound && reading.hold == Hold::Final {
                        log.final_conflicts.push((reading.line, *event));
                    }
                }
            }
            _ => {}
        }
    }
    log
}

/// Whether the place has this id, now at least.
fn bind_one(
    room: &mut Room,
    log: &mut Log,
    findings: &mut Findings,
    line: u32,
    event: Event,
    shows: bool,
) -> bool {
    let Event { seq, id } = event;
    let slot = log.slot(seq);
    if let Some(send) = room.sends.get_mut(slot.send as usize)
        && send.id == id
    {
        if shows {
            send.shown = send.shown.min(line);
        }
        return true;
    }
    let name = room.name;
    let mut say = |anomaly: Anomaly, lines: &[u32], what: String| {
        if log.said.insert((anomaly, seq, id)) {
            let lines: Vec<usize> = lines.iter().map(|line| *line as usize).collect();
            findings.add(anomaly, Some(name), &lines, || what);
        }
    };
    if seq == 0 {
        say(Anomaly::Gap, &[line], format!("{id} is at seq 0, and a log begins with 1"));
        return false;
    }
    let next = room.sends.len() as u32;
    let at = *room.by_id.entry(id).or_insert(next);
    if at == next {
        room.sends.push(Send::of_nobody(id));
    }
    let send = &mut room.sends[at as usize];
    if send.invoked == NONE && send.shown == NONE {
        say(Anomaly::Phantom, &[line], format!("{id} at seq {seq} was never sent"));
    } else if !send.possible() && send.shown == NONE {
        let what = format!("{id} at seq {seq}, but its send failed for certain");
        say(Anomaly::AbortedRead, &[send.invoked, line], what);
    }
    if shows {
        send.shown = send.shown.min(line);
    }
    let (bound_at, known) = (send.seq, send.ret.min(send.shown));
    if bound_at == 0 {
        send.seq = seq;
    } else if bound_at != seq {
        let other = log.slot(bound_at);
        let first = if other.send == at { other.line } else { known };
        let what = format!("{id} is at seq {bound_at} and at seq {seq}");
        if log.said.insert((Anomaly::Duplicate, seq, id)) {
            findings.add(Anomaly::Duplicate, Some(name), &[first as usize, line as usize], || what);
        }
    }
    if slot.send == NONE {
        log.set(seq, Slot { send: at, line });
        return true;
    }
    let other = room.sends[slot.send as usize].id;
    if log.said.insert((Anomaly::InconsistentOffsets, seq, id)) {
        let lines = [slot.line as usize, line as usize];
        findings.add(Anomaly::InconsistentOffsets, Some(name), &lines, || {
            format!("seq {seq} is {other} and {id}")
        });
    }
    false
}

/// A page goes on by ones from where it was asked to, within its head.
fn check_page(room: &Room, findings: &mut Findings, reading: &Reading, events: &[Event]) {
    let line = reading.line as usize;
    let after = room.after(reading);
    let mut due = after.saturating_add(1);
    let wrong = events.iter().find(|event| {
        let wrong = event.seq != due;
        due = event.seq.saturating_add(1);
        wrong
    });
    if let Some(event) = wrong {
        let before = events.iter().take_while(|other| !std::ptr::eq(*other, event)).last();
        let before = before.map_or(after, |event| event.seq);
        findings.add(Anomaly::Gap, Some(room.name), &[line], || {
            format!("within one response, seq {} comes after seq {before}", event.seq)
        });
    }
    if let Some(event) = events.iter().find(|event| event.seq > reading.head) {
        findings.add(Anomaly::InconsistentOffsets, Some(room.name), &[line], || {
            format!(
                "one response says that its head is {} and shows seq {}",
                reading.head, event.seq
            )
        });
    }
    let limit = match &room.op(reading.call).value {
        Value::Range { limit, .. } => *limit,
        _ => None,
    };
    if events.is_empty() && reading.head > after && limit != Some(0) {
        findings.add(Anomaly::Gap, Some(room.name), &[line], || {
            format!("the head is {}, and a page after {after} is empty", reading.head)
        });
    }
}
