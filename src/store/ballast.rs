//! A file that takes up space, to be given up when there is none.
//!
//! On a full disk the log cannot take a vote nor the state a checkpoint, and without checkpoints
//! nothing is purged: the node would stay stuck. `shard` releases the ballast at the first ENOSPC,
//! refuses posts, and fills it again once space is back.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file, in the data directory.
const FILE: &str = "ballast";

/// Written at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes that an ordinary process may still write on a directory's disk.
///
/// # Errors
/// When the file system cannot be asked.
pub fn free_space(directory: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(directory)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The ballast of a data directory. Opening nothing and holding nothing, it only knows the file.
#[derive(Debug, Clone)]
pub struct Ballast {
    path: PathBuf,
    directory: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// The ballast of so many bytes in a directory; 0 is none.
    pub fn new(directory: &Path, bytes: u64) -> Ballast {
        Ballast { path: directory.join(FILE), directory: directory.into(), bytes }
    }

    /// Whether the whole ballast is there.
    pub fn is_filled(&self) -> bool {
        std::fs::metadata(&self.path).map_or(0, |meta| meta.len()) == self.bytes
    }

    /// Fills the ballast, unless less than `keep_free_bytes` would remain. Returns whether it is
    /// filled now. Slow; not for the writer's thread.
    ///
    /// Blocks are reserved first, so that it fails early, and then written, as some file systems
    /// reserve nothing.
    ///
    /// # Errors
    /// When the disk fails. A full one is no error: there is just no ballast.
    pub fn fill(&self, keep_free_bytes: u64) -> io::Result<bool> {
        if self.is_filled() {
            return Ok(true);
        }
        self.release()?;
        if free_space(&self.directory)? < self.bytes.saturating_add(keep_free_bytes) {
            return Ok(false);
        }
        match self.write() {
            Ok(()) => Ok(true),
            Err(e) => {
                self.release()?;
                if super::log::is_no_space(&e) { Ok(false) } else { Err(e) }
            }
        }
    }

    fn write(&self) -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).open(&self.path)?;
        #[cfg(target_os = "linux")]
        if self.bytes > 0 {
            let keep_size = rustix::fs::FallocateFlags::KEEP_SIZE;
            match rustix::fs::fallocate(&file, keep_size, 0, self.bytes) {
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let zeros = vec![0; CHUNK_BYTES];
        let mut rest = self.bytes;
        while rest > 0 {
            let len = rest.min(CHUNK_BYTES as u64);
            file.write_all(&zeros[..len as usize])?;
            rest -= len;
        }
        file.sync_all()
    }

    /// Gives the space back. Returns whether there was any.
    ///
    /// Synced, since a journaling file system reuses blocks only once their release is on disk.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn release(&self) -> io::Result<bool> {
        let file = match OpenOptions::new().write(true).open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        let freed = file.metadata()?.len() > 0;
        file.set_len(0)?;
        file.sync_all()?;
        std::fs::remove_file(&self.path)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(freed)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn ballast_takes_space_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let ballast = Ballast::new(dir.path(), 3 * MIB + 5);
        assert!(!ballast.is_filled());
        assert!(!ballast.release().unwrap());
        assert!(ballast.fill(0).unwrap());
        assert!(ballast.is_filled());
        assert!(ballast.fill(u64::MAX).unwrap(), "what is there stays");
        let blocks = std::fs::metadata(dir.path().join(FILE)).unwrap().blocks();
        assert!(blocks * 512 >= 3 * MIB, "{blocks}");
        assert!(ballast.release().unwrap());
        assert!(!dir.path().join(FILE).exists());
    }

    #[test]
    fn ballast_is_not_filled_when_space_is_short() {
        let dir = tempfile::tempdir().unwrap();
        assert!(free_space(dir.path()).unwrap() > 0);
        let ballast = Ballast::new(dir.path(), MIB);
        assert!(!ballast.fill(u64::MAX).unwrap());
        let huge = Ballast::new(dir.path(), 1 << 60);
        assert!(!huge.fill(0).unwrap());
        assert!(!dir.path().join(FILE).exists());
    }

    #[test]
    fn ballast_of_another_size_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Ballast::new(dir.path(), 2 * MIB).fill(0).unwrap());
        let smaller = Ballast::new(dir.path(), MIB);
        assert!(!smaller.is_filled());
        assert!(smaller.fill(0).unwrap());
        assert!(smaller.is_filled());
    }
}
