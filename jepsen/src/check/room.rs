//! A history, room by room: each id's send, and everything that showed a part of the log.

use std::collections::HashMap;

use crate::history::{F, History, Id, Kind, Name, Op, Value};

/// No line: for a call, never; for a return, not yet.
pub(super) const NONE: u32 = u32::MAX;

/// All tries with one id: one send.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) id: Id,
    /// The first invoke of any try; `NONE`: nobody sent it.
    pub(super) invoked: u32,
    /// The first invoke of a try that did not definitely fail: the event cannot be older. `NONE`:
    /// there is no such try.
    pub(super) call: u32,
    /// The first `ok`; `NONE`: it was never acknowledged.
    pub(super) ret: u32,
    /// Its place, as first acknowledged or shown; 0 when there is none.
    pub(super) seq: u64,
    /// The first line that showed it in the log.
    pub(super) shown: u32,
    /// An `ok` for the text that was sent first, and one for another text.
    pub(super) ok_bodies: [u32; 2],
}

impl Send {
    /// A send that nobody has called.
    pub(super) const fn of_nobody(id: Id) -> Send {
        Send { id, invoked: NONE, call: NONE, ret: NONE, seq: 0, shown: NONE, ok_bodies: [NONE; 2] }
    }

    /// Whether it was sent, and may have taken effect.
    pub(super) const fn possible(&self) -> bool {
        self.call != NONE
    }
}

/// How what was read relates to time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// As of some moment between its invoke and its return.
    Linear,
    /// As of some moment before its return.
    Local,
    /// The same, on a node that has caught up.
    Final,
    /// One event on a subscription.
    Delivery,
}

/// Something that showed how far the log goes, and perhaps a part of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// The line that shows it.
    pub(super) line: u32,
    /// Its invoke; `NONE` for a delivery.
    pub(super) call: u32,
    /// The log had this many events.
    pub(super) head: u64,
    pub(super) hold: Hold,
}

/// What happened in one room.
#[derive(Debug)]
pub(super) struct Room<'h> {
    pub(super) history: &'h History,
    pub(super) name: &'h Name,
    pub(super) sends: Vec<Send>,
    pub(super) by_id: HashMap<Id, u32>,
    /// The lines of acknowledgements that name a seq.
    pub(super) acks: Vec<u32>,
    /// In the order of their lines.
    pub(super) readings: Vec<Reading>,
}

impl<'h> Room<'h> {
    fn new(history: &'h History, name: &'h Name) -> Room<'h> {
        Room {
            history,
            name,
            sends: Vec::new(),
            by_id: HashMap::new(),
            acks: Vec::new(),
            readings: Vec::new(),
        }
    }

    pub(super) fn op(&self, line: u32) -> &'h Op {
        &self.history.ops()[line as usize]
    }

    /// The seq that a page was asked to begin behind.
    pub(super) fn after(&self, reading: &Reading) -> u64 {
        match (reading.call != NONE).then(|| &self.op(reading.call).value) {
            Some(Value::Range { after, .. }) => *after,
            _ => 0,
        }
    }

    /// The seqs that a reading shows or passes over, first and last, if there are any.
    pub(super) fn covered(&self, reading: &Reading) -> Option<(u64, u64)> {
        match &self.op(reading.line).value {
            Value::Delivery { seq, .. } => Some((*seq, *seq)),
            Value::Page { events, .. } => {
                let last = events.iter().map(|event| event.seq).max()?;
                let first = self.after(reading).saturating_add(1);
                (first <= last).then_some((first, last))
            }
            _ => None,
        }
    }

    fn send(&mut self, id: Id) -> &mut Send {
        let next = self.sends.len() as u32;
        let at = *self.by_id.entry(id).or_insert(next);
        if at == next {
            self.sends.push(Send::of_nobody(id));
        }
        &mut self.sends[at as usize]
    }

    fn begin_write(&mut self, line: u32, id: Id, failed: bool) {
        let send = self.send(id);
        send.invoked = send.invoked.min(line);
        if !failed {
            send.call = send.call.min(line);
        }
    }

    fn end_write(&mut self, line: u32, id: Id, other_body: bool) {
        let names_seq = self.op(line).value.written().is_some_and(|(_, seq)| seq.is_some());
        let send = self.send(id);
        // An admin operation that wrote nothing is ok without a seq: it says nothing of the log.
        if names_seq {
            send.ret = send.ret.min(line);
            let ok = &mut send.ok_bodies[usize::from(other_body)];
            *ok = line.min(*ok);
            self.acks.push(line);
        }
    }

    fn take(&mut self, index: usize, op: &Op) {
        let line = index as u32;
        let partner = self.history.partner(index);
        let call = partner.map_or(NONE, |partner| partner as u32);
        let mut reading = |head: u64, call: u32, hold: Hold| {
            self.readings.push(Reading { line, call, head, hold });
        };
        match (&op.value, op.kind) {
            (Value::Page { head, .. }, _) => match op.f {
                F::ReadLocal => reading(*head, call, Hold::Local),
                F::FinalRead => reading(*head, call, Hold::Final),
                _ => reading(*head, call, Hold::Linear),
            },
            (Value::Delivery { seq, .. }, _) => reading(*seq, NONE, Hold::Delivery),
            (Value::Subscription { .. }, _) => {
                if let Some(head) = self.history.head_told(index) {
                    reading(head, call, Hold::Linear);
                }
            }
            (Value::Write { .. } | Value::Admin(_), _) => self.take_write(index, op, partner),
            _ => {}
        }
    }

    fn take_write(&mut self, index: usize, op: &Op, partner: Option<usize>) {
        let Some((id, _)) = op.value.written() else { return };
        let other_body = matches!(op.value, Value::Write { other_body: true, .. });
        match op.kind {
            Kind::Invoke => {
                let end = partner.map(|end| &self.history.ops()[end]);
                let wrote_nothing = |end: &Op| {
                    end.kind == Kind::Fail
                        || end.kind == Kind::Ok
                            && end.value.written().is_none_or(|(_, seq)| seq.is_none())
                };
                self.begin_write(index as u32, id, end.is_some_and(wrote_nothing));
            }
            Kind::Ok => self.end_write(index as u32, id, other_body),
            Kind::Fail | Kind::Info => {}
        }
    }
}

/// Takes a history apart into rooms, in the order of their names.
pub(super) fn split(history: &History) -> Vec<Room<'_>> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut rooms: Vec<Room> = Vec::new();
    for (index, op) in history.ops().iter().enumerate() {
        let Some(name) = &op.room else { continue };
        let place = *places.entry(name.as_str()).or_insert_with(|| {
            rooms.push(Room::new(history, name));
            rooms.len() - 1
        });
        rooms[place].take(index, op);
    }
    rooms.sort_by(|a, b| a.name.cmp(b.name));
    rooms
}
