//! A run of a cluster that was made up: clients, faults, failovers, timeouts, and what each client
//! is told. The log is right unless a bug is asked for. One seed has one history.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use folkmoot_jepsen::history::{Event, F, Fault, History, Id, Name, Op, Phase, Process, Value};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const NODES: u64 = 3;
/// How long a shard is without a leader when its leader is gone.
const FAILOVER: u64 = 900 * MS;
const TIMEOUT: u64 = 2 * SECOND;

/// What is to be made up.
#[derive(Clone, Copy)]
pub struct Plan {
    pub seconds: u64,
    pub workers: u64,
    pub rooms: usize,
    /// How long a client rests between operations, at most, in microseconds.
    pub rest_us: u64,
    /// A power cut takes the last two acknowledged messages of the first room with it.
    pub loses: bool,
    /// A cut-off node answers one read of the first room from its own log.
    pub stale: bool,
}

pub const MINUTE: Plan =
    Plan { seconds: 60, workers: 24, rooms: 16, rest_us: 40_000, loses: false, stale: false };

/// name, nodes that are hit, from and to in thousandths of the run, whether a majority is left.
const FAULTS: [(&str, &[u64], u64, u64, bool); 7] = [
    ("kill", &[0], 90, 150, true),
    ("partition", &[1], 230, 340, true),
    ("pause", &[2], 370, 410, true),
    ("partition", &[0, 1], 440, 520, false),
    ("clock", &[2], 480, 700, true),
    ("kill", &[1], 580, 640, true),
    ("powercut", &[0, 1, 2], 780, 815, false),
];

struct Room {
    name: Name,
    log: Vec<Id>,
    leader: u64,
    delivered: usize,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Fault(usize, bool),
    Begin(u64),
    Apply(u64),
    End(u64),
    Deliver(usize),
}

/// What a worker is at.
#[derive(Clone, Default)]
struct Work {
    process: u32,
    op: Option<Op>,
    room: usize,
    answer: Option<Value>,
    error: Option<(&'static str, bool)>,
}

pub struct Run {
    pub history: History,
    plan: Plan,
    rooms: Vec<Room>,
    workers: Vec<Work>,
    steps: BinaryHeap<Reverse<(u64, u64, Step)>>,
    active: [bool; FAULTS.len()],
    /// Until when each room's shard is without a leader.
    leaderless: Vec<u64>,
    processes: u32,
    ids: u64,
    order: u64,
    seed: u64,
    was_stale: bool,
}

/// The run; the same for the same plan and seed.
pub fn run(plan: Plan, seed: u64) -> History {
    let room = |n: usize| Room {
        name: Name::from(format!("room-{n}")),
        log: vec![],
        leader: n as u64 % NODES,
        delivered: 0,
    };
    let mut run = Run {
        history: History::new(),
        plan,
        rooms: (0..plan.rooms).map(room).collect(),
        workers: (0..plan.workers).map(|n| Work { process: n as u32, ..Work::default() }).collect(),
        steps: BinaryHeap::new(),
        active: Default::default(),
        leaderless: vec![0; plan.rooms],
        processes: plan.workers as u32,
        ids: 0,
        order: 0,
        seed,
        was_stale: false,
    };
    run.subscribe();
    for worker in 0..plan.workers {
        let at = plan.rooms as u64 * MS + run.below(plan.rest_us * 1_000 + 1);
        run.at(at, Step::Begin(worker));
    }
    for (n, (_, _, from, to, _)) in FAULTS.iter().enumerate() {
        run.at(from * plan.seconds * MS, Step::Fault(n, true));
        run.at(to * plan.seconds * MS, Step::Fault(n, false));
    }
    let mut now = 0;
    while let Some(Reverse((time, _, step))) = run.steps.pop() {
        now = time;
        run.step(now, step);
    }
    run.end(now);
    run.history
}

impl Run {
    fn below(&mut self, bound: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.seed >> 33) % bound.max(1)
    }

    /// A latency: mostly near `usual`, seldom many times as long.
    fn latency(&mut self, usual_us: u64) -> u64 {
        let us = usual_us / 2 + self.below(usual_us);
        let tail = match self.below(1_000) {
            0 => 40,
            1..10 => 8,
            10..80 => 3,
            _ => 1,
        };
        us * tail * 1_000 + self.below(1_000)
    }

    fn at(&mut self, time: u64, step: Step) {
        self.order += 1;
        self.steps.push(Reverse((time, self.order, step)));
    }

    fn push(&mut self, op: Op) {
        self.history.push(op).unwrap();
    }

    fn subscribe(&mut self) {
        for n in 0..self.rooms.len() as u64 {
            let (process, at) = (Process(1_000_000 + n as u32), n * MS / 2);
            let value = Value::subscription(n, Some(0));
            let op = Op::invoke(at, process, F::Subscribe, value).node("n1");
            let op = op.room(&self.rooms[n as usize].name);
            self.push(op.clone());
            let value = Value::Subscription { subscription: n, after: Some(0), head: Some(0) };
            self.push(op.ok(at + MS / 5 + n * 9_000, value));
        }
    }

    fn step(&mut self, now: u64, step: Step) {
        match step {
            Step::Fault(n, starts) => self.fault(now, n, starts),
            Step::Begin(worker) if now < self.plan.seconds * SECOND => self.begin(now, worker),
            Step::Begin(_) => {}
            Step::Apply(worker) => self.apply(now, worker as usize),
            Step::End(worker) => self.finish(now, worker),
            Step::Deliver(room) => self.deliver(now, room),
        }
    }

    fn fault(&mut self, now: u64, n: usize, starts: bool) {
        let (name, nodes, _, _, majority) = FAULTS[n];
        self.active[n] = starts;
        let all = (0..FAULTS.len()).all(|n| !self.active[n] || FAULTS[n].4);
        let fault = Fault {
            fault: name.into(),
            phase: if starts { Phase::Start } else { Phase::Stop },
            on: nodes.iter().map(|n| Name::from(format!("n{}", n + 1))).collect(),
            majority: Some(all),
        };
        self.push(Op::nemesis(now, fault));
        if name == "clock" {
            return;
        }
        for room in 0..self.rooms.len() {
            let hit = nodes.contains(&self.rooms[room].leader);
            if starts && majority && hit {
                self.leaderless[room] = now + FAILOVER / 2 + self.below(FAILOVER);
                self.rooms[room].leader = (0..NODES).find(|n| !nodes.contains(n)).unwrap();
            } else if !starts && !majority {
                self.leaderless[room] = now + self.below(FAILOVER);
            }
        }
        if starts && name == "powercut" && self.plan.loses {
            let kept = self.rooms[0].log.len().saturating_sub(2);
            self.rooms[0].log.truncate(kept);
            self.rooms[0].delivered = self.rooms[0].delivered.min(kept);
        }
    }

    fn begin(&mut self, now: u64, worker: u64) {
        // Zipf, nearly: half of what is left for each room.
        let room = (0..self.rooms.len() - 1).find(|_| self.below(3) == 0);
        let room = room.unwrap_or(self.rooms.len() - 1);
        let node = self.below(NODES);
        let after = (self.rooms[room].log.len() as u64).saturating_sub(self.below(12));
        let (f, value, usual_us) = match self.below(100) {
            0..55 => {
                self.ids += 1;
                (F::Send, Value::send(self.id()), 2_600)
            }
            55..85 => (F::Read, Value::range(after, Some(50)), 900),
            _ => (F::ReadLocal, Value::range(after, Some(50)), 300),
        };
        let process = Process(self.workers[worker as usize].process);
        let op = Op::invoke(now, process, f, value).node(format!("n{}", node + 1));
        let op = op.room(&self.rooms[room].name);
        self.push(op.clone());
        let latency = self.latency(usual_us);
        let stuck = (0..FAULTS.len()).find(|n| self.active[*n] && FAULTS[*n].1.contains(&node));
        let stuck = stuck.map(|n| FAULTS[n].0).filter(|name| *name != "clock");
        let no_majority = (0..FAULTS.len()).any(|n| self.active[n] && !FAULTS[n].4);
        let work = &mut self.workers[worker as usize];
        *work = Work { op: Some(op), room, answer: None, error: None, ..work.clone() };
        let stale = self.plan.stale && !self.was_stale && room == 0 && f == F::Read;
        if stale && stuck == Some("partition") && self.rooms[0].log.len() > 20 {
            self.was_stale = true;
            let log = &self.rooms[0].log;
            let head = log.len() - 9;
            work.answer = Some(page(log, (head as u64 - 3).min(after), head));
            return self.at(now + latency, Step::End(worker));
        }
        let (error, takes) = match stuck {
            Some("kill" | "powercut") => (("unavailable", false), MS / 5 + latency / 8),
            Some(_) if f != F::ReadLocal => (("timeout", true), TIMEOUT),
            _ if no_majority && f != F::ReadLocal => (("no_leader", f != F::Read), TIMEOUT / 2),
            _ => {
                let wait = self.leaderless[room].saturating_sub(now);
                let wait = if f == F::ReadLocal { 0 } else { wait };
                self.at(now + wait + latency / 2, Step::Apply(worker));
                return self.at(now + wait + latency, Step::End(worker));
            }
        };
        work.error = Some(error);
        self.at(now + takes, Step::End(worker));
    }

    /// A UUID of version 7 that nobody else has.
    fn id(&self) -> Id {
        let time = u128::from(1_790_000_000_000 + self.ids) << 80;
        let random = u128::from(self.ids).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
        Id::from_u128(time | 7 << 76 | 2 << 62 | random >> 66)
    }

    fn apply(&mut self, now: u64, worker: usize) {
        let Work { op: Some(op), room, .. } = self.workers[worker].clone() else { return };
        let log = &mut self.rooms[room].log;
        let answer = match op.value {
            Value::Write { id, .. } => {
                log.push(id);
                let seq = log.len() as u64;
                let lag = self.latency(1_500);
                self.at(now + lag, Step::Deliver(room));
                Value::sent(id, seq)
            }
            Value::Range { after, .. } => page(log, after, log.len()),
            _ => return,
        };
        self.workers[worker].answer = Some(answer);
    }

    fn finish(&mut self, now: u64, worker: u64) {
        let work = &mut self.workers[worker as usize];
        let Some(op) = work.op.take() else { return };
        let done = match (work.answer.take(), work.error.take()) {
            (_, Some((error, false))) => op.fail(now, error),
            (Some(answer), None) => op.ok(now, answer),
            (_, error) => {
                work.process = self.processes;
                self.processes += 1;
                op.info(now, error.map_or("timeout", |(error, _)| error))
            }
        };
        self.push(done);
        let rest = self.below(self.plan.rest_us * 1_000 + 1);
        self.at(now + rest, Step::Begin(worker));
    }

    fn deliver(&mut self, now: u64, room: usize) {
        let here = &mut self.rooms[room];
        let (from, name) = (here.delivered, here.name.clone());
        let new = here.log[from.min(here.log.len())..].to_vec();
        here.delivered = here.log.len();
        for (seq, id) in (from as u64 + 1..).zip(new) {
            let process = Process(1_000_000 + room as u32);
            let op = Op::delivery(now, process, room as u64, Event { seq, id });
            self.push(op.room(&name).node("n1"));
        }
    }

    fn end(&mut self, mut now: u64) {
        for room in 0..self.rooms.len() {
            for node in 0..NODES {
                let (process, name) = (Process(self.processes), self.rooms[room].name.clone());
                self.processes += 1;
                let op = Op::invoke(now, process, F::FinalRead, Value::range(0, None));
                let op = op.room(name).node(format!("n{}", node + 1));
                self.push(op.clone());
                now += self.latency(4_000);
                let log = &self.rooms[room].log;
                let value = page(log, 0, log.len());
                self.push(op.ok(now, value));
            }
        }
    }
}

fn page(log: &[Id], after: u64, head: usize) -> Value {
    let events = log.iter().zip(1..).take(head).skip(after as usize);
    let events = events.map(|(id, seq)| Event { seq, id: *id }).collect();
    Value::Page { head: head as u64, events }
}
