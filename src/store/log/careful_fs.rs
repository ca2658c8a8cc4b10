//! A file system that changes nothing once reading has failed, for raft-engine while it opens.
//!
//! raft-engine's recovery takes a read that fails in the newest file of either queue for a torn end,
//! and cuts the file off where it failed to read: a moment's `EIO` would destroy what was
//! acknowledged. `scan.rs` has read the append files before, but they are read again, and the disk
//! may fail in between. So here, while opening, the first failure to read is remembered; from then
//! on nothing is created, written, cut, renamed or deleted, and whatever is tried fails with it.
//!
//! **Invariant:** [`Careful::opened`] is `Ok` only if nothing failed to be read. From then on every
//! call goes through, whatever happens: a failed read is its caller's affair again.
//!
//! Once open, a write costs one more load. Reads and syncs say why they failed, as raft-engine's own file
//! system says only in what call.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

/// A file system for one opening of a log, and for the time after it.
pub(super) struct Careful<F> {
    inner: Arc<F>,
    guard: Arc<Guard>,
    /// Files that there are. While opening, none of them is created.
    listed: BTreeSet<PathBuf>,
}

/// What all files of a [`Careful`] share.
struct Guard {
    opening: AtomicBool,
    /// The first failure to read while opening. Set, nothing is changed any more.
    failure: OnceLock<io::Error>,
}

impl Guard {
    /// Remembers a failure to read, if it is one.
    fn reading<T>(&self, result: io::Result<T>) -> io::Result<T> {
        let error = match result {
            Ok(value) => return Ok(value),
            Err(error) => named(error),
        };
        // These say what is there. raft-engine tries an interrupted call again.
        let told = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::Interrupted
        );
        if !told && self.opening.load(Ordering::Relaxed) {
            self.failure.get_or_init(|| copy(&error));
        }
        Err(error)
    }

    /// Fails if nothing may be changed any more.
    fn check(&self) -> io::Result<()> {
        match self.failure.get() {
            None => Ok(()),
            Some(error) => Err(copy(error)),
        }
    }
}

/// The system's error, if a failed call left no more than its kind.
fn named(error: io::Error) -> io::Error {
    let system = io::Error::last_os_error();
    match error.raw_os_error() {
        None if system.kind() == error.kind() => system,
        _ => error,
    }
}

fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl<F> Careful<F> {
    pub fn new(inner: Arc<F>, listed: BTreeSet<PathBuf>) -> Careful<F> {
        let guard = Guard { opening: AtomicBool::new(true), failure: OnceLock::new() };
        Careful { inner, guard: Arc::new(guard), listed }
    }

    /// Notes that a file was not looked at, though it is there: a failure to read.
    pub fn overlooked(&self, path: &Path) -> io::Result<()> {
        let why = format!("the file system failed to tell of {}", path.display());
        self.guard.reading(Err(io::Error::other(why)))
    }

    /// Ends the opening. For when nothing reads any more.
    ///
    /// # Errors
    /// The first failure to read, even if whoever met it went on; nothing was changed since, nor
    /// ever will be.
    pub fn opened(&self) -> io::Result<()> {
        self.guard.opening.store(false, Ordering::Relaxed);
        self.guard.check()
    }

    fn handle<H>(&self, inner: H) -> CarefulHandle<H> {
        CarefulHandle { inner: Arc::new(inner), guard: self.guard.clone() }
    }
}

impl<F: FileSystem> FileSystem for Careful<F> {
    type Handle = CarefulHandle<F::Handle>;
    type Reader = CarefulReader<F::Reader>;
    type Writer = CarefulWriter<F::Writer>;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Self::Handle> {
        self.guard.check()?;
        if self.guard.opening.load(Ordering::Relaxed) && self.listed.contains(path.as_ref()) {
            self.overlooked(path.as_ref())?;
        }
        Ok(self.handle(self.inner.create(path)?))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<Self::Handle> {
        Ok(self.handle(self.guard.reading(self.inner.open(path, permission))?))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.guard.check()?;
        self.inner.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.guard.check()?;
        self.inner.rename(from, to)
    }

    fn reuse<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        self.guard.check()?;
        self.inner.reuse(from, to)
    }

    fn reuse_and_open<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<Self::Handle> {
        self.guard.check()?;
        Ok(self.handle(self.inner.reuse_and_open(from, to)?))
    }

    fn delete_metadata<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.guard.check()?;
        self.inner.delete_metadata(path)
    }

    fn exists_metadata<P: AsRef<Path>>(&self, path: P) -> bool {
        self.inner.exists_metadata(path)
    }

    fn new_reader(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Reader> {
        let inner = self.guard.reading(self.inner.new_reader(handle.inner.clone()))?;
        Ok(CarefulReader { inner, guard: self.guard.clone() })
    }

    fn new_writer(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Writer> {
        let inner = self.inner.new_writer(handle.inner.clone())?;
        Ok(CarefulWriter { inner, guard: self.guard.clone() })
    }
}

/// A file of a [`Careful`].
pub(super) struct CarefulHandle<H> {
    inner: Arc<H>,
    guard: Arc<Guard>,
}

impl<H: Handle> Handle for CarefulHandle<H> {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.guard.check()?;
        self.inner.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.guard.reading(self.inner.file_size())
    }

    /// Never refused: raft-engine panics when it fails, and it changes nothing.
    fn sync(&self) -> io::Result<()> {
        self.inner.sync().map_err(named)
    }
}

/// Reads a file of a [`Careful`].
pub(super) struct CarefulReader<R> {
    inner: R,
    guard: Arc<Guard>,
}

impl<R: Read> Read for CarefulReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.guard.reading(self.inner.read(into))
    }
}

impl<R: Seek> Seek for CarefulReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.guard.reading(self.inner.seek(to))
    }
}

/// Writes a file of a [`Careful`].
pub(super) struct CarefulWriter<W> {
    inner: W,
    guard: Arc<Guard>,
}

impl<W: Write> Write for CarefulWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.guard.check()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Never refused: raft-engine panics when it fails after a failed write.
impl<W: Seek> Seek for CarefulWriter<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

impl<W: WriteExt> WriteExt for CarefulWriter<W> {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.guard.check()?;
        self.inner.truncate(offset)
    }

    fn allocate(&mut self, offset: usize, size: usize) -> io::Result<()> {
        self.guard.check()?;
        self.inner.allocate(offset, size)
    }
}
