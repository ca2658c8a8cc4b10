//! Fuzzes whatever decodes bytes from a disk or a peer.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use folkmoot_fuzz::stored;
use libfuzzer_sys::fuzz_target;

/// What one allocation may take whatever the input is, in bytes: a block may be 4 MiB once it is unpacked.
const ALWAYS_MAX: usize = 8 * 1024 * 1024;
/// And for each byte of the input.
const PER_BYTE_MAX: usize = 256;

/// The largest allocation since it was last set to 0.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

// SAFETY: everything is the system's; sizes are only looked at.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

fuzz_target!(|data: &[u8]| {
    LARGEST.store(0, Ordering::Relaxed);
    stored::run(data);
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest <= ALWAYS_MAX + PER_BYTE_MAX * data.len(), "{largest} bytes at once");
});
