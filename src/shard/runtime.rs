//! What the layers below `gateway` need of an async runtime, so that they also run simulated.

use std::future::Future;
use std::io;
use std::time::Duration;

pub use openraft::AsyncRuntime;
pub use openraft::async_runtime::{Instant, Select2};
pub use openraft_rt_tokio::TokioRuntime;

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
