//! A replica that the others' logs no longer reach back to is brought up to date by a snapshot.
//!
//! The cluster has one data shard and takes a checkpoint every 200 ms; a log keeps 64 entries
//! behind its checkpoint, so a node falls behind in no time.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::cluster::{Options, TestCluster};
use crate::common::load::{self, Load};
use crate::common::wait_for;
use rustix::process::Signal;
use serde_json::Value;

/// The one data shard.
const SHARD: u64 = 1;
/// More entries than a log keeps behind a checkpoint.
const BEHIND: u64 = 64 + 100;
const PATIENCE: Duration = Duration::from_secs(60);
/// For logs to be purged: that takes many posts and checkpoints, each of which a disk may hold up.
const PURGED_WITHIN: Duration = Duration::from_secs(180);

fn cluster() -> TestCluster {
    cluster_of(vec![])
}

/// The same, its nodes with config files.
fn cluster_of(configs: Vec<PathBuf>) -> TestCluster {
    let options = Options {
        configs,
        arguments: vec!["--set".into(), "store.checkpoint_interval=200ms".into()],
        init_arguments: vec!["--shards".into(), "1".into()],
        ..Options::default()
    };
    TestCluster::start_with(3, options)
}

fn start_load(cluster: &TestCluster, bytes: usize) -> Load {
    start_workers(cluster, 8, bytes)
}

fn start_workers(cluster: &TestCluster, workers: usize, bytes: usize) -> Load {
    let rooms = [String::from("general")];
    Load::start_padded(&cluster.client_urls(), cluster.admin_token(), &rooms, workers, bytes)
}

/// A figure of the data shard's replicas, of the node with this id alone or of all that answer.
fn figures(cluster: &TestCluster, name: &str, node: Option<u64>) -> Vec<u64> {
    let shards = cluster.shards(0);
    let here = |replica: &&Value| {
        replica["shard"] == SHARD && node.is_none_or(|node| replica["node"] == node)
    };
    shards.iter().filter(here).map(|replica| replica[name].as_u64().unwrap()).collect()
}

/// A figure of node 2, once it says so: who answers late is not among the replicas.
fn figure_of_2(cluster: &TestCluster, name: &str) -> u64 {
    let id = cluster.node_id(0, 2);
    wait_for("node 2 to say how far it is", PATIENCE, || {
        let figure = figures(cluster, name, Some(id));
        figure.first().copied().ok_or_else(|| "it does not answer".into())
    })
}

/// Kills node 2, and goes on with the load until no log reaches back to it; returns an entry that it has
/// not got beyond.
fn leave_behind(cluster: &mut TestCluster, load: &Load) -> u64 {
    cluster.kill(2);
    let last = wait_for("the others to say how far they are", PATIENCE, || {
        let last = figures(cluster, "last_log", None);
        match last.len() {
            2 => Ok(last[0].max(last[1])),
            _ => Err(format!("{last:?}")),
        }
    });
    load.wait_more(1);
    wait_purged_beyond(cluster, last);
    last
}

/// Waits until the logs of nodes 0 and 1 begin after an entry.
fn wait_purged_beyond(cluster: &TestCluster, last: u64) {
    wait_for("the log to be purged", PURGED_WITHIN, || {
        let durable = figures(cluster, "durable", None);
        match durable.len() == 2 && durable.iter().all(|durable| *durable > last + BEHIND) {
            true => Ok(()),
            false => Err(format!("durable at {durable:?}, node 2 at {last}")),
        }
    });
}

/// How often a node has logged a line, over all its starts.
fn logged(cluster: &TestCluster, i: usize, text: &str) -> usize {
    cluster.log(i).matches(text).count()
}

/// Waits for a line with little delay, for a test that wants to interrupt what it announces.
fn wait_logged(cluster: &TestCluster, i: usize, text: &str, more_than: usize) {
    let begin = Instant::now();
    while logged(cluster, i, text) <= more_than {
        assert!(begin.elapsed() < PATIENCE, "node {i} never says {text:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every replica tells the same head and hash chain by itself.
fn chains_agree(cluster: &TestCluster) {
    wait_for("chains to agree", PATIENCE, || {
        let mut told = (0..cluster.len()).map(|i| {
            let path = "/v1/rooms/general?consistency=local";
            let room = cluster.admin(i).get(path).unwrap().expect(200);
            (room["head"].clone(), room["chain"].clone())
        });
        let first = told.next().unwrap();
        assert!(first.1.as_str().is_some_and(|chain| chain.len() >= 64), "{first:?}");
        if told.all(|other| other == first) { Ok(()) } else { Err("they differ".into()) }
    });
}

fn check(cluster: &TestCluster, acked: &[load::Acked]) {
    load::check_everywhere(cluster, &[String::from("general")], acked);
    chains_agree(cluster);
}

#[test]
fn a_replica_that_fell_behind_catches_up_by_snapshot() {
    let mut cluster = cluster();
    cluster.room("general");
    let load = start_load(&cluster, 0);
    load.wait_more(100);
    let last = leave_behind(&mut cluster, &load);
    cluster.restart(2);
    cluster.wait_ready_node(2);
    assert!(figure_of_2(&cluster, "applied") > last, "ready, and far behind");
    // Which is said just after.
    wait_logged(&cluster, 2, "installed a snapshot", 0);
    // What was installed is durable at once.
    cluster.kill(2);
    load.wait_more(50);
    cluster.restart(2);
    cluster.wait_ready_node(2);
    load.wait_more(100);
    check(&cluster, &load.finish());
}

/// Bytes of snapshots that nodes 0 and 1 have sent.
fn sent_bytes(cluster: &TestCluster) -> u64 {
    let sent = |i| cluster.http(i).metric("folkmoot_snapshot_sent_bytes_total") as u64;
    sent(0) + sent(1)
}

/// Starts node 2, which only a snapshot can bring up to date; returns how many bytes it was sent.
fn filled_by(cluster: &mut TestCluster) -> u64 {
    let before = sent_bytes(cluster);
    let installed = logged(cluster, 2, "installed a snapshot");
    cluster.restart(2);
    wait_logged(cluster, 2, "installed a snapshot", installed);
    cluster.wait_ready_node(2);
    assert_eq!(logged(cluster, 2, "installed a snapshot"), installed + 1, "one was enough");
    sent_bytes(cluster) - before
}

#[test]
fn a_snapshot_has_only_what_the_replica_lacks() {
    let mut cluster = cluster();
    let first = figure_of_2(&cluster, "last_log");
    cluster.kill(2);
    cluster.room("general");
    let load = start_load(&cluster, 4096);
    load.wait_more(6000);
    let mut acked = load.finish();
    wait_purged_beyond(&cluster, first);
    let whole = filled_by(&mut cluster);
    // A replica is not sent again what is durable there.
    wait_for("checkpoints", PATIENCE, || {
        let (durable, last) =
            (figures(&cluster, "durable", None), figures(&cluster, "last_log", None));
        if durable == last { Ok(()) } else { Err(format!("durable {durable:?} of {last:?}")) }
    });
    // One message in each log entry, so that few are enough for the log to be purged.
    let load = start_workers(&cluster, 1, 4096);
    leave_behind(&mut cluster, &load);
    let more = load.finish();
    let missing = filled_by(&mut cluster);
    let share = more.len() as f64 / (acked.len() + more.len()) as f64;
    crate::common::say!(
        "{} messages: {whole} bytes; {} more, {:.0} % of the room by then: {missing} bytes, {:.0} %",
        acked.len(),
        more.len(),
        share * 100.0,
        missing as f64 / whole as f64 * 100.0
    );
    assert!(whole > 4096 * acked.len() as u64 / 3, "the first one had everything");
    assert!((missing as f64) < whole as f64 * 0.2, "sent again: {missing} of {whole} bytes");
    acked.extend(more);
    check(&cluster, &acked);
}

#[test]
fn an_empty_replica_is_filled_by_snapshot() {
    let mut cluster = cluster();
    // It knows that it belongs to the cluster, and of no user, room or message.
    let first = figure_of_2(&cluster, "last_log");
    assert!(first < 20, "node 2 has {first} entries already");
    cluster.kill(2);
    cluster.room("general");
    let load = start_load(&cluster, 0);
    wait_purged_beyond(&cluster, first);
    cluster.restart(2);
    wait_logged(&cluster, 2, "installed a snapshot", 0);
    cluster.wait_ready_node(2);
    load.wait_more(100);
    check(&cluster, &load.finish());
}

#[test]
fn a_receiver_that_is_killed_midway_begins_again() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("node.toml");
    // So slow that it goes on for longer than this test may be held up.
    std::fs::write(&config, "[store]\nsnapshot_bytes_per_second = \"1MiB\"\n").unwrap();
    let mut cluster = cluster_of(vec![config.clone(); 3]);
    cluster.room("general");
    let load = start_load(&cluster, 4096);
    leave_behind(&mut cluster, &load);
    load.wait_more(3000);
    let mut acked = load.finish();
    let mut interrupted = 0;
    for _ in 0..10 {
        let began = logged(&cluster, 2, "receiving a snapshot");
        cluster.restart(2);
        wait_logged(&cluster, 2, "receiving a snapshot", began);
        cluster.kill(2);
        if logged(&cluster, 2, "installed a snapshot") > 0 {
            break;
        }
        interrupted += 1;
        if interrupted == 3 {
            break;
        }
    }
    assert!(interrupted > 0, "the first snapshot was installed before the kill");
    crate::common::say!("interrupted {interrupted} snapshots");
    // As quick as ever: it is to catch up with what is posted meanwhile.
    std::fs::write(&config, "").unwrap();
    for i in 0..2 {
        cluster.signal(i, Signal::HUP);
        wait_logged(&cluster, i, "configuration reloaded", 0);
    }
    let load = start_load(&cluster, 0);
    cluster.restart(2);
    wait_logged(&cluster, 2, "installed a snapshot", 0);
    cluster.wait_ready_node(2);
    load.wait_more(100);
    acked.extend(load.finish());
    check(&cluster, &acked);
}
