//! Damage to what is on disk is noticed, or hits nothing that counts.

use std::ops::Range;

use folkmoot::store::log::OpenError;

use super::Disk;
use super::life::{Disks, Life};

#[test]
fn a_flipped_bit_is_noticed_or_harmless() {
    is_noticed_or_harmless(0..500, Disk::flip_bit);
}

#[test]
fn a_file_cut_off_is_noticed_or_harmless() {
    is_noticed_or_harmless(0..500, Disk::truncate_file);
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
