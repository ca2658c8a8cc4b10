//! Takes a shard's state out of the base and into a file, so that the shard begins with an empty
//! one: for an operator's repair of a replica that has gone another way.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::Path;

use crate::id::ShardId;
use crate::store::base::{Base, Order};
use crate::store::key::Space;

/// What a file begins with; then each row's key and value, with their lengths as big-endian `u32`.
const MAGIC: &[u8] = b"folkmoot rows 1\n";

/// Writes all rows of a shard to a file, which appears once it is whole and on disk, then removes
/// them from the base, durably. Returns how many there were.
///
/// Not atomic: whoever calls this does it again after a crash. No group of the shard may run.
///
/// # Errors
/// When rows cannot be read, kept or removed; none is removed that is not kept.
pub fn set_aside(base: &dyn Base, shard: ShardId, path: &Path) -> io::Result<u64> {
    let unfinished = path.with_extension("unfinished");
    let rows = write_rows(base, shard, &unfinished)?;
    fs::rename(&unfinished, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    base.delete_range(&Space::whole(shard))?;
    base.flush()?;
    Ok(rows)
}

fn write_rows(base: &dyn Base, shard: ShardId, path: &Path) -> io::Result<u64> {
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(MAGIC)?;
    let (mut rows, mut written) = (0, Ok(()));
    base.scan(&Space::whole(shard), Order::Forward, &mut |key, value| {
        rows += 1;
        written = [key, value].into_iter().try_for_each(|part| {
            file.write_all(&(part.len() as u32).to_be_bytes())?;
            file.write_all(part)
        });
        if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    written?;
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(rows)
}
