//! Tests of the disk itself; `log.rs` and `damage.rs` run a real log on it.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom, Write};

use folkmoot::store::base::Batch;
use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

use super::*;

mod damage;
mod life;
mod log;

/// Opens a file for writing, and creates it if it is not there.
fn writer(incarnation: &Incarnation, name: &str) -> (Arc<SimHandle>, SimWriter) {
    let handle = Arc::new(incarnation.fs.create(incarnation.directory.join(name)).unwrap());
    (handle.clone(), incarnation.fs.new_writer(handle).unwrap())
}

fn content(incarnation: &Incarnation, name: &str) -> Vec<u8> {
    let path = incarnation.directory.join(name);
    let handle = Arc::new(incarnation.fs.open(path, Permission::ReadOnly).unwrap());
    let mut bytes = Vec::new();
    incarnation.fs.new_reader(handle.clone()).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), handle.file_size().unwrap());
    bytes
}

impl Disk {
    /// Every file as it is, synced or not.
    fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let bytes = |file: &Mutex<File>| {
            let file = lock(file);
            let mut bytes = vec![0; file.len()];
            file.read(0, &mut bytes);
            bytes
        };
        let state = self.lock();
        state.files.iter().map(|(name, file)| (name.clone(), bytes(file))).collect()
    }
}

fn put(base: &dyn Base, key: &str) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.put(key.into(), vec![b'v'; 100]);
    base.write(batch)
}

fn has(base: &dyn Base, key: &str) -> bool {
    base.get(key.as_bytes()).unwrap().is_some()
}

#[test]
fn what_was_synced_stays_and_the_rest_may_not() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let disk = Disk::new(seed);
        let before = disk.boot();
        let (handle, mut writer) = writer(&before, "f");
        writer.write_all(&[b'a'; 100]).unwrap();
        handle.sync().unwrap();
        writer.write_all(&[b'b'; 1000]).unwrap();
        writer.seek(SeekFrom::Start(50)).unwrap();
        writer.write_all(b"c").unwrap();
        assert_eq!(disk.unsynced_bytes(), 1001);
        disk.crash();
        assert!(!disk.has_power());
        assert!(writer.write_all(b"d").is_err());
        let bytes = content(&disk.boot(), "f");
        assert!(disk.has_power());
        let (old, new) = bytes.split_at(100);
        assert!(old.iter().enumerate().all(|(i, b)| *b == b'a' || (i == 50 && *b == b'c')));
        assert!(new.iter().all(|b| [b'b', 0].contains(b)));
        outcomes.insert((old[50], new.iter().filter(|b| **b == b'b').count()));
    }
    assert!(outcomes.contains(&(b'a', 0)) && outcomes.contains(&(b'c', 1000)));
    assert!(outcomes.contains(&(b'c', 412)), "a later write, and an earlier one in part");
    assert!(outcomes.contains(&(b'a', 412)), "up to a sector's end");
    assert!(outcomes.len() > 20, "{outcomes:?}");
}

#[test]
fn lengths_are_lost_too_and_zeros_are_read_where_nothing_was_written() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        let disk = Disk::new(seed);
        let (handle, mut writer) = writer(&disk.boot(), "f");
        writer.allocate(0, 5000).unwrap();
        assert_eq!(handle.file_size().unwrap(), 5000);
        writer.write_all(b"abc").unwrap();
        handle.sync().unwrap();
        writer.truncate(2).unwrap();
        disk.crash();
        let bytes = content(&disk.boot(), "f");
        assert!(bytes == b"ab" || (bytes.len() == 5000 && bytes.starts_with(b"abc\0\0")));
        assert!(bytes[3.min(bytes.len())..].iter().all(|b| *b == 0));
        outcomes.insert(bytes.len());
    }
    assert_eq!(Vec::from_iter(outcomes), [2, 5000]);
}

#[test]
fn a_killed_process_leaves_what_it_wrote_and_can_do_no_more() {
    let disk = Disk::new(1);
    let before = disk.boot();
    let (handle, mut writer) = writer(&before, "f");
    writer.write_all(b"abc").unwrap();
    disk.stop_process();
    assert!(writer.write_all(b"d").is_err() && writer.truncate(0).is_err());
    assert!(before.fs.create(before.directory.join("g")).is_err());
    assert!(before.fs.delete(before.directory.join("f")).is_err());
    assert!(put(&*before.base, "k").is_err() && before.base.flush().is_err());
    handle.sync().unwrap();
    let after = disk.boot();
    assert!(disk.has_power());
    assert_eq!(content(&after, "f"), b"abc");
    assert!(writer.write_all(b"d").is_err(), "nor when another runs");
    assert!(std::fs::read_dir(&after.directory).unwrap().count() == 1);
    assert_eq!(disk.unsynced_bytes(), 3);
}

#[test]
fn names_change_at_once_and_show_in_the_directory() {
    let disk = Disk::new(1);
    let one = disk.boot();
    let (_, mut writer) = writer(&one, "a");
    writer.write_all(b"abc").unwrap();
    one.fs.rename(one.directory.join("a"), one.directory.join("b")).unwrap();
    one.fs.create(one.directory.join("c")).unwrap();
    one.fs.delete(one.directory.join("c")).unwrap();
    writer.write_all(b"def").unwrap();
    disk.stop_process();
    let two = disk.boot();
    assert_eq!(content(&two, "b"), b"abcdef");
    let names = std::fs::read_dir(&two.directory).unwrap().map(|e| e.unwrap().file_name());
    assert_eq!(Vec::from_iter(names), ["b"]);
    let missing = two.fs.open(two.directory.join("a"), Permission::ReadOnly).err().unwrap();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    disk.wipe();
    assert!(!disk.0.lock().alive);
    assert_eq!(std::fs::read_dir(disk.boot().directory).unwrap().count(), 0);
}

#[test]
fn the_base_loses_a_suffix_of_unflushed_batches() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..50 {
        let disk = Disk::new(seed);
        let base = disk.boot().base;
        put(&*base, "flushed").unwrap();
        base.flush().unwrap();
        let keys = ["1", "2", "3"];
        keys.iter().for_each(|key| put(&*base, key).unwrap());
        if seed % 2 == 0 {
            disk.crash()
        } else {
            disk.stop_process()
        }
        let base = disk.boot().base;
        assert!(has(&*base, "flushed"));
        let kept = keys.iter().take_while(|key| has(&*base, key)).count();
        assert!(keys[kept..].iter().all(|key| !has(&*base, key)));
        outcomes.insert((seed % 2, kept));
        // What a killed process left is on disk only when it is flushed.
        let unflushed = disk.0.lock().base.unflushed();
        assert_eq!(unflushed, if seed % 2 == 0 { 0 } else { kept });
    }
    assert_eq!(outcomes.len(), 8);
}

#[test]
fn a_full_disk_takes_what_fits_until_there_is_space() {
    let disk = Disk::new(1);
    let one = disk.boot();
    let (handle, mut writer) = writer(&one, "f");
    writer.allocate(0, 100).unwrap();
    disk.capacity(Some(150));
    assert_eq!(writer.allocate(100, 51).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(put(&*one.base, "k").unwrap_err().kind(), io::ErrorKind::StorageFull);
    writer.write_all(&[b'a'; 90]).unwrap();
    let error = writer.write_all(&[b'a'; 90]).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::StorageFull, "nospace".into()));
    assert_eq!(handle.file_size().unwrap(), 150);
    writer.truncate(90).unwrap();
    writer.write_all(&[b'b'; 60]).unwrap();
    assert_eq!(disk.used_bytes(), 150);
    disk.capacity(None);
    writer.write_all(&[b'b'; 60]).unwrap();
    put(&*one.base, "k").unwrap();
    assert_eq!(disk.used_bytes(), 210 + 101);
}

#[test]
fn armed_faults_strike_when_they_should_and_until_healed() {
    let disk = Disk::new(1);
    let one = disk.boot();
    let (handle, mut writer) = writer(&one, "f");
    disk.arm(DiskFault::Writes { nth: 2 });
    writer.write_all(b"a").unwrap();
    for _ in 0..2 {
        assert_eq!(writer.write_all(b"b").unwrap_err().raw_os_error(), Some(EIO));
        assert_eq!(put(&*one.base, "k").unwrap_err().raw_os_error(), Some(EIO));
    }
    disk.heal();
    handle.sync().unwrap();
    writer.write_all(b"bb").unwrap();
    disk.arm(DiskFault::Syncs { nth: 1 });
    disk.arm(DiskFault::Reads { nth: 1 });
    assert!(handle.sync().is_err() && one.base.flush().is_err() && one.base.get(b"k").is_err());
    assert_eq!(disk.unsynced_bytes(), 2);
    disk.heal();
    disk.arm(DiskFault::LyingSyncs);
    handle.sync().unwrap();
    assert_eq!(disk.unsynced_bytes(), 2);
    disk.heal();
    handle.sync().unwrap();
    assert_eq!(disk.unsynced_bytes(), 0);
}

#[test]
fn power_can_fail_in_the_middle() {
    for (at, fault) in [
        ("write", DiskFault::PowerCutAtWrite { nth: 3 }),
        ("sync", DiskFault::PowerCutAtSync { nth: 3 }),
    ] {
        let mut outcomes = BTreeSet::new();
        for seed in 0..100 {
            let disk = Disk::new(seed);
            let one = disk.boot();
            let (handle, mut writer) = writer(&one, "f");
            disk.arm(fault);
            for letter in [b"aa", b"bb"] {
                writer.write_all(letter).unwrap();
                handle.sync().unwrap();
                assert!(disk.has_power());
            }
            let failed = writer.write_all(b"cc").and_then(|()| handle.sync());
            assert!(failed.is_err() && !disk.has_power(), "{at}");
            assert!(one.base.get(b"k").is_err());
            handle.sync().unwrap();
            outcomes.insert(content(&disk.boot(), "f"));
            assert!(disk.has_power());
        }
        let expected = ["aabb", "aabbc", "aabbcc"].map(|text| text.as_bytes().to_vec());
        assert_eq!(Vec::from_iter(outcomes), expected, "{at}");
    }
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let disk = Disk::new(seed);
        let (_, mut file) = writer(&disk.boot(), "f");
        (0..20).for_each(|i| file.write_all(&[i; 300]).unwrap());
        disk.crash();
        let flipped = disk.flip_bit();
        (flipped, content(&disk.boot(), "f"))
    };
    (0..20).for_each(|seed| assert_eq!(run(seed), run(seed)));
    assert_ne!(run(1), run(2));
}
