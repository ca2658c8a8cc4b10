//! `folkmoot-jepsen fault` and the scripts, as a stranger uses them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::cluster::{Options, TestCluster};
use crate::common::{say, wait_for};
use crate::world::{World, works};

fn jepsen(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_folkmoot-jepsen"));
    command.arg("fault").args(arguments).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

fn refused(arguments: &[&str]) -> String {
    let output = jepsen(arguments).output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    said
}

/// Waits until a node answers, for which it may take a while on a busy machine.
fn wait_answer(cluster: &TestCluster, i: usize) {
    let http = cluster.http(i).with_timeout(Duration::from_secs(1));
    wait_for("an answer", Duration::from_secs(30), || {
        http.get("/health/live").map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn the_list_says_of_each_fault_whether_it_works() {
    let output = jepsen(&["list", "--json"]).output().unwrap();
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let list = list.as_array().unwrap();
    assert!(list.len() >= 16);
    for fault in list {
        let missing = &fault["missing"];
        if !missing.is_null() {
            say!("SKIPPED elsewhere: {fault}");
            assert!(missing["how"].as_str().is_some_and(|how| !how.is_empty()), "{fault}");
        }
    }
    let text = said(&jepsen(&["list"]).output().unwrap());
    assert_eq!(text.lines().count(), list.len(), "{text}");
}

#[test]
fn what_is_needed_is_tried_and_told_by_the_exit_code() {
    let output = jepsen(&["list", "--need", "pause,bitflip", "--json"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = rows.as_array().unwrap().iter().map(|row| &row["fault"]).collect();
    assert_eq!(names, ["pause", "bitflip"]);
    // The probe of a pause takes `sleep`; the file of that of a flipped bit must be somewhere.
    let mut command = jepsen(&["list", "--need", "pause"]);
    let text = said(&command.env("PATH", "/nowhere").output().unwrap());
    assert!(text.contains("sleep"), "{text}");
    let mut command = jepsen(&["list", "--need", "bitflip"]);
    let text = said(&command.env("TMPDIR", "/nowhere").output().unwrap());
    assert!(text.contains("TMPDIR"), "{text}");
    let text = refused(&["list", "--need", "pause,flood"]);
    assert!(text.contains("flood") && text.contains("powercut"), "{text}");
}

#[test]
fn a_dry_run_says_all_and_does_nothing() {
    let cluster = TestCluster::start(1);
    let pid = cluster.pid(0).to_string();
    let said = said(&jepsen(&["kill", "--pid", &pid, "--majority", "--dry-run"]).output().unwrap());
    assert!(said.contains(&format!("kill -KILL {pid}")), "{said}");
    let output = jepsen(&["pause", "--pid", &pid, "--majority", "--dry-run", "--json"]).output();
    let plan: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(plan["fault"], "pause");
    assert_eq!(plan["nodes"][0]["pid"], cluster.pid(0));
    assert_eq!(plan["dry_run"], true);
    assert!(plan["heal"][0].as_str().unwrap().contains("kill -CONT"), "{plan}");
    wait_answer(&cluster, 0);
}

#[test]
fn a_fault_ends_in_time_and_when_the_program_is_told_to_stop() {
    let cluster = TestCluster::start(1);
    let pid = cluster.pid(0).to_string();
    let begin = Instant::now();
    let arguments = ["pause", "--pid", &pid, "--majority", "--for", "1500ms", "--json"];
    let output = jepsen(&arguments).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["healed"], true);
    assert!(begin.elapsed() >= Duration::from_millis(1500));
    wait_answer(&cluster, 0);
    let mut child =
        jepsen(&["pause", "--pid", &pid, "--majority", "--for", "10m"]).spawn().unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    wait_for("a pause", Duration::from_secs(20), || match state() {
        stat if stat.contains(") T ") => Ok(()),
        stat => Err(stat),
    });
    let number = Pid::from_raw(child.id() as i32).unwrap();
    kill_process(number, Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    wait_answer(&cluster, 0);
}

#[test]
fn what_would_do_other_harm_is_refused() {
    let cluster = TestCluster::start(3);
    let pids: Vec<_> = (0..3).map(|i| cluster.pid(i).to_string()).collect();
    let pid = &*pids[0];
    let two = pids[..2].join(",");
    let message = refused(&["kill", "--pid", &two]);
    assert!(message.contains("1 of 3 nodes") && message.contains("--majority"), "{message}");
    // One is paused: then no other may be hit.
    let paused = jepsen(&["pause", "--pid", &pids[2]]).output().unwrap();
    assert!(paused.status.success(), "{}", said(&paused));
    let others = pids[1..].join(",");
    let message = refused(&["kill", "--pid", pid, "--others", &others]);
    assert!(message.contains("is paused"), "{message}");
    let healed = jepsen(&["heal", "--pid", &pids[2]]).output().unwrap();
    assert!(healed.status.success(), "{}", said(&healed));
    for (arguments, why) in [
        (&["partition", "--pid", pid][..], "on one machine's address"),
        (&["powercut", "--pid", pid], "mkfs.ext4"),
        (&["diskfull", "--pid", pid], "mkfs.ext4"),
        (&["diskstall", "--pid", pid, "--for", "1s"], "mkfs.ext4"),
        (&["fsyncfail", "--pid", pid], "--for 30s"),
        (&["clock", "--pid", pid, "--offset", "60"], "libfaketime"),
        (&["kill", "--pid", &std::process::id().to_string()], "not folkmoot"),
    ] {
        let message = refused(arguments);
        let root = message.contains("not root");
        assert!(message.contains(why) || root, "{arguments:?}: {message}");
    }
    let message = refused(&["kill", "--pid", pid, "--others", &pids.join(",")]);
    assert!(message.contains("which is to be hit"), "{message}");
    let data_dir = cluster.data_dir(0).to_str().unwrap();
    let message = refused(&["bitflip", "--data-dir", data_dir, "--others", &others]);
    assert!(message.contains("a node runs on"), "{message}");
    let message = refused(&["bitflip", "--data-dir", data_dir]);
    assert!(message.contains("no majority"), "{message}");
    let message = refused(&["bitflip", "--data-dir", ".", "--majority"]);
    assert!(message.contains("no folkmoot data directory"), "{message}");
    (0..3).for_each(|i| wait_answer(&cluster, i));
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/faults")
}

fn script(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(scripts().join(format!("{name}.sh")));
    command.args(arguments).stdin(Stdio::null());
    command.env("FOLKMOOT_JEPSEN", env!("CARGO_BIN_EXE_folkmoot-jepsen"));
    command
}

#[test]
fn every_script_says_how_it_is_used() {
    let names = [
        "partition",
        "oneway",
        "heal",
        "delay",
        "loss",
        "kill",
        "pause",
        "resume",
        "powercut",
        "diskfull",
        "diskstall",
        "fsyncfail",
        "bitflip",
        "clock",
    ];
    for name in names {
        let output = script(name, &["--help"]).output().unwrap();
        let said = said(&output);
        assert!(output.status.success() && said.contains("Example"), "{name}: {said}");
        assert!(said.contains("--dry-run"), "{name}: {said}");
        let output = script(name, &[]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name} without arguments");
    }
    assert_eq!(
        std::fs::read_dir(scripts()).unwrap().count(),
        names.len() + 1,
        "one file is shared"
    );
}

#[test]
fn scripts_cut_a_node_off_and_heal_it() {
    if !works(&["partition"]) {
        return;
    }
    let world = World::start(3, 1024, Options::default());
    let pid = world.cluster.pid(1).to_string();
    let rules = || world.inside(1, &["nft", "list", "ruleset"]);
    let run = |name: &str, arguments: &[&str]| {
        let output = script(name, &[&["--pid", &pid], arguments].concat()).output().unwrap();
        assert!(output.status.success(), "{name}: {}", said(&output));
        said(&output)
    };
    let dry = run("partition", &["--dry-run"]);
    assert!(dry.contains("10.77.0.1") && dry.contains("10.77.0.3"), "{dry}");
    assert!(!rules().contains("folkmoot_fault"));
    run("partition", &[]);
    assert!(rules().contains("partition_in"), "{}", rules());
    run("heal", &[]);
    assert!(!rules().contains("folkmoot_fault"));
    run("oneway", &["--direction", "out", "--for", "100ms"]);
    assert!(!rules().contains("oneway_out"), "{}", rules());
    run("loss", &["--percent", "10", "--clients", "--for", "100ms"]);
    run("delay", &["--delay", "20ms", "--for", "100ms"]);
}
