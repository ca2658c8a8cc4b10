//! A power cut takes nothing that was acknowledged: not from the state in sled, not from the Raft log.
//!
//! A child process writes to both on a file system of its own and notes elsewhere what was
//! acknowledged. Then the file system is cut off as if the power went, the child is killed, the file
//! system is mounted anew, and both stores must hold exactly the acknowledged operations, or one
//! more: the one under way. So it goes on with the same stores, cut after cut.
//!
//! That the cut is one is shown by stores that skip their sync: those must fail.
//!
//! Needs root, ext4 and a loop device; says so aloud where they are missing.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;
mod disk;
mod log_store;
mod random;
mod sled_store;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use disk::{Disk, Power};
use random::Random;

/// Cuts of one pair of stores.
const CUTS: u64 = 20;
/// Cuts in which a store that does not sync must show it once.
const CUTS_OF_BAD_STORES: u64 = 5;
/// How the child knows that it is one, and what to do.
const CHILD: &str = "FOLKMOOT_POWER_CUT_CHILD";

/// A store under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Sled,
    Log,
}

impl Store {
    const ALL: [Store; 2] = [Store::Sled, Store::Log];

    fn name(self) -> &'static str {
        match self {
            Store::Sled => "sled",
            Store::Log => "log",
        }
    }

    fn write(self, mount: &Path, seed: u64, sync: bool, acknowledge: impl FnMut(u64)) {
        match self {
            Store::Sled => sled_store::write(&mount.join("sled"), seed, sync, acknowledge),
            Store::Log => log_store::write(&mount.join("log"), seed, sync, acknowledge),
        }
    }

    /// Checks that exactly the first operations are there, and returns how many.
    fn check(self, mount: &Path, seed: u64) -> Result<u64, String> {
        let check = || match self {
            Store::Sled => sled_store::check(&mount.join("sled"), seed),
            Store::Log => log_store::check(&mount.join("log"), seed),
        };
        // sled panics on some of what it cannot read.
        catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|_| Err("panicked".into()))
    }
}

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    let Some(mut disk) = disk() else { return };
    let seed = seed();
    let mut random = Random::new(seed);
    let (mut highest, started) = ([0; 2], Instant::now());
    for cut in 1..=CUTS {
        let acknowledged = write_until_cut(&mut disk, &Store::ALL, seed, true, &mut random);
        for (i, store) in Store::ALL.into_iter().enumerate() {
            let highest = &mut highest[i];
            *highest = (*highest).max(acknowledged[i]);
            let found = store.check(disk.mount(), seed);
            let acceptable = Ok(*highest)..=Ok(*highest + 1);
            assert!(
                acceptable.contains(&found),
                "{store:?} after cut {cut}: {highest} operations were acknowledged, found {found:?} \
                 (FOLKMOOT_SEED={seed})"
            );
        }
    }
    common::say!("{CUTS} power cuts, {highest:?} operations, {:?}", started.elapsed());
}

#[test]
fn a_store_that_does_not_sync_loses_data() {
    for store in Store::ALL {
        let mut random = Random::new(seed());
        let noticed = (1..=CUTS_OF_BAD_STORES).find(|cut| {
            let Some(mut disk) = disk() else { return true };
            let seed = seed() + cut;
            let acknowledged = write_until_cut(&mut disk, &[store], seed, false, &mut random)[0];
            let found = store.check(disk.mount(), seed);
            found.is_err() || found < Ok(acknowledged)
        });
        assert!(noticed.is_some(), "{store:?} without a sync survived {CUTS_OF_BAD_STORES} cuts");
    }
}

/// Not a test: what the child process runs.
#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let mut words = task.split(' ');
    let (seed, sync, mount) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let (seed, sync, mount) = (seed.parse().unwrap(), sync == "true", PathBuf::from(mount));
    let words: Vec<_> = words.collect();
    std::thread::scope(|scope| {
        for pair in words.chunks(2) {
            let store = Store::ALL.into_iter().find(|store| store.name() == pair[0]).unwrap();
            let path = Path::new(pair[1]);
            let mut acks = std::fs::File::options().append(true).create(true).open(path).unwrap();
            let (mount, power) = (&mount, Power::of(&mount).unwrap());
            scope.spawn(move || {
                store.write(mount, seed, sync, |operation| {
                    if power.is_on() {
                        acks.write_all(&operation.to_le_bytes()).unwrap();
                    }
                });
            });
        }
    });
}

/// Lets a child write to the stores until the power goes, and mounts the disk again. Returns the
/// last operation acknowledged by each.
fn write_until_cut(
    disk: &mut Disk,
    stores: &[Store],
    seed: u64,
    sync: bool,
    random: &mut Random,
) -> Vec<u64> {
    let acks: Vec<_> = stores.iter().map(|store| disk.beside(store.name())).collect();
    let before: Vec<_> = acks.iter().map(|path| last(path)).collect();
    let mut child = spawn(disk, stores, &acks, seed, sync);
    let deadline = Instant::now() + Duration::from_secs(60);
    while acks.iter().zip(&before).any(|(path, before)| last(path) <= *before) {
        assert!(Instant::now() < deadline, "the child acknowledges nothing");
        assert!(child.try_wait().unwrap().is_none(), "the child stopped by itself");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(random.below(800)));
    disk.cut();
    child.kill().unwrap();
    child.wait().unwrap();
    let acknowledged = acks.iter().map(|path| last(path)).collect();
    disk.mount_again();
    acknowledged
}

fn spawn(disk: &Disk, stores: &[Store], acks: &[PathBuf], seed: u64, sync: bool) -> Child {
    let mut task = format!("{seed} {sync} {}", disk.mount().display());
    for (store, path) in stores.iter().zip(acks) {
        task.push_str(&format!(" {} {}", store.name(), path.display()));
    }
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(CHILD, task)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // Once cut off, every call fails, and the child panics until it is killed.
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The last operation in a file of acknowledgements; 0 when there is none.
fn last(acks: &Path) -> u64 {
    let bytes = std::fs::read(acks).unwrap_or_default();
    let whole = bytes.as_chunks().0;
    whole.last().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn disk() -> Option<Disk> {
    match Disk::new() {
        Ok(disk) => Some(disk),
        Err(why) => {
            common::say!("SKIPPED: power cuts cannot be simulated here: {why}");
            None
        }
    }
}

fn seed() -> u64 {
    std::env::var("FOLKMOOT_SEED").map_or(1, |seed| seed.parse().unwrap())
}
