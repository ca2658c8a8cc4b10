//! What a node does at the limits that its operator has set; existing clients notice nothing.

use std::net::TcpStream;
use std::time::Duration;

use crate::common::cluster::{Options, TestCluster};
use crate::common::http::Http;
use crate::common::sse::Sse;
use crate::common::{new_id, settings, wait_for};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(20);
const POST: &str = "/v1/rooms/general/messages";

fn start(set: &[&str]) -> TestCluster {
    let options = Options { arguments: settings(set), ..Options::default() };
    let cluster = TestCluster::start_with(1, options);
    cluster.room("general");
    cluster
}

fn post(http: &Http, text: &str) -> crate::common::http::Response {
    http.post(POST, &json!({ "client_msg_id": new_id(), "text": text })).unwrap()
}

fn open_files(cluster: &TestCluster) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", cluster.pid(0))).unwrap().count()
}

#[test]
fn a_flood_of_connections_is_turned_away_and_leaves_nothing_behind() {
    let cluster = start(&["limits.connections_max=20"]);
    let admin = cluster.admin(0);
    let mut stream = Sse::open(&admin, "general", Some(0), None).unwrap();
    let before = open_files(&cluster);
    let address = admin.address.clone();
    let mut flood: Vec<_> = (0..500).map(|_| TcpStream::connect(&address).unwrap()).collect();
    wait_for("the node to turn clients away", PATIENCE, || match admin.get("/v1/rooms") {
        Ok(answer) if answer.status == 503 => {
            let error = answer.expect_error(503, "too_many_connections");
            assert_eq!(error["retry_after_ms"], 1000);
            Ok(())
        }
        other => Err(format!("{other:?}")),
    });
    assert!(open_files(&cluster) < before + 20 + 64 + 20, "the node holds what it refused");
    // Who was there before is served on.
    while !stream.next().unwrap().is_caught_up() {}
    flood.clear();
    wait_for("the node to serve again", PATIENCE, || match admin.get("/v1/rooms") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // The connection that was answered just now may still hold the only place that is free.
    let body = json!({ "client_msg_id": new_id(), "text": "after the flood" });
    let acked = wait_for("a post to be taken", PATIENCE, || match admin.post(POST, &body) {
        Ok(answer) if answer.status == 200 => Ok(answer.json()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(stream.next().unwrap().seq(), acked["seq"].as_u64());
    wait_for("the flood's sockets to be closed", PATIENCE, || match open_files(&cluster) {
        now if now <= before + 2 => Ok(()),
        now => Err(format!("{now} open files, {before} before")),
    });
}

#[test]
fn streams_and_long_polls_beyond_the_limit_are_refused() {
    let cluster = start(&["limits.sessions_max=1"]);
    let admin = cluster.admin(0);
    let mut stream = Sse::open(&admin, "general", Some(0), None).unwrap();
    let refused = Sse::open(&admin, "general", Some(0), None).err().expect("one too many");
    assert!(refused.to_string().contains("too_many_connections"), "{refused}");
    let poll = "/v1/rooms/general/events?after=1&wait=10ms";
    admin.get(poll).unwrap().expect_error(503, "too_many_connections");
    while !stream.next().unwrap().is_caught_up() {}
    let seq = post(&admin, "still here").expect(200)["seq"].as_u64();
    assert_eq!(stream.next().unwrap().seq(), seq);
    drop(stream);
    let poll = format!("/v1/rooms/general/events?after={}&wait=10ms", seq.unwrap());
    wait_for("the seat to be free", PATIENCE, || match admin.get(&poll).unwrap().status {
        200 => Ok(()),
        status => Err(format!("status {status}")),
    });
}

#[test]
fn a_text_beyond_the_limit_is_refused() {
    let cluster = start(&["limits.text_bytes_max=10"]);
    let admin = cluster.admin(0);
    post(&admin, "0123456789").expect(200);
    let before = admin.get("/v1/rooms/general").unwrap().expect(200);
    post(&admin, "0123456789a").expect_error(413, "too_large");
    assert_eq!(admin.get("/v1/rooms/general").unwrap().expect(200), before);
}
