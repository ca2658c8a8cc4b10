//! The state base of a simulated disk, for one process of the node: a [`MemoryBase`] with the disk's
//! faults.
//!
//! [`MemoryBase`]: folkmoot::store::base::MemoryBase

use std::io;
use std::sync::Arc;

use folkmoot::store::base::{Base, Batch, KeyRange, MemoryBase, Order, Visit};

use super::fault::Operation;
use super::{Shared, lost_power, no_space};

pub(super) struct SimBase {
    disk: Arc<Shared>,
    generation: u64,
}

impl SimBase {
    pub fn new(disk: Arc<Shared>, generation: u64) -> SimBase {
        SimBase { disk, generation }
    }

    /// The rows, if they may be read.
    fn read(&self) -> io::Result<Arc<MemoryBase>> {
        let mut state = self.disk.lock();
        if state.admit(self.generation, Operation::Read)? {
            state.lose_power();
            return Err(lost_power());
        }
        Ok(state.base.clone())
    }
}

impl Base for SimBase {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.read()?.get(key)
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: &mut Visit<'_>) -> io::Result<()> {
        self.read()?.scan(range, order, visit)
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        let mut state = self.disk.lock();
        let power_cut = state.admit(self.generation, Operation::Write)?;
        let bytes = batch.bytes() as u64;
        if state.room_for(bytes) < bytes {
            return Err(no_space());
        }
        state.note("base", bytes as usize, &[]);
        state.base.write(batch)?;
        if power_cut {
            state.lose_power();
            return Err(lost_power());
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.disk.lock();
        if state.admit(self.generation, Operation::Sync)? {
            state.lose_power();
            return Err(lost_power());
        }
        state.note("flush", 0, &[]);
        state.base.flush()
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.disk.lock().check_alive(self.generation)?;
        self.read()?.size_bytes()
    }
}
