//! Periodic maintenance: cooldowns, the retry budget, idle upstream connections and memory.

use std::{sync::Arc, time::Duration};

use super::memory::HeapWatch;
use crate::state::Gateway;

/// The interval between two rounds. Each round updates health and the retry budget.
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of rounds after which one round also closes idle upstream connections and returns memory.
const ROUNDS: u32 = 5;

/// Maintains `gateway` until the process ends: ends cooldowns that are over, closes upstream connections that were idle for too
/// long, and returns free memory to the system.
pub(super) async fn maintain(gateway: Arc<Gateway>) {
    let mut timer = tokio::time::interval(INTERVAL);
    let heap = Arc::new(HeapWatch::default());
    for round in (0..ROUNDS).cycle() {
        timer.tick().await;
        gateway.tick_second();
        if round != 0 {
            continue;
        }
        for upstream in gateway.snapshot().upstreams() {
            upstream.pool.reap();
        }
        heap.clone().check();
    }
}
