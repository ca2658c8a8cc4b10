//! Shards move between nodes, and leads between voters, while people post: nothing is lost, nothing
//! is there twice, and every replica tells the same. Also when every node is killed in the middle.

use std::time::Duration;

use crate::common::cluster::{TestCluster, succeed};
use crate::common::load::{self, Load};
use crate::common::wait_for;
use serde_json::Value;

/// How long a move may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn rooms(cluster: &TestCluster) -> Vec<String> {
    let rooms: Vec<_> = (0..8).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    rooms
}

fn json(cluster: &TestCluster, arguments: &[&str]) -> Value {
    let mut command = cluster.cli(0, arguments);
    command.args(["--json", "--timeout", "60s"]);
    serde_json::from_slice(&succeed(&mut command)).unwrap()
}

/// What a shard's placement says under a key.
fn placed(cluster: &TestCluster, shard: u64, key: &str) -> Value {
    let list = json(cluster, &["shard", "show", &shard.to_string()]);
    list["shards"][0][key].clone()
}

/// What a command that must be refused says.
fn refused(cluster: &TestCluster, arguments: &[&str]) -> String {
    let output = cluster.cli(0, arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?} is not refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether a node says that it has a replica of a shard.
fn has_replica(cluster: &TestCluster, node: u64, shard: u64) -> bool {
    cluster.shards(0).iter().any(|s| s["node"] == node && s["shard"] == shard)
}

#[test]
fn a_shard_moves_to_a_new_node_and_back_while_people_post() {
    let mut cluster = TestCluster::start(3);
    let rooms = rooms(&cluster);
    let four = cluster.add_node();
    cluster.wait_ready_node(four);
    assert_eq!(cluster.node_id(0, four), 4);
    let token = cluster.admin_token().to_owned();
    let load = Load::start(&cluster.client_urls(), &token, &rooms, 6);
    load.wait_more(100);

    let dry = json(&cluster, &["shard", "move", "1", "1", "4", "--dry-run"]);
    assert_eq!(dry["steps"].as_array().unwrap().len(), 1, "{dry}");
    assert_eq!(placed(&cluster, 1, "voters"), serde_json::json!([1, 2, 3]), "nothing is done");
    for (arguments, why) in [
        (["shard", "move", "1", "4", "5"], "no replica"),
        (["shard", "move", "1", "1", "2"], "already"),
        (["shard", "move", "1", "1", "9"], "no node 9"),
        (["shard", "move", "99", "1", "4"], "no shard 99"),
    ] {
        let said = refused(&cluster, &arguments);
        assert!(said.contains(why), "{arguments:?}: {said}");
    }

    // Also the meta group, and each with its leader.
    for (shard, from) in [(1, 1), (2, 2), (0, 1)] {
        let (shard_text, from_text) = (shard.to_string(), from.to_string());
        json(&cluster, &["shard", "move", &shard_text, &from_text, "4"]);
        let voters = placed(&cluster, shard, "voters");
        assert!(voters.as_array().unwrap().contains(&4.into()), "{voters}");
        assert!(!voters.as_array().unwrap().contains(&from.into()), "{voters}");
        wait_for("the replica to be removed", PATIENCE, || {
            if has_replica(&cluster, from, shard) { Err("it is there".into()) } else { Ok(()) }
        });
        load.wait_more(50);
        json(&cluster, &["shard", "transfer-leader", &shard_text, "4"]);
        wait_for("the lead to be taken", PATIENCE, || match placed(&cluster, shard, "leader") {
            leader if leader == 4 => Ok(()),
            leader => Err(format!("{leader} leads")),
        });
        load.wait_more(50);
        // Back to where it was, which begins anew; node 4 leads, and hands over first.
        json(&cluster, &["shard", "move", &shard_text, "4", &from_text]);
        assert_eq!(placed(&cluster, shard, "voters"), serde_json::json!([1, 2, 3]));
        load.wait_more(50);
    }
    let acked = load.finish();
    assert!(acked.len() > 300);
    cluster.wait_ready();
    load::check_everywhere(&cluster, &rooms, &acked);
}

#[test]
fn a_move_is_finished_after_every_node_was_killed_in_the_middle() {
    let mut cluster = TestCluster::start(3);
    let rooms = rooms(&cluster);
    let four = cluster.add_node();
    cluster.wait_ready_node(four);
    let token = cluster.admin_token().to_owned();
    let load = Load::start(&cluster.client_urls(), &token, &rooms, 6);
    load.wait_more(100);
    for (round, shard) in (1..=4u64).enumerate() {
        let from = 1 + round as u64 % 3;
        let text = [shard, from].map(|number| number.to_string());
        json(&cluster, &["shard", "move", &text[0], &text[1], "4", "--no-wait"]);
        // Somewhere between the order and its end: later and later.
        std::thread::sleep(Duration::from_millis(60 * round as u64));
        (0..4).for_each(|node| cluster.kill(node));
        (0..4).for_each(|node| cluster.restart(node));
        cluster.wait_ready();
        wait_for("the move to end", PATIENCE, || {
            let voters = placed(&cluster, shard, "voters");
            let voters: Vec<u64> = serde_json::from_value(voters).unwrap();
            if voters.contains(&4) && !voters.contains(&from) {
                return Ok(());
            }
            Err(format!("{voters:?}"))
        });
        wait_for("the replica to be removed", PATIENCE, || {
            if has_replica(&cluster, from, shard) { Err("it is there".into()) } else { Ok(()) }
        });
        load.wait_more(30);
    }
    let acked = load.finish();
    cluster.wait_ready();
    load::check_everywhere(&cluster, &rooms, &acked);
}
