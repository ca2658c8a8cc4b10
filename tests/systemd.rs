//! A node under systemd, whose part the test plays: it hears that the node serves, how it stands,
//! that it makes progress, and that it stops. And systemd itself finds nothing wrong with our unit.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::cluster::{Options, TestCluster, folkmoot, free_port};
use rustix::process::Signal;

/// How long anything may take to be said, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may be silent before systemd ends it.
const WATCHDOG: Duration = Duration::from_secs(8);
/// Exposure that `systemd-analyze security` may find, in tenths: 2.0 of 10 is "OK".
const EXPOSURE_MAX: &str = "20";

/// systemd's end of the socket.
struct Notified(UnixDatagram);

impl Notified {
    fn bind(path: &Path) -> Notified {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Notified(socket)
    }

    /// The next datagram; `None` when there is none for a moment.
    fn next(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let count = self.0.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
    }

    /// Reads until each of these was part of a line: what different tasks say has no order.
    fn until_each(&self, parts: &[&str]) {
        let mut missing = parts.to_vec();
        self.until(&parts.join(" and "), |line| {
            missing.retain(|part| !line.contains(part));
            missing.is_empty()
        });
    }

    /// Reads until a line fits; every line up to it.
    fn until(&self, what: &str, mut fits: impl FnMut(&str) -> bool) -> Vec<String> {
        let begin = Instant::now();
        let mut lines: Vec<String> = vec![];
        while begin.elapsed() < PATIENCE {
            let Some(datagram) = self.next() else { continue };
            lines.extend(datagram.lines().map(str::to_owned));
            if datagram.lines().any(&mut fits) {
                return lines;
            }
        }
        panic!("waited for {what}, and heard {lines:?}");
    }
}

#[test]
fn a_node_says_when_it_serves_how_it_stands_and_that_it_stops() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let systemd = Notified::bind(&path);
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let watchdog = WATCHDOG.as_micros().to_string();
    let environment =
        vec![set("NOTIFY_SOCKET", path.to_str().unwrap()), set("WATCHDOG_USEC", &watchdog)];
    let options = Options { environment, ..Default::default() };

    let mut cluster = TestCluster::start_uninitialized(1, options);
    // One that is to form a cluster must have started, or nobody could form it.
    systemd.until_each(&["READY=1", "no cluster"]);
    cluster.init();
    cluster.wait_ready();
    systemd.until("its standing", |line| line == "STATUS=ready");
    systemd.until("a sign of life", |line| line == "WATCHDOG=1");
    for _ in 0..3 {
        let begin = Instant::now();
        systemd.until("another", |line| line == "WATCHDOG=1");
        let silent = begin.elapsed();
        assert!(silent < WATCHDOG, "systemd would have ended it: {silent:?}");
    }
    cluster.signal(0, Signal::TERM);
    systemd.until("STOPPING", |line| line == "STOPPING=1");
    assert!(cluster.wait_exit(0).success());

    // One that has a cluster serves only once its groups have started.
    while systemd.next().is_some() {}
    cluster.restart(0);
    systemd.until_each(&["READY=1", "STATUS=ready"]);
    let log = cluster.log(0);
    let started = log.rfind("listening").unwrap();
    assert!(!log[started..].contains("ERROR"), "{}", &log[started..]);

    // One that hangs is silent.
    cluster.signal(0, Signal::STOP);
    while systemd.next().is_some() {}
    std::thread::sleep(WATCHDOG);
    assert_eq!(systemd.next(), None);
    cluster.signal(0, Signal::CONT);
    systemd.until("a sign of life", |line| line == "WATCHDOG=1");
}

#[test]
fn a_node_that_cannot_start_never_says_that_it_serves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let systemd = Notified::bind(&path);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut serve = folkmoot();
    serve.arg("serve").arg("--data-dir").arg(directory.path().join("data"));
    serve.args(["--client-listen", &taken.local_addr().unwrap().to_string()]);
    serve.args(["--peer-listen", &format!("127.0.0.1:{}", free_port())]);
    let output = serve.env("NOTIFY_SOCKET", &path).output().unwrap();
    assert!(!output.status.success());
    while let Some(said) = systemd.next() {
        assert!(!said.contains("READY"), "{said}");
    }
}

/// The unit, with a program and a configuration that are there.
fn unit(directory: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("cluster/folkmoot.service")).unwrap();
    let program = env!("CARGO_BIN_EXE_folkmoot");
    assert!(text.matches("/usr/local/bin/folkmoot").count() >= 3);
    let text = text.replace("/usr/local/bin/folkmoot", program);
    let path = directory.join("folkmoot.service");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        crate::common::say!("SKIPPED: no systemd-analyze; install systemd");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let unit = unit(directory.path());
    let analyze = |arguments: &[&str], unit: &str| {
        let output = Command::new("systemd-analyze").args(arguments).arg(unit).output().unwrap();
        let said = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
        (output.status.success(), said)
    };
    let verify = ["verify", "--man=no", "--recursive-errors=no"];
    assert_eq!(analyze(&verify, &unit), (true, String::new()));
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let (exposed, said) = analyze(&["security", "--offline=true", "--no-pager", &threshold], &unit);
    assert!(exposed, "{said}");
    // And it would say so: an unknown setting is a complaint.
    let text = std::fs::read_to_string(&unit).unwrap();
    std::fs::write(&unit, text.replace("WatchdogSec=", "WatchdogTime=")).unwrap();
    let (fine, said) = analyze(&verify, &unit);
    assert!(!fine && said.contains("WatchdogTime"), "{said}");
}

#[test]
fn the_unit_waits_longer_than_a_node_takes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("cluster/folkmoot.service")).unwrap();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        humantime::parse_duration(line.unwrap_or_else(|| panic!("no {name}"))).unwrap()
    };
    let default = folkmoot::config::Config::default();
    assert!(value("TimeoutStopSec") > 2 * default.node.shutdown_timeout);
    assert!(value("WatchdogSec") >= Duration::from_secs(30));
}
