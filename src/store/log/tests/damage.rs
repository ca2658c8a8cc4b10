//! Damage of every kind: what a power cut does is mended, anything else is noticed.

use raft_engine::env::DefaultFileSystem;

use super::super::state::{OWN_GROUP, STAMP_KEY};
use super::*;

fn lost(dir: &Path) -> String {
    match Log::open(options(dir)) {
        Err(e @ OpenError::Lost { .. }) => e.to_string(),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("opened"),
    }
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

/// Else raft-engine's word would count, and it does not know what it has lost.
#[test]
fn the_files_that_maintenance_leaves_tell_what_the_log_holds() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    for i in 0..300 {
        log.write(&[append(G, i * 10..i * 10 + 10, b'a'), purge(i * 10 + 9)]).unwrap();
        log.maintain().unwrap();
        let found = scan::scan(&dir.path().join("log"), &DefaultFileSystem).unwrap();
        assert!(found.groups.is_some(), "after batch {i}");
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

/// raft-engine takes preallocated space in any file but the newest for damage.
#[test]
fn a_rewrite_file_that_found_no_room_for_its_header_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.write(&[append(OTHER, 0..3, b'o')]).unwrap();
    for i in 0..200 {
        log.write(&[append(G, i * 10..i * 10 + 10, b'a'), purge(i * 10)]).unwrap();
        log.maintain().unwrap();
    }
    let rewritten = |dir: &Path| files(dir, format::Queue::Rewrite).pop().unwrap();
    let len = fs::metadata(rewritten(dir.path())).unwrap().len();
    assert_eq!(len, options(dir.path()).target_file_bytes, "it has preallocated space");
    for begun in [0, 40] {
        let copy = crash_copy(dir.path());
        let header = fs::read(rewritten(copy.path())).unwrap()[..begun].to_vec();
        fs::write(copy.path().join("log/0000000000000002.rewrite"), header).unwrap();
        let opened = open(copy.path());
        assert_eq!(opened.entries(OTHER, 0..3, 99).unwrap()[2], (2, payload(2, b'o')));
        assert_eq!(span(&opened), Some((1991, 1999)));
    }
    drop(log);
    flip(&rewritten(dir.path()), 3);
    assert!(lost(dir.path()).contains("has no header"));
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
