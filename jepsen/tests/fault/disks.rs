//! Faults of disks, and what a node does about them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use folkmoot_jepsen::fault::disk::Disk;
use folkmoot_jepsen::fault::files::{self, What};
use folkmoot_jepsen::fault::{FaultError, Target, fsync, full, power, stall};
use serde_json::json;

use crate::common::cluster::{Options, TestCluster};
use crate::common::load::{self, Load};
use crate::common::{new_id, say, settings, wait_for};
use crate::world::{World, rooms, works};

const PATIENCE: Duration = Duration::from_secs(30);
/// A disk that a node does not take for nearly full. Most of it is never written.
const MIB: u64 = 1024;

fn start_load(world: &World, rooms: &[String]) -> Load {
    Load::start(&world.cluster.client_urls(), world.cluster.admin_token(), rooms, 6)
}

/// What is on the disk beside the node's data.
fn beside(target: &Target, name: &str) -> PathBuf {
    Disk::of(target).unwrap().mount.join(name)
}

#[test]
fn a_power_cut_loses_what_was_not_synced_and_nothing_acknowledged() {
    if !works(&["powercut"]) {
        return;
    }
    let mut world = World::start(3, MIB, Options::default());
    let rooms = rooms(&world.cluster);
    let load = start_load(&world, &rooms);
    let rounds = [vec![1], vec![0], vec![2], vec![0, 1], vec![0, 1, 2], vec![0, 1, 2]];
    for (round, victims) in rounds.into_iter().enumerate() {
        load.wait_more(100);
        let targets: Vec<_> = victims.iter().map(|i| world.target(*i)).collect();
        // ext4 syncs what is written over a file that was there (auto_da_alloc): a new one each time.
        let name = format!("folkmoot-fault-test-{round}");
        let unsynced: Vec<_> = targets.iter().map(|target| beside(target, &name)).collect();
        unsynced.iter().for_each(|file| fs::write(file, "not synced").unwrap());
        let disks: Vec<_> = targets.iter().map(|target| Disk::of(target).unwrap()).collect();
        let begin = Instant::now();
        power::cut(&targets.iter().collect::<Vec<_>>()).unwrap().inject().unwrap().stay();
        let took = begin.elapsed();
        // The nodes' own syncs may have written its name.
        let found = unsynced.iter().map(|file| fs::read(file).unwrap_or_default());
        assert!(found.into_iter().all(|bytes| bytes.is_empty()), "the page cache survived");
        for i in &victims {
            world.cluster.killed(*i);
            world.cluster.restart(*i);
        }
        for (i, disk) in victims.iter().zip(&disks) {
            world.cluster.wait_ready_node(*i);
            assert_eq!(Disk::of(&world.target(*i)).unwrap(), *disk, "mounted as it was");
        }
        say!("power cut of {victims:?} took {took:?}");
    }
    load.wait_more(100);
    let acked = load.finish();
    load::check_everywhere(&world.cluster, &rooms, &acked);
    say!("{} acknowledged", acked.len());
}

#[test]
fn a_full_disk_is_said_and_posts_go_on_once_it_is_freed() {
    if !works(&["diskfull"]) {
        return;
    }
    let set =
        ["store.ballast=4MiB", "store.min_free_disk=16MiB", "store.checkpoint_interval=200ms"];
    let arguments = settings(&set);
    let world = World::start(1, 384, Options { arguments, ..Options::default() });
    world.cluster.room("general");
    let target = world.target(0);
    let post = |text: &str| {
        let body = json!({ "client_msg_id": new_id(), "text": text });
        world.cluster.admin(0).post("/v1/rooms/general/messages", &body).unwrap()
    };
    for leave in [8 << 20, 0] {
        let active = full::fill(&target, leave).unwrap().inject().unwrap();
        let error = wait_for("posts to be refused", PATIENCE, || match post("refused") {
            answer if answer.status == 507 => Ok(answer),
            answer => Err(format!("status {}", answer.status)),
        });
        let error = error.expect_error(507, "disk_full");
        assert_eq!(
            (&error["temporary"], &error["may_have_applied"]),
            (&true.into(), &false.into())
        );
        world.cluster.admin(0).get("/v1/rooms/general/events?after=0").unwrap().expect(200);
        active.heal().unwrap();
        assert!(!beside(&target, full::HOG).exists());
        wait_for("posts to go on", PATIENCE, || match post("taken").status {
            200 => Ok(()),
            status => Err(format!("status {status}")),
        });
    }
    // What another program has filled is freed by name.
    full::fill(&target, 0).unwrap().inject().unwrap().stay();
    assert!(beside(&target, full::HOG).exists());
    full::free(&target).unwrap().inject().unwrap().stay();
    assert!(!beside(&target, full::HOG).exists());
}

#[test]
fn one_full_disk_of_three_stops_nobody() {
    if !works(&["diskfull"]) {
        return;
    }
    let set =
        ["store.ballast=4MiB", "store.min_free_disk=16MiB", "store.checkpoint_interval=200ms"];
    let arguments = settings(&set);
    let mut world = World::start(3, 384, Options { arguments, ..Options::default() });
    let rooms = rooms(&world.cluster);
    let load = start_load(&world, &rooms);
    load.wait_more(50);
    let active = full::fill(&world.target(1), 0).unwrap().inject().unwrap();
    let begin = Instant::now();
    for _ in 0..5 {
        load.wait_more(100);
    }
    say!("with one full disk of three, 500 posts took {:?}", begin.elapsed());
    active.heal().unwrap();
    load.wait_more(50);
    world.cluster.wait_ready();
    let acked = load.finish();
    load::check_everywhere(&world.cluster, &rooms, &acked);
}

#[test]
fn a_stalled_disk_stops_nobody_else_and_thaws_by_itself() {
    if !works(&["diskstall"]) {
        return;
    }
    let mut world = World::start(3, MIB, Options::default());
    let rooms = rooms(&world.cluster);
    let load = start_load(&world, &rooms);
    load.wait_more(50);
    let target = world.target(1);
    let active = stall::stall(&target, Duration::from_secs(60)).unwrap().inject().unwrap();
    let writes = beside(&target, "folkmoot-fault-test");
    let writer = std::thread::spawn(move || fs::write(writes, "waits").map(|()| Instant::now()));
    let begin = Instant::now();
    load.wait_more(100);
    say!("with one stalled disk of three, 100 posts took {:?}", begin.elapsed());
    assert!(!writer.is_finished(), "the disk is not stalled");
    let healed = Instant::now();
    active.heal().unwrap();
    assert!(writer.join().unwrap().unwrap() >= healed);
    load.wait_more(50);
    // Nobody heals this one.
    let begin = Instant::now();
    stall::stall(&target, Duration::from_secs(1)).unwrap().inject().unwrap().stay();
    fs::write(beside(&target, "folkmoot-fault-test"), "waits").unwrap();
    assert!((1..20).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    load.wait_more(50);
    world.cluster.wait_ready();
    let acked = load.finish();
    load::check_everywhere(&world.cluster, &rooms, &acked);
}

#[test]
fn a_node_whose_fsync_fails_stops_and_says_why() {
    if !works(&["fsyncfail"]) {
        return;
    }
    let mut cluster = TestCluster::start(3);
    let rooms = rooms(&cluster);
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 6);
    load.wait_more(50);
    let target = Target::of_pid(cluster.pid(1)).unwrap();
    let active = fsync::fail(&target, 3, Duration::from_secs(60)).inject().unwrap();
    let status = cluster.wait_exit(1);
    assert!(!status.success(), "{status}");
    active.heal().unwrap();
    let log = cluster.log(1);
    let said = log.lines().rev().find(|line| line.contains("fsync failed; stopping"));
    say!("{status}: {}", said.unwrap_or_else(|| panic!("it does not say why: {log}")));
    load.wait_more(50);
    cluster.restart(1);
    cluster.wait_ready_node(1);
    let acked = load.finish();
    load::check_everywhere(&cluster, &rooms, &acked);
}

/// What a node may say that does not start on damaged files: what is wrong, and what to do.
const ADVICE: [&str; 3] = ["under a new id", "Restore the file from a backup", "put it back"];

#[test]
fn a_node_whose_files_were_damaged_is_whole_or_says_what_to_do() {
    let mut cluster = TestCluster::start(3);
    let rooms = rooms(&cluster);
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 6);
    load.wait_more(300);
    let data_dir = cluster.data_dir(2).to_path_buf();
    let error = files::flip(&data_dir, What::Log, 1).err().unwrap().to_string();
    assert!(error.contains("a node runs on"), "{error}");
    let mut outcomes = vec![];
    for (name, what) in What::ALL {
        for seed in 0..6 {
            cluster.kill(2);
            let plan = match seed % 3 {
                0 => files::truncate(&data_dir, what, seed),
                _ => files::flip(&data_dir, what, seed),
            };
            let plan = plan.unwrap();
            let how = plan.inject[1].to_string().replace(data_dir.to_str().unwrap(), "");
            let active = plan.inject().unwrap();
            let refused = cluster.try_restart(2).err();
            if let Some(said) = &refused {
                assert!(what != What::Sled, "it does not help itself: {said}");
                assert!(ADVICE.iter().any(|advice| said.contains(advice)), "{name} {seed}: {said}");
                active.heal().unwrap();
                cluster.try_restart(2).unwrap();
            } else {
                active.stay();
            }
            outcomes.push(format!("{how}: {}", refused.map_or("runs", |_| "refused")));
            load.wait_more(30);
        }
    }
    say!("{}", outcomes.join("\n"));
    assert!(outcomes.iter().filter(|outcome| outcome.contains("refused")).count() >= 5);
    cluster.wait_ready();
    let acked = load.finish();
    load::check_everywhere(&cluster, &rooms, &acked);
}

#[test]
fn files_put_back_are_noticed_and_put_right_only_before_the_node_runs() {
    let mut cluster = TestCluster::start(3);
    let rooms = rooms(&cluster);
    let load = Load::start(&cluster.client_urls(), cluster.admin_token(), &rooms, 6);
    load.wait_more(100);
    cluster.kill(2);
    let data_dir = cluster.data_dir(2).to_path_buf();
    let copy = cluster.directory().join("copy");
    files::save(&data_dir, &copy).unwrap().inject().unwrap().stay();
    let error = files::save(&data_dir, &copy).err().unwrap();
    assert!(matches!(error, FaultError::Refused(_)), "{error}");
    // Put back at once, it is what it was.
    files::roll_back(&data_dir, What::Log, &copy).unwrap().inject().unwrap().heal().unwrap();
    cluster.try_restart(2).unwrap();
    load.wait_more(500);
    cluster.kill(2);
    files::roll_back(&data_dir, What::Log, &copy).unwrap().inject().unwrap().stay();
    cluster.restart(2);
    assert!(!cluster.wait_exit(2).success());
    let log = cluster.log(2);
    assert!(log.contains("join again under a new id"), "it says what to do");
    assert_runs_no_more(&data_dir);
    load.wait_more(100);
    let acked = load.finish();
    load::check_on(&cluster, 0..2, &rooms, &acked);
}

/// The node has written its identity once, and does not write what was put back again.
#[test]
fn files_put_back_outlive_a_power_cut() {
    if !works(&["powercut"]) {
        return;
    }
    let mut world = World::start(3, MIB, Options::default());
    world.cluster.kill(2);
    let data_dir = world.cluster.data_dir(2).to_path_buf();
    files::flip(&data_dir, What::Log, 1).unwrap().inject().unwrap().heal().unwrap();
    world.cluster.restart(2);
    world.cluster.wait_ready_node(2);
    power::cut(&[&world.target(2)]).unwrap().inject().unwrap().stay();
    world.cluster.killed(2);
    world.cluster.restart(2);
    world.cluster.wait_ready_node(2);
}

/// The node ran on the files and wrote: what was kept is older than that.
fn assert_runs_no_more(data_dir: &Path) {
    let restored = files::restore(data_dir).unwrap().inject().err();
    let error = restored.expect("it was put back over what the node wrote").to_string();
    assert!(error.contains("a node has run on"), "{error}");
}
