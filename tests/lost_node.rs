//! A node that is gone for longer than `placement.replace_after` is replaced by a spare one, while
//! people post; with none to spare nothing is done.

use std::time::Duration;

use crate::common::cluster::{Options, TestCluster};
use crate::common::load::{self, Load};
use crate::common::wait_for;

const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until a node is removed.
fn wait_removed(cluster: &TestCluster, via: usize, id: u64) {
    wait_for("the node to be removed", PATIENCE, || {
        let list = cluster.json(via, &["node", "list"]);
        match list["removed"].as_array().unwrap().contains(&id.into()) {
            true => Ok(()),
            false => Err(list.to_string()),
        }
    });
}

#[test]
fn a_node_that_is_gone_is_replaced_by_a_spare_one() {
    let arguments = ["--set", "placement.replace_after=3s"].map(String::from).into();
    let mut cluster = TestCluster::start_with(3, Options { arguments, ..Options::default() });
    let rooms: Vec<_> = (0..8).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let four = cluster.add_node();
    cluster.wait_ready_node(four);
    wait_for("replicas to be spread", PATIENCE, || {
        let list = cluster.json(0, &["node", "list"]);
        if list["rebalancing"] == false { Ok(()) } else { Err(list.to_string()) }
    });
    let victim = 1;
    let id = cluster.node_id(0, victim);
    let alive = [0, 2, 3];
    let urls: Vec<_> = alive.iter().map(|i| cluster.url(*i)).collect();
    let load = Load::start(&urls, cluster.admin_token(), &rooms, 6);
    load.wait_more(50);
    cluster.kill(victim);
    wait_removed(&cluster, 0, id);
    for shard in cluster.json(0, &["shard", "list"])["shards"].as_array().unwrap() {
        let voters = shard["voters"].as_array().unwrap();
        assert!(voters.len() == 3 && !voters.contains(&id.into()), "{shard}");
        assert_eq!(shard["voters"], shard["target"], "{shard}");
    }
    load.wait_more(50);
    let acked = load.finish();
    for room in &rooms {
        let mine: Vec<_> = acked.iter().filter(|a| a.room == *room).cloned().collect();
        let log = load::read_room(&cluster.admin(0), room, "linearizable");
        load::check_log(&log, &mine);
        for i in alive {
            assert_eq!(load::read_room(&cluster.admin(i), room, "linearizable"), log);
        }
    }
    let audit = cluster.json(0, &["cluster", "audit"]);
    let replaced = format!("replace node {id}, which has not answered for too long");
    let mut actions = audit["actions"].as_array().unwrap().iter();
    assert!(actions.any(|a| a["who"] == "the cluster" && a["action"] == *replaced), "{audit}");

    // It is gone for good.
    cluster.restart(victim);
    wait_for("it to be refused", PATIENCE, || {
        let log = cluster.log(victim);
        if log.contains("was removed from the cluster") { Ok(()) } else { Err(log) }
    });

    // There is no spare one any more, so another one that is gone is waited for.
    let last = cluster.node_id(0, 2);
    cluster.kill(2);
    std::thread::sleep(Duration::from_secs(8));
    let list = cluster.json(0, &["node", "list"]);
    let node = list["nodes"].as_array().unwrap().iter().find(|n| n["id"] == last).unwrap();
    assert_eq!((&node["membership"], &node["up"]), (&"active".into(), &false.into()), "{list}");
    cluster.restart(2);
    cluster.wait_ready_node(2);
}
