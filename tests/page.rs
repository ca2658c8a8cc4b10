//! The web page: what its client keeps to, and two people in real browsers on two nodes, one signed in
//! with a password and one by a provider, while nodes die. The tests are in web/test, and run by node;
//! Playwright drives Debian's Chromium.

use std::process::Command;

use serde_json::json;

use crate::common::browser::{Browser, program, web_tests};
use crate::common::cluster::{Options, TestCluster};
use crate::oidc::World;

const PASSWORD: &str = "correct horse";
/// Messages to scroll back through: more than a few pages.
const PAST: u64 = 200;

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
    let Some(browser) = Browser::find() else { return };
    let arguments = vec!["--set".into(), "accounts.registration=open".into()];
    let init_arguments = vec!["--shards".into(), "2".into()];
    let options = Options { arguments, init_arguments, ..Options::default() };
    // Ann has a password; bob comes by a provider of OpenID Connect, where one can run.
    let (mut world, mut alone) = (World::start_with(options.clone()), None);
    let provider = world.is_some();
    let cluster = match &mut world {
        Some(world) => &mut world.cluster,
        None => alone.insert(TestCluster::start_with(3, options)),
    };
    for user in if provider { &["ann"][..] } else { &["ann", "bob"] } {
        let body = json!({ "user": user, "password": PASSWORD });
        cluster.http(0).post("/v1/register", &body).unwrap().expect(201);
    }
    let config = json!({ "chromium": browser.chromium, "nodes": cluster.client_urls(),
                         "password": PASSWORD, "past": PAST, "provider": provider });
    let mut script = browser.run("browser/chat.js", &config);
    loop {
        let wish = script.next();
        let node = wish["node"].as_u64().unwrap_or_default() as usize;
        match wish["do"].as_str().unwrap() {
            "kill" => cluster.kill(node),
            "restart" => {
                cluster.restart(node);
                cluster.wait_ready_node(node);
            }
            "fill" => fill(cluster, node),
            "check" => {
                let mut all: Vec<String> = serde_json::from_value(wish["texts"].clone()).unwrap();
                let mut kept = texts(cluster, node, ROOM);
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
