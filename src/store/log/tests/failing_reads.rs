//! A disk that fails to read, for a moment or for good, in the middle of anything.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use raft_engine::env::{Handle, Permission};

use super::*;

const EIO: i32 = 5;

type Inner = DefaultFileSystem;

/// Fails to read from some point on.
#[derive(Clone)]
struct Failing(Arc<Fault>);

struct Fault {
    /// What is opened, measured or read until it fails.
    left: AtomicUsize,
    /// How often it fails.
    times: AtomicUsize,
}

struct FailingHandle(Arc<<Inner as FileSystem>::Handle>, Failing);

struct FailingReader(<Inner as FileSystem>::Reader, Failing);

impl Failing {
    fn new(left: usize, times: usize) -> Failing {
        Failing(Arc::new(Fault { left: left.into(), times: times.into() }))
    }

    fn strike(&self) -> io::Result<()> {
        let less = |count: usize| count.checked_sub(1);
        let waits = self.0.left.fetch_update(SeqCst, SeqCst, less).is_ok();
        if waits || self.0.times.fetch_update(SeqCst, SeqCst, less).is_err() {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(EIO))
    }
}

impl Handle for FailingHandle {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.0.truncate(offset)
    }
    fn file_size(&self) -> io::Result<usize> {
        self.1.strike()?;
        self.0.file_size()
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

impl Read for FailingReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.1.strike()?;
        self.0.read(into)
    }
}

impl Seek for FailingReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl FileSystem for Failing {
    type Handle = FailingHandle;
    type Reader = FailingReader;
    type Writer = <Inner as FileSystem>::Writer;
    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Self::Handle> {
        Ok(FailingHandle(Arc::new(DefaultFileSystem.create(path)?), self.clone()))
    }
    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<Self::Handle> {
        self.strike()?;
        Ok(FailingHandle(Arc::new(DefaultFileSystem.open(path, permission)?), self.clone()))
    }
    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }
    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }
    fn new_reader(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Reader> {
        Ok(FailingReader(DefaultFileSystem.new_reader(handle.0.clone())?, self.clone()))
    }
    fn new_writer(&self, handle: Arc<Self::Handle>) -> io::Result<Self::Writer> {
        DefaultFileSystem.new_writer(handle.0.clone())
    }
}

/// What is in the directory, but for the files that raft-engine recycles, and deletes when it opens.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir.join("log")).unwrap().map(|entry| entry.unwrap().path());
    let kept = paths.filter(|path| !format::is_reserved(path.to_str().unwrap()));
    kept.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// With one thread, each step of opening comes at its turn.
fn in_turn(dir: &Path) -> LogOptions {
    LogOptions { recovery_threads: 1, ..options(dir) }
}

/// Has each step of opening a log fail in turn, so many times.
fn fail_everywhere(dir: &Path, times: usize, closed: bool, check: impl Fn(&Log)) {
    for step in 0.. {
        let copy = crash_copy(dir);
        let before = contents(copy.path());
        let failing = Failing::new(step, times);
        match Log::open_with_file_system(in_turn(copy.path()), Arc::new(failing.clone())) {
            Ok(_) => {
                assert_eq!(failing.0.times.load(SeqCst), times, "step {step} failed, unnoticed");
                assert!(step > 10, "{step} steps");
                return;
            }
            Err(e @ OpenError::Io { .. }) => {
                let text = e.to_string();
                assert!(text.contains("Input/output error"), "step {step}: {text}");
                assert!(text.contains(copy.path().to_str().unwrap()), "step {step}: {text}");
                assert!(text.contains("mend the cause, and start again"), "step {step}: {text}");
            }
            Err(e) => panic!("step {step}: {e}"),
        }
        // Else a torn end was there, and may be cut off before anything fails.
        if closed {
            let after = contents(copy.path());
            let changed: Vec<_> =
                before.keys().filter(|p| after.get(*p) != before.get(*p)).collect();
            assert!(after == before, "step {step} changed {changed:?}");
        }
        check(&open(copy.path()));
    }
}

/// What `careful_fs.rs` is for.
#[test]
fn raft_engine_alone_destroys_what_it_fails_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 0..3, b'a')]).unwrap();
    log.write(&[append(G, 3..6, b'b')]).unwrap();
    drop(log);
    let destroys = |step| {
        let copy = crash_copy(dir.path());
        let before = contents(copy.path());
        let failing = Arc::new(Failing::new(step, 1));
        let config = engine::config(&in_turn(copy.path())).unwrap();
        drop(raft_engine::Engine::open_with_file_system(config, failing));
        contents(copy.path()) != before
    };
    assert!((0..20).any(destroys));
    fail_everywhere(dir.path(), 1, true, |log| assert_eq!(tags(log).len(), 6));
}

#[test]
fn a_log_that_fails_to_be_read_is_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(OTHER, 0..20, b'o'), vote("v")]).unwrap();
    for i in 0..100 {
        log.write(&[append(G, i * 10..i * 10 + 10, b'a'), purge(i * 10)]).unwrap();
        log.maintain().unwrap();
    }
    let check = |log: &Log| {
        assert_eq!(tags(log), tagged(991..1000, b'a'));
        assert_eq!(log.entries(OTHER, 0..20, 9999).unwrap().len(), 20);
        assert_eq!(log.group(G).vote.unwrap(), "v");
    };
    for queue in [format::Queue::Append, format::Queue::Rewrite] {
        assert!(!files(dir.path(), queue).is_empty());
    }
    for times in [1, usize::MAX] {
        fail_everywhere(crash_copy(dir.path()).path(), times, false, check);
    }
    drop(log);
    for times in [1, usize::MAX] {
        fail_everywhere(dir.path(), times, true, check);
    }
}

#[test]
fn a_failed_read_of_an_open_log_hinders_no_write() {
    let dir = tempfile::tempdir().unwrap();
    let failing = Failing::new(usize::MAX, usize::MAX);
    let log = Log::open_with_file_system(options(dir.path()), Arc::new(failing.clone()))
        .unwrap_or_else(|e| panic!("{e}"));
    log.write(&[append(G, 0..300, b'a')]).unwrap();
    log.write(&[append(G, 300..600, b'b')]).unwrap();
    failing.0.left.store(0, SeqCst);
    assert_eq!(log.entries(G, 0..600, usize::MAX).unwrap_err().raw_os_error(), Some(EIO));
    failing.0.left.store(usize::MAX, SeqCst);
    for i in 60..90 {
        log.write(&[append(G, i * 10..i * 10 + 10, b'c')]).unwrap();
    }
    assert_eq!(tags(&log).len(), 900);
    drop(log);
    assert_eq!(tags(&open(dir.path())).len(), 900);
}
