//! The base: an ordered map of bytes on disk, under the overlay.
//!
//! [`Base`] is the seam between replicated state and the engine that keeps it. [`sled_base`] has
//! the one for real nodes, [`MemoryBase`] the one for unit tests and the simulator. Only
//! `store` calls a base, and only from threads that may block: never from a tokio worker.
//!
//! Invariants:
//! - A batch is atomic, to readers and across crashes.
//! - After a crash, the base holds a prefix of the batches that were written, with at least
//!   those before the last successful [`Base::flush`].
//! - A row (key and value) is at most [`ROW_BYTES_MAX`] long: longer sled values go to blob
//!   files, which do not survive power cuts. It is asserted in release builds.
//!
//! [`sled_base`]: crate::store::sled_base

use std::collections::BTreeMap;
use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use crate::limits::ROW_BYTES_MAX;

/// The size that batches aim at, in bytes: sled's `apply_batch` takes a lock that reads wait for.
pub const BATCH_BYTES: usize = 256 * 1024;

/// What the operator of a node can do whose base cannot be read.
pub const HOW_TO_REBUILD: &str = "Nothing acknowledged is lost while this node's log is whole: move the directory `rooms` out of \
     the data directory and start the node again; it takes the state from another replica";

/// The base is damaged.
#[derive(Debug, thiserror::Error)]
#[error("{0}. {HOW_TO_REBUILD}")]
struct Damaged(String);

/// An error that says what is damaged, and what can be done about it.
pub fn damage(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Damaged(what.into()))
}

/// Whether an error says that the base is damaged, and not that the disk or this release cannot
/// read it.
pub fn is_damage(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Damaged>())
}

/// Keys from `start` up to, but without, `end`.
pub type KeyRange = Range<Vec<u8>>;

/// The way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Reverse,
}

/// Called with the key and value of each row; says whether to go on.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Writes that become visible, and survive a crash, all or none.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    ops: Vec<Change>,
    bytes: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Writes a row.
    ///
    /// # Panics
    /// When key and value are longer than [`ROW_BYTES_MAX`] together.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        assert!(
            key.len() + value.len() <= ROW_BYTES_MAX,
            "a row of {} + {} bytes is too long for the base",
            key.len(),
            value.len()
        );
        self.bytes += key.len() + value.len();
        self.ops.push((key, Some(value)));
    }

    /// Removes a row, if there is one.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.ops.push((key, None));
    }

    /// Adds the writes of another batch, after these.
    pub fn append(&mut self, other: Batch) {
        self.bytes += other.bytes;
        self.ops.extend(other.ops);
    }

    /// Length of all keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The writes in order: key, and the value or `None` for a removal.
    pub fn into_ops(self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        self.ops
    }
}

/// An ordered map of bytes, durable once flushed.
///
/// Concurrent calls are safe. `visit` of a scan must not call the base again. A scan need not see
/// one moment: rows that others write meanwhile may show or not, each batch of them in part.
pub trait Base: Send + Sync {
    /// A row's value.
    ///
    /// # Errors
    /// When the base cannot be read.
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>>;

    /// Visits rows of a range in order, until `visit` breaks.
    ///
    /// # Errors
    /// When the base cannot be read.
    fn scan(&self, range: &KeyRange, order: Order, visit: &mut Visit<'_>) -> io::Result<()>;

    /// Applies a batch. It is visible when this returns, and durable only after [`Base::flush`].
    ///
    /// # Errors
    /// When the base cannot be written; whether the batch was applied is then unknown.
    fn write(&self, batch: Batch) -> io::Result<()>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// When that cannot be promised. It must not be tried again then (a failed fsync loses data).
    fn flush(&self) -> io::Result<()>;

    /// What the base takes on disk.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn size_bytes(&self) -> io::Result<u64>;

    /// Removes a range in batches of moderate size, *not* atomically; says how many bytes of rows
    /// that were.
    ///
    /// # Errors
    /// When the base cannot be read or written.
    fn delete_range(&self, range: &KeyRange) -> io::Result<u64> {
        let mut removed = 0;
        let mut start = range.start.clone();
        loop {
            let mut batch = Batch::new();
            let rest = start.clone()..range.end.clone();
            self.scan(&rest, Order::Forward, &mut |key, value| {
                removed += (key.len() + value.len()) as u64;
                batch.delete(key.to_vec());
                if batch.bytes() >= BATCH_BYTES / 2 {
                    start = key.to_vec();
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            let more = batch.bytes() >= BATCH_BYTES / 2;
            if !batch.is_empty() {
                self.write(batch)?;
            }
            if !more {
                return Ok(removed);
            }
        }
    }
}

impl dyn Base + '_ {
    /// The first row of a range in the given order.
    ///
    /// # Errors
    /// When the base cannot be read.
    pub fn first(&self, range: &KeyRange, order: Order) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut found = None;
        self.scan(range, order, &mut |key, value| {
            found = Some((key.to_vec(), value.to_vec()));
            ControlFlow::Break(())
        })?;
        Ok(found)
    }
}

/// A base in memory that can crash. For unit tests and the simulator.
#[derive(Debug, Default)]
pub struct MemoryBase {
    inner: Mutex<Memory>,
}

/// A row and what it was before, or is to be: `None` = absent.
type Change = (Vec<u8>, Option<Vec<u8>>);

#[derive(Debug, Default)]
struct Memory {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: u64,
    /// What each batch since the last flush has replaced, oldest batch first.
    undo: Vec<Vec<Change>>,
    /// Writes and flushes that may still succeed; `None` = any number.
    budget: Option<u64>,
    operations: u64,
}

impl Memory {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.budget {
            Some(0) => return Err(io::Error::other("the simulated disk has failed")),
            Some(left) => *left -= 1,
            None => {}
        }
        self.operations += 1;
        Ok(())
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let key_bytes = key.len() as u64;
        let old = match value {
            Some(value) => {
                self.bytes += key_bytes + value.len() as u64;
                self.rows.insert(key, value)
            }
            None => self.rows.remove(&key),
        };
        if let Some(old) = &old {
            self.bytes -= key_bytes + old.len() as u64;
        }
        old
    }

    /// Takes back all unflushed batches but the first few.
    fn undo_to(&mut self, batches: usize) {
        while self.undo.len() > batches {
            let undo = self.undo.pop().unwrap_or_default();
            for (key, old) in undo.into_iter().rev() {
                self.set(key, old);
            }
        }
    }
}

impl MemoryBase {
    /// An empty base.
    pub fn new() -> MemoryBase {
        MemoryBase::default()
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was not flushed, as a power cut may, and lets operations succeed again.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// Forgets what was not flushed, except the first `batches` batches of it.
    pub fn crash_keeping(&self, batches: usize) {
        let mut memory = self.lock();
        memory.undo_to(batches);
        memory.undo.clear();
        memory.budget = None;
    }

    /// Forgets what was not flushed, except the first `batches` batches of it, which stay unflushed:
    /// a process was killed that buffered what it wrote, but the power is on.
    pub fn stop_keeping(&self, batches: usize) {
        self.lock().undo_to(batches);
    }

    /// How many batches were not flushed.
    pub fn unflushed(&self) -> usize {
        self.lock().undo.len()
    }

    /// Length of all keys and values.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Lets `operations` more writes and flushes succeed and fails all after them; `None` = never.
    pub fn fail_after(&self, operations: Option<u64>) {
        self.lock().budget = operations;
    }

    /// How many writes and flushes have succeeded.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.lock().rows.len()
    }
}

impl Base for MemoryBase {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.lock().rows.get(key).cloned())
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: &mut Visit<'_>) -> io::Result<()> {
        if range.start >= range.end {
            return Ok(());
        }
        let memory = self.lock();
        let mut rows = memory.rows.range(range.clone());
        loop {
            let row = match order {
                Order::Forward => rows.next(),
                Order::Reverse => rows.next_back(),
            };
            match row {
                Some((key, value)) if visit(key, value).is_continue() => {}
                _ => return Ok(()),
            }
        }
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let mut memory = self.lock();
        memory.spend()?;
        let mut undo = Vec::new();
        for (key, value) in batch.into_ops() {
            let old = memory.set(key.clone(), value);
            undo.push((key, old));
        }
        memory.undo.push(undo);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut memory = self.lock();
        memory.spend()?;
        memory.undo.clear();
        Ok(())
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.lock().bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(base: &dyn Base, key: &str, value: &str) {
        let mut batch = Batch::new();
        batch.put(key.into(), value.into());
        base.write(batch).unwrap();
    }

    fn keys(base: &dyn Base, range: Range<&str>, order: Order, limit: usize) -> Vec<String> {
        let mut keys = Vec::new();
        let range = range.start.into()..range.end.into();
        base.scan(&range, order, &mut |key, _| {
            keys.push(String::from_utf8(key.to_vec()).unwrap());
            if keys.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        keys
    }

    fn check_base(base: &dyn Base) {
        for key in ["b", "a", "d", "c"] {
            put(base, key, &format!("value of {key}"));
        }
        assert_eq!(base.get(b"c").unwrap().unwrap(), b"value of c");
        assert_eq!(base.get(b"x").unwrap(), None);
        assert_eq!(keys(base, "a".."d", Order::Forward, 9), ["a", "b", "c"]);
        assert_eq!(keys(base, "b".."z", Order::Reverse, 2), ["d", "c"]);
        assert_eq!(keys(base, "c".."b", Order::Forward, 9), [""; 0]);
        assert_eq!(
            base.first(&(b"b".to_vec()..b"d".to_vec()), Order::Reverse).unwrap().unwrap().0,
            b"c"
        );
        let mut batch = Batch::new();
        batch.put(b"e".to_vec(), b"1".to_vec());
        batch.delete(b"e".to_vec());
        batch.delete(b"a".to_vec());
        base.write(batch).unwrap();
        base.flush().unwrap();
        assert_eq!(keys(base, "a".."z", Order::Forward, 9), ["b", "c", "d"]);
        assert!(base.delete_range(&(b"c".to_vec()..b"z".to_vec())).unwrap() > 0);
        assert_eq!(keys(base, "a".."z", Order::Forward, 9), ["b"]);
    }

    #[test]
    fn memory_base_keeps_the_contract() {
        check_base(&MemoryBase::new());
    }

    #[test]
    fn sled_base_keeps_the_contract_and_reopens() {
        use crate::store::sled_base::{SledBase, SledOptions};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let base = SledBase::open(&path, &SledOptions::default()).unwrap();
        check_base(&base);
        base.flush().unwrap();
        assert!(base.size_bytes().unwrap() > 0);
        drop(base);
        let base = SledBase::open(&path, &SledOptions::default()).unwrap();
        assert_eq!(keys(&base, "a".."z", Order::Forward, 9), ["b"]);
    }

    #[test]
    fn delete_range_takes_many_batches() {
        let base = MemoryBase::new();
        for i in 0..5000 {
            put(&base, &format!("{i:0100}"), "x");
        }
        let before = base.operations();
        base.delete_range(&(b"0".to_vec()..b"1".to_vec())).unwrap();
        assert!(base.operations() > before + 2);
        assert_eq!(base.rows(), 0);
        assert_eq!(base.size_bytes().unwrap(), 0);
    }

    #[test]
    fn a_crash_forgets_what_was_not_flushed() {
        let base = MemoryBase::new();
        put(&base, "a", "1");
        base.flush().unwrap();
        put(&base, "a", "2");
        put(&base, "b", "2");
        base.crash_keeping(1);
        assert_eq!(base.get(b"a").unwrap().unwrap(), b"2");
        assert_eq!(base.get(b"b").unwrap(), None);
        base.fail_after(Some(1));
        put(&base, "a", "3");
        assert!(base.flush().is_err());
        base.crash();
        assert_eq!(base.get(b"a").unwrap().unwrap(), b"2");
    }

    #[test]
    #[should_panic(expected = "too long for the base")]
    fn long_rows_are_refused() {
        Batch::new().put(vec![0; 100], vec![0; ROW_BYTES_MAX - 99]);
    }
}
