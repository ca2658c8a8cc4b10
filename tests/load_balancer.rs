//! HAProxy and nginx, with our files, in front of a cluster: a node is killed and another one drained
//! and stopped behind them, and clients that know nothing but the proxy lose and repeat nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common::cluster::{Options, TestCluster, folkmoot, succeed};
use crate::common::follower::Follower;
use crate::common::http::Http;
use crate::common::load::{self, Load};
use crate::common::proxy::{Kind, Proxy};
use crate::common::ws::{End, Ws};
use crate::common::{settings, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

/// What the files ask for.
const GRACE: &str = "node.drain_grace=2s";

fn start() -> TestCluster {
    TestCluster::start_with(3, Options { arguments: settings(&[GRACE]), ..Default::default() })
}

/// Kills a node, and drains and stops another one behind a proxy, under load.
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
    // The program's own client, over gRPC, again and again until all is over: it checks what it was
    // acknowledged.
    let over = Arc::new(AtomicBool::new(false));
    let mut bench = folkmoot();
    bench.args(["bench", "--json", "--clients", "8", "--rooms", "4", "--subscribers", "4"]);
    bench.args(["--seconds", "5", "--warmup", "1", "--max-wait", "0", "--server"]);
    bench.arg(&proxy.grpc_url).env("FOLKMOOT_TOKEN", &token);
    let benches = std::thread::spawn({
        let over = over.clone();
        move || {
            while !over.load(Ordering::Acquire) {
                let bench = bench.output().unwrap();
                let said = String::from_utf8_lossy(&bench.stderr);
                assert!(bench.status.success(), "over gRPC: {said}");
            }
        }
    });

    load.wait_more(100);
    cluster.kill(0);
    load.wait_more(100);
    cluster.restart(0);
    cluster.wait_ready_node(0);
    load.wait_more(100);
    // As an operator does it: drained, then stopped, and back again.
    let id = cluster.node_id(2, 1).to_string();
    let drained = cluster.json(2, &["node", "drain", &id]);
    assert_eq!(drained["quorum_critical"], json!([]), "it is safe to stop: {drained}");
    load.wait_more(100);
    let status = cluster.stop(1);
    assert!(status.success(), "{status}");
    load.wait_more(100);
    cluster.restart(1);
    cluster.json(2, &["node", "resume", &id]);
    cluster.wait_ready_node(1);
    load.wait_more(100);

    over.store(true, Ordering::Release);
    benches.join().expect("no run lost or repeated anything");
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

/// How many posts a node itself has been sent, over REST and gRPC.
fn posts_at(cluster: &TestCluster, i: usize) -> f64 {
    cluster.http(i).metric("folkmoot_posts_total")
}

/// For how long a proxy may take a node for unready that is ready again: two checks, a second for each.
const RECOVERS: Duration = Duration::from_secs(3);
/// How long a node may take to say that it is ready. Proxies wait for a second: they learn of it later.
const ANSWERS: Duration = Duration::from_millis(500);

/// When each of some nodes was last not ready.
struct Watch(Arc<Mutex<Vec<Option<Instant>>>>);

impl Watch {
    /// Asks each node for as long as the watch is kept.
    fn begin(nodes: Vec<Http>) -> Watch {
        let unready = Arc::new(Mutex::new(vec![None; nodes.len()]));
        for (i, node) in nodes.into_iter().enumerate() {
            let (node, watch) = (node.with_timeout(ANSWERS), Arc::downgrade(&unready));
            std::thread::spawn(move || {
                while let Some(unready) = watch.upgrade() {
                    if !node.get("/health/ready").is_ok_and(|answer| answer.status == 200) {
                        unready.lock().unwrap()[i] = Some(Instant::now());
                    }
                    drop(unready);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
        }
        Watch(unready)
    }

    /// Whether a proxy may have found none of them ready since then.
    fn none_ready(&self, since: Instant) -> bool {
        let unready = self.0.lock().unwrap();
        unready.iter().all(|last| last.is_some_and(|last| last + RECOVERS > since))
    }
}

/// Nobody is sent to a node that says `draining`, though it still serves; and no post fails over
/// it, not even before the client tries again.
fn drains_by_readiness(kind: Kind) {
    if !kind.is_here() {
        return;
    }
    // Longer than the files ask for, so that there is time to see it.
    let grace = Duration::from_secs(20);
    let arguments = settings(&["node.drain_grace=20s", "node.shutdown_timeout=30s"]);
    let mut cluster = TestCluster::start_with(3, Options { arguments, ..Default::default() });
    cluster.room("tea");
    let proxy = Proxy::start(kind, &cluster.client_urls(), cluster.directory());
    let http = Http::new(&proxy.url).with_token(cluster.admin_token());
    let watch = Watch::begin(vec![cluster.http(0), cluster.http(2)]);
    let post = || {
        let body = json!({ "text": "tea?", "client_msg_id": crate::common::new_id() });
        wait_for("a post to be taken", Duration::from_secs(20), || {
            let answer = http.post("/v1/rooms/tea/messages", &body).unwrap();
            // The proxy's own words, where both nodes that stay have missed a check.
            let proxied = serde_json::from_slice::<Value>(&answer.body).is_err();
            if proxied && matches!(answer.status, 502..=504) && watch.none_ready(Instant::now()) {
                return Err(format!("{answer:?}"));
            }
            answer.expect(200);
            Ok(())
        });
    };
    let post_grpc = || {
        let mut command = folkmoot();
        command.args(["post", "tea", "tea?", "--server", &proxy.grpc_url]);
        succeed(command.env("FOLKMOOT_TOKEN", cluster.admin_token()));
    };
    let posts = || (0..3).map(|i| posts_at(&cluster, i)).collect::<Vec<_>>();
    for (post, count) in [(&post as &dyn Fn(), 30), (&post_grpc, 6)] {
        let before = posts();
        wait_for("all nodes to be sent posts", Duration::from_secs(20), || {
            (0..count).for_each(|_| post());
            let now = posts();
            let all = before.iter().zip(&now).all(|(before, now)| now > before);
            if all { Ok(()) } else { Err(format!("{before:?}, then {now:?}")) }
        });
    }
    cluster.signal(1, Signal::TERM);
    let begin = Instant::now();
    wait_for("the node to say that it is draining", grace / 2, || {
        post();
        match cluster.http(1).get("/health/ready").map_err(|error| error.to_string())?.status {
            503 => Ok(()),
            status => Err(status.to_string()),
        }
    });
    let said = Instant::now();
    // Checked every 500 ms, with a second to answer.
    while said.elapsed() < Duration::from_secs(2) {
        post();
    }
    // Where both others have missed a check, it is as good as they are: that is no time to see it.
    for tries in 1.. {
        let (since, before) = (Instant::now(), posts_at(&cluster, 1));
        (0..100).for_each(|_| post());
        (0..10).for_each(|_| post_grpc());
        if posts_at(&cluster, 1) == before {
            break;
        }
        assert!(tries < 3 && watch.none_ready(since), "it is sent posts still");
    }
    assert!(begin.elapsed() < grace, "this machine is too slow for this test");
    while begin.elapsed() < grace + Duration::from_secs(1) {
        post();
    }
    assert!(cluster.wait_exit(1).success());
}

#[test]
fn haproxy_drains_by_readiness() {
    drains_by_readiness(Kind::HaProxy);
}

#[test]
fn nginx_drains_by_readiness() {
    drains_by_readiness(Kind::Nginx);
}

/// A WebSocket goes through a proxy; when its node stops it goes on through the same proxy.
#[test]
fn a_websocket_is_passed_on_and_comes_back_to_another_node() {
    for kind in [Kind::HaProxy, Kind::Nginx] {
        if !kind.is_here() {
            continue;
        }
        let mut cluster = start();
        cluster.room("tea");
        let token = cluster.admin_token().to_owned();
        let proxy = Proxy::start(kind, &cluster.client_urls(), cluster.directory());
        let open = || {
            wait_for("a WebSocket through the proxy", Duration::from_secs(20), || {
                Ws::open(&proxy.url, &token).map_err(|end| end.to_string())
            })
        };
        let mut ws = open();
        let post = |ws: &mut Ws| {
            let id = crate::common::new_id();
            let post =
                json!({ "type": "post", "room": "tea", "client_msg_id": id, "text": "tea?" });
            ws.say(&post).unwrap();
            ws.expect("ack")["seq"].as_u64().unwrap()
        };
        let seq = post(&mut ws);
        ws.follow("tea", &json!(0)).unwrap();
        assert_eq!(ws.catch_up(), (1..=seq).collect::<Vec<_>>());
        let node = ws.hello["node"].as_u64().unwrap();
        let place = (0..3).find(|i| cluster.node_id(1, *i) == node).unwrap();
        cluster.signal(place, Signal::TERM);
        assert_eq!(ws.expect("ended")["error"]["code"], "shutting_down");
        assert_eq!(ws.end(), End::Closed(4000, "shutting_down".into()), "{kind:?}");
        let mut ws = open();
        assert_ne!(ws.hello["node"], node, "{kind:?}");
        let next = post(&mut ws);
        ws.follow("tea", &json!(seq)).unwrap();
        assert_eq!(ws.catch_up(), (seq + 1..=next).collect::<Vec<_>>());
        assert!(cluster.wait_exit(place).success());
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
