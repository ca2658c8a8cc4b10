//! Operations in words: who, where, what, and when since the history began.

use std::time::Duration;

use crate::check::report::Witness;
use crate::history::{F, History, Kind, Op, Phase, Value};

/// The operation that this line belongs to.
pub(crate) fn of(history: &History, line: usize) -> Witness {
    let op = &history.ops()[line];
    let start_ns = history.ops()[0].time;
    let (first, last) = match (op.kind, history.partner(line)) {
        (Kind::Invoke, Some(end)) => (line, Some(end)),
        (Kind::Invoke, None) => (line, None),
        (_, Some(start)) => (start, Some(line)),
        (_, None) => (line, Some(line)),
    };
    let (begin, end) = (&history.ops()[first], last.map(|line| &history.ops()[line]));
    let mut text = match &begin.node {
        Some(node) => format!("process {} on {node}: ", begin.process),
        None => format!("process {}: ", begin.process),
    };
    text.push_str(&what(begin, end));
    let at = |op: &Op| millis(op.time - start_ns);
    match end {
        Some(_) if Some(first) == last => text.push_str(&format!(", at {} ms", at(begin))),
        Some(end) => text.push_str(&format!(", from {} to {} ms", at(begin), at(end))),
        None => text.push_str(&format!(", from {} ms on", at(begin))),
    }
    let operations: Vec<usize> =
        std::iter::once(first).chain(last.filter(|last| *last != first)).collect();
    let numbers: Vec<String> = operations.iter().map(usize::to_string).collect();
    text.push_str(&format!(" [{}]", numbers.join(", ")));
    Witness { operations, text }
}

fn what(begin: &Op, end: Option<&Op>) -> String {
    let f = begin.f.as_str();
    let asked = match &begin.value {
        Value::Write { id, other_body, .. } => {
            format!("{f} {id}{}", if *other_body { " with another text" } else { "" })
        }
        Value::Range { after, limit: Some(limit) } => format!("{f} after {after}, limit {limit}"),
        Value::Range { after, limit: None } => format!("{f} after {after}"),
        Value::Subscription { subscription, after, .. } => {
            let from = match after {
                Some(after) => format!(" after {after}"),
                None if begin.f == F::Subscribe => " from the head on".into(),
                None => String::new(),
            };
            format!("{f} {subscription}{from}")
        }
        Value::Delivery { subscription, seq, id } => {
            return format!("subscription {subscription} delivered seq {seq}, {id}");
        }
        Value::Fault(fault) => {
            let phase = if fault.phase == Phase::Start { "starts" } else { "stops" };
            return format!("{} {phase}", fault.fault);
        }
        Value::Admin(admin) => match admin.id {
            Some(id) => format!("{} {id}", admin.what),
            None => admin.what.to_string(),
        },
        Value::None | Value::Page { .. } | Value::Chain { .. } => f.into(),
    };
    let Some(end) = end else { return format!("{asked}: never completed") };
    let error = end.error.as_ref().map_or(String::new(), |error| format!(" ({error})"));
    match end.kind {
        Kind::Fail => format!("{asked}: failed{error}"),
        Kind::Info => format!("{asked}: outcome unknown{error}"),
        Kind::Invoke | Kind::Ok => match answer(&end.value) {
            Some(answer) => format!("{asked} → {answer}"),
            None => format!("{asked}: ok"),
        },
    }
}

fn answer(value: &Value) -> Option<String> {
    match value {
        Value::Page { head, events } => Some(match &events[..] {
            [] => format!("head {head}, no events"),
            [only] => format!("head {head}, seq {}", only.seq),
            [first, .., last] => format!("head {head}, seqs {} to {}", first.seq, last.seq),
        }),
        Value::Subscription { head: Some(head), .. } => Some(format!("head {head}")),
        Value::Subscription { after: Some(after), .. } => Some(format!("after {after}")),
        Value::Chain { seq, chain } => Some(format!("{chain} at seq {seq}")),
        other => other.written()?.1.map(|seq| format!("seq {seq}")),
    }
}

/// Milliseconds with the nanoseconds that matter: three digits.
fn millis(ns: u64) -> String {
    let us = ns / 1_000;
    format!("{}.{:03}", us / 1_000, us % 1_000)
}

/// A duration for people.
pub(super) fn duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{:.1} ms", duration.as_secs_f64() * 1e3);
    }
    format!("{:.1} s", duration.as_secs_f64())
}
