//! A file's content, and how to go back from it to what is on disk.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::SmallRng;

/// What a disk writes whole. Only where nothing was before can a write end within: the file's length
/// is known by the byte.
pub(super) const SECTOR_BYTES: usize = 512;

/// A file as processes see it.
///
/// Each change since the last sync remembers what it replaced; a crash takes all back, and does some
/// of them, or parts of them, again.
#[derive(Debug, Default)]
pub(super) struct File {
    /// The content, without zeros that nobody wrote, up to `len`.
    bytes: Vec<u8>,
    len: usize,
    /// Oldest first.
    unsynced: Vec<Change>,
    /// Where each write began that is still there, ascending; none from before a crash.
    pub writes: Vec<usize>,
    /// The last write's number, of all that the disk has seen.
    pub last_write: u64,
}

/// A write, or another length.
#[derive(Debug)]
struct Change {
    at: usize,
    /// What was there; shorter than what came when that was never written, longer when it was cut.
    old: Vec<u8>,
    old_len: usize,
    /// Bytes written; 0 if only the length changed.
    written: usize,
    new_len: usize,
}

/// A change to be done again.
struct Redo {
    at: usize,
    bytes: Vec<u8>,
    /// Whether something had been written there.
    overwrites: bool,
    /// The length that it set, if it wrote nothing.
    len: usize,
}

/// What a crash keeps of a file's changes.
enum Kept {
    /// So many, and a part of the next.
    Prefix(usize),
    /// Of each sector, and of the lengths, so many. A sector on disk is what the sector in memory once
    /// was: it has no later write without the earlier ones.
    Sectors { cuts: BTreeMap<usize, usize>, lengths: usize },
}

impl File {
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where what was ever written ends.
    pub fn written_bytes(&self) -> usize {
        self.bytes.len().min(self.len)
    }

    pub fn unsynced_bytes(&self) -> usize {
        self.unsynced.iter().map(|change| change.written).sum()
    }

    /// Reads from an offset; how much.
    pub fn read(&self, at: usize, into: &mut [u8]) -> usize {
        let wanted = into.len().min(self.len.saturating_sub(at));
        let stored = self.stored(at, wanted);
        let (copied, zeros) = into[..wanted].split_at_mut(stored.len());
        copied.copy_from_slice(stored);
        zeros.fill(0);
        wanted
    }

    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let (written, old_len) = (bytes.len(), self.len);
        let old = self.stored(at, written).to_vec();
        self.put(at, bytes);
        self.len = self.len.max(at + written);
        self.unsynced.push(Change { at, old, old_len, written, new_len: self.len });
        self.writes.retain(|before| *before < at);
        self.writes.push(at);
    }

    /// Cuts the file, or has zeros follow.
    pub fn set_len(&mut self, len: usize) {
        if len == self.len {
            return;
        }
        let old = self.stored(len, self.len.saturating_sub(len)).to_vec();
        self.unsynced.push(Change { at: len, old, old_len: self.len, written: 0, new_len: len });
        self.bytes.truncate(len);
        self.len = len;
        self.writes.retain(|at| *at < len);
    }

    pub fn sync(&mut self) {
        self.unsynced.clear();
    }

    pub fn flip(&mut self, at: usize, bit: u32) {
        self.bytes[at] ^= 1 << bit;
    }

    /// Takes back what was not synced, or some of it.
    pub fn crash(&mut self, rng: &mut SmallRng) {
        self.writes.clear();
        let mut redo = Vec::with_capacity(self.unsynced.len());
        while let Some(change) = self.unsynced.pop() {
            let mut bytes = vec![0; change.written];
            self.read(change.at, &mut bytes);
            self.undo(&change);
            let (at, overwrites, len) = (change.at, !change.old.is_empty(), change.new_len);
            redo.push(Redo { at, bytes, overwrites, len });
        }
        let count = redo.len();
        let mut kept = match rng.random_range(0..10) {
            0..2 => Kept::Prefix(count),
            2..6 => Kept::Prefix(rng.random_range(0..=count)),
            _ => Kept::Sectors { cuts: BTreeMap::new(), lengths: cut(count, rng) },
        };
        for (i, redo) in redo.iter().rev().enumerate() {
            match &mut kept {
                Kept::Prefix(whole) if i < *whole => self.redo(redo, redo.bytes.len()),
                Kept::Prefix(whole) if i == *whole => self.redo_prefix(redo, rng),
                Kept::Prefix(_) => {}
                Kept::Sectors { lengths, .. } if redo.bytes.is_empty() => {
                    if i < *lengths {
                        self.redo(redo, 0);
                    }
                }
                Kept::Sectors { cuts, .. } => self.redo_sectors(redo, |sector| {
                    i < *cuts.entry(sector).or_insert_with(|| cut(count, rng))
                }),
            }
        }
    }

    fn undo(&mut self, change: &Change) {
        self.put(change.at, &change.old);
        let end = (change.at + change.written).min(self.bytes.len());
        if let Some(never_written) = self.bytes.get_mut(change.at + change.old.len()..end) {
            never_written.fill(0);
        }
        self.len = change.old_len;
        self.bytes.truncate(self.len);
    }

    fn redo(&mut self, redo: &Redo, bytes: usize) {
        if redo.bytes.is_empty() {
            self.len = redo.len;
            self.bytes.truncate(redo.len);
        } else if bytes > 0 {
            self.put(redo.at, &redo.bytes[..bytes]);
            self.len = self.len.max(redo.at + bytes);
        }
    }

    /// Does a write again up to some sector, or byte; a length half of the time.
    fn redo_prefix(&mut self, redo: &Redo, rng: &mut SmallRng) {
        if redo.bytes.is_empty() {
            if rng.random() {
                self.redo(redo, 0);
            }
            return;
        }
        let mut end = redo.at + rng.random_range(0..=redo.bytes.len());
        if redo.overwrites || rng.random() {
            end -= end % SECTOR_BYTES;
        }
        self.redo(redo, end.saturating_sub(redo.at));
    }

    /// Does a write again in those of its sectors that are kept.
    fn redo_sectors(&mut self, redo: &Redo, mut kept: impl FnMut(usize) -> bool) {
        let (mut at, end) = (redo.at, redo.at + redo.bytes.len());
        while at < end {
            let sector = at / SECTOR_BYTES;
            let next = ((sector + 1) * SECTOR_BYTES).min(end);
            if kept(sector) {
                self.put(at, &redo.bytes[at - redo.at..next - redo.at]);
                self.len = self.len.max(next);
            }
            at = next;
        }
    }

    /// What is stored of a range.
    fn stored(&self, at: usize, len: usize) -> &[u8] {
        let end = (at + len).min(self.bytes.len());
        self.bytes.get(at..end).unwrap_or_default()
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = at + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(bytes);
    }
}

/// How many of some changes a sector keeps: often none or all.
fn cut(count: usize, rng: &mut SmallRng) -> usize {
    match rng.random_range(0..3) {
        0 => 0,
        1 => count,
        _ => rng.random_range(0..=count),
    }
}
