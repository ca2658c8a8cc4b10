//! `folkmoot verify`: exported rooms, checked offline.
//!
//! For every room: the header comes first; seq is dense from the first kept event to at least the
//! head that the header states; log time never goes back; each body hashes to what is stated,
//! and each event's chain, computed from the one before, is the one stated; at the head it is the
//! header's. An erased body's hash stands in for it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::chat::event::{Body, Hash};
use crate::cli::event_json::{EventJson, parse_time, unhex};
use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;

/// The name and version of the export format, in each header.
pub(super) const FORMAT: &str = "folkmoot-export-1";

/// Options of `verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  folkmoot verify backup/*.jsonl\n  \
    folkmoot export general | folkmoot verify -\n\n\
    Needs no cluster. Exits with 1 and names the first line that differs.")]
pub(super) struct Args {
    /// Exported files; - for standard input.
    #[arg(required = true, value_name = "EXPORT")]
    files: Vec<PathBuf>,
    /// Write JSON for programs.
    #[arg(long)]
    json: bool,
}

/// A room that was found whole.
#[derive(Debug, PartialEq, Eq)]
struct Whole {
    room: String,
    events: u64,
    last_seq: u64,
    chain: String,
}

/// Runs the command.
pub(super) fn run(args: &Args) -> Outcome {
    let mut bad = 0;
    for file in &args.files {
        match check_file(file) {
            Ok(rooms) => {
                for room in rooms {
                    report(args.json, file, &room)?;
                }
            }
            Err(problem) => {
                bad += 1;
                let problem = format!("{}: {problem}", file.display());
                if args.json {
                    let file = file.display().to_string();
                    output::line(json!({ "file": file, "ok": false, "problem": problem }))?;
                } else {
                    eprintln!("folkmoot: {problem}");
                }
            }
        }
    }
    if bad > 0 {
        return Err(Failure::failed(format!("{bad} of {} files are not whole", args.files.len())));
    }
    Ok(())
}

fn report(json: bool, file: &Path, whole: &Whole) -> io::Result<()> {
    if json {
        output::line(json!({
            "file": file.display().to_string(),
            "ok": true,
            "room": whole.room,
            "events": whole.events,
            "last_seq": whole.last_seq,
            "chain": whole.chain,
        }))
    } else {
        output::line(format!(
            "whole: {}, {} events up to #{}, chain {}",
            output::printable(&whole.room),
            whole.events,
            whole.last_seq,
            whole.chain
        ))
    }
}

fn check_file(file: &Path) -> Result<Vec<Whole>, String> {
    if file.as_os_str() == "-" {
        return check(io::stdin().lock());
    }
    let open = File::open(file).map_err(|error| error.to_string())?;
    check(BufReader::new(open))
}

/// Checks an export of any number of rooms.
fn check(reader: impl BufRead) -> Result<Vec<Whole>, String> {
    let mut whole = Vec::new();
    let mut room: Option<Room> = None;
    let mut number = 0;
    for line in reader.lines() {
        number += 1;
        let line = line.map_err(|error| format!("line {number}: {error}"))?;
        let at_line = |problem: String| format!("line {number}: {problem}");
        if let Some(header) = header_of(&line) {
            if let Some(room) = room.take() {
                whole.push(room.end().map_err(at_line)?);
            }
            room = Some(Room::begin(&header).map_err(at_line)?);
            continue;
        }
        let Some(room) = &mut room else {
            return Err(at_line("not an export: a header comes first".into()));
        };
        let event: EventJson = serde_json::from_str(&line)
            .map_err(|error| at_line(format!("not an event: {error}")))?;
        room.take(&event).map_err(|problem| at_line(format!("seq {}: {problem}", event.seq)))?;
    }
    match room {
        Some(room) => {
            whole.push(room.end().map_err(|problem| format!("after line {number}: {problem}"))?);
            Ok(whole)
        }
        None => Err("it is empty".into()),
    }
}

fn header_of(line: &str) -> Option<Value> {
    // Cheap for the many lines that are events: no event has this key, and within a string a
    // quote has a backslash.
    if !line.contains("\"format\":") {
        return None;
    }
    serde_json::from_str(line).ok()
}

/// A room, as far as it has been checked.
struct Room {
    room: String,
    events: u64,
    last_seq: u64,
    last_at_ms: u64,
    chain: Hash,
    head: u64,
    head_chain: Hash,
}

impl Room {
    fn begin(header: &Value) -> Result<Room, String> {
        let format = header["format"].as_str().unwrap_or_default();
        if format != FORMAT {
            return Err(format!("the format is {format:?}; this version knows {FORMAT:?}"));
        }
        let missing = |field: &str| format!("the header's {field} is missing or malformed");
        let room = &header["room"];
        let number = |field: &str| room[field].as_u64().ok_or_else(|| missing(field));
        let first_seq = number("first_seq")?;
        let begun = Room {
            room: room["room"].as_str().ok_or_else(|| missing("room"))?.to_string(),
            events: 0,
            last_seq: first_seq.checked_sub(1).ok_or_else(|| missing("first_seq"))?,
            last_at_ms: 0,
            chain: unhex(header["chain_base"].as_str()).ok_or_else(|| missing("chain_base"))?,
            head: number("head")?,
            head_chain: unhex(room["chain"].as_str()).ok_or_else(|| missing("chain"))?,
        };
        begun.at_head()?;
        Ok(begun)
    }

    fn take(&mut self, stated: &EventJson) -> Result<(), String> {
        let due = self.last_seq + 1;
        if stated.seq != due {
            return Err(format!("seq {due} was due"));
        }
        let event = stated.to_event()?;
        let body_hash = stated.stated_body_hash().ok_or("body_hash is missing or malformed")?;
        if matches!(event.body, Body::Present { .. }) && event.body.hash() != body_hash {
            return Err("the body is not the one that was hashed".into());
        }
        if event.at_ms < self.last_at_ms {
            return Err("its time is before that of the event before it".into());
        }
        let chain = event.chain(&self.chain);
        if stated.stated_chain() != Some(chain) {
            return Err("the chain differs: this event is not the one that was appended".into());
        }
        self.chain = chain;
        self.last_seq = event.seq.0;
        self.last_at_ms = parse_time(&stated.at).unwrap_or(event.at_ms);
        self.events += 1;
        self.at_head()
    }

    /// At the head that the header states, the chain is the one it states.
    fn at_head(&self) -> Result<(), String> {
        if self.last_seq == self.head && self.chain != self.head_chain {
            return Err("the chain at the head is not the header's".into());
        }
        Ok(())
    }

    fn end(self) -> Result<Whole, String> {
        if self.last_seq < self.head {
            return Err(format!(
                "cut off: room {} ends at seq {}, its head was {}",
                self.room, self.last_seq, self.head
            ));
        }
        let chain = output::hex(&self.chain);
        Ok(Whole { room: self.room, events: self.events, last_seq: self.last_seq, chain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::event::{Event, EventKind};
    use crate::id::{RequestId, Seq, UserId};

    fn texts(seq: u64) -> String {
        let odd = ["format", "\"format\":1", "{\"format\":\"x\"}"];
        odd.get(seq as usize).map_or_else(|| format!("text {seq}"), |text| (*text).to_string())
    }

    /// An export of `count` events after `first_seq − 1`, event 3 with its body erased.
    fn export(first_seq: u64, count: u64) -> Vec<Value> {
        let mut chain = [7; 32];
        let base = chain;
        let mut lines = Vec::new();
        for seq in first_seq..first_seq + count {
            let mut event = Event {
                seq: Seq(seq),
                at_ms: 1_700_000_000_000 + seq,
                sender: UserId::parse("ann").unwrap(),
                kind: if seq == 1 { EventKind::Join } else { EventKind::Message },
                request_id: RequestId::mint(1_700_000_000_000, [seq as u8; 10]),
                target: (seq == 2).then_some(Seq(1)),
                subject: None,
                role: None,
                withdrawn: false,
                until_ms: None,
                original_at_ms: (seq == 4).then_some(5),
                original_sender: (seq == 4).then(|| "Ann".into()),
                body: Body::Present { salt: [seq as u8; 16], text: texts(seq) },
            };
            let hash = event.body.hash();
            let next = event.chain(&chain);
            if seq == 3 {
                event.body = Body::Erased { hash };
                assert_eq!(event.chain(&chain), next);
            }
            chain = next;
            lines.push(serde_json::to_value(json_of(&event, hash, chain)).unwrap());
        }
        let room = json!({ "room": "general", "first_seq": first_seq,
            "head": first_seq + count - 1, "chain": output::hex(&chain) });
        lines
            .insert(0, json!({ "format": FORMAT, "room": room, "chain_base": output::hex(&base) }));
        lines
    }

    fn json_of(event: &Event, hash: Hash, chain: Hash) -> EventJson {
        let (salt, redacted) = match &event.body {
            Body::Present { salt, .. } => (Some(output::hex(salt)), false),
            Body::Erased { .. } => (None, true),
        };
        EventJson {
            seq: event.seq.0,
            at: output::time(event.at_ms),
            sender: event.sender.to_string(),
            kind: crate::cli::event_json::kind_name(event.kind as i32),
            client_msg_id: event.request_id.to_string(),
            text: event.body.text().into(),
            target: event.target.map(|seq| seq.0),
            redacted,
            original_at: event.original_at_ms.map(output::time),
            original_sender: event.original_sender.clone(),
            salt,
            body_hash: Some(output::hex(&hash)),
            chain: Some(output::hex(&chain)),
            ..EventJson::default()
        }
    }

    fn text(lines: &[Value]) -> String {
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn problem(change: impl FnOnce(&mut Vec<Value>)) -> String {
        let mut lines = export(1, 5);
        change(&mut lines);
        check(text(&lines).as_bytes()).unwrap_err()
    }

    #[test]
    fn a_whole_export_is_whole() {
        let lines = [export(1, 5), export(17, 2)].concat();
        let rooms = check(text(&lines).as_bytes()).unwrap();
        let counts: Vec<_> = rooms.iter().map(|room| (room.events, room.last_seq)).collect();
        assert_eq!(counts, [(5, 5), (2, 18)]);
    }

    #[test]
    fn an_export_may_go_on_past_its_head() {
        let mut lines = export(1, 5);
        let chain = lines[3]["chain"].clone();
        lines[0]["room"]["head"] = json!(3);
        lines[0]["room"]["chain"] = chain;
        assert_eq!(check(text(&lines).as_bytes()).unwrap()[0].last_seq, 5);
    }

    #[test]
    fn whatever_is_changed_is_found() {
        let starts =
            |problem: String, start: &str| assert!(problem.starts_with(start), "{problem}");
        starts(problem(|lines| lines[2]["text"] = json!("other")), "line 3: seq 2: the body");
        starts(problem(|lines| lines[2]["sender"] = json!("bob")), "line 3: seq 2: the chain");
        starts(problem(|lines| lines[5]["target"] = json!(1)), "line 6: seq 5: the chain");
        starts(problem(|lines| lines[4]["original_sender"] = json!("Bob")), "line 5: seq 4: the");
        starts(problem(|lines| drop(lines.remove(2))), "line 3: seq 3: seq 2 was due");
        starts(problem(|lines| lines.swap(2, 3)), "line 3: seq 3: seq 2 was due");
        starts(problem(|lines| drop(lines.pop())), "after line 5: cut off");
        starts(problem(|lines| drop(lines.remove(0))), "line 1: not an export");
        starts(problem(Vec::clear), "it is empty");
        starts(problem(|lines| lines[3]["text"] = json!("guess")), "line 4: seq 3: a redacted");
        starts(problem(|lines| lines[0]["format"] = json!("x-2")), "line 1: the format is");
        let hash = "00".repeat(32);
        let forged = problem(|lines| lines[3]["body_hash"] = json!(hash));
        starts(forged, "line 4: seq 3: the chain");
        let forged = problem(|lines| lines[0]["chain_base"] = json!("00".repeat(32)));
        starts(forged, "line 2: seq 1: the chain");
        let forged = problem(|lines| lines[0]["room"]["chain"] = json!("00".repeat(32)));
        starts(forged, "line 6: seq 5: the chain at the head");
    }
}
