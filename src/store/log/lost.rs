//! The mark of a log of which something acknowledged was found to be missing while it was open.
//!
//! Only the leader can know when a whole log was put back to an earlier state: it is sound in
//! itself. `shard` hears of it, and marks the log here, so that the next start refuses it too, even
//! if that leader is gone by then.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use raft_engine::env::{FileSystem, Handle as _, WriteExt as _};

use super::recover;

/// The mark's name in the log's directory; it contains what was found.
const FILE: &str = "lost";

/// What was found missing, if the log is marked.
pub(super) fn read<F: FileSystem>(directory: &Path, fs: &F) -> io::Result<Option<String>> {
    let why = recover::read_file(&directory.join(FILE), fs)?;
    Ok(why.map(|why| String::from_utf8_lossy(&why).into_owned()))
}

/// Marks a log, durably.
pub(super) fn mark<F: FileSystem>(directory: &Path, fs: &F, why: &str) -> io::Result<()> {
    let handle = Arc::new(fs.create(directory.join(FILE))?);
    let mut writer = fs.new_writer(handle.clone())?;
    writer.write_all(why.as_bytes())?;
    // A longer mark may have been there.
    writer.truncate(why.len())?;
    handle.sync()?;
    std::fs::File::open(directory)?.sync_all()
}
