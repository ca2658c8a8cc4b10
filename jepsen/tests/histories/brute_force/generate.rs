//! Random small histories: a correct room seen through random delays, then perhaps broken.

use folkmoot_jepsen::history::{Event, F, History, Id, Kind, Op, Process, Value};

/// A small generator of numbers (splitmix64): the same histories on every machine.
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator of this seed.
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What an operation will say, and when: `[call, effect, ret]` in some unit of time.
struct Planned {
    f: F,
    id: Id,
    times: [u64; 3],
    kind: Option<Kind>,
    value: Value,
    invoke: Value,
}

const SPAN: u64 = 1_000;

fn id(n: u64) -> Id {
    Id::parse(&format!("m{n}")).unwrap()
}

/// A history of up to eight operations, with deliveries among them.
pub fn history(rng: &mut Rng) -> History {
    let mut plan = plan(rng);
    happen(rng, &mut plan);
    if rng.chance(66) {
        for _ in 0..=rng.below(2) {
            spoil(rng, &mut plan);
        }
    }
    record(plan)
}

fn plan(rng: &mut Rng) -> Vec<Planned> {
    let ids = 1 + rng.below(5);
    let mut sent = Vec::new();
    let mut plan = Vec::new();
    // Some histories have operations that mostly follow each other, others much at once.
    let length_max = [60, 300, 900][rng.below(3) as usize];
    for _ in 0..2 + rng.below(8) {
        let call = rng.below(SPAN);
        let ret = call + 2 + rng.below(length_max);
        let effect = call + 1 + rng.below(ret - call - 1);
        let what = rng.below(100);
        let n = rng.below(ids);
        let f = match what {
            0..50 if sent.contains(&n) => F::Resend,
            0..50 => F::Send,
            50..77 => F::Read,
            77..83 => F::ReadLocal,
            83..87 => F::Subscribe,
            _ => F::Deliver,
        };
        let mut kind = Some(Kind::Ok);
        if matches!(f, F::Send | F::Resend) {
            sent.push(n);
            kind = match rng.below(100) {
                0..60 => Some(Kind::Ok),
                60..75 => Some(Kind::Info),
                75..85 => None,
                _ => Some(Kind::Fail),
            };
        }
        // What never answers may take effect at any time later, or never.
        let late = matches!(kind, None | Some(Kind::Info));
        let effect = if late { call + 1 + rng.below(2 * SPAN) } else { effect };
        let invoke = match f {
            F::Send | F::Resend => Value::send(id(n)),
            F::Subscribe => Value::subscription(100 + plan.len() as u64, None),
            _ => Value::range(if rng.chance(60) { 0 } else { rng.below(4) }, limit(rng)),
        };
        let times = [call, effect, ret];
        plan.push(Planned { f, id: id(n), times, kind, value: Value::None, invoke });
    }
    plan
}

fn limit(rng: &mut Rng) -> Option<u64> {
    rng.chance(50).then(|| if rng.chance(60) { 1 } else { rng.below(4) })
}

/// Runs the plan against a correct room.
fn happen(rng: &mut Rng, plan: &mut [Planned]) {
    let mut order: Vec<usize> = (0..plan.len()).collect();
    order.sort_by_key(|i| plan[*i].times[1]);
    let mut log: Vec<Id> = Vec::new();
    for i in order {
        let planned = &mut plan[i];
        planned.value = match planned.f {
            F::Send | F::Resend => {
                let never = planned.kind == Some(Kind::Fail)
                    || planned.kind != Some(Kind::Ok) && rng.chance(40);
                if never {
                    continue;
                }
                if !log.contains(&planned.id) {
                    log.push(planned.id);
                }
                let place = log.iter().position(|id| *id == planned.id).unwrap();
                Value::sent(planned.id, place as u64 + 1)
            }
            F::Deliver if log.is_empty() => continue,
            F::Deliver => {
                let seq = 1 + rng.below(log.len() as u64);
                Value::Delivery { subscription: i as u64, seq, id: log[seq as usize - 1] }
            }
            F::Subscribe => {
                let (subscription, after) = (100 + i as u64, Some(log.len() as u64));
                Value::Subscription { subscription, after, head: after.filter(|_| rng.chance(50)) }
            }
            _ => page(rng, &planned.invoke, &log),
        };
    }
}

fn page(rng: &mut Rng, range: &Value, log: &[Id]) -> Value {
    let Value::Range { after, limit } = range else { unreachable!("a read's invoke") };
    let events = log.iter().enumerate().skip(*after as usize).take(limit.unwrap_or(9) as usize);
    let mut events: Vec<Event> =
        events.map(|(i, id)| Event { seq: i as u64 + 1, id: *id }).collect();
    if rng.chance(10) && events.len() > 1 {
        events.pop(); // a page may be shorter than its limit
    }
    Value::Page { head: log.len() as u64, events }
}

/// Changes one thing, as a broken cluster might; often the result is right all the same.
fn spoil(rng: &mut Rng, plan: &mut [Planned]) {
    let at = rng.below(plan.len() as u64) as usize;
    let other = id(rng.below(6));
    let step = |rng: &mut Rng, n: u64| if rng.chance(50) { n + 1 } else { n.max(2) - 1 };
    let planned = &mut plan[at];
    if rng.chance(35) {
        // Things happened at another time than they seem to have.
        let length = planned.times[2] - planned.times[0];
        planned.times[0] = rng.below(SPAN);
        planned.times[2] = planned.times[0] + length;
        return;
    }
    match &mut planned.value {
        Value::Write { seq: Some(seq), .. } if rng.chance(70) => *seq = step(rng, *seq),
        Value::Write { .. } => planned.kind = Some(Kind::Fail),
        Value::Delivery { seq, id, .. } => {
            if rng.chance(50) {
                *seq = step(rng, *seq);
            } else {
                *id = other;
            }
        }
        Value::Page { head, events } => spoil_page(rng, head, events, other),
        Value::Subscription { after, head, .. } => match rng.below(3) {
            0 => *head = head.map(|seq| step(rng, seq)),
            1 => *after = after.map(|seq| step(rng, seq)),
            _ => {
                *after = after.map(|seq| step(rng, seq));
                *head = head.and(*after);
            }
        },
        _ => {}
    }
}

fn spoil_page(rng: &mut Rng, head: &mut u64, events: &mut Vec<Event>, other: Id) {
    let at = (!events.is_empty()).then(|| rng.below(events.len() as u64) as usize);
    match (rng.below(6), at) {
        (0, _) => *head = if rng.chance(50) { *head + 1 } else { head.saturating_sub(1) },
        // The whole log as it was one event earlier.
        (1, Some(_)) if events.last().is_some_and(|last| last.seq == *head) => {
            events.pop();
            *head -= 1;
        }
        (2, Some(at)) => events[at].id = other,
        (3, Some(at)) => drop(events.remove(at)),
        (4, Some(at)) => events[at].seq += 1,
        (5, Some(at)) if at > 0 => {
            let id = events[at].id;
            events[at].id = events[at - 1].id;
            events[at - 1].id = id;
        }
        _ => {
            events.push(Event { seq: *head + 1, id: other });
            *head += 1;
        }
    }
}

/// Puts the lines in order of time, each operation with a process of its own.
fn record(plan: Vec<Planned>) -> History {
    let mut lines: Vec<(u64, usize, Op)> = Vec::new();
    for (i, planned) in plan.into_iter().enumerate() {
        let [call, _, ret] = planned.times.map(|time| time + 1);
        let process = Process(i as u32);
        if planned.f == F::Deliver {
            // A subscription of its own, so that nothing is due on it but this.
            if planned.value != Value::None {
                let follow = Value::subscription(i as u64, None);
                lines.push((0, i, Op::invoke(0, process, F::Subscribe, follow).room("r")));
                let op = Op::new(ret, process, Kind::Ok, F::Deliver, planned.value);
                lines.push((ret, i, op.room("r")));
            }
            continue;
        }
        let invoke = Op::invoke(call, process, planned.f, planned.invoke).room("r");
        match planned.kind {
            Some(Kind::Ok) => lines.push((ret, i, invoke.ok(ret, planned.value))),
            Some(Kind::Info) => lines.push((ret, i, invoke.info(ret, "timeout"))),
            Some(Kind::Fail) => lines.push((ret, i, invoke.fail(ret, "refused"))),
            Some(Kind::Invoke) | None => {}
        }
        lines.push((call, i, invoke));
    }
    lines.sort_by_key(|(time, i, op)| (*time, *i, op.kind != Kind::Invoke));
    let mut history = History::new();
    for (_, _, op) in lines {
        history.push(op).unwrap();
    }
    history
}
