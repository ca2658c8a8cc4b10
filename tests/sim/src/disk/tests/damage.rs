//! Damage to what is on disk is noticed, or hits nothing that counts.

use folkmoot::store::log::OpenError;

use super::life::{Disks, Life};

/// After a power cut, the watermark may be older; so the lives here are kind.
#[test]
fn a_flipped_bit_is_noticed_or_harmless() {
    let (mut noticed, seeds) = (0, 1000);
    for seed in 0..seeds {
        let mut life = Life::new(seed, Disks::Kind);
        life.live(30).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        life.disk.stop_process();
        let flipped = life.disk.flip_bit().unwrap();
        match life.open() {
            Ok(Ok(())) => {}
            Ok(Err(OpenError::Lost { .. })) => noticed += 1,
            Ok(Err(e)) => panic!("seed {seed}, {flipped}: {e}"),
            Err(why) => panic!("seed {seed}, {flipped}: {why}"),
        }
    }
    assert!(noticed > seeds / 3, "{noticed}");
}

#[test]
fn a_file_cut_off_is_noticed_or_harmless() {
    let (mut noticed, seeds) = (0, 1000);
    for seed in 0..seeds {
        let mut life = Life::new(seed, Disks::Kind);
        life.live(30).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        life.disk.stop_process();
        let cut = life.disk.truncate_file().unwrap();
        match life.open() {
            Ok(Ok(())) => {}
            Ok(Err(OpenError::Lost { .. })) => noticed += 1,
            Ok(Err(e)) => panic!("seed {seed}, {cut}: {e}"),
            Err(why) => panic!("seed {seed}, {cut}: {why}"),
        }
    }
    assert!(noticed > seeds / 3, "{noticed}");
}
