//! The base of real nodes: sled 0.34, in the one way it is safe to use.
//!
//! Opened by `node.rs`, and by `folkmoot node compact`. sled's own flush thread is off: the
//! checkpoint decides when to flush. Its `flush()` calls `sync_file_range` on Linux, which is no
//! sync; `store::durable_sync` gives it one. One tree holds everything, under tagged keys.
//!
//! Invariant: the row `seal::KEY` is the sum over all other rows, after every batch and every
//! crash. What opens a base reads all of it, and compares.

use std::collections::BTreeMap;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::store::base::{self, Base, Batch, HOW_TO_REBUILD, KeyRange, Order, Visit};
use crate::store::seal::{self, Seal};
use crate::store::{ballast, durable_sync, log};

/// How to open sled.
#[derive(Debug, Clone)]
pub struct SledOptions {
    /// Memory for sled's page cache, in bytes. sled's own default would be 1 GiB.
    pub cache_bytes: u64,
    /// Whether all rows are read and compared with the seal. Without that the seal is believed, as
    /// it may be in a process that wrote it itself.
    pub check: bool,
}

impl Default for SledOptions {
    fn default() -> SledOptions {
        SledOptions { cache_bytes: 64 * 1024 * 1024, check: true }
    }
}

/// Why a base did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The files are there, and damaged. What they held is on the other replicas.
    #[error(
        "the state in {path} cannot be read ({reason}). {how}",
        how = HOW_TO_REBUILD
    )]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// In sled's words.
        reason: String,
    },
    /// Another process has it open.
    #[error("the state in {path} is in use by another process: stop that node first")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file system said no.
    #[error(
        "the state in {path} cannot be opened: {error}. Check that the directory exists, belongs \
         to the user that runs the node, and has free space"
    )]
    Io {
        /// The directory.
        path: PathBuf,
        /// In the system's words.
        error: io::Error,
    },
}

/// Free space without which nothing is written, beyond twice what is to be written: sled copies
/// pages, and takes whole segments.
const HEADROOM_BYTES: u64 = 8 << 20;

/// How long a base that is being closed may take to let go of its lock, and how often that is tried.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);
const CLOSING_LOOK: Duration = Duration::from_millis(10);

/// An empty tree that every base has once it has a seal. sled takes files that it cannot make sense
/// of for a new database: one without this tree and without rows was none.
const SEALED: &str = "sealed";

/// A base in a directory of its own, kept by sled.
#[derive(Debug)]
pub struct SledBase {
    db: sled::Db,
    path: PathBuf,
    /// As it is on disk; `None` once a write has failed, and nobody knows. Held while a batch is
    /// written.
    seal: Mutex<Option<Seal>>,
}

impl SledBase {
    /// Opens or creates the base in the directory `path`. Waits a little for one that is just being
    /// closed: sled's threads may hold it, and its lock, for longer than who has dropped it.
    ///
    /// # Errors
    /// [`OpenError`] says what can be done.
    pub fn open(path: &Path, options: &SledOptions) -> Result<SledBase, OpenError> {
        let began = Instant::now();
        loop {
            match SledBase::open_now(path, options) {
                Err(OpenError::InUse { .. }) if began.elapsed() < CLOSES_WITHIN => {
                    std::thread::sleep(CLOSING_LOOK);
                }
                opened => return opened,
            }
        }
    }

    fn open_now(path: &Path, options: &SledOptions) -> Result<SledBase, OpenError> {
        let config =
            sled::Config::new().path(path).cache_capacity(options.cache_bytes).flush_every_ms(None);
        durable_sync::check().map_err(|error| OpenError::Io { path: path.to_path_buf(), error })?;
        // sled answers some kinds of damage with a panic. Nothing of ours is in the closure, and
        // the half-opened database is gone with it, so no broken state can leak.
        let is_new = !path.join("db").exists();
        let opened =
            panic::catch_unwind(AssertUnwindSafe(|| open_sealed(&config, is_new, options.check)));
        let unreadable = |reason| OpenError::Unreadable { path: path.to_path_buf(), reason };
        match opened {
            Ok(Ok((db, seal))) => {
                Ok(SledBase { db, path: path.to_path_buf(), seal: Mutex::new(Some(seal)) })
            }
            Ok(Err(sled::Error::Io(error))) if is_lock(&error) => {
                Err(OpenError::InUse { path: path.to_path_buf() })
            }
            Ok(Err(sled::Error::Io(error))) if error.kind() != io::ErrorKind::InvalidData => {
                Err(OpenError::Io { path: path.to_path_buf(), error })
            }
            Ok(Err(error)) => Err(unreadable(error.to_string())),
            Err(panic) => Err(unreadable(panic_text(panic.as_ref()))),
        }
    }
}

impl SledBase {
    /// Refuses what the disk may have no room for, as long as nothing has been tried: once a write
    /// of its own has failed, sled answers nothing any more, not even reads.
    fn must_have_room(&self, bytes: usize) -> io::Result<()> {
        let free = ballast::free_space(&self.path)?;
        let needed = HEADROOM_BYTES + 2 * bytes as u64;
        if free >= needed {
            return Ok(());
        }
        let (free, needed) = (free >> 20, needed >> 20);
        let why = format!("No space left on device: {free} MiB free, {needed} MiB needed");
        Err(io::Error::new(io::ErrorKind::StorageFull, why))
    }
}

/// Opens sled, and says what the seal is.
fn open_sealed(config: &sled::Config, is_new: bool, check: bool) -> sled::Result<(sled::Db, Seal)> {
    let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    let db = config.open()?;
    let is_sealed = db.tree_names().iter().any(|name| *name == SEALED);
    if !is_sealed && !is_new && db.is_empty() {
        return Err(damaged("its files are there, and there is nothing in them").into());
    }
    let sealed = match db.get(seal::KEY)? {
        Some(row) => Some(Seal::decode(&row).ok_or_else(|| damaged("its seal makes no sense"))?),
        None if is_sealed => return Err(damaged("its seal is gone").into()),
        None => None,
    };
    let found = match sealed {
        Some(sealed) if !check => sealed,
        _ => sum(&db)?,
    };
    if sealed.is_some_and(|sealed| sealed != found) {
        return Err(damaged("rows are missing, or are earlier ones than they should be").into());
    }
    if !is_sealed {
        // A new one, or one that an earlier release made.
        db.insert(seal::KEY, found.encode())?;
        db.flush()?;
        db.open_tree(SEALED)?;
        db.flush()?;
    }
    Ok((db, found))
}

/// Reads all rows.
fn sum(db: &sled::Db) -> sled::Result<Seal> {
    let mut found = Seal::default();
    for row in db.iter() {
        let (key, value) = row?;
        if key != seal::KEY {
            found.add(&key, &value);
        }
    }
    Ok(found)
}

/// A write that failed for want of space is not to be waited out, as sled has given up by then.
fn write_error(error: sled::Error) -> io::Error {
    match to_io(error) {
        error if log::is_no_space(&error) => io::Error::other(format!(
            "the disk became full in the middle of a write: {error}. Make room, then start the \
             node again"
        )),
        error => error,
    }
}

/// sled wraps a failed `flock` in an error of kind `Other` that only its text tells apart.
fn is_lock(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || error.to_string().contains("could not acquire lock")
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("sled panicked").to_string()
}

fn to_io(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) => error,
        sled::Error::Corruption { .. } => {
            base::damage(format!("the state on disk is damaged: {error}"))
        }
        other => io::Error::other(format!("sled failed: {other}")),
    }
}

impl Base for SledBase {
    fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.db.get(key).map_err(to_io)?.map(|value| value.to_vec()))
    }

    fn scan(&self, range: &KeyRange, order: Order, visit: &mut Visit<'_>) -> io::Result<()> {
        if range.start >= range.end {
            return Ok(());
        }
        let mut rows = self.db.range::<&[u8], _>(range.start.as_slice()..range.end.as_slice());
        loop {
            let row = match order {
                Order::Forward => rows.next(),
                Order::Reverse => rows.next_back(),
            };
            let Some(row) = row else { return Ok(()) };
            let (key, value) = row.map_err(to_io)?;
            // Nobody else's row.
            if key != seal::KEY && visit(&key, &value).is_break() {
                return Ok(());
            }
        }
    }

    fn write(&self, batch: Batch) -> io::Result<()> {
        // Of several writes to a row the last counts.
        let rows: BTreeMap<Vec<u8>, Option<Vec<u8>>> = batch.into_ops().into_iter().collect();
        let bytes = rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len));
        self.must_have_room(bytes.sum())?;
        let gave_up = || io::Error::other("an earlier write to the state has failed");
        let mut current = self.seal.lock().map_err(|_| gave_up())?;
        // Unknown until it is written.
        let mut seal = current.take().ok_or_else(gave_up)?;
        let mut sled_batch = sled::Batch::default();
        for (key, value) in rows {
            if let Some(old) = self.db.get(&key).map_err(to_io)? {
                seal.take_off(&key, &old);
            }
            match value {
                Some(value) => {
                    seal.add(&key, &value);
                    sled_batch.insert(key, value);
                }
                None => sled_batch.remove(key),
            }
        }
        sled_batch.insert(seal::KEY, seal.encode());
        self.db.apply_batch(sled_batch).map_err(write_error)?;
        *current = Some(seal);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.db.flush().map(|_| ()).map_err(write_error)
    }

    fn size_bytes(&self) -> io::Result<u64> {
        self.db.size_on_disk().map_err(to_io)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// sled itself, once whoever had it open has let go.
    fn raw(path: &Path) -> sled::Db {
        let began = Instant::now();
        loop {
            match sled::Config::new().path(path).flush_every_ms(None).open() {
                Err(sled::Error::Io(error))
                    if is_lock(&error) && began.elapsed() < CLOSES_WITHIN =>
                {
                    std::thread::sleep(CLOSING_LOOK);
                }
                opened => return opened.unwrap(),
            }
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = SledBase::open(&path, &SledOptions::default()).unwrap();
        let second = SledBase::open(&path, &SledOptions::default()).unwrap_err();
        assert!(matches!(second, OpenError::InUse { .. }), "{second}");
        drop(first);
        let file = dir.path().join("file");
        std::fs::write(&file, "not a directory").unwrap();
        let error = SledBase::open(&file, &SledOptions::default()).unwrap_err();
        assert!(matches!(error, OpenError::Io { .. }), "{error}");
    }

    #[test]
    fn a_damaged_base_is_reported_as_unreadable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let base = SledBase::open(&path, &SledOptions::default()).unwrap();
        for i in 0..2000u32 {
            let mut batch = Batch::new();
            batch.put(i.to_be_bytes().to_vec(), vec![7; 1000]);
            base.write(batch).unwrap();
        }
        base.flush().unwrap();
        drop(base);
        std::fs::write(path.join("conf"), "garbage that is no configuration").unwrap();
        let error = SledBase::open(&path, &SledOptions::default()).unwrap_err();
        assert!(error.to_string().contains(HOW_TO_REBUILD), "{error}");
    }

    #[test]
    fn what_sled_takes_for_a_new_database_is_not_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let open = || SledBase::open(&path, &SledOptions::default());
        drop(open().unwrap());
        drop(open().expect("one that was never written to is fine"));
        std::fs::write(path.join("db"), "damaged").unwrap();
        let error = open().unwrap_err();
        assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
    }

    /// Random rows in a base's ranges, as checkpoints write them: first some that are new, then some
    /// that were there already.
    fn batches(rng: &mut SmallRng, round: u32) -> [Batch; 2] {
        let (mut fresh, mut again) = (Batch::new(), Batch::new());
        let part = rng.random_range(0..9);
        let value = |rng: &mut SmallRng, bytes: u32| {
            (0..rng.random_range(50..bytes)).map(|_| rng.random()).collect::<Vec<u8>>()
        };
        for n in 0..rng.random_range(1..4) {
            let key =
                [vec![part, 9, rng.random_range(0..20)], (round * 4 + n).to_be_bytes().into()];
            fresh.put(key.concat(), value(rng, 1500));
        }
        for _ in 0..rng.random_range(1..6) {
            again.put(vec![part, 1, rng.random_range(0..20)], value(rng, 200));
        }
        again.put(vec![part, 3, (round / 200) as u8], value(rng, 3000));
        [fresh, again]
    }

    /// A base as a killed process leaves it, and its seal after each batch.
    fn filled(path: &Path, copy: &Path) -> Vec<Seal> {
        let base = SledBase::open(path, &SledOptions::default()).unwrap();
        let rng = &mut SmallRng::seed_from_u64(7);
        let mut seals = vec![Seal::default()];
        for round in 0..1000 {
            for batch in batches(rng, round) {
                base.write(batch).unwrap();
                seals.push(base.seal.lock().unwrap().unwrap());
            }
            base.flush().unwrap();
        }
        std::fs::create_dir(copy).unwrap();
        for file in ["conf", "db"] {
            std::fs::copy(path.join(file), copy.join(file)).unwrap();
        }
        seals
    }

    /// Puts a copy in which a bit differs.
    fn flip(from: &Path, to: &Path, at: usize) {
        let _ = std::fs::remove_dir_all(to);
        std::fs::create_dir(to).unwrap();
        std::fs::copy(from.join("conf"), to.join("conf")).unwrap();
        let mut bytes = std::fs::read(from.join("db")).unwrap();
        bytes[at] ^= 1;
        std::fs::write(to.join("db"), bytes).unwrap();
    }

    #[test]
    fn what_is_left_after_a_flipped_bit_was_there_once_or_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, tried) = (dir.path().join("whole"), dir.path().join("tried"));
        let seals = filled(&dir.path().join("state"), &whole);
        let written = std::fs::read(whole.join("db")).unwrap();
        let written = written.iter().rposition(|byte| *byte != 0).unwrap();
        let rng = &mut SmallRng::seed_from_u64(1);
        let mut refused = 0;
        for _ in 0..40 {
            let at = rng.random_range(0..=written);
            flip(&whole, &tried, at);
            match SledBase::open(&tried, &SledOptions::default()) {
                Err(OpenError::Unreadable { .. }) => refused += 1,
                Err(other) => panic!("byte {at}: {other}"),
                Ok(base) => assert!(seals.contains(&sum(&base.db).unwrap()), "byte {at}"),
            }
        }
        assert!(refused > 0);
    }

    #[test]
    fn a_row_that_is_gone_or_an_earlier_one_is_missed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let open = || SledBase::open(&path, &SledOptions::default());
        let base = open().unwrap();
        let write = |key: &[u8], value: Option<&[u8]>| {
            let mut batch = Batch::new();
            match value {
                Some(value) => batch.put(key.to_vec(), value.to_vec()),
                None => batch.delete(key.to_vec()),
            }
            base.write(batch).unwrap();
        };
        write(b"a", Some(b"1"));
        write(b"b", Some(b"1"));
        write(b"b", Some(b"2"));
        write(b"c", Some(b"3"));
        write(b"c", None);
        write(b"d", None);
        base.flush().unwrap();
        drop(base);
        for (key, value) in [(b"a", None), (b"b", Some(b"1")), (b"c", Some(b"3"))] {
            let base = open().expect("what was written is there");
            let before = match value {
                Some(value) => base.db.insert(key, value).unwrap(),
                None => base.db.remove(key).unwrap(),
            };
            base.db.flush().unwrap();
            drop(base);
            let error = open().unwrap_err();
            assert!(matches!(error, OpenError::Unreadable { .. }), "{error}");
            let db = raw(&path);
            match before {
                Some(before) => db.insert(key, before).unwrap(),
                None => db.remove(key).unwrap(),
            };
            db.flush().unwrap();
        }
    }

    #[test]
    fn a_base_without_a_seal_gets_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let db = raw(&path);
        db.insert(b"a", b"1").unwrap();
        db.insert(b"b", b"2").unwrap();
        db.flush().unwrap();
        drop(db);
        let open = || SledBase::open(&path, &SledOptions::default());
        let mut rows = 0;
        let all = vec![]..vec![0xff; 16];
        let mut count = |_: &[u8], _: &[u8]| {
            rows += 1;
            std::ops::ControlFlow::Continue(())
        };
        open().unwrap().scan(&all, Order::Forward, &mut count).unwrap();
        assert_eq!(rows, 2, "the seal is not shown");
        let base = open().unwrap();
        base.db.remove(b"a").unwrap();
        base.db.flush().unwrap();
        drop(base);
        let error = open().unwrap_err().to_string();
        assert!(error.contains("rows are missing") && error.contains(HOW_TO_REBUILD), "{error}");
    }
}
