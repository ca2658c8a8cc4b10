//! A majority is lost for good: `folkmoot cluster recover` makes a cluster out of what one survivor
//! has, which grows again; what is left of the old one cannot disturb it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::cluster::{TestCluster, folkmoot, succeed};
use crate::common::load::{self, Acked, Load};
use crate::common::{verified, wait_for};
use crate::start::refused_start;
use folkmoot::id::{RoomId, Slot, UserId};
use serde_json::{Value, json};

/// How long a change may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many recoveries are killed.
const ROUNDS: u32 = 20;

fn post(cluster: &TestCluster, nodes: &[usize], rooms: &[String], more: u64) -> Vec<Acked> {
    let urls: Vec<_> = nodes.iter().map(|i| cluster.url(*i)).collect();
    let load = Load::start(&urls, cluster.admin_token(), rooms, 4);
    load.wait_more(more);
    load.finish()
}

/// Waits until a replica has by itself what was acknowledged.
fn wait_has(cluster: &TestCluster, node: usize, acked: &[Acked]) {
    for message in acked {
        let path = format!(
            "/v1/rooms/{}/events?after={}&limit=1&consistency=local",
            message.room,
            message.seq - 1
        );
        wait_for("the survivor to have it", PATIENCE, || {
            let answer = cluster.admin(node).get(&path).map_err(|e| e.to_string())?;
            match answer.status == 200 && answer.json()["events"] != json!([]) {
                true => Ok(()),
                false => Err(format!("{message:?}")),
            }
        });
    }
}

fn recover(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = folkmoot();
    command.args(["cluster", "recover", "--data-dir"]).arg(directory).args(arguments);
    command.stdin(Stdio::null());
    command
}

fn refused(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

/// Every file below a directory, but for the note of who has locked it last.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.file_name().unwrap() != "LOCK" {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn of_room(acked: &[Acked], room: &str) -> Vec<Acked> {
    acked.iter().filter(|message| message.room == room).cloned().collect()
}

/// Checks every room on these nodes, which must tell the same: all of what is kept, once, and
/// nothing that nobody sent.
fn check(cluster: &TestCluster, nodes: &[usize], rooms: &[String], kept: &[Acked]) {
    for room in rooms {
        let first = load::read_room(&cluster.admin(nodes[0]), room, "linearizable");
        load::check_log(&first, &of_room(kept, room));
        for node in nodes {
            wait_for("replicas to agree", PATIENCE, || {
                let log = load::read_room(&cluster.admin(*node), room, "local");
                if log == first { Ok(()) } else { Err(format!("{room} on node {node}")) }
            });
        }
    }
}

fn page(cluster: &TestCluster, room: &str, after: &str) -> Value {
    let path = format!("/v1/rooms/{room}/events?after={after}&limit=1");
    cluster.admin(0).get(&path).unwrap().expect(200)
}

/// Who votes in each group.
fn voters(cluster: &TestCluster) -> Vec<Value> {
    let list = succeed(&mut cluster.cli(0, &["shard", "list", "--json"]));
    let list: Value = serde_json::from_slice(&list).unwrap();
    list["shards"].as_array().unwrap().iter().map(|shard| shard["voters"].clone()).collect()
}

#[test]
fn a_survivor_becomes_a_cluster_of_its_own_and_grows_again() {
    let (mut cluster, rooms) = TestCluster::start_with_rooms();
    let kept = post(&cluster, &[0, 1, 2], &rooms, 600);
    wait_has(&cluster, 0, &kept);
    let old = page(&cluster, &rooms[0], "0");
    let (epoch, head) = (old["epoch"].as_str().unwrap(), old["head"].as_u64().unwrap());
    let survivor = cluster.data_dir(0).to_path_buf();

    let said = refused(&recover(&survivor, &["--yes"]).output().unwrap(), 1);
    assert!(said.contains("another folkmoot process"), "{said}");
    cluster.kill(0);
    let lost = post(&cluster, &[1, 2], &rooms, 60);
    let said = refused(&recover(&survivor, &["--yes"]).output().unwrap(), 1);
    assert!(said.contains("node 2 runs at") && said.contains("node 3 runs at"), "{said}");
    cluster.kill(1);
    cluster.kill(2);
    fs::remove_dir_all(cluster.data_dir(2)).unwrap();

    // Opening finishes what the kill had left unfinished; from then on nothing changes.
    let dry = succeed(&mut recover(&survivor, &["--dry-run", "--json"]));
    let before = files(&survivor);
    let dry: Value = serde_json::from_slice(&dry).unwrap();
    assert_eq!((dry["done"].clone(), dry["cluster_id"].clone()), (json!(false), Value::Null));
    assert_eq!(dry["shards"].as_array().unwrap().len(), 3);
    assert_eq!(dry["shards"][1]["elsewhere"], json!([2, 3]));
    assert!(dry["shards"][1]["last_write"].is_string(), "{dry}");
    let shown = succeed(&mut recover(&survivor, &["--dry-run"]));
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("may be lost") && shown.contains("recovered: false"), "{shown}");
    let said = refused(&recover(&survivor, &[]).output().unwrap(), 64);
    assert!(said.contains("--yes"), "{said}");
    assert!(files(&survivor) == before, "a dry run, or one that is not confirmed, changes nothing");

    let done = succeed(&mut recover(&survivor, &["--yes", "--json"]));
    let done: Value = serde_json::from_slice(&done).unwrap();
    assert_eq!(done["done"], true);
    assert_ne!(done["cluster_id"], done["lost_cluster_id"]);
    cluster.try_restart(0).unwrap();
    assert_eq!(voters(&cluster), vec![json!([1]); 3]);
    check(&cluster, &[0], &rooms, &kept);
    let audit = succeed(&mut cluster.cli(0, &["cluster", "audit"]));
    let audit = String::from_utf8(audit).unwrap();
    assert!(audit.contains("from node 1"), "{audit}");

    // A cursor of before, whether into what is kept or into what is lost, is told so.
    for seq in [head / 2, head, head + 5] {
        let answer = page(&cluster, &rooms[0], &format!("{epoch}:{seq}"));
        assert_eq!((&answer["recovered"], &answer["first_seq"]), (&json!(false), &json!(1)));
        assert_ne!(answer["epoch"], epoch);
    }
    // What was lost can be sent again, and what was not is recognised.
    let (url, token) = (vec![cluster.url(0)], cluster.admin_token().to_owned());
    let mut kept = kept;
    for message in &lost {
        kept.push(load::post(&url, &token, &message.room, &message.id, &message.text));
    }
    let first = kept[0].clone();
    assert_eq!(load::post(&url, &token, &first.room, &first.id, &first.text).seq, first.seq);
    check(&cluster, &[0], &rooms, &kept);

    // One that was not lost after all is started by accident.
    let said = refused_start(&cluster, 1, 0);
    assert!(said.contains("it was recovered from another node"), "{said}");
    kept.extend(post(&cluster, &[0], &rooms, 30));

    let [four, five] = [(); 2].map(|()| {
        let node = cluster.add_node();
        cluster.wait_ready_node(node);
        node
    });
    assert_eq!([four, five].map(|node| cluster.node_id(0, node)), [4, 5], "ids are not reused");
    let token = cluster.admin_token().to_owned();
    let load = Load::start(&[cluster.url(0), cluster.url(four)], &token, &rooms, 4);
    // Each that joins gets its part.
    wait_for("three voters", PATIENCE, || match voters(&cluster) {
        all if all == vec![json!([1, 4, 5]); 3] => Ok(()),
        all => Err(format!("{all:?}")),
    });
    load.wait_more(30);
    kept.extend(load.finish());
    check(&cluster, &[0, four, five], &rooms, &kept);
    verified::verify(&cluster, four);
    // It survives the loss of the survivor.
    cluster.kill(0);
    post(&cluster, &[four, five], &rooms, 30);
}

#[test]
fn a_recovery_that_is_killed_is_finished_by_running_it_again() {
    let (mut cluster, rooms) = TestCluster::start_with_rooms();
    let kept = post(&cluster, &[0, 1, 2], &rooms, 300);
    wait_has(&cluster, 0, &kept);
    (0..3).for_each(|node| cluster.kill(node));
    let survivor = cluster.data_dir(0).to_path_buf();
    let pristine = cluster.directory().join("pristine");
    fs::rename(&survivor, &pristine).unwrap();
    let mut interrupted = 0;
    for round in 0..ROUNDS {
        if survivor.exists() {
            fs::remove_dir_all(&survivor).unwrap();
        }
        copy(&pristine, &survivor);
        let journal = survivor.join("recover.json");
        let mut child = recover(&survivor, &["--yes"]).stdout(Stdio::null()).spawn().unwrap();
        while child.try_wait().unwrap().is_none() && !journal.exists() {
            std::thread::yield_now();
        }
        // Somewhere between its first step and its last: later and later.
        let begun = Instant::now();
        while begun.elapsed() < round * Duration::from_micros(300) {
            std::hint::spin_loop();
        }
        let ended = child.try_wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let begun = journal.exists();
        interrupted += u64::from(begun);
        if begun {
            let said = cluster.try_restart(0).unwrap_err();
            assert!(said.contains("`folkmoot cluster recover` was interrupted"), "{said}");
        }
        if ended.is_none() {
            let again = succeed(&mut recover(&survivor, &["--yes", "--json"]));
            let again: Value = serde_json::from_slice(&again).unwrap();
            assert_eq!((&again["resumed"], &again["done"]), (&json!(begun), &json!(true)));
        }
        let after = succeed(&mut recover(&survivor, &["--dry-run", "--json"]));
        let after: Value = serde_json::from_slice(&after).unwrap();
        assert_eq!(after["other_nodes"], json!([]), "round {round}: {after}");
        assert_eq!(after["lost_shards"], json!([]));
    }
    crate::common::say!("{interrupted} of {ROUNDS} were killed between first step and last");
    assert!(interrupted > 0, "none was interrupted");
    cluster.try_restart(0).unwrap();
    check(&cluster, &[0], &rooms, &kept);
}

#[test]
fn shards_that_the_survivor_has_not_begin_empty_only_when_that_is_accepted() {
    let (mut cluster, rooms) = TestCluster::start_with_rooms();
    let four = cluster.add_node();
    cluster.wait_ready_node(four);
    let shard_of = |slot: Slot| u64::from(1 + slot.0 % 2);
    // The admin's account is to stay.
    let kept_shard = shard_of(Slot::of_user(&UserId::parse("admin").unwrap()));
    let gone = 3 - kept_shard;
    let (here, moved): (Vec<String>, Vec<String>) = rooms
        .into_iter()
        .partition(|room| shard_of(Slot::of_room(&RoomId::parse(room).unwrap())) == kept_shard);
    assert!(!here.is_empty() && !moved.is_empty());
    let kept = post(&cluster, &[0, 1, 2], &here, 100);
    post(&cluster, &[0, 1, 2], &moved, 100);
    // With four nodes, and three voters each, there is one node that lacks a shard.
    let has = |all: &[Value], node: u64, shard: u64| {
        all.iter().any(|s| s["node"] == node && s["shard"] == shard)
    };
    let node = wait_for("the replicas to be spread", PATIENCE, || {
        let (all, settled) = (cluster.shards(0), voters(&cluster));
        let of_four = settled.iter().filter(|v| v.as_array().unwrap().contains(&json!(4))).count();
        match all.len() == 9 && of_four == 2 {
            true => Ok((1..=4).find(|node| !has(&all, *node, gone)).expect("one lacks it")),
            false => Err(format!("{settled:?}, {} replicas", all.len())),
        }
    });
    let survivor = (0..4).find(|i| cluster.node_id(0, *i) == node).unwrap();
    wait_has(&cluster, survivor, &kept);
    (0..4).for_each(|node| cluster.kill(node));

    let directory = cluster.data_dir(survivor).to_path_buf();
    let said = refused(&recover(&directory, &["--yes"]).output().unwrap(), 1);
    let others: Vec<_> = (1..=4).filter(|id| *id != node).map(|id| id.to_string()).collect();
    let others = others.join(" or ");
    assert!(said.contains(&format!("shard {gone}, which node {others} had")), "{said}");
    let done = succeed(&mut recover(&directory, &["--yes", "--json", "--accept-lost-shards"]));
    let done: Value = serde_json::from_slice(&done).unwrap();
    assert_eq!(done["lost_shards"], json!([gone]));
    cluster.try_restart(survivor).unwrap();
    check(&cluster, &[survivor], &here, &kept);
    for room in &moved {
        assert_eq!(cluster.admin(survivor).get(&format!("/v1/rooms/{room}")).unwrap().status, 404);
        let body = json!({ "room": room, "title": room, "kind": "public" });
        let answer = cluster.admin(survivor).post("/v1/rooms", &body).unwrap();
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    }
    let anew = post(&cluster, &[survivor], &moved, 30);
    check(&cluster, &[survivor], &moved, &anew);
    cluster.kill(survivor);
    cluster.try_restart(survivor).unwrap();
    check(&cluster, &[survivor], &moved, &anew);
}
