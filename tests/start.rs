//! A node that can't start says why and what to do, exits with a failure, and damages nothing.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::cluster::{Options, TestCluster, folkmoot, free_port, succeed};
use crate::common::load::{self, Acked};
use crate::common::{catches, new_id, wait_for};

/// Runs a command that must end by itself, soon and with a failure; what it said.
fn fails(command: &mut Command) -> String {
    may_fail(command).unwrap_or_else(|said| panic!("it went on: {said}"))
}

/// The same of one that may go on, not having heard what is wrong; the error is what it said then.
fn may_fail(command: &mut Command) -> Result<String, String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            return Err(said(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert!(!output.status.success(), "it succeeded: {said}");
    assert!(output.status.code().is_some(), "it died by a signal: {said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(!said.is_empty(), "it said nothing");
    Ok(said)
}

/// Waits until a node answers soon: who starts passes over a neighbour that takes a second.
fn wait_answers(cluster: &TestCluster, i: usize) {
    let http = cluster.http(i).with_timeout(Duration::from_millis(500));
    wait_for("a neighbour to answer", Duration::from_secs(20), || match http.get("/health/live") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// Starts a node that must not run beside a neighbour, and once more where that one was passed over;
/// what it said.
pub fn refused_start(cluster: &TestCluster, i: usize, neighbour: usize) -> String {
    let start = || {
        wait_answers(cluster, neighbour);
        may_fail(&mut cluster.serve_command(i))
    };
    let refused = start().or_else(|_| start());
    refused.unwrap_or_else(|said| panic!("it went on: {said}"))
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

fn serve(data: &Path, client: u16, peer: u16) -> Command {
    let mut command = folkmoot();
    command.arg("serve").arg("--data-dir").arg(data);
    command.args(["--client-listen", &format!("127.0.0.1:{client}")]);
    command.args(["--peer-listen", &format!("127.0.0.1:{peer}")]);
    command
}

#[test]
fn a_port_in_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let message = fails(&mut serve(&directory.path().join("a"), port, free_port()));
    assert!(message.contains(&port.to_string()), "{message}");
    let message = fails(&mut serve(&directory.path().join("b"), free_port(), port));
    assert!(message.contains(&port.to_string()), "{message}");
}

#[test]
fn a_data_directory_that_is_a_file_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "mine").unwrap();
    let message = fails(&mut serve(file.path(), free_port(), free_port()));
    let why = format!("cannot use {}: not a directory", file.path().display());
    assert!(message.contains(&why), "{message}");
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "mine");
}

#[test]
fn a_directory_in_use_is_refused_and_its_owner_goes_on() {
    let cluster = TestCluster::start(1);
    cluster.room("general");
    let message = fails(&mut serve(cluster.data_dir(0), free_port(), free_port()));
    assert!(message.contains(&*cluster.data_dir(0).to_string_lossy()), "{message}");
    load::post(&cluster.client_urls(), cluster.admin_token(), "general", &new_id(), "still here");
}

#[test]
fn a_directory_of_another_cluster_is_refused() {
    let mut one = TestCluster::start(1);
    let mut other = TestCluster::start(3);
    one.stop(0);
    other.stop(2);
    let aside = other.directory().join("aside");
    std::fs::rename(other.data_dir(2), &aside).unwrap();
    copy(one.data_dir(0), other.data_dir(2));
    let message = refused_start(&other, 2, 0);
    assert!(message.contains("cluster"), "{message}");
    // With its own directory back, the node takes part again.
    std::fs::remove_dir_all(other.data_dir(2)).unwrap();
    std::fs::rename(&aside, other.data_dir(2)).unwrap();
    other.restart(2);
    other.wait_ready();
}

#[test]
fn a_directory_of_a_node_that_runs_elsewhere_is_refused() {
    // Where its twin is passed over, the cluster has two of one node, and is good for nothing.
    let refused = refuses_a_twin().or_else(|_| refuses_a_twin());
    refused.unwrap_or_else(|said| panic!("it went on: {said}"));
}

/// That a node does not start while it runs elsewhere; an error where it did.
fn refuses_a_twin() -> Result<(), String> {
    let mut cluster = TestCluster::start(3);
    cluster.room("general");
    cluster.stop(2);
    let aside = cluster.directory().join("aside");
    std::fs::rename(cluster.data_dir(2), &aside).unwrap();
    copy(cluster.data_dir(1), cluster.data_dir(2));
    wait_answers(&cluster, 1);
    let message = may_fail(&mut cluster.serve_command(2))?;
    assert!(message.contains("no node may run twice"), "{message}");
    std::fs::remove_dir_all(cluster.data_dir(2)).unwrap();
    std::fs::rename(&aside, cluster.data_dir(2)).unwrap();
    cluster.restart(2);
    cluster.wait_ready();
    load::post(&cluster.client_urls(), cluster.admin_token(), "general", &new_id(), "still here");
    Ok(())
}

/// Copies a directory; anew where a file was gone before its turn came, as the node may run.
fn copy(from: &Path, to: &Path) {
    wait_for("a copy", Duration::from_secs(20), || {
        let output = Command::new("cp").arg("-a").arg(from).arg(to).output().unwrap();
        if output.status.success() {
            return Ok(());
        }
        if to.exists() {
            std::fs::remove_dir_all(to).unwrap();
        }
        Err(said(&output))
    });
}

/// The files below a directory, and what is in them, but for the lock's.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !["LOCK", "ballast"].iter().any(|name| path.ends_with(name)) {
            let mut bytes = std::fs::read(&path).unwrap();
            // Zeros at a log's end are room for more, and may be given back.
            bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            found.insert(path, bytes);
        }
    }
    found
}

/// Overwrites some bytes at `part / of` of what is written of a file.
fn scribble(path: &Path, part: usize, of: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let begin = written * part / of;
    bytes[begin..(begin + 64).min(written)].fill(0xa5);
    std::fs::write(path, bytes).unwrap();
}

fn log_files(data: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = files(&data.join("log")).into_keys().collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "raftlog"));
    assert!(!paths.is_empty(), "no log files");
    paths
}

type Damage = fn(&Path);

/// A node that was stopped, a copy of its data, and what it acknowledged.
fn stopped_with_messages() -> (TestCluster, PathBuf, Vec<Acked>) {
    let mut cluster = TestCluster::start(1);
    cluster.room("general");
    let (urls, token) = (cluster.client_urls(), cluster.admin_token().to_owned());
    let acked: Vec<_> =
        (0..50).map(|n| load::post(&urls, &token, "general", &new_id(), &n.to_string())).collect();
    cluster.stop(0);
    let good = cluster.directory().join("good");
    copy(cluster.data_dir(0), &good);
    (cluster, good, acked)
}

#[test]
fn a_damaged_or_missing_file_is_named_and_nothing_is_touched() {
    let (mut cluster, good, acked) = stopped_with_messages();
    let data = cluster.data_dir(0).to_owned();
    let rooms = ["general".to_owned()];
    let cases: [(&str, Damage, &str); 7] = [
        (
            "identity garbled",
            |d| write(&d.join("log/identity.json"), "{"),
            "identity.json does not",
        ),
        ("identity missing", |d| remove(&d.join("log/identity.json")), "no identity.json"),
        ("membership garbled", |d| write(&d.join("cluster.bin"), "junk"), "cluster.bin in the"),
        ("membership missing", |d| remove(&d.join("cluster.bin")), "cluster.bin in the"),
        ("instance garbled", |d| write(&d.join("instance"), "x"), "instance in the"),
        ("log missing", |d| log_files(d).iter().for_each(|f| remove(f)), "Raft log is missing"),
        ("log garbled", |d| log_files(d).iter().for_each(|f| scribble(f, 1, 2)), "under a new id"),
    ];
    for (name, damage, expected) in cases {
        damage(&data);
        let before = files(&data);
        let message = fails(&mut cluster.serve_command(0));
        assert!(message.contains(expected), "{name}: {message}");
        let after = files(&data);
        let changed: Vec<_> = before.iter().filter(|(p, b)| after.get(*p) != Some(*b)).collect();
        assert!(changed.is_empty(), "{name}: changed {:?}", changed[0].0);
        std::fs::remove_dir_all(&data).unwrap();
        copy(&good, &data);
    }
    cluster.restart(0);
    cluster.wait_ready();
    load::check_everywhere(&cluster, &rooms, &acked);
}

fn write(path: &Path, text: &str) {
    assert!(path.exists());
    std::fs::write(path, text).unwrap();
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

/// sled may find that an end was torn, and the log then has what is missing; or it cannot read its
/// file, which is set aside then. Never is less served than was acknowledged.
#[test]
fn a_damaged_base_is_rebuilt_from_the_log() {
    let (mut cluster, good, acked) = stopped_with_messages();
    let data = cluster.data_dir(0).to_owned();
    let rooms = ["general".to_owned()];
    let mut set_aside = 0;
    for part in 0..=16 {
        match part {
            16 => write(&data.join("rooms/conf"), "no configuration at all"),
            part => scribble(&data.join("rooms/db"), part, 16),
        }
        let damaged = files(&data.join("rooms"));
        cluster.try_restart(0).unwrap();
        load::check_everywhere(&cluster, &rooms, &acked);
        cluster.kill(0);
        let aside = data.join("rooms.unreadable-1");
        if aside.exists() {
            assert_eq!(files(&aside).len(), damaged.len(), "nothing of it was removed");
            set_aside += 1;
        }
        std::fs::remove_dir_all(&data).unwrap();
        copy(&good, &data);
    }
    assert!(set_aside > 0);
}

#[test]
fn a_bad_configuration_is_named_and_makes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let file = directory.path().join("node.toml");
    let cases = [
        ("[raft]\nheartbeat = \"1s\"\n", "heartbeat_interval"),
        ("[raft]\nheartbeat_interval = \"soon\"\n", "node.toml:2: "),
        ("[limits]\nsessions_max = 0\n", "limits.sessions_max"),
        ("[node\n", "node.toml:1: "),
    ];
    for (text, expected) in cases {
        std::fs::write(&file, text).unwrap();
        let message = fails(serve(&data, free_port(), free_port()).arg("--config").arg(&file));
        assert!(message.contains("bad configuration") && message.contains(expected), "{message}");
    }
    let nowhere = directory.path().join("nowhere.toml");
    let message = fails(serve(&data, free_port(), free_port()).arg("--config").arg(&nowhere));
    assert!(message.contains("nowhere.toml"), "{message}");
    let mut command = serve(&data, free_port(), free_port());
    let message = fails(command.env("FOLKMOOT_LIMITS_SESSIONS_MAX", "many"));
    assert!(message.contains("FOLKMOOT_LIMITS_SESSIONS_MAX"), "{message}");
    assert!(!data.exists(), "a data directory was made");
}

/// Whoever interrupts `cluster init` is told the token with which it is run again, and that is the
/// administrator's then, whatever had become of the first time.
#[test]
fn an_init_that_is_interrupted_is_run_again() {
    let mut cluster = TestCluster::start_uninitialized(3, Options::default());
    let init = |cluster: &TestCluster, further: &[&str]| {
        let mut command = folkmoot();
        command.args(["cluster", "init", "--json", "--server", &cluster.url(0)]).args(further);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    // The third one is not there: it waits.
    cluster.kill(2);
    let waiting = init(&cluster, &[]).spawn().unwrap();
    wait_for("it to listen to signals", Duration::from_secs(20), || {
        if catches(waiting.id(), Signal::INT) { Ok(()) } else { Err("it does not".into()) }
    });
    kill_process(Pid::from_child(&waiting), Signal::INT).unwrap();
    let ended = waiting.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    let token = said.split("--admin-token ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    cluster.restart(2);
    // Killed at some time, and asked twice at once.
    for after in [0, 30, 100, 300] {
        let mut killed = init(&cluster, &["--admin-token", &token]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(after));
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    let twice = [0, 1].map(|_| init(&cluster, &["--admin-token", &token]).spawn().unwrap());
    let formed = twice.map(|init| succeeded(init.wait_with_output().unwrap()));
    assert_eq!((&formed[0], formed[0]["admin_token"].as_str()), (&formed[1], Some(token.as_str())));
    let mut list = folkmoot();
    list.args(["node", "list", "--json", "--server", &cluster.url(1)])
        .env("FOLKMOOT_TOKEN", &token);
    let list: Value = serde_json::from_slice(&succeed(&mut list)).unwrap();
    assert_eq!(list["nodes"].as_array().unwrap().len(), 3);
    let other = format!("fm_admin_{}", "0".repeat(64));
    let said = fails(&mut init(&cluster, &["--admin-token", &other]));
    assert!(said.contains("already_initialized"), "{said}");
    let said = fails(&mut init(&cluster, &["--admin-token", &token, "--shards", "9"]));
    assert!(said.contains("initialised already, with 8 shards"), "{said}");
    for further in [&["--admin-token", "secret"][..], &["--dry-run", "--admin-token", "secret"]] {
        let said = fails(&mut init(&cluster, further));
        assert!(said.contains("64 random hex digits") && !said.contains("secret"), "{said}");
    }
}

fn succeeded(output: Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn bad_usage_exits_with_64() {
    for arguments in [&["serve", "--no-such-flag"][..], &["no-such-command"]] {
        let output = folkmoot().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    }
}
