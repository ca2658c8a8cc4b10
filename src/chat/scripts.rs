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
//! trim general 4                   retention drops what is below seq 4
//! epoch general e9                 the room was restored
//! chain general                    recomputes the chain from the kept events
//! ```
//!
//! Words in quotes may have Rust's escapes \n, \0, \" and \\, and `"x"*9` repeats.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::chat::apply;
use crate::chat::command::{Actor, Command, ImportLine, Reply, Request};
use crate::chat::event::{Event, EventKind, Role};
use crate::chat::memory::Memory;
use crate::chat::query::{self, Annotated, Answer, Page, Query};
use crate::chat::state::{Room, RoomKind, State, StateMut};
use crate::id::{Cursor, Epoch, RequestId, RoomId, Seq, UserId};

#[test]
fn scripts_print_what_they_printed_before() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/chat/scripts");
    let update = std::env::var_os("UPDATE").is_some();
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
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
                Err(error) => writeln!(out, "no {}: {}", error.code.as_str(), error.message).unwrap(),
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

/// A line's words and `key=value` options.
struct Words<'a> {
    plain: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn new(words: &[&'a str]) -> Words<'a> {
        let option = |word: &&'a str| {
            word.split_once('=').filter(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase()))
        };
        let options = words.iter().filter_map(option).collect();
        let plain = words.iter().copied().filter(|word| option(word).is_none()).collect();
        Words { plain, options }
    }

    fn get(&self, index: usize) -> &'a str {
        self.plain.get(index).copied().unwrap_or("")
    }

    fn option(&self, key: &str) -> Option<&'a str> {
        self.options.get(key).copied()
    }

    fn room(&self) -> RoomId {
        room_id(self.get(0))
    }

    fn user(&self, index: usize) -> UserId {
        UserId::parse(self.get(index)).unwrap()
    }

    fn seq(&self, index: usize) -> Seq {
        Seq(self.get(index).parse().unwrap())
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.option(key).map(|value| value.parse().unwrap())
    }
}

fn parse_command(verb: &str, words: &Words<'_>, salt: [u8; 16], epoch: String) -> Command {
    let text = |index: usize| words.get(index).to_owned();
    let token_hash = || [words.get(1).parse().unwrap(); 32];
    match verb {
        "create-user" => Command::CreateUser {
            user: words.user(0),
            display_name: text(1),
            admin: words.option("admin").is_some(),
            token_hash: words.number("token").map(|n| [n as u8; 32]),
        },
        "issue-token" => {
            Command::IssueToken { user: words.user(0), token_hash: token_hash(), label: text(2) }
        }
        "revoke-token" => Command::RevokeToken { user: words.user(0), token_hash: token_hash() },
        "create-room" => Command::CreateRoom {
            room: words.room(),
            title: text(1),
            kind: match words.option("kind") {
                None | Some("public") => RoomKind::Public,
                Some("private") => RoomKind::Private,
                Some("direct") => RoomKind::Direct,
                Some(kind) => panic!("{kind}"),
            },
            epoch: Epoch::parse(&epoch).unwrap(),
            salt,
        },
        "join" => Command::Join { room: words.room(), salt },
        "leave" => Command::Leave { room: words.room(), salt },
        "post" | "action" | "notice" => Command::Post {
            room: words.room(),
            kind: said(verb),
            text: text(1),
            reply_to: words.number("reply").map(Seq),
            salt,
        },
        "edit" => {
            Command::Edit { room: words.room(), target: words.seq(1), text: text(2), salt }
        }
        "redact" => Command::Redact { room: words.room(), target: words.seq(1), salt },
        "react" | "unreact" => Command::React {
            room: words.room(),
            target: words.seq(1),
            symbol: text(2),
            withdraw: verb == "unreact",
            salt,
        },
        "set-role" => Command::SetRole {
            room: words.room(),
            user: words.user(1),
            role: parse_role(words.get(2)),
            salt,
        },
        // Each line: number:sender:kind:text, with kind one letter, and perhaps a time.
        "import" => Command::Import {
            room: words.room(),
            source: text(1),
            lines: words.plain.iter().skip(2).map(|line| parse_line(line)).collect(),
            salt,
        },
        _ => panic!("what is {verb:?}?"),
    }
}

fn parse_line(line: &str) -> ImportLine {
    let parts: Vec<&str> = line.splitn(4, ':').collect();
    let [number, sender, kind, text] = parts[..] else { panic!("{line:?}") };
    let number = number.parse().unwrap();
    ImportLine {
        line: number,
        original_at_ms: number * 10,
        sender: UserId::parse(&sender.to_ascii_lowercase()).unwrap(),
        original_sender: sender.to_owned(),
        kind: said(kind),
        text: text.to_owned(),
    }
}

fn said(word: &str) -> EventKind {
    match word {
        "post" => EventKind::Message,
        "action" => EventKind::Action,
        "notice" => EventKind::Notice,
        "join" => EventKind::Join,
        _ => panic!("what is {word:?}?"),
    }
}

fn parse_role(word: &str) -> Role {
    (1..=5)
        .filter_map(Role::from_number)
        .find(|role| format!("{role:?}").to_lowercase() == word)
        .unwrap()
}

fn parse_query(verb: &str, words: &Words<'_>) -> Option<Query> {
    let limit = words.number("limit").unwrap_or(100) as usize;
    let cursor = |seq: &str| {
        let epoch = words.option("epoch").map(|epoch| Epoch::parse(epoch).unwrap());
        Cursor { epoch, seq: Seq(seq.parse().unwrap()) }
    };
    Some(match verb {
        "room" => Query::Room { room: words.room() },
        "rooms" => Query::Rooms { after: words.option("after").map(room_id), limit },
        "events" => {
            let page = match (words.option("after"), words.option("before")) {
                (Some(after), _) => Page::After(cursor(after)),
                (_, Some(before)) => Page::Before(cursor(before)),
                _ => Page::Newest,
            };
            Query::Events { room: words.room(), page, limit }
        }
        "export" => {
            let after = Seq(words.number("after").unwrap_or(0));
            Query::Export { room: words.room(), after, limit }
        }
        "user" => Query::User { user: words.user(0) },
        "users" => {
            let after = words.option("after").map(|user| UserId::parse(user).unwrap());
            Query::Users { after, limit }
        }
        _ => return None,
    })
}

fn print_reply(reply: &Reply, out: &mut String) {
    match reply {
        Ok(done) => {
            write!(out, "ok seq={} at={}", done.seq, done.at_ms).unwrap();
            if let Some(epoch) = &done.epoch {
                write!(out, " epoch={epoch}").unwrap();
            }
            if done.duplicate {
                out.push_str(" duplicate");
            }
            if let Some(imported) = done.imported {
                write!(out, " imported={} mark={}", imported.count, imported.line).unwrap();
            }
            out.push('\n');
        }
        Err(rejection) => {
            writeln!(out, "no {}: {rejection}", rejection.code().as_str()).unwrap();
        }
    }
}

fn print_answer(answer: &Answer, out: &mut String) {
    match answer {
        Answer::Room { room, participants } => {
            writeln!(out, "{}", shown_room(room)).unwrap();
            for (user, part) in participants {
                writeln!(out, "  {user} {:?} since={}", part.role, part.since_ms).unwrap();
            }
        }
        Answer::Rooms { rooms } => {
            writeln!(out, "{} rooms", rooms.len()).unwrap();
            for room in rooms {
                writeln!(out, "  {}", shown_room(room)).unwrap();
            }
        }
        Answer::Events(page) => {
            let gap = if page.recovered { "" } else { " NOT RECOVERED" };
            let (epoch, first, head) = (&page.epoch, page.first_seq, page.head);
            writeln!(out, "epoch={epoch} first={first} head={head}{gap}").unwrap();
            page.events.iter().for_each(|annotated| print_annotated(annotated, out));
        }
        Answer::Export { room, events } => {
            writeln!(out, "{}", shown_room(room)).unwrap();
            for event in events {
                writeln!(out, "  {}", shown(event)).unwrap();
            }
        }
        Answer::User { user } => {
            let admin = if user.admin { " admin" } else { "" };
            writeln!(out, "{} {:?}{admin}", user.id, user.display_name).unwrap();
            for token in &user.tokens {
                let (n, label, at) = (token.hash[0], &token.label, token.issued_at_ms);
                writeln!(out, "  token {n} {label:?} at={at}").unwrap();
            }
        }
        Answer::Users { users } => {
            let ids: Vec<&str> = users.iter().map(|user| user.id.as_str()).collect();
            writeln!(out, "{} users {}", users.len(), ids.join(" ")).unwrap();
        }
    }
}

fn print_annotated(annotated: &Annotated, out: &mut String) {
    writeln!(out, "  {}", shown(&annotated.event)).unwrap();
    for (seq, at_ms, text) in &annotated.edits {
        writeln!(out, "      edited by #{seq} at={at_ms} {}", shown_text(text)).unwrap();
    }
    let Some(notes) = &annotated.notes else { return };
    for (symbol, users) in &notes.reactions {
        let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
        writeln!(out, "      {symbol} from {}", users.join(", ")).unwrap();
    }
    if let Some(seq) = notes.redacted_by {
        writeln!(out, "      redacted by #{seq}").unwrap();
    }
}

fn shown_room(room: &Room) -> String {
    let Room { id, kind, title, head, participants, creator, .. } = room;
    format!("{id} {kind:?} {title:?} head={head} participants={participants} creator={creator}")
}

fn shown(event: &Event) -> String {
    let mut out = format!("#{} at={} {} {:?}", event.seq, event.at_ms, event.sender, event.kind);
    if event.withdrawn {
        out.push_str(" withdrawn");
    }
    if let Some(subject) = &event.subject {
        write!(out, " of {subject}").unwrap();
    }
    if let Some(role) = event.role {
        write!(out, " {role:?}").unwrap();
    }
    if let Some(target) = event.target {
        write!(out, " about #{target}").unwrap();
    }
    if let (Some(sender), Some(at_ms)) = (&event.original_sender, event.original_at_ms) {
        write!(out, " originally {sender} at={at_ms}").unwrap();
    }
    match &event.body {
        crate::chat::event::Body::Erased { .. } => out.push_str(" erased"),
        body if body.text().is_empty() => {}
        body => write!(out, " {}", shown_text(body.text())).unwrap(),
    }
    out
}

fn shown_text(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((cut, _)) => format!("{:?}… ({} bytes)", &text[..cut], text.len()),
        None => format!("{text:?}"),
    }
}

fn room_id(id: &str) -> RoomId {
    RoomId::parse(id).unwrap()
}

fn parse_time(time: &str) -> u64 {
    let part = |part: &str| {
        let digits = part.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &part[digits.len()..] {
            "" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            unit => panic!("what is {unit:?}?"),
        };
        digits.parse::<u64>().unwrap() * unit
    };
    time.split('+').map(part).sum()
}

/// Splits a line into words.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(&c) = chars.peek() {
        if c == ' ' {
            chars.next();
            continue;
        }
        let mut word = String::new();
        while let Some(c) = chars.next_if(|c| *c != ' ') {
            if c != '"' {
                word.push(c);
                continue;
            }
            let start = word.len();
            loop {
                match chars.next().expect("closing quote") {
                    '"' => break,
                    '\\' => word.push(match chars.next().expect("escape") {
                        'n' => '\n',
                        '0' => '\0',
                        c => c,
                    }),
                    c => word.push(c),
                }
            }
            if chars.next_if_eq(&'*').is_some() {
                let mut times = String::new();
                while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                    times.push(digit);
                }
                let repeated = word[start..].repeat(times.parse().unwrap());
                word.replace_range(start.., &repeated);
            }
        }
        words.push(word);
    }
    words
}
