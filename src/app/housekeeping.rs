//! Periodic maintenance: cooldowns, the retry budget, idle upstream connections and memory.

use std::{sync::Arc, thread, time::Duration};

use crate::state::Gateway;

/// The interval between two rounds. Each round updates health and the retry budget.
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of rounds after which one round also closes idle upstream connections and returns memory.
const ROUNDS: u32 = 5;
/// Memory is returned to the system only after a peak of at least this many connections. Fewer connections free too
/// little memory for the effort.
const PEAK: usize = 64;

/// Maintains `gateway` until the process ends: ends cooldowns that are over, closes upstream connections that were idle for too
/// long, and returns memory to the system after the number of connections has halved.
pub(super) async fn maintain(gateway: Arc<Gateway>) {
    let mut timer = tokio::time::interval(INTERVAL);
    let mut peak = 0;
    for round in (0..ROUNDS).cycle() {
        timer.tick().await;
        gateway.tick_second();
        if round != 0 {
            continue;
        }
        for upstream in gateway.snapshot().upstreams() {
            upstream.pool.reap();
        }
        let open = gateway.connections.open();
        peak = open.max(peak);
        if peak >= PEAK && open <= peak / 2 {
            peak = open;
            // This walks the whole heap, which takes milliseconds after a peak. Tokio would panic where the system has no thread
            // left, and the maintenance would end.
            if let Err(error) = thread::Builder::new().name("trim".to_owned()).spawn(return_memory) {
                tracing::warn!(%error, "no thread to return memory to the system");
            }
        }
    }
}

/// The number of freed bytes that the allocator keeps at the top of the heap. Bodies are allocated and freed all the time, and a
/// page that was returned to the system has to be cleared before it is used again.
#[cfg(target_env = "gnu")]
const TRIM_THRESHOLD: libc::c_int = 16 << 20;
/// The size in bytes from which a block is mapped separately, and returned to the system when it is freed. Read buffers are
/// smaller.
#[cfg(target_env = "gnu")]
const MMAP_THRESHOLD: libc::c_int = 1 << 20;

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

/// Returns free memory to the system. Without this, glibc keeps all free memory below the highest block in use, and a single
/// long-lived connection can own that block.
#[cfg(target_env = "gnu")]
fn return_memory() {
    // SAFETY: malloc_trim takes no pointer and may be called at any time from any thread (malloc_trim(3): MT-Safe).
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn return_memory() {}
