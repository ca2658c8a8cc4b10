//! `folkmoot cluster verify` finds the replica that differs, and `--repair` mends it.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::common::cluster::TestCluster;
use crate::common::load::{self, Load};
use crate::common::verified::{self, Outcome};
use crate::common::wait_for;
use folkmoot::chat::state::Room;
use folkmoot::id::ShardId;
use folkmoot::store::base::{Base, Batch, Order};
use folkmoot::store::block::{Packer, RoomBlocks, Run};
use folkmoot::store::codec;
use folkmoot::store::key::{self, Key};
use folkmoot::store::sled_base::{SledBase, SledOptions};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
/// Entries that a log keeps behind a checkpoint.
const KEPT: u64 = 64;

/// Asks for a replica to be repaired, and again while it is refused for another one that is late.
fn repair(cluster: &TestCluster, replica: &str, further: &str) -> Outcome {
    wait_for("all that matter to be asked", PATIENCE, || {
        let outcome = verified::once(cluster, 0, &["--repair", replica, further]);
        let late = ["cannot be asked", "does not answer"];
        match late.iter().any(|why| outcome.said.contains(why)) {
            true => Err(outcome.said),
            false => Ok(outcome),
        }
    })
}

/// Posts, and waits until no log reaches back to its beginning any more.
fn fill(cluster: &TestCluster, rooms: &[String]) -> Vec<load::Acked> {
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), rooms, 12);
    load.wait_more(2000);
    // Under load, too: heads move while they are compared.
    verified::verify(cluster, 1);
    let acked = load.finish();
    wait_for("purged logs", PATIENCE, || {
        let behind =
            |shard: &Value| shard["shard"] != 0 && shard["durable"].as_u64() <= Some(2 * KEPT);
        match cluster.shards(0).into_iter().find(behind) {
            None => Ok(()),
            Some(shard) => Err(shard.to_string()),
        }
    });
    acked
}

/// Changes a room's row in a stopped node's base, as nothing but a bug would: seal and all. Returns
/// the shard.
fn plant(data_dir: &Path, room: &str, change: impl FnOnce(&mut Room)) -> ShardId {
    let base = SledBase::open(&data_dir.join("rooms"), &SledOptions::default()).unwrap();
    let mut found = None;
    let all = vec![0]..vec![0xf0; 4];
    base.scan(&all, Order::Forward, &mut |key, value| {
        if let Some((space, Key::Room(id))) = key::decode(key)
            && id.as_str() == room
        {
            found = Some((space.shard, key.to_vec(), codec::room_from(&id, value).unwrap()));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let (shard, key, mut row) = found.expect("the room is in the base");
    change(&mut row);
    let mut batch = Batch::new();
    batch.put(key, codec::room_value(&row));
    base.write(batch).unwrap();
    base.flush().unwrap();
    shard
}

/// Changes one letter of a message in a stopped node's base.
fn plant_in_event(data_dir: &Path, room: &str) -> ShardId {
    let base = SledBase::open(&data_dir.join("rooms"), &SledOptions::default()).unwrap();
    let mut found = None;
    let all = vec![0]..vec![0xf0; 4];
    base.scan(&all, Order::Forward, &mut |key, value| {
        if let Some((space, Key::Block(id, lineage, first))) = key::decode(key)
            && id.as_str() == room
            && let Ok(run) = Run::decode(first, value)
            && run.events(first).any(|(_, event)| event.windows(8).any(|part| part == b"message "))
        {
            found = Some((space, id, lineage, run));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    let (space, room, lineage, run) = found.expect("messages are in the base");
    let mut other = Run::new(run.first());
    let mut planted = false;
    for (_, event) in run.events(run.first()) {
        let mut event = event.to_vec();
        if let Some(at) = event.windows(8).position(|part| part == b"message ")
            && !std::mem::replace(&mut planted, true)
        {
            event[at + 1] = b'a';
        }
        other.push_encoded(&event);
    }
    let mut batch = Batch::new();
    for block in Packer::default().pack(&other) {
        RoomBlocks { space, room: &room, lineage }.put(&mut batch, &block);
    }
    base.write(batch).unwrap();
    base.flush().unwrap();
    space.shard
}

#[test]
fn a_replica_that_differs_is_found_and_mended() {
    let (mut cluster, rooms) = TestCluster::start_with_rooms();
    let acked = fill(&cluster, &rooms);
    let told = verified::verify(&cluster, 0);
    assert_eq!((&told["rooms"], &told["shards"]), (&6.into(), &2.into()));
    assert!(told["events"].as_u64().unwrap() >= acked.len() as u64, "{told}");

    let node = cluster.node_id(0, 2);
    assert!(cluster.stop(2).success());
    let outcome = verified::once(&cluster, 0, &[]);
    assert_eq!((outcome.code, &outcome.findings()[0]["kind"]), (1, &"unverified".into()));
    let shard = plant(cluster.data_dir(2), "room-3", |row| row.title = "another title".into());
    let chain = plant(cluster.data_dir(2), "room-4", |row| row.chain[7] ^= 1);
    let event = plant_in_event(cluster.data_dir(2), "room-5");
    cluster.restart(2);
    cluster.wait_ready_node(2);

    for via in 0..3 {
        let outcome = verified::compare(&cluster, via);
        assert_eq!(outcome.code, 1, "{}", outcome.json);
        let of = |room: &str| {
            let findings = outcome.findings().iter().filter(|finding| finding["room"] == room);
            findings.collect::<Vec<_>>()
        };
        assert_eq!(of("room-3").len(), 1, "{}", outcome.json);
        assert_eq!(of("room-3")[0]["kind"], "differs");
        assert_eq!(of("room-4")[0]["kind"], "differs");
        assert_eq!(of("room-5")[0]["kind"], "damaged");
        assert_eq!(outcome.findings().len(), 3, "{}", outcome.json);
        for finding in outcome.findings() {
            assert_eq!(finding["nodes"], serde_json::json!([node]), "{}", outcome.json);
        }
    }

    let replica = format!("{node}/{}", shard.0);
    let right = format!("{}/{}", cluster.node_id(0, 0), shard.0);
    let refused = repair(&cluster, &right, "--yes");
    assert!(refused.code == 1 && refused.said.contains("nothing to repair"), "{}", refused.said);
    let unasked = verified::once(&cluster, 0, &["--repair", &replica]);
    assert!(unasked.code == 64 && unasked.said.contains("--yes"), "{}", unasked.said);
    let planned = repair(&cluster, &replica, "--dry-run");
    assert_eq!((planned.code, &planned.json["dry_run"]), (0, &true.into()), "{}", planned.said);
    for shard in [shard.0, chain.0, event.0] {
        let replica = format!("{node}/{shard}");
        let noted = repair(&cluster, &replica, "--yes");
        assert_eq!(noted.code, 0, "{}", noted.said);
    }
    assert_eq!(verified::compare(&cluster, 0).code, 1, "mended before it is restarted");
    assert!(cluster.stop(2).success());
    cluster.restart(2);
    cluster.wait_ready_node(2);
    verified::verify(&cluster, 2);
    let kept = cluster.data_dir(2).join(format!("set-aside/shard-{}-1.rows", shard.0));
    assert!(kept.exists(), "{}", kept.display());
    load::check_everywhere(&cluster, &rooms, &acked);
    // And it stays so: a start without a note sets nothing aside.
    assert!(cluster.stop(2).success());
    cluster.restart(2);
    cluster.wait_ready_node(2);
    assert!(!kept.with_file_name(format!("shard-{}-2.rows", shard.0)).exists());
    verified::verify(&cluster, 0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let cluster = TestCluster::start(1);
    let bob = cluster.user("bob");
    let forbidden =
        cluster.cli(0, &["cluster", "verify"]).env("FOLKMOOT_TOKEN", bob).output().unwrap();
    assert_eq!(forbidden.status.code(), Some(1));
    let said = String::from_utf8_lossy(&forbidden.stderr).into_owned();
    assert!(said.contains("forbidden"), "{said}");
    for (arguments, code, expected) in [
        (&["--shard", "77"][..], 1, "no shard 77"),
        (&["--repair", "1/77", "--yes"], 1, "no shard 77"),
        (&["--repair", "9/1", "--yes"], 1, "nothing to repair"),
        (&["--repair", "nine", "--yes"], 64, "NODE/SHARD"),
        (&["--yes"], 64, "--repair"),
    ] {
        let outcome = verified::once(&cluster, 0, arguments);
        assert!(outcome.code == code && outcome.said.contains(expected), "{}", outcome.said);
    }
    verified::verify(&cluster, 0);
}
