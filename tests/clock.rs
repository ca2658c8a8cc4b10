//! A node whose wall clock is wrong hands its leadership over, and says so. What it orders until
//! then does not drag log time along.
//!
//! The clocks are those of libfaketime (Debian: `faketime`), which re-reads them from a file. Where
//! it is not installed, the test is skipped, loudly.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::common::cluster::{Options, TestCluster};
use crate::common::load::{self, Load};
use crate::common::{new_id, orders, wait_for};
use folkmoot::clock::{Clock, SystemClock};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);
/// For how long a node may win no election before it is helped to lead.
const LUCK: Duration = Duration::from_secs(5);

/// The clocks of a cluster's nodes.
struct Clocks {
    directory: tempfile::TempDir,
    library: String,
}

impl Clocks {
    /// Right clocks; `None` where the library is not installed.
    fn new(nodes: usize) -> Option<Clocks> {
        let places = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64"];
        let libraries = places.map(|place| format!("{place}/faketime/libfaketimeMT.so.1"));
        let Some(library) = libraries.into_iter().find(|library| Path::new(library).exists())
        else {
            crate::common::say!("SKIPPED: libfaketime is not installed (apt-get install faketime)");
            return None;
        };
        let clocks = Clocks { directory: tempfile::tempdir().unwrap(), library };
        (0..nodes).for_each(|i| clocks.set(i, "+0"));
        Some(clocks)
    }

    /// Sets a node's clock, as seconds to add to the right time.
    fn set(&self, i: usize, offset: &str) {
        let directory = self.directory.path();
        let (new, file) = (directory.join("new"), directory.join(i.to_string()));
        fs::write(&new, offset).unwrap();
        fs::rename(new, file).unwrap();
    }

    fn options(&self) -> Options {
        let file = self.directory.path().join("{node}");
        let environment = [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().unwrap().to_owned()),
            ("FAKETIME_CACHE_DURATION", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Options { environment, ..Options::default() }
    }
}

/// A cluster of three with such clocks, and rooms in it.
fn start(clocks: &Clocks) -> (TestCluster, Vec<String>) {
    let cluster = TestCluster::start_with(3, clocks.options());
    let rooms: Vec<_> = (0..12).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    (cluster, rooms)
}

/// How many groups each node leads.
fn leads(cluster: &TestCluster, node: u64) -> usize {
    let shards = cluster.shards(0);
    let led = shards.iter().filter(|replica| replica["node"] == node && replica["leader"] == node);
    led.count()
}

#[test]
fn a_node_whose_clock_is_wrong_hands_its_leadership_over() {
    let Some(clocks) = Clocks::new(3) else { return };
    let (cluster, rooms) = start(&clocks);
    let wrong = cluster.node_id(0, 1);
    // Leaders start out spread, and an election may have changed that.
    let begin = Instant::now();
    wait_for("it to lead", PATIENCE, || {
        if leads(&cluster, wrong) > 0 {
            return Ok(());
        }
        if begin.elapsed() > LUCK {
            orders::give(&cluster, &["shard", "transfer-leader", "1", &wrong.to_string()]);
        }
        Err("it does not".into())
    });
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 12);
    load.wait_more(50);
    clocks.set(1, "+120");
    wait_for("leadership to be handed over", PATIENCE, || match leads(&cluster, wrong) {
        0 => Ok(()),
        some => Err(format!("it leads {some} groups")),
    });
    wait_for("the node to say so", PATIENCE, || {
        let said = cluster.log(1).contains("leadership handed over; set the clock");
        if said { Ok(()) } else { Err("it does not".into()) }
    });
    let offset = cluster.http(1).metric("folkmoot_clock_offset_seconds");
    assert!((110.0..130.0).contains(&offset), "{offset} s");
    load.wait_more(100);
    clocks.set(1, "+0");
    wait_for("the clock to be right again", PATIENCE, || {
        let said = cluster.log(1).contains("clock agrees with the others' again");
        if said { Ok(()) } else { Err("it is not".into()) }
    });
    let acked = load.finish();
    load::check_everywhere(&cluster, &rooms, &acked);
}

#[test]
fn a_node_started_with_its_clock_ahead_does_not_drag_log_time_along() {
    let Some(clocks) = Clocks::new(3) else { return };
    let (mut cluster, rooms) = start(&clocks);
    let wrong = cluster.node_id(0, 1);
    (0..3).for_each(|i| cluster.kill(i));
    clocks.set(1, "+3600");
    // Its election timeouts run out first.
    cluster.restart(1);
    wait_for("it to have begun", PATIENCE, || {
        cluster.http(1).get("/health/live").map(drop).map_err(|error| error.to_string())
    });
    std::thread::sleep(Duration::from_millis(500));
    cluster.restart(0);
    cluster.wait_ready_node(0);
    let mut begin = Instant::now();
    wait_for("it to lead", 2 * PATIENCE, || {
        if leads(&cluster, wrong) > 0 {
            return Ok(());
        }
        // The other one has won all elections, and without a clock to go by no order moves a lead: it
        // begins once more, after this one's election timeouts.
        if begin.elapsed() > LUCK {
            cluster.kill(0);
            std::thread::sleep(Duration::from_secs(2));
            cluster.restart(0);
            cluster.wait_ready_node(0);
            begin = Instant::now();
        }
        Err("it does not".into())
    });
    // Two clocks that differ, and nobody who knows better.
    for room in &rooms[..2] {
        let body = json!({ "client_msg_id": new_id(), "text": "too early" });
        let admin = cluster.admin(0).with_timeout(PATIENCE);
        // Or there is no leader just now, who could say so.
        wait_for("the reason to be the clock", PATIENCE, || {
            let answer = admin.post(&format!("/v1/rooms/{room}/messages"), &body).unwrap();
            let error = answer.expect_error(503, "unavailable");
            let said = error["message"].as_str().unwrap();
            if said.contains("confirmed") { Ok(()) } else { Err(said.to_owned()) }
        });
    }
    cluster.restart(2);
    let (urls, token) = (cluster.client_urls(), cluster.admin_token().to_owned());
    for room in &rooms {
        let acked = load::post(&urls, &token, room, &new_id(), "in time");
        let path = format!("/v1/rooms/{room}/events?after={}", acked.seq - 1);
        let page = cluster.admin(0).get(&path).unwrap().expect(200);
        let at = page["events"][0]["at"].as_str().expect("a time").to_owned();
        let at_time = humantime::parse_rfc3339(&at).unwrap().duration_since(UNIX_EPOCH).unwrap();
        let right_ms = u128::from(SystemClock.now_ms());
        assert!(at_time.as_millis() < right_ms + 30_000, "{room} is at {at}");
    }
    wait_for("leadership to be handed over", PATIENCE, || match leads(&cluster, wrong) {
        0 => Ok(()),
        some => Err(format!("it leads {some} groups")),
    });
}
