//! Reads a history from JSON lines, and says at which line one is malformed.
//!
//! A file that begins with a header ends with an `end` that counts its lines: without it the file
//! was cut off. Histories written by hand need no header; without an `end` nobody knows whether they are
//! whole ([`History::is_whole`]), and no checker calls them valid.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use serde::Deserialize;

use crate::history::op::{Admin, Event, F, Fault, Kind, Op, Phase, Value};
use crate::history::{FORMAT, History, Id, Malformed, Name, Process};

/// How long a line may be: far more than the largest page.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Why a history could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file could not be read.
    #[error("line {line}: {error}")]
    Io {
        /// The line, from 1.
        line: u64,
        /// What the system says.
        error: io::Error,
    },
    /// The file is not a history.
    #[error("line {line}: {problem}")]
    Malformed {
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: Malformed,
    },
}

impl ReadError {
    /// The line, from 1.
    #[must_use]
    pub const fn line(&self) -> u64 {
        match self {
            ReadError::Io { line, .. } | ReadError::Malformed { line, .. } => *line,
        }
    }
}

/// Reads a history to its end.
///
/// # Errors
///
/// [`ReadError`], which has the line.
pub fn read(mut input: impl BufRead) -> Result<History, ReadError> {
    let mut reader = Reader::default();
    let mut text = Vec::new();
    let mut line = 0;
    loop {
        line += 1;
        text.clear();
        let read = input.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut text);
        let taken = match read.map_err(|error| ReadError::Io { line, error })? {
            0 => break,
            bytes if bytes as u64 > LINE_BYTES_MAX => {
                Err(Malformed::new(format_args!("it is longer than {LINE_BYTES_MAX} bytes")))
            }
            _ => reader.take(&text),
        };
        taken.map_err(|problem| ReadError::Malformed { line, problem })?;
    }
    reader.end().map_err(|problem| ReadError::Malformed { line: line.max(2) - 1, problem })
}

#[derive(Default)]
struct Reader {
    history: History,
    names: HashMap<Box<str>, Name>,
    header: bool,
    end: bool,
}

impl Reader {
    fn take(&mut self, text: &[u8]) -> Result<(), Malformed> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.iter().all(u8::is_ascii_whitespace) {
            return Err(Malformed::new("it is empty"));
        }
        if self.end {
            return Err(Malformed::new("goes on after its end: another history follows it"));
        }
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(Malformed::new("not an operation: it is no JSON object"));
        }
        let op = match serde_json::from_slice::<RawOp>(text) {
            Ok(raw) => raw,
            Err(error) => return self.header_or_end(text, &error),
        };
        let expected = self.history.len() as u64;
        if op.index != expected {
            return Err(Malformed::new(format_args!(
                "its index is {}; {expected} was due: lines are missing, or two histories are mixed",
                op.index
            )));
        }
        let op = self.op(op)?;
        self.history.push(op).map(drop)
    }

    fn header_or_end(&mut self, text: &[u8], error: &serde_json::Error) -> Result<(), Malformed> {
        if let Ok(header) = serde_json::from_slice::<RawHeader>(text) {
            if header.format != FORMAT {
                return Err(Malformed::new(format_args!(
                    "the format is {:?}; this version knows {FORMAT:?}",
                    header.format
                )));
            }
            if self.header || !self.history.is_empty() {
                return Err(Malformed::new("a second history begins within the first"));
            }
            self.header = true;
            return Ok(());
        }
        if let Ok(RawEnd { end }) = serde_json::from_slice(text) {
            let lines = self.history.len() as u64;
            if end != lines {
                return Err(Malformed::new(format_args!(
                    "the end of a history of {end} operations, but there are {lines}"
                )));
            }
            self.end = true;
            return Ok(());
        }
        Err(not_an_operation(error))
    }

    fn end(mut self) -> Result<History, Malformed> {
        if self.history.is_empty() && !self.header {
            return Err(Malformed::new("it is empty"));
        }
        if self.header && !self.end {
            return Err(Malformed::new("cut off: the history has no end"));
        }
        self.history.maybe_cut = !self.end;
        Ok(self.history)
    }

    fn name(&mut self, text: &str) -> Name {
        if let Some(name) = self.names.get(text) {
            return name.clone();
        }
        let name = Name::from(text);
        self.names.insert(text.into(), name.clone());
        name
    }

    fn op(&mut self, raw: RawOp) -> Result<Op, Malformed> {
        let kinds = [Kind::Invoke, Kind::Ok, Kind::Fail, Kind::Info];
        let kind = kinds.into_iter().find(|kind| kind.as_str() == raw.kind).ok_or_else(|| {
            Malformed::new(format_args!(
                "unknown type {:?}; there are invoke, ok, fail and info",
                raw.kind
            ))
        })?;
        let f = F::ALL.into_iter().find(|f| f.as_str() == raw.f).ok_or_else(|| {
            let known = F::ALL.map(F::as_str).join(", ");
            Malformed::new(format_args!("unknown f {:?}; there are {known}", raw.f))
        })?;
        Ok(Op {
            time: raw.time,
            process: raw.process,
            kind,
            f,
            node: raw.node.map(|name| self.name(&name)),
            room: raw.room.map(|name| self.name(&name)),
            value: raw.value.unwrap_or_default().into_value(f, kind)?,
            error: raw.error.map(|error| error.into()),
            late: raw.late,
        })
    }
}

/// What serde says, without its count of lines, which is always one.
fn not_an_operation(error: &serde_json::Error) -> Malformed {
    let said = error.to_string().replace(" at line 1 column ", " at column ");
    if error.is_eof() {
        return Malformed::new(format_args!("cut off: {said}"));
    }
    Malformed::new(format_args!("not an operation: {said}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHeader {
    format: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEnd {
    end: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOp<'a> {
    index: u64,
    time: u64,
    process: Process,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    f: Cow<'a, str>,
    #[serde(borrow)]
    node: Option<Cow<'a, str>>,
    #[serde(borrow)]
    room: Option<Cow<'a, str>>,
    value: Option<RawValue>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(default)]
    late: u64,
}

/// The fields of all values; each `f` has its own.
#[derive(Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawValue {
    id: Option<Id>,
    seq: Option<u64>,
    other_body: Option<bool>,
    after: Option<u64>,
    limit: Option<u64>,
    head: Option<u64>,
    events: Option<Vec<Event>>,
    subscription: Option<u64>,
    chain: Option<Box<str>>,
    fault: Option<Box<str>>,
    phase: Option<Phase>,
    on: Option<Vec<Box<str>>>,
    majority: Option<bool>,
    what: Option<Box<str>>,
}

impl RawValue {
    fn into_value(mut self, f: F, kind: Kind) -> Result<Value, Malformed> {
        let of = |field: &str| {
            Malformed::new(format_args!(
                "the value of a {} of type {} has no {field}",
                f.as_str(),
                kind.as_str()
            ))
        };
        let nothing = self == RawValue::default();
        if nothing && (matches!(kind, Kind::Fail | Kind::Info) || f == F::Chain) {
            return Ok(Value::None);
        }
        let value = match f {
            F::Send | F::Resend => Value::Write {
                id: self.id.take().ok_or_else(|| of("id"))?,
                seq: self.seq.take(),
                other_body: self.other_body.take().unwrap_or(false),
            },
            _ if f.reads() && kind == Kind::Ok => Value::Page {
                head: self.head.take().ok_or_else(|| of("head"))?,
                events: self.events.take().ok_or_else(|| of("events"))?,
            },
            F::FinalRead => {
                Value::Range { after: self.after.take().unwrap_or(0), limit: self.limit.take() }
            }
            F::Read | F::ReadLocal => Value::Range {
                after: self.after.take().ok_or_else(|| of("after"))?,
                limit: self.limit.take(),
            },
            F::Deliver => Value::Delivery {
                subscription: self.subscription.take().ok_or_else(|| of("subscription"))?,
                seq: self.seq.take().ok_or_else(|| of("seq"))?,
                id: self.id.take().ok_or_else(|| of("id"))?,
            },
            F::Subscribe | F::Unsubscribe => Value::Subscription {
                subscription: self.subscription.take().ok_or_else(|| of("subscription"))?,
                after: self.after.take(),
                head: self.head.take(),
            },
            F::Chain => Value::Chain {
                seq: self.seq.take().ok_or_else(|| of("seq"))?,
                chain: self.chain.take().ok_or_else(|| of("chain"))?,
            },
            F::Nemesis => Value::Fault(Box::new(Fault {
                fault: Name::from(&*self.fault.take().ok_or_else(|| of("fault"))?),
                phase: self.phase.take().ok_or_else(|| of("phase"))?,
                on: self.on.take().unwrap_or_default().iter().map(|n| Name::from(&**n)).collect(),
                majority: self.majority.take(),
            })),
            F::Admin => Value::Admin(Box::new(Admin {
                what: Name::from(&*self.what.take().ok_or_else(|| of("what"))?),
                id: self.id.take(),
                seq: self.seq.take(),
            })),
        };
        if self != RawValue::default() {
            return Err(Malformed::new(format_args!(
                "the value has fields that are not those of a {} of type {}",
                f.as_str(),
                kind.as_str()
            )));
        }
        Ok(value)
    }
}
