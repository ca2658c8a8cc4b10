//! `node compact` on running nodes: whatever is posted meanwhile is taken, kept and checkpointed.
//!
//! Checkpoints come every 200 ms and are small, so that rooms have small blocks to merge all the
//! time: what a shard knows of its blocks must be true of the compacted base too.

use std::time::Duration;

use crate::common::cluster::{Options, TestCluster};
use crate::common::load::{self, Load};
use crate::common::{settings, wait_for};
use serde_json::json;

/// How often each node is compacted.
const COMPACTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(180);

fn compact(cluster: &TestCluster, i: usize) {
    let admin = cluster.admin(i).with_timeout(PATIENCE);
    // Asked for while the log is being sent, it is put off after a while.
    wait_for("a node to be compacted", PATIENCE, || {
        let answer = admin.post("/v1/node/compact", &json!({})).unwrap();
        match answer.status {
            200 => Ok(()),
            _ if answer.json()["error"]["temporary"] == true => Err(answer.json().to_string()),
            status => panic!("{status}: {}", answer.json()),
        }
    });
}

#[test]
fn a_base_that_has_outgrown_what_lives_in_it_is_compacted() {
    let arguments = settings(&["store.checkpoint_interval=100ms", "store.compact_over=1MiB"]);
    let cluster = TestCluster::start_with(1, Options { arguments, ..Options::default() });
    // Each checkpoint writes the rows of all of them anew.
    let rooms: Vec<String> = (0..100).map(|n| format!("room-{n}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 2);
    wait_for("the base to be compacted", PATIENCE, || {
        match cluster.log(0).contains("compacted the base") {
            true => Ok(()),
            false => Err("it is not yet".into()),
        }
    });
    load.wait_more(50);
    load::check_everywhere(&cluster, &rooms, &load.finish());
}

#[test]
fn nodes_are_compacted_under_load() {
    let options = Options {
        arguments: vec!["--set".into(), "store.checkpoint_interval=200ms".into()],
        init_arguments: vec!["--shards".into(), "2".into()],
        ..Options::default()
    };
    let mut cluster = TestCluster::start_with(3, options);
    let rooms: Vec<String> = (0..8).map(|n| format!("room-{n}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let load = Load::start_padded(&cluster.client_urls(), cluster.admin_token(), &rooms, 8, 200);
    // Node 2 goes on from a snapshot: its rows are in the other bank then.
    cluster.kill(2);
    load.wait_more(2000);
    cluster.restart(2);
    wait_for("a snapshot to be installed", PATIENCE, || {
        match cluster.log(2).contains("installed a snapshot") {
            true => Ok(()),
            false => Err("it is not yet".into()),
        }
    });
    cluster.wait_ready_node(2);
    for _ in 0..COMPACTIONS {
        for i in 0..3 {
            compact(&cluster, i);
            load.wait_more(50);
        }
    }
    let acked = load.finish();
    load::check_everywhere(&cluster, &rooms, &acked);
    // And from what is on disk.
    for i in 0..3 {
        cluster.kill(i);
    }
    for i in 0..3 {
        cluster.restart(i);
    }
    cluster.wait_ready();
    load::check_everywhere(&cluster, &rooms, &acked);
    for i in 0..3 {
        assert!(!cluster.log(i).contains("damaged"), "node {i} complains of damage");
    }
}
