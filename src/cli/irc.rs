//! Lines of IRC logs, in and out, without losing a byte.
//!
//! | line | becomes |
//! |---|---|
//! | `[HH:MM] <nick> text` | MESSAGE, the nick as original sender |
//! | `[HH:MM]  * nick text`, with one space too | ACTION |
//! | anything else, such as `=== nick has joined` | NOTICE with the whole line as text |
//!
//! [`render`] gives back the very line. A line that would come back different is taken as a
//! NOTICE, whose text is the line. Logs tell the minute, so the milliseconds of the original time
//! are free to say how a line was spaced: 0 is the usual form, and the bits of [`FORM_ONE_SPACE`],
//! [`FORM_BARE`] and [`FORM_START`] say what differed.
//!
//! Logs carry no date: the first day is given, and a clock that goes back by more than twelve hours
//! has passed midnight (going back by less is a twelve-hour clock, or a clock set right).

use crate::proto::v1::{Event, EventKind};

/// `[HH:MM] * nick`: one space before the star.
const FORM_ONE_SPACE: u64 = 1;
/// Nothing after the nick, not even the space.
const FORM_BARE: u64 = 2;
/// The usual form at the very start of 1970, where 0 would mean "no original time".
const FORM_START: u64 = 4;

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u32 = 24 * 60;
/// The longest nick that becomes a user's display name.
const NICK_BYTES_MAX: usize = crate::limits::DISPLAY_NAME_BYTES_MAX;

/// One line, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// MESSAGE, ACTION or NOTICE.
    pub kind: EventKind,
    /// Milliseconds since the Unix epoch; never 0.
    pub original_at_ms: u64,
    /// Empty for a NOTICE.
    pub nick: String,
    /// What was said; for a NOTICE, the whole line.
    pub text: String,
}

/// Takes lines apart, and keeps the date.
#[derive(Debug)]
pub(super) struct Parser {
    /// Start of the current day, milliseconds since the Unix epoch.
    day_ms: u64,
    /// The minute of the day of the last line that told it.
    minute: u32,
}

impl Parser {
    /// A parser for a log whose first day starts at `day_ms`, a whole number of days.
    pub(super) fn new(day_ms: u64) -> Parser {
        Parser { day_ms, minute: 0 }
    }

    /// Takes one line apart, without its newline.
    pub(super) fn parse(&mut self, line: &str) -> Line {
        let told = minute_of(line);
        if let Some((minute, _)) = told {
            if minute + DAY_MINUTES / 2 < self.minute {
                self.day_ms += u64::from(DAY_MINUTES) * MINUTE_MS;
            }
            self.minute = minute;
        }
        let at_ms = self.day_ms + u64::from(self.minute) * MINUTE_MS;
        if let Some((_, rest)) = told
            && let Some((kind, form, nick, text)) = said(rest)
            && is_nick(nick)
        {
            let original_at_ms = Some(at_ms + form).filter(|ms| *ms > 0).unwrap_or(FORM_START);
            let (nick, text) = (nick.to_string(), text.to_string());
            let parsed = Line { kind, original_at_ms, nick, text };
            if render(parsed.kind, original_at_ms, &parsed.nick, &parsed.text) == line {
                return parsed;
            }
        }
        Line {
            kind: EventKind::Notice,
            original_at_ms: at_ms.max(1),
            nick: String::new(),
            text: line.to_string(),
        }
    }
}

/// The minute of the day in `[HH:MM] `, and what follows.
fn minute_of(line: &str) -> Option<(u32, &str)> {
    let bytes = line.as_bytes();
    let [b'[', h1, h2, b':', m1, m2, b']', b' ', ..] = bytes else { return None };
    let two = |a: &u8, b: &u8| {
        let digits = a.is_ascii_digit() && b.is_ascii_digit();
        digits.then(|| u32::from(a - b'0') * 10 + u32::from(b - b'0'))
    };
    let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
    (hours < 24 && minutes < 60).then(|| (hours * 60 + minutes, &line[8..]))
}

/// Kind, form, nick and text of what follows the time.
fn said(rest: &str) -> Option<(EventKind, u64, &str, &str)> {
    if let Some(rest) = rest.strip_prefix('<') {
        let (nick, text) = rest.split_once('>')?;
        return match text.strip_prefix(' ') {
            Some(text) => Some((EventKind::Message, 0, nick, text)),
            None => Some((EventKind::Message, FORM_BARE, nick, text)),
        };
    }
    let (form, rest) = match rest.strip_prefix(" * ") {
        Some(rest) => (0, rest),
        None => (FORM_ONE_SPACE, rest.strip_prefix("* ")?),
    };
    match rest.split_once(' ') {
        Some((nick, text)) => Some((EventKind::Action, form, nick, text)),
        None => Some((EventKind::Action, form | FORM_BARE, rest, "")),
    }
}

fn is_nick(nick: &str) -> bool {
    let fits = (1..=NICK_BYTES_MAX).contains(&nick.len());
    fits && !nick.chars().any(char::is_control) // spaces do occur
}

/// The line that was parsed to this.
pub(super) fn render(kind: EventKind, original_at_ms: u64, nick: &str, text: &str) -> String {
    let minute = original_at_ms / MINUTE_MS % u64::from(DAY_MINUTES);
    let form = original_at_ms % MINUTE_MS;
    let time = format!("[{:02}:{:02}]", minute / 60, minute % 60);
    let gap = if form & FORM_BARE != 0 && text.is_empty() { "" } else { " " };
    match kind {
        EventKind::Message => format!("{time} <{nick}>{gap}{text}"),
        EventKind::Action => {
            let space = if form & FORM_ONE_SPACE != 0 { " " } else { "  " };
            format!("{time}{space}* {nick}{gap}{text}")
        }
        _ => text.to_string(),
    }
}

/// An event of a room as a line of a log; `None` for what no log has (joins, edits, …).
pub(super) fn render_event(event: &Event) -> Option<String> {
    let kind = event.kind();
    if !matches!(kind, EventKind::Message | EventKind::Action | EventKind::Notice) {
        return None;
    }
    if event.original_at_ms > 0 {
        let nick = &event.original_sender;
        return Some(render(kind, event.original_at_ms, nick, &event.text));
    }
    // Posted here: the usual form, on one line.
    let minute_ms = event.at_ms - event.at_ms % MINUTE_MS;
    let text = event.text.replace(['\n', '\r'], " ");
    Some(render(kind, minute_ms, &event.sender, &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 1_209_513_600_000; // 2008-04-30

    fn line(text: &str) -> Line {
        let parsed = Parser::new(DAY).parse(text);
        let again = render(parsed.kind, parsed.original_at_ms, &parsed.nick, &parsed.text);
        assert_eq!(again, text);
        parsed
    }

    fn check(text: &str, kind: EventKind, nick: &str, said: &str) {
        let parsed = line(text);
        assert_eq!((parsed.kind, &*parsed.nick, &*parsed.text), (kind, nick, said), "{text:?}");
    }

    #[test]
    fn lines_are_taken_apart() {
        use EventKind::{Action, Message, Notice};
        check("[01:02] <Ann> hi there ", Message, "Ann", "hi there ");
        check("[01:02] <[A] nn > hi", Message, "[A] nn ", "hi");
        check("[01:02] <Ann> ", Message, "Ann", "");
        check("[01:02] <Ann>", Message, "Ann", "");
        check("[01:02] <Ann>  <Bob> said", Message, "Ann", " <Bob> said");
        check("[01:02]  * Ann waves\t", Action, "Ann", "waves\t");
        check("[01:02] * Ann waves", Action, "Ann", "waves");
        check("[01:02]  * Ann", Action, "Ann", "");
        check("[01:02] * Ann ", Action, "Ann", "");
        check("[01:02] <Ann> \u{8}\u{7f}\r", Message, "Ann", "\u{8}\u{7f}\r");
        for other in [
            "",
            "=== Ann has joined #ubuntu",
            "[01:09] (soundray/#ubuntu) thomas: have you seen it?",
            "[05:12] -nick:#ubuntu- happy hannukah",
            "[24:00] <Ann> hi",
            "[1:02] <Ann> hi",
            "[01:02]<Ann> hi",
            "[01:02] <Ann>hi",
            "[01:02] <> hi",
            "[01:02]   * Ann waves",
            "[01:0é] <Ann> hi",
        ] {
            check(other, Notice, "", other);
        }
    }

    #[test]
    fn times_and_midnight() {
        let mut parser = Parser::new(DAY);
        let mut at = |text: &str| parser.parse(text).original_at_ms - DAY;
        assert_eq!(at("=== log opened"), 0);
        assert_eq!(at("[12:59] <a> x"), 779 * MINUTE_MS);
        assert_eq!(at("[01:00] <a> x"), 60 * MINUTE_MS); // a twelve-hour clock
        assert_eq!(at("[23:59] -a- x"), 1439 * MINUTE_MS);
        assert_eq!(at("=== b has quit"), 1439 * MINUTE_MS);
        assert_eq!(at("[00:00] <a> x"), 1440 * MINUTE_MS);
        assert_eq!(at("[00:01] <a>"), 1441 * MINUTE_MS + FORM_BARE);
    }

    #[test]
    fn the_start_of_1970_is_a_time_too() {
        for text in ["[00:00] <a> x", "=== x", "[00:00] * a", "[00:00]  * a x"] {
            let parsed = Parser::new(0).parse(text);
            assert!(parsed.original_at_ms > 0);
            let again = render(parsed.kind, parsed.original_at_ms, &parsed.nick, &parsed.text);
            assert_eq!(again, text);
        }
    }

    #[test]
    fn what_was_posted_here_is_rendered_on_one_line() {
        let event = Event {
            at_ms: DAY + 61_001,
            sender: "ann".into(),
            kind: EventKind::Action as i32,
            text: "waves\ntwice".into(),
            ..Event::default()
        };
        assert_eq!(render_event(&event).unwrap(), "[00:01]  * ann waves twice");
        assert_eq!(render_event(&Event { kind: EventKind::Join as i32, ..event }), None);
    }

    /// Takes apart every line of a real corpus, when it is there: see `tests/corpus.rs`.
    #[test]
    fn every_line_of_the_corpus_comes_back_the_same() {
        let default = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
        let corpus = std::env::var_os("FOLKMOOT_CORPUS").map_or(default, Into::into);
        let Ok(files) = std::fs::read_dir(corpus.join("irc")) else {
            let how = "set FOLKMOOT_CORPUS to its directory";
            crate::testing::say(&format!("SKIPPED: the corpus is not here; {how}"));
            return;
        };
        let (mut said, mut lines) = (0, 0);
        for file in files {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            let text = std::str::from_utf8(&bytes).unwrap();
            let mut parser = Parser::new(DAY);
            for text in text.strip_suffix('\n').unwrap().split('\n') {
                let parsed = parser.parse(text);
                let Line { kind, original_at_ms, nick, text: says } = parsed;
                assert_eq!(render(kind, original_at_ms, &nick, &says), text);
                lines += 1;
                said += u32::from(kind == EventKind::Message);
            }
        }
        assert_eq!((lines, said), (223_064, 198_061));
    }
}
