//! Returns free memory to the system.
//!
//! glibc keeps all free memory of a heap below the highest block in use, and a single long-lived connection can own that
//! block. So the memory of bodies that are gone stays resident, unless [`malloc_trim`](libc::malloc_trim) returns it. That
//! walks all heaps, and the memory has to be cleared before it is used again. So it is done only when it is worth the effort,
//! and under steady load, where the memory is soon needed again, ever more rarely.

use std::{sync::Arc, thread};

use parking_lot::Mutex;

#[cfg(target_env = "gnu")]
use crate::wire::KeptBodyBuilder;

/// The number of free bytes that are worth to be returned.
const WORTH: i64 = 4 << 20;
/// The maximum number of checks that are left out after memory was returned that was needed again. The checks are five
/// seconds apart, so free memory is returned within 30 seconds in any case.
const MAX_PAUSE: u32 = 3;
/// The number of checks after which memory that could not be returned is tried again. The blocks around it may be gone.
const RETRY: u32 = 12;

/// Watches the free memory that is resident, and returns it to the system.
#[derive(Default)]
pub(super) struct HeapWatch(Mutex<TrimPolicy>);

impl HeapWatch {
    /// Returns free memory to the system if there is enough of it. Must be called every five seconds. It works on a thread of its
    /// own, because it can take milliseconds after a peak.
    pub fn check(self: Arc<Self>) {
        let Some(resident) = resident_bytes() else { return };
        if !self.0.lock().is_suspected(resident) {
            return;
        }
        // Tokio would panic where the system has no thread left, and the maintenance would end.
        let thread = thread::Builder::new().name("trim".to_owned());
        if let Err(error) = thread.spawn(move || self.trim()) {
            tracing::warn!(%error, "no thread to return memory to the system");
        }
    }

    fn trim(&self) {
        let (Some(resident), Some(unused)) = (resident_bytes(), unused_bytes()) else {
            return;
        };
        if !self.0.lock().is_due(unused) {
            return;
        }
        return_memory();
        if let (Some(left), Some(unused)) = (resident_bytes(), unused_bytes()) {
            let returned = resident.saturating_sub(left);
            tracing::debug!(returned, resident = left, "free memory was returned to the system");
            self.0.lock().record(returned, unused);
        }
    }
}

/// Decides when free memory is returned. All sizes are in bytes.
///
/// The unused memory is the resident memory less the memory in use. It is compared with its own smallest value only: stacks
/// are resident and not counted as in use, and a large table is in use before it is resident.
#[derive(Debug, Default)]
struct TrimPolicy {
    /// The smallest resident memory so far; `None` before the first check.
    resident: Option<u64>,
    /// The smallest unused memory so far.
    unused: Option<i64>,
    /// The unused memory that could not be returned the last time, because it lies between blocks in use.
    stuck: Option<i64>,
    /// The number of checks to leave out.
    pause: u32,
    /// The number of checks that were left out after the last return.
    last_pause: u32,
    /// The number of checks since the last return.
    checks: u32,
}

impl TrimPolicy {
    /// Whether so much memory is resident that some of it may be free. At the first check, and after the resident memory has
    /// fallen, the unused memory has to be measured too. This costs little to find out, unlike [`Self::is_due`].
    fn is_suspected(&mut self, resident: u64) -> bool {
        let has_fallen = self.resident.is_none_or(|least| resident < least);
        let least = self.resident.map_or(resident, |least| least.min(resident));
        self.resident = Some(least);
        self.checks = self.checks.saturating_add(1);
        if self.checks > RETRY {
            self.stuck = None;
        }
        if self.pause > 0 {
            self.pause -= 1;
            return false;
        }
        has_fallen || resident >= least.saturating_add(WORTH as u64)
    }

    /// Whether memory should be returned now, while `unused` bytes are resident and not in use.
    fn is_due(&mut self, unused: i64) -> bool {
        let least = self.unused.map_or(unused, |least| least.min(unused));
        self.unused = Some(least);
        self.stuck = self.stuck.map(|stuck| stuck.min(unused));
        unused >= self.stuck.unwrap_or(least).saturating_add(WORTH)
    }

    /// Records that `returned` bytes were returned, and that `unused` bytes are left that are not in use.
    fn record(&mut self, returned: u64, unused: i64) {
        self.stuck = (returned < WORTH as u64 / 2).then_some(unused);
        // Memory that was soon needed again will probably be needed again soon.
        self.last_pause = match self.checks <= self.last_pause + 2 {
            true => (self.last_pause + 1).min(MAX_PAUSE),
            false => 0,
        };
        self.pause = self.last_pause;
        self.checks = 0;
    }
}

/// The number of freed bytes that the allocator keeps at the top of the heap. Bodies are allocated and freed all the time, and a
/// page that was returned to the system has to be cleared before it is used again.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD: libc::c_int = 16 << 20;
/// The size in bytes from which a block is mapped separately, and returned to the system when it is freed. The blocks of large
/// bodies are that large. Read buffers are smaller.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: libc::c_int = KeptBodyBuilder::MAPPED_BLOCK as libc::c_int;

/// Configures the allocator. Must be called before the process has other threads.
#[cfg(target_env = "gnu")]
pub(super) fn configure_allocator() {
    // SAFETY: mallopt takes no pointer, and there are no other threads yet (mallopt(3): unsafe during their first allocation).
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
    }
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn configure_allocator() {}

/// The memory of the process that no file backs, as far as it is resident. `None` if the system does not tell, or if the
/// allocator cannot return memory.
#[cfg(target_env = "gnu")]
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    // SAFETY: sysconf takes no pointer.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    Some(resident.saturating_sub(shared) * u64::try_from(page).ok()?)
}

#[cfg(not(target_env = "gnu"))]
fn resident_bytes() -> Option<u64> {
    None
}

/// The resident memory less the memory that the allocator has given out.
#[cfg(target_env = "gnu")]
fn unused_bytes() -> Option<i64> {
    // SAFETY: mallinfo2 takes no pointer, and locks each heap that it reads (mallinfo(3): unsafe only beside mallopt, which is
    // called once, before there are other threads).
    let heap = unsafe { libc::mallinfo2() };
    let used = i64::try_from(heap.uordblks + heap.hblkhd).ok()?;
    Some(i64::try_from(resident_bytes()?).ok()? - used)
}

#[cfg(not(target_env = "gnu"))]
fn unused_bytes() -> Option<i64> {
    None
}

#[cfg(target_env = "gnu")]
fn return_memory() {
    // SAFETY: malloc_trim takes no pointer and may be called at any time from any thread (malloc_trim(3): MT-Safe).
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn return_memory() {}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    /// The size of tables that are in use and not yet resident.
    const UNTOUCHED: i64 = 50 << 20;

    /// A process that uses `used` bytes, of which the allocator has `free` bytes more, and can return all of them but `stuck`.
    struct Process {
        policy: TrimPolicy,
        used: u64,
        free: u64,
        stuck: u64,
        returns: u32,
    }

    impl Process {
        fn new() -> Self {
            let mut process = Self {
                policy: TrimPolicy::default(),
                used: 20 * MIB,
                free: 0,
                stuck: 0,
                returns: 0,
            };
            assert_eq!(process.checks(1), 0);
            process
        }

        fn checks(&mut self, count: u32) -> u32 {
            let before = self.returns;
            for _ in 0..count {
                let unused = |free: u64| i64::try_from(free).expect("a size") - UNTOUCHED;
                if self.policy.is_suspected(self.used + self.free) && self.policy.is_due(unused(self.free)) {
                    let left = self.free.min(self.stuck);
                    self.policy.record(self.free - left, unused(left));
                    self.free = left;
                    self.returns += 1;
                }
            }
            self.returns - before
        }
    }

    #[test]
    fn memory_of_bodies_that_are_gone_is_returned_once() {
        let mut process = Process::new();
        process.free = 60 * MIB;
        assert_eq!((process.checks(1), process.free), (1, 0));
        assert_eq!(process.checks(100), 0);
    }

    #[test]
    fn memory_that_is_in_use_at_a_check_is_returned_after_its_use() {
        let mut process = Process::new();
        process.used += 480 * MIB;
        assert_eq!(process.checks(10), 0);
        (process.used, process.free) = (20 * MIB, 480 * MIB);
        assert_eq!((process.checks(1), process.free), (1, 0));
    }

    #[test]
    fn a_little_free_memory_stays_with_the_allocator() {
        let mut process = Process::new();
        process.free = 4 * MIB - 1;
        assert_eq!(process.checks(100), 0);
    }

    #[test]
    fn memory_between_blocks_in_use_is_tried_rarely() {
        let mut process = Process::new();
        (process.free, process.stuck) = (100 * MIB, 40 * MIB);
        assert_eq!((process.checks(1), process.free), (1, 40 * MIB));
        assert!(process.checks(120) <= 120 / RETRY + 1);
        process.free += 16 * MIB;
        assert!(process.checks(MAX_PAUSE + 1) >= 1);
        assert_eq!(process.free, 40 * MIB);
        // The blocks that kept the memory are gone.
        process.stuck = 0;
        assert!(process.checks(RETRY + MAX_PAUSE + 1) >= 1);
        assert_eq!(process.free, 0);
    }

    #[test]
    fn memory_that_is_freed_while_memory_is_returned_is_returned_later() {
        let mut process = Process::new();
        (process.used, process.free) = (100 * MIB, 40 * MIB);
        assert_eq!((process.checks(1), process.free), (1, 0));
        // The resident memory stays the same.
        (process.used, process.free) = (20 * MIB, 80 * MIB);
        assert_eq!((process.checks(MAX_PAUSE + 1), process.free), (1, 0));
    }

    #[test]
    fn under_steady_load_memory_is_returned_ever_more_rarely_and_at_the_end_within_30_seconds() {
        let mut process = Process::new();
        for _ in 0..120 {
            process.free = 200 * MIB;
            process.checks(1);
        }
        assert!(process.returns <= 120 / (MAX_PAUSE + 1) + 3, "{}", process.returns);
        process.free = 200 * MIB;
        assert_eq!(process.checks(MAX_PAUSE + 1), 1);
        assert_eq!(process.free, 0);
        // A new peak long after that does not wait.
        process.checks(20);
        process.free = 60 * MIB;
        assert_eq!(process.checks(1), 1);
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn the_memory_of_this_process_is_measured() {
        let before = resident_bytes().expect("/proc is mounted");
        let block = vec![1_u8; 64 << 20];
        let after = resident_bytes().expect("/proc is mounted");
        assert!(after >= before + (32 << 20), "{before} {after} {}", block.len());
        assert!(unused_bytes().is_some());
    }
}
