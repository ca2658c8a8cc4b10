//! A run as operations of `jepsen.tests.kafka`: rooms are its keys, seqs its offsets, ids its
//! values.
//!
//! That checker follows what each process polls and holds it to going on from there. A read may
//! begin anywhere, so each read is a process of its own; a subscription is a new one each time
//! that it is resumed. It takes a value as failed when any send of it failed, so all tries with
//! one id are one send, of a process of its own if there were several. An acknowledgement that names
//! another place than the first one of its id is a poll, of a process of its own as well.

use std::collections::HashMap;
use std::io::{self, Write};

use crate::export::edn::{fault_edn, process_edn, string};
use crate::export::sends::{self, Merged};
use crate::export::{F, Fresh, Id, Kind, Name, Numbers, Process};
use crate::history::{Event, History, Op, Value};

/// Writes op maps with kafka's micro-operations, one a line; before each room's and id's first use
/// a comment says which number it is.
///
/// # Errors
///
/// Those of the writer.
pub fn kafka(history: &History, out: impl Write) -> io::Result<()> {
    let mut export = Export {
        history,
        out,
        index: 0,
        fresh: Fresh::above(history),
        keys: Numbers::new(),
        values: Numbers::new(),
        sends: sends::merge(history),
        merged: HashMap::new(),
        reads: HashMap::new(),
        subscribers: HashMap::new(),
    };
    for (line, op) in history.ops().iter().enumerate() {
        export.take(line, op)?;
    }
    export.out.flush()
}

struct Export<'h, W> {
    history: &'h History,
    out: W,
    index: usize,
    fresh: Fresh,
    keys: Numbers<&'h Name>,
    values: Numbers<Id>,
    sends: HashMap<(&'h Name, Id), Merged>,
    /// The processes of sends that were tried more than once.
    merged: HashMap<(&'h Name, Id), Process>,
    /// The processes of reads, by their invoke.
    reads: HashMap<usize, Process>,
    subscribers: HashMap<u64, Process>,
}

impl<'h, W: Write> Export<'h, W> {
    fn take(&mut self, line: usize, op: &'h Op) -> io::Result<()> {
        if let Value::Fault(fault) = &op.value {
            let f = fault_edn(fault);
            let on: Vec<String> = fault.on.iter().map(|node| string(node.as_str())).collect();
            let value = format!("[{}]", on.join(" "));
            return self.write(op, op.process, Kind::Info, &f, &value);
        }
        let Some(room) = &op.room else { return Ok(()) };
        match (op.f, &op.value) {
            (F::Send | F::Resend | F::Admin, _) => self.take_send(line, op, room),
            (F::Read | F::ReadLocal | F::FinalRead, _) => self.take_read(line, op, room),
            (F::Subscribe, Value::Subscription { subscription, .. }) if op.kind == Kind::Invoke => {
                let process = self.fresh.process();
                self.subscribers.insert(*subscription, process);
                Ok(())
            }
            (F::Deliver, Value::Delivery { subscription, seq, id }) => {
                let Some(process) = self.subscribers.get(subscription).copied() else {
                    return Ok(());
                };
                self.write(op, process, Kind::Invoke, ":poll", "[[:poll]]")?;
                let value = self.polled(room, &[Event { seq: *seq, id: *id }])?;
                self.write(op, process, Kind::Ok, ":poll", &value)
            }
            _ => Ok(()),
        }
    }

    fn take_send(&mut self, line: usize, op: &Op, room: &'h Name) -> io::Result<()> {
        if let Some(event) = sends::told_again(self.history, &self.sends, line) {
            let process = self.fresh.process();
            self.write(op, process, Kind::Invoke, ":poll", "[[:poll]]")?;
            let value = self.polled(room, &[event])?;
            return self.write(op, process, Kind::Ok, ":poll", &value);
        }
        let start = self.history.partner(line).map_or(line, |partner| partner.min(line));
        let Some((id, _)) = self.history.ops()[start].value.written() else { return Ok(()) };
        let Some(send) = self.sends.get(&(room, id)).copied() else { return Ok(()) };
        let alone = send.tries == 1;
        // The info of a send that was tried once retires its process here too.
        let ends = send.end() == Some(line) || alone && send.ret == Some(line);
        if line != send.call && !ends {
            return Ok(());
        }
        let process = if alone {
            op.process
        } else {
            let fresh = &mut self.fresh;
            *self.merged.entry((room, id)).or_insert_with(|| fresh.process())
        };
        let (key, value) = (self.key(room)?, self.value(id)?);
        let kind = if line == send.call { Kind::Invoke } else { send.kind };
        let seq = op.value.written().and_then(|(_, seq)| seq).filter(|_| kind == Kind::Ok);
        let mop = match seq {
            Some(seq) => format!("[[:send {key} [{seq} {value}]]]"),
            None => format!("[[:send {key} {value}]]"),
        };
        self.write(op, process, kind, ":send", &mop)
    }

    fn take_read(&mut self, line: usize, op: &Op, room: &'h Name) -> io::Result<()> {
        if op.kind == Kind::Invoke {
            let process = self.fresh.process();
            self.reads.insert(line, process);
            return self.write(op, process, Kind::Invoke, ":poll", "[[:poll]]");
        }
        let start = self.history.partner(line).unwrap_or(line);
        let Some(process) = self.reads.remove(&start) else { return Ok(()) };
        let value = match &op.value {
            Value::Page { events, .. } => self.polled(room, events)?,
            _ => "[[:poll]]".into(),
        };
        self.write(op, process, op.kind, ":poll", &value)
    }

    fn polled(&mut self, room: &'h Name, events: &[Event]) -> io::Result<String> {
        if events.is_empty() {
            return Ok("[[:poll {}]]".into());
        }
        let key = self.key(room)?;
        let mut pairs = Vec::with_capacity(events.len());
        for event in events {
            pairs.push(format!("[{} {}]", event.seq, self.value(event.id)?));
        }
        Ok(format!("[[:poll {{{key} [{}]}}]]", pairs.join(" ")))
    }

    fn key(&mut self, room: &'h Name) -> io::Result<usize> {
        let known = self.keys.0.len();
        let key = self.keys.of(room);
        if key == known {
            writeln!(self.out, "; key {key}: room {}", string(room.as_str()))?;
        }
        Ok(key)
    }

    fn value(&mut self, id: Id) -> io::Result<usize> {
        let known = self.values.0.len();
        let value = self.values.of(id);
        if value == known {
            writeln!(self.out, "; value {value}: {}", string(&id.to_string()))?;
        }
        Ok(value)
    }

    fn write(
        &mut self,
        op: &Op,
        process: Process,
        kind: Kind,
        f: &str,
        value: &str,
    ) -> io::Result<()> {
        let (index, time, kind) = (self.index, op.time, kind.as_str());
        let process = process_edn(process);
        self.index += 1;
        writeln!(
            self.out,
            "{{:index {index}, :time {time}, :process {process}, :type :{kind}, :f {f}, \
             :value {value}}}"
        )
    }
}
