//! Scans over memory and base at once.
//!
//! Used by `reads.rs`: what is pinned in memory overrides what the base has.

/// A row of a merged scan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<V> {
    /// From memory.
    Pinned(V),
    /// From the base, still encoded: a scan must not read the base for the parts of a long row.
    Base(Vec<u8>),
}

/// Merges pinned rows over base rows that a scan visits in ascending order.
pub struct Merge<'a, K, V, I: Iterator<Item = (&'a K, Option<&'a V>)>>
where
    K: 'a,
    V: 'a,
{
    pinned: std::iter::Peekable<I>,
    rows: Vec<(K, Found<V>)>,
    limit: usize,
}

impl<'a, K: Ord + Clone, V: Clone, I: Iterator<Item = (&'a K, Option<&'a V>)>> Merge<'a, K, V, I> {
    /// Will take up to `limit` rows.
    pub fn new(pinned: I, limit: usize) -> Merge<'a, K, V, I> {
        Merge { pinned: pinned.peekable(), rows: Vec::new(), limit }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= self.limit
    }

    /// Takes a row of the base, unless a pinned one overrides it, after the pinned ones below it;
    /// says whether more are wanted.
    pub fn visit(&mut self, key: K, value: &[u8]) -> bool {
        while !self.is_full() {
            match self.pinned.peek() {
                Some((pinned, _)) if **pinned < key => self.take_pinned(),
                Some((pinned, _)) if **pinned == key => {
                    self.take_pinned();
                    return !self.is_full();
                }
                _ => {
                    self.rows.push((key, Found::Base(value.to_vec())));
                    return !self.is_full();
                }
            }
        }
        false
    }

    fn take_pinned(&mut self) {
        if let Some((key, Some(value))) = self.pinned.next() {
            self.rows.push((key.clone(), Found::Pinned(value.clone())));
        }
    }

    /// The merged rows, once the scan has ended.
    pub fn finish(mut self) -> Vec<(K, Found<V>)> {
        while !self.is_full() && self.pinned.peek().is_some() {
            self.take_pinned();
        }
        self.rows
    }
}
