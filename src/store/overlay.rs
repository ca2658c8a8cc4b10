//! The overlay: rows in memory, over the base.
//!
//! A [`Table`] holds one kind of row. An entry is *active* when it was changed since the last
//! freeze, *frozen* while a checkpoint writes it, and *clean* otherwise: then it only repeats what
//! the base has (or that it has nothing), and goes when memory is short. Active and frozen
//! entries are *pinned*: they override the base, and scans merge them in.
//!
//! One entry serves all three states, because a checkpoint takes the values it writes with it: what
//! changes again meanwhile is only marked active again. So a read is one hash look-up, a failed
//! checkpoint is undone by marking its entries active, and nothing is copied when it succeeds.
//!
//! Used by `state.rs` alone. Hash order decides nothing: what is iterated is ordered.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::ops::Bound;

use crate::store::weigh::Weigh;

/// What an entry costs besides key and value.
const ENTRY_BYTES: usize = 96;

#[derive(Debug)]
struct Entry<V> {
    /// `None`: there is no such row.
    value: Option<V>,
    bytes: usize,
    active: bool,
    frozen: bool,
    /// Read since the clock last passed.
    touched: bool,
    /// In the clock's queue.
    queued: bool,
}

/// Rows of one kind.
#[derive(Debug)]
pub struct Table<K, V> {
    entries: HashMap<K, Entry<V>>,
    pinned: BTreeSet<K>,
    active: Vec<K>,
    frozen: Vec<K>,
    /// Clean entries, the next to be evicted first, unless they were touched: the clock algorithm.
    clock: VecDeque<K>,
    pinned_bytes: usize,
    clean_bytes: usize,
    clean_bytes_max: usize,
}

impl<K: Ord + Hash + Clone + Weigh, V: Clone + Weigh> Table<K, V> {
    /// An empty table that keeps up to `clean_bytes_max` bytes of clean entries.
    pub fn new(clean_bytes_max: usize) -> Table<K, V> {
        Table {
            entries: HashMap::new(),
            pinned: BTreeSet::new(),
            active: Vec::new(),
            frozen: Vec::new(),
            clock: VecDeque::new(),
            pinned_bytes: 0,
            clean_bytes: 0,
            clean_bytes_max,
        }
    }

    /// What memory says of a row: `None` = nothing, look into the base; `Some(None)` = there is none.
    pub fn get(&mut self, key: &K) -> Option<Option<V>> {
        let entry = self.entries.get_mut(key)?;
        entry.touched = true;
        Some(entry.value.clone())
    }

    /// Remembers what the base said, unless memory knows better.
    pub fn remember(&mut self, key: &K, value: Option<V>) {
        if self.entries.contains_key(key) {
            return;
        }
        let bytes = ENTRY_BYTES + key.weigh() + value.as_ref().map_or(0, Weigh::weigh);
        let entry =
            Entry { value, bytes, active: false, frozen: false, touched: false, queued: true };
        self.clean_bytes += bytes;
        self.clock.push_back(key.clone());
        self.entries.insert(key.clone(), entry);
        self.evict();
    }

    /// Writes (or with `None` removes) a row.
    pub fn put(&mut self, key: &K, value: Option<V>) {
        let bytes = ENTRY_BYTES + key.weigh() + value.as_ref().map_or(0, Weigh::weigh);
        match self.entries.get_mut(key) {
            Some(entry) => {
                let pinned = entry.active || entry.frozen;
                let total = if pinned { &mut self.pinned_bytes } else { &mut self.clean_bytes };
                *total -= entry.bytes;
                self.pinned_bytes += bytes;
                entry.value = value;
                entry.bytes = bytes;
                if !entry.active {
                    entry.active = true;
                    self.active.push(key.clone());
                }
                if !pinned {
                    self.pinned.insert(key.clone());
                }
            }
            None => {
                let entry = Entry {
                    value,
                    bytes,
                    active: true,
                    frozen: false,
                    touched: true,
                    queued: false,
                };
                self.pinned_bytes += bytes;
                self.active.push(key.clone());
                self.pinned.insert(key.clone());
                self.entries.insert(key.clone(), entry);
            }
        }
    }

    /// Pinned keys of a range, ascending, with their rows or `None` for removed ones.
    pub fn pinned(&self, range: (Bound<K>, Bound<K>)) -> impl Iterator<Item = (&K, Option<&V>)> {
        self.pinned.range(range).map(|key| (key, self.entries[key].value.as_ref()))
    }

    /// Whether anything changed since the last freeze.
    pub fn is_dirty(&self) -> bool {
        !self.active.is_empty()
    }

    /// Memory of entries that are not durable, in bytes.
    pub fn pinned_bytes(&self) -> usize {
        self.pinned_bytes
    }

    /// Memory of all entries, in bytes.
    pub fn bytes(&self) -> usize {
        self.pinned_bytes + self.clean_bytes
    }

    /// Hands out what changed since the last freeze, for a checkpoint to write.
    pub fn freeze(&mut self) -> Vec<(K, Option<V>)> {
        debug_assert!(self.frozen.is_empty(), "one checkpoint at a time");
        self.frozen = std::mem::take(&mut self.active);
        let mut rows = Vec::with_capacity(self.frozen.len());
        for key in &self.frozen {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.active = false;
                entry.frozen = true;
                rows.push((key.clone(), entry.value.clone()));
            }
        }
        rows
    }

    /// What was frozen is durable now.
    pub fn thaw(&mut self) {
        for key in std::mem::take(&mut self.frozen) {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.frozen = false;
            if entry.active {
                continue;
            }
            self.pinned_bytes -= entry.bytes;
            self.clean_bytes += entry.bytes;
            self.pinned.remove(&key);
            if !entry.queued {
                entry.queued = true;
                self.clock.push_back(key);
            }
        }
        self.evict();
    }

    /// What was frozen could not be written: it counts as changed again.
    pub fn unfreeze(&mut self) {
        for key in std::mem::take(&mut self.frozen) {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.frozen = false;
            if !entry.active {
                entry.active = true;
                self.active.push(key);
            }
        }
    }

    fn evict(&mut self) {
        while self.clean_bytes > self.clean_bytes_max {
            let Some(key) = self.clock.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.active || entry.frozen {
                entry.queued = false; // comes back when it is clean
            } else if std::mem::take(&mut entry.touched) {
                self.clock.push_back(key);
            } else {
                self.clean_bytes -= entry.bytes;
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for u32 {
        fn weigh(&self) -> usize {
            4
        }
    }

    fn pinned(table: &Table<u32, u32>) -> Vec<(u32, Option<u32>)> {
        let all = table.pinned((Bound::Unbounded, Bound::Unbounded));
        all.map(|(key, value)| (*key, value.copied())).collect()
    }

    #[test]
    fn a_row_changed_during_a_checkpoint_stays_pinned() {
        let mut table: Table<u32, u32> = Table::new(1 << 20);
        table.put(&1, Some(10));
        table.put(&2, Some(20));
        assert_eq!(table.freeze(), [(1, Some(10)), (2, Some(20))]);
        table.put(&1, None);
        assert_eq!(pinned(&table), [(1, None), (2, Some(20))]);
        table.thaw();
        assert_eq!(pinned(&table), [(1, None)]);
        assert_eq!(table.get(&2), Some(Some(20)));
        assert_eq!(table.freeze(), [(1, None)]);
        table.thaw();
        assert!(!table.is_dirty());
        assert_eq!(table.pinned_bytes(), 0);
        assert_eq!(table.get(&1), Some(None));
    }

    #[test]
    fn a_failed_checkpoint_is_written_again() {
        let mut table: Table<u32, u32> = Table::new(1 << 20);
        table.put(&1, Some(10));
        table.put(&2, Some(20));
        table.freeze();
        table.put(&2, Some(21));
        table.unfreeze();
        let mut rows = table.freeze();
        rows.sort_unstable();
        assert_eq!(rows, [(1, Some(10)), (2, Some(21))]);
    }

    #[test]
    fn clean_rows_are_bounded_and_the_read_ones_stay() {
        let mut table: Table<u32, u32> = Table::new(100 * 104);
        table.put(&0, Some(0));
        for key in 1..10_000u32 {
            table.remember(&key, Some(key));
            assert!(table.get(&1).is_some(), "read all the time");
            assert!(table.bytes() <= 101 * 104);
        }
        assert_eq!(table.get(&0), Some(Some(0)), "pinned");
        assert_eq!(table.get(&5000), None);
        assert_eq!(table.get(&9999), Some(Some(9999)));
        for key in 0..10_000u32 {
            table.put(&key, Some(1));
        }
        table.freeze();
        table.thaw();
        assert!(table.bytes() <= 100 * 104);
        assert!(table.clock.len() <= 200, "{}", table.clock.len());
    }
}
