//! IRC logs go in and come out byte for byte, once each, whatever interrupts the import; and
//! exports verify offline.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::cluster::{TestCluster, folkmoot, succeed};
use crate::common::load;
use serde_json::Value;

/// Lines of every shape, awkward ones included, and `n` ordinary ones.
fn log_text(n: usize) -> String {
    let mut text = String::from(
        "=== nobody has joined #tea\n[00:01] <ann> hello\n[00:01]  * ann waves\n\
         [00:02] * bob waves back, after one space\n[00:02] <Ann|away[]\\^{}`> not a slug\n\
         [00:03] <ann>\n[00:03] <ann> \n[00:04] <bob>  two spaces, and two at the end  \n\
         [00:05] <ann> \u{1}control\u{2}\tand tab\n[00:06] <zoë> ünïcödé ☕\n\n\
         [25:99] <ann> no such time\nno brackets at all\n[00:07] <> nobody\n\
         [23:59] <ann> late\n[00:01] <ann> after midnight\n=== ann is now known as ann2\n",
    );
    for i in 0..n {
        text.push_str(&format!("[{:02}:{:02}] <nick{}> line {i}\n", i / 60 % 24, i % 60, i % 700));
    }
    text
}

fn export_irc(cluster: &TestCluster, node: usize, room: &str) -> String {
    let output = succeed(&mut cluster.cli(node, &["export", room, "--format", "irc"]));
    String::from_utf8(output).unwrap()
}

fn write_log(directory: &Path, room: &str, text: &str) -> PathBuf {
    let path = directory.join(format!("{room}.txt"));
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn an_import_comes_out_byte_for_byte_and_only_once() {
    let cluster = TestCluster::start(3);
    let text = log_text(3000);
    let file = write_log(cluster.directory(), "tea", &text);
    let file = file.to_str().unwrap();
    for round in 0..2 {
        succeed(&mut cluster.cli(round, &["import", "irc", file]));
        for node in 0..3 {
            assert!(export_irc(&cluster, node, "tea") == text, "round {round}, node {node}");
        }
    }
    let log = load::read_room(&cluster.admin(0), "tea", "linearizable");
    let said = log.iter().filter(|e| ["message", "action", "notice"].contains(&&*e.kind)).count();
    assert_eq!(said, text.lines().count());
    let joined: Vec<u64> = log.iter().filter(|e| e.kind == "join").map(|e| e.seq).collect();
    assert_eq!(joined, [1], "the room's creator is in it; imports join nobody");
    people_and_times_are_kept(&cluster);
}

/// Nicks become users with slugs of their own and the nick as display name, and lines keep their
/// times; without a date the first day is the epoch's.
fn people_and_times_are_kept(cluster: &TestCluster) {
    let admin = cluster.admin(0);
    let page = admin.get("/v1/users?limit=1000").unwrap().expect(200);
    let users = page["users"].as_array().unwrap();
    let text = |user: &Value, field: &str| user[field].as_str().unwrap_or_default().to_owned();
    for nick in ["ann", "bob", "Ann|away[]\\^{}`", "zoë"] {
        let named = users.iter().filter(|user| text(user, "display_name") == nick).count();
        assert_eq!(named, 1, "{nick} is one user");
    }
    let slugs: BTreeSet<_> = users.iter().map(|user| text(user, "user")).collect();
    assert_eq!(slugs.len(), users.len());
    let page = admin.get("/v1/rooms/tea/events?after=0&limit=10").unwrap().expect(200);
    let events = page["events"].as_array().unwrap();
    let hello = events.iter().find(|event| event["text"] == "hello").unwrap();
    assert_eq!(hello["original_at"], "1970-01-01T00:01:00.000Z");
}

#[test]
fn an_import_that_is_killed_with_the_nodes_around_it_goes_on_where_it_was() {
    let mut cluster = TestCluster::start(3);
    let text = log_text(20_000);
    let file = write_log(cluster.directory(), "tea", &text);
    let file = file.to_str().unwrap();
    for victim in 0..3 {
        let mut import = cluster.cli(0, &["import", "irc", file]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        cluster.kill(victim);
        std::thread::sleep(Duration::from_millis(700));
        // It may have ended by itself, for good or ill.
        let _ = import.kill();
        import.wait().unwrap();
        cluster.restart(victim);
        cluster.wait_ready();
    }
    succeed(&mut cluster.cli(0, &["import", "irc", file]));
    for node in 0..3 {
        assert!(export_irc(&cluster, node, "tea") == text, "node {node}");
    }
}

#[test]
fn an_export_verifies_offline_and_a_changed_one_does_not() {
    let cluster = TestCluster::start(1);
    let file = write_log(cluster.directory(), "tea", &log_text(200));
    succeed(&mut cluster.cli(0, &["import", "irc", file.to_str().unwrap()]));
    let export = String::from_utf8(succeed(&mut cluster.cli(0, &["export", "tea"]))).unwrap();
    let out = cluster.directory().join("out");
    let mut nowhere = cluster.cli(0, &["export", "tea", "nowhere", "--out"]);
    assert!(!nowhere.arg(&out).output().unwrap().status.success());
    let made: Vec<_> = std::fs::read_dir(&out).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(made, ["tea.jsonl"], "nothing is left of what failed");
    let path = cluster.directory().join("tea.jsonl");
    let verify = |text: &str| {
        std::fs::write(&path, text).unwrap();
        folkmoot().arg("verify").arg(&path).output().unwrap().status.success()
    };
    assert!(verify(&export));
    assert!(!verify(&export.replacen("hello", "hallo", 1)), "a changed text");
    let mut lines: Vec<_> = export.lines().collect();
    lines.remove(7);
    assert!(!verify(&(lines.join("\n") + "\n")), "a missing line");
    let mut lines: Vec<_> = export.lines().collect();
    lines.swap(7, 8);
    assert!(!verify(&(lines.join("\n") + "\n")), "two lines in another order");
    lines.swap(7, 8);
    lines.pop();
    assert!(!verify(&(lines.join("\n") + "\n")), "the end is cut off");
}
