//! A node whose disk was put back to an earlier state has lost what it acknowledged since: it
//! stops, says so, and does not come back under its id. The others go on.

use std::fs;
use std::path::Path;

use crate::common::cluster::TestCluster;
use crate::common::load::{self, Load};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_node_whose_log_was_put_back_stops_and_stays_out() {
    let mut cluster = TestCluster::start(3);
    let rooms: Vec<_> = (0..12).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 12);
    load.wait_more(100);
    cluster.kill(2);
    let (directory, earlier) = (cluster.data_dir(2).to_path_buf(), cluster.directory().join("old"));
    copy(&directory, &earlier);
    cluster.restart(2);
    cluster.wait_ready_node(2);
    // Acknowledged by node 2 too, to leaders that stay.
    load.wait_more(500);
    cluster.kill(2);
    fs::remove_dir_all(&directory).unwrap();
    fs::rename(&earlier, &directory).unwrap();
    cluster.restart(2);
    let status = cluster.wait_exit(2);
    assert!(!status.success(), "{status}");
    let log = cluster.log(2);
    assert!(log.contains("is missing from its log"), "it says what was found");
    assert!(log.contains("join again under a new id"), "and what to do");
    // Nor does it start again, whoever leads by then.
    cluster.restart(2);
    assert!(!cluster.wait_exit(2).success());
    let said = cluster.log(2)[log.len()..].to_owned();
    assert!(said.contains("must not vote again under its id"), "{said}");
    load.wait_more(100);
    let acked = load.finish();
    load::check_on(&cluster, 0..2, &rooms, &acked);
}
