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
    let unmounted = Command::new("umount").arg(directory.path()).status().unwrap();
    assert!(unmounted.success());
    let text = said(&output.unwrap());
    assert!(text.contains("MiB free") && text.contains("--store"), "{text}");
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

#[test]
fn an_interrupted_run_takes_everything_away() {
    if !has_folkmoot() {
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let mut run = start(&["--local", "--nemesis", "kill"], store.path());
    let directory = wait_chatting(store.path(), &mut run);
    assert!(!processes_below(&directory).is_empty());
    signal(&run, Signal::INT);
    let output = run.wait_with_output().unwrap();
    let text = said(&output);
    assert!(text.contains("interrupted by SIGINT"), "{text}");
    assert_eq!(processes_below(&directory), Vec::<u32>::new());
    assert!(directory.join("history.jsonl").is_file(), "what happened is kept");
    // It was cut short, so nobody can judge it: and that is said, with the line.
    let checked = jepsen().arg("check").arg(&directory).output().unwrap();
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
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
    let directory = wait_chatting(store.path(), &mut run);
    let tag = format!("fmj{}-", run.id());
    let namespaces = || {
        let output = Command::new("ip").args(["netns", "list"]).output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        text.unwrap_or_default().lines().filter(|line| line.starts_with(&tag)).count()
    };
    let mounts = || {
        let text = std::fs::read_to_string("/proc/self/mounts").unwrap();
        text.lines().filter(|line| line.contains(directory.to_str().unwrap())).count()
    };
    if !local {
        assert_eq!((namespaces(), mounts()), (5, 3));
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
    assert_eq!(processes_below(&directory), Vec::<u32>::new());
    assert_eq!((namespaces(), mounts()), (0, 0));
}
