//! A value whose changes others wait for, woken in the order in which they began to wait.
//!
//! tokio's watch wakes in an order drawn from a random number of its own, which a simulation could
//! not repeat.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

/// The sender is gone: there will be no more changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value will not change any more")]
pub struct Closed;

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    /// Counts changes; moved while `value` is locked for writing.
    version: AtomicU64,
    closed: AtomicBool,
    changed: Notify,
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().expect("no holder of the lock panics")
    }
}

/// Changes the value. Dropping it ends all waiting.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// A value nobody follows yet.
    pub fn new(value: T) -> Sender<T> {
        Sender(Arc::new(Shared {
            value: RwLock::new(value),
            version: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            changed: Notify::new(),
        }))
    }

    /// Follows the value; the present one counts as seen.
    pub fn subscribe(&self) -> Receiver<T> {
        let seen = self.0.version.load(Ordering::Acquire);
        Receiver { shared: self.0.clone(), seen }
    }

    /// The value, for a short look: a change waits meanwhile.
    pub fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    /// Sets the value and wakes who waits.
    pub fn send(&self, value: T) {
        self.send_if_modified(|present| {
            *present = value;
            true
        });
    }

    /// Lets `modify` change the value, and wakes who waits if it says that it did.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) {
        {
            let mut value = self.0.value.write().expect("no holder of the lock panics");
            if !modify(&mut value) {
                return;
            }
            self.0.version.fetch_add(1, Ordering::Release);
        }
        self.0.changed.notify_waiters();
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

/// Follows a value.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T> Receiver<T> {
    /// The value, which counts as seen.
    pub fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        let value = self.shared.read();
        self.seen = self.shared.version.load(Ordering::Acquire);
        value
    }

    /// Waits for a change since the value was last seen. Cancel safe.
    ///
    /// # Errors
    /// [`Closed`] when there will be none.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        self.until(|_, version, seen| version != seen).await
    }

    /// Waits until the value is as `wanted` says; at once if it is. Cancel safe.
    ///
    /// # Errors
    /// [`Closed`] when it never will be.
    pub async fn wait_for(&mut self, wanted: impl Fn(&T) -> bool) -> Result<(), Closed> {
        self.until(|value, _, _| wanted(value)).await
    }

    async fn until(&mut self, done: impl Fn(&T, u64, u64) -> bool) -> Result<(), Closed> {
        loop {
            // Made before the look, so that no change after it is missed.
            let changed = self.shared.changed.notified();
            let closed = self.shared.closed.load(Ordering::Acquire);
            {
                let value = self.shared.read();
                let version = self.shared.version.load(Ordering::Acquire);
                if done(&value, version, self.seen) {
                    self.seen = version;
                    return Ok(());
                }
            }
            if closed {
                return Err(Closed);
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn changes_reach_who_waits() {
        let sender = Sender::new(1);
        let mut receiver = sender.subscribe();
        assert_eq!(receiver.changed().now_or_never(), None);
        sender.send(2);
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert_eq!(receiver.changed().now_or_never(), None);
        assert_eq!(receiver.wait_for(|value| *value == 2).now_or_never(), Some(Ok(())));
        let waiting = tokio::spawn(async move { receiver.wait_for(|value| *value >= 100).await });
        for value in 3..=100 {
            sender.send(value);
            tokio::task::yield_now().await;
        }
        assert_eq!(waiting.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn what_changes_nothing_wakes_nobody() {
        let sender = Sender::new(1);
        let mut receiver = sender.subscribe();
        sender.send_if_modified(|_| false);
        assert_eq!(receiver.changed().now_or_never(), None);
        sender.send_if_modified(|value| {
            *value = 5;
            true
        });
        assert_eq!(*receiver.borrow_and_update(), 5);
        assert_eq!(receiver.changed().now_or_never(), None);
    }

    #[tokio::test]
    async fn waiting_ends_with_the_sender() {
        let sender = Sender::new(1);
        let (mut one, mut other) = (sender.subscribe(), sender.subscribe());
        let waiting = tokio::spawn(async move { one.changed().await });
        tokio::task::yield_now().await;
        sender.send(2);
        drop(sender);
        assert_eq!(waiting.await.unwrap(), Ok(()), "the last change is seen first");
        assert_eq!(other.changed().await, Ok(()));
        assert_eq!(other.changed().await, Err(Closed));
    }

    /// Those woken first began to wait first.
    #[tokio::test]
    async fn waking_keeps_the_order_of_waiting() {
        let sender = Sender::new(0);
        let order = Arc::new(std::sync::Mutex::new(vec![]));
        let mut tasks = vec![];
        for number in 0..50 {
            let (mut receiver, order) = (sender.subscribe(), order.clone());
            tasks.push(tokio::spawn(async move {
                receiver.changed().await.unwrap();
                order.lock().unwrap().push(number);
            }));
        }
        tokio::task::yield_now().await;
        sender.send(1);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
    }
}
