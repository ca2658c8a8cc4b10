//! `folkmoot cluster verify`, where one answer is not the last word: a replica whose node has just
//! started, or is still being dialled, cannot be asked yet, and is found to be `unverified`.

use std::time::Duration;

use serde_json::Value;

use super::cluster::TestCluster;
use super::wait_for;

/// How long a busy cluster may take until every replica can be asked.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a comparison came to.
pub struct Outcome {
    pub code: i32,
    /// Null where it says nothing to programs.
    pub json: Value,
    pub said: String,
}

impl Outcome {
    pub fn findings(&self) -> &[Value] {
        self.json["findings"].as_array().unwrap_or_else(|| panic!("{}", self.said))
    }
}

/// Asks one node once, with further arguments.
pub fn once(cluster: &TestCluster, via: usize, arguments: &[&str]) -> Outcome {
    let mut command = cluster.cli(via, &["cluster", "verify", "--json"]);
    let output = command.args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let json = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Outcome { code: output.status.code().expect("it ends by itself"), json, said }
}

/// Compares all replicas, and again while one could not be asked; whatever is found then.
pub fn compare(cluster: &TestCluster, via: usize) -> Outcome {
    wait_for("every replica to be compared", PATIENCE, || {
        let outcome = once(cluster, via, &["--timeout", "60s"]);
        let late = outcome.findings().iter().any(is_unverified);
        if late { Err(outcome.json.to_string()) } else { Ok(outcome) }
    })
}

/// Compares all replicas, which must be the same, and again while one could not be asked; what that
/// says to programs.
pub fn verify(cluster: &TestCluster, via: usize) -> Value {
    wait_for("every replica to be verified", PATIENCE, || {
        let outcome = once(cluster, via, &["--timeout", "60s"]);
        assert!(outcome.findings().iter().all(is_unverified), "{}", outcome.json);
        let is_well = outcome.code == 0 && outcome.json["ok"] == true;
        if is_well { Ok(outcome.json) } else { Err(outcome.json.to_string()) }
    })
}

fn is_unverified(finding: &Value) -> bool {
    finding["kind"] == "unverified"
}
