//! Wing and Gong's search: is there an order of the operations, each within its time, that a room
//! could have had?

use std::collections::HashSet;

use folkmoot_jepsen::history::{Event, F, History, Id, Kind, Value};

/// One operation as the search sees it.
#[derive(Debug)]
struct Step {
    /// It takes effect after this line; `None`: it may be any time before `ret`.
    call: Option<usize>,
    /// And before this line; `None`: it may never take effect at all.
    ret: Option<usize>,
    does: Does,
}

#[derive(Debug)]
enum Does {
    /// Appends, unless the id is there already. The seq is what it was told.
    Append(Id, Option<u64>),
    Page {
        after: u64,
        limit: Option<u64>,
        head: u64,
        events: Vec<Event>,
    },
    Show(Event),
    /// A new subscription begins at the head: where it begins, and where the head was said to be.
    Begin(u64, Option<u64>),
}

impl Does {
    /// What the room has after this, if it can have happened in a room that has `log`.
    fn apply(&self, log: &[Id]) -> Option<Vec<Id>> {
        match self {
            Does::Append(id, told) => {
                let mut next = log.to_vec();
                let place = match log.iter().position(|other| other == id) {
                    Some(place) => place,
                    None => {
                        next.push(*id);
                        log.len()
                    }
                };
                told.is_none_or(|seq| seq == place as u64 + 1).then_some(next)
            }
            Does::Page { after, limit, head, events } => {
                let behind = log.get(*after as usize..).unwrap_or(&[]);
                let same = events.len() <= behind.len()
                    && events.iter().enumerate().all(|(i, event)| {
                        event.id == behind[i] && event.seq == after + 1 + i as u64
                    });
                let moves = !events.is_empty() || behind.is_empty() || *limit == Some(0);
                (*head == log.len() as u64 && same && moves).then(|| log.to_vec())
            }
            Does::Begin(after, head) => {
                let at_head = |seq: u64| seq == log.len() as u64;
                (at_head(*after) && head.is_none_or(at_head)).then(|| log.to_vec())
            }
            Does::Show(event) => {
                (log.get(event.seq as usize - 1) == Some(&event.id)).then(|| log.to_vec())
            }
        }
    }
}

fn steps(history: &History) -> Vec<Step> {
    let mut steps = Vec::new();
    for (i, op) in history.ops().iter().enumerate() {
        let end = history.partner(i);
        let ended = end.map(|end| &history.ops()[end]);
        match (&op.value, op.kind) {
            (Value::Delivery { seq, id, .. }, _) => {
                let does = Does::Show(Event { seq: *seq, id: *id });
                steps.push(Step { call: None, ret: Some(i), does });
            }
            (Value::Write { id, .. }, Kind::Invoke) => match ended.map(|end| (end.kind, end)) {
                Some((Kind::Fail, _)) => {}
                Some((Kind::Ok, ended)) => {
                    let seq = ended.value.written().unwrap().1;
                    let does = Does::Append(*id, seq);
                    steps.push(Step { call: Some(i), ret: end, does });
                }
                _ => {
                    let does = Does::Append(*id, None);
                    steps.push(Step { call: Some(i), ret: None, does });
                }
            },
            (Value::Subscription { .. }, Kind::Invoke) => {
                if let Some(Value::Subscription { after: Some(after), head, .. }) =
                    ended.map(|end| &end.value)
                {
                    let does = Does::Begin(*after, *head);
                    steps.push(Step { call: Some(i), ret: end, does });
                }
            }
            (Value::Range { after, limit }, Kind::Invoke) => {
                let Some(Value::Page { head, events }) = ended.map(|end| &end.value) else {
                    continue;
                };
                let does = Does::Page {
                    after: *after,
                    limit: *limit,
                    head: *head,
                    events: events.clone(),
                };
                let call = (op.f == F::Read).then_some(i);
                steps.push(Step { call, ret: end, does });
            }
            _ => {}
        }
    }
    steps
}

/// Whether there is such an order.
pub fn linearizable(history: &History) -> bool {
    let steps = steps(history);
    assert!(steps.len() < 32);
    search(&steps, 0, &[], &mut HashSet::new())
}

fn search(steps: &[Step], done: u32, log: &[Id], tried: &mut HashSet<(u32, Vec<Id>)>) -> bool {
    let open = |i: usize| done & 1 << i == 0;
    if (0..steps.len()).all(|i| !open(i) || steps[i].ret.is_none()) {
        return true;
    }
    if !tried.insert((done, log.to_vec())) {
        return false;
    }
    // Nothing may take effect after something that is not done yet has returned.
    let deadline = (0..steps.len()).filter(|i| open(*i)).filter_map(|i| steps[i].ret).min();
    let deadline = deadline.unwrap_or(usize::MAX);
    (0..steps.len()).filter(|i| open(*i)).any(|i| {
        steps[i].call.is_none_or(|call| call < deadline)
            && steps[i]
                .does
                .apply(log)
                .is_some_and(|next| search(steps, done | 1 << i, &next, tried))
    })
}
