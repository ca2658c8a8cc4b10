//! Reads raft-engine's files, without raft-engine.
//!
//! Its own reader truncates a file at the first bad batch as it opens it; `scan.rs` must look
//! before that happens. What is known here of the format (version 2, raft-engine 0.4):
//!
//! ```text
//!  file    magic (53 bytes) | version u64 | alignment u64 | batch…
//!  batch   length u56 | compression u8 | footer's offset u64 | [entries | crc32 LE] | footer
//!  footer  items (count, then each) | crc32 LE, xor the file's number
//!  item    group | 1 count first end-offset…  |  2 (1 or 2 index)  |  3 (1 key value or 2 key)
//! ```
//!
//! Integers are big-endian, those of items LEB128. The xor makes the batches that a recycled file
//! still holds from its former life invalid.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Buf;
use raft_engine::env::{FileSystem, Handle, Permission};

use super::state::take;

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const VERSION: u64 = 2;
/// Bytes before the first batch.
pub(super) const FILE_HEADER_BYTES: u64 = MAGIC.len() as u64 + 16;
const BATCH_HEADER_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
/// Read at once, at least.
const READ_BYTES: usize = 256 << 10;
/// Checksummed in vain by one search before it gives up.
const SEARCH_BYTES: u64 = 1 << 30;

/// raft-engine's two kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// What was written, in order.
    Append,
    /// What is still needed of purged append files.
    Rewrite,
}

/// The number in a file name of this queue.
pub(super) fn file_number(name: &str, queue: Queue) -> Option<u64> {
    let suffix = match queue {
        Queue::Append => ".raftlog",
        Queue::Rewrite => ".rewrite",
    };
    let digits = name.strip_suffix(suffix)?;
    if digits.len() == 16 { digits.parse().ok() } else { None }
}

/// Whether raft-engine keeps a file of this name for recycling.
pub(super) fn is_reserved(name: &str) -> bool {
    name.ends_with(".raftlog.reserved")
}

/// A queue's files in a directory, oldest first. A missing directory has none.
pub(super) fn list(directory: &Path, queue: Queue) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(|n| file_number(n, queue)) {
            files.push((number, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}

/// Leaves out what is before a gap, as raft-engine does: files that it purged and was about to
/// delete or recycle.
pub(super) fn after_gap(files: &mut Vec<(u64, PathBuf)>) {
    if let Some(gap) = files.windows(2).rposition(|pair| pair[1].0 != pair[0].0 + 1) {
        files.drain(..=gap);
    }
}

/// One thing that a batch does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    Entries {
        group: u64,
        first: u64,
        last: u64,
    },
    Put {
        group: u64,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    /// Nothing that concerns us: a compaction, a deletion.
    Other,
}

/// A batch whose checksums hold.
pub(super) struct Batch {
    pub items: Vec<Item>,
    /// Where the next one begins.
    pub end: u64,
}

/// A file open for reading.
pub(super) struct Reader<R> {
    inner: R,
    size: u64,
    signature: u32,
    buffer: Vec<u8>,
    buffer_at: u64,
}

/// Opens a file, after making sure that what will be read from it is on disk: a process that was
/// killed may have left batches in the page cache that a power cut would still take away.
pub(super) fn open<F: FileSystem>(
    fs: &F,
    path: &Path,
    number: u64,
    sync: bool,
) -> io::Result<Reader<F::Reader>> {
    let permission = if sync { Permission::ReadWrite } else { Permission::ReadOnly };
    let handle = Arc::new(fs.open(path, permission)?);
    if sync {
        handle.sync()?;
    }
    let size = handle.file_size()? as u64;
    // raft-engine signs with the low half.
    let signature = (number & u64::from(u32::MAX)) as u32;
    Ok(Reader { inner: fs.new_reader(handle)?, size, signature, buffer: Vec::new(), buffer_at: 0 })
}

impl<R: Read + Seek> Reader<R> {
    /// Whether the file begins as a log file does.
    pub fn has_header(&mut self) -> io::Result<bool> {
        let Some(mut header) = self.get(0, FILE_HEADER_BYTES)? else { return Ok(false) };
        Ok(take(&mut header, MAGIC.len()) == Some(MAGIC)
            && header.get_u64() == VERSION
            && header.get_u64() == 0)
    }

    /// The batch at an offset; `None` when there is none or it is damaged.
    pub fn batch(&mut self, at: u64) -> io::Result<Option<Batch>> {
        let Some((len, footer_at)) = self.batch_header(at)? else { return Ok(None) };
        if !self.footer_holds(at, len, footer_at)? {
            return Ok(None);
        }
        let Some(bytes) = self.get(at, len)? else { return Ok(None) };
        let (head, footer) = bytes.split_at(footer_at as usize);
        let entries = &head[BATCH_HEADER_BYTES..];
        if !entries.is_empty() && !crc_holds(entries, 0) {
            return Ok(None);
        }
        let items = items(&footer[..footer.len() - CRC_BYTES]);
        Ok(items.map(|items| Batch { items, end: at + len }))
    }

    /// The first batch that is valid and begins at or after an offset.
    ///
    /// Looks everywhere, as damage may have hit the length that would lead to the next batch. Gives
    /// up after much futile checking, so that nobody can make an opening take for ever by posting
    /// what looks like batches.
    pub fn find_batch(&mut self, from: u64) -> io::Result<Option<Batch>> {
        let (mut at, mut budget) = (from, SEARCH_BYTES);
        while let Some(candidate) = self.next_candidate(at)? {
            if let Some(batch) = self.batch(candidate)? {
                return Ok(Some(batch));
            }
            let (len, footer_at) = self.batch_header(candidate)?.unwrap_or_default();
            match budget.checked_sub(len - footer_at) {
                Some(rest) => budget = rest,
                None => return Ok(None),
            }
            at = candidate + 1;
        }
        Ok(None)
    }

    /// The first offset from `at` on where a batch's header could be.
    fn next_candidate(&mut self, mut at: u64) -> io::Result<Option<u64>> {
        while at + BATCH_HEADER_BYTES as u64 <= self.size {
            let (size, len) = (self.size, (self.size - at).min(READ_BYTES as u64));
            let Some(window) = self.get(at, len)? else { return Ok(None) };
            let mut i = 0;
            while let Some(header) = window.get(i..i + BATCH_HEADER_BYTES) {
                if header == [0; BATCH_HEADER_BYTES] {
                    // Such is the end of most files; a header is not, so the next one has what is not zero.
                    let zeros = window[i..].iter().take_while(|byte| **byte == 0).count();
                    i += zeros - BATCH_HEADER_BYTES + 1;
                    continue;
                }
                if header[..3] == [0; 3] && plausible(header, size - at - i as u64).is_some() {
                    return Ok(Some(at + i as u64));
                }
                i += 1;
            }
            at += len - BATCH_HEADER_BYTES as u64 + 1;
        }
        Ok(None)
    }

    /// Where the damaged batch at an offset would end, if its header makes sense.
    pub fn claimed_end(&mut self, at: u64) -> io::Result<Option<u64>> {
        Ok(self.batch_header(at)?.map(|(len, _)| at + len))
    }

    /// Whether nothing follows an offset.
    pub fn ends_at(&self, at: u64) -> bool {
        at >= self.size
    }

    fn batch_header(&mut self, at: u64) -> io::Result<Option<(u64, u64)>> {
        let room = self.size.saturating_sub(at);
        let header = self.get(at, BATCH_HEADER_BYTES as u64)?;
        Ok(header.and_then(|header| plausible(header, room)))
    }

    fn footer_holds(&mut self, at: u64, len: u64, footer_at: u64) -> io::Result<bool> {
        let signature = self.signature;
        let footer = self.get(at + footer_at, len - footer_at)?;
        Ok(footer.is_some_and(|footer| crc_holds(footer, signature)))
    }

    /// Some bytes of the file; `None` when it ends before.
    fn get(&mut self, at: u64, len: u64) -> io::Result<Option<&[u8]>> {
        if at.checked_add(len).is_none_or(|end| end > self.size) {
            return Ok(None);
        }
        let len = len as usize;
        let buffered = self.buffer_at + self.buffer.len() as u64;
        if at < self.buffer_at || at + len as u64 > buffered {
            let whole = (self.size - at).min(len.max(READ_BYTES) as u64);
            self.buffer.resize(whole as usize, 0);
            self.buffer_at = at;
            self.inner.seek(SeekFrom::Start(at))?;
            self.inner.read_exact(&mut self.buffer)?;
        }
        let start = (at - self.buffer_at) as usize;
        Ok(Some(&self.buffer[start..start + len]))
    }
}

/// Length and footer's offset in a batch's header, if they make sense in this much room.
fn plausible(mut header: &[u8], room: u64) -> Option<(u64, u64)> {
    let (len_and_type, footer_at) = (header.get_u64(), header.get_u64());
    let (len, compression) = (len_and_type >> 8, len_and_type & 0xff);
    let fits = len <= room
        && compression <= 1
        && footer_at >= BATCH_HEADER_BYTES as u64
        && len > footer_at.saturating_add(CRC_BYTES as u64);
    fits.then_some((len, footer_at))
}

fn crc_holds(bytes: &[u8], signature: u32) -> bool {
    match bytes.len().checked_sub(CRC_BYTES) {
        None | Some(0) => false,
        Some(at) => crc32fast::hash(&bytes[..at]) == (&bytes[at..]).get_u32_le() ^ signature,
    }
}

fn items(mut from: &[u8]) -> Option<Vec<Item>> {
    let from = &mut from;
    let count = varint(from)?;
    let mut items = Vec::new();
    for _ in 0..count {
        let group = varint(from)?;
        items.push(match take(from, 1)?[0] {
            1 => entries(group, from)?,
            2 => {
                if take(from, 1)?[0] == 2 {
                    varint(from)?;
                }
                Item::Other
            }
            3 => {
                let put = take(from, 1)?[0] == 1;
                let key = varint_bytes(from)?;
                match put {
                    true => Item::Put { group, key, value: varint_bytes(from)? },
                    false => Item::Other,
                }
            }
            _ => return None,
        });
    }
    from.is_empty().then_some(items)
}

fn entries(group: u64, from: &mut &[u8]) -> Option<Item> {
    let count = varint(from)?;
    if count == 0 {
        return Some(Item::Other);
    }
    let first = varint(from)?;
    for _ in 0..count {
        varint(from)?;
    }
    Some(Item::Entries { group, first, last: first.checked_add(count - 1)? })
}

fn varint_bytes(from: &mut &[u8]) -> Option<Vec<u8>> {
    let len = usize::try_from(varint(from)?).ok()?;
    Some(take(from, len)?.to_vec())
}

fn varint(from: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(from, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::BufMut;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use raft_engine::env::DefaultFileSystem;
    use raft_engine::{Command, Config, Engine, LogBatch, ReadableSize};

    use super::super::state::{self, Entry, OWN_GROUP};
    use super::*;

    fn read_everything(bytes: Vec<u8>) {
        let size = bytes.len() as u64;
        let inner = io::Cursor::new(bytes);
        let mut reader = Reader { inner, size, signature: 0, buffer: Vec::new(), buffer_at: 0 };
        reader.has_header().unwrap();
        reader.find_batch(0).unwrap();
        for at in 0..=size {
            reader.batch(at).unwrap();
            reader.claimed_end(at).unwrap();
        }
    }

    proptest! {
        /// Also when they are what a batch's checksum vouches for.
        #[test]
        fn arbitrary_bytes_never_panic(
            bytes in prop_oneof![vec(any::<u8>(), 1..90), vec(0..5u8, 1..90)],
        ) {
            let mut batch = Vec::new();
            batch.put_u64((BATCH_HEADER_BYTES + bytes.len() + CRC_BYTES) as u64 * 256);
            batch.put_u64(BATCH_HEADER_BYTES as u64);
            batch.put_slice(&bytes);
            batch.put_u32_le(crc32fast::hash(&bytes));
            read_everything(batch);
            read_everything(bytes);
        }

        /// Zeros are passed over, and no header among them is.
        #[test]
        fn candidates_are_those_of_a_plain_search(
            parts in vec((0..40usize, 0..300usize, 17..60u64), 0..6),
            tail in 0..100usize,
        ) {
            let mut bytes = Vec::new();
            for (odd, zeros, len) in parts {
                bytes.put_bytes(3, odd);
                bytes.put_bytes(0, zeros);
                bytes.put_u64(len << 8);
                bytes.put_u64(16);
            }
            bytes.put_bytes(0, tail);
            let size = bytes.len();
            let plain: Vec<u64> = (0..size)
                .filter(|at| {
                    let header = bytes.get(*at..at + BATCH_HEADER_BYTES);
                    header.is_some_and(|header| plausible(header, (size - at) as u64).is_some())
                })
                .map(|at| at as u64)
                .collect();
            let inner = io::Cursor::new(bytes);
            let size = size as u64;
            let mut reader = Reader { inner, size, signature: 0, buffer: Vec::new(), buffer_at: 0 };
            let (mut found, mut at) = (Vec::new(), 0);
            while let Some(candidate) = reader.next_candidate(at).unwrap() {
                found.push(candidate);
                at = candidate + 1;
            }
            prop_assert_eq!(found, plain);
        }
    }

    /// Holds the description above against the real thing.
    #[test]
    fn files_of_the_real_engine_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            dir: dir.path().to_str().unwrap().to_owned(),
            batch_compression_threshold: ReadableSize(100),
            ..Config::default()
        };
        let engine = Engine::open(config).unwrap();
        for (first, payload) in [(300, "short"), (301, &*"a long one ".repeat(50))] {
            let mut batch = LogBatch::default();
            batch.put(OWN_GROUP, b"k".to_vec(), vec![7; 200]).unwrap();
            batch.add_command(3, Command::Compact { index: 12345 });
            let entries: Vec<_> =
                (first..first + 3).map(|i| state::encode_entry(i, payload.as_bytes())).collect();
            batch.add_entries::<Entry>(3, &entries).unwrap();
            batch.delete(9, b"gone".to_vec());
            batch.add_command(9, Command::Clean);
            engine.write(&mut batch, true).unwrap();
        }
        drop(engine);

        let files = list(dir.path(), Queue::Append).unwrap();
        assert_eq!(files.len(), 1);
        let (number, path) = &files[0];
        let mut reader = open(&DefaultFileSystem, path, *number, true).unwrap();
        assert!(reader.has_header().unwrap());
        let mut at = FILE_HEADER_BYTES;
        for first in [300, 301] {
            let batch = reader.batch(at).unwrap().unwrap();
            let put = Item::Put { group: OWN_GROUP, key: b"k".to_vec(), value: vec![7; 200] };
            let entries = Item::Entries { group: 3, first, last: first + 2 };
            assert_eq!(batch.items, [put, Item::Other, entries, Item::Other, Item::Other]);
            assert_eq!(reader.claimed_end(at).unwrap(), Some(batch.end));
            at = batch.end;
        }
        assert!(reader.ends_at(at));
        let found = reader.find_batch(FILE_HEADER_BYTES + 1).unwrap().unwrap();
        assert_eq!(found.end, at);

        // Under another number, as after recycling, nothing of it is valid.
        let mut recycled = open(&DefaultFileSystem, path, number + 1, false).unwrap();
        assert!(recycled.has_header().unwrap());
        assert!(recycled.find_batch(0).unwrap().is_none());
    }

    #[test]
    fn names_are_those_of_raft_engine() {
        assert_eq!(file_number("0000000000000012.raftlog", Queue::Append), Some(12));
        assert_eq!(file_number("0000000000000012.rewrite", Queue::Append), None);
        assert_eq!(file_number("0000000000000012.rewrite", Queue::Rewrite), Some(12));
        assert_eq!(file_number("0000000000000012.raftlog.reserved", Queue::Append), None);
        assert!(is_reserved("0000000000000012.raftlog.reserved"));
    }
}
