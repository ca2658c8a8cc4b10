//! The watermark file: the number of the last batch that is certainly on disk.
//!
//! raft-engine cuts a log at its first bad batch, which is right after a torn write and silent loss
//! after bit rot. The watermark tells them apart: a log that ends before it has lost something.
//!
//! Two slots in blocks of their own are written in turn, so that a torn write spoils only the older
//! number. A slot is written after the log's fsync and not synced itself; a power cut may leave an
//! older number, never a newer one than the log's.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use raft_engine::env::{FileSystem, Handle, Permission};

use super::recover;

/// The file, in the log's directory.
pub(super) const FILE: &str = "watermark";

/// Begins each slot; the last byte is the format version.
const MAGIC: &[u8; 8] = b"fm-mark\x01";

/// Distance of the slots: no disk tears a write across two such blocks.
const BLOCK_BYTES: usize = 4096;

/// Magic, number, CRC-32 of both.
const SLOT_BYTES: usize = 20;

/// Writes the watermark; object-safe, so that the file system's type ends here.
pub(super) trait Mark: Send {
    /// Notes that every batch up to `number` is on disk.
    fn note(&mut self, number: u64) -> io::Result<()>;

    /// Makes the noted number survive a power cut.
    fn sync(&mut self) -> io::Result<()>;
}

struct File<F: FileSystem> {
    handle: Arc<F::Handle>,
    writer: F::Writer,
}

impl<F: FileSystem> Mark for File<F> {
    fn note(&mut self, number: u64) -> io::Result<()> {
        self.writer.seek(SeekFrom::Start(number % 2 * BLOCK_BYTES as u64))?;
        self.writer.write_all(&encode(number))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.handle.sync()
    }
}

/// Reads the watermark of a log directory; `None` when there is no file.
///
/// # Errors
/// `InvalidData` when neither slot is valid; that no power cut does.
pub(super) fn read<F: FileSystem>(directory: &Path, fs: &F) -> io::Result<Option<u64>> {
    let Some(bytes) = recover::read_file(&directory.join(FILE), fs)? else { return Ok(None) };
    let number = [0, BLOCK_BYTES].into_iter().filter_map(|at| decode(bytes.get(at..)?)).max();
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "the watermark file is damaged")),
    }
}

/// Opens the watermark of a log directory for writing, and creates it, durably, as 0.
pub(super) fn open<F: FileSystem + 'static>(
    directory: &Path,
    fs: &F,
    create: bool,
) -> io::Result<Box<dyn Mark>> {
    let path = directory.join(FILE);
    let handle =
        Arc::new(if create { fs.create(path)? } else { fs.open(path, Permission::ReadWrite)? });
    let mut file = File::<F> { writer: fs.new_writer(handle.clone())?, handle };
    if create {
        // Both blocks whole, so that later writes need no space.
        let mut blocks = vec![0; 2 * BLOCK_BYTES];
        blocks[..SLOT_BYTES].copy_from_slice(&encode(0));
        file.writer.write_all(&blocks)?;
        file.sync()?;
        std::fs::File::open(directory)?.sync_all()?;
    }
    Ok(Box::new(file))
}

fn encode(number: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(MAGIC);
    (&mut slot[8..16]).put_u64(number);
    let crc = crc32fast::hash(&slot[..16]);
    (&mut slot[16..]).put_u32(crc);
    slot
}

fn decode(block: &[u8]) -> Option<u64> {
    let slot = block.get(..SLOT_BYTES)?;
    let valid = slot.starts_with(MAGIC) && (&slot[16..]).get_u32() == crc32fast::hash(&slot[..16]);
    valid.then(|| (&slot[8..]).get_u64())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;
    use raft_engine::env::DefaultFileSystem;

    use super::*;

    proptest! {
        #[test]
        fn numbers_round_trip(number in any::<u64>(), rest in any::<Vec<u8>>()) {
            let block = [&encode(number)[..], &rest].concat();
            prop_assert_eq!(decode(&block), Some(number));
        }

        #[test]
        fn a_damaged_slot_is_no_number(
            number in any::<u64>(), at in 0..SLOT_BYTES, flip in 1..=u8::MAX, cut in any::<Index>(),
        ) {
            let mut slot = encode(number);
            prop_assert_eq!(decode(&slot[..cut.index(SLOT_BYTES)]), None);
            slot[at] ^= flip;
            prop_assert_eq!(decode(&slot), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(decode(&bytes), None);
            prop_assert_eq!(decode(&[&MAGIC[..], &bytes].concat()), None);
        }
    }

    #[test]
    fn the_format_is_pinned() {
        assert_eq!(encode(258), *b"fm-mark\x01\x00\x00\x00\x00\x00\x00\x01\x02\xd7\xca\x5a\x86");
        assert_eq!(decode(&encode(258)), Some(258));
    }

    #[test]
    fn a_torn_slot_leaves_the_number_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let fs = DefaultFileSystem;
        assert_eq!(read(dir.path(), &fs).unwrap(), None);
        let mut mark = open(dir.path(), &fs, true).unwrap();
        assert_eq!(read(dir.path(), &fs).unwrap(), Some(0));
        for number in 1..=7 {
            mark.note(number).unwrap();
            assert_eq!(read(dir.path(), &fs).unwrap(), Some(number));
        }
        mark.sync().unwrap();
        let path = dir.path().join(FILE);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[BLOCK_BYTES + 9] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(dir.path(), &fs).unwrap(), Some(6));
        bytes[3] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(dir.path(), &fs).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
