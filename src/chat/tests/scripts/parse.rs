//! The words of a script as commands and queries.

use std::collections::BTreeMap;

use crate::chat::command::{Command, ImportLine, Restriction};
use crate::chat::event::{EventKind, Role};
use crate::chat::query::{Page, Query};
use crate::chat::state::{Retention, RoomKind};
use crate::id::{Cursor, Epoch, RoomId, Seq, UserId};

/// A line's words and `key=value` options.
pub(super) struct Words<'a> {
    plain: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    pub(super) fn new(words: &[&'a str]) -> Words<'a> {
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

    pub(super) fn option(&self, key: &str) -> Option<&'a str> {
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

pub(super) fn parse_command(
    verb: &str,
    words: &Words<'_>,
    salt: [u8; 16],
    epoch: String,
) -> Command {
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
                Some("group") => RoomKind::Group,
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
        "edit" => Command::Edit { room: words.room(), target: words.seq(1), text: text(2), salt },
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
        _ => parse_moderation(verb, words, salt),
    }
}

/// The commands on who is in a room, and on the room itself.
fn parse_moderation(verb: &str, words: &Words<'_>, salt: [u8; 16]) -> Command {
    let (room, text) = (words.room(), |index: usize| words.get(index).to_owned());
    let restriction = match verb {
        "ban" | "unban" => Restriction::Ban,
        _ => Restriction::Mute,
    };
    match verb {
        "invite" => Command::Invite { room, user: words.user(1), salt },
        "kick" => Command::Kick { room, user: words.user(1), reason: text(2), salt },
        "ban" | "mute" => Command::Restrict {
            room,
            user: words.user(1),
            restriction,
            for_ms: words.option("for").map_or(0, parse_time),
            reason: text(2),
            salt,
        },
        "unban" | "unmute" => Command::Lift { room, user: words.user(1), restriction, salt },
        "topic" => Command::SetTopic { room, topic: text(1), salt },
        "pin" | "unpin" => {
            Command::Pin { room, target: words.seq(1), withdraw: verb == "unpin", salt }
        }
        "archive" | "unarchive" => Command::Archive { room, withdraw: verb == "unarchive", salt },
        "retention" => Command::SetRetention {
            room,
            retention: Retention {
                max_age_ms: words.option("age").map_or(0, parse_time),
                max_events: words.number("events").unwrap_or(0),
            },
            salt,
        },
        "trim" => Command::Trim { room, salt },
        "read" => Command::MarkRead { room, seq: words.seq(1) },
        _ => panic!("what is {verb:?}?"),
    }
}

fn parse_line(line: &str) -> ImportLine {
    let parts: Vec<&str> = line.splitn(4, ':').collect();
    let [number, sender, kind, text] = parts[..] else { panic!("{line:?}") };
    let number = number.parse().unwrap();
    ImportLine {
        line: number,
        original_at_ms: number.saturating_mul(10),
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

pub(super) fn parse_query(verb: &str, words: &Words<'_>) -> Option<Query> {
    let limit = words.number("limit").unwrap_or(100) as usize;
    let cursor = |seq: &str| {
        let epoch = words.option("epoch").map(|epoch| Epoch::parse(epoch).unwrap());
        Cursor { epoch, seq: Seq(seq.parse().unwrap()) }
    };
    let page = || match (words.option("after"), words.option("before")) {
        (Some(after), _) => Page::After(cursor(after)),
        (_, Some(before)) => Page::Before(cursor(before)),
        _ => Page::Newest,
    };
    Some(match verb {
        "room" => Query::Room { room: words.room() },
        "participants" => {
            let after = words.option("after").map(|user| UserId::parse(user).unwrap());
            Query::Participants { room: words.room(), after, limit }
        }
        "rooms" => Query::Rooms {
            after: words.option("after").map(room_id),
            limit,
            search: words.option("search").unwrap_or_default().to_owned(),
        },
        "events" => Query::Events { room: words.room(), page: page(), limit },
        "thread" => Query::Thread { room: words.room(), root: words.seq(1), page: page(), limit },
        "export" => {
            let after = Seq(words.number("after").unwrap_or(0));
            Query::Export { room: words.room(), after, limit }
        }
        "user" => Query::User { user: words.user(0) },
        "users" => {
            let after = words.option("after").map(|user| UserId::parse(user).unwrap());
            Query::Users { after, limit }
        }
        "mine" => Query::Mine { after: words.option("after").map(room_id), limit },
        "revocations" => Query::Revocations,
        _ => return None,
    })
}

pub(super) fn room_id(id: &str) -> RoomId {
    RoomId::parse(id).unwrap()
}

pub(super) fn parse_time(time: &str) -> u64 {
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
pub(super) fn split(line: &str) -> Vec<String> {
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
