//! Closes idle connections to upstreams if this process has no file descriptors or no memory left.
//!
//! Descriptors belong to the process, so the pools of all upstreams are listed in one place, whichever configuration opened
//! them. The connections that have been idle for the longest time are closed first: they are the least likely to be used
//! again.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::time::Instant;

/// The number of connections that are closed at once. A name lookup needs several descriptors, and other requests that
/// wait for descriptors then find some.
const BATCH: usize = 16;

/// Keeps idle connections to an upstream.
pub(in crate::wire) trait IdleHolder: Send + Sync {
    /// Adds the times since which the connections have been idle to `times`.
    fn list_idle(&self, times: &mut Vec<Instant>);

    /// Closes the connections that have been idle since `until` or for longer. Returns their number.
    fn close_idle_since(&self, until: Instant) -> usize;
}

/// The pools of this process.
static POOLS: IdleHolders = IdleHolders(Mutex::new(Vec::new()));

/// Lists a pool, whose idle connections may be closed from now on.
pub(in crate::wire) fn register<H: IdleHolder + 'static>(pool: &Arc<H>) {
    POOLS.add(pool);
}

/// Closes the connections of this process that have been idle for the longest time. Returns their number. The descriptor of
/// an HTTP/2 connection is free only after a moment.
pub(in crate::wire) fn close_oldest() -> usize {
    let closed = POOLS.close_oldest(BATCH);
    if closed > 0 {
        tracing::debug!(
            closed,
            "closed idle connections to upstreams, because this process lacks resources"
        );
    }
    closed
}

/// A list of pools.
struct IdleHolders(Mutex<Vec<Weak<dyn IdleHolder>>>);

impl IdleHolders {
    fn add<H: IdleHolder + 'static>(&self, pool: &Arc<H>) {
        let added: Weak<dyn IdleHolder> = Arc::downgrade(pool) as Weak<dyn IdleHolder>;
        let mut pools = self.0.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(added);
    }

    /// Closes about `count` connections, more if several became idle at the same moment.
    fn close_oldest(&self, count: usize) -> usize {
        // The lock is not held while connections are closed.
        let pools: Vec<Arc<dyn IdleHolder>> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        let mut times = Vec::new();
        pools.iter().for_each(|pool| pool.list_idle(&mut times));
        let Some(last) = times.len().min(count).checked_sub(1) else {
            return 0;
        };
        let (_, until, _) = times.select_nth_unstable(last);
        let until = *until;
        pools.iter().map(|pool| pool.close_idle_since(until)).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct ScriptedPool(Mutex<Vec<Instant>>);

    impl ScriptedPool {
        fn idle_for(seconds: &[u64]) -> Arc<Self> {
            let since = |seconds: &u64| Instant::now() - Duration::from_secs(*seconds);
            Arc::new(Self(Mutex::new(seconds.iter().map(since).collect())))
        }

        fn ages(&self) -> Vec<u64> {
            self.0.lock().iter().map(|since| since.elapsed().as_secs()).collect()
        }
    }

    impl IdleHolder for ScriptedPool {
        fn list_idle(&self, times: &mut Vec<Instant>) {
            times.extend(self.0.lock().iter());
        }

        fn close_idle_since(&self, until: Instant) -> usize {
            let mut idle = self.0.lock();
            let before = idle.len();
            idle.retain(|since| *since > until);
            before - idle.len()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_connections_of_all_pools_are_closed() {
        let pools = IdleHolders(Mutex::default());
        assert_eq!(pools.close_oldest(2), 0);
        // Instants cannot lie before the start of the clock.
        tokio::time::advance(Duration::from_secs(1_000)).await;
        let (a, b) = (ScriptedPool::idle_for(&[50, 30, 10]), ScriptedPool::idle_for(&[40, 20]));
        pools.add(&a);
        pools.add(&b);
        assert_eq!(pools.close_oldest(2), 2);
        assert_eq!((a.ages(), b.ages()), (vec![30, 10], vec![20]));
        assert_eq!(pools.close_oldest(1), 1);
        assert_eq!((a.ages(), b.ages()), (vec![10], vec![20]));
        drop(b);
        assert_eq!(pools.close_oldest(9), 1);
        assert_eq!(pools.close_oldest(9), 0);
    }
}
