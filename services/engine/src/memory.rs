//! Counts the bytes that this module has allocated. quinn-proto does not say what a connection
//! buffers, so what it allocates is counted while it works.

#![expect(unsafe_code, reason = "an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with a count.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// Bytes that are allocated now; only differences count.
pub fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

/// The caller has Python's lock, so no other thread counts meanwhile, and this need not be atomic.
fn count(change: usize) {
    ALLOCATED.store(allocated().wrapping_add(change), Ordering::Relaxed);
}

// SAFETY: each method passes on what it got to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        count(layout.size().wrapping_neg());
        unsafe { System.dealloc(data, layout) }
    }

    unsafe fn realloc(&self, data: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.wrapping_sub(layout.size()));
        unsafe { System.realloc(data, layout, size) }
    }
}
