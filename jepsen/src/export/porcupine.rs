//! Porcupine operations: call, return, input, output.
//!
//! Porcupine takes operations of one time for concurrent. The order of lines says more, so times
//! are moved apart by a nanosecond where they are equal.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::export::sends;
use crate::history::{Event, F, History, Kind, Name, Process, Value};

/// As Go's `porcupine.Operation` has it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Operation<'a> {
    client_id: Process,
    input: Json,
    call: u64,
    output: Json,
    #[serde(rename = "Return")]
    ret: u64,
    #[serde(skip)]
    room: &'a Name,
}

/// Writes operations, one a line, in the order in which they begin. Each has its room in its
/// input, by which the model partitions.
///
/// # Errors
///
/// Those of the writer.
pub fn porcupine(history: &History, mut out: impl Write) -> io::Result<()> {
    let times = times(history);
    let sends = sends::merge(history);
    let end = times.last().map_or(1, |time| time + 1);
    for (line, op) in history.ops().iter().enumerate() {
        let Some(room) = &op.room else { continue };
        let operation = |input: Json, call: u64, output: Json, ret: u64| Operation {
            client_id: op.process,
            input,
            call,
            output,
            ret,
            room,
        };
        let deliver = |event: Event| {
            let input = json!({ "op": "deliver", "seq": event.seq, "id": event.id });
            operation(input, 0, json!({}), times[line])
        };
        let partner = history.partner(line);
        let operation = match (op.f, op.kind, &op.value) {
            (F::Deliver, _, Value::Delivery { seq, id, .. }) => {
                deliver(Event { seq: *seq, id: *id })
            }
            (F::Subscribe, Kind::Invoke, _) => {
                let told = partner.and_then(|end| Some((end, history.head_told(end)?)));
                let Some((end, head)) = told else { continue };
                let input = json!({ "op": "read", "after": head, "limit": 0 });
                let output = json!({ "head": head, "events": [] });
                operation(input, times[line], output, times[end])
            }
            (f, Kind::Invoke, Value::Range { after, limit }) if f.reads() => {
                let Some(page) = partner.filter(|end| history.ops()[*end].kind == Kind::Ok) else {
                    continue;
                };
                let call = if f == F::Read { times[line] } else { 0 };
                let input = json!({ "op": "read", "after": after, "limit": limit });
                let output = serde_json::to_value(&history.ops()[page].value)?;
                operation(input, call, output, times[page])
            }
            (_, Kind::Invoke, _) => {
                let Some((id, _)) = op.value.written() else { continue };
                // Once for each id, and not at all when it certainly did not happen.
                let Some(send) = sends.get(&(room, id)) else { continue };
                if send.call != line || send.kind == Kind::Fail {
                    continue;
                }
                let input = json!({ "op": "send", "id": id });
                let (output, ret) = match send.end() {
                    Some(ok) => {
                        let seq = history.ops()[ok].value.written().and_then(|(_, seq)| seq);
                        (json!({ "seq": seq }), times[ok])
                    }
                    None => (json!({ "unknown": true }), end),
                };
                operation(input, times[line], output, ret)
            }
            (_, Kind::Ok, _) => match sends::told_again(history, &sends, line) {
                Some(event) => deliver(event),
                None => continue,
            },
            _ => continue,
        };
        write_operation(&mut out, operation)?;
    }
    out.flush()
}

fn write_operation(out: &mut impl Write, mut operation: Operation) -> io::Result<()> {
    operation.input["room"] = json!(operation.room);
    serde_json::to_writer(&mut *out, &operation)?;
    out.write_all(b"\n")
}

/// The time of each line, every one later than the one before; 0 is before all.
fn times(history: &History) -> Vec<u64> {
    let mut last = 0;
    let later = |op: &crate::history::Op| {
        last = op.time.max(last + 1);
        last
    };
    history.ops().iter().map(later).collect()
}
