//! `folkmoot-jepsen run`: what it refuses, and that it leaves nothing behind, however it ends.
//!
//! Attacks themselves are run by `scripts/test`, as they take minutes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);

/// Says past the test harness what was skipped.
fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    std::io::stderr().write_all(format!("{test}: SKIPPED: {why}\n").as_bytes()).unwrap();
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn jepsen() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_folkmoot-jepsen"));
    command.stdin(Stdio::null());
    command
}

/// The product's program, which a build of the whole workspace puts beside this one.
fn has_folkmoot() -> bool {
    let found = Path::new(env!("CARGO_BIN_EXE_folkmoot-jepsen")).with_file_name("folkmoot");
    if !found.is_file() {
        skipped(&format!("no {}; `cargo build --release` makes it", found.display()));
    }
    found.is_file()
}

/// Runs `run`, which must fail with exit code 2; what it said.
fn refused(arguments: &[&str]) -> String {
    let output = jepsen().arg("run").args(arguments).output().unwrap();
    said(&output)
}

fn said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn a_transport_that_there_is_not_is_named_with_those_that_there_are() {
    let said = refused(&["--local", "--nemesis", "none", "--follow", "ws,pigeon"]);
    assert!(said.contains("pigeon") && said.contains("sse, session or ws"), "{said}");
}

#[test]
fn a_nemesis_that_there_is_not_is_named_with_those_that_there_are() {
    let said = refused(&["--local", "--nemesis", "kill,earthquake"]);
    assert!(said.contains("earthquake") && said.contains("kill-pause"), "{said}");
    let said = refused(&["--local", "--nemesis", "power-cut"]);
    assert!(said.contains("power-cut takes root"), "{said}");
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    for (arguments, part) in [
        (["--nodes", "4"], "3 or 5"),
        (["--time", "0s"], "at least 1s"),
        (["--time", "soon"], "soon"),
        (["--rate", "0"], "at least 1"),
        (["--workers", "0"], "at least 1"),
        (["--rooms", "0"], "at least 1"),
        (["--test", "../x"], "letters"),
    ] {
        let said = refused(&[&["--local"], &arguments[..]].concat());
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn churn_takes_spare_nodes_and_only_attacks_that_go_with_it() {
    for (arguments, part) in [
        (&["--spares", "2"][..], "only churn"),
        (&["--nemesis", "churn", "--spares", "0"], "1 to 4 spare nodes"),
        (&["--nemesis", "churn", "--spares", "5"], "1 to 4 spare nodes"),
        (&["--nemesis", "kill,churn,storm,bit-flip"], "does not go with bit-flip, storm"),
    ] {
        let said = refused(&[&["--local"], arguments].concat());
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn an_operation_that_there_is_not_is_refused() {
    let output =
        jepsen().args(["operations", "--local", "--only", "drain,dance"]).output().unwrap();
    let text = said(&output);
    assert!(text.contains("dance") && text.contains("rolling-restart"), "{text}");
}

#[test]
fn a_program_that_is_not_folkmoot_is_refused() {
    let said = refused(&["--local", "--bin", "/nowhere/folkmoot"]);
    assert!(said.contains("/nowhere/folkmoot") && said.contains("--bin"), "{said}");
    let said = refused(&["--local", "--bin", "/bin/true"]);
    assert!(said.contains("must be called folkmoot"), "{said}");
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("folkmoot");
    std::os::unix::fs::symlink("/bin/true", &other).unwrap();
    let said = refused(&["--local", "--bin", other.to_str().unwrap()]);
    assert!(said.contains("is not folkmoot"), "{said}");
}

#[test]
fn errors_are_json_when_asked_for() {
    let said = refused(&["--local", "--json", "--nemesis", "earthquake"]);
    let error: Value = serde_json::from_str(&said).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("earthquake"), "{error}");
}

#[test]
fn without_root_it_says_how_to_go_on() {
    let mut command = jepsen();
    command.arg("run");
    let program = PathBuf::from(env!("CARGO_BIN_EXE_folkmoot-jepsen"));
    if is_root() {
        let mut reaches = Command::new("true");
        reaches.uid(NOBODY).current_dir(program.parent().unwrap());
        if !reaches.status().is_ok_and(|status| status.success()) {
            return skipped("nobody else may run programs from this directory");
        }
        command.uid(NOBODY).gid(NOBODY);
    }
    let text = said(&command.output().unwrap());
    assert!(text.contains("--local") && text.contains("root"), "{text}");
}

const NOBODY: u32 = 65534;

#[test]
fn a_store_without_room_is_refused_and_one_that_cannot_be_made() {
    if !has_folkmoot() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let text = refused(&["--local", "--store", file.to_str().unwrap()]);
    assert!(text.contains(file.to_str().unwrap()), "{text}");

    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(directory.path());
    if !mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return skipped("a small disk can only be mounted by root");
    }
    let output = jepsen().args(["run", "--local", "--store"]).arg(directory.path()).output();
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    let unmounted = Command::new("umount").arg(directory.path()).status().unwrap();
    assert!(unmounted.success());
    let text = said(&output.unwrap());
    assert!(text.contains("MiB free") && text.contains("--store"), "{text}");
    assert!(left.is_empty(), "nothing was made: {left:?}");
}

#[test]
fn tools_that_are_missing_are_named_with_their_packages() {
    if !is_root() {
        return skipped("without root they are not asked for");
    }
    if !has_folkmoot() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let mut command = jepsen();
    command.env("PATH", "/nowhere").args(["run", "--nemesis", "kill", "--store"]).arg(store.path());
    let text = said(&command.output().unwrap());
    assert!(text.contains("no program ip") && text.contains("apt-get install iproute2"), "{text}");
    assert_eq!(only_entry(store.path()), None, "nothing was made");
}

#[test]
fn attacks_that_are_all_missing_are_no_run() {
    if !has_folkmoot() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let mut command = jepsen();
    // The probe of signals takes `sleep`.
    command.env("PATH", "/nowhere").args(["run", "--quiet", "--local", "--nemesis", "kill,pause"]);
    let text = said(&command.arg("--store").arg(store.path()).output().unwrap());
    assert!(text.contains("MISSING: kill: sleep") && text.contains("MISSING: pause"), "{text}");
    assert!(text.contains("fault list"), "{text}");
    assert_eq!(only_entry(store.path()), None, "nothing was made");
}

#[test]
fn a_run_without_an_attack_that_was_named_is_unknown() {
    if !has_folkmoot() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let mut command = jepsen();
    command.env("PATH", "/nowhere").args(["run", "--quiet", "--local", "--time", "1s"]);
    command.args(["--nemesis", "kill,partition", "--store"]).arg(store.path());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text.contains("kill was asked for, and is missing: sleep"), "{text}");
    assert!(text.contains("partition was asked for, and never struck"), "{text}");
    let directory = only_entry(&only_entry(store.path()).unwrap()).unwrap();
    let results = std::fs::read(directory.join("results.json")).unwrap();
    let results: Value = serde_json::from_slice(&results).unwrap();
    assert_eq!(results["missing"][0]["fault"], "kill", "{results}");
    assert_eq!(results["verdict"], "unknown");
    // Judged again, it is the same.
    let checked = jepsen().args(["check", "--json"]).arg(&directory).output().unwrap();
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
    let again: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(again["problems"], results["problems"]);
    // And a row says so.
    let row = jepsen().args(["report", "--row"]).arg(&directory).output().unwrap();
    let row = String::from_utf8(row.stdout).unwrap();
    assert!(row.contains("kill, partition (--local), without kill | 3 | 1 s"), "{row}");
    assert!(row.contains("| unknown |"), "{row}");
}

#[test]
fn a_calm_run_lasts_as_long_as_it_was_told_and_holds_its_limits() {
    if !has_folkmoot() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let begin = Instant::now();
    let mut command = jepsen();
    command.args(["run", "--json", "--quiet", "--local", "--nemesis", "none", "--time", "10s"]);
    // Who goes by what is drawn.
    command.args(["--seed", "1"]);
    let output = command.arg("--store").arg(store.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(begin.elapsed() > Duration::from_secs(10));
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results["verdict"], "valid", "{results}");
    assert!(results["session_posts"].as_u64().unwrap() > 0, "nobody posted on a stream: {results}");
    for transport in ["sse", "session", "ws"] {
        let followed = results["followed"][transport].as_u64();
        assert!(followed.is_some_and(|count| count > 0), "nobody over {transport}: {results}");
    }
    let directory = only_entry(&only_entry(store.path()).unwrap()).unwrap();
    assert!(!directory.join("data").exists());
}

#[test]
fn a_node_that_ends_though_nothing_was_done_to_it_makes_a_run_invalid() {
    if !has_folkmoot() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let mut command = jepsen();
    command.args(["run", "--json", "--quiet", "--local", "--nemesis", "kill", "--time", "15s"]);
    command.arg("--store").arg(store.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = command.spawn().unwrap();
    wait_chatting(store.path(), &mut run);
    // As if it had crashed; the run has nothing to do with it. It may be killing one this very moment.
    wait_for("a node to end", || {
        let node = i32::try_from(*processes_below(store.path()).first()?).unwrap();
        kill_process(Pid::from_raw(node)?, Signal::ABORT).ok()
    });
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = results["findings"].to_string();
    assert!(findings.contains("ended (signal: 6"), "{findings}");
    assert!(findings.contains("nothing was wrong with its disk"), "{findings}");
}

/// A run that goes on for longer than any test.
fn start(arguments: &[&str], store: &Path) -> Child {
    let mut command = jepsen();
    command.args(["run", "--quiet", "--time", "10m", "--rate", "50", "--store"]).arg(store);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(begin.elapsed() < PATIENCE, "waited for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until clients chat; the directory of the run.
fn wait_chatting(store: &Path, child: &mut Child) -> PathBuf {
    wait_for("an acknowledged message", || {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        let directory = only_entry(&only_entry(store)?)?;
        let history = std::fs::read_to_string(directory.join("history.jsonl")).ok()?;
        history.contains("\"type\":\"ok\",\"f\":\"send\"").then_some(directory)
    })
}

fn only_entry(directory: &Path) -> Option<PathBuf> {
    Some(std::fs::read_dir(directory).ok()?.next()?.ok()?.path())
}

/// Processes that were told to work below a directory.
fn processes_below(directory: &Path) -> Vec<u32> {
    let directory = directory.to_str().unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&words).into_owned();
        text.contains("\0serve\0") && text.contains(directory)
    })
    .collect()
}

/// What a run has made on the machine: namespaces, mounts, processes.
fn made(run: &Child, store: &Path) -> (usize, usize, usize) {
    let tag = format!("fmj{}-", run.id());
    let output = Command::new("ip").args(["netns", "list"]).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let namespaces = text.unwrap_or_default().lines().filter(|line| line.starts_with(&tag)).count();
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mounts = text.lines().filter(|line| line.contains(store.to_str().unwrap())).count();
    (namespaces, mounts, processes_below(store).len())
}

#[test]
fn an_interrupted_run_takes_everything_away() {
    if !has_folkmoot() {
        return;
    }
    let mut modes: Vec<(&[&str], _)> = vec![(&["--local", "--nemesis", "kill"], (0, 0, 3))];
    match is_root() {
        true => modes.push((&["--nemesis", "kill,power-cut,disk-stall"], (5, 3, 3))),
        false => skipped("namespaces and disks take root; processes only are looked at"),
    }
    for ((arguments, expected), (how, name)) in
        modes.into_iter().zip([(Signal::INT, "SIGINT"), (Signal::HUP, "SIGHUP")])
    {
        let store = tempfile::tempdir().unwrap();
        let mut run = start(arguments, store.path());
        let directory = wait_chatting(store.path(), &mut run);
        // All may be killed, or a disk be out for a power cut, at any moment.
        wait_for("all that it makes to be there", || {
            let there = made(&run, store.path());
            assert!(there <= expected, "{there:?}");
            ((there.0, there.1) == (expected.0, expected.1) && there.2 > 0).then_some(())
        });
        signal(&run, how);
        assert_eq!(run.wait().unwrap().code(), Some(2));
        assert_eq!(made(&run, store.path()), (0, 0, 0));
        let text = said(&run.wait_with_output().unwrap());
        assert!(text.contains(&format!("interrupted by {name}")), "{text}");
        assert!(directory.join("history.jsonl").is_file(), "what happened is kept");
        assert!(!directory.join("data").exists(), "and nothing else");
        // It was cut short, so nobody can judge it: and that is said, with the line.
        let checked = jepsen().arg("check").arg(&directory).output().unwrap();
        assert_eq!(checked.status.code(), Some(2), "{checked:?}");
    }
}

/// Whether a process has a handler for a signal: proc_pid_status(5), SigCgt.
fn catches(run: &Child, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.id())).unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    caught >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
fn a_run_that_is_interrupted_while_it_is_set_up_leaves_nothing() {
    if !has_folkmoot() {
        return;
    }
    if !is_root() {
        return skipped("set-up makes nothing without root");
    }
    // While it probes, makes namespaces, and makes disks.
    for (namespaces, mounts) in [(0, 0), (2, 0), (7, 1)] {
        let store = tempfile::tempdir().unwrap();
        let below = store.path().join("a/b");
        let mut run = start(&["--nodes", "5", "--nemesis", "kill,power-cut,partition"], &below);
        wait_for("set-up", || {
            assert!(run.try_wait().unwrap().is_none(), "it ended");
            let there = made(&run, store.path());
            let ready = catches(&run, Signal::TERM);
            (ready && there.0 >= namespaces && there.1 >= mounts).then_some(())
        });
        signal(&run, Signal::TERM);
        assert_eq!(run.wait().unwrap().code(), Some(2));
        assert_eq!(made(&run, store.path()), (0, 0, 0));
        let text = said(&run.wait_with_output().unwrap());
        assert!(text.contains("interrupted by SIGTERM"), "{text}");
        assert_eq!(only_entry(store.path()), None, "the store is as it was: {text}");
    }
}

#[test]
fn what_a_killed_run_left_is_cleaned_up() {
    if !has_folkmoot() {
        return;
    }
    let local = !is_root();
    if local {
        skipped("namespaces and disks take root; processes only are looked at");
    }
    let store = tempfile::tempdir().unwrap();
    let arguments: &[&str] =
        if local { &["--local", "--nemesis", "pause"] } else { &["--nemesis", "pause,power-cut"] };
    let mut run = start(arguments, store.path());
    wait_chatting(store.path(), &mut run);
    if !local {
        wait_for("all that it makes to be there", || {
            let there = made(&run, store.path());
            ((there.0, there.1) == (5, 3)).then_some(())
        });
    }
    // Nothing of a run that is under way is touched.
    let cleanup = || jepsen().args(["cleanup", "--json"]).output().unwrap();
    let left: Value = serde_json::from_slice(&cleanup().stdout).unwrap();
    assert!(left["running"].as_array().unwrap().contains(&run.id().into()), "{left}");
    assert!(run.try_wait().unwrap().is_none());

    signal(&run, Signal::KILL);
    run.wait().unwrap();
    let output = cleanup();
    assert!(output.status.success(), "{output:?}");
    let cleaned: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(cleaned["runs"].as_u64().unwrap() >= 1, "{cleaned}");
    assert_eq!(made(&run, store.path()), (0, 0, 0));
}
