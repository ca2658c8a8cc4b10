//! What unit tests of every layer share.

use std::io::Write;

use proptest::sample::Index;

/// Says something past the test harness, which hides what a test prints unless it fails; as
/// `say!` in tests/common does.
pub(crate) fn say(line: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    std::io::stderr().write_all(format!("{test}: {line}\n").as_bytes()).unwrap();
}

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
