//! A redacted text can't be read through any interface at once, and is gone from every disk after
//! `compact`; the room's log goes on around it.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use crate::common::cluster::{TestCluster, succeed};
use crate::common::load::{self, Load};
use crate::common::sse::Sse;
use crate::common::{new_id, wait_for};
use rustix::process::Signal;
use serde_json::json;

const SECRET: &str = "Xq7vT2mPzR9wKd4LbN8sHf3JcY6gUa5E";
/// What the message was edited to before it was redacted.
const EDITED: &str = "Wd3kZ8nQv5XtB1rGm7YpJ4hLs9CfE6uA";

fn tells(text: &str) -> bool {
    text.contains(SECRET) || text.contains(EDITED)
}

/// What the command line says to these arguments.
fn cli(cluster: &TestCluster, i: usize, arguments: &[&str]) -> String {
    String::from_utf8(succeed(&mut cluster.cli(i, arguments))).unwrap()
}

/// Whether any file below a directory has these bytes.
pub fn disk_has(directory: &Path, needle: &[u8]) -> bool {
    let mut entries = match std::fs::read_dir(directory) {
        // A node that runs removes what it does not need any more.
        Err(error) if error.kind() == ErrorKind::NotFound => return false,
        entries => entries.unwrap(),
    };
    entries.any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return disk_has(&path, needle);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

pub fn restart_all(cluster: &mut TestCluster) {
    for i in 0..cluster.len() {
        cluster.stop(i);
    }
    for i in 0..cluster.len() {
        cluster.restart(i);
    }
    cluster.wait_ready();
}

#[test]
fn redacted_text_is_unreadable_at_once_and_gone_after_compact() {
    let mut cluster = TestCluster::start(3);
    cluster.room("general");
    let (urls, token) = (cluster.client_urls(), cluster.admin_token().to_owned());
    let admin = cluster.admin(0).with_timeout(Duration::from_secs(30));
    // A follower that keeps the room's recent events in memory.
    let mut early = Sse::open(&admin, "general", Some(0), None).unwrap();
    load::post(&urls, &token, "general", &new_id(), "before");
    let secret = load::post(&urls, &token, "general", &new_id(), SECRET);
    let path = format!("/v1/rooms/general/messages/{}", secret.seq);
    let edit = json!({ "text": EDITED }).to_string();
    let json_type = [("content-type", "application/json")];
    admin.send("PATCH", &path, &json_type, edit.as_bytes()).unwrap().expect(200);
    load::post(&urls, &token, "general", &new_id(), "after");
    while early.next().unwrap().seq() != Some(secret.seq + 1) {}
    restart_all(&mut cluster);
    for i in 0..3 {
        assert!(disk_has(cluster.data_dir(i), SECRET.as_bytes()), "the search finds it on {i}");
        assert!(disk_has(cluster.data_dir(i), EDITED.as_bytes()), "the search finds it on {i}");
        assert!(tells(&cli(&cluster, i, &["export", "general"])), "an export has it");
    }

    admin.send("DELETE", &path, &[], b"").unwrap().expect(200);
    for i in 0..3 {
        let admin = cluster.admin(i);
        let page = admin.get("/v1/rooms/general/events?after=0").unwrap();
        let events = page.expect(200)["events"].clone();
        assert_eq!(events[secret.seq as usize - 1]["redacted"], true);
        assert!(!tells(&String::from_utf8_lossy(&page.body)), "node {i}");
        for arguments in [&["export", "general"][..], &["history", "general", "--json"]] {
            assert!(!tells(&cli(&cluster, i, arguments)), "{arguments:?} of node {i}");
        }
        let mut stream = Sse::open(&admin, "general", Some(0), None).unwrap();
        loop {
            let event = stream.next().unwrap();
            assert!(!tells(&event.data), "node {i}");
            if event.is_caught_up() {
                break;
            }
        }
    }
    for i in 0..3 {
        cli(&cluster, i, &["node", "compact"]);
    }
    for i in 0..3 {
        assert!(!disk_has(cluster.data_dir(i), SECRET.as_bytes()), "still on node {i}'s disk");
        assert!(!disk_has(cluster.data_dir(i), EDITED.as_bytes()), "still on node {i}'s disk");
    }
    let log = load::read_room(&cluster.admin(1), "general", "linearizable");
    assert_eq!(log[secret.seq as usize - 1].id, secret.id);
    restart_all(&mut cluster);
    assert_eq!(load::read_room(&cluster.admin(2), "general", "linearizable"), log);

    // A repeat of the post gets the first answer still, and brings nothing back.
    let body = json!({ "client_msg_id": secret.id, "text": SECRET });
    let again = cluster.admin(0).post("/v1/rooms/general/messages", &body).unwrap().expect(200);
    assert_eq!((again["seq"].as_u64(), &again["duplicate"]), (Some(secret.seq), &true.into()));
    let page = cluster.admin(0).get("/v1/rooms/general/events?after=0").unwrap();
    assert!(!tells(&String::from_utf8_lossy(&page.body)));
    // It brought the text to the Raft log once more, as any request does: until that is compacted again.
    for i in 0..3 {
        cli(&cluster, i, &["node", "compact"]);
        assert!(!disk_has(cluster.data_dir(i), SECRET.as_bytes()), "again on node {i}'s disk");
    }
}

/// A node that has not heard of a redaction yet does so before it is compacted.
#[test]
fn what_was_redacted_while_a_node_was_away_goes_when_it_is_compacted() {
    let cluster = TestCluster::start(3);
    let rooms: Vec<String> = (0..8).map(|n| format!("room-{n}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let (urls, token) = (cluster.client_urls(), cluster.admin_token());
    let admins = [0, 1, 2].map(|i| cluster.admin(i).with_timeout(Duration::from_secs(60)));
    let posts: Vec<_> =
        rooms.iter().map(|room| load::post(&urls, token, room, &new_id(), SECRET)).collect();
    for room in &rooms {
        load::read_room(&admins[2], room, "linearizable");
    }
    cluster.signal(2, Signal::STOP);
    // What it lacks of takes longer than to be asked to compact.
    let load = Load::start_padded(&urls[..2], token, &rooms, 8, 4000);
    load.wait_more(3000);
    load.finish();
    for post in &posts {
        let path = format!("/v1/rooms/{}/messages/{}", post.room, post.seq);
        wait_for("a redaction", Duration::from_secs(60), || {
            match admins[0].send("DELETE", &path, &[], b"").unwrap().status {
                200 => Ok(()),
                status => Err(status.to_string()),
            }
        });
    }
    assert!(disk_has(cluster.data_dir(2), SECRET.as_bytes()), "the search finds it");
    cluster.signal(2, Signal::CONT);
    wait_for("the node to be compacted", Duration::from_secs(60), || {
        match admins[2].post("/v1/node/compact", &json!({})).unwrap().status {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    });
    assert!(!disk_has(cluster.data_dir(2), SECRET.as_bytes()), "it was compacted too early");
}
