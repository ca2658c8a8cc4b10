//! Standard output: lines, tables for people, JSON, and the shapes that JSON has.
//!
//! Writing goes through here and not through `println!`, which panics when the reader of a pipe
//! has gone.

use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::proto::v1 as pb;

/// Writes one line and flushes it.
pub(super) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// A table with aligned columns.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// A table with these headings; those that end in `>` are aligned to the right.
    pub(super) fn new(headings: &[&str]) -> Table {
        let right = headings.iter().map(|heading| heading.ends_with('>')).collect();
        let heading = headings.iter().map(|h| h.trim_end_matches('>').to_string()).collect();
        Table { rows: vec![heading], right }
    }

    /// Adds a row; one cell for each heading.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into_iter().map(|cell| printable(&cell)).collect());
    }

    /// The table as text, without a newline at its end.
    pub(super) fn render(&self) -> String {
        let width = |column: usize| {
            self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut lines = Vec::with_capacity(self.rows.len());
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let pad = " ".repeat(widths[column] - cell.chars().count());
                let (left, right) = if self.right[column] { (&*pad, "") } else { ("", &*pad) };
                line.push_str(&format!("{left}{cell}{right}  "));
            }
            lines.push(line.trim_end().to_string());
        }
        lines.join("\n")
    }

    /// Writes the table.
    pub(super) fn print(&self) -> io::Result<()> {
        line(self.render())
    }
}

/// Text that cannot move a terminal's cursor or change its colours: control characters become
/// their Unicode pictures, but for tabs and newlines.
pub(super) fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\t' | '\n' => c,
        '\u{7f}' => '\u{2421}',
        c if (c as u32) < 0x20 => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        // C1 controls, and marks that reorder what is read.
        '\u{80}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    };
    text.chars().map(shown).collect()
}

/// A time in RFC 3339, UTC, with milliseconds: exact.
pub(super) fn time(ms: u64) -> String {
    humantime::format_rfc3339_millis(instant(ms)).to_string()
}

/// A time for people, UTC.
pub(super) fn time_short(ms: u64) -> String {
    let text = humantime::format_rfc3339_seconds(instant(ms)).to_string();
    text.trim_end_matches('Z').replace('T', " ")
}

fn instant(ms: u64) -> std::time::SystemTime {
    const LAST_MS: u64 = 253_402_300_799_999; // the end of year 9999, the last that can be written
    UNIX_EPOCH + Duration::from_millis(ms.min(LAST_MS))
}

/// Bytes as lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A shard in a sentence: `shard 3`.
pub(super) fn shard(shard: u32) -> String {
    match shard {
        0 => "the meta group".into(),
        number => format!("shard {number}"),
    }
}

/// A number of bytes for people: `1.5 MiB`.
pub(super) fn bytes(n: u64) -> String {
    let (mut value, mut unit) = (n as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

/// An ack as REST writes it.
pub(super) fn ack_json(ack: &pb::Ack) -> Value {
    json!({
        "seq": ack.seq,
        "epoch": ack.epoch,
        "at": time(ack.at_ms),
        "duplicate": ack.duplicate,
    })
}

/// A user as REST writes it.
pub(super) fn user_json(user: &pb::User) -> Value {
    json!({
        "user": user.user,
        "display_name": user.display_name,
        "admin": user.admin,
        "created_at": time(user.created_at_ms),
        "status": user.status,
        "disabled": user.disabled,
    })
}

/// A room as REST writes it.
pub(super) fn room_json(room: &pb::Room) -> Value {
    let mut shown = json!({
        "room": room.room,
        "title": room.title,
        "kind": room_kind(room.kind()),
        "topic": room.topic,
        "head": room.head,
        "first_seq": room.first_seq,
        "epoch": room.epoch,
        "chain": hex(&room.chain),
        "created_at": time(room.created_at_ms),
        "participant_count": room.participant_count,
        "archived": room.archived,
        "pins": room.pins,
        "retention": retention_json(room.retention.unwrap_or_default()),
    });
    if !room.participants.is_empty() {
        shown["participants"] = room.participants.iter().map(participant_json).collect();
    }
    shown
}

fn retention_json(retention: pb::Retention) -> Value {
    let mut shown = json!({});
    if retention.max_age_ms > 0 {
        shown["max_age_ms"] = retention.max_age_ms.into();
    }
    if retention.max_events > 0 {
        shown["max_events"] = retention.max_events.into();
    }
    shown
}

/// Somebody's part in a room as REST writes it.
pub(super) fn participant_json(participant: &pb::Participant) -> Value {
    let mut shown = json!({
        "user": participant.user,
        "role": role(participant.role()),
        "since": time(participant.since_ms),
        "read": participant.read,
    });
    if participant.until_ms > 0 {
        shown["until"] = time(participant.until_ms).into();
    }
    if participant.invited {
        shown["invited"] = true.into();
    }
    shown
}

/// A room kind's name.
pub(super) fn room_kind(kind: pb::RoomKind) -> &'static str {
    match kind {
        pb::RoomKind::Unspecified => "unspecified",
        pb::RoomKind::Public => "public",
        pb::RoomKind::Private => "private",
        pb::RoomKind::Direct => "direct",
        pb::RoomKind::Group => "group",
    }
}

/// A role's name.
pub(super) fn role(role: pb::Role) -> &'static str {
    match role {
        pb::Role::Unspecified => "unspecified",
        pb::Role::Owner => "owner",
        pb::Role::Moderator => "moderator",
        pb::Role::Member => "member",
        pb::Role::Muted => "muted",
        pb::Role::Banned => "banned",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["ROOM", "HEAD>"]);
        table.row(["general".into(), "7".into()]);
        table.row(["ä".into(), "1234567".into()]);
        assert_eq!(table.render(), "ROOM        HEAD\ngeneral        7\nä        1234567");
    }

    #[test]
    fn messages_cannot_drive_the_terminal() {
        assert_eq!(printable("a\x1b[2J\tb\r\u{202e}\n"), "a␛[2J\tb␍\u{fffd}\n");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!((bytes(17), bytes(1536)), ("17 B".into(), "1.5 KiB".into()));
    }
}
