//! Counting of instructions and allocations.
//!
//! Callgrind counts the instructions. It starts and pauses at the two functions of this module (`--toggle-collect`). An
//! allocator that wraps the system's allocator counts the allocations of the thread that runs the workload. Other
//! threads, such as the log's writer, are not counted.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The counted allocations.
#[derive(Clone, Copy, Default)]
pub struct Allocations {
    /// The number of blocks allocated or resized.
    pub calls: u64,
    /// The number of bytes allocated; for a resized block the number of bytes by which it grew.
    pub bytes: u64,
}

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
    static BYTES: Cell<u64> = const { Cell::new(0) };
}

impl Allocations {
    /// Returns the allocations of this thread while counting was on.
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

/// The system's allocator with counting.
pub struct Counted;

// SAFETY: every call is passed to the system's allocator unchanged. The counting only writes to cells of this thread.
// They need neither initialization nor a destructor, so the counting does not allocate.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Allocations::add(layout.size());
        // SAFETY: the caller upholds the same contract that the system's allocator requires.
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

/// Runs `run` with counting on. The warm-up runs without this function.
#[inline(never)]
#[unsafe(no_mangle)]
pub fn counts_inside(run: &mut dyn FnMut()) {
    IS_COUNTED.set(true);
    run();
    IS_COUNTED.set(false);
}

/// Inside [`counts_inside`], runs `run` with counting off.
#[inline(never)]
#[unsafe(no_mangle)]
pub fn counts_outside(run: &mut dyn FnMut()) {
    IS_COUNTED.set(false);
    run();
    IS_COUNTED.set(true);
}
