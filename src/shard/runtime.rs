//! What the layers below `gateway` need of an async runtime, so that they also run simulated.

use std::future::Future;
use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use openraft::AsyncRuntime;
use openraft::OptionalSend;
pub use openraft::async_runtime::{Instant, Select2};
use openraft_rt_tokio::{TokioInstant, TokioRuntime as Upstream};

/// openraft's runtime, and how to run something that blocks.
///
/// In `router`, `delivery`, `shard` and `store` nothing else spawns, sleeps or reads a clock.
/// tokio's channels need no runtime and are fine.
pub trait Runtime: AsyncRuntime + Send + Sync {
    /// Runs `work`, which may block on a disk, away from the tasks that must not wait for it.
    ///
    /// # Errors
    /// When `work` panicked or the runtime is shutting down.
    fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = io::Result<T>> + Send;

    /// Calls `writer`, the log's one writer, as it says, until it says that it has ended.
    fn spawn_writer(writer: impl FnMut() -> Writing + Send + 'static, wake: Wake);

    /// Ends the process at once, as if it were killed: nothing more may be written or answered.
    fn abort() -> !;
}

/// When the log's writer is to be called again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// Once it is woken.
    Waits,
    /// After this time, woken or not.
    Again(Duration),
    /// Never.
    Ended,
}

/// Wakes the writer.
#[derive(Debug, Clone, Default)]
pub struct Wake(std::sync::Arc<WakeInner>);

#[derive(Debug, Default)]
struct WakeInner {
    pending: std::sync::Mutex<bool>,
    changed: std::sync::Condvar,
    notify: tokio::sync::Notify,
}

impl Wake {
    /// Makes the next wait return, or the present one.
    pub fn wake(&self) {
        let mut pending = lock(&self.0.pending);
        if !*pending {
            *pending = true;
            self.0.changed.notify_one();
            self.0.notify.notify_one();
        }
    }

    /// Waits on a thread.
    pub fn wait_blocking(&self) {
        let mut pending = lock(&self.0.pending);
        while !*pending {
            pending = self.0.changed.wait(pending).expect("no holder of the lock panics");
        }
        *pending = false;
    }

    /// Waits in a task.
    pub async fn wait(&self) {
        loop {
            {
                let mut pending = lock(&self.0.pending);
                if *pending {
                    *pending = false;
                    return;
                }
            }
            self.0.notify.notified().await;
        }
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no holder of the lock panics")
}

/// tokio, as nodes run on it: openraft's own, but for `sleep_until`, which openraft makes its ticks of.
///
/// Each group looks at its timers five times a heartbeat, and openraft gives each a phase of its own: a
/// node of nine groups would be woken 450 times a second. Here all groups of a process tick at the same
/// moments ([`tick_together`]), and those that have heartbeats to send then send them in one write.
#[derive(Debug)]
pub struct TokioRuntime(Upstream);

/// What the ends of `sleep_until` are rounded up to, counted from `ORIGIN`, in nanoseconds. 0: not at
/// all.
static TOGETHER: AtomicU64 = AtomicU64::new(0);
static ORIGIN: LazyLock<TokioInstant> = LazyLock::new(TokioInstant::now);
/// Waits up to this are no ticks: openraft also waits a microsecond for more of what was written.
const NO_TICK: Duration = Duration::from_micros(10);

/// From now on all groups of this process tick at the same moments, half as often as openraft would
/// have them with this heartbeat (`Config::tick_interval`).
///
/// A heartbeat leaves with the first tick that is a little over a heartbeat after the last one: the sixth
/// of openraft's ticks, the third of these, at the same time.
pub fn tick_together(heartbeat: Duration) {
    let heartbeat_ms = u64::try_from(heartbeat.as_millis()).unwrap_or(u64::MAX);
    let tick_ms = (heartbeat_ms.saturating_mul(13) / 64).max(1);
    TOGETHER.store(tick_ms.saturating_mul(2_000_000), Ordering::Relaxed);
}

/// A wait that ends at a whole multiple of a period, if there is one, since an origin: the first at
/// which it is over.
fn rounded(wait: Duration, since_origin: Duration, period: u64) -> Duration {
    if period == 0 || wait <= NO_TICK {
        return wait;
    }
    let over = u64::try_from((since_origin + wait).as_nanos() % u128::from(period))
        .expect("less than the period");
    if over == 0 { wait } else { wait + Duration::from_nanos(period - over) }
}

impl AsyncRuntime for TokioRuntime {
    type JoinError = <Upstream as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Upstream as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Upstream as AsyncRuntime>::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = <Upstream as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <Upstream as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Upstream as AsyncRuntime>::ThreadLocalRng;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Upstream::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Upstream::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let now = TokioInstant::now();
        // A difference of instants is zero where it would be negative.
        let period = TOGETHER.load(Ordering::Relaxed);
        Upstream::sleep(rounded(deadline - now, now - *ORIGIN, period))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Upstream::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        Upstream::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Upstream::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        Upstream::thread_rng()
    }

    type Mpsc = <Upstream as AsyncRuntime>::Mpsc;
    type Watch = <Upstream as AsyncRuntime>::Watch;
    type Oneshot = <Upstream as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Upstream as AsyncRuntime>::Mutex<T>;

    fn new(threads: usize) -> Self {
        TokioRuntime(Upstream::new(threads))
    }

    fn block_on<F: Future<Output = T>, T>(&mut self, future: F) -> T {
        self.0.block_on(future)
    }
}

impl Runtime for TokioRuntime {
    async fn blocking<T: Send + 'static>(
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
    }

    fn spawn_writer(mut writer: impl FnMut() -> Writing + Send + 'static, wake: Wake) {
        let body = move || {
            loop {
                match writer() {
                    Writing::Waits => wake.wait_blocking(),
                    Writing::Again(after) => std::thread::sleep(after),
                    Writing::Ended => return,
                }
            }
        };
        std::thread::Builder::new()
            .name("log-writer".into())
            .spawn(body)
            .expect("the system can start one more thread");
    }

    fn abort() -> ! {
        std::process::abort()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const TICK: u64 = 40_000_000;

    #[test]
    fn ticks_of_all_groups_end_together_and_never_early() {
        for since_ms in [0, 1, 99, 100, 12_345] {
            for wait_ms in [1, 12, 19, 20, 21, 39] {
                let (since, wait) = (since_ms * MS, wait_ms * MS);
                let slept = rounded(wait, since, TICK);
                assert!(slept >= wait && slept < wait + 40 * MS, "{since:?} {wait:?} {slept:?}");
                assert_eq!((since + slept).as_nanos() % u128::from(TICK), 0);
            }
        }
    }

    /// As openraft ticks: at its first moment and whole periods after it, and those missed are passed
    /// over.
    #[test]
    fn every_group_ticks_once_a_period() {
        for phase_ms in 0..40 {
            let first = (70 + phase_ms) * MS;
            let (mut now, mut at) = (50 * MS, first);
            let mut ticks = Vec::new();
            for _ in 0..20 {
                now += rounded(at - now, now, TICK);
                ticks.push(now);
                let since = now - first;
                at = first + 20 * MS * (u32::try_from(since.as_millis() / 20).unwrap() + 1);
            }
            assert!(ticks.windows(2).all(|pair| pair[1] - pair[0] == 40 * MS), "{phase_ms}");
        }
    }

    #[test]
    fn what_is_no_tick_is_not_made_longer() {
        assert_eq!(rounded(NO_TICK, 7 * MS, TICK), NO_TICK);
        assert_eq!(rounded(40 * MS, 7 * MS, 0), 40 * MS);
        assert_eq!(rounded(Duration::ZERO, 7 * MS, TICK), Duration::ZERO);
    }
}
