//! What the kernel says about the servers, the disk and the machine. Zeros where it says nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Clock ticks a second in /proc: the same on every machine that Linux runs on today.
const TICKS: f64 = 100.0;

/// Live process ids: from a list with commas, or from the *.pid files of a folder.
pub(super) fn read_pids(list_or_folder: &str) -> Vec<u32> {
    let mut pids: Vec<u32> = match fs::read_dir(list_or_folder) {
        Ok(entries) => {
            let paths = entries.flatten().map(|entry| entry.path());
            let files = paths.filter(|path| path.extension().is_some_and(|e| e == "pid"));
            files.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok()).collect()
        }
        Err(_) => list_or_folder.split(',').filter_map(|pid| pid.trim().parse().ok()).collect(),
    };
    pids.retain(|pid| Path::new(&format!("/proc/{pid}")).exists());
    pids.sort_unstable();
    pids
}

/// Fields of /proc/PID/stat after the command's name.
fn proc_stat(pid: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.get(stat.rfind(')')? + 2..)?;
    Some(rest.split_whitespace().map(String::from).collect())
}

/// CPU seconds, user and system, that a process has used with all its threads.
fn cpu(fields: &[String]) -> f64 {
    let ticks = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / TICKS
}

fn cpu_of(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|pid| proc_stat(&pid.to_string())).map(|fields| cpu(&fields)).sum()
}

fn proc_field(pid: u32, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_whitespace().next()?.parse().ok()
}

/// Resident memory of each process, in MiB.
pub(super) fn rss_mib(pids: &[u32]) -> Vec<f64> {
    let kib = pids.iter().filter_map(|pid| proc_field(*pid, "status", "VmRSS:"));
    kib.map(|kib| kib as f64 / 1024.0).collect()
}

/// The machine's load over the last minute.
pub(super) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(-1.0)
}

/// Bytes under a folder: allocated, and as the files say.
fn disk_usage(dir: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        let (allocated, apparent) = if metadata.is_dir() {
            disk_usage(&entry.path())
        } else {
            (metadata.blocks() * 512, metadata.len())
        };
        sum = (sum.0 + allocated, sum.1 + apparent);
    }
    sum
}

/// Flushes and bytes written that the block device below a path has completed.
fn device(path: &Path) -> (u64, u64) {
    let Ok(metadata) = fs::metadata(path) else { return (0, 0) };
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"));
    let stat = stat.unwrap_or_default();
    let fields: Vec<u64> = stat.split_whitespace().filter_map(|f| f.parse().ok()).collect();
    let field = |index: usize| fields.get(index).copied().unwrap_or(0);
    (field(15), field(6) * 512)
}

/// CPU seconds of the whole machine since it started: of processes (the kernel's own threads
/// too), of interrupts, and stolen ones.
fn machine_cpu() -> (f64, f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    let sum = |range: std::ops::Range<usize>| -> f64 {
        ticks.get(range).map_or(0.0, |ticks| ticks.iter().sum::<f64>() / TICKS)
    };
    (sum(0..3), sum(5..7), sum(7..8))
}

/// CPU seconds of each of the kernel's own threads: writeback, the journal, soft interrupts.
fn kernel_threads() -> BTreeMap<String, f64> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().into_string() else { continue };
        if !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        if let Some(fields) = proc_stat(&pid)
            && fields.get(1).is_some_and(|parent| parent == "2")
        {
            threads.insert(pid, cpu(&fields));
        }
    }
    threads
}

/// Counters at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Snap {
    pub server_cpu: f64,
    pub self_cpu: f64,
    machine_cpu: f64,
    interrupt_cpu: f64,
    kernel_threads: BTreeMap<String, f64>,
    pub stolen: f64,
    pub written: u64,
    pub allocated: u64,
    pub apparent: u64,
    pub flushes: u64,
    pub device_written: u64,
}

impl Snap {
    /// Reads the counters of these processes, and of the folder with their data.
    pub(super) fn take(pids: &[u32], data: Option<&PathBuf>) -> Snap {
        let (machine_cpu, interrupt_cpu, stolen) = machine_cpu();
        let (flushes, device_written) = data.map(|data| device(data)).unwrap_or_default();
        let (allocated, apparent) = data.map(|data| disk_usage(data)).unwrap_or_default();
        Snap {
            server_cpu: cpu_of(pids),
            self_cpu: cpu_of(&[std::process::id()]),
            machine_cpu,
            interrupt_cpu,
            kernel_threads: kernel_threads(),
            stolen,
            written: pids.iter().filter_map(|pid| proc_field(*pid, "io", "write_bytes:")).sum(),
            allocated,
            apparent,
            flushes,
            device_written,
        }
    }

    /// CPU seconds since `a` of programs that are neither the servers nor this one.
    pub(super) fn others_since(&self, a: &Snap) -> f64 {
        let all = self.machine_cpu - a.machine_cpu;
        let ours = self.server_cpu - a.server_cpu + self.self_cpu - a.self_cpu;
        (all - ours - self.threads_since(a)).max(0.0)
    }

    /// CPU seconds since `a` of the kernel's threads and interrupts.
    pub(super) fn kernel_since(&self, a: &Snap) -> f64 {
        self.threads_since(a) + self.interrupt_cpu - a.interrupt_cpu
    }

    /// Such threads come and go, and take their sums along.
    fn threads_since(&self, a: &Snap) -> f64 {
        let earlier = |pid: &String| a.kernel_threads.get(pid).copied().unwrap_or(0.0);
        self.kernel_threads.iter().map(|(pid, cpu)| (cpu - earlier(pid)).max(0.0)).sum()
    }
}

/// A wait for a quiet machine.
#[derive(Debug, Clone)]
pub(super) struct Quiet {
    /// The servers, which must have finished with what earlier runs left them.
    pub pids: Vec<u32>,
    /// Others must use fewer cores than this.
    pub cores_max: f64,
    /// Then it begins all the same.
    pub wait_max: Duration,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waited {
    /// Cores that others used last.
    pub other_cores: f64,
    pub seconds: f64,
}

impl Quiet {
    /// Blocks until it is quiet.
    pub(super) fn wait(&self) -> Waited {
        const WINDOW: Duration = Duration::from_secs(2);
        const SERVER_CORES_MAX: f64 = 0.3;
        let begun = Instant::now();
        loop {
            let before = Snap::take(&self.pids, None);
            std::thread::sleep(WINDOW);
            let after = Snap::take(&self.pids, None);
            let other_cores = after.others_since(&before) / WINDOW.as_secs_f64();
            let servers = (after.server_cpu - before.server_cpu) / WINDOW.as_secs_f64();
            let quiet = other_cores < self.cores_max && servers < SERVER_CORES_MAX;
            if quiet || begun.elapsed() >= self.wait_max {
                return Waited { other_cores, seconds: begun.elapsed().as_secs_f64() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_measured() {
        let pid = std::process::id();
        assert_eq!(read_pids(&format!("{pid}, 999999999")), [pid]);
        assert!(rss_mib(&[pid])[0] > 0.1);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.pid"), pid.to_string()).unwrap();
        fs::write(dir.path().join("b"), "1").unwrap();
        assert_eq!(read_pids(&dir.path().display().to_string()), [pid]);
        assert!(disk_usage(dir.path()).1 >= 1);
        let before = Snap::take(&[pid], None);
        let busy = Instant::now();
        while busy.elapsed() < Duration::from_millis(60) {}
        assert!(Snap::take(&[pid], None).server_cpu > before.server_cpu);
    }
}
