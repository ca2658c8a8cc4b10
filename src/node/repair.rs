//! Repairs that an operator has asked for: the state of a shard is set aside when the node starts
//! next, before any group does, and the shard begins with an empty one.
//!
//! What it lacks then comes from its log, or from another replica where the log does not reach back
//! so far (`shard/rebuild.rs`): as for a state that cannot be read, but for one shard. A note in the
//! data directory asks for it, and goes when all is done, so a crash in the middle is harmless: the
//! next start does it over. Nothing is thrown away: the rows are in a file.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Code, Error};
use crate::id::ShardId;
use crate::store::base::Base;
use crate::store::set_aside;

/// Where notes are: an empty file `shard-N` each.
const NOTES: &str = "repair-at-start";
/// Where the rows of states go that were set aside: `shard-N-M.rows`.
const ASIDE: &str = "set-aside";
/// How many states of a shard are kept. An operator who has not looked by then has to.
const KEPT_MAX: u32 = 9;

/// Notes that a shard is to be repaired at the next start. Durable when this returns.
///
/// # Errors
/// When it cannot be written.
pub(super) async fn note(data_dir: PathBuf, shard: ShardId) -> Result<(), Error> {
    let noting = tokio::task::spawn_blocking(move || {
        let notes = data_dir.join(NOTES);
        fs::create_dir_all(&notes)?;
        File::create(notes.join(name(shard)))?.sync_all()?;
        sync(&notes)?;
        sync(&data_dir)
    });
    let noted = noting.await.map_err(io::Error::other).flatten();
    noted
        .map_err(|error| Error::new(Code::Internal, format!("cannot note the repair: {error}")))?;
    tracing::warn!(%shard, "asked to set this shard's state aside at the next start");
    Ok(())
}

/// Does what notes ask for. Must not be called while groups run.
///
/// # Errors
/// When rows cannot be read, kept, or removed. The notes are there still.
pub(super) fn carry_out(data_dir: &Path, base: &dyn Base) -> io::Result<()> {
    let notes = data_dir.join(NOTES);
    let entries = match fs::read_dir(&notes) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for note in entries {
        let name = note.file_name();
        let Some(shard) = shard_of(&name) else {
            tracing::warn!(?name, "no note of a repair; left alone");
            continue;
        };
        let aside = data_dir.join(ASIDE);
        fs::create_dir_all(&aside)?;
        let file = free_name(&aside, shard)?;
        let rows = set_aside::set_aside(base, shard, &file)?;
        fs::remove_file(note.path())?;
        sync(&notes)?;
        tracing::warn!(
            %shard, rows, file = %file.display(),
            "set a shard's state aside, as asked; it is taken from the log and other replicas. \
             Remove the file once this node is ready"
        );
    }
    Ok(())
}

/// The shards that are to be repaired at the next start.
///
/// # Errors
/// When the notes cannot be read.
pub(super) fn noted(data_dir: &Path) -> io::Result<Vec<ShardId>> {
    let entries = match fs::read_dir(data_dir.join(NOTES)) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = entries.iter().map(fs::DirEntry::file_name);
    Ok(names.filter_map(|name| shard_of(&name)).collect())
}

fn shard_of(name: &std::ffi::OsStr) -> Option<ShardId> {
    name.to_str()?.strip_prefix("shard-")?.parse().ok().map(ShardId)
}

fn name(shard: ShardId) -> String {
    format!("shard-{}", shard.0)
}

fn free_name(aside: &Path, shard: ShardId) -> io::Result<PathBuf> {
    let names = (1..=KEPT_MAX).map(|n| aside.join(format!("{}-{n}.rows", name(shard))));
    names.into_iter().find(|path| !path.exists()).ok_or_else(|| {
        io::Error::other(format!(
            "there are {KEPT_MAX} already of {} in {}; look into the disk, and remove them",
            name(shard),
            aside.display()
        ))
    })
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::base::{Batch, MemoryBase, Order};

    fn put(base: &MemoryBase, shard: u16, key: &str) {
        let mut batch = Batch::new();
        batch.put([&shard.to_be_bytes(), key.as_bytes()].concat(), b"value".to_vec());
        base.write(batch).unwrap();
    }

    fn keys(base: &MemoryBase) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        let all = vec![0]..vec![255; 8];
        base.scan(&all, Order::Forward, &mut |key, _| {
            keys.push(key.to_vec());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        keys
    }

    #[tokio::test]
    async fn a_noted_shard_is_set_aside_once_and_the_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path();
        let base = MemoryBase::new();
        for shard in 1..=3 {
            put(&base, shard, "a");
            put(&base, shard, "b");
        }
        carry_out(data_dir, &base).unwrap();
        assert_eq!(keys(&base).len(), 6, "nobody asked");
        for _ in 0..2 {
            note(data_dir.to_path_buf(), ShardId(2)).await.unwrap();
        }
        carry_out(data_dir, &base).unwrap();
        assert!(keys(&base).iter().all(|key| key[1] != 2) && keys(&base).len() == 4);
        let kept = fs::read(data_dir.join("set-aside/shard-2-1.rows")).unwrap();
        assert_eq!(kept.windows(5).filter(|bytes| bytes == b"value").count(), 2);
        put(&base, 2, "c");
        carry_out(data_dir, &base).unwrap();
        assert_eq!(keys(&base).len(), 5, "the note is gone");
    }

    #[tokio::test]
    async fn what_cannot_be_kept_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let base = MemoryBase::new();
        put(&base, 2, "a");
        note(directory.path().to_path_buf(), ShardId(2)).await.unwrap();
        fs::write(directory.path().join(ASIDE), "in the way").unwrap();
        carry_out(directory.path(), &base).unwrap_err();
        assert_eq!(keys(&base).len(), 1);
        fs::remove_file(directory.path().join(ASIDE)).unwrap();
        carry_out(directory.path(), &base).unwrap();
        assert_eq!(keys(&base).len(), 0);
    }
}
