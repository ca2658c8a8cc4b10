//! What the state costs: printed, not asserted, since it depends on the machine.
//!
//! `cargo test --release --lib store::tests::speed -- --nocapture --ignored --test-threads 1`

use std::sync::Arc;
use std::time::Instant;

use super::random::{Random, new_room, post, room_id, user_id};
use super::{SHARD, checkpoint};
use crate::chat::event::{Event, Role};
use crate::chat::state::{Participant, Room, Scope, Sent, State, StateMut};
use crate::id::{RequestId, RoomId, Seq};
use crate::store::base::{Base, MemoryBase};
use crate::store::block::{Packer, Run};
use crate::store::sled_base::{SledBase, SledOptions};
use crate::store::state::{ShardState, StateOptions};

/// CPU time of this process, all threads, in seconds.
fn cpu_s() -> f64 {
    let mut ns = 0.0;
    for thread in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        ns += stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0);
    }
    ns / 1e9
}

/// CPU time of this thread, in microseconds.
fn thread_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0
}

/// Rooms by a Zipf law of exponent 1.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(n: usize) -> Zipf {
        let mut sum = 0.0;
        let weights = (1..=n).map(|rank| {
            sum += 1.0 / rank as f64;
            sum
        });
        Zipf(weights.collect())
    }

    fn pick(&self, random: &mut Random) -> usize {
        let total = self.0.last().copied().unwrap_or(1.0);
        let at = (random.next() >> 11) as f64 / (1u64 << 53) as f64 * total;
        self.0.partition_point(|sum| *sum < at).min(self.0.len() - 1)
    }
}

/// Says what each kind of operation cost.
struct Timed {
    base: SledBase,
    spent: std::sync::Mutex<std::collections::BTreeMap<&'static str, (u64, f64)>>,
}

impl Timed {
    fn time<T>(&self, name: &'static str, count: u64, f: impl FnOnce() -> T) -> T {
        let start = cpu_s();
        let value = f();
        let mut spent = self.spent.lock().unwrap();
        let entry = spent.entry(name).or_default();
        entry.0 += count;
        entry.1 += cpu_s() - start;
        value
    }
}

impl Base for Timed {
    fn get(&self, key: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
        self.time("get", 1, || self.base.get(key))
    }
    fn scan(
        &self,
        range: &crate::store::base::KeyRange,
        order: crate::store::base::Order,
        visit: &mut crate::store::base::Visit<'_>,
    ) -> std::io::Result<()> {
        self.time("scan", 1, || self.base.scan(range, order, visit))
    }
    fn write(&self, batch: crate::store::base::Batch) -> std::io::Result<()> {
        let ops = batch.clone().into_ops();
        let name =
            if ops.iter().any(|op| op.0[2] < 0x40 && op.0[2] > 2) { "rows" } else { "blocks" };
        self.time(name, ops.len() as u64, || self.base.write(batch))
    }
    fn flush(&self) -> std::io::Result<()> {
        self.time("flush", 1, || self.base.flush())
    }
    fn size_bytes(&self) -> std::io::Result<u64> {
        self.base.size_bytes()
    }
}

struct Load {
    rooms: Vec<RoomId>,
    pick: Box<dyn Fn(&mut Random) -> usize>,
    users: u64,
    noise: bool,
}

const EVENTS: usize = 50_000;
const ROUNDS: usize = 8;

/// Appends `EVENTS` events; returns the CPU microseconds that the state took for each.
fn append(state: &mut ShardState, load: &Load, random: &mut Random, now: u64) -> f64 {
    let mut posts = Vec::with_capacity(EVENTS);
    for n in 0..EVENTS {
        let room = &load.rooms[(load.pick)(random)];
        let text = if load.noise { random.noise(245) } else { random.prose(245) };
        let id = RequestId::mint(now + n as u64 / 25, random.bytes());
        posts.push((
            room.clone(),
            user_id(random.below(load.users)),
            id,
            random.bytes::<16>(),
            text,
        ));
    }
    let start = thread_us();
    for (room, user, id, salt, text) in posts {
        let row = state.room(&room).unwrap();
        state.participant(&room, &user);
        let scope = Scope::Room(room.clone());
        assert!(state.sent(&scope, &user, id).is_none());
        let event = Arc::new(Event {
            seq: row.head.next(),
            at_ms: now,
            sender: user.clone(),
            kind: crate::chat::event::EventKind::Message,
            request_id: id,
            target: None,
            subject: None,
            role: None,
            withdrawn: false,
            until_ms: None,
            original_at_ms: None,
            original_sender: None,
            body: crate::chat::event::Body::Present { salt, text },
        });
        let head = event.seq;
        state.append_event(&room, event);
        state.put_room(Room { head, ..(*row).clone() });
        state.put_sent(&scope, id, Sent { sender: user, seq: head, at_ms: now, body_hash: salt });
    }
    (thread_us() - start) / EVENTS as f64
}

fn measure(name: &str, load: &Load) {
    let dir = tempfile::tempdir().unwrap();
    let base = SledBase::open(&dir.path().join("state"), &SledOptions::default()).unwrap();
    let base = Arc::new(Timed { base, spent: Default::default() });
    measure_on(base.clone(), &format!("{name}, sled"), load);
    println!("  {:?}", base.spent.lock().unwrap());
    measure_on(Arc::new(MemoryBase::new()), &format!("{name}, in memory"), load);
}

fn measure_on(base: Arc<dyn Base>, name: &str, load: &Load) {
    // Eight shards have this much together.
    let options = StateOptions {
        rows_bytes: 96 << 20,
        events_bytes: 64 << 20,
        dedup_bytes: 64 << 20,
        ..StateOptions::default()
    };
    let mut state = ShardState::open(base.clone(), SHARD, options).unwrap();
    let mut now = 1_700_000_000_000;
    for room in &load.rooms {
        state.put_room(new_room(room, now, 1));
        for n in 0..load.users {
            let participant = Participant::new(Role::Member, now);
            state.put_participant(room, &user_id(n), Some(participant));
        }
    }
    checkpoint(&mut state);
    let rows = base.size_bytes().unwrap();
    let mut random = Random(1);
    let (mut appended, mut begun, mut written, mut finished, mut worst) =
        (0.0, 0.0, 0.0, 0.0, 0.0f64);
    for _ in 0..ROUNDS {
        now += 2000;
        state.advance_log_time(now);
        appended += append(&mut state, load, &mut random, now);
        let start = thread_us();
        let frozen = state.begin_checkpoint().unwrap();
        let begin = thread_us() - start;
        let start = cpu_s();
        let outcome = frozen.write().unwrap();
        drop(frozen);
        written += (cpu_s() - start) * 1e6;
        let start = thread_us();
        let retired = state.finish_checkpoint(outcome);
        let finish = thread_us() - start;
        drop(retired);
        begun += begin;
        finished += finish;
        worst = worst.max(begin).max(finish);
    }
    let events = (EVENTS * ROUNDS) as f64;
    let payload = events * 320.0;
    println!(
        "{name}: append {:.2} µs, begin {:.2}, write {:.2}, finish {:.2} µs of CPU an event; \
         longest pause {:.1} ms; rows {:.2} and disk {:.2} bytes per payload byte; memory {} MiB",
        appended / ROUNDS as f64,
        begun / events,
        written / events,
        finished / events,
        worst / 1000.0,
        state.size_bytes() as f64 / payload,
        (base.size_bytes().unwrap() - rows) as f64 / payload,
        state.memory_bytes() >> 20,
    );
}

#[test]
#[ignore = "a measurement"]
fn append_and_checkpoint() {
    for noise in [false, true] {
        let zipf = Zipf::new(1000);
        let rooms = (0..1000).map(room_id).collect();
        let pick = Box::new(move |random: &mut Random| zipf.pick(random));
        let kind = if noise { "noise" } else { "prose" };
        measure(&format!("1,000 rooms, Zipf, {kind}"), &Load { rooms, pick, users: 100, noise });
    }
    let rooms = (0..100_000).map(room_id).collect();
    let pick = Box::new(|random: &mut Random| random.below(100_000) as usize);
    measure("100,000 rooms, even, prose", &Load { rooms, pick, users: 1, noise: false });
}

#[test]
#[ignore = "a measurement"]
fn packing() {
    for noise in [false, true] {
        let mut random = Random(3);
        let mut state =
            ShardState::open(Arc::new(MemoryBase::new()), SHARD, StateOptions::default()).unwrap();
        let room = room_id(0);
        for _ in 0..20_000 {
            let text = if noise { random.noise(245) } else { random.prose(245) };
            let id = RequestId::mint(1_700_000_000_000, random.bytes());
            let user = user_id(random.below(100));
            post(&mut state, &room, &user, id, random.bytes(), text);
        }
        let events = state.events(&room, Seq(1), Seq(20_000), 20_000, usize::MAX);
        let start = thread_us();
        let mut run = Run::new(Seq(1));
        events.iter().for_each(|event| run.push(event));
        let encoded = thread_us();
        let blocks = Packer::default().pack(&run);
        let packed = thread_us();
        let mut reader = crate::chat::codec::EventReader::default();
        for block in &blocks {
            let run = Run::decode(block.first, &block.value).unwrap();
            for (_, event) in run.events(block.first) {
                reader.read(event).unwrap();
            }
        }
        let decoded = thread_us();
        let bytes: usize = blocks.iter().map(|block| block.value.len()).sum();
        println!(
            "{} bytes an event, {} blocks of {} bytes; encode {:.2} µs, pack {:.2}, decode {:.2} an event",
            run.bytes() / 20_000,
            blocks.len(),
            bytes / blocks.len(),
            (encoded - start) / 20_000.0,
            (packed - encoded) / 20_000.0,
            (decoded - packed) / 20_000.0,
        );
    }
}

#[test]
#[ignore = "a measurement"]
fn pages_of_a_million_events() {
    let dir = tempfile::tempdir().unwrap();
    let base = SledBase::open(&dir.path().join("state"), &SledOptions::default()).unwrap();
    let mut state = ShardState::open(Arc::new(base), SHARD, StateOptions::default()).unwrap();
    let mut random = Random(7);
    let room = room_id(0);
    let now = 1_700_000_000_000;
    state.advance_log_time(now);
    for n in 0..1_000_000u64 {
        let id = RequestId::mint(now + n / 10, random.bytes());
        let text = random.prose(245);
        post(&mut state, &room, &user_id(n % 100), id, random.bytes(), text);
        if n % 2000 == 0 {
            checkpoint(&mut state);
        }
    }
    checkpoint(&mut state);
    let mut times: Vec<u128> = (0..5000)
        .map(|_| {
            let first = Seq(random.below(999_900) + 1);
            let start = Instant::now();
            let page = state.events(&room, first, Seq(u64::MAX), 100, 1 << 20);
            assert_eq!(page.len(), 100);
            start.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    println!("a page of 100 events: p50 {} µs, p99 {} µs", times[2500], times[4950]);
    let start = Instant::now();
    let state = ShardState::open(state.base().clone(), SHARD, StateOptions::default()).unwrap();
    println!("opened in {:?}", start.elapsed());
    drop(state);
}
