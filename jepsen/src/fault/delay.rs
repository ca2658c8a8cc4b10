//! Slow links: packets of a node wait, each for its own time, in a queue of ours (NFQUEUE). When
//! this program ends, however it does, they pass at once again.
//!
//! The rules are iptables': many kernels have NFQUEUE for those and not for nft.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nfq::{Message, Queue, Verdict};

use crate::fault::network::{self, Inside, Links, Namespace, Scratch};
use crate::fault::plan::{Held, Step};
use crate::fault::tool::Tool;
use crate::fault::{FaultError, Missing, Plan, Target};

const IPV4: &str = "iptables";
const IPV6: &str = "ip6tables";
/// The chain of our rules.
const CHAIN: &str = "folkmoot_fault";
/// The number of our queue; each network namespace has its own.
const QUEUE: u16 = 7401;
/// Packets that may wait at a time; further ones pass at once.
const WAITING_MAX: u32 = 20_000;
/// How exact the times are.
const TICK: Duration = Duration::from_micros(500);

/// How packets wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delay {
    /// So long at least.
    pub base: Duration,
    /// And up to so much longer, at random.
    pub jitter: Duration,
    /// So many of a hundred overtake those before them.
    pub reorder_percent: u8,
}

/// Delays what a node sends on these links.
///
/// # Errors
///
/// When the peers are not told apart by their addresses.
pub fn delay(target: &Target, links: &Links, delay: Delay) -> Result<Plan, FaultError> {
    if delay.reorder_percent > 100 {
        return Err(FaultError::Refused(format!(
            "{} percent of the packets: use 0 to 100",
            delay.reorder_percent
        )));
    }
    links.check(target)?;
    let namespace = Namespace::of(target)?;
    let waiting = Waiting { namespace: namespace.clone(), pid: target.pid, delay };
    // The queue before the rules: without one, packets pass.
    let mut plan = Plan::new("delay", &[target]).inject_by(waiting).while_we_run();
    for program in [IPV4, IPV6] {
        let rules = rules(program, target, links);
        if !rules.is_empty() {
            plan = rules
                .into_iter()
                .fold(plan, |plan, tool| plan.inject_by(Inside::new(&namespace, tool)));
            plan = none(program)
                .into_iter()
                .fold(plan, |plan, tool| plan.heal_by(Inside::new(&namespace, tool)));
        }
    }
    Ok(plan)
}

/// Removes the rules of a delay whose program is gone; packets pass without it, only slower.
///
/// # Errors
///
/// When the node is gone.
pub fn heal(target: &Target) -> Result<Plan, FaultError> {
    let namespace = Namespace::of(target)?;
    let tools = [IPV4, IPV6].into_iter().flat_map(none);
    Ok(tools.fold(Plan::new("delay", &[target]), |plan, tool| {
        plan.inject_by(Inside::new(&namespace, tool))
    }))
}

/// What puts the packets on these links into the queue; empty where there are none.
fn rules(program: &'static str, target: &Target, links: &Links) -> Vec<Tool> {
    let mut tools = vec![];
    for packets in links.packets(target) {
        let end = packets.far.unwrap_or(target.client.ip());
        if end.is_ipv4() != (program == IPV4) {
            continue;
        }
        let mut words = words("-A", CHAIN);
        words.extend(packets.far.into_iter().flat_map(|ip| ["-d".into(), ip.to_string()]));
        let port = if packets.at_far { "--dport" } else { "--sport" };
        words.extend(["-p", "tcp", port].map(str::to_owned));
        words.push(packets.port.to_string());
        words.extend(["-j", "NFQUEUE", "--queue-bypass", "--queue-num"].map(str::to_owned));
        words.push(QUEUE.to_string());
        tools.push(Tool::new(program, words));
    }
    if !tools.is_empty() {
        tools.splice(
            0..0,
            none(program).into_iter().chain([Tool::new(program, words("-N", CHAIN))]),
        );
        tools.push(Tool::new(program, jump("-A")));
    }
    tools
}

/// What removes our rules, if there are any.
fn none(program: &'static str) -> Vec<Tool> {
    let words = [jump("-D"), words("-F", CHAIN), words("-X", CHAIN)];
    words.map(|words| Tool::new(program, words).may_fail()).to_vec()
}

fn words(verb: &str, chain: &str) -> Vec<String> {
    ["-w", "-t", "mangle", verb, chain].map(str::to_owned).to_vec()
}

fn jump(verb: &str) -> Vec<String> {
    let mut words = words(verb, "OUTPUT");
    words.extend(["-j", CHAIN].map(str::to_owned));
    words
}

/// Tries a queue in a namespace of its own.
///
/// # Errors
///
/// What is missing.
pub fn probe() -> Result<(), Missing> {
    let tried = Scratch::new().and_then(|scratch| {
        let (target, links) = network::nobody();
        let namespace = scratch.namespace()?;
        for tool in rules(IPV4, &target, &links) {
            Inside::new(&namespace, tool).run(&mut Held::default())?;
        }
        let delay = Delay { base: TICK, jitter: TICK, reorder_percent: 0 };
        Waiting { namespace, pid: 0, delay }.run(&mut Held::default())
    });
    tried.map_err(|error| {
        error.missing("a kernel with NFQUEUE (xt_NFQUEUE, nfnetlink_queue) is needed")
    })
}

#[derive(Debug)]
struct Waiting {
    namespace: Namespace,
    pid: u32,
    delay: Delay,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Delay { base, jitter, reorder_percent } = self.delay;
        write!(
            f,
            "# NFQUEUE {QUEUE} in the network namespace of {}: each packet waits {base:?} to {:?}, \
             {reorder_percent} % do not wait",
            self.pid,
            base + jitter
        )
    }
}

impl Step for Waiting {
    fn run(&self, held: &mut Held) -> Result<(), FaultError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (namespace, delay, stopped) = (self.namespace.clone(), self.delay, stop.clone());
        let (say, hear) = channel();
        let thread = std::thread::spawn(move || serve(&namespace, delay, &stopped, &say));
        held.keep(Thread { stop, thread: Some(thread) });
        let opened = hear.recv().unwrap_or_else(|_| Err(io::Error::other("the thread is gone")));
        opened.map_err(FaultError::io(format!("NFQUEUE {QUEUE}")))
    }
}

struct Thread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell: without it, packets pass.
            let _ = thread.join();
        }
    }
}

/// A packet by the time at which it goes on; of two of one time, the first goes first.
struct Packet {
    due: Instant,
    number: u64,
    message: Message,
}

impl PartialEq for Packet {
    fn eq(&self, other: &Packet) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Packet {}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Packet) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Packet {
    fn cmp(&self, other: &Packet) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

impl Packet {
    fn key(&self) -> (Instant, u64) {
        (self.due, self.number)
    }
}

fn open(namespace: &Namespace) -> io::Result<Queue> {
    namespace.enter().map_err(io::Error::other)?;
    let mut queue = Queue::open()?;
    queue.bind(QUEUE)?;
    queue.set_queue_max_len(QUEUE, WAITING_MAX)?;
    // What does not fit passes.
    queue.set_fail_open(QUEUE, true)?;
    // Headers suffice: packets go on as they are.
    queue.set_copy_range(QUEUE, 0)?;
    queue.set_nonblocking(true);
    Ok(queue)
}

fn serve(namespace: &Namespace, delay: Delay, stop: &AtomicBool, opened: &Sender<io::Result<()>>) {
    let mut queue = match open(namespace) {
        Ok(queue) => queue,
        Err(error) => {
            // The other side waits for it.
            let _ = opened.send(Err(error));
            return;
        }
    };
    let _ = opened.send(Ok(()));
    let mut due = Due::new(delay);
    let mut waiting = BinaryHeap::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        while let Ok(message) = queue.recv() {
            number += 1;
            waiting.push(Reverse(Packet { due: due.of_next(Instant::now()), number, message }));
        }
        let now = Instant::now();
        while waiting.peek().is_some_and(|Reverse(packet)| packet.due <= now) {
            let Some(Reverse(packet)) = waiting.pop() else { break };
            pass(&mut queue, packet.message);
        }
        std::thread::sleep(TICK);
    }
    for Reverse(packet) in waiting.into_sorted_vec().into_iter().rev() {
        pass(&mut queue, packet.message);
    }
}

fn pass(queue: &mut Queue, mut message: Message) {
    message.set_verdict(Verdict::Accept);
    // A namespace that is gone has no packets.
    let _ = queue.verdict(message);
}

/// When each packet goes on.
struct Due {
    delay: Delay,
    /// No packet before this overtakes it.
    last: Option<Instant>,
    /// xorshift: the times need not be the same twice.
    random: u64,
}

impl Due {
    fn new(delay: Delay) -> Due {
        let seed = u64::from(std::process::id()) << 20;
        Due { delay, last: None, random: seed | 0x9e37_79b9 }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound.max(1)
    }

    fn of_next(&mut self, now: Instant) -> Instant {
        if self.below(100) < u64::from(self.delay.reorder_percent) {
            return now;
        }
        let jitter = u64::try_from(self.delay.jitter.as_micros()).unwrap_or(u64::MAX);
        let wait = self.delay.base + Duration::from_micros(self.below(jitter.saturating_add(1)));
        let due = self.last.map_or(now + wait, |last| last.max(now + wait));
        self.last = Some(due);
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_alone_keeps_the_order() {
        let [base, jitter] = [Duration::from_millis(10), Duration::from_millis(50)];
        let mut due = Due::new(Delay { base, jitter, reorder_percent: 0 });
        let now = Instant::now();
        let times: Vec<_> = (0..1000).map(|n| due.of_next(now + TICK * n)).collect();
        assert!(times.is_sorted());
        assert!(times.iter().enumerate().all(|(n, at)| *at >= now + TICK * n as u32 + base));
    }

    #[test]
    fn so_many_of_a_hundred_overtake() {
        let base = Duration::from_millis(10);
        let mut due = Due::new(Delay { base, jitter: Duration::ZERO, reorder_percent: 25 });
        let now = Instant::now();
        let early = (0..10_000).filter(|_| due.of_next(now) == now).count();
        assert!((2000..3000).contains(&early), "{early}");
    }
}
