//! A disk without space, and then with.

use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;

/// A file system whose disk has room for so many bytes more.
struct Full(Arc<AtomicUsize>);

struct FullWriter(<DefaultFileSystem as FileSystem>::Writer, Arc<AtomicUsize>);

impl io::Write for FullWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.1.load(SeqCst);
        if room == 0 {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "nospace"));
        }
        let written = self.0.write(&bytes[..bytes.len().min(room)])?;
        self.1.fetch_sub(written, SeqCst);
        Ok(written)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl io::Seek for FullWriter {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl WriteExt for FullWriter {
    fn truncate(&mut self, offset: usize) -> io::Result<()> {
        self.0.truncate(offset)
    }
    fn allocate(&mut self, _: usize, _: usize) -> io::Result<()> {
        Ok(())
    }
}

impl FileSystem for Full {
    type Handle = <DefaultFileSystem as FileSystem>::Handle;
    type Reader = <DefaultFileSystem as FileSystem>::Reader;
    type Writer = FullWriter;
    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Self::Handle> {
        DefaultFileSystem.create(path)
    }
    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<Self::Handle> {
        DefaultFileSystem.open(path, permission)
    }
    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }
    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }
    fn new_reader(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Reader> {
        DefaultFileSystem.new_reader(handle)
    }
    fn new_writer(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Writer> {
        assert!(handle.file_size().is_ok());
        Ok(FullWriter(DefaultFileSystem.new_writer(handle)?, self.0.clone()))
    }
}

#[test]
fn a_write_on_a_full_disk_can_be_tried_again() {
    for room in [0, 1, 100, 300] {
        let dir = tempfile::tempdir().unwrap();
        let space = Arc::new(AtomicUsize::new(usize::MAX));
        let fs = Arc::new(Full(space.clone()));
        let log =
            Log::open_with_file_system(options(dir.path()), fs).unwrap_or_else(|e| panic!("{e}"));
        log.write(&[append(G, 0..3, b'a'), vote("v")]).unwrap();
        space.store(room, SeqCst);
        let write = [append(G, 3..20, b'b')];
        for _ in 0..3 {
            assert!(is_no_space(&log.write(&write).unwrap_err()));
        }
        assert_eq!(tags(&log), tagged(0..3, b'a'));
        let crashed = crash_copy(dir.path());
        assert_eq!(tags(&open(crashed.path())), tagged(0..3, b'a'));
        space.store(usize::MAX, SeqCst);
        log.write(&write).unwrap();
        let check = |log: &Log| {
            assert_eq!(tags(log), [tagged(0..3, b'a'), tagged(3..20, b'b')].concat());
            assert_eq!(log.group(G).vote.unwrap(), "v");
        };
        check(&log);
        check(&open(crash_copy(dir.path()).path()));
        drop(log);
        check(&open(dir.path()));
    }
}
