//! Writes a history as JSON lines.

use std::io::{self, Write};

use serde::{Serialize, Serializer};
use serde_json::json;

use crate::history::op::{Event, F, Kind, Op, Value};
use crate::history::{History, Name, Process};

/// The name and version of the format, in the first line of each file.
pub const FORMAT: &str = "folkmoot-history-1";

/// Writes lines as they come; a header before them and an end after them, so that a file that was
/// cut off is known for it.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    written: u64,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn new(mut out: W) -> io::Result<Writer<W>> {
        writeln!(out, "{}", json!({ "format": FORMAT }))?;
        Ok(Writer { out, written: 0 })
    }

    /// Writes one line. It is not checked: [`read`](crate::history::read) does that.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write(&mut self, op: &Op) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, &Line::new(self.written, op))?;
        self.written += 1;
        self.out.write_all(b"\n")
    }

    /// Flushes what was written so far.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Writes the end, flushes, and returns what was written to.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn finish(mut self) -> io::Result<W> {
        writeln!(self.out, "{}", json!({ "end": self.written }))?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl History {
    /// Writes the whole history.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn write(&self, out: impl Write) -> io::Result<()> {
        let mut writer = Writer::new(out)?;
        self.ops().iter().try_for_each(|op| writer.write(op))?;
        writer.finish().map(drop)
    }
}

/// A line as JSON has it.
#[derive(Serialize)]
struct Line<'a> {
    index: u64,
    time: u64,
    process: Process,
    #[serde(rename = "type")]
    kind: Kind,
    f: F,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<&'a Name>,
    #[serde(skip_serializing_if = "is_none")]
    value: &'a Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    late: u64,
}

impl<'a> Line<'a> {
    fn new(index: u64, op: &'a Op) -> Line<'a> {
        Line {
            index,
            time: op.time,
            process: op.process,
            kind: op.kind,
            f: op.f,
            node: op.node.as_ref(),
            room: op.room.as_ref(),
            value: &op.value,
            error: op.error.as_deref(),
            late: op.late,
        }
    }
}

fn is_zero(late: &u64) -> bool {
    *late == 0
}

fn is_none(value: &&Value) -> bool {
    **value == Value::None
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::None => serializer.serialize_unit(),
            Value::Write { id, seq, other_body } => {
                WriteJson { id: *id, seq: *seq, other_body: *other_body }.serialize(serializer)
            }
            Value::Range { after, limit } => {
                RangeJson { after: *after, limit: *limit }.serialize(serializer)
            }
            Value::Page { head, events } => PageJson { head: *head, events }.serialize(serializer),
            Value::Delivery { subscription, seq, id } => {
                DeliveryJson { subscription: *subscription, seq: *seq, id: *id }
                    .serialize(serializer)
            }
            Value::Subscription { subscription, after, head } => {
                SubscriptionJson { subscription: *subscription, after: *after, head: *head }
                    .serialize(serializer)
            }
            Value::Chain { seq, chain } => ChainJson { seq: *seq, chain }.serialize(serializer),
            Value::Fault(fault) => fault.serialize(serializer),
            Value::Admin(admin) => admin.serialize(serializer),
        }
    }
}

#[derive(Serialize)]
struct WriteJson {
    id: crate::history::Id,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    other_body: bool,
}

#[derive(Serialize)]
struct RangeJson {
    after: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
}

#[derive(Serialize)]
struct PageJson<'a> {
    head: u64,
    events: &'a [Event],
}

#[derive(Serialize)]
struct DeliveryJson {
    subscription: u64,
    seq: u64,
    id: crate::history::Id,
}

#[derive(Serialize)]
struct SubscriptionJson {
    subscription: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<u64>,
}

#[derive(Serialize)]
struct ChainJson<'a> {
    seq: u64,
    chain: &'a str,
}
