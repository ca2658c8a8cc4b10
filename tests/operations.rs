//! Nodes leave, are replaced and drained while people post; and what operators type is refused with a
//! reason where it cannot be, whatever is wrong.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::cluster::{TestCluster, folkmoot, free_port, succeed};
use crate::common::load::{self, Load};
use crate::common::sse::Sse;
use crate::common::ws::Ws;
use crate::common::{orders, verified, wait_for};

/// How long a change may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Every command of operators that asks the meta group.
const QUESTIONS: [&[&str]; 5] = [
    &["cluster", "audit"],
    &["node", "list"],
    &["node", "quorum-critical", "1"],
    &["shard", "list"],
    &["shard", "show", "1"],
];

/// Every command of operators that changes something.
const ORDERS: [&[&str]; 9] = [
    &["node", "token"],
    &["node", "token", "--dry-run"],
    &["node", "drain", "2"],
    &["node", "resume", "2"],
    &["node", "remove", "3", "--yes"],
    &["node", "replace", "3", "4", "--yes"],
    &["shard", "move", "1", "1", "4"],
    &["shard", "transfer-leader", "1", "2"],
    &["shard", "rebalance"],
];

/// Every command that goes through the nodes one after another.
const ROUNDS: [&[&str]; 4] = [
    &["cluster", "verify"],
    &["cluster", "verify", "--repair", "2/1", "--yes"],
    &["node", "compact"],
    &["node", "compact", "--dry-run"],
];

/// Every command that needs no token.
const OPEN: [&[&str]; 4] = [
    &["cluster", "status"],
    &["cluster", "health"],
    &["node", "status", "1"],
    &["cluster", "init", "--nodes", "3"],
];

struct Ran {
    code: Option<i32>,
    said: String,
}

fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{command:?}: {said}");
    Ran { code: output.status.code(), said }
}

/// Whether a command succeeds; what it says if it does not.
fn succeeds(cluster: &TestCluster, arguments: &[&str]) -> Result<(), String> {
    let ran = run(&mut cluster.cli(0, arguments));
    if ran.code == Some(0) { Ok(()) } else { Err(ran.said) }
}

/// Runs a command on a terminal (script(1)) and types a line; what it says there.
fn typed(command: &Command, line: &str) -> Ran {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &words.join(" "), "/dev/null"]).stdin(Stdio::piped());
    script.stdout(Stdio::piped()).stderr(Stdio::piped());
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut running = script.spawn().unwrap();
    running.stdin.take().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
    let output = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains("panicked"), "{command:?}: {said}");
    Ran { code: output.status.code(), said }
}

/// A command that must fail: what it says, which must be an error for programs.
fn fails(command: &mut Command) -> Value {
    let ran = run(command.arg("--json"));
    assert_eq!(ran.code, Some(1), "{command:?}: {}", ran.said);
    let said = ran.said.lines().last().unwrap_or_default();
    let said: Value =
        serde_json::from_str(said).unwrap_or_else(|e| panic!("{command:?}: {e}: {said}"));
    assert!(!said["error"]["message"].as_str().unwrap().is_empty());
    said["error"].clone()
}

fn nodes(cluster: &TestCluster, via: usize) -> Vec<Value> {
    cluster.json(via, &["node", "list"])["nodes"].as_array().unwrap().clone()
}

fn rooms(cluster: &TestCluster) -> Vec<String> {
    let rooms: Vec<_> = (0..8).map(|i| format!("room-{i}")).collect();
    rooms.iter().for_each(|room| cluster.room(room));
    rooms
}

fn wait_settled(cluster: &TestCluster, via: usize) {
    wait_for("replicas to be where they should", PATIENCE, || {
        let list = cluster.json(via, &["shard", "list"]);
        let mut shards = list["shards"].as_array().unwrap().iter();
        match shards.find(|shard| shard["target"] != shard["voters"]) {
            None if cluster.json(via, &["node", "list"])["rebalancing"] == false => Ok(()),
            moving => Err(format!("{moving:?}")),
        }
    });
}

#[test]
fn nodes_go_and_a_dead_one_is_replaced_while_people_post() {
    let mut cluster = TestCluster::start(3);
    let rooms = rooms(&cluster);
    let token = cluster.admin_token().to_owned();
    let load = Load::start(&cluster.client_urls(), &token, &rooms, 6);
    load.wait_more(100);
    // Three are needed for three replicas.
    let said = run(&mut cluster.cli(0, &["node", "remove", "3", "--yes"])).said;
    assert!(said.contains("add one first"), "{said}");
    let said = run(&mut cluster.cli(0, &["node", "remove", "3"])).said;
    assert!(said.contains("--yes"), "{said}");

    let may_stop = || succeeds(&cluster, &["node", "quorum-critical", "3"]);
    wait_for("nobody to be critical", PATIENCE, may_stop);
    cluster.kill(2);
    wait_for("the others to be critical", PATIENCE, || {
        let critical = run(&mut cluster.cli(0, &["node", "quorum-critical", "2"]));
        if critical.code == Some(1) && critical.said.contains("would have no quorum") {
            Ok(())
        } else {
            Err(critical.said)
        }
    });
    wait_for("all shards to have leaders again", PATIENCE, || {
        let health = run(&mut cluster.cli(0, &["cluster", "health"]));
        if health.code == Some(1) && health.said.contains("degraded") {
            Ok(())
        } else {
            Err(health.said)
        }
    });

    // Node 4 comes while node 3 is dead, and takes its place.
    let four = cluster.add_node();
    cluster.wait_ready_node(four);
    let dry = cluster.json(0, &["node", "replace", "3", "4", "--dry-run"]);
    assert!(!dry["steps"].as_array().unwrap().is_empty());
    assert_eq!(nodes(&cluster, 0).len(), 4, "nothing is done");
    // It is typed, once one was told what that does.
    let replace = cluster.cli(0, &["node", "replace", "3", "4"]);
    let said = typed(&replace, "yes");
    assert_eq!(said.code, Some(1), "{}", said.said);
    assert!(said.said.contains("Type 3 to go on") && said.said.contains("nothing was changed"));
    assert_eq!(nodes(&cluster, 0).len(), 4, "nothing is done");
    let said = typed(&replace, "3");
    assert_eq!(said.code, Some(0), "{}", said.said);
    assert_eq!(nodes(&cluster, 0).len(), 3);
    wait_settled(&cluster, 0);
    load.wait_more(100);
    // Again: it is so already. With one that never was, it cannot be.
    cluster.json(0, &["node", "replace", "3", "4", "--yes"]);
    let error = fails(&mut cluster.cli(0, &["node", "replace", "3", "9", "--yes"]));
    assert!(error["message"].as_str().unwrap().contains("there is no node 9"), "{error}");
    let is_well = || succeeds(&cluster, &["cluster", "health"]);
    wait_for("nothing to be wrong any more", PATIENCE, is_well);

    // The dead one comes back, too late: it is told, and disturbs nobody.
    cluster.restart(2);
    wait_for("it to say that it was removed", PATIENCE, || {
        let log = cluster.log(2);
        if log.contains("was removed from the cluster") { Ok(()) } else { Err(log) }
    });
    let ready = cluster.http(2).get("/health/ready").unwrap();
    assert_eq!(ready.status, 503);
    load.wait_more(100);
    cluster.kill(2);

    // A fifth comes, and a living one goes by itself, having given away what it had.
    let five = cluster.add_node();
    cluster.wait_ready_node(five);
    wait_settled(&cluster, 0);
    // While it is on its way out, its successor being away, nobody stays with it: streams end there.
    let mut follower = Sse::open(&cluster.admin(1), &rooms[0], None, None).unwrap();
    cluster.kill(five);
    let id = cluster.node_id(0, five).to_string();
    let replace = ["node", "replace", "2", id.as_str(), "--yes"];
    cluster.json(0, &[&replace[..], &["--no-wait"]].concat());
    let begin = Instant::now();
    let ended = loop {
        match follower.next() {
            Ok(event) => assert!(begin.elapsed() < PATIENCE, "it goes on: {event:?}"),
            Err(ended) => break ended.to_string(),
        }
    };
    assert!(ended.contains("shutting_down"), "{ended}");
    let is_leaving = |node: &Value| node["id"] == 2 && node["membership"] == "leaving";
    assert!(nodes(&cluster, 0).iter().any(is_leaving), "{:?}", nodes(&cluster, 0));
    assert_eq!(cluster.http(1).get("/health/ready").unwrap().status, 503);
    cluster.restart(five);
    cluster.wait_ready_node(five);
    cluster.json(0, &replace);
    wait_settled(&cluster, 0);
    load.wait_more(100);
    let urls: Vec<String> = nodes(&cluster, 0)
        .iter()
        .map(|node| format!("http://{}", node["client_address"].as_str().unwrap()))
        .collect();
    assert_eq!(urls.len(), 3);
    let acked = load.finish();
    assert!(acked.len() > 400, "{}", acked.len());
    cluster.kill(1);
    for node in [0, four, five] {
        cluster.wait_ready_node(node);
        load::check_on(&cluster, node..node + 1, &rooms, &acked);
    }
    verified::verify(&cluster, 0);
}

#[test]
fn a_drained_node_leads_nothing_and_sends_its_clients_away_until_it_is_resumed() {
    let mut cluster = TestCluster::start(3);
    let rooms = rooms(&cluster);
    let token = cluster.admin_token().to_owned();
    let load = Load::start(&cluster.client_urls(), &token, &rooms, 6);
    let node = (0..3).find(|i| cluster.node_id(0, *i) == 2).unwrap();
    // It hears of nothing, so its node closes it only when it has waited for it; a drain waits for that.
    let deaf = Ws::open(&cluster.url(node), &token).unwrap();
    let mut stream = Sse::open(&cluster.admin(node), &rooms[0], Some(0), None).unwrap();
    orders::wait_node(&cluster, 2, "its two streams", |node| node["streams"] == 2);
    cluster.json(0, &["node", "drain", "2"]);
    let standing = nodes(&cluster, 0)[1].clone();
    assert_eq!(standing["membership"], "draining");
    assert_eq!(standing["streams"], 0, "it is said to be safe to stop before its streams end");
    // It may be elected again, and hands the lead on then.
    orders::wait_node(&cluster, 2, "it to lead nothing", |node| node["leaders"] == 0);
    let ended = loop {
        if let Err(ended) = stream.next() {
            break ended.to_string();
        }
    };
    assert!(ended.contains("shutting_down"), "{ended}");
    drop(deaf);
    let ready = cluster.http(node).get("/health/ready").unwrap();
    assert_eq!((ready.status, ready.json()["status"].as_str()), (503, Some("draining")));
    load.wait_more(50);
    // Again, it is so already, and may be stopped.
    assert_eq!(succeeds(&cluster, &["node", "drain", "2"]), Ok(()));
    cluster.json(0, &["node", "resume", "2"]);
    cluster.wait_ready_node(node);
    load::check_everywhere(&cluster, &rooms, &load.finish());

    // Drained, but not to be stopped: another one is away.
    let away = (0..3).find(|i| cluster.node_id(node, *i) == 3).unwrap();
    cluster.kill(away);
    let drained = wait_for("node 1 to answer", PATIENCE, || {
        let ran = run(&mut cluster.cli(node, &["node", "drain", "2"]));
        if ran.said.contains("nobody that answers") { Err(ran.said) } else { Ok(ran) }
    });
    assert_eq!(drained.code, Some(1), "{}", drained.said);
    assert!(drained.said.contains("node 2 must not stop now"), "{}", drained.said);
    // And the last one that could lead goes on.
    let last = run(&mut cluster.cli(node, &["node", "drain", "1"]));
    assert_eq!(last.code, Some(1), "{}", last.said);
    assert!(last.said.contains("nobody that answers could lead"), "{}", last.said);
}

#[test]
fn whatever_is_wrong_each_command_says_so_and_changes_nothing() {
    let mut cluster = TestCluster::start(3);
    let all = || QUESTIONS.iter().chain(&ORDERS);
    let with_token: Vec<_> = all().chain(&ROUNDS).collect();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let peers = format!("http://{}", cluster.peer(0));
    let user = cluster.user("someone");
    let before = cluster.json(0, &["shard", "list"]);
    // Nobody listens there, and not to clients.
    for (arguments, server) in
        with_token.iter().copied().chain(&OPEN).flat_map(|a| [(a, &nobody), (a, &peers)])
    {
        let mut command = folkmoot();
        command.args(*arguments).args(["--timeout", "300ms", "--server", server]);
        let error = fails(command.env("FOLKMOOT_TOKEN", cluster.admin_token()));
        // Who listens to peers may be late to hang up.
        let is_late = *server == peers && error["code"] == "timeout";
        assert!(is_late || error["code"] == "unavailable", "{arguments:?} at {server}: {error}");
    }
    for further in [&[][..], &["--dry-run"]] {
        let init = [&["cluster", "init", "--nodes", "3"][..], further].concat();
        let error = fails(&mut cluster.cli(0, &init));
        assert_eq!(error["code"], "already_initialized", "{error}");
    }
    for arguments in with_token {
        // Somebody else's token, or none of this cluster's.
        for (token, code) in [(user.as_str(), "forbidden"), ("nonsense", "unauthenticated")] {
            let mut command = cluster.cli(0, arguments);
            let error = fails(command.env("FOLKMOOT_TOKEN", token));
            assert_eq!(error["code"], code, "{arguments:?}: {error}");
        }
    }
    for (arguments, why) in [
        (&["node", "status", "9"][..], "no node 9"),
        (&["node", "quorum-critical", "9"], "no node 9"),
        (&["node", "drain", "9"], "no node 9"),
        (&["node", "resume", "9"], "no node 9"),
        (&["node", "remove", "9", "--yes"], "no node 9"),
        (&["node", "replace", "9", "1", "--yes"], "no node 9"),
        (&["node", "replace", "1", "9", "--yes"], "no node 9"),
        (&["shard", "show", "99"], "no shard 99"),
        (&["shard", "move", "70000", "1", "2"], "no shard 70000"),
        (&["shard", "transfer-leader", "1", "9"], "does not vote"),
    ] {
        let ran = run(&mut cluster.cli(0, arguments));
        assert_eq!(ran.code, Some(1), "{arguments:?}: {}", ran.said);
        assert!(ran.said.contains(why), "{arguments:?}: {}", ran.said);
    }
    assert_eq!(cluster.json(0, &["shard", "list"])["shards"].as_array().map(Vec::len), Some(9));

    // Without a leader nothing is decided; how things stand can still be seen.
    cluster.kill(1);
    cluster.kill(2);
    for arguments in all().filter(|arguments| arguments[1] != "quorum-critical") {
        let error = fails(cluster.cli(0, arguments).args(["--timeout", "1s"]));
        let code = error["code"].as_str().unwrap();
        assert!(["unavailable", "timeout"].contains(&code), "{arguments:?}: {error}");
    }
    wait_for("the node to know that it has no leader", PATIENCE, || {
        let status = cluster.json(0, &["cluster", "status"]);
        if status["stale"] == true { Ok(()) } else { Err(status["nodes"].to_string()) }
    });
    let critical = run(&mut cluster.cli(0, &["node", "quorum-critical", "1"]));
    assert!(critical.code == Some(1) && critical.said.contains("no quorum"), "{}", critical.said);
    let health = run(&mut cluster.cli(0, &["cluster", "health"]));
    assert!(health.code == Some(1) && health.said.contains("unavailable"), "{}", health.said);
    let verified = run(cluster.cli(0, &["cluster", "verify"]).args(["--timeout", "2s"]));
    assert_eq!(verified.code, Some(1), "{}", verified.said);
    assert_eq!(cluster.json(0, &["node", "status", "3"])["up"], false);
    cluster.restart(1);
    cluster.restart(2);
    cluster.wait_ready();
    let placed = |list: &Value| {
        let shards = list["shards"].as_array().unwrap().iter();
        shards.map(|shard| shard["voters"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(placed(&cluster.json(0, &["shard", "list"])), placed(&before));
    assert!(nodes(&cluster, 0).iter().all(|node| node["membership"] == "active"));
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let cluster = TestCluster::start(3);
    let compact = cluster.json(1, &["node", "compact", "--dry-run"]);
    assert_eq!((&compact["dry_run"], compact["node"].as_u64()), (&Value::Bool(true), Some(2)));
    assert!(compact["bytes_before"].as_u64().is_some_and(|bytes| bytes > 0), "{compact}");
    let token = cluster.json(0, &["node", "token", "--dry-run", "--ttl", "10m"]);
    assert_eq!(token, serde_json::json!({ "dry_run": true, "ttl_ms": 600_000 }));
    for (node, arguments, would) in [
        (1, ["node", "compact", "--dry-run"], "would rewrite the base of node 2"),
        (0, ["node", "token", "--dry-run"], "would make a token that lets one node join within 1h"),
    ] {
        let said = String::from_utf8(succeed(&mut cluster.cli(node, &arguments))).unwrap();
        assert!(said.starts_with(would), "{said}");
    }
    let long = run(&mut cluster.cli(0, &["node", "token", "--dry-run", "--ttl", "31days"]));
    assert!(long.code == Some(1) && long.said.contains("thirty days"), "{}", long.said);
    let audited = cluster.json(0, &["cluster", "audit"]).to_string();
    assert!(!audited.contains("compact") && !audited.contains("join token"), "{audited}");
}

#[test]
fn what_was_interrupted_is_finished_or_taken_back() {
    let mut cluster = TestCluster::start(3);
    let four = cluster.add_node();
    cluster.wait_ready_node(four);
    wait_settled(&cluster, 0);
    // Nothing moves to a node that is away.
    cluster.kill(four);
    let voters = |cluster: &TestCluster, shard: usize| {
        let list = cluster.json(0, &["shard", "list"]);
        let voters = list["shards"][shard]["voters"].clone();
        serde_json::from_value::<Vec<u64>>(voters).unwrap()
    };
    let shard = (1..9).find(|shard| !voters(&cluster, *shard).contains(&4)).unwrap();
    let from = voters(&cluster, shard)[0];
    let text = [shard.to_string(), from.to_string()];
    let order = ["shard", "move", &text[0], &text[1], "4"];
    let mut moving = cluster.cli(0, &order);
    let moving = moving.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    wait_for("the move to begin", PATIENCE, || {
        let moving = cluster.json(0, &["shard", "list"])["shards"][shard].clone();
        if moving["target"] == moving["voters"] { Err(moving.to_string()) } else { Ok(()) }
    });
    kill_process(Pid::from_child(&moving), Signal::INT).unwrap();
    let ended = moving.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("goes on"), "{said}");

    // Half done: another change of it is refused, the same one is waited for, and it can be undone.
    let other = voters(&cluster, shard)[1].to_string();
    let ran = run(&mut cluster.cli(0, &["shard", "move", &text[0], &other, "4"]));
    assert_eq!(ran.code, Some(1), "{}", ran.said);
    let why = ["node 4 has a replica", "on its way"].iter().any(|why| ran.said.contains(why));
    assert!(why, "{}", ran.said);
    let undo = ["shard", "move", text[0].as_str(), "4", text[1].as_str()];
    cluster.json(0, &undo);
    assert!(voters(&cluster, shard).contains(&from));
    cluster.json(0, &[&order[..], &["--no-wait"]].concat());
    cluster.restart(four);
    cluster.json(0, &order);
    assert!(voters(&cluster, shard).contains(&4));

    // Nothing is half done by what ends soon, or only looks.
    let id = voters(&cluster, 1)[1].to_string();
    for (after, arguments) in [
        (3, &["shard", "transfer-leader", "1", &id][..]),
        (3, &["node", "compact"]),
        (30, &["node", "compact"]),
        (3, &["node", "token"]),
    ] {
        interrupt(&cluster, after, arguments);
        orders::give(&cluster, arguments);
    }
    interrupt(&cluster, 10, &["cluster", "verify"]);
    verified::verify(&cluster, 0);

    // A drain, whenever that is interrupted.
    for (after, verb) in [(0, "drain"), (20, "resume"), (60, "drain"), (150, "resume")] {
        interrupt(&cluster, after, &["node", verb, "2"]);
        let again = cluster.json(0, &["node", verb, "2"]);
        assert_eq!(again["done"], true, "{again}");
        let standing = if verb == "drain" { "draining" } else { "active" };
        assert_eq!(nodes(&cluster, 0)[1]["membership"], standing);
    }
}

/// Runs a command, and interrupts it after so many milliseconds.
fn interrupt(cluster: &TestCluster, after: u64, arguments: &[&str]) {
    let mut command = cluster.cli(0, arguments);
    let mut child = command.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(after));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    // Before it could catch the signal; interrupted; or done by then, if others answered in time.
    let code = child.wait().unwrap().code();
    let asks_others = ["verify", "transfer-leader"].contains(&arguments[1]);
    let ended = [None, Some(130), Some(0)].contains(&code) || (asks_others && code == Some(1));
    assert!(ended, "{arguments:?}: {code:?}");
}

#[test]
fn a_second_run_finishes_whatever_moves_replicas() {
    let mut cluster = TestCluster::start(3);
    // Interrupted before and after the cluster has heard of it, and in the middle.
    for after in [5, 60, 400] {
        let new = cluster.add_node();
        cluster.wait_ready_node(new);
        interrupt(&cluster, after, &["shard", "rebalance"]);
        cluster.json(0, &["shard", "rebalance"]);
        let id = cluster.node_id(0, new).to_string();
        wait_for("it to tell of its part", PATIENCE, || {
            let spread = cluster.json(0, &["node", "status", &id]);
            let replicas = spread["replicas"].as_array().unwrap().len();
            if replicas > 4 { Ok(()) } else { Err(spread.to_string()) }
        });

        interrupt(&cluster, after, &["node", "remove", &id, "--yes"]);
        cluster.json(0, &["node", "remove", &id, "--yes"]);
        cluster.kill(new);
        assert_eq!(nodes(&cluster, 0).len(), 3);
    }
    let mut old = 2;
    for after in [5, 60, 400] {
        let new = cluster.add_node();
        cluster.wait_ready_node(new);
        let ids = [old, new].map(|node| cluster.node_id(0, node));
        let text = ids.map(|id| id.to_string());
        let replace = ["node", "replace", &text[0], &text[1], "--yes"];
        interrupt(&cluster, after, &replace);
        cluster.json(0, &replace);
        cluster.kill(old);
        let left = nodes(&cluster, 0);
        assert!(left.len() == 3 && left.iter().all(|node| node["id"] != ids[0]), "{left:?}");
        old = new;
    }
}
