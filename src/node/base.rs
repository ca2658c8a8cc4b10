//! The node's base as its shards see it: off the runtime's threads, and replaceable.
//!
//! sled blocks: on the disk, and on a lock that batches take. So each call tells tokio that this
//! thread may be gone for a while, and its other tasks go on elsewhere. `node compact` writes a
//! fresh sled and puts it in the old one's place while shards keep their handle on this one.

use std::io;
use std::path::Path;
use std::sync::{Arc, RwLock};

use crate::store::base::{Base, Batch, KeyRange, Order, Visit};

/// A base behind a lock, called where blocking is allowed.
pub(super) struct NodeBase(RwLock<Arc<dyn Base>>);

impl NodeBase {
    pub fn new(base: Arc<dyn Base>) -> Arc<NodeBase> {
        Arc::new(NodeBase(RwLock::new(base)))
    }

    /// The base that is in place now.
    pub fn current(&self) -> Arc<dyn Base> {
        self.0.read().expect("no holder of the lock panics").clone()
    }

    /// Puts what `make` returns in the old base's place; no call is under way meanwhile.
    pub fn replace(&self, make: impl FnOnce(Arc<dyn Base>) -> io::Result<Arc<dyn Base>>) {
        let mut current = self.0.write().expect("no holder of the lock panics");
        let nothing: Arc<dyn Base> = Arc::new(crate::store::base::MemoryBase::default());
        let old = std::mem::replace(&mut *current, nothing);
        match make(old) {
            Ok(new) => *current = new,
            Err(error) => {
                // Without a base nothing here can go on; the next start puts it back in place.
                tracing::error!(%error, "cannot put the compacted base in place; stopping");
                std::process::abort();
            }
        }
    }

    fn with<T: Send>(&self, call: impl FnOnce(&dyn Base) -> T + Send) -> T {
        let call = || call(&**self.0.read().expect("no holder of the lock panics"));
        match tokio::runtime::Handle::try_current() {
            Ok(_) => tokio::task::block_in_place(call),
            Err(_) => call(),
        }
    }
}

impl Base for NodeBase {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.with(|base| base.get(key))
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: &mut Visit<'_>) -> io::Result<()> {
        let base = self.current();
        match tokio::runtime::Handle::try_current() {
            Ok(_) => tokio::task::block_in_place(|| base.scan(range, order, visit)),
            Err(_) => base.scan(range, order, visit),
        }
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        self.with(|base| base.write(batch))
    }

    fn flush(&self) -> io::Result<()> {
        self.with(|base| base.flush())
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.with(|base| base.size_bytes())
    }
}

/// Bytes in the files below a directory.
pub(super) fn directory_bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => directory_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
