//! A node that can't start says why and what to do, exits with a failure, and damages nothing.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::cluster::{TestCluster, folkmoot, free_port};
use common::{load, new_id};

/// Runs a command that must end by itself, soon and with a failure; what it said.
fn fails(command: &mut Command) -> String {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("it went on: {}", said(&output));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert!(!output.status.success(), "it succeeded: {said}");
    assert!(output.status.code().is_some(), "it died by a signal: {said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(!said.is_empty(), "it said nothing");
    said
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

fn serve(data: &std::path::Path, client: u16, peer: u16) -> Command {
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
    assert!(message.contains(&*file.path().to_string_lossy()), "{message}");
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
    let status = Command::new("cp").arg("-a").arg(one.data_dir(0)).arg(other.data_dir(2)).status();
    assert!(status.unwrap().success());
    let message = fails(&mut other.serve_command(2));
    assert!(message.contains("cluster"), "{message}");
    // With its own directory back, the node takes part again.
    std::fs::remove_dir_all(other.data_dir(2)).unwrap();
    std::fs::rename(&aside, other.data_dir(2)).unwrap();
    other.restart(2);
    other.wait_ready();
}

#[test]
fn bad_usage_exits_with_64() {
    for arguments in [&["serve", "--no-such-flag"][..], &["no-such-command"]] {
        let output = folkmoot().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    }
}
