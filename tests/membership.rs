//! Shards move between nodes, and leads between voters, while people post: nothing is lost, nothing
//! is there twice, and every replica tells the same. Also when every node is killed in the middle.

use std::process::Stdio;
use std::time::Duration;

use crate::common::cluster::{TestCluster, succeed};
use crate::common::load::{self, Load};
use crate::common::{orders, wait_for};
use folkmoot::id::{RoomId, Slot};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a move may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn rooms(cluster: &TestCluster) -> Vec<String> {
    let rooms: Vec<_> = (0..8).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    rooms
}

/// Thirty-two rooms, four of them in each of the eight shards.
fn rooms_of_all_shards(cluster: &TestCluster) -> Vec<String> {
    let mut has = [0; 8];
    let fits = |room: &String| {
        let slot = Slot::of_room(&RoomId::parse(room).unwrap());
        let has = &mut has[usize::from(slot.0 % 8)];
        *has += 1;
        *has <= 4
    };
    let rooms: Vec<_> = (0..).map(|i| format!("room-{i}")).filter(fits).take(32).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    rooms
}

/// What a shard's placement says under a key.
fn placed(cluster: &TestCluster, shard: u64, key: &str) -> Value {
    let list = cluster.json(0, &["shard", "show", &shard.to_string()]);
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

fn voters(cluster: &TestCluster, shard: u64) -> Vec<u64> {
    serde_json::from_value(placed(cluster, shard, "voters")).unwrap()
}

/// The one of four nodes that does not vote in a shard.
fn spare(cluster: &TestCluster, shard: u64) -> u64 {
    let voters = voters(cluster, shard);
    (1..=4).find(|node| !voters.contains(node)).expect("three of four vote")
}

/// Whether the cluster has handed a lead to a node by itself, as its audit log tells.
fn was_given_a_lead(cluster: &TestCluster, node: u64) -> bool {
    let audit = cluster.json(0, &["cluster", "audit", "--limit", "1000"]);
    let to_it = format!(" to node {node}");
    let mut actions = audit["actions"].as_array().unwrap().iter();
    actions.any(|it| {
        let action = it["action"].as_str().unwrap();
        let is_lead = action.starts_with("transfer the lead of shard ") && action.ends_with(&to_it);
        is_lead && it["who"] == "the cluster" && it["outcome"] == "done"
    })
}

/// Adds a fourth node, and waits until it has its part.
fn add_fourth(cluster: &mut TestCluster) {
    let four = cluster.add_node();
    cluster.wait_ready_node(four);
    assert_eq!(cluster.node_id(0, four), 4);
    wait_balanced(cluster);
    wait_for("of 9 leads each to have its part", PATIENCE, || {
        let list = cluster.json(0, &["node", "list"]);
        let nodes = list["nodes"].as_array().unwrap();
        assert_eq!(nodes.len(), 4);
        for node in nodes {
            let replicas = node["replicas"].as_u64();
            assert!(matches!(replicas, Some(6 | 7)), "of 27 each has its part: {node}");
        }
        if nodes.iter().all(|node| matches!(node["leaders"].as_u64(), Some(2 | 3))) {
            return Ok(());
        }
        // What a node leads that answers late is not known.
        if nodes.iter().all(|node| node["up"] == true) {
            // It may have lost them to others again, held up by its disk.
            let was_given = nodes[3]["leaders"] != 0 || was_given_a_lead(cluster, 4);
            assert!(was_given, "it was given some: {list}");
            // An election has come between, and nobody spreads them again unless asked to.
            cluster.json(0, &["shard", "rebalance", "--leaders"]);
        }
        Err(list.to_string())
    });
}

/// Waits until nothing is to be spread any more.
fn wait_balanced(cluster: &TestCluster) {
    wait_for("replicas and leaders to be spread", PATIENCE, || {
        let list = cluster.json(0, &["node", "list"]);
        if list["rebalancing"] == false { Ok(()) } else { Err(list.to_string()) }
    });
}

#[test]
fn a_shard_moves_to_another_node_and_back_while_people_post() {
    let mut cluster = TestCluster::start(3);
    let rooms = rooms(&cluster);
    add_fourth(&mut cluster);
    let token = cluster.admin_token().to_owned();
    let load = Load::start(&cluster.client_urls(), &token, &rooms, 6);
    load.wait_more(100);

    let before = voters(&cluster, 1);
    let text = [before[0], before[1], spare(&cluster, 1)].map(|node| node.to_string());
    let [has, too, lacks] = text.each_ref().map(String::as_str);
    let dry = cluster.json(0, &["shard", "move", "1", has, lacks, "--dry-run"]);
    assert_eq!(dry["steps"].as_array().unwrap().len(), 1, "{dry}");
    assert_eq!(voters(&cluster, 1), before, "nothing is done");
    for (arguments, why) in [
        (["shard", "move", "1", lacks, "5"], "no replica"),
        (["shard", "move", "1", has, too], "already"),
        (["shard", "move", "1", has, "9"], "no node 9"),
        (["shard", "move", "99", has, lacks], "no shard 99"),
    ] {
        let said = refused(&cluster, &arguments);
        assert!(said.contains(why), "{arguments:?}: {said}");
    }

    // Also the meta group, and each with its leader.
    for shard in [1, 2, 0] {
        let before = voters(&cluster, shard);
        let to = spare(&cluster, shard);
        let leader = wait_for("a leader", PATIENCE, || {
            placed(&cluster, shard, "leader")
                .as_u64()
                .filter(|id| *id != 0)
                .ok_or_else(|| "none".into())
        });
        let from = if before.contains(&leader) { leader } else { before[0] };
        let [shard_text, from_text, to_text] = [shard, from, to].map(|number| number.to_string());
        cluster.json(0, &["shard", "move", &shard_text, &from_text, &to_text]);
        let moved = voters(&cluster, shard);
        assert!(moved.contains(&to) && !moved.contains(&from), "{moved:?}");
        wait_for("the replica to be removed", PATIENCE, || {
            if has_replica(&cluster, from, shard) { Err("it is there".into()) } else { Ok(()) }
        });
        load.wait_more(50);
        let transfer = ["shard", "transfer-leader", &shard_text, &to_text];
        orders::give(&cluster, &transfer);
        wait_for("the lead to be taken", PATIENCE, || {
            let leader = placed(&cluster, shard, "leader");
            if leader == to {
                return Ok(());
            }
            // Once it is held up, another one is elected, and nobody gives the lead back by itself.
            if leader != 0 {
                orders::give(&cluster, &transfer);
            }
            Err(format!("{leader} leads"))
        });
        load.wait_more(50);
        // Back to where it was, which begins anew; the one that has it leads, and hands over first.
        cluster.json(0, &["shard", "move", &shard_text, &to_text, &from_text]);
        assert_eq!(voters(&cluster, shard), before);
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
    add_fourth(&mut cluster);
    let token = cluster.admin_token().to_owned();
    let load = Load::start(&cluster.client_urls(), &token, &rooms, 6);
    load.wait_more(100);
    for (round, shard) in (1..=4u64).enumerate() {
        let (from, to) = (voters(&cluster, shard)[round % 3], spare(&cluster, shard));
        let text = [shard, from, to].map(|number| number.to_string());
        cluster.json(0, &["shard", "move", &text[0], &text[1], &text[2], "--no-wait"]);
        // Somewhere between the order and its end: later and later.
        std::thread::sleep(Duration::from_millis(60 * round as u64));
        (0..4).for_each(|node| cluster.kill(node));
        (0..4).for_each(|node| cluster.restart(node));
        cluster.wait_ready();
        wait_for("the move to end", PATIENCE, || {
            let voters = voters(&cluster, shard);
            if voters.contains(&to) && !voters.contains(&from) {
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

#[test]
fn a_gateway_gets_no_replica_until_it_is_none_any_more() {
    let mut cluster = TestCluster::start(3);
    let gateway = cluster.add_gateway();
    cluster.wait_ready_node(gateway);
    let standing = |cluster: &TestCluster| {
        let list = cluster.json(0, &["node", "list"]);
        let node = list["nodes"].as_array().unwrap().iter().find(|node| node["id"] == 4).cloned();
        let node = node.expect("it is listed");
        (node["membership"].as_str().unwrap().to_owned(), node["replicas"].as_u64().unwrap())
    };
    assert_eq!(standing(&cluster), ("gateway".into(), 0));
    cluster.json(0, &["shard", "rebalance"]);
    assert_eq!(standing(&cluster), ("gateway".into(), 0));
    for arguments in [["shard", "move", "1", "1", "4"], ["node", "replace", "1", "4", "--yes"]] {
        let said = refused(&cluster, &arguments);
        assert!(said.contains("gateway"), "{arguments:?}: {said}");
    }
    cluster.stop(gateway);
    cluster.set_arguments(gateway, &[]);
    cluster.restart(gateway);
    wait_for("it to get its part", PATIENCE, || match standing(&cluster) {
        (standing, 6..) if standing == "active" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    wait_balanced(&cluster);
    // Not the other way: what it has must go elsewhere first. It stays as it is meanwhile.
    cluster.stop(gateway);
    cluster.set_arguments(gateway, &["--gateway"]);
    cluster.restart(gateway);
    wait_for("it to say why it is none", PATIENCE, || {
        let log = cluster.log(gateway);
        if log.contains("cannot become a gateway while it has replicas") {
            Ok(())
        } else {
            Err(log)
        }
    });
    cluster.wait_ready_node(gateway);
    assert_eq!(standing(&cluster).0, "active");
}

#[test]
fn a_node_leads_its_part_again_after_a_drain() {
    let cluster = TestCluster::start(3);
    cluster.json(0, &["node", "drain", "2"]);
    // It may be elected again, and hands the lead on then.
    orders::wait_node(&cluster, 2, "it to lead nothing", |node| node["leaders"] == 0);
    wait_for("leads to be planned for it", PATIENCE, || {
        let planned = cluster.json(0, &["node", "resume", "2", "--dry-run"]);
        let steps = planned["steps"].as_array().unwrap().len();
        if steps > 1 { Ok(()) } else { Err(planned.to_string()) }
    });
    wait_for("it to lead three of nine", PATIENCE, || {
        cluster.json(0, &["node", "resume", "2"]);
        let list = cluster.json(0, &["node", "list"]);
        if list["nodes"][1]["leaders"] == 3 {
            return Ok(());
        }
        // It answers late, or an election has come between: once more.
        cluster.json(0, &["node", "drain", "2"]);
        Err(list.to_string())
    });
}

#[test]
fn who_does_not_want_to_wait_is_told_how_to_take_it_back() {
    let mut cluster = TestCluster::start(3);
    add_fourth(&mut cluster);
    let shard = (1..=8).find(|shard| spare(&cluster, *shard) == 4).expect("4 has not all of them");
    let from = voters(&cluster, shard)[0];
    // Nobody can be caught up who is down: the move waits.
    cluster.kill(3);
    let [shard_text, from_text] = [shard, from].map(|number| number.to_string());
    let mut command = cluster.cli(0, &["shard", "move", &shard_text, &from_text, "4"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let waiting = command.spawn().unwrap();
    wait_for("the move to begin", PATIENCE, || {
        let status = cluster.json(0, &["node", "status", "4"]);
        if status["incoming"] == serde_json::json!([shard]) {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    let status = cluster.json(0, &["node", "status", "4"]);
    assert_eq!(
        (&status["up"], &status["membership"]),
        (&false.into(), &"active".into()),
        "{status}"
    );
    let text = succeed(&mut cluster.cli(1, &["node", "status", "4"]));
    assert!(String::from_utf8_lossy(&text).contains("active, down"), "{text:?}");
    let pid = Pid::from_raw(i32::try_from(waiting.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = waiting.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    let undo = format!("folkmoot shard move {shard} 4 {from}");
    assert!(said.contains("the cluster goes on with it") && said.contains(&undo), "{said}");
    let undo: Vec<&str> = undo.split(' ').skip(1).collect();
    cluster.json(0, &undo);
    assert!(voters(&cluster, shard).contains(&from));
    wait_for("nothing to be on its way to it", PATIENCE, || {
        let status = cluster.json(0, &["node", "status", "4"]);
        // It is not told where no leader of the meta group tells it in time.
        let incoming = status["incoming"].as_array().ok_or_else(|| status.to_string())?;
        assert!(incoming.is_empty(), "{status}");
        Ok(())
    });
    let of_one = wait_for("it to answer", PATIENCE, || {
        let status = cluster.json(0, &["node", "status", &from_text]);
        if status["up"] == true { Ok(status) } else { Err(status.to_string()) }
    });
    let replicas = of_one["replicas"].as_array().unwrap();
    assert!(replicas.iter().any(|replica| replica["shard"] == shard), "{of_one}");
    assert!(refused(&cluster, &["node", "status", "9"]).contains("the nodes are 1, 2, 3, 4"));
}

#[test]
fn who_trails_neither_leads_nor_votes() {
    let mut cluster = TestCluster::start(3);
    // Each shard is to be posted to as often as the others.
    let rooms = rooms_of_all_shards(&cluster);
    add_fourth(&mut cluster);
    let last_logs = || -> Vec<u64> {
        let shards = cluster.shards(0);
        let last = |shard: u64| {
            shards
                .iter()
                .filter(|s| s["shard"] == shard)
                .filter_map(|s| s["last_log"].as_u64())
                .max()
        };
        (1..=8).map(|shard| last(shard).unwrap_or(0)).collect()
    };
    cluster.signal(3, Signal::STOP);
    let urls = &cluster.client_urls()[..3];
    let load = Load::start(urls, cluster.admin_token(), &rooms, 6);
    let before = last_logs();
    wait_for("every shard to have left node 4 behind", PATIENCE, || {
        let now = last_logs();
        let far = now.iter().zip(&before).all(|(now, before)| *now > before + 200);
        if far { Ok(()) } else { Err(format!("{before:?}, {now:?}")) }
    });

    let votes = (1..=8).find(|shard| voters(&cluster, *shard).contains(&4)).expect("4 votes");
    let votes_text = votes.to_string();
    let transfer = ["shard", "transfer-leader", &votes_text, "4"];
    let said = refused(&cluster, &transfer);
    // Whoever has led since it was stopped has not heard of it at all.
    let why = said.contains("node 4 trails by ") || said.contains("node 4 has not answered");
    assert!(why && said.contains("cannot lead"), "{said}");
    assert_ne!(placed(&cluster, votes, "leader"), 4);

    let lacks = (1..=8).find(|shard| spare(&cluster, *shard) == 4).expect("4 has not all of them");
    let before = voters(&cluster, lacks);
    let [shard, from] = [lacks, before[0]].map(|number| number.to_string());
    let mut command = cluster.cli(0, &["shard", "move", &shard, &from, "4"]);
    let mut moving = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for("the move to begin", PATIENCE, || {
        let incoming = cluster.json(0, &["node", "status", "4"])["incoming"].clone();
        if incoming == serde_json::json!([lacks]) { Ok(()) } else { Err(incoming.to_string()) }
    });
    // The log of the shard grows on: its voters are those that they were.
    load.wait_more(500);
    assert_eq!(voters(&cluster, lacks), before);
    assert!(moving.try_wait().unwrap().is_none(), "it is not done");

    cluster.signal(3, Signal::CONT);
    assert!(moving.wait().unwrap().success());
    assert!(voters(&cluster, lacks).contains(&4));
    orders::give(&cluster, &transfer);
    let acked = load.finish();
    cluster.wait_ready();
    load::check_everywhere(&cluster, &rooms, &acked);
}
