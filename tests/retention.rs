//! What a room keeps no longer is gone for readers at once, and from every disk after `compact`;
//! the room's log goes on, verifies, and reaches replicas that were away.

use std::time::Duration;

use serde_json::json;

use crate::common::cluster::{TestCluster, succeed};
use crate::common::sse::Sse;
use crate::common::{load, new_id, verified, wait_for};
use crate::redaction::{disk_has, restart_all};

const OLD: &str = "Tq8wX3nLzK5vRc7JbM2sYp9GhD4fUe6A";

fn cli(cluster: &TestCluster, i: usize, arguments: &[&str]) -> String {
    String::from_utf8(succeed(&mut cluster.cli(i, arguments))).unwrap()
}

fn first_seq(cluster: &TestCluster, i: usize, room: &str) -> u64 {
    let room = cluster.admin(i).get(&format!("/v1/rooms/{room}")).unwrap().expect(200);
    room["first_seq"].as_u64().unwrap()
}

#[test]
fn trimmed_text_is_unreadable_at_once_and_gone_after_compact() {
    let mut cluster = TestCluster::start(3);
    cluster.room("general");
    let (urls, token) = (cluster.client_urls(), cluster.admin_token().to_owned());
    for n in 0..20 {
        load::post(&urls, &token, "general", &new_id(), &format!("{OLD} {n}"));
    }
    let kept = load::post(&urls, &token, "general", &new_id(), "kept");
    restart_all(&mut cluster);
    for i in 0..3 {
        assert!(disk_has(cluster.data_dir(i), OLD.as_bytes()), "the search finds it on {i}");
    }
    cli(&cluster, 0, &["room", "retention", "general", "--max-events", "2"]);
    // The message, and the event that says what is kept.
    for i in 0..3 {
        assert_eq!(first_seq(&cluster, i, "general"), kept.seq);
        let admin = cluster.admin(i).with_timeout(Duration::from_secs(30));
        let page = admin.get("/v1/rooms/general/events?after=1").unwrap();
        let shown = page.expect(200);
        assert_eq!((&shown["recovered"], &shown["first_seq"]), (&false.into(), &kept.seq.into()));
        assert_eq!(shown["events"].as_array().unwrap().len(), 2);
        let export = cli(&cluster, i, &["export", "general"]);
        let mut stream = Sse::open(&admin, "general", Some(0), None).unwrap();
        let mut streamed = String::new();
        loop {
            let event = stream.next().unwrap();
            streamed.push_str(&event.data);
            if event.is_caught_up() {
                break;
            }
        }
        for text in [String::from_utf8_lossy(&page.body).into_owned(), export, streamed] {
            assert!(!text.contains(OLD), "node {i}: {text}");
        }
        let path = format!("/v1/rooms/general/threads/{}", kept.seq - 1);
        admin.get(&path).unwrap().expect_error(404, "event_not_found");
    }
    for i in 0..3 {
        cli(&cluster, i, &["node", "compact"]);
    }
    for i in 0..3 {
        assert!(!disk_has(cluster.data_dir(i), OLD.as_bytes()), "still on node {i}'s disk");
    }
    restart_all(&mut cluster);
    assert_eq!(first_seq(&cluster, 1, "general"), kept.seq);
    let file = cluster.directory().join("general.jsonl");
    std::fs::write(&file, cli(&cluster, 2, &["export", "general"])).unwrap();
    cli(&cluster, 0, &["verify", file.to_str().unwrap()]);
    verified::verify(&cluster, 0);
}

/// Also while nobody posts: the cluster trims by itself.
#[test]
fn what_is_too_old_goes_without_a_post() {
    let cluster = TestCluster::start(1);
    cluster.room("general");
    let (urls, token) = (cluster.client_urls(), cluster.admin_token().to_owned());
    let last = load::post(&urls, &token, "general", &new_id(), OLD);
    cli(&cluster, 0, &["room", "retention", "general", "--max-age", "1s"]);
    let admin = cluster.admin(0);
    wait_for("the message to go", Duration::from_secs(60), || {
        let page = admin.get("/v1/rooms/general/events?after=0").unwrap();
        let shown = page.expect(200);
        match String::from_utf8_lossy(&page.body).contains(OLD) {
            true => Err(shown.to_string()),
            false => Ok(()),
        }
    });
    let room = admin.get("/v1/rooms/general").unwrap().expect(200);
    assert!(room["first_seq"].as_u64().unwrap() > last.seq, "{room}");
    let page = admin.get("/v1/rooms/general/events").unwrap().expect(200);
    let events = page["events"].as_array().unwrap();
    assert!(events.iter().any(|event| event["kind"] == "trim"), "{page}");
    let said = admin.post("/v1/rooms/general/messages", &json!({ "text": "on we go" })).unwrap();
    said.expect(200);
}

/// A replica that was away while more was trimmed than the log still has, gets the state as a
/// snapshot, over what it has of before.
#[test]
fn a_replica_that_was_away_takes_a_trimmed_room() {
    let mut cluster = TestCluster::start(3);
    cluster.room("general");
    let (urls, token) = (cluster.client_urls(), cluster.admin_token().to_owned());
    for n in 0..30 {
        load::post(&urls, &token, "general", &new_id(), &format!("before {n}"));
    }
    restart_all(&mut cluster); // so that every replica has these on disk
    cluster.kill(2);
    let urls = urls[..2].to_vec();
    cli(&cluster, 0, &["room", "retention", "general", "--max-events", "20"]);
    for n in 0..400 {
        load::post(&urls, &token, "general", &new_id(), &format!("after {n}"));
    }
    for i in 0..2 {
        cli(&cluster, i, &["node", "compact"]); // and the log behind is gone
    }
    cluster.restart(2);
    cluster.wait_ready();
    let read = |i: usize| {
        let page = cluster.admin(i).get("/v1/rooms/general/events?after=0&consistency=local");
        page.unwrap().expect(200)
    };
    wait_for("the replica to have what the others have", Duration::from_secs(60), || {
        let (there, here) = (read(0), read(2));
        if there == here { Ok(()) } else { Err(format!("{there}\n{here}")) }
    });
    assert_eq!(read(2)["events"].as_array().unwrap().len(), 20);
    restart_all(&mut cluster);
    for n in 0..30 {
        load::post(&cluster.client_urls(), &token, "general", &new_id(), &format!("later {n}"));
    }
    cli(&cluster, 2, &["node", "compact"]);
    verified::verify(&cluster, 0);
}
