//! x
/// x
pub fn free_space(_d: &std::path::Path) -> std::io::Result<u64> {
    Ok(u64::MAX)
}
