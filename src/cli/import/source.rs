//! The files of an import, read and checked before anything is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::failure::{Failure, Outcome};
use crate::cli::{irc, nick};
use crate::id::RoomId;
use crate::limits;

/// One file that is to be imported.
#[derive(Debug)]
pub(super) struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// The file's name: names the source within its room.
    pub name: String,
    /// The room that it becomes.
    pub room: RoomId,
    /// Start of its first day, milliseconds since the Unix epoch.
    pub day_ms: u64,
    /// How many lines it has.
    pub lines: u64,
    /// Everybody who says something in it.
    nicks: BTreeSet<String>,
}

/// Reads and checks every file.
pub(super) fn read_all(
    files: &[PathBuf],
    room_prefix: &str,
    default_day_ms: u64,
) -> Outcome<Vec<Arc<Source>>> {
    let mut rooms = BTreeMap::new();
    let mut sources = Vec::new();
    for path in files {
        let in_file = |problem| Failure::failed(format!("{}: {problem}", path.display()));
        let source = read(path, room_prefix, default_day_ms).map_err(in_file)?;
        if let Some(other) = rooms.insert(source.room.clone(), path) {
            return Err(in_file(format!(
                "would become room {}, as would {}; import them apart, with different --room-prefix",
                source.room,
                other.display()
            )));
        }
        sources.push(Arc::new(source));
    }
    Ok(sources)
}

/// Everybody who says something in any of them.
pub(super) fn nicks(sources: &[Arc<Source>]) -> BTreeSet<String> {
    sources.iter().flat_map(|source| source.nicks.iter().cloned()).collect()
}

fn read(path: &Path, room_prefix: &str, default_day_ms: u64) -> Result<Source, String> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("its name is not UTF-8")?;
    if name.len() > limits::SOURCE_BYTES_MAX {
        return Err(format!("its name is longer than {} bytes", limits::SOURCE_BYTES_MAX));
    }
    let stem = name.strip_suffix(".txt").or_else(|| name.strip_suffix(".log")).unwrap_or(name);
    let room = nick::slug(&format!("{room_prefix}{stem}"));
    let mut source = Source {
        path: path.to_path_buf(),
        name: name.to_string(),
        room: RoomId::parse(&room).map_err(|error| error.to_string())?,
        day_ms: day_in(name).unwrap_or(default_day_ms),
        lines: 0,
        nicks: BTreeSet::new(),
    };
    let mut parser = irc::Parser::new(source.day_ms);
    let mut lines = Lines::open(path)?;
    while let Some(line) = lines.next()? {
        let parsed = parser.parse(line);
        if parsed.text.len() > limits::TEXT_BYTES_MAX {
            let max = limits::TEXT_BYTES_MAX;
            return Err(format!("line {} has more than {max} bytes of text", lines.number));
        }
        if !source.nicks.contains(&parsed.nick) {
            source.nicks.insert(parsed.nick);
        }
    }
    source.nicks.remove("");
    source.lines = lines.number;
    Ok(source)
}

/// A file's lines, without their newlines, exactly.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<File>,
    buffer: Vec<u8>,
    /// The number of the last line read; 0 before the first.
    pub number: u64,
}

impl Lines {
    /// Opens a file.
    pub(super) fn open(path: &Path) -> Result<Lines, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        Ok(Lines { reader: BufReader::new(file), buffer: Vec::new(), number: 0 })
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<&str>, String> {
        self.buffer.clear();
        let read = self.reader.read_until(b'\n', &mut self.buffer).map_err(|e| e.to_string())?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let line = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        match std::str::from_utf8(line) {
            Ok(line) => Ok(Some(line)),
            // Texts are UTF-8, so other bytes could not come back as they are.
            Err(_) => Err(format!(
                "line {} is not UTF-8; convert the file first, for example with \
                 `iconv -f latin1 -t utf8`",
                self.number
            )),
        }
    }
}

/// Parses a day, for arguments.
pub(super) fn day(text: &str) -> Result<u64, String> {
    let expected = || format!("expected a day from 1970 on, like 2008-04-30, not {text:?}");
    if text.len() != 10 {
        return Err(expected());
    }
    let start = humantime::parse_rfc3339_weak(&format!("{text} 00:00:00"));
    let since = start.ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.and_then(|since| u64::try_from(since.as_millis()).ok()).ok_or_else(expected)
}

/// The first `YYYY-MM-DD` in a file's name.
fn day_in(name: &str) -> Option<u64> {
    let windows = (0..name.len()).filter_map(|at| name.get(at..at + 10));
    windows.filter(|text| text.as_bytes()[4] == b'-').find_map(|text| day(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_is_in_the_name() {
        assert_eq!(day("1970-01-02"), Ok(86_400_000));
        assert_eq!(day_in("ubuntu.2008-04-30.train-a.raw.txt"), Some(1_209_513_600_000));
        assert_eq!(day_in("linux.channel-two.all.raw.txt"), None);
        assert_eq!(day_in("#é-2008-13-30"), None);
        for bad in ["", "2008", "2008-02-30", "2008-04-30 ", "08-04-30"] {
            assert!(day(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_are_checked_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        };
        let good = write("Ubuntu.log", b"[01:02] <Ann> hi\n=== Bob\n[01:03] * Bob waves");
        let sources = read_all(std::slice::from_ref(&good), "irc-", 86_400_000).unwrap();
        assert_eq!((sources[0].lines, sources[0].day_ms), (3, 86_400_000));
        assert!(sources[0].room.as_str().starts_with("irc-ubuntu-"), "{}", sources[0].room);
        assert_eq!(nicks(&sources), BTreeSet::from(["Ann".to_string(), "Bob".to_string()]));

        let problem = |files: &[PathBuf]| read_all(files, "", 0).unwrap_err().to_string();
        let bad = write("bad.txt", b"ok\n\xff\n");
        assert!(problem(&[bad]).contains("line 2 is not UTF-8"));
        let long = write("long.txt", &[b'x'; 70_000]);
        assert!(problem(&[long]).contains("line 1 has more than"));
        let (a, b) = (write("a.txt", b""), write("a.log", b""));
        assert!(problem(&[a, b]).contains("would become room a"));
        assert!(problem(&[dir.path().join("none")]).contains("none"));
    }
}
