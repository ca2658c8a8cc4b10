//! Golden scripts: `chat/scripts/*.txt`, each named for what it shows.
//!
//! A script is blocks of commands, `---`, and what they print, up to a blank line; `UPDATE=1`
//! rewrites what is printed. State goes on from block to block. The language:
//!
//! ```text
//! at 7d+5m                         log time from here on (ms, or with a unit s, m, h, d)
//! as ann post general "hi"         a command by ann; `as root! …` by an admin
//!     id=one id=one@5m             names its request id, and tells its time; else a fresh one
//! as ann events general after=3    a query
//! trim general 4                   what is below seq 4 is dropped, as by retention
//! epoch general e9                 the room was restored
//! chain general                    recomputes the chain from the kept events
//! ```
//!
//! Words in quotes may have Rust's escapes \n, \0, \" and \\, and `"x"*9` repeats.

mod parse;
mod print;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use crate::chat::apply;
use crate::chat::command::{Actor, Request};
use crate::chat::memory::Memory;
use crate::chat::query;
use crate::chat::state::{State, StateMut};
use crate::error::Code;
use crate::id::{Epoch, RequestId, RoomId, Seq, UserId};
use parse::{Words, parse_command, parse_query, parse_time, room_id, split};
use print::{print_answer, print_reply, shown};

#[test]
fn scripts_print_what_they_printed_before() {
    let update = std::env::var_os("UPDATE").is_some();
    let paths = paths();
    assert!(paths.len() >= 25, "{} scripts", paths.len());
    let mut changed = Vec::new();
    for path in paths {
        let before = std::fs::read_to_string(&path).unwrap();
        let after = run(&before);
        if update {
            std::fs::write(&path, &after).unwrap();
        } else if before != after {
            changed.push(format!("{}:\n{after}", path.display()));
        }
    }
    assert!(changed.is_empty(), "UPDATE=1 rewrites\n{}", changed.join("\n"));
}

/// The scripts, in order of name.
fn paths() -> Vec<PathBuf> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/chat/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn scripts_show_every_command_query_and_rejection() {
    let scripts: String =
        paths().iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let verbs = "create-user issue-token revoke-token create-room join leave post action edit \
                 redact react unreact set-role import room rooms events export user users invite \
                 kick ban unban mute unmute topic pin unpin archive unarchive retention trim \
                 thread";
    for verb in verbs.split_whitespace() {
        let shown = scripts
            .lines()
            .any(|line| line.starts_with("as ") && line.split(' ').nth(2) == Some(verb));
        assert!(shown, "no script has {verb}");
    }
    // In the order of the table; the edge and errors that are no rejections come after them.
    let rejections = Code::ALL.iter().take_while(|code| **code != Code::AlreadyInitialized);
    for code in rejections.filter(|code| **code != Code::NotFound) {
        let shown = scripts.contains(&format!("no {}: ", code.as_str()));
        assert!(shown, "no script is refused with {}", code.as_str());
    }
}

/// The script with what its commands print now.
fn run(script: &str) -> String {
    let mut runner = Runner::default();
    let mut out = String::new();
    let mut printed = String::new();
    let mut old_output = false;
    for line in script.lines() {
        if line.is_empty() {
            old_output = false;
            out.push('\n');
        } else if old_output {
            continue;
        } else if line == "---" {
            writeln!(out, "---\n{}", printed.trim_end()).unwrap();
            printed.clear();
            old_output = true;
        } else {
            writeln!(out, "{line}").unwrap();
            if !line.starts_with('#') {
                runner.line(line, &mut printed);
            }
        }
    }
    assert!(printed.is_empty(), "a block without ---, after {out}");
    out
}

#[derive(Default)]
struct Runner {
    state: Memory,
    ids: BTreeMap<String, RequestId>,
    /// Makes every minted id, salt and epoch another one.
    minted: u8,
}

impl Runner {
    fn line(&mut self, line: &str, out: &mut String) {
        let words = split(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["at", time] => self.state.advance_log_time(parse_time(time)),
            ["trim", room, seq] => self.state.trim(&room_id(room), Seq(seq.parse().unwrap())),
            ["epoch", room, epoch] => {
                self.state.set_epoch(&room_id(room), Epoch::parse(epoch).unwrap());
            }
            ["chain", room] => self.chain(&room_id(room), out),
            ["as", actor, verb, ref rest @ ..] => {
                let admin = actor.ends_with('!');
                let user = UserId::parse(actor.trim_end_matches('!')).unwrap();
                self.request(Actor { user, admin }, verb, &Words::new(rest), out);
            }
            _ => panic!("what is {line:?}?"),
        }
    }

    fn mint(&mut self) -> u8 {
        self.minted = self.minted.wrapping_add(1);
        self.minted
    }

    fn request_id(&mut self, name: Option<&str>) -> RequestId {
        let now_ms = self.state.log_time_ms();
        let fresh = self.mint();
        let Some(name) = name else { return RequestId::mint(now_ms, [fresh; 10]) };
        let (name, time) = match name.split_once('@') {
            Some((name, time)) => (name, parse_time(time)),
            None => (name, now_ms),
        };
        let mint = || RequestId::mint(time, [fresh; 10]);
        *self.ids.entry(name.to_owned()).or_insert_with(mint)
    }

    fn request(&mut self, actor: Actor, verb: &str, words: &Words<'_>, out: &mut String) {
        if let Some(query) = parse_query(verb, words) {
            match query::query(&self.state, &actor, &query) {
                Ok(answer) => print_answer(&answer, out),
                Err(error) => {
                    writeln!(out, "no {}: {}", error.code.as_str(), error.message).unwrap()
                }
            }
            return;
        }
        let n = self.mint();
        let command = parse_command(verb, words, [n; 16], format!("e{n}"));
        let id = self.request_id(words.option("id"));
        let mut events = Vec::new();
        let reply = apply::apply(&mut self.state, Request { actor, id, command }, &mut events);
        print_reply(&reply, out);
        for (room, event) in events {
            writeln!(out, "  {room}{}", shown(&event)).unwrap();
        }
    }

    fn chain(&self, id: &RoomId, out: &mut String) {
        let room = self.state.room(id).unwrap();
        let kept = self.state.events(id, room.first_seq, room.head, usize::MAX, usize::MAX);
        let chain = kept.iter().fold(room.chain_base, |chain, event| event.chain(&chain));
        let verdict = if chain == room.chain { "verifies" } else { "IS BROKEN" };
        let hex: String = room.chain[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(out, "{hex} {verdict} over {} events", kept.len()).unwrap();
    }
}
