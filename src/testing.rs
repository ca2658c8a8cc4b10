//! What unit tests of every layer share.

use proptest::sample::Index;

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Encoded bytes with one changed, and these cut short.
pub(crate) fn damaged(bytes: &[u8], at: Index, to: u8, cut: Index) -> [Vec<u8>; 2] {
    let mut changed = bytes.to_vec();
    if !changed.is_empty() {
        let at = at.index(changed.len());
        changed[at] = to;
    }
    let kept = cut.index(changed.len().max(1));
    let short = changed[..kept].to_vec();
    [changed, short]
}
