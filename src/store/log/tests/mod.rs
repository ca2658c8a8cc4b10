//! Tests of the log as its callers see it.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

mod damage;
mod failing_reads;
mod full_disk;
mod model;

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

/// Writes and purges so much that what was in the log before is rewritten.
fn fill(log: &Log, from: u64) {
    for i in from..from + 500 {
        log.write(&[append(OTHER, i..i + 1, b'o')]).unwrap();
        log.write(&[Write::Purge { group: OTHER, upto: i, log_id: Bytes::new() }]).unwrap();
        log.maintain().unwrap();
    }
}

/// The append that overwrote them is forgotten with its file, too. It matters when no append file
/// repeats the states: a power cut after a rotation, or a rotation on a full disk, can do that.
#[test]
fn what_was_rewritten_and_overwritten_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 0..10, b'a')]).unwrap();
    fill(&log, 0);
    let rewritten = files(dir.path(), format::Queue::Rewrite).pop().unwrap();
    assert!(contains(&rewritten, &payload(9, b'a')));
    log.write(&[append(G, 5..8, b'b'), purge(7)]).unwrap();
    fill(&log, 500);
    drop(log);
    let log = open(dir.path());
    let guard = log.engine();
    let engine = opened(&guard).unwrap();
    assert!(engine.engine().span(G.0.into()).is_some(), "raft-engine has them again");
    let groups = recover::recall(engine, &dir.path().join("log")).unwrap();
    assert_eq!(groups[&G].span, None);
}

/// raft-engine forgets a compaction with its file, and entries that it had rewritten before are
/// back, below a hole, unless each file repeats it.
#[test]
fn what_was_rewritten_and_purged_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(G, 0..5, b'a')]).unwrap();
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
fn compaction_and_the_writer_do_not_block_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(dir.path()));
    let (compacted, over) = std::sync::mpsc::channel();
    let compacting = log.clone();
    std::thread::spawn(move || {
        (0..50).for_each(|_| compacting.compact_fully().unwrap());
        compacted.send(()).unwrap();
    });
    let (wrote, written) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut next = 0;
        while over.try_recv().is_err() {
            log.write(&[append(G, next..next + 1, b'a')]).unwrap();
            next += 1;
        }
        wrote.send((log, next)).unwrap();
    });
    let (log, next) = written.recv_timeout(Duration::from_secs(60)).expect("they do");
    assert_eq!(tags(&log), tagged(0..next, b'a'));
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

/// raft-engine looks an entry up and reads it in two steps; a purge may move it in between.
#[test]
fn reads_hold_while_files_move_under_them() {
    fn shared<T: Send + Sync>(_: &T) {}
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    shared(&log);
    log.write(&[append(OTHER, 0..10, b'o'), append(G, 0..1, b'a')]).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let running = || !done.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while running() {
                log.maintain().unwrap();
            }
        });
        scope.spawn(|| {
            while running() {
                assert_eq!(log.entries(OTHER, 0..10, usize::MAX).unwrap().len(), 10);
                let entries = log.entries(G, 0..u64::MAX, usize::MAX).unwrap();
                assert!(entries.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1));
            }
        });
        for i in 1..800 {
            log.write(&[append(G, i..i + 1, b'a')]).unwrap();
            if i % 20 == 0 {
                log.write(&[purge(i - 10)]).unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(span(&log), Some((771, 799)));
}
