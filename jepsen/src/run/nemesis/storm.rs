//! A node that has to take snapshots, and one that takes checkpoints and rewrites its base all the
//! time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::cluster::made::wait;
use crate::run::nemesis::act::{Undo, start};
use crate::run::nemesis::cut;

/// Entries that each node keeps in its log though its checkpoint has them, for those that are slow.
const ENTRIES_KEPT: u64 = 64;
/// How long a node may be away until the others' logs no longer reach back to it.
const BEHIND_WITHIN: Duration = Duration::from_secs(20);
/// How often to ask the others.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// Without a word of how far a node's log reaches, it is away for so long.
const AWAY: Duration = Duration::from_millis(3_500);
/// So often a node falls behind in one attack.
const TIMES: usize = 3;
/// Between two rewrites of a base.
const COMPACT_PAUSE: Duration = Duration::from_millis(50);
/// The shortest there is.
const CHECKPOINTS: &[&str] = &["--set", "store.checkpoint_interval=100ms"];
/// What a node says that has taken a snapshot.
pub const INSTALLED: &str = "installed a snapshot";

/// The last entry of a node's log in each shard, as any node tells it.
type Lasts = BTreeMap<u64, u64>;

/// Kills a node, and waits until the others' checkpoints are so far ahead of its log that it needs a
/// snapshot; whether they are.
pub(super) fn fall_behind(cluster: &Cluster, place: usize) -> bool {
    let node = &cluster.nodes[place];
    let told = node.cluster();
    node.kill();
    let Some((id, mine)) = told.as_ref().and_then(own) else {
        std::thread::sleep(AWAY);
        return false;
    };
    let begin = std::time::Instant::now();
    while begin.elapsed() < BEHIND_WITHIN {
        let others = cluster.nodes.iter().filter(|other| other.name != node.name);
        let running = others.filter(|other| other.running().is_some());
        if running.filter_map(|other| other.cluster()).any(|said| is_ahead(&said, id, &mine)) {
            return true;
        }
        std::thread::sleep(ASK_EVERY);
    }
    false
}

fn replicas(said: &Value) -> impl Iterator<Item = &Value> {
    said["shards"].as_array().into_iter().flatten()
}

/// The id of the node that says it, and how far its logs reach.
fn own(said: &Value) -> Option<(u64, Lasts)> {
    let id = said["node_id"].as_u64()?;
    let own = replicas(said).filter(|replica| replica["node"].as_u64() == Some(id));
    let lasts: Lasts = own
        .filter_map(|replica| Some((replica["shard"].as_u64()?, replica["last_log"].as_u64()?)))
        .collect();
    (!lasts.is_empty()).then_some((id, lasts))
}

/// Whether in some shard all others that are heard of have purged their logs beyond these ends.
fn is_ahead(said: &Value, id: u64, mine: &Lasts) -> bool {
    let mut durable: BTreeMap<u64, u64> = BTreeMap::new();
    for replica in replicas(said).filter(|replica| replica["node"].as_u64() != Some(id)) {
        if let (Some(shard), Some(at)) = (replica["shard"].as_u64(), replica["durable"].as_u64()) {
            let least = durable.entry(shard).or_insert(at);
            *least = at.min(*least);
        }
    }
    mine.iter().any(|(shard, last)| {
        durable.get(shard).is_some_and(|durable| *durable > last + ENTRIES_KEPT)
    })
}

/// Lets a node fall behind and come back, several times; a node that needed no snapshot then is
/// noted.
pub(super) fn snapshots(cluster: &Cluster, place: usize, undo: &mut Undo) -> Result<(), String> {
    let node = &cluster.nodes[place];
    let mut taken = 0;
    for _ in 0..TIMES {
        fall_behind(cluster, place);
        let from = node.log_length();
        start(node)?;
        taken += usize::from(node.said_since(from, INSTALLED) > 0);
    }
    undo.notes.push(format!("a snapshot in {taken} of {TIMES}"));
    Ok(())
}

/// A node that takes checkpoints ten times a second and rewrites its base in between.
#[derive(Debug)]
pub(super) struct Checkpoints {
    place: usize,
    /// Whether its power is cut in the middle of it; else it is killed.
    cut: bool,
    stop: Arc<AtomicBool>,
    /// Rewrites the base; how often it did.
    thread: Option<JoinHandle<u64>>,
}

impl Checkpoints {
    /// Restarts the node for it.
    pub(super) fn begin(cluster: &Cluster, place: usize, cut: bool) -> Result<Self, String> {
        let node = cluster.nodes[place].clone();
        let stop = Arc::new(AtomicBool::new(false));
        let mut checkpoints = Checkpoints { place, cut, stop: stop.clone(), thread: None };
        node.stop()?;
        node.set_extra(CHECKPOINTS);
        // Whoever starts it again then starts it as it was.
        start(&node).inspect_err(|_| node.set_extra(&[]))?;
        let token = cluster.admin().map(|admin| admin.token.clone()).unwrap_or_default();
        checkpoints.thread = Some(std::thread::spawn(move || {
            let mut times = 0;
            while !stop.load(Ordering::Relaxed) {
                // It refuses while its disk is full, and while it is not ready.
                times += u64::from(node.compact(&token).is_ok());
                std::thread::sleep(COMPACT_PAUSE);
            }
            times
        }));
        Ok(checkpoints)
    }

    /// Ends the node in the middle of it, and starts it as it was; how often it rewrote its base.
    pub(super) fn end(mut self, cluster: &Cluster) -> Result<u64, String> {
        let node = &cluster.nodes[self.place];
        node.set_extra(&[]);
        let ended = match self.cut && node.disk.is_some() {
            true => cut::off(cluster, &[self.place]),
            false => {
                node.kill();
                Ok(())
            }
        };
        self.stop.store(true, Ordering::Relaxed);
        let times = self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let started = node.start().map_err(|error| format!("{}: {error}", node.name));
        // Waiting keeps what comes next from meeting a node that is only just starting.
        wait(ASK_EVERY, || node.is_ready());
        ended.and(started).map(|()| times)
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_needs_a_snapshot_when_all_others_have_dropped_what_it_lacks() {
        let replica = |shard: u64, node: u64, last_log: u64, durable: u64| json!({ "shard": shard, "node": node, "last_log": last_log, "durable": durable });
        let said = |rows: Vec<Value>| json!({ "node_id": 2, "shards": rows });
        let (id, mine) =
            own(&said(vec![replica(1, 1, 50, 40), replica(1, 2, 45, 40), replica(2, 2, 100, 90)]))
                .unwrap();
        assert_eq!((id, mine.clone()), (2, Lasts::from([(1, 45), (2, 100)])));
        let ahead = |rows| is_ahead(&said(rows), id, &mine);
        assert!(ahead(vec![replica(1, 1, 200, 110), replica(1, 3, 200, 130)]));
        assert!(!ahead(vec![replica(1, 1, 200, 109), replica(1, 3, 200, 130)]), "one has them");
        assert!(!ahead(vec![replica(1, 2, 200, 190)]), "that is what it has itself");
        assert!(ahead(vec![replica(1, 1, 60, 50), replica(2, 3, 200, 165)]), "one shard will do");
        assert!(!ahead(vec![]));
        assert_eq!(own(&json!({ "node_id": 2, "shards": [] })), None);
    }
}
