//! The mark of a log of which something acknowledged was found to be missing while it was open.
//!
//! Only the leader can know when a whole log was put back to an earlier state: it is sound in
//! itself. `shard` hears of it, and marks the log here, so that the next start refuses it too, even
//! if that leader is gone by then.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// The mark's name in the log's directory; it contains what was found.
const FILE: &str = "lost";

/// What was found missing, if the log is marked.
pub(super) fn read(directory: &Path) -> io::Result<Option<String>> {
    match fs::read(directory.join(FILE)) {
        Ok(why) => Ok(Some(String::from_utf8_lossy(&why).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Marks a log, durably.
pub(super) fn mark(directory: &Path, why: &str) -> io::Result<()> {
    let mut file = File::create(directory.join(FILE))?;
    file.write_all(why.as_bytes())?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}
