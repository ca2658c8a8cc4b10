//! The command: what it is told wrong it refuses, and one seed has one trace in every process.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output};

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_folkmoot-sim")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_impossible_is_refused() {
    for (args, why) in [
        (&["--seeds", "5..5"][..], "the range is empty"),
        (&["--seeds", "9..5"], "the range is empty"),
        (&["--seeds", "7"], "as in 0..1000"),
        (&["--seeds", "a..b"], "is not a number"),
        (&["--seeds", "0..999999999999"], "more than"),
        (&["--seed", "-1"], "--seed"),
        (&["--seed", "1", "--seeds", "0..5"], "cannot be used with"),
        (&["--seed", "1", "--faults", "earthquake"], "power-cut"),
        (&["--seed", "1", "--nodes", "7"], "3..=5"),
        (&["--seed", "1", "--clients", "0"], "1..=100"),
        (&["--trace"], "--seed"),
        (&["--strikes", "1"], "--seed"),
        (&["--earthquake"], "unexpected argument"),
    ] {
        let output = sim(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains(why), "{args:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn a_seed_has_one_trace_in_every_process() {
    let line = |seed: &str| {
        let output = sim(&["--seed", seed]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let stdout = text(&output.stdout);
        stdout.lines().find(|line| line.starts_with("trace ")).unwrap().to_owned()
    };
    for seed in ["3", "4", "5"] {
        assert_eq!(line(seed), line(seed), "seed {seed}");
    }
    assert_ne!(line("3"), line("4"));
}

/// What the simulator records is what folkmoot-jepsen reads.
#[test]
fn a_life_s_history_is_well_formed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("history.jsonl");
    let output = sim(&["--seed", "6", "--history", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
    let history = folkmoot_jepsen::history::read(file).unwrap();
    let report = folkmoot_jepsen::check::check(&history, &Default::default());
    assert_eq!(report.verdict, folkmoot_jepsen::check::Verdict::Valid, "{report}");
}

/// A life that is too short to be well, or has no faults, is lived all the same.
#[test]
fn wishes_are_granted() {
    let output = sim(&["--seed", "8", "--faults", "none", "--nodes", "5", "--time", "1000"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert!(stdout.contains("5 nodes") && stdout.contains("0 strikes of none"), "{stdout}");
}
