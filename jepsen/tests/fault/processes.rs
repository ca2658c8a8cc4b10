//! Faults of processes, and who is not touched.

use std::process::{Command, Stdio};
use std::time::Duration;

use folkmoot_jepsen::fault::{Target, clock, signal};

use crate::common::cluster::{Options, TestCluster};
use crate::common::load::{self, Load};
use crate::common::{say, wait_for};
use crate::world::{rooms, works};

const PATIENCE: Duration = Duration::from_secs(30);

fn answers(cluster: &TestCluster, i: usize) -> bool {
    cluster.http(i).with_timeout(Duration::from_secs(1)).get("/health/live").is_ok()
}

#[test]
fn a_node_is_paused_and_goes_on_and_is_killed() {
    if !works(&["pause", "kill"]) {
        return;
    }
    let mut cluster = TestCluster::start(3);
    let rooms = rooms(&cluster);
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 6);
    load.wait_more(20);
    let target = Target::of_pid(cluster.pid(1)).unwrap();
    assert_eq!(target.data_dir, cluster.data_dir(1));
    assert_eq!(format!("http://{}", target.client), cluster.url(1));
    assert_eq!(target.peer, cluster.peer(1));
    let paused = signal::pause(&target).inject().unwrap();
    assert!(!answers(&cluster, 1));
    load.wait_more(20);
    paused.heal().unwrap();
    wait_for("an answer", PATIENCE, || answers(&cluster, 1).then_some(()).ok_or("no".into()));
    signal::pause(&target).inject().unwrap().stay();
    assert!(!answers(&cluster, 1));
    signal::resume(&target).inject().unwrap().stay();
    wait_for("an answer", PATIENCE, || answers(&cluster, 1).then_some(()).ok_or("no".into()));
    signal::kill(&target).inject().unwrap().stay();
    assert!(target.is_gone());
    cluster.killed(1);
    let error = signal::pause(&target).inject().err().unwrap().to_string();
    assert!(error.contains("refused"), "{error}");
    load.wait_more(20);
    cluster.restart(1);
    cluster.wait_ready_node(1);
    // The same number would be another process.
    let earlier = Target { pid: cluster.pid(1), ..target };
    let error = signal::kill(&earlier).inject().err().unwrap().to_string();
    assert!(error.contains("has ended"), "{error}");
    wait_for("an answer", PATIENCE, || answers(&cluster, 1).then_some(()).ok_or("no".into()));
    let acked = load.finish();
    load::check_everywhere(&cluster, &rooms, &acked);
}

#[test]
fn what_is_not_a_node_is_refused() {
    let cluster = TestCluster::start(1);
    let mut sleep = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
    let mut tail = cluster.cli(0, &["room", "list"]);
    tail.stdout(Stdio::null());
    cluster.room("general");
    let mut client = cluster.cli(0, &["tail", "general"]).stdout(Stdio::null()).spawn().unwrap();
    let cases = [
        (sleep.id(), "not folkmoot"),
        (std::process::id(), "not folkmoot"),
        (client.id(), "not as a node"),
        (u32::MAX, "does not run"),
    ];
    // A child is not the program that it was started as until its `exec`.
    wait_for("the client to run", PATIENCE, || {
        let error = Target::of_pid(client.id()).unwrap_err().to_string();
        if error.contains("as a node") { Ok(()) } else { Err(error) }
    });
    for (pid, why) in cases {
        let error = Target::of_pid(pid).unwrap_err().to_string();
        assert!(error.starts_with("refused") && error.contains(why), "{error}");
    }
    for child in [&mut sleep, &mut client] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let uninitialized = TestCluster::start_uninitialized(1, Options::default());
    wait_for("the node to run", PATIENCE, || {
        answers(&uninitialized, 0).then_some(()).ok_or("no".into())
    });
    let error = Target::of_pid(uninitialized.pid(0)).unwrap_err().to_string();
    assert!(error.contains("in no cluster yet"), "{error}");
}

#[test]
fn a_clock_goes_wrong_and_right_again() {
    if !works(&["clock"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let environment = clock::environment(&directory.path().join("clock")).unwrap();
    // All nodes read the one file but the first is the only one that is asked.
    let cluster = TestCluster::start_with(1, Options { environment, ..Options::default() });
    cluster.room("general");
    let target = Target::of_pid(cluster.pid(0)).unwrap();
    let urls = cluster.client_urls();
    let at = |text: &str| {
        let id = crate::common::new_id();
        let acked = load::post(&urls, cluster.admin_token(), "general", &id, text);
        let path = format!("/v1/rooms/general/events?after={}", acked.seq - 1);
        let page = cluster.admin(0).get(&path).unwrap().expect(200);
        humantime::parse_rfc3339(page["events"][0]["at"].as_str().unwrap()).unwrap()
    };
    let before = at("before");
    // The node alone knows no better clock than its own.
    let wrong = clock::jump(&target, 600.0).unwrap().inject().unwrap();
    let shift = wait_for("a wrong clock", PATIENCE, || {
        let shift = at("ahead").duration_since(before).unwrap_or_default();
        if shift > Duration::from_secs(500) { Ok(shift) } else { Err(format!("{shift:?}")) }
    });
    wrong.heal().unwrap();
    assert_eq!(std::fs::read_to_string(directory.path().join("clock")).unwrap(), "+0");
    // Log time does not go back.
    assert!(at("after").duration_since(before).unwrap() >= shift);
    let strobe = clock::strobe(&target, -60.0, Duration::from_millis(50)).unwrap();
    let strobe = strobe.inject().unwrap();
    let file = directory.path().join("clock");
    for offset in ["-60", "+0", "-60"] {
        wait_for("the clock to move", PATIENCE, || {
            let now = std::fs::read_to_string(&file).unwrap();
            if now == offset { Ok(()) } else { Err(now) }
        });
    }
    at("in between");
    strobe.heal().unwrap();
    assert_eq!(std::fs::read_to_string(file).unwrap(), "+0");
    say!("600 s ahead: log time moved by {shift:?}");
    let error = clock::jump(&Target::of_pid(TestCluster::start(1).pid(0)).unwrap(), 1.0);
    let error = error.err().unwrap().to_string();
    assert!(error.contains("was not started under libfaketime"), "{error}");
}
