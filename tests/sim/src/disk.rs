//! A simulated disk: it belongs to one node, outlives its processes, and may lose what was not
//! synced.
//!
//! ```text
//!  driver ── crash, stop_process, arm, capacity, flip_bit, … ──► Disk ◄── boot ── a new process
//!                                                                 │
//!                            Incarnation: SimFs (raft-engine's files), SimBase (state), directory
//! ```
//!
//! What survives what:
//!
//! | | files | base |
//! |---|---|---|
//! | [`Disk::stop_process`] | all that was written, still unsynced | a prefix of the unflushed batches |
//! | [`Disk::crash`] | any part of each file's unsynced changes | a prefix of the unflushed batches |
//! | [`Disk::wipe`] | nothing | nothing |
//!
//! A part of a file's unsynced changes is a prefix whose last write is torn, or of each sector what it
//! once was. Lengths (`fallocate`, `ftruncate`) are changes, too.
//!
//! **Invariant:** a dead process changes nothing any more. Each has a generation; what belongs to
//! an older one fails. Only the sync of a dead process's file does nothing, successfully: raft-engine
//! syncs in `drop`, and panics when that fails. No harm is in it, as raft-engine writes and syncs in
//! one call, and a power cut within fails one of both.
//!
//! **Invariant:** the same seed and the same calls give the same disk, as long as calls come from
//! one thread at a time.
//!
//! # Caveats
//!
//! - Names (create, rename, delete) are durable at once: raft-engine syncs directories by `std::fs`,
//!   which cannot be seen here.
//! - raft-engine lists its directory by `std::fs`, too. So every file has an empty placeholder in a
//!   real directory, one for each incarnation; contents and sizes are only here.
//! - Other users of the directory (the lock file) are no part of the disk.

mod base;
mod fault;
mod file;
mod fs;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use folkmoot::id::NodeId;
use folkmoot::store::base::{Base, MemoryBase};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;

use crate::trace::Trace;
use base::SimBase;
pub use fault::DiskFault;
use fault::{Effect, Faults, Operation};
use file::File;
pub use fs::{SimFs, SimHandle, SimReader, SimWriter};

/// The disk of one simulated node. Clones are the same disk.
#[derive(Clone)]
pub struct Disk(Arc<Shared>);

/// What one process of the node has of its disk.
pub struct Incarnation {
    /// For `Log::open_with_file_system`.
    pub fs: Arc<SimFs>,
    /// The state base.
    pub base: Arc<dyn Base>,
    /// The log's directory; it exists, and has the files' names. Another one at each boot.
    pub directory: PathBuf,
}

struct Shared {
    /// Holds the incarnations' directories.
    root: TempDir,
    state: Mutex<State>,
}

struct State {
    rng: SmallRng,
    files: BTreeMap<String, Arc<Mutex<File>>>,
    base: Arc<MemoryBase>,
    /// Processes started so far.
    generation: u64,
    /// Whether the last of them may still use the disk.
    alive: bool,
    power: bool,
    /// `None` = without end.
    capacity: Option<u64>,
    faults: Faults,
    /// Writes to files so far.
    writes: u64,
    /// Where it is noted what is done to it, and whose disk it is.
    watched: Option<(NodeId, Arc<Trace>)>,
}

impl Disk {
    /// An empty disk. The seed decides what crashes keep.
    ///
    /// # Panics
    /// When there is no place for the placeholders.
    pub fn new(seed: u64) -> Disk {
        // Placeholders in memory are many times faster, as raft-engine syncs their directory.
        let shared_memory = Path::new("/dev/shm");
        let root = if shared_memory.is_dir() {
            tempfile::tempdir_in(shared_memory)
        } else {
            tempfile::tempdir()
        };
        Disk(Arc::new(Shared {
            root: root.expect("a temporary directory can be created"),
            state: Mutex::new(State {
                rng: SmallRng::seed_from_u64(seed),
                files: BTreeMap::new(),
                base: Arc::new(MemoryBase::new()),
                generation: 0,
                alive: false,
                power: true,
                capacity: None,
                faults: Faults::default(),
                writes: 0,
                watched: None,
            }),
        }))
    }

    /// From now on it is noted there what is done to this node's disk.
    pub fn watch(&self, node: NodeId, trace: Arc<Trace>) {
        self.lock().watched = Some((node, trace));
    }

    /// Starts a process on the disk; the one before is dead from now on. Power is back.
    ///
    /// # Panics
    /// When the placeholders cannot be created.
    pub fn boot(&self) -> Incarnation {
        let mut state = self.lock();
        if state.alive {
            state.stop();
        }
        state.alive = true;
        state.power = true;
        // Nobody can need the old names: whatever is left of that process is refused first.
        let _: io::Result<()> = std::fs::remove_dir_all(self.0.directory(state.generation));
        state.generation += 1;
        let directory = self.0.directory(state.generation);
        let placeholders = || {
            std::fs::create_dir(&directory)?;
            state.files.keys().try_for_each(|name| fs::create_placeholder(&directory.join(name)))
        };
        placeholders().expect("placeholders can be created in a temporary directory");
        let generation = state.generation;
        drop(state);
        Incarnation {
            fs: Arc::new(SimFs::new(self.0.clone(), generation)),
            base: Arc::new(SimBase::new(self.0.clone(), generation)),
            directory,
        }
    }

    /// Cuts the power: what was not synced is lost, or some of it. Armed faults stay.
    pub fn crash(&self) {
        self.lock().lose_power();
    }

    /// Kills the process (`kill -9`): what it wrote to files stays, unsynced; of the base, which
    /// buffers in its process, unflushed batches may be lost.
    pub fn stop_process(&self) {
        self.lock().stop();
    }

    /// Replaces the disk by an empty one. The process is dead.
    pub fn wipe(&self) {
        let mut state = self.lock();
        state.alive = false;
        state.files.clear();
        state.base = Arc::new(MemoryBase::new());
    }

    /// Flips a random bit in a log file, and says where. For a stopped node; `None` when no file has
    /// content.
    ///
    /// The log notices it, if it hit what counts, back to the watermark: a power cut may take that
    /// back to the last `sync_watermark`, and damage after it looks like a torn write.
    pub fn flip_bit(&self) -> Option<String> {
        let mut state = self.lock();
        let (name, file, rng) = state.pick_file(|file| file.written_bytes() > 0)?;
        let at = rng.random_range(0..lock(&file).written_bytes());
        let bit = rng.random_range(0..8);
        lock(&file).flip(at, bit);
        Some(format!("{name}: bit {bit} of byte {at}"))
    }

    /// Cuts a log file off at a random place, and says where. For a stopped node; `None` when no file
    /// has content.
    pub fn truncate_file(&self) -> Option<String> {
        let mut state = self.lock();
        let (name, file, rng) = state.pick_file(|file| file.written_bytes() > 0)?;
        let mut file = lock(&file);
        let len = rng.random_range(0..file.written_bytes());
        file.set_len(len);
        file.sync();
        Some(format!("{name}: cut from {} bytes to {len}", file.len()))
    }

    /// Cuts the last write to the log off, or some of the last ones, and says where: what is left is
    /// sound. For a stopped node whose watermark was written after that; `None` when it was not, or
    /// when the newest file has no batch.
    ///
    /// The watermark is on disk from then on, so that the log must notice, whatever happens next.
    pub fn lose_end(&self) -> Option<String> {
        let state = &mut *self.lock();
        let (name, file) = state.files.iter().rfind(|(name, _)| name.ends_with(".raftlog"))?;
        let (mut file, mut watermark) = (lock(file), lock(state.files.get("watermark")?));
        // The first write is the file's header.
        let batches = file.writes.get(1..).filter(|batches| !batches.is_empty())?;
        let last = file.last_write;
        if watermark.last_write < last {
            return None;
        }
        let end = batches[state.rng.random_range(0..batches.len())];
        let len = file.len();
        file.set_len(end);
        file.sync();
        watermark.sync();
        Some(format!("{name}: cut between batches from {len} bytes to {end}"))
    }

    /// Arms a fault, in addition to those that are.
    pub fn arm(&self, fault: DiskFault) {
        self.lock().faults.arm(fault);
    }

    /// Disarms all faults. The capacity stays, and so does a process that lost power dead.
    pub fn heal(&self) {
        self.lock().faults = Faults::default();
    }

    /// Whether the power is on. A [`DiskFault`] may cut it; then the driver kills the node, and boots
    /// it again some time.
    pub fn has_power(&self) -> bool {
        self.lock().power
    }

    /// Makes the disk so large; what goes beyond fails with "no space". `None` = without end.
    pub fn capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes that files, preallocated space included, and the base take.
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// Bytes written to files since each was last synced: what a sync has to do.
    pub fn unsynced_bytes(&self) -> u64 {
        self.lock().files.values().map(|file| lock(file).unsynced_bytes() as u64).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn directory(&self, generation: u64) -> PathBuf {
        self.root.path().join(generation.to_string())
    }
}

impl State {
    /// Takes what is done into the trace: where, and the bytes.
    fn note(&self, what: &str, at: usize, bytes: &[u8]) {
        if let Some((node, trace)) = &self.watched {
            let mut head = [0; 9];
            head[0] = node.0 as u8;
            head[1..].copy_from_slice(&(at as u64).to_le_bytes());
            trace.note(what, &head, bytes);
        }
    }

    /// Fails when the process is dead.
    fn check_alive(&self, generation: u64) -> io::Result<()> {
        match self.alive && self.generation == generation {
            true => Ok(()),
            false => Err(io::Error::other("this process of the simulated node is dead")),
        }
    }

    /// Lets an operation pass, or fails it; `Ok(true)` if the power fails during it.
    fn admit(&mut self, generation: u64, operation: Operation) -> io::Result<bool> {
        self.check_alive(generation)?;
        match self.faults.strike(operation) {
            None => Ok(false),
            Some(Effect::PowerCut) => Ok(true),
            Some(Effect::Error) => Err(io::Error::from_raw_os_error(EIO)),
        }
    }

    fn lose_power(&mut self) {
        self.alive = false;
        self.power = false;
        for file in self.files.values() {
            lock(file).crash(&mut self.rng);
        }
        let kept = self.rng.random_range(0..=self.base.unflushed());
        self.base.crash_keeping(kept);
    }

    fn stop(&mut self) {
        self.alive = false;
        let kept = self.rng.random_range(0..=self.base.unflushed());
        self.base.stop_keeping(kept);
    }

    fn used_bytes(&self) -> u64 {
        let files: u64 = self.files.values().map(|file| lock(file).len() as u64).sum();
        files + self.base.bytes()
    }

    /// How many of some additional bytes there is room for.
    fn room_for(&self, bytes: u64) -> u64 {
        match self.capacity {
            Some(capacity) if bytes > 0 => bytes.min(capacity.saturating_sub(self.used_bytes())),
            _ => bytes,
        }
    }

    /// A random file for which something holds.
    fn pick_file(
        &mut self,
        holds: impl Fn(&File) -> bool,
    ) -> Option<(String, Arc<Mutex<File>>, &mut SmallRng)> {
        let files: Vec<_> = self.files.iter().filter(|(_, file)| holds(&lock(file))).collect();
        if files.is_empty() {
            return None;
        }
        let (name, file) = files[self.rng.random_range(0..files.len())];
        Some((name.clone(), file.clone(), &mut self.rng))
    }
}

/// `EIO` of Linux, macOS and the BSDs.
const EIO: i32 = 5;

/// As raft-engine knows it: by this text, and callers by the kind.
fn no_space() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "nospace")
}

fn lost_power() -> io::Error {
    io::Error::other("the power of the simulated node failed")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic of raft-engine's leaves is whole: nothing in here panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
