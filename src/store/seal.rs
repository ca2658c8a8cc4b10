//! The seal of a base: a sum over all of its rows, kept in a row of its own.
//!
//! sled checks each page that it reads. But a page whose latest write it cannot read when it opens
//! its file is, without a word, an earlier one, or none: a flipped bit takes rows away that nobody
//! misses. So every batch moves the seal along in the same atomic write (`sled_base.rs`), and
//! opening compares it with the rows that are there. A crash goes back to an earlier batch, seal and
//! all; damage does not.
//!
//! The sum does not depend on order, so a batch costs only its own rows: it takes the hashes of the
//! old values off and adds those of the new.

/// The seal's key: no shard has this number, so no range that anybody asks for has it.
pub(super) const KEY: &[u8] = b"\xff\xffseal";

const VERSION: u8 = 1;

/// The sum over some rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seal(u128);

impl Seal {
    /// With this row, too.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_add(hash(key, value));
    }

    /// Without this row.
    pub fn take_off(&mut self, key: &[u8], value: &[u8]) {
        self.0 = self.0.wrapping_sub(hash(key, value));
    }

    /// The value of the seal's row.
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.0.to_be_bytes());
        bytes
    }

    /// What a row says; `None` when it is not a seal's.
    pub fn decode(value: &[u8]) -> Option<Seal> {
        let (version, sum) = value.split_first()?;
        let sum = u128::from_be_bytes(sum.try_into().ok()?);
        (*version == VERSION).then_some(Seal(sum))
    }
}

fn hash(key: &[u8], value: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    // The length tells where the key ends.
    hasher.update(&(key.len() as u64).to_be_bytes()).update(key).update(value);
    let mut first = [0; 16];
    hasher.finalize_xof().fill(&mut first);
    u128::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_says_which_rows_there_are_and_not_in_which_order() {
        let rows: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"b", b"2"), (b"ab", b"")];
        let sum = |order: &[usize]| {
            let mut seal = Seal::default();
            order.iter().for_each(|row| seal.add(rows[*row].0, rows[*row].1));
            seal
        };
        assert_eq!(sum(&[0, 1, 2]), sum(&[2, 0, 1]));
        assert_ne!(sum(&[0, 1]), sum(&[0, 2]));
        let mut seal = sum(&[0, 1, 2]);
        seal.take_off(b"ab", b"");
        assert_eq!(seal, sum(&[1, 0]));
        // The same bytes, otherwise divided.
        seal.take_off(b"a", b"1");
        seal.add(b"a1", b"");
        assert_ne!(seal, sum(&[1, 0]));
    }

    #[test]
    fn the_row_is_as_it_was_written_first() {
        let mut seal = Seal::default();
        seal.add(b"key", b"value");
        let row = "01209d3f6cbae8c7a65ce7a92af7087581";
        let hex: String = seal.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, row, "what nodes have on disk must stay readable");
        assert_eq!(Seal::decode(&seal.encode()), Some(seal));
        assert_eq!(Seal::decode(b""), None);
        assert_eq!(Seal::decode(&[2; 17]), None);
        assert_eq!(Seal::decode(&[1; 16]), None);
    }
}
