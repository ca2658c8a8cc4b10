//! A store in sled that inserts, rewrites and removes rows, as checkpoints do.
//!
//! An operation is one atomic batch and a flush. What it does follows from the seed and its number.

use std::collections::BTreeMap;
use std::path::Path;

use crate::random::Random;

/// Rows that are rewritten over and over.
const HOT_ROWS: u64 = 2000;
/// Rows changed by an operation, and rows added by it.
const CHANGES: u64 = 60;
const INSERTS: u64 = 30;
const ROW_BYTES_MAX: u64 = 4096;
/// Holds the number of the last operation.
const LAST: &[u8] = b"last";

/// Each row and the operation that last wrote it.
type Model = BTreeMap<u64, u64>;

pub fn write(path: &Path, seed: u64, sync: bool, mut acknowledge: impl FnMut(u64)) {
    // Referring to it is what links the definition in.
    assert!(folkmoot::store::durable_sync::calls() < u64::MAX);
    let db = open(path).unwrap();
    for number in last(&db).unwrap() + 1.. {
        let mut model = Model::new();
        let mut batch = sled::Batch::default();
        for row in apply(&mut model, seed, number) {
            match model.get(&row) {
                Some(writer) => batch.insert(&row.to_be_bytes(), value(seed, row, *writer)),
                None => batch.remove(&row.to_be_bytes()),
            }
        }
        batch.insert(LAST, &number.to_be_bytes());
        db.apply_batch(batch).unwrap();
        if sync {
            db.flush().unwrap();
        }
        acknowledge(number);
    }
}

pub fn check(path: &Path, seed: u64) -> Result<u64, String> {
    let db = open(path).map_err(|e| e.to_string())?;
    let last = last(&db)?;
    let mut model = Model::new();
    for number in 1..=last {
        apply(&mut model, seed, number);
    }
    let mut found = 0;
    for row in db.iter() {
        let (key, bytes) = row.map_err(|e| e.to_string())?;
        let Ok(key) = <[u8; 8]>::try_from(&*key) else { continue };
        let row = u64::from_be_bytes(key);
        match model.get(&row) {
            Some(writer) if value(seed, row, *writer) == *bytes => found += 1,
            Some(writer) => return Err(format!("row {row} is not as {writer} of {last} wrote it")),
            None => return Err(format!("row {row} should be gone after {last}")),
        }
    }
    match found == model.len() {
        true => Ok(last),
        false => Err(format!("{found} of {} rows after {last}", model.len())),
    }
}

/// Applies an operation to the model, and returns the rows that it touches.
fn apply(model: &mut Model, seed: u64, number: u64) -> Vec<u64> {
    let mut random = Random::of(seed, number);
    let mut rows = Vec::new();
    for _ in 0..CHANGES {
        let row = random.below(HOT_ROWS);
        match random.below(10) {
            0 => drop(model.remove(&row)),
            _ => drop(model.insert(row, number)),
        }
        rows.push(row);
    }
    for i in 0..INSERTS {
        let row = HOT_ROWS + number * INSERTS + i;
        model.insert(row, number);
        rows.push(row);
    }
    rows
}

fn value(seed: u64, row: u64, writer: u64) -> Vec<u8> {
    let mut random = Random::of(seed ^ row.rotate_left(32), writer);
    let len = 1 + random.below(ROW_BYTES_MAX);
    // Mostly small, as rows are.
    let len = if random.below(4) == 0 { len } else { 1 + len / 16 };
    random.bytes(len)
}

fn open(path: &Path) -> sled::Result<sled::Db> {
    sled::Config::new().path(path).flush_every_ms(None).cache_capacity(64 << 20).open()
}

fn last(db: &sled::Db) -> Result<u64, String> {
    match db.get(LAST).map_err(|e| e.to_string())? {
        Some(bytes) => Ok(u64::from_be_bytes((*bytes).try_into().map_err(|_| "a bad number")?)),
        None => Ok(0),
    }
}
