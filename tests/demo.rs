//! `folkmoot demo`: three nodes, a room and two users at once; a killed node does not matter; all
//! ends with Ctrl-C, and goes on with the next run.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::common::cluster::{folkmoot, free_ports};
use crate::common::http::Http;
use crate::common::lines::Lines;
use crate::common::load::{self, Acked};
use crate::common::{new_id, wait_for};

/// How long the demo may take to get ready or to stop, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Ports that three nodes use: base port + 10·(i−1) and the next.
const PORTS: u16 = 22;

/// A running demo. Its nodes stop when it is gone, however that happens.
struct Demo {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Demo {
    fn start(dir: &Path, base_port: u16) -> Demo {
        let mut command = folkmoot();
        command.args(["demo", "--json", "--base-port", &base_port.to_string(), "--dir"]).arg(dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Demo { child, stdout, stderr }
    }

    /// The first line of its output.
    fn ready(&mut self) -> Value {
        let line = wait_for("the demo to be ready", PATIENCE, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the demo ended with {status}");
            }
            self.stdout.all().first().cloned().ok_or_else(|| "no output".into())
        });
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    /// Waits for a line on standard error.
    fn wait_said(&self, what: &str) -> String {
        wait_for(&format!("the demo to say {what:?}"), PATIENCE, || {
            let said = self.stderr.all();
            said.into_iter().find(|line| line.contains(what)).ok_or_else(|| "it has not".into())
        })
    }

    /// Interrupts it, as Ctrl-C does; waits until it and every node of it have ended.
    fn interrupt(mut self, ready: &Value) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        let status = wait_for("the demo to stop", PATIENCE, || {
            self.child.try_wait().unwrap().ok_or_else(|| "it runs".into())
        });
        assert_eq!(status.code(), Some(0), "{status}");
        for node in nodes(ready) {
            assert!(!is_alive(pid_of(node)), "it outlives the demo: {node}");
        }
        self.wait_said("stopping");
        assert_eq!(self.stdout.len(), 1, "one line of JSON: {:?}", self.stdout.all());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // One that has ended by itself can't be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = self.stderr.all();
            let end = said.len().saturating_sub(100);
            eprintln!("---- end of what the demo said\n{}", said[end..].join("\n"));
        }
    }
}

fn nodes(ready: &Value) -> &Vec<Value> {
    ready["nodes"].as_array().expect("nodes")
}

fn pid_of(node: &Value) -> Pid {
    let pid = node["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw).expect("a process id")
}

fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

fn token<'a>(ready: &'a Value, user: &str) -> &'a str {
    let users = ready["users"].as_array().expect("users");
    text(users.iter().find(|kept| kept["user"] == user).expect("the user"), "token")
}

fn urls(ready: &Value) -> Vec<String> {
    nodes(ready).iter().map(|node| text(node, "client").to_owned()).collect()
}

/// Checks every field of the line that says that the demo is ready.
fn check_ready(ready: &Value, dir: &Path, base_port: u16) {
    let dir = dir.canonicalize().unwrap();
    assert_eq!(nodes(ready).len(), 3, "{ready}");
    for (node, i) in nodes(ready).iter().zip(0..) {
        let port = base_port + 10 * i;
        assert_eq!(node["client"], format!("http://127.0.0.1:{port}"));
        assert_eq!(node["peer"], format!("127.0.0.1:{}", port + 1));
        assert!(is_alive(pid_of(node)), "{node}");
        let own = dir.join(format!("node{}", i + 1));
        assert_eq!(Path::new(text(node, "dir")), own);
        assert!(own.is_dir(), "{node}");
        let seen = Http::new(text(node, "client")).get("/v1/cluster").unwrap().expect(200);
        assert_eq!(seen["node_id"], node["id"], "{node}");
    }
    let ids: BTreeSet<_> = nodes(ready).iter().map(|node| node["id"].as_u64()).collect();
    assert_eq!(ids, BTreeSet::from([Some(1), Some(2), Some(3)]));
    let users = ready["users"].as_array().expect("users").iter();
    assert_eq!(users.map(|user| text(user, "user")).collect::<Vec<_>>(), ["alice", "bob"]);
    let admin = Http::new(&urls(ready)[0]).with_token(text(ready, "admin_token"));
    let listed = admin.get("/v1/users").unwrap().expect(200);
    assert_eq!(listed["users"].as_array().map(Vec::len), Some(3), "{listed}");
}

/// Checks that each of these messages is in the room once, on each of these nodes.
fn check_there(urls: &[String], token: &str, acked: &[Acked]) {
    for url in urls {
        let http = Http::new(url).with_token(token);
        load::check_log(&load::read_room(&http, "general", "linearizable"), acked);
    }
}

/// Checks that whatever was said carries the name of who said it.
fn check_prefixes(said: &[String]) {
    let names = ["[node1] ", "[node2] ", "[node3] "];
    for line in said {
        let known = names.iter().any(|name| line.starts_with(name));
        assert!(known || line.starts_with("folkmoot: "), "whose is this: {line:?}");
    }
    for name in names {
        assert!(said.iter().any(|line| line.starts_with(name)), "{name}said nothing");
    }
}

/// A second demo gives up, and says why.
fn check_refused(dir: &Path, base_port: u16, why: &str) {
    let mut second = Demo::start(dir, base_port);
    let status = wait_for("the second demo to give up", PATIENCE, || {
        second.child.try_wait().unwrap().ok_or_else(|| "it runs".into())
    });
    assert_eq!(status.code(), Some(1), "{status}");
    second.wait_said(why);
    let said = second.stderr.all();
    assert!(!said.iter().any(|line| line.starts_with("node")), "it started one: {said:?}");
}

#[test]
fn a_demo_chats_outlives_a_node_stops_at_ctrl_c_and_resumes() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("chat");
    let base_port = free_ports(PORTS);
    let begin = Instant::now();
    let mut demo = Demo::start(&dir, base_port);
    let ready = demo.ready();
    crate::common::say!("ready after {:?}", begin.elapsed());
    check_ready(&ready, &dir, base_port);
    let elsewhere = home.path().join("elsewhere");
    check_refused(&elsewhere, base_port, &format!("port {base_port} is in use"));
    assert!(!elsewhere.exists(), "nothing is made for what cannot run");

    let (urls, alice, bob) = (urls(&ready), token(&ready, "alice"), token(&ready, "bob"));
    let post = |urls: &[String], token: &str, text: &str| {
        load::post(urls, token, "general", &new_id(), text)
    };
    let mut acked = vec![post(&urls[..1], alice, "Is the kettle on?")];
    acked.push(post(&urls[2..], bob, "It is."));
    check_there(&urls, bob, &acked);
    check_prefixes(&demo.stderr.all());

    kill_process(pid_of(&nodes(&ready)[1]), Signal::KILL).unwrap();
    let said = demo.wait_said("node2 ended");
    assert!(said.contains("signal 9") && said.contains("2 nodes go on"), "{said}");
    let again = demo.wait_said("to start it again");
    assert!(again.contains(text(&nodes(&ready)[1], "dir")), "{again}");
    // Nor does a second demo start the node that died, beside the others and elsewhere.
    check_refused(&dir, free_ports(PORTS), "are run by another folkmoot");
    for (url, message) in [(&urls[0], "Who fell over?"), (&urls[2], "Nobody I know.")] {
        acked.push(post(std::slice::from_ref(url), alice, message));
    }
    check_there(&[urls[0].clone(), urls[2].clone()], alice, &acked);
    assert!(is_alive(pid_of(&nodes(&ready)[0])) && is_alive(pid_of(&nodes(&ready)[2])));
    demo.interrupt(&ready);

    let mut demo = Demo::start(&dir, base_port);
    let resumed = demo.ready();
    check_ready(&resumed, &dir, base_port);
    assert_eq!(resumed["users"], ready["users"]);
    assert_eq!(resumed["admin_token"], ready["admin_token"]);
    check_there(&urls, bob, &acked);
    acked.push(post(&urls[1..2], bob, "Here we are again."));
    check_there(&urls, alice, &acked);
    demo.interrupt(&resumed);
}

#[test]
fn a_demo_of_another_size_is_refused_on_the_same_directory() {
    let dir = tempfile::tempdir().unwrap();
    let kept = r#"{"nodes":3,"admin_token":"t","users":[],"furnished":true}"#;
    std::fs::write(dir.path().join("demo.json"), kept).unwrap();
    let mut command = folkmoot();
    command.args(["demo", "--nodes", "1", "--dir"]).arg(dir.path());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("use --nodes 3"), "{said}");
    let output = folkmoot().args(["demo", "--nodes", "2"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{output:?}");
}
