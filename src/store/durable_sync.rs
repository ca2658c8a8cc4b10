//! Makes sled's `flush()` a real sync on Linux.
//!
//! sled 0.34 syncs its file with `sync_file_range`, which writes pages out but neither waits for the
//! disk's cache nor writes the metadata that finds them again: by its manual page "extremely
//! dangerous", and in our power cuts a store that also rewrites rows broke in 18 of 60. This module
//! defines the C symbol of that name as `fdatasync`, and the linker prefers a definition in the
//! binary over the C library's: 0 of 209. On other systems sled calls `sync_all` itself.
//!
//! Nobody calls this but sled (raft-engine syncs with `fdatasync`). Whoever opens a store checks that the
//! symbol is ours in the very binary that runs; `tests/power_cut/` holds that it helps.

#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "defining a symbol of the C library, and calling one")
)]

#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicU64, Ordering};

/// Syncs since the process started.
#[cfg(target_os = "linux")]
static CALLS: AtomicU64 = AtomicU64::new(0);

/// How often sled has synced through this module; always 0 where it need not.
pub fn calls() -> u64 {
    #[cfg(target_os = "linux")]
    return CALLS.load(Ordering::Relaxed);
    #[cfg(not(target_os = "linux"))]
    0
}

/// Refuses a binary in which the symbol is not ours, however it was linked.
///
/// # Errors
/// When what sled takes for a sync is none.
#[cfg_attr(not(target_os = "linux"), expect(clippy::unnecessary_wraps, reason = "as on Linux"))]
pub fn check() -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        let before = calls();
        // SAFETY: a descriptor that cannot exist.
        unsafe { libc::sync_file_range(-1, 0, 0, 0) };
        if calls() == before {
            let why = "this binary syncs with the C library's sync_file_range, which is no sync";
            return Err(std::io::Error::other(why));
        }
    }
    Ok(())
}

/// Syncs the whole file instead of a range, for good.
///
/// Same signature and contract as the C library's: 0, or -1 with `errno` set. A failure must reach
/// sled, so that its `flush()` fails.
// SAFETY: `no_mangle` is unsafe for it replaces the C library's symbol for the whole process. Whoever
// calls it gets more than was asked for: all of the file is on disk, rather than a range on its way.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
pub extern "C" fn sync_file_range(
    fd: libc::c_int,
    _offset: libc::off64_t,
    _nbytes: libc::off64_t,
    _flags: libc::c_uint,
) -> libc::c_int {
    CALLS.fetch_add(1, Ordering::Relaxed);
    loop {
        // SAFETY: takes a number, touches no memory, and reports a bad descriptor as EBADF.
        let result = unsafe { libc::fdatasync(fd) };
        // Interrupted, nothing has failed yet; sled would take it for a failure.
        if result == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return result;
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_flush_of_sled_arrives_here() {
        let dir = tempfile::tempdir().unwrap();
        let db = sled::Config::new().path(dir.path()).flush_every_ms(None).open().unwrap();
        let before = calls();
        db.insert("key", "value").unwrap();
        db.flush().unwrap();
        assert!(calls() > before, "sled's sync_file_range is not ours");
    }

    #[test]
    fn the_symbol_is_ours_however_it_is_found() {
        // SAFETY: a descriptor that cannot exist.
        let result = unsafe { libc::sync_file_range(-1, 0, 0, 0) };
        let error = std::io::Error::last_os_error();
        assert_eq!((result, error.raw_os_error()), (-1, Some(libc::EBADF)));
        check().unwrap();
    }
}
