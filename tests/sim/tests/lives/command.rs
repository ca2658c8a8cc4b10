//! The command: what it is told wrong it refuses, and one seed has one trace in every process.

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
        (&["--seed", "-1"], "unexpected argument"),
        (&["--seed", "1", "--seeds", "0..5"], "cannot be used with"),
        (&["--seed", "1", "--faults", "earthquake"], "power-cut"),
        (&["--seed", "1", "--nodes", "7"], "3..=5"),
        (&["--seed", "1", "--clients", "0"], "1..=100"),
        (&["--trace"], "--seed"),
        (&["--strikes", "1"], "--seed"),
        (&["--earthquake"], "unexpected argument"),
        (&["--seeds", "0..3", "--history", "h.jsonl"], "needs one --seed"),
        (&["--kept", "--shrink"], "needs one --seed"),
        (&["--seed", "1", "--strikes", "99"], "has 15 strikes"),
        (&["--seed", "1", "--faults", "none,kill"], "stands alone"),
        (&["--seed", "1", "--faults", "kill", "--without", "kill"], "asked for, and left out"),
        (&["--seed", "1", "--jobs", "0"], "from 1 to 1024"),
        (&["--seed", "1", "--strikes", "none,1"], "stands alone"),
        (&["--seed", "1", "--strikes", "some"], "neither a number nor none"),
        (&["--seed", "1", "--changes", "--faults", "kill"], "name at least one of them"),
        (&["--seed", "1", "--changes", "--faults", "none"], "name at least one of them"),
        (
            &["--seed", "1", "--changes", "--without", "drain,rebalance,replace,absence,join"],
            "leave at least one of them in",
        ),
        (&["--seed", "1", "--faults", "damage,move"], "ask for them in two runs"),
        (&["--seed", "1", "--faults", "drain,damage"], "ask for them in two runs"),
        (&["--seed", "1", "--log", "garbage=="], "as in \"folkmoot=debug\""),
        (&["--seed", "1", "--at-most", "0"], "--at-most"),
        (&["--mutant", "x", "--twice"], "a hunt"),
        (&["--mutant", "x", "--at-most", "60"], "a hunt"),
        (&["--mutant", "log-not-synced"], "--cfg mutants"),
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

/// Whoever reads no more ends it, without a word.
#[test]
fn it_ends_quietly_where_nobody_reads() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_folkmoot-sim"))
        .args(["--seed", "8", "--faults", "none", "--time", "500"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(141), String::new()));
}

/// The arguments in each of the commands that are printed after `label`.
fn all_arguments(output: &str, label: &str) -> Vec<Vec<String>> {
    let of_command = |command: &str| {
        let (_, arguments) = command.split_once(" -- ").unwrap();
        arguments.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let commands = output.lines().filter_map(|line| Some(line.split_once(label)?.1));
    commands.map(of_command).collect()
}

/// The arguments in the first of them.
fn arguments(output: &str, label: &str) -> Vec<String> {
    all_arguments(output, label).swap_remove(0)
}

/// How many strikes a life had, and how long its clients sent, all together, in milliseconds.
fn size(stdout: &str) -> (u64, u64) {
    let number_before = |label| {
        let (before, _) = stdout.split_once(label).unwrap();
        before.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let load = number_before(" clients,") * number_before(" s, ") * 1000.0;
    (number_before(" strikes of") as u64, load as u64)
}

/// Disks that lie are a fault that is planted: what fails with them is made smaller, and what is
/// printed fails again.
#[test]
fn a_failing_life_is_shrunk_and_lived_again() {
    let args = ["--seeds", "0..200", "--until-failure", "--jobs", "1", "--time", "3000"];
    let output = sim(&[&args[..], &["--faults", "blackout,restart", "--lying-disks"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let mut again = arguments(&text(&output.stderr), "again: ");
    // No trace: it is long.
    again.retain(|argument| argument != "--trace");
    let live = |args: &[String]| sim(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let first = live(&again);
    assert_eq!(first.status.code(), Some(1), "{again:?}");
    again.push("--shrink".into());
    let shrunk = live(&again);
    // What was found on the way fails as well, as it was printed.
    let smaller = all_arguments(&text(&shrunk.stderr), "smaller: ");
    for args in &smaller {
        assert_eq!(live(args).status.code(), Some(1), "{args:?}");
    }
    let smallest = arguments(&text(&shrunk.stdout), "smallest found: ");
    assert_eq!(smaller.last(), Some(&smallest));
    let second = live(&smallest);
    assert_eq!(second.status.code(), Some(1), "{smallest:?}: {}", text(&second.stdout));
    assert!(text(&second.stderr).contains("FAILED seed"), "{}", text(&second.stderr));
    let (before, after) = (size(&text(&first.stdout)), size(&text(&second.stdout)));
    println!("strikes, load: {before:?}, shrunk to {after:?}: {smallest:?}");
    assert!(after.0 < before.0 && after.1 < before.1, "{before:?} {after:?} {smallest:?}");
}
