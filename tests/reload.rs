//! SIGHUP: a running node takes what may change from its configuration, says what needs a restart,
//! and keeps the old one where the new one is bad.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::cluster::{Options, TestCluster};
use crate::common::sse::Sse;
use crate::common::{new_id, wait_for};
use rustix::process::Signal;
use serde_json::json;

struct Reloaded {
    cluster: TestCluster,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

impl Reloaded {
    fn start(text: &str) -> Reloaded {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("node.toml");
        std::fs::write(&file, text).unwrap();
        let options = Options { configs: vec![file.clone()], ..Default::default() };
        let cluster = TestCluster::start_with(1, options);
        cluster.room("tea");
        Reloaded { cluster, file, _directory: directory }
    }

    /// Writes the file anew and sends the signal; what the node says until `expected` is in it.
    fn reload(&self, text: &str, expected: &str) -> String {
        let begin = self.cluster.log(0).len();
        std::fs::write(&self.file, text).unwrap();
        self.cluster.signal(0, Signal::HUP);
        wait_for("the node to say so", Duration::from_secs(20), || {
            let said = self.cluster.log(0)[begin..].to_owned();
            if said.contains(expected) { Ok(said) } else { Err(said) }
        })
    }

    fn post(&self, bytes: usize) -> u16 {
        let body = json!({ "text": "x".repeat(bytes), "client_msg_id": new_id() });
        self.cluster.admin(0).post("/v1/rooms/tea/messages", &body).unwrap().status
    }
}

#[test]
fn limits_change_while_a_node_runs() {
    let node = Reloaded::start("[limits]\ntext_bytes_max = \"64B\"\nsessions_max = 1\n");
    let http = node.cluster.admin(0);
    assert_eq!((node.post(64), node.post(65)), (200, 413));
    let first = Sse::open(&http, "tea", Some(0), None).unwrap();
    let refused = Sse::open(&http, "tea", Some(0), None).err().unwrap().to_string();
    assert!(refused.contains("too_many_connections"), "{refused}");

    let wider = "[limits]\ntext_bytes_max = \"128B\"\nsessions_max = 2\n\
        [store]\nsnapshot_bytes_per_second = \"1MiB\"\n";
    let said = node.reload(wider, "configuration reloaded");
    assert!(said.contains("limits.text_bytes_max limits.sessions_max"), "{said}");
    assert!(said.contains("store.snapshot_bytes_per_second"), "{said}");
    assert!(!said.contains("restart"), "{said}");
    wait_for("the limits to be in force", Duration::from_secs(5), || match node.post(128) {
        200 => Ok(()),
        status => Err(format!("{status}")),
    });
    assert_eq!(node.post(129), 413);
    let _second = Sse::open(&http, "tea", Some(0), None).unwrap();
    assert!(Sse::open(&http, "tea", Some(0), None).is_err());

    // Back again: what is open stays open, and counts.
    node.reload("[limits]\nsessions_max = 1\n", "configuration reloaded");
    wait_for("the limits to be in force", Duration::from_secs(5), || match node.post(129) {
        200 => Ok(()),
        status => Err(format!("{status}")),
    });
    drop(first);
    assert!(Sse::open(&http, "tea", Some(0), None).is_err());
}

#[test]
fn what_needs_a_restart_is_named_and_a_bad_file_changes_nothing() {
    let good = "[limits]\ntext_bytes_max = \"64B\"\n";
    let node = Reloaded::start(good);
    let slower = format!("{good}[raft]\nheartbeat_interval = \"90ms\"\n");
    let said = node.reload(&slower, "configuration reloaded");
    assert!(said.contains("raft.heartbeat_interval") && said.contains("restart"), "{said}");

    let bad = "[limits]\ntext_bytes_max = \"128B\"\nsessions_may = 3\n";
    let said = node.reload(bad, "stays as it was");
    assert!(said.contains("node.toml:3: ") && said.contains("sessions_max"), "{said}");
    let contradiction = "[limits]\ntext_bytes_max = \"128B\"\nrequest_timeout = \"10ms\"\n";
    let said = node.reload(contradiction, "stays as it was");
    assert!(said.contains("node.toml:3: limits.request_timeout"), "{said}");
    std::fs::remove_file(&node.file).unwrap();
    node.cluster.signal(0, Signal::HUP);
    wait_for("the missing file to be named", Duration::from_secs(20), || {
        let log = node.cluster.log(0);
        if log.contains("cannot read") { Ok(()) } else { Err(log) }
    });
    assert_eq!((node.post(64), node.post(65)), (200, 413), "the old limits hold");
}

#[test]
fn the_log_becomes_as_talkative_as_one_likes() {
    let node = Reloaded::start("[log]\nfilter = \"error\"\n");
    assert!(!node.cluster.log(0).contains("listening"), "{}", node.cluster.log(0));
    node.reload("[log]\nfilter = \"info\"\n", "configuration reloaded");
    node.reload("[log]\nfilter = \"debug\"\n", "DEBUG");
}

#[test]
fn the_signal_ends_no_node_without_a_file() {
    let cluster = TestCluster::start(1);
    cluster.signal(0, Signal::HUP);
    wait_for("the node to have read nothing new", Duration::from_secs(20), || {
        let log = cluster.log(0);
        if log.contains("configuration reloaded") { Ok(()) } else { Err(log) }
    });
    let ready = cluster.http(0).get("/health/ready").unwrap();
    ready.expect_status(200);
    assert!(Path::new(cluster.data_dir(0)).exists());
}
