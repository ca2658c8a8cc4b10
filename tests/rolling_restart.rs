//! `scripts/rolling-restart` restarts a cluster under load, node by node, and nobody notices; and
//! it refuses to make a bad thing worse.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::common::cluster::TestCluster;
use crate::common::load::{self, Load};
use crate::common::wait_for;

/// What the script needs beside us.
fn tools_are_here() -> bool {
    let missing: Vec<_> = ["curl", "jq"]
        .into_iter()
        .filter(|tool| Command::new(tool).arg("--version").output().is_err())
        .collect();
    if !missing.is_empty() {
        crate::common::say!("SKIPPED: apt-get install {}", missing.join(" "));
    }
    missing.is_empty()
}

fn script(server: &str, arguments: &[&str]) -> Command {
    let mut command =
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/rolling-restart"));
    command.args(["--folkmoot", env!("CARGO_BIN_EXE_folkmoot"), "--server", server]);
    command.args(arguments).env_remove("FOLKMOOT_SERVER").env_remove("FOLKMOOT_TOKEN");
    command.stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

/// A node must be ready. A disk that is slow for a moment holds up what it applies under load, or
/// has a shard elect another leader, and that alone is waited out.
fn must_be_well(cluster: &TestCluster, i: usize) {
    wait_for("a node to have leaders, and what there is", Duration::from_secs(10), || {
        let ready = cluster.http(i).get("/health/ready").unwrap();
        let said = String::from_utf8_lossy(&ready.body).into_owned();
        let passes = ["entries to apply", "has no leader"].iter().any(|why| said.contains(why));
        if ready.status == 503 && passes {
            return Err(said);
        }
        ready.expect_status(200);
        Ok(())
    });
}

/// A command that asks the test to restart node `{id}`, and waits until it has.
fn asks_in(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "touch {directory}/asked.{{id}}; until test -e {directory}/done.{{id}}; do sleep 0.02; done"
    )
}

#[test]
fn a_cluster_is_restarted_under_load() {
    if !tools_are_here() {
        return;
    }
    let mut cluster = TestCluster::start(3);
    let rooms: Vec<String> = (0..8).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 12);
    load.wait_more(100);
    let directory = tempfile::tempdir().unwrap();
    let command = asks_in(directory.path());
    let servers = cluster.client_urls().join(",");
    let mut script = script(&servers, &["--restart-command", &command, "--timeout", "60"]);
    let mut script = script.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut turns = vec![];
    while turns.len() < 3 {
        let id = wait_for("the script to ask", Duration::from_secs(90), || {
            let ids = (1..=3).filter(|id| !turns.contains(id));
            let asked = |id: &u64| directory.path().join(format!("asked.{id}")).exists();
            if let Some(status) = script.try_wait().unwrap() {
                panic!("it ended with {status}");
            }
            ids.into_iter().find(asked).ok_or_else(|| "nothing is asked".into())
        });
        turns.push(id);
        // The others must be well before this one is taken away.
        let i = (0..3).find(|i| cluster.node_id((i + 1) % 3, *i) == id).unwrap();
        for j in (0..3).filter(|j| *j != i) {
            must_be_well(&cluster, j);
        }
        assert!(cluster.stop(i).success());
        cluster.restart(i);
        std::fs::write(directory.path().join(format!("done.{id}")), "").unwrap();
    }
    assert_eq!(turns, [1, 2, 3]);
    let output = script.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("all restarted: 1 2 3"), "{}", said(&output));
    must_be_well(&cluster, 2);
    load.wait_more(100);
    let acked = load.finish();
    load::check_everywhere(&cluster, &rooms, &acked);
    crate::common::say!("{} messages while all nodes were restarted, none lost", acked.len());
}

#[test]
fn an_unhealthy_cluster_is_left_alone() {
    if !tools_are_here() {
        return;
    }
    let mut cluster = TestCluster::start(3);
    let directory = tempfile::tempdir().unwrap();
    let touched: PathBuf = directory.path().join("touched");
    let command = format!("touch {}", touched.display());
    let servers = cluster.client_urls().join(",");

    let plan = [
        "--dry-run",
        "--restart-command",
        "systemctl restart folkmoot",
        "--on",
        "ssh root@{host} # {id}",
    ];
    let output = script(&servers, &plan).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let planned = "node 2: ssh root@127.0.0.1 # 2 systemctl restart folkmoot";
    assert_eq!(said(&output).lines().count(), 3, "{}", said(&output));
    assert!(said(&output).contains(planned), "{}", said(&output));

    // A command that fails ends it: the rest is left as it is.
    let output = script(&servers, &["--restart-command", "false"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("the command for node 1 failed"), "{}", said(&output));

    let down = cluster.node_id(0, 2);
    cluster.kill(2);
    let output = script(&servers, &["--restart-command", &command]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains(&format!("node {down} is down")), "{}", said(&output));
    assert!(said(&output).contains("nothing was restarted"), "{}", said(&output));
    assert!(!touched.exists());
}

#[test]
fn bad_usage_is_named() {
    let nowhere = "http://127.0.0.1:1";
    let usage: [(&[&str], &str); 5] = [
        (&[], "--restart-command"),
        (&["--restart-command"], "needs a value"),
        (&["--restart-command", "x", "--timeout", "soon"], "--timeout"),
        (&["--restart-command", "x", "--nodes", "a"], "--nodes"),
        (&["--restart-everything"], "--restart-everything"),
    ];
    for (arguments, expected) in usage {
        let output = script(nowhere, arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(said(&output).contains(expected), "{}", said(&output));
    }
    let output = script(nowhere, &["--help"]).output().unwrap();
    assert!(output.status.success() && said(&output).contains("--dry-run"), "{}", said(&output));
    if tools_are_here() {
        let output = script(nowhere, &["--restart-command", "x"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains("cannot be asked"), "{}", said(&output));
    }
}
