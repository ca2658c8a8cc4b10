//! The web page: what its client keeps to, and two people in real browsers on two nodes, while nodes
//! die. The tests are in web/test, and run by node; the browser is Debian's Chromium.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::common::cluster::{Options, TestCluster};
use crate::common::say;
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse";
/// Messages to scroll back through: more than a few pages.
const PAST: u64 = 200;
/// How long the browsers may take for anything, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A program on this machine; says so where there is none.
pub fn program(names: &[&str], package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .flat_map(|directory| names.iter().map(move |name| directory.join(name)))
        .find(|program| program.is_file());
    if found.is_none() {
        say!("SKIPPED: no {}; apt-get install {package}", names[0]);
    }
    found
}

fn web_tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web/test")
}

#[test]
fn the_clients_own_tests_pass() {
    let Some(node) = program(&["node"], "nodejs") else { return };
    let files = std::fs::read_dir(web_tests()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.to_string_lossy().ends_with(".test.js")).collect();
    files.sort();
    assert!(files.len() > 4, "{files:?}");
    let output =
        Command::new(node).args(["--test", "--test-reporter=tap"]).args(&files).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("# pass 0\n"), "nothing was tested: {said}");
}

/// The script that has the browsers; killed when it is gone, however that happens.
pub struct Script {
    child: Child,
    lines: Receiver<String>,
}

impl Script {
    /// Runs a file of web/test, and tells it this.
    pub fn start(node: &Path, file: &str, config: &Value) -> Script {
        let mut command = Command::new(node);
        command.arg(web_tests().join(file));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut script = Script { child, lines };
        script.tell(config);
        script
    }

    fn tell(&mut self, value: &Value) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{value}").unwrap();
    }

    /// What it wants done next.
    pub fn next(&mut self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|error| panic!("the browsers' script: {error}; see above"));
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    }

    /// Waits for its end, which must be a good one.
    pub fn succeeds(&mut self) {
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Its end closes the pipes by which Chromium is driven, which ends that too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The texts of a room's messages, in order, as a node has them.
fn texts(cluster: &TestCluster, node: usize, room: &str) -> Vec<String> {
    let path = format!("/v1/rooms/{room}/events?after=0&limit=1000");
    let page = cluster.admin(node).get(&path).unwrap().expect(200);
    let events = page["events"].as_array().unwrap();
    assert_eq!(events.len() as u64, page["head"], "one page has it all");
    let messages = events.iter().filter(|event| event["kind"] == "message");
    messages.map(|message| message["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn two_people_in_browsers_see_each_message_once_while_nodes_die() {
    let (Some(node), Some(chromium)) =
        (program(&["node"], "nodejs"), program(&["chromium", "chromium-browser"], "chromium"))
    else {
        return;
    };
    let arguments = vec!["--set".into(), "accounts.registration=open".into()];
    let init_arguments = vec!["--shards".into(), "2".into()];
    let options = Options { arguments, init_arguments, ..Options::default() };
    let mut cluster = TestCluster::start_with(3, options);
    for user in ["ann", "bob"] {
        let body = json!({ "user": user, "password": PASSWORD });
        cluster.http(0).post("/v1/register", &body).unwrap().expect(201);
    }
    let config = json!({ "chromium": chromium, "nodes": cluster.client_urls(),
                         "password": PASSWORD, "past": PAST });
    let mut script = Script::start(&node, "browser/chat.js", &config);
    loop {
        let wish = script.next();
        let node = wish["node"].as_u64().unwrap_or_default() as usize;
        match wish["do"].as_str().unwrap() {
            "kill" => cluster.kill(node),
            "restart" => {
                cluster.restart(node);
                cluster.wait_ready_node(node);
            }
            "fill" => fill(&cluster, node),
            "check" => {
                let mut all: Vec<String> = serde_json::from_value(wish["texts"].clone()).unwrap();
                let mut kept = texts(&cluster, node, ROOM);
                kept.retain(|text| !text.starts_with("past "));
                all.sort();
                kept.sort();
                assert_eq!(kept, all, "the room has each message once");
                break;
            }
            other => panic!("{other}?"),
        }
        script.tell(&json!({ "done": wish["do"] }));
    }
    script.succeeds();
}

/// The room that `ann` makes in her browser.
const ROOM: &str = "tea-i-cake-i";

/// Gives the room something to scroll back through.
fn fill(cluster: &TestCluster, node: usize) {
    let admin = cluster.admin(node);
    admin.post(&format!("/v1/rooms/{ROOM}/join"), &json!({})).unwrap().expect(200);
    for i in 0..PAST {
        let body = json!({ "text": format!("past {i}") });
        admin.post(&format!("/v1/rooms/{ROOM}/messages"), &body).unwrap().expect(200);
    }
}
