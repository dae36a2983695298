//! What is counted, and when.
//!
//! Instructions are counted by callgrind, which is told the names of the two functions here at which it is to begin and
//! to pause (`--toggle-collect`). Allocations are counted by an allocator that wraps the system's, as the thread that runs
//! the work asks for them: what other threads do, such as the log's, is counted by neither.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// Memory that was asked for.
#[derive(Clone, Copy, Default)]
pub struct Allocations {
    /// Blocks asked for or resized.
    pub calls: u64,
    /// Bytes asked for; of a resized block what it grew by.
    pub bytes: u64,
}

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

impl Allocations {
    /// What this thread has asked for while it was counted.
    pub fn so_far() -> Self {
        Self {
            calls: CALLS.get(),
            bytes: BYTES.get(),
        }
    }

    fn add(bytes: usize) {
        if IS_COUNTED.get() {
            CALLS.set(CALLS.get() + 1);
            BYTES.set(BYTES.get() + bytes as u64);
        }
    }
}

/// The system's allocator, counted.
pub struct Counted;

// SAFETY: every call goes on to the system's allocator as it came. What is done beside it touches cells of this thread
// that need neither initialisation nor a destructor, so it cannot allocate.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Allocations::add(layout.size());
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Allocations::add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Allocations::add(size.saturating_sub(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Runs what is counted. Warm-up does without it.
#[inline(never)]
#[unsafe(no_mangle)]
pub fn counts_inside(run: &mut dyn FnMut()) {
    IS_COUNTED.set(true);
    run();
    IS_COUNTED.set(false);
}

/// Within [`counts_inside`]: runs what is not counted.
#[inline(never)]
#[unsafe(no_mangle)]
pub fn counts_outside(run: &mut dyn FnMut()) {
    IS_COUNTED.set(false);
    run();
    IS_COUNTED.set(true);
}
