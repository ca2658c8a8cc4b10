//! Chat over REST and server-sent events, against one node.

use std::time::{Duration, Instant};

use crate::common::cluster::{Options, TestCluster};
use crate::common::load;
use crate::common::sse::Sse;
use crate::common::{new_id, wait_for};
use serde_json::{Value, json};

#[test]
fn users_rooms_posts_and_history() {
    let cluster = TestCluster::start(1);
    let alice = cluster.http(0).with_token(&cluster.user("alice"));
    let bob = cluster.http(0).with_token(&cluster.user("bob"));

    let room = json!({ "room": "general", "title": "General", "kind": "public" });
    alice.post("/v1/rooms", &room).unwrap().expect(201);
    alice.post("/v1/rooms", &room).unwrap().expect(200);
    let other = json!({ "room": "general", "title": "Another", "kind": "private" });
    alice.post("/v1/rooms", &other).unwrap().expect_error(409, "already_exists");

    // Bob may read a public room at once, and post once he has joined.
    let messages = "/v1/rooms/general/messages";
    bob.get("/v1/rooms/general/events").unwrap().expect(200);
    let hello = json!({ "text": "hello" });
    bob.post(messages, &hello).unwrap().expect_error(403, "not_participant");
    bob.post("/v1/rooms/general/join", &json!({})).unwrap().expect(200);
    bob.post("/v1/rooms/general/join", &json!({})).unwrap().expect(200);
    let first = bob.post(messages, &hello).unwrap().expect(200);
    let reply = json!({ "text": "hello yourself", "reply_to": first["seq"] });
    let second = alice.post(messages, &reply).unwrap().expect(200);
    assert_eq!(second["seq"].as_u64(), first["seq"].as_u64().map(|seq| seq + 1));
    assert_eq!(first["duplicate"], false);
    assert_eq!(first["epoch"], second["epoch"]);

    let room = alice.get("/v1/rooms/general").unwrap().expect(200);
    assert_eq!(room["head"], second["seq"]);
    assert_eq!(room["participants"].as_array().map(Vec::len), Some(2));
    let rooms = alice.get("/v1/rooms?limit=10").unwrap().expect(200);
    assert_eq!(rooms["rooms"][0]["room"], "general");

    let page = bob.get("/v1/rooms/general/events?after=0").unwrap().expect(200);
    let events = page["events"].as_array().unwrap();
    assert_eq!(page["head"], second["seq"]);
    assert_eq!(page["recovered"], true);
    assert_eq!(events.last().unwrap()["text"], "hello yourself");
    assert_eq!(events.last().unwrap()["sender"], "alice");

    bob.post("/v1/rooms/general/leave", &json!({})).unwrap().expect(200);
    bob.post(messages, &hello).unwrap().expect_error(403, "not_participant");
}

#[test]
fn pages_go_both_ways() {
    let cluster = TestCluster::start(1);
    cluster.room("general");
    let admin = cluster.admin(0);
    let urls = cluster.client_urls();
    for n in 0..25 {
        load::post(&urls, cluster.admin_token(), "general", &new_id(), &format!("{n}"));
    }
    let page = |query: &str| {
        let page = admin.get(&format!("/v1/rooms/general/events?{query}")).unwrap().expect(200);
        let events = page["events"].as_array().unwrap().clone();
        let seqs: Vec<_> = events.iter().map(|e| e["seq"].as_u64().unwrap()).collect();
        (page["head"].as_u64().unwrap(), seqs)
    };
    let (head, all) = page("after=0");
    assert_eq!(all, (1..=head).collect::<Vec<_>>());
    assert_eq!(page("after=3&limit=5").1, [4, 5, 6, 7, 8]);
    assert_eq!(page("before=8&limit=5").1, [3, 4, 5, 6, 7]);
    assert_eq!(page("before=3&limit=5").1, [1, 2]);
    assert_eq!(page("limit=2").1, [head - 1, head]);
    assert_eq!(page(&format!("after={head}")).1, [0_u64; 0]);
    let epoch = admin.get("/v1/rooms/general").unwrap().json()["epoch"].clone();
    let epoch = epoch.as_str().unwrap();
    assert_eq!(page(&format!("after={epoch}:3&limit=1")).1, [4]);
    let foreign = admin.get("/v1/rooms/general/events?after=nosuchepoch:3").unwrap().expect(200);
    assert_eq!(foreign["recovered"], false);
}

#[test]
fn a_long_poll_answers_when_something_is_posted() {
    let cluster = TestCluster::start(1);
    cluster.room("general");
    let admin = cluster.admin(0).with_timeout(Duration::from_secs(30));
    let head = admin.get("/v1/rooms/general").unwrap().json()["head"].as_u64().unwrap();
    let path = format!("/v1/rooms/general/events?after={head}&wait=20s");
    let begin = Instant::now();
    let waiting = std::thread::spawn({
        let (admin, path) = (admin.clone(), path.clone());
        move || admin.get(&path).unwrap().expect(200)
    });
    let posted = admin.post("/v1/rooms/general/messages", &json!({ "text": "now" })).unwrap();
    let page = waiting.join().unwrap();
    assert_eq!(page["events"][0]["seq"], posted.expect(200)["seq"]);
    assert!(begin.elapsed() < Duration::from_secs(15), "it waited for its deadline");

    // Where nothing comes, the answer is an empty page.
    let path = format!("/v1/rooms/general/events?after={}&wait=200ms", head + 1);
    let page = admin.get(&path).unwrap().expect(200);
    assert_eq!(page["events"], json!([]));
}

#[test]
fn a_stream_has_history_then_the_mark_then_what_is_posted() {
    let cluster = TestCluster::start(1);
    cluster.room("general");
    let (urls, token) = (cluster.client_urls(), cluster.admin_token());
    for n in 0..5 {
        load::post(&urls, token, "general", &new_id(), &format!("before {n}"));
    }
    let admin = cluster.admin(0).with_timeout(Duration::from_secs(30));
    let head = admin.get("/v1/rooms/general").unwrap().json()["head"].as_u64().unwrap();
    let mut stream = Sse::open(&admin, "general", Some(0), None).unwrap();
    let mut last_id = String::new();
    for expected in 1..=head {
        let event = stream.next().unwrap();
        assert_eq!(event.seq(), Some(expected));
        assert!(event.id.ends_with(&format!(":{expected}")), "{event:?}");
        last_id = event.id;
    }
    let mark = stream.next().unwrap();
    assert!(mark.is_caught_up(), "{mark:?}");
    let live = load::post(&urls, token, "general", &new_id(), "live");
    let event = stream.next().unwrap();
    assert_eq!((event.seq(), &event.json()["text"]), (Some(live.seq), &Value::from("live")));

    // Last-Event-ID resumes where the stream stopped.
    let mut resumed = Sse::open(&admin, "general", None, Some(&last_id)).unwrap();
    assert_eq!(resumed.next().unwrap().seq(), Some(head + 1));
}

#[test]
fn edits_reactions_and_redactions_show_in_history() {
    let cluster = TestCluster::start(1);
    cluster.room("general");
    let admin = cluster.admin(0);
    let (urls, token) = (cluster.client_urls(), cluster.admin_token());
    let message = load::post(&urls, token, "general", &new_id(), "helo");
    let path = format!("/v1/rooms/general/messages/{}", message.seq);
    let get = || {
        let after = message.seq - 1;
        let path = format!("/v1/rooms/general/events?after={after}&limit=1");
        admin.get(&path).unwrap().expect(200)["events"][0].clone()
    };
    let json_type = [("content-type", "application/json")];
    admin.send("PATCH", &path, &json_type, b"{\"text\":\"hello\"}").unwrap().expect(200);
    admin.send("PUT", &format!("{path}/reactions/%2B1"), &[], b"").unwrap().expect(200);
    let shown = get();
    assert_eq!(shown["text"], "hello");
    assert_eq!(shown["reactions"][0]["symbol"], "+1");
    assert_eq!(shown["edits"].as_array().map(Vec::len), Some(1));
    admin.send("DELETE", &path, &[], b"").unwrap().expect(200);
    let shown = get();
    assert_eq!(shown["redacted"], true);
    assert_eq!(shown["reactions"], serde_json::Value::Null, "they go with it");
    let everything = admin.get("/v1/rooms/general/events?after=0").unwrap();
    let everything = String::from_utf8_lossy(&everything.body).into_owned();
    assert!(!everything.contains("hello") && !everything.contains("helo"), "{everything}");
}

/// Of each thing that an operator watches, at least one.
const METRICS: &[&str] = &[
    "folkmoot_raft_term",
    "folkmoot_raft_is_leader",
    "folkmoot_raft_has_leader",
    "folkmoot_raft_last_log_index",
    "folkmoot_raft_commit_index",
    "folkmoot_raft_applied_index",
    "folkmoot_raft_durable_index",
    "folkmoot_shard_size_bytes",
    "folkmoot_shard_overlay_bytes",
    "folkmoot_log_write_duration_seconds",
    "folkmoot_log_written_bytes_total",
    "folkmoot_log_writes_per_fsync",
    "folkmoot_checkpoint_duration_seconds",
    "folkmoot_snapshot_sent_bytes_total",
    "folkmoot_proposals_waiting",
    "folkmoot_posts_total",
    "folkmoot_post_duration_seconds",
    "folkmoot_read_duration_seconds",
    "folkmoot_deliveries_total",
    "folkmoot_subscribers",
    "folkmoot_follows_moved_total",
    "folkmoot_forwards_total",
    "folkmoot_rejections_total",
    "folkmoot_http_requests_total",
    "folkmoot_connections",
    "folkmoot_disk_free_bytes",
];

#[test]
fn health_metrics_and_openapi_are_served() {
    // With three nodes there is a forwarded request on each, sooner or later; a checkpoint, too.
    let mut cluster = TestCluster::start_uninitialized(3, Options::default());
    let http = cluster.http(0);
    wait_for("the node to live", Duration::from_secs(30), || {
        let answer = http.get("/health/live").map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
    });
    http.get("/health/ready").unwrap().expect_status(503);
    let would = cluster.json(0, &["cluster", "init", "--dry-run", "--nodes", "3"]);
    assert_eq!(would, serde_json::json!({ "dry_run": true, "nodes": 3, "shards": 8 }));
    cluster.init(); // which would be refused, had the other formed anything
    cluster.wait_ready();
    (0..12).for_each(|n| cluster.room(&format!("room-{n}")));
    http.get("/health/live").unwrap().expect_status(200);
    wait_for("the node to be ready still", Duration::from_secs(10), || {
        // It is not for as long as a shard has no leader.
        let ready = http.get("/health/ready").map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&ready.body).into_owned();
        if ready.status == 200 { Ok(()) } else { Err(said) }
    });
    let metrics = wait_for("every metric", Duration::from_secs(30), || {
        let metrics = http.get("/metrics").unwrap();
        metrics.expect_status(200);
        let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
        let has =
            |name: &str| metrics.lines().any(|line| line.starts_with(&format!("# TYPE {name} ")));
        match METRICS.iter().find(|name| !has(name)) {
            Some(name) => Err(format!("{name} is not in\n{metrics}")),
            None => Ok(metrics),
        }
    });
    for line in metrics.lines() {
        let Some(typed) = line.strip_prefix("# TYPE ") else { continue };
        let help = format!("# HELP {} ", typed.split(' ').next().unwrap());
        assert!(metrics.contains(&help), "no {help:?}: say in metrics/help.rs what it means");
    }
    let openapi = http.get("/v1/openapi.json").unwrap().expect(200);
    assert!(openapi["openapi"].as_str().is_some_and(|v| v.starts_with("3.1")));
}

#[test]
fn a_cluster_is_formed_once() {
    let cluster = TestCluster::start(1);
    let output = crate::common::cluster::folkmoot()
        .args(["cluster", "init", "--nodes", "1", "--json", "--server", &cluster.url(0)])
        .output()
        .unwrap();
    assert!(!output.status.success(), "a second init succeeds");
    wait_for("the first admin to be admitted still", Duration::from_secs(5), || {
        match cluster.admin(0).get("/v1/rooms") {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}
