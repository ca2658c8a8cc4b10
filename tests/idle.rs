//! What three nodes take when nobody chats.

#![cfg(target_os = "linux")]
use std::time::Duration;

use crate::common::cluster::TestCluster;

/// How long it is looked at.
const LOOK: Duration = Duration::from_secs(20);
/// In MiB.
const MEMORY_MAX: f64 = 100.0;

/// Processor time of a process so far, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name, in brackets, may have spaces; user and system time are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0 // `USER_HZ`
}

/// Resident memory of a process, in MiB.
fn memory(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1024.0
}

/// The target is 2 % of a core, on a processor like that of docs/performance.md.
/// `FOLKMOOT_TEST_IDLE` holds the test to it; else only a node that spins fails.
fn cores_max() -> f64 {
    if std::env::var_os("FOLKMOOT_TEST_IDLE").is_some() { 0.02 } else { 0.05 }
}

#[test]
fn an_idle_node_takes_little() {
    let cluster = TestCluster::start(3);
    let pids: Vec<u32> = (0..3).map(|i| cluster.pid(i)).collect();
    let before: Vec<f64> = pids.iter().map(|pid| cpu_seconds(*pid)).collect();
    std::thread::sleep(LOOK);
    for (pid, before) in pids.into_iter().zip(before) {
        let cores = (cpu_seconds(pid) - before) / LOOK.as_secs_f64();
        let memory = memory(pid);
        crate::common::say!("{:.2} % of a core, {memory:.0} MiB", 100.0 * cores);
        assert!(cores <= cores_max(), "{cores} of a core");
        assert!(memory <= MEMORY_MAX, "{memory} MiB");
    }
}
