//! Which lines make sense: what value goes with what `f` and type, and what completes what.

use crate::history::op::{F, Kind, Op, Value};
use crate::history::{Malformed, Process};

/// Checks a line by itself.
pub(super) fn shape(op: &Op) -> Result<(), Malformed> {
    let (f, kind) = (op.f.as_str(), op.kind.as_str());
    let kinds: &[Kind] = match op.f {
        F::Nemesis => &[Kind::Info],
        F::Deliver => &[Kind::Ok],
        _ => &[Kind::Invoke, Kind::Ok, Kind::Fail, Kind::Info],
    };
    if !kinds.contains(&op.kind) {
        return Err(Malformed::new(format_args!(
            "a {f} is always of type {}, not {kind}",
            kinds[0].as_str()
        )));
    }
    if (op.f == F::Nemesis) != (op.process == Process::NEMESIS) {
        return Err(Malformed::new(format_args!("a {f} is not of process {}", op.process)));
    }
    // Times are longs wherever histories go.
    if i64::try_from(op.time).is_err() {
        return Err(Malformed::new(format_args!("the time {} is beyond {}", op.time, i64::MAX)));
    }
    let needs_room = match op.f {
        F::Nemesis => false,
        F::Admin => op.value.written().is_some(),
        _ => true,
    };
    if needs_room && op.room.is_none() {
        return Err(Malformed::new(format_args!("a {f} has a room")));
    }
    if matches!(op.f, F::FinalRead | F::Chain) && op.node.is_none() {
        return Err(Malformed::new(format_args!("a {f} has a node")));
    }
    if let Value::Chain { chain, .. } = &op.value
        && (chain.is_empty() || !chain.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        return Err(Malformed::new(format_args!("the chain {chain:?} is not hex")));
    }
    if !fits(op) {
        return Err(Malformed::new(format_args!("the value is not that of a {f} of type {kind}")));
    }
    Ok(())
}

fn fits(op: &Op) -> bool {
    if matches!(op.kind, Kind::Fail | Kind::Info) && op.value == Value::None {
        return op.f != F::Nemesis;
    }
    let ok = op.kind == Kind::Ok;
    match (&op.f, &op.value) {
        (F::Send, Value::Write { seq, other_body, .. }) => seq.is_some() == ok && !other_body,
        (F::Resend, Value::Write { seq, .. }) => seq.is_some() == ok,
        (F::Read | F::ReadLocal | F::FinalRead, Value::Page { .. }) => ok,
        (F::Read | F::ReadLocal | F::FinalRead, Value::Range { .. }) => !ok,
        (F::Deliver, Value::Delivery { .. }) => true,
        (F::Subscribe, Value::Subscription { after, head, .. }) => {
            if ok {
                after.is_some()
            } else {
                head.is_none()
            }
        }
        (F::Unsubscribe, Value::Subscription { after, head, .. }) => {
            after.is_none() && (ok || head.is_none())
        }
        (F::Chain, Value::Chain { .. }) => ok,
        (F::Chain, Value::None) => !ok,
        (F::Nemesis, Value::Fault(_)) => true,
        (F::Admin, Value::Admin(admin)) => admin.seq.is_none() || (ok && admin.id.is_some()),
        _ => false,
    }
}

/// Checks that `end` completes `start`, which is line `open`.
pub(super) fn completes(start: &Op, end: &Op, open: u32) -> Result<(), Malformed> {
    let differs = |what: &str| {
        Malformed::new(format_args!(
            "process {} completes a {} with another {what} than its operation {open}",
            end.process,
            start.f.as_str(),
        ))
    };
    if start.f != end.f {
        return Err(Malformed::new(format_args!(
            "process {} completes a {}, but its operation {open} is a {}",
            end.process,
            end.f.as_str(),
            start.f.as_str()
        )));
    }
    if start.room != end.room {
        return Err(differs("room"));
    }
    if end.node.is_some() && start.node != end.node {
        return Err(differs("node"));
    }
    let same = match (&start.value, &end.value) {
        (
            Value::Write { id, other_body, .. },
            Value::Write { id: end_id, other_body: end_body, .. },
        ) => id == end_id && other_body == end_body,
        (Value::Admin(start), Value::Admin(end)) => start.id == end.id && start.what == end.what,
        (
            Value::Subscription { subscription, after, .. },
            Value::Subscription { subscription: of_end, after: end_after, .. },
        ) => {
            subscription == of_end && (after.is_none() || end_after.is_none() || after == end_after)
        }
        (Value::Range { .. }, Value::Range { .. }) => start.value == end.value,
        _ => true,
    };
    if same { Ok(()) } else { Err(differs("value")) }
}
