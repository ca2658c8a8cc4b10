//! Jepsen op maps.

use std::collections::HashMap;
use std::io::{self, Write};

use serde_json::Value as Json;

use crate::export::Fresh;
use crate::history::{Fault, History, Kind, Op, Phase, Process, Value};

/// Writes op maps, one a line.
///
/// # Errors
///
/// Those of the writer.
pub fn edn(history: &History, mut out: impl Write) -> io::Result<()> {
    let mut fresh = Fresh::above(history);
    let mut subscribers: HashMap<u64, Process> = HashMap::new();
    let mut index = 0;
    for op in history.ops() {
        let mut process = op.process;
        if let Value::Delivery { subscription, .. } = &op.value {
            process = *subscribers.entry(*subscription).or_insert_with(|| fresh.process());
            let asked = format!("{{:subscription {subscription}}}");
            write_op(&mut out, index, op, process, Kind::Invoke, &asked)?;
            index += 1;
        }
        let json = serde_json::to_value(&op.value)?;
        write_op(&mut out, index, op, process, op.kind, &of_json(&json))?;
        index += 1;
    }
    out.flush()
}

/// Writes one op map.
fn write_op(
    out: &mut impl Write,
    index: usize,
    op: &Op,
    process: Process,
    kind: Kind,
    value: &str,
) -> io::Result<()> {
    let (process, kind) = (process_edn(process), kind.as_str());
    let f = match &op.value {
        Value::Fault(fault) => fault_edn(fault),
        _ => format!(":{}", op.f.as_str()),
    };
    let time = op.time;
    write!(
        out,
        "{{:index {index}, :time {time}, :process {process}, :type :{kind}, :f {f}, :value {value}"
    )?;
    for (key, name) in [(":node", &op.node), (":room", &op.room)] {
        if let Some(name) = name {
            write!(out, ", {key} {}", string(name.as_str()))?;
        }
    }
    if let Some(error) = &op.error {
        write!(out, ", :error {}", string(error))?;
    }
    writeln!(out, "}}")
}

pub(super) fn process_edn(process: Process) -> String {
    if process == Process::NEMESIS { ":nemesis".into() } else { process.to_string() }
}

/// A fault's `f`, as Jepsen's own nemeses have it: `:start-partition`.
pub(super) fn fault_edn(fault: &Fault) -> String {
    let phase = if fault.phase == Phase::Start { "start" } else { "stop" };
    keyword(&format!("{phase}-{}", fault.fault))
}

/// A keyword, where the name can be one; else a string.
pub(super) fn keyword(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain) {
        format!(":{name}")
    } else {
        string(name)
    }
}

/// A string: JSON's escapes are among those that Clojure's reader knows.
pub(super) fn string(text: &str) -> String {
    Json::from(text).to_string()
}

fn of_json(json: &Json) -> String {
    let all = |items: Vec<String>, between: &str| items.join(between);
    match json {
        Json::Null => "nil".into(),
        Json::Bool(_) | Json::Number(_) | Json::String(_) => json.to_string(),
        Json::Array(items) => format!("[{}]", all(items.iter().map(of_json).collect(), " ")),
        Json::Object(fields) => {
            let field =
                |(key, value): (&String, &Json)| format!("{} {}", keyword(key), of_json(value));
            format!("{{{}}}", all(fields.iter().map(field).collect(), ", "))
        }
    }
}
