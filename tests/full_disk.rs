//! A node whose disk is full says so, loses nothing, and goes on once there is space.
//!
//! The disk is a tmpfs of its own, which only root may mount; elsewhere these tests say that they
//! were skipped.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::cluster::{Options, TestCluster, folkmoot, free_port};
use crate::common::{load, new_id, wait_for};
use folkmoot::store::base::{Base, Batch};
use folkmoot::store::sled_base::{SledBase, SledOptions};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);

/// A small disk, with a file that takes up what the test wants taken.
struct Disk {
    directory: tempfile::TempDir,
}

impl Disk {
    fn mount(mib: u32) -> Option<Disk> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(directory.path());
        if mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            return Some(Disk { directory });
        }
        crate::common::say!("SKIPPED: a disk of the test's own can only be mounted by root");
        None
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn filler(&self) -> PathBuf {
        self.directory.path().join("filler")
    }

    /// Takes up space until this many bytes are left.
    fn fill(&self, leave: u64) {
        let mut filler = File::options().create(true).append(true).open(self.filler()).unwrap();
        let chunk = vec![1; 4096];
        while free(self.directory.path()) > leave && filler.write_all(&chunk).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

fn free(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.directory.path()).status();
    }
}

fn options(disk: &Disk) -> Options {
    let set = [
        format!("node.data_dir={}", disk.data().display()),
        "store.ballast=4MiB".into(),
        "store.min_free_disk=16MiB".into(),
        "store.checkpoint_interval=200ms".into(),
        "limits.request_timeout=2s".into(),
    ];
    let arguments = set.into_iter().flat_map(|setting| ["--set".into(), setting]).collect();
    Options { arguments, ..Options::default() }
}

#[test]
fn posts_are_refused_while_the_disk_is_full_and_go_on_after() {
    let Some(disk) = Disk::mount(384) else { return };
    let mut cluster = TestCluster::start_with(1, options(&disk));
    cluster.room("general");
    let (urls, token) = (cluster.client_urls(), cluster.admin_token().to_owned());
    let rooms = ["general".to_owned()];
    let admin = cluster.admin(0);
    let post = |text: &str| {
        let body = json!({ "client_msg_id": new_id(), "text": text });
        admin.post("/v1/rooms/general/messages", &body).unwrap()
    };
    let read = || admin.get("/v1/rooms/general/events?after=0").unwrap().expect(200);
    let mut acked = vec![load::post(&urls, &token, "general", &new_id(), "before")];
    // First nearly full, then so full that nothing at all can be written.
    for leave in [8 << 20, 0] {
        wait_for("the ballast", PATIENCE, || {
            let filled = std::fs::metadata(disk.data().join("ballast")).is_ok();
            if filled { Ok(()) } else { Err("it is not there".into()) }
        });
        disk.fill(leave);
        wait_for("posts to be refused", PATIENCE, || {
            disk.fill(leave);
            match post("refused").status {
                507 => Ok(()),
                status => Err(format!("status {status}")),
            }
        });
        let before = read();
        let error = post("refused too").expect_error(507, "disk_full");
        assert_eq!(error["temporary"], true);
        assert_eq!(error["may_have_applied"], false);
        assert!(error["retry_after_ms"].is_u64(), "{error}");
        assert_eq!(read(), before, "reads go on, and nothing changes");
        disk.free();
        acked.push(load::post(&urls, &token, "general", &new_id(), "after"));
    }
    check(&cluster, &rooms, &acked);
    disk.fill(0);
    cluster.kill(0);
    // Whether the node gets along with what the ballast gives, or says that it cannot:
    let started = cluster.try_restart(0);
    disk.free();
    if let Err(said) = started {
        assert!(said.contains("No space left on device"), "{said}");
        cluster.restart(0);
    }
    cluster.wait_ready();
    acked.push(load::post(&urls, &token, "general", &new_id(), "at last"));
    check(&cluster, &rooms, &acked);
}

/// Checks that what was acknowledged is there once; what was refused with a doubt may be, too.
fn check(cluster: &TestCluster, rooms: &[String], acked: &[load::Acked]) {
    for room in rooms {
        let mut log = load::read_room(&cluster.admin(0), room, "linearizable");
        assert!(log.iter().zip(1..).all(|(event, seq)| event.seq == seq), "the log is dense");
        assert!(!log.iter().any(|event| event.text == "refused too"), "{log:?}");
        log.retain(|event| event.kind == "message" && event.text != "refused");
        let ids: Vec<_> = log.iter().map(|event| &event.id).collect();
        assert_eq!(ids, acked.iter().map(|message| &message.id).collect::<Vec<_>>());
    }
}

/// sled gives up for good at its first failed write, so it must not come to that.
#[test]
fn a_base_without_room_refuses_to_write_answers_reads_and_goes_on_when_there_is_some() {
    let Some(disk) = Disk::mount(64) else { return };
    let base = SledBase::open(&disk.data(), &SledOptions::default()).unwrap();
    let write = |n: u32| {
        let mut batch = Batch::new();
        for row in 0..500_u32 {
            let value: Vec<u8> = (0..4_000_u32).map(|i| ((i * row * n) >> 3) as u8).collect();
            batch.put([n.to_be_bytes(), row.to_be_bytes()].concat(), value);
        }
        base.write(batch).and_then(|()| base.flush())
    };
    write(0).unwrap();
    disk.fill(0);
    for n in 1..10 {
        assert_eq!(write(n).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }
    assert!(base.get(&[0; 8]).unwrap().is_some(), "reads go on");
    disk.free();
    write(1).unwrap();
    assert!(base.get(&[0, 0, 0, 1, 0, 0, 0, 0]).unwrap().is_some());
}

#[test]
fn a_first_start_on_a_full_disk_says_so() {
    let Some(disk) = Disk::mount(8) else { return };
    disk.fill(0);
    let mut command = folkmoot();
    command.arg("serve").arg("--data-dir").arg(disk.data());
    command.args(["--client-listen", &format!("127.0.0.1:{}", free_port())]);
    command.args(["--peer-listen", &format!("127.0.0.1:{}", free_port())]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.contains(&*disk.data().to_string_lossy()), "{said}");
}
