//! What has to be done now and then.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::state::Gateway;

/// How often somebody looks after health and the retry budget,
const EVERY: Duration = Duration::from_secs(1);
/// and in how many of these rounds once after connections and memory.
const ROUNDS: u32 = 5;
/// A crowd of fewer connections leaves nothing behind that is worth a search.
const CROWD: usize = 64;

/// Keeps gateway until the process ends: sees cooldowns off, closes idle upstream connections that grew old, and gives memory back once a
/// crowd of connections has gone.
pub(super) async fn keep_house(gateway: Arc<Gateway>) {
    let mut timer = tokio::time::interval(EVERY);
    let mut most = 0;
    for round in (0..ROUNDS).cycle() {
        timer.tick().await;
        gateway.tick_second();
        if round != 0 {
            continue;
        }
        for upstream in gateway.snapshot().upstreams() {
            upstream.pool.reap();
        }
        let open = gateway.connections.load(Ordering::Relaxed);
        most = open.max(most);
        if most >= CROWD && open <= most / 2 {
            most = open;
            // It walks the whole heap, which takes milliseconds where there was a crowd.
            let _ = tokio::task::spawn_blocking(give_memory_back).await;
        }
    }
}

/// What a thread has freed stays with it up to this many bytes: bodies come and go, and each page that went back to the
/// system is cleared before it comes again.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 16 << 20;
/// From this size on, a block comes from the system by itself, and goes back at once. Read buffers are smaller.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;

/// Sets up the allocator, before there are threads.
#[cfg(target_env = "gnu")]
pub(super) fn set_up_memory() {
    // SAFETY: mallopt takes no pointer, and nothing else runs yet (mallopt(3): not safe beside other threads' first use).
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

#[cfg(not(target_env = "gnu"))]
pub(super) fn set_up_memory() {}

/// glibc keeps what lies below the highest block in use, which one long-lived connection can be, for ever.
#[cfg(target_env = "gnu")]
fn give_memory_back() {
    // SAFETY: malloc_trim takes no pointer and may be called at any time from any thread (malloc_trim(3): MT-Safe).
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn give_memory_back() {}
