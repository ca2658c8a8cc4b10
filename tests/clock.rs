//! A node whose wall clock is wrong hands its leadership over, and says so.
//!
//! The clocks are those of libfaketime (Debian: `faketime`), which re-reads them from a file. Where
//! it is not installed, the test is skipped, loudly.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use common::cluster::{Options, TestCluster};
use common::load::{self, Load};
use common::wait_for;

const PATIENCE: Duration = Duration::from_secs(30);

/// The library, if it is installed.
fn libfaketime() -> Option<PathBuf> {
    let directories = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
    let libraries = directories.map(|dir| PathBuf::from(dir).join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists())
}

/// How many groups each node leads.
fn leads(cluster: &TestCluster, node: u64) -> usize {
    let shards = cluster.shards(0);
    let led = shards.iter().filter(|replica| replica["node"] == node && replica["leader"] == node);
    led.count()
}

#[test]
fn a_node_whose_clock_is_wrong_hands_its_leadership_over() {
    let Some(library) = libfaketime() else {
        eprintln!("SKIPPED: libfaketime is not installed (apt-get install faketime)");
        return;
    };
    let clocks = tempfile::tempdir().unwrap();
    let set = |i: usize, offset: &str| {
        let (new, file) = (clocks.path().join("new"), clocks.path().join(i.to_string()));
        fs::write(&new, offset).unwrap();
        fs::rename(new, file).unwrap();
    };
    (0..3).for_each(|i| set(i, "+0"));
    let path = |path: PathBuf| path.to_str().unwrap().to_owned();
    let environment = [
        ("LD_PRELOAD", path(library)),
        ("FAKETIME_TIMESTAMP_FILE", path(clocks.path().join("{node}"))),
        ("FAKETIME_CACHE_DURATION", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
    let cluster = TestCluster::start_with(3, Options { environment, ..Options::default() });
    let rooms: Vec<_> = (0..12).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let wrong = cluster.node_id(0, 1);
    assert!(leads(&cluster, wrong) > 0, "leaders start out spread");
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 12);
    load.wait_more(50);
    set(1, "+120");
    wait_for("leadership to be handed over", PATIENCE, || match leads(&cluster, wrong) {
        0 => Ok(()),
        some => Err(format!("it leads {some} groups")),
    });
    wait_for("the node to say so", PATIENCE, || {
        let said = cluster.log(1).contains("leadership handed over; set the clock");
        if said { Ok(()) } else { Err("it does not".into()) }
    });
    let metrics = cluster.admin(1).get("/metrics").unwrap();
    let metrics = String::from_utf8(metrics.body).unwrap();
    let offset =
        metrics.lines().find_map(|line| line.strip_prefix("folkmoot_clock_offset_seconds "));
    let offset: f64 = offset.expect("the metric").parse().unwrap();
    assert!((110.0..130.0).contains(&offset), "{offset} s");
    load.wait_more(100);
    set(1, "+0");
    wait_for("the clock to be right again", PATIENCE, || {
        let said = cluster.log(1).contains("clock agrees with the others' again");
        if said { Ok(()) } else { Err("it is not".into()) }
    });
    let acked = load.finish();
    load::check_everywhere(&cluster, &rooms, &acked);
}
