//! Tests of the log as its callers see it.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission, WriteExt};

use super::*;

const G: ShardId = ShardId(1);
const OTHER: ShardId = ShardId(7);

fn options(dir: &Path) -> LogOptions {
    LogOptions {
        purge_threshold_bytes: 16 << 10,
        target_file_bytes: 4 << 10,
        ..LogOptions::new(dir.join("log"))
    }
}

fn open(dir: &Path) -> Log {
    Log::open(options(dir)).unwrap_or_else(|e| panic!("{e}"))
}

fn lost(dir: &Path) -> String {
    match Log::open(options(dir)) {
        Err(e @ OpenError::Lost { .. }) => e.to_string(),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("opened"),
    }
}

fn payload(index: u64, tag: u8) -> Bytes {
    Bytes::from(vec![tag; 10 + (index % 50) as usize])
}

fn append(group: ShardId, indexes: Range<u64>, tag: u8) -> Write {
    Write::Append { group, entries: indexes.map(|i| (i, payload(i, tag))).collect() }
}

fn truncate(kept: Option<u64>) -> Write {
    Write::TruncateAfter { group: G, kept }
}

fn purge(upto: u64) -> Write {
    Write::Purge { group: G, upto, log_id: Bytes::from(format!("id{upto}")) }
}

fn vote(text: &str) -> Write {
    Write::Vote { group: G, vote: Bytes::copy_from_slice(text.as_bytes()) }
}

fn span(log: &Log) -> Option<(u64, u64)> {
    let state = log.group(G);
    state.first.zip(state.last)
}

/// Index and tag of everything in the group.
fn tags(log: &Log) -> Vec<(u64, u8)> {
    let entries = log.entries(G, 0..u64::MAX, usize::MAX).unwrap();
    entries
        .iter()
        .map(|(i, bytes)| {
            assert_eq!(*bytes, payload(*i, bytes[0]));
            (*i, bytes[0])
        })
        .collect()
}

fn tagged(indexes: Range<u64>, tag: u8) -> Vec<(u64, u8)> {
    indexes.map(|i| (i, tag)).collect()
}

fn files(dir: &Path, queue: format::Queue) -> Vec<PathBuf> {
    format::list(&dir.join("log"), queue).unwrap().into_iter().map(|(_, path)| path).collect()
}

fn newest(dir: &Path) -> PathBuf {
    files(dir, format::Queue::Append).pop().unwrap()
}

/// Where each batch of a file begins, and where the last one ends.
fn batch_offsets(path: &Path) -> Vec<u64> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let number = format::file_number(name, format::Queue::Append).unwrap();
    let mut reader = format::open(&DefaultFileSystem, path, number, false).unwrap();
    let mut offsets = vec![format::FILE_HEADER_BYTES];
    while let Some(batch) = reader.batch(*offsets.last().unwrap()).unwrap() {
        offsets.push(batch.end);
    }
    offsets
}

fn flip(path: &Path, at: u64) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at as usize] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// As an unclean stop leaves it: raft-engine's own closing cuts preallocated space off.
fn crash_copy(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("log")).unwrap();
    for entry in fs::read_dir(dir.join("log")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join("log").join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn what_was_written_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    assert_eq!(log.group(G), GroupState::default());
    assert_eq!(log.entries(G, 0..9, 100).unwrap(), []);
    let written = log.write(&[append(G, 0..3, b'a'), vote("v1"), append(OTHER, 5..6, b'x')]);
    assert!(written.unwrap().bytes > 50);
    log.write(&[vote("v2")]).unwrap();
    let check = |log: &Log| {
        assert_eq!(tags(log), tagged(0..3, b'a'));
        assert_eq!(log.group(G).vote.unwrap(), "v2");
        assert_eq!(log.group(OTHER).first, Some(5));
        assert_eq!(log.groups(), [G, OTHER]);
    };
    check(&log);
    check(&open(crash_copy(dir.path()).path()));
    drop(log);
    check(&open(dir.path()));
    assert!(!is_missing(&dir.path().join("log")).unwrap());
}

#[test]
fn reads_are_bounded_by_bytes_but_return_one_entry() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 0..3000, b'a')]).unwrap();
    let read = |range, max| log.entries(G, range, max).unwrap();
    assert_eq!(read(0..3000, usize::MAX).len(), 3000);
    assert_eq!(read(2990..9999, usize::MAX).len(), 10);
    assert_eq!(read(7..3000, 0), [(7, payload(7, b'a'))]);
    assert_eq!(read(5..5, 1000), []);
    assert_eq!(read(4000..5000, 1000), []);
    for max in [1, 100, 1000, 50_000, 70_000] {
        let entries = read(0..3000, max);
        let bytes: usize = entries.iter().map(|(_, p)| p.len()).sum();
        assert!(entries.len() == 1 || bytes <= max, "{} of {max}", bytes);
        assert!(bytes + 60 + entries.len() * 16 >= max, "{} of {max}", bytes);
    }
}

#[test]
fn a_truncated_suffix_is_gone_and_stays_gone() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 0..10, b'a')]).unwrap();
    log.write(&[truncate(Some(20))]).unwrap();
    assert_eq!(span(&log), Some((0, 9)));
    log.write(&[truncate(Some(5))]).unwrap();
    assert_eq!(tags(&log), tagged(0..6, b'a'));
    drop(log);
    let log = open(dir.path());
    assert_eq!(tags(&log), tagged(0..6, b'a'));
    // A hole where the truncated entries were would bring them back.
    assert_eq!(
        log.write(&[append(G, 7..8, b'x')]).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    log.write(&[append(G, 6..8, b'b')]).unwrap();
    let expected = [tagged(0..6, b'a'), tagged(6..8, b'b')].concat();
    assert_eq!(tags(&log), expected);
    drop(log);
    let log = open(dir.path());
    assert_eq!(tags(&log), expected);
    log.write(&[truncate(None)]).unwrap();
    assert_eq!(span(&log), None);
    drop(log);
    let log = open(dir.path());
    assert_eq!(span(&log), None);
    log.write(&[append(G, 0..1, b'c')]).unwrap();
    assert_eq!(tags(&log), [(0, b'c')]);
}

#[test]
fn an_append_overwrites_from_its_first_index() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 0..10, b'a'), append(G, 4..6, b'b')]).unwrap();
    let expected = [tagged(0..4, b'a'), tagged(4..6, b'b')].concat();
    assert_eq!(tags(&log), expected);
    drop(log);
    let log = open(dir.path());
    assert_eq!(tags(&log), expected);
    log.write(&[append(G, 0..1, b'c')]).unwrap();
    drop(log);
    assert_eq!(tags(&open(dir.path())), [(0, b'c')]);
}

#[test]
fn a_purge_beyond_the_end_moves_the_log_there() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 0..10, b'a')]).unwrap();
    log.write(&[truncate(Some(5)), purge(100)]).unwrap();
    drop(log);
    let log = open(dir.path());
    assert_eq!(span(&log), None);
    assert_eq!(log.group(G).purged, Some((100, Bytes::from_static(b"id100"))));
    for at in [6, 100, 102] {
        assert!(log.write(&[append(G, at..at + 1, b'x')]).is_err(), "{at}");
    }
    log.write(&[append(G, 101..104, b'b')]).unwrap();
    assert_eq!(tags(&log), tagged(101..104, b'b'));
    assert!(log.write(&[purge(99)]).is_err());
    log.write(&[purge(101)]).unwrap();
    drop(log);
    assert_eq!(tags(&open(dir.path())), tagged(102..104, b'b'));
}

#[test]
fn a_purge_between_the_mark_and_the_old_end_keeps_the_old_end_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 0..10, b'a'), truncate(Some(4)), purge(6)]).unwrap();
    assert_eq!(span(&log), None);
    drop(log);
    let log = open(dir.path());
    assert_eq!(span(&log), None);
    log.write(&[append(G, 7..8, b'b')]).unwrap();
    assert_eq!(tags(&log), [(7, b'b')]);
    drop(log);
    assert_eq!(tags(&open(dir.path())), [(7, b'b')]);
}

#[test]
fn contradictions_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 5..8, b'a'), purge(5)]).unwrap();
    let gap = Write::Append { group: G, entries: vec![(8, Bytes::new()), (10, Bytes::new())] };
    for bad in [append(G, 9..10, b'x'), append(G, 5..6, b'x'), gap, truncate(Some(3)), purge(4)] {
        let error = log.write(&[vote("lost"), bad.clone()]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
    }
    assert_eq!(tags(&log), tagged(6..8, b'a'));
    assert_eq!(log.group(G).vote, None);
    log.write(&[append(G, 8..9, b'a')]).unwrap();
    drop(log);
    assert_eq!(tags(&open(dir.path())), tagged(6..9, b'a'));
}

/// Writes until several files exist, with purges; returns the log.
fn busy(dir: &Path) -> Log {
    let log = open(dir);
    for round in 0..60u64 {
        log.write(&[append(G, round * 10..round * 10 + 10, b'a'), vote(&format!("v{round}"))])
            .unwrap();
    }
    assert!(files(dir, format::Queue::Append).len() > 3);
    log
}

#[test]
fn maintenance_drops_files_and_keeps_what_lives() {
    let dir = tempfile::tempdir().unwrap();
    let log = busy(dir.path());
    log.write(&[append(OTHER, 0..3, b'o')]).unwrap();
    log.write(&[purge(500)]).unwrap();
    for round in 60..300u64 {
        log.write(&[append(G, round * 10..round * 10 + 10, b'a')]).unwrap();
        if round % 10 == 0 {
            let upto = log.group(G).last.unwrap() - 30;
            log.write(&[purge(upto)]).unwrap();
            log.maintain().unwrap();
        }
    }
    assert!(log.used_bytes().unwrap() < 64 << 10, "{}", log.used_bytes().unwrap());
    let check = |log: &Log| {
        assert_eq!(log.group(OTHER).last, Some(2));
        assert_eq!(log.entries(OTHER, 0..9, 999).unwrap()[1], (1, payload(1, b'o')));
        assert_eq!(log.group(G).vote.unwrap(), "v59");
        assert_eq!(tags(log).last(), Some(&(2999, b'a')));
    };
    check(&log);
    let copy = crash_copy(dir.path());
    drop(log);
    check(&open(dir.path()));
    check(&open(copy.path()));
}

#[test]
fn groups_that_hold_old_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = busy(dir.path());
    assert_eq!(log.maintain().unwrap(), [G]);
    log.write(&[purge(599)]).unwrap();
    assert_eq!(log.maintain().unwrap(), []);
}

/// raft-engine forgets a compaction with its file, and entries that it had rewritten before are
/// back, below a hole, unless each file repeats it.
#[test]
fn what_was_rewritten_and_purged_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 0..5, b'a')]).unwrap();
    let fill = |log: &Log, from: u64| {
        for i in from..from + 500 {
            log.write(&[append(OTHER, i..i + 1, b'o')]).unwrap();
            log.write(&[Write::Purge { group: OTHER, upto: i, log_id: Bytes::new() }]).unwrap();
            log.maintain().unwrap();
        }
    };
    fill(&log, 0);
    let rewritten = files(dir.path(), format::Queue::Rewrite).pop().unwrap();
    assert!(contains(&rewritten, &payload(4, b'a')));
    log.write(&[truncate(Some(3)), purge(40)]).unwrap();
    fill(&log, 500);
    drop(log);
    let log = open(dir.path());
    assert_eq!(span(&log), None);
    assert!(contains(&rewritten, &payload(4, b'a')));
    log.write(&[append(G, 41..42, b'b')]).unwrap();
    assert_eq!(tags(&log), [(41, b'b')]);
    drop(log);
    assert_eq!(tags(&open(dir.path())), [(41, b'b')]);
}

fn contains(path: &Path, needle: &[u8]) -> bool {
    fs::read(path).unwrap().windows(needle.len()).any(|window| window == needle)
}

fn grep(dir: &Path, needle: &[u8]) -> bool {
    let entries = fs::read_dir(dir.join("log")).unwrap();
    entries.map(|entry| entry.unwrap().path()).any(|path| contains(&path, needle))
}

#[test]
fn compaction_erases_what_was_purged() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(OTHER, 0..5, b'o')]).unwrap();
    for i in 0..400 {
        let secret = Write::Append { group: G, entries: vec![(i, Bytes::from_static(b"secret"))] };
        log.write(&[secret, vote("v")]).unwrap();
        log.write(&[purge(i)]).unwrap();
        log.maintain().unwrap();
    }
    log.write(&[append(G, 400..401, b'a')]).unwrap();
    let before = files(dir.path(), format::Queue::Append);
    assert!(before.len() > 4 && before.iter().all(|path| contains(path, b"secret")));
    log.compact_fully().unwrap();
    assert!(!grep(dir.path(), b"secret"));
    assert_eq!(files(dir.path(), format::Queue::Append).len(), 1);
    let check = |log: &Log| {
        assert_eq!(tags(log), [(400, b'a')]);
        assert_eq!(log.group(OTHER).last, Some(4));
        assert_eq!(log.group(G).vote.unwrap(), "v");
    };
    check(&log);
    check(&open(crash_copy(dir.path()).path()));
    log.write(&[append(G, 401..402, b'a')]).unwrap();
    log.compact_fully().unwrap();
    drop(log);
    assert_eq!(tags(&open(dir.path())), tagged(400..402, b'a'));
}

#[test]
fn compaction_removes_files_that_a_crash_left() {
    let dir = tempfile::tempdir().unwrap();
    let log = busy(dir.path());
    log.write(&[purge(599)]).unwrap();
    let stray = dir.path().join("log/0000000000009999.rewrite");
    fs::write(&stray, "secret").unwrap();
    fs::write(dir.path().join("log/0000000000009999.raftlog.reserved"), "secret").unwrap();
    log.compact_fully().unwrap();
    assert!(!grep(dir.path(), b"secret"));
}

#[test]
fn a_torn_last_batch_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 0..3, b'a'), vote("v1")]).unwrap();
    // Not acknowledged: the watermark of before.
    let mark = fs::read(dir.path().join("log/watermark")).unwrap();
    log.write(&[append(G, 3..6, b'b'), vote("v2")]).unwrap();
    drop(log);
    let path = newest(dir.path());
    let [.., start, end] = batch_offsets(&path)[..] else { panic!() };
    for cut in start..end {
        let copy = crash_copy(dir.path());
        fs::write(copy.path().join("log/watermark"), &mark).unwrap();
        let file = fs::File::options().write(true).open(newest(copy.path())).unwrap();
        file.set_len(cut).unwrap();
        if cut % 2 == 0 {
            file.set_len(end + 9999).unwrap();
        }
        let log = open(copy.path());
        assert_eq!(tags(&log), tagged(0..3, b'a'), "cut at {cut}");
        assert_eq!(log.group(G).vote.unwrap(), "v1");
        log.write(&[append(G, 3..4, b'c')]).unwrap();
        drop(log);
        assert_eq!(tags(&open(copy.path())).last(), Some(&(3, b'c')));
    }
}

#[test]
fn a_log_that_ends_before_its_watermark_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 0..3, b'a')]).unwrap();
    log.write(&[vote("v")]).unwrap();
    drop(log);
    let path = newest(dir.path());
    let [.., start, end] = batch_offsets(&path)[..] else { panic!() };
    for cut in [start, end - 1] {
        let copy = crash_copy(dir.path());
        let file = fs::File::options().write(true).open(newest(copy.path())).unwrap();
        file.set_len(cut).unwrap();
        for _ in 0..2 {
            let text = lost(copy.path());
            assert!(text.contains("ends with batch 1, but batch 2 had been written"), "{text}");
        }
        assert_eq!(fs::metadata(newest(copy.path())).unwrap().len(), cut, "nothing is truncated");
    }
    fs::remove_file(&path).unwrap();
    assert!(lost(dir.path()).contains("ends with batch 0, but batch 2"));
    assert!(is_missing(&dir.path().join("log")).unwrap());
}

#[test]
fn an_interrupted_creation_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("log")).unwrap();
    fs::write(dir.path().join("log/watermark"), [0; 100]).unwrap();
    open(dir.path()).write(&[vote("v")]).unwrap();
    assert_eq!(open(dir.path()).group(G).vote.unwrap(), "v");
}

#[test]
fn a_log_without_a_watermark_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).write(&[vote("v")]).unwrap();
    fs::write(dir.path().join("log/watermark"), [0; 8192]).unwrap();
    assert!(lost(dir.path()).contains("watermark file is damaged"));
    fs::remove_file(dir.path().join("log/watermark")).unwrap();
    assert!(lost(dir.path()).contains("no watermark file"));
}

/// Every byte of every acknowledged batch, even if the watermark is not there to tell.
#[test]
fn bit_rot_before_the_end_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[vote("v0")]).unwrap();
    let old_mark = fs::read(dir.path().join("log/watermark")).unwrap();
    log.write(&[append(G, 0..3, b'a'), vote("v1")]).unwrap();
    log.write(&[append(G, 3..6, b'b')]).unwrap();
    let copy = crash_copy(dir.path());
    drop(log);
    let offsets = batch_offsets(&newest(dir.path()));
    for at in offsets[1]..offsets[2] {
        for (dir, mark) in [(&dir, false), (&copy, true)] {
            let spoiled = crash_copy(dir.path());
            if mark {
                fs::write(spoiled.path().join("log/watermark"), &old_mark).unwrap();
            }
            flip(&newest(spoiled.path()), at);
            lost(spoiled.path());
        }
    }
    for at in [3, offsets[0] - 20] {
        let spoiled = crash_copy(copy.path());
        fs::write(spoiled.path().join("log/watermark"), &old_mark).unwrap();
        flip(&newest(spoiled.path()), at);
        lost(spoiled.path());
    }
}

#[test]
fn bit_rot_in_older_files_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    drop(busy(dir.path()));
    for (i, path) in files(dir.path(), format::Queue::Append).iter().enumerate() {
        let len = fs::metadata(path).unwrap().len();
        for at in (0..len).step_by(97) {
            let copy = crash_copy(dir.path());
            flip(&files(copy.path(), format::Queue::Append)[i], at);
            lost(copy.path());
        }
    }
}

#[test]
fn a_missing_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    drop(busy(dir.path()));
    let count = files(dir.path(), format::Queue::Append).len();
    for i in 0..count {
        let copy = crash_copy(dir.path());
        fs::remove_file(&files(copy.path(), format::Queue::Append)[i]).unwrap();
        lost(copy.path());
    }
}

#[test]
fn rewritten_entries_that_rot_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 0..20, b'a'), vote("v")]).unwrap();
    log.compact_fully().unwrap();
    drop(log);
    let path = files(dir.path(), format::Queue::Rewrite).pop().unwrap();
    let len = fs::metadata(&path).unwrap().len();
    let mut noticed = 0;
    for at in format::FILE_HEADER_BYTES..len {
        let copy = crash_copy(dir.path());
        flip(&files(copy.path(), format::Queue::Rewrite)[0], at);
        match Log::open(options(copy.path())) {
            Err(OpenError::Lost { .. }) => noticed += 1,
            Err(e) => panic!("{e}"),
            // What the append files repeat is not needed.
            Ok(log) => {
                assert_eq!(tags(&log), tagged(0..20, b'a'), "at {at}");
                assert_eq!(log.group(G).vote.unwrap(), "v");
            }
        }
    }
    assert!(noticed > 100, "{noticed}");
}

#[test]
fn a_later_release_is_not_called_damage() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let guard = log.engine();
    let mut batch = raft_engine::LogBatch::default();
    batch.put(OWN_GROUP, STAMP_KEY.to_vec(), vec![2, 1, 1]).unwrap();
    opened(&guard).unwrap().engine().write(&mut batch).unwrap();
    drop(guard);
    drop(log);
    assert!(matches!(Log::open(options(dir.path())), Err(OpenError::Newer { .. })));
}

/// Two logs of the same shape, read in turn by one thread, which raft-engine gives one cache.
#[test]
fn logs_of_one_process_do_not_mix() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let logs = [open(dirs[0].path()), open(dirs[1].path())];
    for (log, tag) in logs.iter().zip([b'a', b'b']) {
        log.write(&[append(G, 0..3, tag)]).unwrap();
    }
    for _ in 0..3 {
        assert_eq!(tags(&logs[0]), tagged(0..3, b'a'));
        assert_eq!(tags(&logs[1]), tagged(0..3, b'b'));
    }
}

/// A file system whose disk has room for so many bytes more.
struct Full(Arc<std::sync::atomic::AtomicUsize>);

struct FullWriter(<DefaultFileSystem as FileSystem>::Writer, Arc<std::sync::atomic::AtomicUsize>);

impl io::Write for FullWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        use std::sync::atomic::Ordering::SeqCst;
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
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
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

/// What the log should be, the simple way.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    vote: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    entries: std::collections::BTreeMap<u64, Bytes>,
}

#[derive(Debug, Clone)]
enum Step {
    /// Several writes in one batch: what, where (scaled), how many.
    Batch(Vec<(u8, u8, u8)>),
    Reopen,
    Crash,
    Maintain,
    Compact,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let batch = proptest::collection::vec((0..4u8, any::<u8>(), 1..30u8), 1..4);
    let step = prop_oneof![
        30 => batch.prop_map(Step::Batch),
        2 => Just(Step::Reopen),
        2 => Just(Step::Crash),
        5 => Just(Step::Maintain),
        1 => Just(Step::Compact),
    ];
    proptest::collection::vec(step, 1..80)
}

impl Model {
    /// A write that is possible in this state, and its effect.
    fn step(&mut self, (what, place, count): (u8, u8, u8), tag: u8) -> Write {
        let first = self.entries.keys().next().copied();
        let base = self.purged.as_ref().map_or(0, |(purged, _)| purged + 1);
        let next = self.entries.keys().next_back().map_or(base, |last| last + 1);
        let within = |low: u64, high: u64| low + (high - low) * u64::from(place) / 255;
        match what {
            0 | 1 => {
                // Mostly at the end, as Raft does.
                let from = if place < 200 { next } else { within(first.unwrap_or(next), next) };
                self.entries.retain(|index, _| *index < from);
                let to = from + u64::from(count);
                self.entries.extend((from..to).map(|i| (i, payload(i, tag))));
                append(G, from..to, tag)
            }
            2 if place % 2 == 0 => {
                let kept = within(base, next).checked_sub(1);
                self.entries.retain(|index, _| Some(*index) <= kept);
                truncate(kept)
            }
            2 => {
                self.vote = Some(Bytes::from(vec![tag, place]));
                Write::Vote { group: G, vote: Bytes::from(vec![tag, place]) }
            }
            _ => {
                let upto = within(base.saturating_sub(1), next + if place > 230 { 50 } else { 0 });
                self.entries.retain(|index, _| *index > upto);
                self.purged = Some((upto, Bytes::from(format!("id{upto}"))));
                purge(upto)
            }
        }
    }

    fn check(&self, log: &Log) {
        let state = log.group(G);
        assert_eq!(state.vote, self.vote);
        assert_eq!(state.purged, self.purged);
        assert_eq!(state.first, self.entries.keys().next().copied());
        assert_eq!(state.last, self.entries.keys().next_back().copied());
        let entries: Vec<_> = self.entries.clone().into_iter().collect();
        assert_eq!(log.entries(G, 0..u64::MAX, usize::MAX).unwrap(), entries);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn the_log_is_its_model(steps in steps()) {
        let mut dir = tempfile::tempdir().unwrap();
        let mut log = Some(open(dir.path()));
        let mut model = Model::default();
        for (tag, step) in steps.into_iter().enumerate() {
            let tag = tag as u8;
            let open_log = log.as_ref().unwrap();
            match step {
                Step::Batch(batch) => {
                    let writes: Vec<_> = batch.into_iter().map(|b| model.step(b, tag)).collect();
                    open_log.write(&writes).unwrap();
                }
                Step::Maintain => drop(open_log.maintain().unwrap()),
                Step::Compact => open_log.compact_fully().unwrap(),
                Step::Reopen => {
                    log = None;
                    log.replace(open(dir.path()));
                }
                Step::Crash => {
                    let copy = crash_copy(dir.path());
                    log = None;
                    dir = copy;
                    log.replace(open(dir.path()));
                }
            }
            model.check(log.as_ref().unwrap());
        }
    }
}
