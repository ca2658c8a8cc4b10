//! HAProxy and nginx, with our files, in front of a cluster: a node is killed and another one
//! stopped behind them, and clients that know nothing but the proxy lose and repeat nothing.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::cluster::{Options, TestCluster, folkmoot};
use crate::common::follower::Follower;
use crate::common::http::Http;
use crate::common::load::{self, Load};
use crate::common::proxy::{Kind, Proxy};
use crate::common::wait_for;
use rustix::process::Signal;
use serde_json::{Value, json};

/// What the files ask for.
const GRACE: &str = "node.drain_grace=2s";

fn start() -> TestCluster {
    let arguments = vec!["--set".to_owned(), GRACE.to_owned()];
    TestCluster::start_with(3, Options { arguments, ..Default::default() })
}

/// Kills a node and stops another one behind a proxy, under load.
fn nodes_come_and_go_behind(kind: Kind) {
    if !kind.is_here() {
        return;
    }
    let mut cluster = start();
    let proxy = Proxy::start(kind, &cluster.client_urls(), cluster.directory());
    let rooms: Vec<String> = (0..6).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    let token = cluster.admin_token().to_owned();
    let only = [proxy.url.clone()];
    let load = Load::start(&only, &token, &rooms, 8);
    let ended = Arc::new(AtomicBool::new(false));
    let followers = rooms[..3].iter().map(|room| {
        let follower = Follower::new(&only, &token, room, 0);
        let (probe, path) = (cluster.admin(2), format!("/v1/rooms/{room}"));
        let ended = ended.clone();
        let done = move |seen| {
            ended.load(Ordering::Acquire)
                && seen >= probe.get(&path).unwrap().expect(200)["head"].as_u64().unwrap()
        };
        std::thread::spawn(move || follower.run(done))
    });
    let followers: Vec<_> = followers.collect();
    // The program's own client, over gRPC: it checks what it was acknowledged.
    let mut bench = folkmoot();
    bench.args(["bench", "--json", "--clients", "8", "--rooms", "4", "--subscribers", "4"]);
    bench.args(["--seconds", "12", "--warmup", "1", "--max-wait", "0", "--server"]);
    bench.arg(&proxy.grpc_url).env("FOLKMOOT_TOKEN", &token);
    let bench = std::thread::spawn(move || bench.output().unwrap());

    load.wait_more(100);
    cluster.kill(0);
    load.wait_more(100);
    cluster.restart(0);
    cluster.wait_ready_node(0);
    load.wait_more(100);
    let status = cluster.stop(1);
    assert!(status.success(), "{status}");
    load.wait_more(100);
    cluster.restart(1);
    cluster.wait_ready_node(1);
    load.wait_more(100);

    let bench = bench.join().unwrap();
    let said = String::from_utf8_lossy(&bench.stderr);
    assert!(bench.status.success(), "over gRPC: {said}");
    let acked = load.finish();
    load::check_everywhere(&cluster, &rooms, &acked);
    ended.store(true, Ordering::Release);
    for room in &rooms {
        load::post(&only, &token, room, &crate::common::new_id(), "the end");
    }
    for follower in followers {
        let follower = follower.join().expect("no follower saw a gap or a repeat");
        for message in acked.iter().filter(|acked| acked.room == follower.room) {
            assert_eq!(follower.ids[message.seq as usize - 1], message.id, "{message:?}");
        }
    }
    crate::common::say!("{} messages through {kind:?}, none lost, none twice, no gap", acked.len());
}

#[test]
fn nodes_come_and_go_behind_haproxy() {
    nodes_come_and_go_behind(Kind::HaProxy);
}

#[test]
fn nodes_come_and_go_behind_nginx() {
    nodes_come_and_go_behind(Kind::Nginx);
}

/// How many posts a node itself has been sent.
fn posts_at(cluster: &TestCluster, i: usize) -> u64 {
    let metrics = cluster.http(i).get("/metrics").unwrap();
    let text = String::from_utf8(metrics.body).unwrap();
    let lines = text.lines().filter(|line| {
        line.starts_with("folkmoot_http_requests_total") && line.contains("/messages\"")
    });
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
}

/// Nobody is sent to a node that says `draining`, though it still serves; and no post fails over
/// it, not even before the client tries again.
#[test]
fn haproxy_drains_by_readiness() {
    if !Kind::HaProxy.is_here() {
        return;
    }
    // Longer than the files ask for, so that there is time to see it.
    let arguments = vec!["--set".to_owned(), "node.drain_grace=8s".to_owned()];
    let mut cluster = TestCluster::start_with(3, Options { arguments, ..Default::default() });
    cluster.room("tea");
    let proxy = Proxy::start(Kind::HaProxy, &cluster.client_urls(), cluster.directory());
    let http = Http::new(&proxy.url).with_token(cluster.admin_token());
    let post = || {
        let body = json!({ "text": "tea?", "client_msg_id": crate::common::new_id() });
        http.post("/v1/rooms/tea/messages", &body).unwrap().expect(200);
    };
    wait_for("all nodes to be sent posts", Duration::from_secs(20), || {
        (0..30).for_each(|_| post());
        let posts: Vec<u64> = (0..3).map(|i| posts_at(&cluster, i)).collect();
        if posts.iter().all(|count| *count > 0) { Ok(()) } else { Err(format!("{posts:?}")) }
    });
    cluster.signal(1, Signal::TERM);
    let begin = Instant::now();
    // Checked every 500 ms, with a second to answer.
    while begin.elapsed() < Duration::from_secs(2) {
        post();
    }
    let before = posts_at(&cluster, 1);
    (0..100).for_each(|_| post());
    assert_eq!(posts_at(&cluster, 1), before, "it is sent posts still");
    assert!(begin.elapsed() < Duration::from_secs(8), "this machine is too slow for this test");
    while begin.elapsed() < Duration::from_secs(9) {
        post();
    }
    assert!(cluster.wait_exit(1).success());
}

/// Answers `/health/ready`, and echoes what is sent after an upgrade.
fn upgrading_node() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = |stream: TcpStream| -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        let mut head = String::new();
        while reader.read_line(&mut head)? > 2 {}
        if !head.to_ascii_lowercase().contains("upgrade: websocket") {
            return stream
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        }
        stream.write_all(
            // What RFC 6455 §1.3 has for its example of a key.
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )?;
        std::io::copy(&mut reader, &mut stream).map(|_| ())
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Nodes speak no WebSocket yet: something that does stands in for them.
#[test]
fn an_upgrade_to_websocket_is_passed_on() {
    for kind in [Kind::HaProxy, Kind::Nginx] {
        if !kind.is_here() {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        let nodes: Vec<String> = (0..3).map(|_| upgrading_node()).collect();
        let proxy = Proxy::start(kind, &nodes, directory.path());
        let mut stream = TcpStream::connect(proxy.url.trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request = "GET /v1/socket HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\n\
                       upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut status = String::new();
        reader.read_line(&mut status).unwrap();
        assert!(status.starts_with("HTTP/1.1 101"), "{kind:?}: {status}");
        let mut line = status;
        while line.trim() != "" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        stream.write_all(b"both ways").unwrap();
        let mut echo = [0; 9];
        reader.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"both ways", "{kind:?}");
    }
}

#[test]
fn what_is_for_operators_is_not_passed_on() {
    for kind in [Kind::HaProxy, Kind::Nginx] {
        if !kind.is_here() {
            continue;
        }
        let cluster = TestCluster::start(1);
        let node = cluster.client_urls()[0].clone();
        let nodes = [node.clone(), node.clone(), node];
        let proxy = Proxy::start(kind, &nodes, cluster.directory());
        cluster.http(0).get("/metrics").unwrap().expect_status(200);
        Http::new(&proxy.url).get("/metrics").unwrap().expect_status(404);
        let status = wait_for("the cluster's status", Duration::from_secs(10), || {
            let answer = Http::new(&proxy.url).get("/v1/cluster").map_err(|e| e.to_string())?;
            if answer.status == 200 { Ok(answer.json()) } else { Err(format!("{answer:?}")) }
        });
        assert!(matches!(status["nodes"], Value::Array(_)), "{status}");
    }
}
