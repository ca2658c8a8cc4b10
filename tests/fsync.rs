//! An acknowledgement follows an fsync on a majority: seen from outside, with strace.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::cluster::TestCluster;
use crate::common::{load, new_id, wait_for};

/// A process whose fsyncs are written down. strace notes a call's end before the process learns of
/// it, so what an fsync has caused cannot come before its line.
struct Traced {
    strace: Child,
    output: PathBuf,
}

impl Traced {
    fn attach(pid: u32, output: &Path) -> Option<Traced> {
        let strace = Command::new("strace")
            .args(["-f", "-q", "-e", "trace=fsync,fdatasync", "-p", &pid.to_string(), "-o"])
            .arg(output)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Traced { strace, output: output.into() })
    }

    fn attached(&mut self, pid: u32) -> Result<bool, String> {
        if self.strace.try_wait().unwrap().is_some() {
            return Ok(false);
        }
        let traced = |task: std::io::Result<std::fs::DirEntry>| {
            let status = std::fs::read_to_string(task.unwrap().path().join("status"));
            // A thread that has ended meanwhile does not count.
            status.map_or(true, |status| !status.contains("TracerPid:\t0\n"))
        };
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| e.to_string())?;
        let mut threads = tasks.map(traced);
        if threads.all(|traced| traced) { Ok(true) } else { Err("not yet".into()) }
    }

    /// How many fsyncs have succeeded so far.
    fn fsyncs(&self) -> usize {
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        text.lines().filter(|line| line.ends_with("= 0")).count()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // It may have ended with its process.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

fn trace(cluster: &TestCluster) -> Option<Vec<Traced>> {
    let mut traced = vec![];
    for i in 0..cluster.len() {
        let output = cluster.directory().join(format!("strace{i}"));
        let mut one = Traced::attach(cluster.pid(i), &output)?;
        let attached =
            wait_for("strace to attach", Duration::from_secs(20), || one.attached(cluster.pid(i)));
        if !attached {
            return None;
        }
        traced.push(one);
    }
    Some(traced)
}

#[test]
fn every_acknowledgement_follows_an_fsync_on_two_of_three_nodes() {
    let cluster = TestCluster::start(3);
    cluster.room("general");
    let Some(traced) = trace(&cluster) else {
        crate::common::say!("SKIPPED: strace is missing, or may not attach to a process here");
        return;
    };
    let (urls, token) = (cluster.client_urls(), cluster.admin_token());
    let count = || traced.iter().map(Traced::fsyncs).collect::<Vec<_>>();
    for n in 0..30 {
        let before = count();
        load::post(&urls, token, "general", &new_id(), &format!("message {n}"));
        let after = count();
        let synced = before.iter().zip(&after).filter(|(before, after)| after > before).count();
        assert!(synced >= 2, "acknowledged after fsyncs {before:?} to {after:?}");
    }
}
