//! The load: clients that post in closed loops, subscribers, and the window that is measured.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::cli::bench::body::{self, Mark};
use crate::cli::bench::stats::{self, Snap};
use crate::cli::bench::{Args, BenchRoom, Target, client_at};
use crate::cli::failure::{Failure, Outcome};
use crate::client::{Delivered, Follow, Post, Session};
use crate::id::{Cursor, Seq};

/// Kinds of errors of which a report has samples.
const ERROR_SAMPLES_MAX: usize = 4;
/// Histograms that clients share.
const HISTOGRAMS: usize = 16;
/// How long clients get to finish their last message after the window.
const DRAIN: Duration = Duration::from_secs(3);
/// How long subscribers get to be told the last messages.
const DELIVERED_WITHIN: Duration = Duration::from_secs(10);

/// Latencies in microseconds, to 60 s.
pub(super) type Latencies = Histogram<u64>;

fn latencies() -> Outcome<Latencies> {
    Histogram::new_with_bounds(1, 60_000_000, 3).map_err(|error| Failure::failed(error.to_string()))
}

/// The clock that all share, in nanoseconds, and what is measured of it.
#[derive(Debug)]
struct Window {
    base: Instant,
    start: AtomicU64,
    end: AtomicU64,
    stop: AtomicBool,
}

impl Window {
    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn has(&self, at: u64) -> bool {
        at >= self.start.load(Relaxed) && at < self.end.load(Relaxed)
    }
}

/// An acknowledged message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acked {
    /// The room's index.
    pub room: usize,
    /// The seq that the ack said.
    pub seq: u64,
    /// Which message.
    pub mark: Mark,
}

/// Latencies that several clients record into: one each would not fit into the processor's cache.
type Shared = Arc<Mutex<Latencies>>;

/// What one client saw.
#[derive(Debug)]
struct ClientLog {
    latencies: Shared,
    /// Acks within the window.
    in_window: u64,
    /// Acked messages sent within the window, by room: what subscribers should get.
    sent_in_window: Vec<u64>,
    errors: u64,
    samples: BTreeMap<String, u64>,
    acked: Vec<Acked>,
}

/// What subscribers got.
#[derive(Debug)]
struct Sink {
    latencies: Mutex<Latencies>,
    delivered: AtomicU64,
    failed: AtomicU64,
}

/// What a run measured.
#[derive(Debug)]
pub(super) struct Measured {
    pub seconds: f64,
    pub connect_seconds: f64,
    pub connections: usize,
    pub ack: Latencies,
    pub deliver: Latencies,
    pub acked_in_window: u64,
    pub delivered: u64,
    pub deliver_expected: u64,
    pub subscribers_failed: u64,
    pub errors: u64,
    pub error_samples: BTreeMap<String, u64>,
    pub before: Snap,
    pub after: Snap,
    pub rss_mib: Vec<f64>,
    pub load_after: f64,
    /// Every ack of the run, warm-up and end included.
    pub acked: Vec<Acked>,
}

impl Measured {
    /// Nothing yet, but what was counted around the window.
    fn begin(before: Snap, after: Snap, target: &Target) -> Outcome<Measured> {
        Ok(Measured {
            seconds: 0.0,
            connect_seconds: 0.0,
            connections: 0,
            ack: latencies()?,
            deliver: latencies()?,
            acked_in_window: 0,
            delivered: 0,
            deliver_expected: 0,
            subscribers_failed: 0,
            errors: 0,
            error_samples: BTreeMap::new(),
            before,
            after,
            rss_mib: stats::rss_mib(&target.pids),
            load_after: stats::load_average(),
            acked: Vec::new(),
        })
    }
}

impl Measured {
    /// Why this was no run to report, if so: nothing was acknowledged, or a subscriber missed something.
    pub(super) fn failure(&self) -> Option<String> {
        if self.acked.is_empty() {
            let most = self.error_samples.iter().max_by_key(|(_, count)| **count);
            let why = most.map_or("no client had an answer", |(error, _)| error.as_str());
            return Some(format!("nothing was acknowledged: {why}"));
        }
        if self.subscribers_failed > 0 || self.delivered < self.deliver_expected {
            let Measured { delivered, deliver_expected: expected, subscribers_failed, .. } = self;
            return Some(format!(
                "subscribers got {delivered} of {expected} messages, and {subscribers_failed} failed"
            ));
        }
        None
    }
}

/// Runs the load.
pub(super) async fn run(
    args: &Args,
    target: &Target,
    rooms: Arc<[BenchRoom]>,
) -> Outcome<Measured> {
    let window = Arc::new(Window {
        base: Instant::now(),
        start: AtomicU64::new(u64::MAX),
        end: AtomicU64::new(u64::MAX),
        stop: AtomicBool::new(false),
    });
    let sink = Arc::new(Sink {
        latencies: Mutex::new(latencies()?),
        delivered: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    // Dropping it ends them.
    let _subscribers = start_subscribers(args, target, &rooms, &window, &sink).await?;
    let connecting = Instant::now();
    let connections = if args.connections == 0 { args.clients } else { args.connections };
    let connections = connections.min(args.clients);
    let mut sessions = Vec::with_capacity(connections);
    for n in 0..connections {
        sessions.push(Session::open(&client_at(args, target, n)?).await?);
    }
    let connect_seconds = connecting.elapsed().as_secs_f64();
    let (mut clients, shared) = start_clients(args, &sessions, &rooms, &window)?;

    sleep(Duration::from_secs(args.warmup)).await;
    let before = Snap::take(&target.pids, target.data.as_ref());
    let start = window.now();
    window.start.store(start, Relaxed);
    sleep(Duration::from_secs(args.seconds)).await;
    let end = window.now();
    window.end.store(end, Relaxed);
    let after = Snap::take(&target.pids, target.data.as_ref());
    let mut measured = Measured::begin(before, after, target)?;
    window.stop.store(true, Relaxed);

    measured.seconds = (end - start) as f64 / 1e9;
    measured.connect_seconds = connect_seconds;
    measured.connections = connections;
    let by_room = gather(&mut clients, &mut measured, rooms.len(), args).await?;
    for latencies in shared {
        let latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
        let added = measured.ack.add(&*latencies);
        added.map_err(|error| Failure::failed(error.to_string()))?;
    }
    measured.deliver_expected = (0..args.subscribers).map(|n| by_room[n % rooms.len()]).sum();
    settle(&sink, &mut measured).await;
    Ok(measured)
}

/// Puts every subscriber in place, each on a connection of its own.
async fn start_subscribers(
    args: &Args,
    target: &Target,
    rooms: &[BenchRoom],
    window: &Arc<Window>,
    sink: &Arc<Sink>,
) -> Outcome<JoinSet<()>> {
    let mut subscribers = JoinSet::new();
    for n in 0..args.subscribers {
        let room = &rooms[n % rooms.len()];
        let session = Session::open(&client_at(args, target, n)?).await?;
        let after = Cursor { epoch: None, seq: Seq(room.start) };
        let follow = session.follow(&room.id, Some(after)).await?;
        subscribers.spawn(subscribe(follow, session, window.clone(), sink.clone()));
    }
    Ok(subscribers)
}

/// Starts every client, on the session that it shares.
fn start_clients(
    args: &Args,
    sessions: &[Session],
    rooms: &Arc<[BenchRoom]>,
    window: &Arc<Window>,
) -> Outcome<(JoinSet<ClientLog>, Vec<Shared>)> {
    let shared = |_| Ok::<_, Failure>(Arc::new(Mutex::new(latencies()?)));
    let shared: Vec<Shared> = (0..HISTOGRAMS).map(shared).collect::<Result<_, _>>()?;
    let mut clients = JoinSet::new();
    for n in 0..args.clients {
        let log = ClientLog {
            latencies: shared[n % HISTOGRAMS].clone(),
            in_window: 0,
            sent_in_window: vec![0; rooms.len()],
            errors: 0,
            samples: BTreeMap::new(),
            acked: Vec::new(),
        };
        let session = sessions[n % sessions.len()].clone();
        clients.spawn(post(n, args.size, session, rooms.clone(), window.clone(), log));
    }
    Ok((clients, shared))
}

/// Collects what clients saw. One that hangs is given up once its deadline has passed; its acks
/// are lost to the check, so the run fails.
async fn gather(
    clients: &mut JoinSet<ClientLog>,
    measured: &mut Measured,
    rooms: usize,
    args: &Args,
) -> Outcome<Vec<u64>> {
    let mut by_room = vec![0; rooms];
    let all = async {
        while let Some(log) = clients.join_next().await {
            let log = log.map_err(|error| Failure::failed(format!("a client failed: {error}")))?;
            measured.acked_in_window += log.in_window;
            measured.errors += log.errors;
            for (sum, more) in by_room.iter_mut().zip(&log.sent_in_window) {
                *sum += more;
            }
            for (error, count) in log.samples {
                *measured.error_samples.entry(error).or_default() += count;
            }
            measured.acked.extend(log.acked);
        }
        Ok(())
    };
    match timeout(args.connection.timeout + DRAIN, all).await {
        Ok(done) => done.map(|()| by_room),
        Err(_) => {
            Err(Failure::failed("clients hang; their last messages are neither acked nor not"))
        }
    }
}

/// Waits for the last deliveries.
async fn settle(sink: &Sink, measured: &mut Measured) {
    let begun = Instant::now();
    while sink.delivered.load(Relaxed) < measured.deliver_expected
        && begun.elapsed() < DELIVERED_WITHIN
    {
        sleep(Duration::from_millis(20)).await;
    }
    measured.delivered = sink.delivered.load(Relaxed);
    measured.subscribers_failed = sink.failed.load(Relaxed);
    measured.deliver = sink.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
}

/// One client: at most one unacknowledged message.
async fn post(
    client: usize,
    size: usize,
    session: Session,
    rooms: Arc<[BenchRoom]>,
    window: Arc<Window>,
    mut log: ClientLog,
) -> ClientLog {
    let mut number = 0;
    while !window.stop.load(Relaxed) {
        let room = (client + number as usize) % rooms.len();
        let mark = Mark { client, number };
        let sent = window.now();
        let text = body::write(sent, mark, size);
        let outcome = session.post(Post::message(&rooms[room].id, text)).await;
        let now = window.now();
        number += 1;
        match outcome {
            Ok(ack) => {
                if window.has(now) {
                    log.in_window += 1;
                    let mut latencies =
                        log.latencies.lock().unwrap_or_else(PoisonError::into_inner);
                    latencies.saturating_record(((now - sent) / 1000).max(1));
                }
                if window.has(sent) {
                    log.sent_in_window[room] += 1;
                }
                log.acked.push(Acked { room, seq: ack.seq, mark });
            }
            Err(error) => {
                if window.has(now) {
                    log.errors += 1;
                }
                let error = error.to_string();
                if log.samples.len() < ERROR_SAMPLES_MAX || log.samples.contains_key(&error) {
                    *log.samples.entry(error).or_default() += 1;
                }
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
    log
}

/// One subscriber.
async fn subscribe(mut follow: Follow, session: Session, window: Arc<Window>, sink: Arc<Sink>) {
    loop {
        match follow.next().await {
            Some(Ok(Delivered::Event(event))) => {
                let Some((sent, _)) = body::read(&event.text) else { continue };
                if window.has(sent) {
                    let micros = window.now().saturating_sub(sent) / 1000;
                    let mut latencies =
                        sink.latencies.lock().unwrap_or_else(PoisonError::into_inner);
                    latencies.saturating_record(micros.max(1));
                    sink.delivered.fetch_add(1, Relaxed);
                }
            }
            Some(Ok(Delivered::CaughtUp(_))) => {}
            Some(Ok(Delivered::Lost { .. }) | Err(_)) | None => {
                sink.failed.fetch_add(1, Relaxed);
                break;
            }
        }
    }
    drop(session);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_which_nothing_happened_or_something_was_missed_has_failed() {
        let target = Target { servers: Vec::new(), token: None, pids: Vec::new(), data: None };
        let snap = || Snap::take(&[], None);
        let mut measured = Measured::begin(snap(), snap(), &target).unwrap();
        measured.error_samples = BTreeMap::from([("often".into(), 9), ("seldom".into(), 1)]);
        assert_eq!(measured.failure().unwrap(), "nothing was acknowledged: often");
        let mark = Mark { client: 0, number: 0 };
        measured.acked.push(Acked { room: 0, seq: 1, mark });
        assert_eq!(measured.failure(), None);
        measured.deliver_expected = 2;
        measured.delivered = 1;
        assert!(measured.failure().unwrap().contains("1 of 2"));
        measured.delivered = 2;
        assert_eq!(measured.failure(), None);
        measured.subscribers_failed = 1;
        assert!(measured.failure().is_some());
    }
}
