//! A million operations, through the real binary: checked, and made a page of, each in under 10 s of
//! processor time and under 1 GiB. The page is small enough to open. The time on the clock is said, and
//! held only to a multiple of that: other tests may keep the processors busy.
//!
//! The history is what a correct cluster could have shown: 40 rooms, retries, unanswered sends,
//! pages of a hundred, subscriptions, and at the end every room read on each of three nodes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use folkmoot_jepsen::history::{Event, F, Id, Name, Op, Process, Value, Writer};

const OPERATIONS: u64 = 1_000_000;
const ROOMS: u64 = 40;
const PROCESSES: u32 = 50;
/// Of processor time, and on the clock.
const SECONDS_MAX: u64 = 10;
const CLOCK_SECONDS_MAX: u64 = 60;
const RSS_KIB_MAX: u64 = 1 << 20;
const PAGE_MAX: usize = 5 << 20;

/// One room as it really is.
struct Room {
    name: Name,
    log: Vec<Id>,
    /// Sends that nobody answered, and that are not in the log yet.
    pending: Vec<Id>,
    delivered: u64,
}

struct Cluster<W: Write> {
    writer: Writer<W>,
    rooms: Vec<Room>,
    nodes: [Name; 3],
    /// What each client waits for: the operation, and what it will be told.
    open: Vec<Option<(Op, Value)>>,
    numbers: Vec<u32>,
    processes: u32,
    time: u64,
    ids: u64,
    seed: u64,
}

impl<W: Write> Cluster<W> {
    fn new(out: W) -> Cluster<W> {
        let room = |n: u64| Room {
            name: Name::from(format!("room-{n}")),
            log: Vec::new(),
            pending: Vec::new(),
            delivered: 0,
        };
        Cluster {
            writer: Writer::new(out).unwrap(),
            rooms: (0..ROOMS).map(room).collect(),
            nodes: ["n1", "n2", "n3"].map(Name::from),
            open: (0..PROCESSES).map(|_| None).collect(),
            numbers: (0..PROCESSES).collect(),
            processes: PROCESSES,
            time: 0,
            ids: 0,
            seed: 1,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.seed >> 33) % bound
    }

    fn write(&mut self, op: &Op) {
        self.writer.write(op).unwrap();
    }

    fn now(&mut self) -> u64 {
        self.time += 1_000 + self.below(1_000);
        self.time
    }

    /// A new id: a UUID of version 7.
    fn mint(&mut self) -> Id {
        self.ids += 1;
        let time = u128::from(1_700_000_000_000 + self.ids / 100) << 80;
        let random = u128::from(self.ids).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834);
        Id::from_u128(time | 7 << 76 | 2 << 62 | random >> 66)
    }

    fn subscribe(&mut self) {
        for n in 0..ROOMS {
            let (time, room) = (self.now(), self.rooms[n as usize].name.clone());
            let process = Process(1_000_000 + n as u32);
            let value = Value::subscription(n, Some(0));
            let op = Op::invoke(time, process, F::Subscribe, value).room(room).node("n1");
            self.write(&op);
            let value = Value::Subscription { subscription: n, after: Some(0), head: Some(0) };
            self.write(&op.ok(time + 1, value));
            self.time += 1;
        }
    }

    /// A client begins something, or is told what became of it.
    fn step(&mut self) -> bool {
        let client = self.below(PROCESSES.into()) as usize;
        if let Some((op, value)) = self.open[client].take() {
            let time = self.now();
            if value == Value::None {
                self.write(&op.info(time, "timeout"));
                self.numbers[client] = self.processes;
                self.processes += 1;
            } else {
                self.write(&op.ok(time, value));
            }
            return false;
        }
        let room = self.below(ROOMS) as usize;
        let (time, process) = (self.now(), Process(self.numbers[client]));
        let (f, value, answer) = match self.below(100) {
            0..60 => self.send(room),
            60..62 => self.retry(room),
            _ => self.read(room),
        };
        let node = self.nodes[self.below(3) as usize].clone();
        let op = Op::invoke(time, process, f, value).room(&self.rooms[room].name).node(node);
        self.write(&op);
        self.deliver(room);
        self.open[client] = Some((op, answer));
        true
    }

    fn send(&mut self, room: usize) -> (F, Value, Value) {
        let id = self.mint();
        if self.below(100) < 3 {
            self.rooms[room].pending.push(id);
            return (F::Send, Value::send(id), Value::None);
        }
        self.rooms[room].log.push(id);
        let seq = self.rooms[room].log.len() as u64;
        (F::Send, Value::send(id), Value::sent(id, seq))
    }

    /// Sends again what was not answered, or what was.
    fn retry(&mut self, room: usize) -> (F, Value, Value) {
        let here = &mut self.rooms[room];
        if let Some(id) = here.pending.pop() {
            here.log.push(id);
            return (F::Resend, Value::send(id), Value::sent(id, here.log.len() as u64));
        }
        match here.log.first().copied() {
            Some(id) => (F::Resend, Value::send(id), Value::sent(id, 1)),
            None => self.send(room),
        }
    }

    fn read(&mut self, room: usize) -> (F, Value, Value) {
        let head = self.rooms[room].log.len() as u64;
        // Mostly what is new; sometimes from anywhere.
        let back = if self.below(20) == 0 { head } else { 10 };
        let after = head.saturating_sub(self.below(back + 1));
        let page = Value::Page { head, events: page(&self.rooms[room].log, after, 100) };
        (F::Read, Value::range(after, Some(100)), page)
    }

    fn deliver(&mut self, room: usize) {
        let behind = self.below(5);
        let time = self.now();
        let here = &mut self.rooms[room];
        let upto = (here.log.len() as u64).saturating_sub(behind);
        let events = page(&here.log, here.delivered, upto.saturating_sub(here.delivered));
        here.delivered += events.len() as u64;
        let (name, process) = (here.name.clone(), Process(1_000_000 + room as u32));
        for event in events {
            let op = Op::delivery(time, process, room as u64, event).room(&name).node("n1");
            self.write(&op);
        }
    }

    fn end(mut self) {
        for client in 0..PROCESSES as usize {
            if let Some((op, _)) = self.open[client].take() {
                let time = self.now();
                self.write(&op.info(time, "timeout"));
            }
        }
        for room in 0..ROOMS as usize {
            for node in self.nodes.clone() {
                let (time, process) = (self.now(), Process(self.processes));
                let (name, log) = (self.rooms[room].name.clone(), &self.rooms[room].log);
                let head = log.len() as u64;
                let events = page(log, 0, head);
                let range = Value::range(0, None);
                let op = Op::invoke(time, process, F::FinalRead, range).room(name).node(node);
                self.write(&op);
                self.write(&op.ok(time + 1, Value::Page { head, events }));
            }
        }
        self.writer.finish().unwrap();
    }
}

fn page(log: &[Id], after: u64, limit: u64) -> Vec<Event> {
    let events = log.iter().enumerate().skip(after as usize).take(limit as usize);
    events.map(|(i, id)| Event { seq: i as u64 + 1, id: *id }).collect()
}

fn write_history(path: &Path) {
    let mut cluster = Cluster::new(BufWriter::new(File::create(path).unwrap()));
    cluster.subscribe();
    let mut begun = ROOMS + ROOMS * 3;
    while begun < OPERATIONS {
        begun += u64::from(cluster.step());
    }
    cluster.end();
}

/// Says something past the test harness, which hides what a test prints unless it fails.
fn say(line: &str) {
    std::io::stderr().write_all(format!("million: {line}\n").as_bytes()).unwrap();
}

/// What Linux knows of a process that still runs or has not been waited for.
fn proc(pid: u32, file: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
}

fn rss_kib_max(pid: u32) -> Option<u64> {
    let status = proc(pid, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Time on a processor: what it would take if nothing else ran. In ticks of 10 ms.
fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = proc(pid, "stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
    Some(Duration::from_millis(10 * ticks))
}

/// Runs the program, holds it to its limits, and returns what it wrote.
fn run(args: &[&str], path: &Path) -> String {
    let began = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_folkmoot-jepsen"))
        .args(args)
        .arg(path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut rss_kib, mut cpu) = (None, None);
    while child.try_wait().unwrap().is_none() {
        rss_kib = rss_kib_max(child.id()).max(rss_kib);
        cpu = cpu_time(child.id()).max(cpu);
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = began.elapsed();
    say(&format!("{args:?}: {took:.2?} ({cpu:.2?} of processor), {rss_kib:?} KiB at most"));
    assert!(cpu.unwrap_or(took) < Duration::from_secs(SECONDS_MAX), "{took:?}, {cpu:?}");
    assert!(took < Duration::from_secs(CLOCK_SECONDS_MAX), "{took:?}, {cpu:?}");
    match rss_kib {
        Some(kib) => assert!(kib < RSS_KIB_MAX, "{kib} KiB"),
        None => say("SKIPPED: this system does not tell how much memory a process had"),
    }
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    said
}

#[test]
fn a_million_operations_take_seconds_and_no_gibibyte() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history.jsonl");
    write_history(&path);
    say(&format!("{} MiB", std::fs::metadata(&path).unwrap().len() >> 20));

    let report: serde_json::Value =
        serde_json::from_str(&run(&["check", "--json"], &path)).unwrap();
    assert_eq!(report["verdict"], "valid", "{report}");
    assert_eq!(report["counts"]["operations"], OPERATIONS);
    say(&report["counts"].to_string());

    // Without results.json: it is judged again, which is the most that it can take.
    let said = run(&["report"], directory.path());
    let page = std::fs::read_to_string(said.trim_end()).unwrap();
    say(&format!("a page of {} KiB", page.len() >> 10));
    assert!(page.len() < PAGE_MAX, "{} bytes", page.len());
    assert!(page.contains("<strong>Thinned:</strong>") && page.contains(" Valid</h1>"));
}
