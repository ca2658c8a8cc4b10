//! What operators order and ask, where one answer is not the last word: a node that answers late counts
//! as down, with nothing, and one that trails for a moment cannot lead yet.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::cluster::TestCluster;
use super::wait_for;

/// How long a busy cluster may take to be as it should.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gives an order, and gives it again for as long as it is refused with "try again later"; it must
/// succeed.
pub fn give(cluster: &TestCluster, arguments: &[&str]) {
    wait_for(&arguments.join(" "), PATIENCE, || {
        let mut command = cluster.cli(0, arguments);
        let output = command.args(["--timeout", "60s"]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
        if output.status.success() {
            return Ok(());
        }
        assert!(said.contains("try again later"), "{arguments:?}: {said}");
        Err(said)
    });
}

/// Waits until a node, which has a replica of each shard, has applied all there is. An acknowledgement says
/// that a majority has: not that this one has.
pub fn wait_level(cluster: &TestCluster, i: usize) {
    let id = cluster.node_id(i, i);
    wait_for(&format!("node {i} to have applied all there is"), PATIENCE, || {
        let replicas = cluster.shards(i);
        let shards = |fits: &dyn Fn(&Value) -> bool| -> BTreeSet<u64> {
            let fitting = replicas.iter().filter(|replica| fits(replica));
            fitting.map(|replica| replica["shard"].as_u64().unwrap()).collect()
        };
        let all = shards(&|_| true);
        // How far a replica trails is known where the shard's leader has answered.
        let led = shards(&|replica| replica["state"] == "leader");
        let level = shards(&|replica| replica["node"] == id && replica["lag"] == 0);
        if led == all && level == all { Ok(()) } else { Err(format!("{replicas:?}")) }
    });
}

/// Waits until a node is listed as up, and as it should be.
pub fn wait_node(cluster: &TestCluster, id: u64, what: &str, fits: impl Fn(&Value) -> bool) {
    wait_for(what, PATIENCE, || {
        let list = cluster.json(0, &["node", "list"]);
        let mut nodes = list["nodes"].as_array().unwrap().iter();
        match nodes.find(|node| node["id"] == id && node["up"] == true) {
            Some(node) if fits(node) => Ok(()),
            _ => Err(list.to_string()),
        }
    });
}
