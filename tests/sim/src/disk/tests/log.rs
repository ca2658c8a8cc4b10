//! A real log keeps what it acknowledged, whatever the disk does short of lying.

use super::life::{Disks, Life};

#[test]
fn what_was_acknowledged_survives_every_life() {
    for seed in 0..1000 {
        if let Err(why) = Life::new(seed, Disks::Rough).live(60) {
            panic!("seed {seed}: {why}");
        }
    }
}

/// raft-engine, with one thread to recover, depends on no timing.
#[test]
fn a_life_can_be_lived_again() {
    for seed in 0..50 {
        let live = || {
            let mut life = Life::new(seed, Disks::Rough);
            life.live(60).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            life.disk.contents()
        };
        assert!(live() == live(), "seed {seed}");
    }
}

/// Else the first test would prove nothing.
#[test]
fn lying_syncs_are_found_out() {
    let found = (0..100).filter(|seed| Life::new(*seed, Disks::Lying).live(60).is_err()).count();
    assert!(found > 50, "{found}");
}

/// `FROM=0 TO=100000 cargo test --release -p folkmoot-sim -- --ignored more_lives`
#[test]
#[ignore = "as long as one likes"]
fn more_lives() {
    let seed = |name| std::env::var(name).unwrap().parse::<u64>().unwrap();
    for seed in seed("FROM")..seed("TO") {
        if let Err(why) = Life::new(seed, Disks::Rough).live(100) {
            panic!("seed {seed}: {why}");
        }
    }
}
