//! Damage to what is on disk is noticed, or hits nothing that counts.

use std::ops::Range;
use std::path::Path;

use folkmoot::store::log::{Log, OpenError};

use super::Disk;
use super::life::{Disks, Life, options};

#[test]
fn a_flipped_bit_is_noticed_or_harmless() {
    is_noticed_or_harmless(0..500, Disk::flip_bit);
}

#[test]
fn a_file_cut_off_is_noticed_or_harmless() {
    is_noticed_or_harmless(0..500, Disk::truncate_file);
}

/// raft-engine passes over a file of which the system only says that it is there; it would then begin
/// that file anew, or take what is in it for lost.
#[cfg(unix)]
#[test]
fn a_file_that_fails_to_be_looked_at_is_not_passed_over() {
    let mut files = 0;
    for seed in 0..40 {
        let mut life = Life::new(seed, Disks::Kind);
        life.live(40).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        for name in log_files(&life.disk.boot().directory) {
            let incarnation = life.disk.boot();
            let path = incarnation.directory.join(&name);
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("nowhere", &path).unwrap();
            let opened = Log::open_with_file_system(options(incarnation.directory), incarnation.fs);
            match opened {
                Err(OpenError::Io { source, .. }) => {
                    // Of those before a gap, raft-engine tells nothing, either.
                    assert!(source.to_string().contains("failed to tell of"), "{source}");
                }
                Err(e) => panic!("seed {seed}, {name}: {e}"),
                Ok(_) => panic!("seed {seed}, {name}: it was not missed"),
            }
            life.disk.stop_process();
            let again = life.open().unwrap_or_else(|why| panic!("seed {seed}, {name}: {why}"));
            again.unwrap_or_else(|e| panic!("seed {seed}, {name}: {e}"));
            files += 1;
        }
    }
    assert!(files > 80, "{files}");
}

#[cfg(unix)]
fn log_files(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    let mut files: Vec<_> =
        names.filter(|name| name.ends_with(".raftlog") || name.ends_with(".rewrite")).collect();
    files.sort();
    files
}

/// What is left of the log is sound: only the watermark tells that something is missing.
#[test]
fn a_log_that_lost_its_end_is_refused() {
    let mut lost = 0;
    for seed in 0..200 {
        let mut life = Life::new(seed, Disks::Kind);
        life.live(30).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        life.disk.stop_process();
        let Some(what) = life.disk.lose_end() else { continue };
        // The watermark must not depend on luck.
        life.disk.crash();
        match life.open() {
            Ok(Err(OpenError::Lost { why, .. })) => {
                assert!(why.contains("had been written"), "seed {seed}, {what}: {why}");
            }
            other => panic!("seed {seed}, {what}: {other:?}"),
        }
        lost += 1;
    }
    assert!(lost > 100, "{lost}");
}

/// `FROM=0 TO=100000 cargo test --release -p folkmoot-sim -- --ignored more_damage`
#[test]
#[ignore = "as long as one likes"]
fn more_damage() {
    let seed = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    is_noticed_or_harmless(seed("FROM")..seed("TO"), Disk::flip_bit);
    is_noticed_or_harmless(seed("FROM")..seed("TO"), Disk::truncate_file);
}

/// After a power cut, the watermark may be older; so the lives here are kind.
fn is_noticed_or_harmless(seeds: Range<u64>, damage: impl Fn(&Disk) -> Option<String>) {
    let (mut noticed, lives) = (0, seeds.end - seeds.start);
    for seed in seeds {
        let mut life = Life::new(seed, Disks::Kind);
        life.live(30).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        life.disk.stop_process();
        let damage = damage(&life.disk).unwrap();
        match life.open() {
            Ok(Ok(())) => {}
            Ok(Err(OpenError::Lost { .. })) => noticed += 1,
            Ok(Err(e)) => panic!("seed {seed}, {damage}: {e}"),
            Err(why) => panic!("seed {seed}, {damage}: {why}"),
        }
    }
    assert!(noticed > lives / 3, "{noticed}");
}
