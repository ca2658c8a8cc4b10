//! The one writer of a node's log: takes what waits from every group, one write, one fsync, then
//! completes callbacks in the order of submission.
//!
//! Appends, votes, truncations and purges of all groups pass through here in one order, so a vote
//! and the entries after it reach the disk in the order in which openraft asked for them.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::shard::runtime::{Runtime, Wake, Writing};
use crate::store::log::{self, Log, Write};

/// How long a full disk is left alone until the next attempt.
const FULL_WAIT: Duration = Duration::from_millis(100);

/// Called once its write is on disk, or has failed for good.
pub type Flushed = Box<dyn FnOnce(io::Result<()>) + Send>;

/// What to do about a full disk.
pub trait Space: Send + Sync + 'static {
    /// Frees what can be freed, and says that posts must be refused.
    fn on_full(&self);
}

/// Submits writes to the log's writer. Cheap to clone.
#[derive(Clone)]
pub struct LogWriter(Arc<Inner>);

struct Inner {
    log: Arc<Log>,
    queue: Mutex<Queue>,
    wake: Wake,
    space: Arc<dyn Space>,
    stopped: AtomicBool,
    metrics: Metrics,
}

#[derive(Default)]
struct Queue {
    writes: Vec<Write>,
    flushed: Vec<Flushed>,
}

/// Registered once.
struct Metrics {
    duration: metrics::Histogram,
    bytes: metrics::Counter,
    batched: metrics::Histogram,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            duration: metrics::histogram!("folkmoot_log_write_duration_seconds"),
            bytes: metrics::counter!("folkmoot_log_written_bytes_total"),
            batched: metrics::histogram!("folkmoot_log_writes_per_fsync"),
        }
    }
}

impl LogWriter {
    /// Starts the writer of a log.
    pub fn start<R: Runtime>(log: Arc<Log>, space: Arc<dyn Space>) -> LogWriter {
        let inner = Arc::new(Inner {
            log,
            queue: Mutex::default(),
            wake: Wake::default(),
            space,
            stopped: AtomicBool::new(false),
            metrics: Metrics::default(),
        });
        let writer = inner.clone();
        let mut kept = Queue::default();
        R::spawn_writer(move || writer.drain::<R>(&mut kept), inner.wake.clone());
        LogWriter(inner)
    }

    /// The log that is written.
    pub fn log(&self) -> &Arc<Log> {
        &self.0.log
    }

    /// Queues a write. `flushed` is called on the writer's thread, after the fsync.
    ///
    /// The queue is bounded by what openraft keeps in flight: each group waits for its own
    /// entries before it proposes more.
    pub fn submit(&self, write: Write, flushed: Option<Flushed>) {
        {
            let mut queue = self.0.queue.lock().expect("no holder of the lock panics");
            queue.writes.push(write);
            queue.flushed.extend(flushed);
        }
        self.0.wake.wake();
    }

    /// Queues a write and waits until it is on disk.
    ///
    /// # Errors
    /// When the log cannot be written; the node stops then.
    pub async fn write(&self, write: Write) -> io::Result<()> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        let flushed = move |result| {
            // The waiter may have been dropped with its task; the write stands all the same.
            let _: Result<(), _> = tx.send(result);
        };
        self.submit(write, Some(Box::new(flushed)));
        rx.await.map_err(|_| io::Error::other("the log writer has stopped"))?
    }

    /// Stops the writer once its queue is empty.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.wake.wake();
    }
}

impl Inner {
    /// Writes what waits.
    fn drain<R: Runtime>(&self, kept: &mut Queue) -> Writing {
        loop {
            if kept.writes.is_empty() {
                *kept =
                    std::mem::take(&mut *self.queue.lock().expect("no holder of the lock panics"));
            }
            if kept.writes.is_empty() {
                let stopped = self.stopped.load(Ordering::Acquire);
                return if stopped { Writing::Ended } else { Writing::Waits };
            }
            if mutant!(AckBeforeFsync) && !kept.flushed.is_empty() {
                kept.flushed.drain(..).for_each(|flushed| flushed(Ok(())));
                return Writing::Again(Duration::from_millis(1));
            }
            if !self.write::<R>(&kept.writes) {
                return Writing::Again(FULL_WAIT);
            }
            self.metrics.batched.record(kept.writes.len() as f64);
            kept.writes.clear();
            for flushed in kept.flushed.drain(..) {
                flushed(Ok(()));
            }
        }
    }

    /// Writes and syncs; false when the disk is full, and the *write* is to be tried again, without
    /// completing callbacks. An fsync is never retried: raft-engine panics on a failed one, and
    /// after any other error nothing more is known of what is on disk, so the process ends; what
    /// was not completed was not acknowledged.
    fn write<R: Runtime>(&self, writes: &[Write]) -> bool {
        let written =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.log.write(writes)));
        match written {
            Ok(Ok(written)) => {
                self.metrics.duration.record(written.took.as_secs_f64());
                self.metrics.bytes.increment(written.bytes as u64);
                true
            }
            Ok(Err(error)) if log::is_no_space(&error) => {
                tracing::error!(%error, "the log's disk is full; posts wait until there is space");
                self.space.on_full();
                false
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the log cannot be written; stopping");
                R::abort();
            }
            Err(_) => {
                tracing::error!(
                    "the log's fsync failed; stopping: nothing unsynced was acknowledged, check \
                     the disk and start again"
                );
                R::abort();
            }
        }
    }
}
