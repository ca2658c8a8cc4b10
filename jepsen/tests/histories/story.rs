//! Small histories, mostly of one room, told an operation at a time: each begins and ends before the next,
//! a millisecond a line, unless it says otherwise.

#![allow(dead_code, reason = "each test takes what it needs")]

use folkmoot_jepsen::check::{self, Options, Report};
use folkmoot_jepsen::history::{
    Admin, Event, F, Fault, History, Id, Name, Op, Phase, Process, Value,
};

/// Milliseconds as the nanoseconds of a history.
const MS: u64 = 1_000_000;

/// The id that is this word.
pub fn id(word: &str) -> Id {
    Id::parse(word).unwrap()
}

/// The events of the log that has these ids, from `first` on.
pub fn events(first: u64, ids: &str) -> Vec<Event> {
    let seqs = first..;
    seqs.zip(ids.split_whitespace()).map(|(seq, word)| Event { seq, id: id(word) }).collect()
}

/// A history in the making.
pub struct Story {
    pub history: History,
    /// Where operations are from here on.
    pub room: &'static str,
    now: u64,
    processes: u32,
}

impl Story {
    pub fn new() -> Story {
        Story { history: History::new(), room: "tea", now: 0, processes: 0 }
    }

    /// Moves the clock.
    pub fn wait(&mut self, ms: u64) {
        self.now += ms * MS;
    }

    fn tick(&mut self) -> u64 {
        self.wait(1);
        self.now
    }

    /// Begins an operation of a new process on node n1.
    pub fn begin(&mut self, f: F, value: Value) -> Op {
        self.begin_on("n1", f, value)
    }

    pub fn begin_on(&mut self, node: &str, f: F, value: Value) -> Op {
        let process = Process(self.processes);
        self.processes += 1;
        let op = Op::invoke(self.tick(), process, f, value).node(node).room(self.room);
        self.history.push(op.clone()).unwrap();
        op
    }

    /// Completes an operation.
    pub fn ok(&mut self, op: &Op, value: Value) -> usize {
        let op = op.ok(self.tick(), value);
        self.history.push(op).unwrap()
    }

    pub fn fail(&mut self, op: &Op) {
        let op = op.fail(self.tick(), "unavailable");
        self.history.push(op).unwrap();
    }

    pub fn info(&mut self, op: &Op) {
        let op = op.info(self.tick(), "timeout");
        self.history.push(op).unwrap();
    }

    /// A send that was acknowledged.
    pub fn send(&mut self, word: &str, seq: u64) {
        let op = self.begin(F::Send, Value::send(id(word)));
        self.ok(&op, Value::sent(id(word), seq));
    }

    /// Sends of these words, from seq 1 on.
    pub fn sends(&mut self, words: &str) {
        for event in events(1, words) {
            self.send(&event.id.to_string(), event.seq);
        }
    }

    /// A send that nobody answered.
    pub fn send_unanswered(&mut self, word: &str) {
        let op = self.begin(F::Send, Value::send(id(word)));
        self.info(&op);
    }

    /// A send that was refused for certain.
    pub fn send_refused(&mut self, word: &str) {
        let op = self.begin(F::Send, Value::send(id(word)));
        self.fail(&op);
    }

    /// A retry that was acknowledged, on another node than all else.
    pub fn resend(&mut self, word: &str, seq: u64) {
        let op = self.begin_on("n2", F::Resend, Value::send(id(word)));
        self.ok(&op, Value::sent(id(word), seq));
    }

    /// A retry with another text; `None`: it was refused.
    pub fn resend_other(&mut self, word: &str, seq: Option<u64>) {
        let value = |seq| Value::Write { id: id(word), seq, other_body: true };
        let op = self.begin_on("n2", F::Resend, value(None));
        match seq {
            Some(_) => {
                self.ok(&op, value(seq));
            }
            None => self.fail(&op),
        }
    }

    /// Subscribes at the head, which was at a seq.
    pub fn subscribe_at_head(&mut self, subscription: u64, after: u64, head: Option<u64>) {
        let op = self.begin(F::Subscribe, Value::subscription(subscription, None));
        self.ok(&op, Value::Subscription { subscription, after: Some(after), head });
    }

    /// A read of a page that reaches the head.
    pub fn read(&mut self, after: u64, words: &str) {
        let events = events(after + 1, words);
        let head = events.last().map_or(after, |event| event.seq);
        self.read_page(after, head, events);
    }

    pub fn read_page(&mut self, after: u64, head: u64, events: Vec<Event>) {
        let op = self.begin(F::Read, Value::range(after, None));
        self.ok(&op, Value::Page { head, events });
    }

    /// A final read of the whole room on a node.
    pub fn final_read(&mut self, node: &str, words: &str) {
        let op = self.begin_on(node, F::FinalRead, Value::range(0, None));
        let events = events(1, words);
        self.ok(&op, Value::Page { head: events.len() as u64, events });
    }

    /// Subscribes, or goes on with a subscription.
    pub fn subscribe(&mut self, subscription: u64, after: u64) {
        let op = self.begin(F::Subscribe, Value::subscription(subscription, Some(after)));
        self.ok(&op, Value::Subscription { subscription, after: Some(after), head: None });
    }

    pub fn deliver(&mut self, subscription: u64, seq: u64, word: &str) {
        let event = Event { seq, id: id(word) };
        let op = Op::delivery(self.tick(), Process(1_000), subscription, event);
        self.history.push(op.room(self.room).node("n1")).unwrap();
    }

    pub fn chain(&mut self, node: &str, seq: u64, chain: &str) {
        let op = self.begin_on(node, F::Chain, Value::None);
        self.ok(&op, Value::Chain { seq, chain: chain.into() });
    }

    /// A node is gone for good.
    pub fn gone(&mut self, node: &str) {
        let value = Value::Admin(Box::new(Admin::gone()));
        let process = Process(self.processes);
        self.processes += 1;
        let op = Op::invoke(self.tick(), process, F::Admin, value.clone()).node(node);
        self.history.push(op.clone()).unwrap();
        self.ok(&op, value);
    }

    pub fn fault(&mut self, name: &str, phase: Phase, majority: Option<bool>) {
        let on = vec![Name::from("n2")];
        let fault = Fault { fault: name.into(), phase, on, majority };
        let op = Op::nemesis(self.tick(), fault);
        self.history.push(op).unwrap();
    }

    /// The report, with no least number of operations.
    pub fn check(&self) -> Report {
        check::check(&self.history, &Options { min_ok: 0, ..Options::default() })
    }

    /// The anomalies by name, and the lines of the first one's witness.
    pub fn anomalies(&self) -> (Vec<&'static str>, Vec<Vec<usize>>) {
        let report = self.check();
        let names = report.anomalies.keys().map(|anomaly| anomaly.as_str()).collect();
        let witness = report.violations.first().map_or(vec![], |first| {
            first.witness.iter().map(|witness| witness.operations.clone()).collect()
        });
        (names, witness)
    }
}
