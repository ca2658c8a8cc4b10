//! SIGTERM: a node sends its clients elsewhere, hands over what it leads, still serves for a
//! while, and stops in bounded time.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::cluster::{Options, TestCluster};
use crate::common::sse::Sse;
use crate::common::{settings, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Long enough for this test to look around, even on a busy machine.
const GRACE: Duration = Duration::from_secs(20);

fn options(set: &[&str]) -> Options {
    Options { arguments: settings(set), ..Default::default() }
}

fn leads(shards: &[Value], node: u64) -> usize {
    shards.iter().filter(|shard| shard["node"] == node && shard["state"] == "leader").count()
}

#[test]
fn a_node_that_is_asked_to_stop_is_drained_first() {
    let set = ["node.drain_grace=20s", "node.shutdown_timeout=30s"];
    let mut cluster = TestCluster::start_with(3, options(&set));
    cluster.room("tea");
    let node = cluster.node_id(1, 0);
    let http = cluster.admin(0);
    let mut stream = Sse::open(&http, "tea", Some(0), None).unwrap();
    while !stream.next().unwrap().is_caught_up() {}
    let poller = http.with_timeout(Duration::from_secs(40));
    let poll = std::thread::spawn(move || {
        let answer = poller.get("/v1/rooms/tea/events?after=1&wait=30s").unwrap();
        (answer.status, Instant::now())
    });

    // A poll that comes during the drain is refused: this one must be waiting by then.
    wait_for("the stream and the poll to be there", Duration::from_secs(20), || {
        let count = http.metric("folkmoot_subscribers");
        if count == 2.0 { Ok(()) } else { Err(format!("{count}")) }
    });

    let begin = Instant::now();
    cluster.signal(0, Signal::TERM);
    wait_for("the node to say that it is draining", GRACE / 2, || {
        let ready = cluster.http(0).get("/health/ready").map_err(|error| error.to_string())?;
        match (ready.status, ready.json()["status"].as_str()) {
            (503, Some("draining")) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let ended = stream.next().unwrap_err().to_string();
    assert!(ended.contains("shutting_down"), "{ended}");
    wait_for("its leaderships to be handed over", GRACE / 2, || {
        match leads(&cluster.shards(1), node) {
            0 => Ok(()),
            count => Err(format!("it leads {count}")),
        }
    });
    let body = json!({ "text": "still served", "client_msg_id": crate::common::new_id() });
    let seq = http.post("/v1/rooms/tea/messages", &body).unwrap().expect(200)["seq"].clone();
    // Another node goes on from the stream's end.
    let mut resumed = Sse::open(&cluster.admin(1), "tea", Some(1), None).unwrap();
    assert_eq!(resumed.next().unwrap().json()["seq"], seq);
    let (status, answered) = poll.join().unwrap();
    assert_eq!(status, 200);
    assert!(answered.duration_since(begin) < GRACE, "the long poll was held until the end");
    assert!(begin.elapsed() < GRACE, "this machine is too slow for this test");
    let status = cluster.wait_exit(0);
    assert!(status.success(), "{status}");
    assert!(begin.elapsed() >= GRACE, "requests were not served for as long as was set");
    cluster.restart(0);
    cluster.wait_ready();
}

#[test]
fn a_drain_is_bounded_where_nobody_can_take_over() {
    let mut cluster =
        TestCluster::start_with(3, options(&["node.shutdown_timeout=2s", "node.drain_grace=1s"]));
    // They seem to be there, and answer nothing.
    cluster.signal(1, Signal::STOP);
    cluster.signal(2, Signal::STOP);
    let begin = Instant::now();
    let status = cluster.stop(0);
    assert!(status.success(), "{status}");
    assert!(begin.elapsed() < Duration::from_secs(10), "it took {:?}", begin.elapsed());
}

/// A client that takes nothing any more keeps its stream, and a drain waits for that only so long.
#[test]
fn a_drain_does_not_wait_for_ever_for_a_client_that_takes_nothing() {
    let cluster = TestCluster::start(3);
    cluster.room("tea");
    let (http, id) = (cluster.admin(0), cluster.node_id(1, 0));
    // More than the socket's buffers hold.
    for _ in 0..200 {
        let body = json!({ "text": "x".repeat(60_000), "client_msg_id": crate::common::new_id() });
        http.post("/v1/rooms/tea/messages", &body).unwrap().expect(200);
    }
    let mut stuck = TcpStream::connect(cluster.url(0).trim_start_matches("http://")).unwrap();
    let token = cluster.admin_token();
    write!(
        stuck,
        "GET /v1/rooms/tea/events?after=0 HTTP/1.1\r\nhost: here\r\naccept: text/event-stream\r\n\
         authorization: Bearer {token}\r\n\r\n"
    )
    .unwrap();
    // It would end at once while the node still has room to write: it has none when request after request is
    // answered, for longer than an election takes, and no more is delivered.
    let (mut delivered, mut answers) = (0.0, 0);
    wait_for("the node to be able to write no more", Duration::from_secs(60), || {
        let now = http.metric("folkmoot_deliveries_total");
        answers = if now == delivered { answers + 1 } else { 0 };
        delivered = now;
        let stuck = (1.0..=200.0).contains(&delivered) && answers >= 150;
        if stuck { Ok(()) } else { Err(format!("{delivered} events, for {answers} answers")) }
    });
    // A node that answers the last look late is taken for one that does not drain yet.
    let drain = || {
        wait_for("the node to say that it drains", Duration::from_secs(60), || {
            let drained = cluster.json(1, &["node", "drain", &id.to_string()]);
            if drained["in_force"] == true { Ok(drained) } else { Err(drained.to_string()) }
        })
    };
    let begin = Instant::now();
    let drained = drain();
    assert_eq!((&drained["done"], &drained["streams"]), (&true.into(), &1.into()), "{drained}");
    assert!(begin.elapsed() >= Duration::from_secs(9), "it did not wait: {:?}", begin.elapsed());
    drop(stuck);
    let again = drain();
    assert_eq!(again["streams"], 0, "{again}");
}
