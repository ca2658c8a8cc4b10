//! A file's lines in batches, each small enough for one Import command.

use crate::cli::failure::{Failure, Outcome};
use crate::cli::import::people::People;
use crate::cli::import::source::{Lines, Source};
use crate::cli::irc;
use crate::limits;
use crate::proto::v1 as pb;

/// Bytes of a line's other fields, allowed for.
const LINE_OVERHEAD: usize = 96;

/// A file's lines in batches.
#[derive(Debug)]
pub(super) struct Batches<'a> {
    lines: Lines,
    parser: irc::Parser,
    people: &'a People,
    lines_max: usize,
    /// A line that did not fit into the last batch.
    left_over: Option<pb::ImportLine>,
}

impl<'a> Batches<'a> {
    /// Opens the file again.
    pub(super) fn open(
        source: &Source,
        people: &'a People,
        lines_max: usize,
    ) -> Outcome<Batches<'a>> {
        let lines = Lines::open(&source.path).map_err(Failure::failed)?;
        let parser = irc::Parser::new(source.day_ms);
        Ok(Batches { lines, parser, people, lines_max, left_over: None })
    }

    /// The next batch; `None` at the end.
    pub(super) fn next(&mut self) -> Outcome<Option<Vec<pb::ImportLine>>> {
        let mut batch: Vec<pb::ImportLine> = Vec::new();
        let mut bytes = 0;
        while batch.len() < self.lines_max {
            let Some(line) = self.next_line()? else { break };
            let size = line.text.len() + line.original_sender.len() + LINE_OVERHEAD;
            if bytes + size > limits::IMPORT_BYTES_MAX && !batch.is_empty() {
                self.left_over = Some(line);
                break;
            }
            bytes += size;
            batch.push(line);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }

    fn next_line(&mut self) -> Outcome<Option<pb::ImportLine>> {
        if let Some(line) = self.left_over.take() {
            return Ok(Some(line));
        }
        let Some(text) = self.lines.next().map_err(Failure::failed)? else { return Ok(None) };
        let parsed = self.parser.parse(text);
        Ok(Some(pb::ImportLine {
            line: self.lines.number,
            original_at_ms: parsed.original_at_ms,
            sender: self.people.id_of(&parsed.nick),
            original_sender: parsed.nick,
            kind: parsed.kind as i32,
            text: parsed.text,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::source;

    #[test]
    fn batches_keep_within_both_limits_and_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let mut text = "[01:02] <a> x\n".repeat(1500);
        text.push_str(&format!("{}\n", "y".repeat(60_000)).repeat(30));
        std::fs::write(&path, &text).unwrap();
        let sources = source::read_all(&[path], "", 0).unwrap();
        let people = People::default();
        let mut batches = Batches::open(&sources[0], &people, 1000).unwrap();
        let mut numbers = Vec::new();
        while let Some(batch) = batches.next().unwrap() {
            assert!(batch.len() <= limits::IMPORT_LINES_MAX);
            let bytes: usize = batch.iter().map(|line| line.text.len()).sum();
            assert!(bytes <= limits::IMPORT_BYTES_MAX);
            numbers.extend(batch.iter().map(|line| line.line));
        }
        assert_eq!(numbers, (1..=1530).collect::<Vec<u64>>());
    }
}
