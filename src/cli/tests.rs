//! The command line as users type it.

use clap::{CommandFactory, Parser};

use crate::cli::Cli;

/// Every command and its subcommands, with their names from the top.
fn commands() -> Vec<(String, clap::Command)> {
    fn walk(name: String, command: &clap::Command, out: &mut Vec<(String, clap::Command)>) {
        out.push((name.clone(), command.clone()));
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            walk(format!("{name} {}", sub.get_name()), sub, out);
        }
    }
    let mut out = Vec::new();
    walk("folkmoot".into(), &Cli::command(), &mut out);
    out
}

#[test]
fn arguments_are_declared_consistently() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_and_an_example() {
    for (name, command) in commands() {
        assert!(command.get_about().is_some(), "{name} says what it does");
        if command.has_subcommands() {
            continue;
        }
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains(&name), "{name} has an example of itself: {after}");
    }
}

/// Words of a shell line with single quotes, up to the first operator; variables are the empty
/// word's neighbours and do not matter here.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_string());
        } else {
            words.extend(part.split_whitespace().map(String::from));
        }
    }
    let operator = |word: &String| ["|", "<", ">", "&&", "#"].contains(&word.as_str());
    words.into_iter().take_while(|word| !operator(word)).collect()
}

#[test]
fn every_example_parses() {
    let mut examples = 0;
    for (name, command) in commands() {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        for line in after.lines().filter_map(|line| line.strip_prefix("  ")) {
            for call in line.split(" | ").flat_map(|part| part.split(" && ")) {
                if !call.trim_start().starts_with("folkmoot ") {
                    continue;
                }
                let parsed = Cli::try_parse_from(words(call));
                assert!(parsed.is_ok(), "{name}: {call}: {}", parsed.unwrap_err());
                examples += 1;
            }
        }
    }
    assert!(examples > 30, "{examples}");
}

#[test]
fn bad_usage_is_refused() {
    for bad in [
        "folkmoot",
        "folkmoot post",
        "folkmoot post UPPER hi",
        "folkmoot history general --after x",
        "folkmoot history general --after 1 --before 2",
        "folkmoot history general --limit 1001",
        "folkmoot tail general --after 1 --lines 2",
        "folkmoot export",
        "folkmoot export a --all",
        "folkmoot import irc",
        "folkmoot import irc a --rate 1 --speed 1",
        "folkmoot import irc a --rate 0",
        "folkmoot import irc a --date 2008-4-30",
        "folkmoot serve --set log=json",
        "folkmoot serve --client-listen localhost",
        "folkmoot cluster init --single --nodes 3",
        "folkmoot user add Alice",
    ] {
        assert!(Cli::try_parse_from(bad.split(' ')).is_err(), "{bad}");
    }
}

/// Something that a node has begun and cannot get out of, such as a read of a disk that hangs, does
/// not keep a program whose own thread panics.
#[test]
fn a_panic_ends_the_program_whatever_else_hangs() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (hold, held) = std::sync::mpsc::channel::<()>();
    runtime.spawn_blocking(move || held.recv());
    let begin = std::time::Instant::now();
    let ended = std::thread::spawn(|| super::drive(runtime, async { panic!("planted") })).join();
    assert_eq!(ended.unwrap_err().downcast_ref::<&str>(), Some(&"planted"));
    assert!(begin.elapsed() < std::time::Duration::from_secs(30));
    drop(hold);
}
