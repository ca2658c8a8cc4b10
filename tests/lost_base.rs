//! A node whose state in sled is damaged, gone, or an earlier one, while its log is whole but reaches
//! back only to the last checkpoint: it takes its state from the others, by itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::cluster::{Options, TestCluster};
use crate::common::load::{self, Acked, Load};
use crate::common::wait_for;

const PATIENCE: Duration = Duration::from_secs(60);
/// Entries that a log keeps behind a checkpoint.
const KEPT: u64 = 64;
struct Full {
    cluster: TestCluster,
    rooms: Vec<String>,
    acked: Vec<Acked>,
}

impl Full {
    /// A cluster whose logs have been purged.
    fn start(nodes: usize) -> Full {
        let options = Options {
            arguments: vec!["--set".into(), "store.checkpoint_interval=200ms".into()],
            init_arguments: vec!["--shards".into(), "2".into()],
            ..Options::default()
        };
        let cluster = TestCluster::start_with(nodes, options);
        let rooms: Vec<_> = (0..6).map(|i| format!("room-{i}")).collect();
        rooms.iter().for_each(|room| cluster.room(room));
        let mut full = Full { cluster, rooms, acked: vec![] };
        full.post(2000);
        wait_for("purged logs", PATIENCE, || {
            let behind = |shard: &serde_json::Value| {
                shard["shard"] != 0 && shard["durable"].as_u64().unwrap() <= 2 * KEPT
            };
            match full.cluster.shards(0).into_iter().find(behind) {
                None => Ok(()),
                Some(shard) => Err(shard.to_string()),
            }
        });
        full
    }

    fn post(&mut self, more: u64) {
        let (urls, token) = (self.cluster.client_urls(), self.cluster.admin_token());
        let load = Load::start(&urls, token, &self.rooms, 12);
        load.wait_more(more);
        self.acked.extend(load.finish());
    }

    fn base(&self, node: usize) -> PathBuf {
        self.cluster.data_dir(node).join("rooms")
    }

    /// The last entry whose effect is in a node's base, of each shard of rooms.
    fn durable(&self, node: usize) -> BTreeMap<u64, u64> {
        let id = self.cluster.node_id(node, node);
        let shards = self.cluster.shards(node);
        let own = shards.iter().filter(|shard| shard["node"] == id && shard["shard"] != 0);
        let number = |shard: &serde_json::Value, key: &str| shard[key].as_u64().unwrap();
        own.map(|shard| (number(shard, "shard"), number(shard, "durable"))).collect()
    }

    /// Moves a node's state away.
    fn lose_base(&self, node: usize) {
        fs::rename(self.base(node), self.cluster.directory().join("moved away")).unwrap();
    }

    fn check(&self) {
        load::check_everywhere(&self.cluster, &self.rooms, &self.acked);
    }
}

#[test]
fn a_node_whose_state_is_gone_takes_it_from_another_one() {
    let mut full = Full::start(3);
    let id = full.cluster.node_id(0, 2);
    full.cluster.kill(2);
    full.lose_base(2);
    full.cluster.try_restart(2).unwrap();
    assert_eq!(full.cluster.node_id(0, 2), id, "it is the same node");
    assert!(full.cluster.log(2).contains("took the state from a peer"));
    full.post(200);
    full.check();
    // What it was given is durable.
    full.cluster.kill(2);
    full.cluster.try_restart(2).unwrap();
    full.check();
}

/// How many of them there are.
const DAMAGES: usize = 13;

/// Ways in which a file is damaged.
fn damages(whole: &[u8]) -> Vec<Vec<u8>> {
    let n = whole.len();
    let filled = |range: std::ops::Range<usize>, with: u8| {
        let mut bytes = whole.to_vec();
        bytes[range].fill(with);
        bytes
    };
    let mut damages = vec![
        whole[..n / 2].to_vec(),
        filled(n / 4..n / 2, 0xa5),
        filled(0..4096, 0xa5),
        filled(n - n / 4..n, 0),
        filled(0..n, 0x5a),
    ];
    for part in 0..8 {
        let at = n * part / 8 + 100;
        damages.push(filled(at..at + 1, !whole[at]));
    }
    damages
}

#[test]
fn a_node_whose_state_is_damaged_takes_it_from_another_one() {
    let mut full = Full::start(3);
    let id = full.cluster.node_id(0, 2);
    let db = full.base(2).join("db");
    let mut found = 0;
    for n in 0..DAMAGES {
        full.cluster.kill(2);
        let whole = fs::read(&db).unwrap();
        fs::write(&db, damages(&whole).swap_remove(n)).unwrap();
        let begin = full.cluster.log(2).len();
        full.cluster.try_restart(2).unwrap();
        let said = full.cluster.log(2)[begin..].to_string();
        if said.contains("was set aside") {
            let aside = full.cluster.data_dir(2).join("rooms.unreadable-1");
            fs::rename(aside, full.cluster.directory().join(format!("damage {n}"))).unwrap();
        }
        // sled may also take a damaged base for one that ends before the damage. Else what was
        // damaged is of no use any more, or what came after it is in the log.
        if said.contains("took the state from a peer") {
            found += 1;
        }
        full.check();
    }
    crate::common::say!("{found} of {DAMAGES} damages were found");
    assert!(found >= 5);
    assert_eq!(full.cluster.node_id(0, 2), id, "it is the same node");
    full.post(200);
    full.check();
}

/// An earlier state whose log has been purged since is not gone on from.
#[test]
fn a_node_whose_state_was_put_back_takes_a_newer_one() {
    let mut full = Full::start(3);
    full.cluster.kill(2);
    let earlier = full.cluster.directory().join("earlier");
    copy(&full.base(2), &earlier);
    full.cluster.try_restart(2).unwrap();
    // The copy goes no further than this.
    let copied = full.durable(2);
    full.post(3000);
    wait_for("its log to be purged beyond the copy", PATIENCE, || {
        let now = full.durable(2);
        if copied.iter().all(|(shard, entry)| now[shard] > entry + 2 * KEPT) {
            return Ok(());
        }
        full.post(100);
        Err(format!("{copied:?}, then {now:?}"))
    });
    full.cluster.stop(2);
    full.lose_base(2);
    fs::rename(earlier, full.base(2)).unwrap();
    full.cluster.try_restart(2).unwrap();
    assert!(full.cluster.log(2).contains("was set aside"));
    assert!(full.cluster.log(2).contains("took the state from a peer"));
    full.check();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

#[test]
fn the_only_node_says_that_nobody_else_has_its_state() {
    let mut full = Full::start(1);
    full.cluster.kill(0);
    full.lose_base(0);
    let said = full.cluster.try_restart(0).unwrap_err();
    assert!(said.contains("restore a backup"), "{said}");
    // Nor does it come up empty the next time.
    full.cluster.try_restart(0).unwrap_err();
    // The same with a damaged one, which is kept as sled leaves it.
    fs::remove_dir_all(full.base(0)).unwrap();
    fs::rename(full.cluster.directory().join("moved away"), full.base(0)).unwrap();
    fs::write(full.base(0).join("db"), "damaged").unwrap();
    let said = full.cluster.try_restart(0).unwrap_err();
    assert!(said.contains("restore a backup") && said.contains("rooms.unreadable-1"), "{said}");
    let aside = full.cluster.data_dir(0).join("rooms.unreadable-1");
    assert!(aside.join("db").exists());
}
