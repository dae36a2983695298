//! The limit on bytes of request bodies in memory, which a reload may raise or lower while bodies are held.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::Semaphore;

use crate::config;

/// A semaphore with one permit for each byte of request bodies that may be held, whose number of permits can change.
pub(super) struct BufferLimit {
    permits: Arc<Semaphore>,
    /// The configured limit in bytes.
    limit: AtomicUsize,
    /// The number of permits above the limit. They are removed when the bodies that hold them release them.
    surplus: Arc<AtomicUsize>,
}

/// The rest of a change to a lower limit: permits that bodies still hold and that must be removed.
#[must_use = "the lower limit holds only after this has been finished"]
pub struct PendingShrink {
    permits: Arc<Semaphore>,
    surplus: Arc<AtomicUsize>,
    /// The number of permits that must still be removed.
    bytes: usize,
}

impl BufferLimit {
    /// A limit of `server.buffered_bodies` bytes.
    pub fn new(server: &config::ServerSettings) -> Self {
        let limit = limit(server);
        Self {
            permits: Arc::new(Semaphore::new(limit)),
            limit: AtomicUsize::new(limit),
            surplus: Arc::default(),
        }
    }

    /// The semaphore. It stays the same when the limit changes.
    pub fn permits(&self) -> &Arc<Semaphore> {
        &self.permits
    }

    /// The number of bytes that are held. While the limit is being lowered, this is an upper bound.
    pub fn held(&self) -> usize {
        let all = self.limit.load(Relaxed) + self.surplus.load(Relaxed);
        all.saturating_sub(self.permits.available_permits())
    }

    /// Changes the limit to `server.buffered_bodies` bytes. Free permits are removed at once, the others by
    /// [`PendingShrink::finish`]. The caller must not run this at the same time on two threads.
    pub fn resize(&self, server: &config::ServerSettings) -> Option<PendingShrink> {
        let limit = limit(server);
        let before = self.limit.swap(limit, Relaxed);
        if let Some(more) = limit.checked_sub(before) {
            self.permits.add_permits(more);
            return None;
        }
        let less = before - limit;
        let bytes = less - self.permits.forget_permits(less);
        self.surplus.fetch_add(bytes, Relaxed);
        (bytes > 0).then(|| PendingShrink {
            permits: self.permits.clone(),
            surplus: self.surplus.clone(),
            bytes,
        })
    }
}

impl PendingShrink {
    /// Removes the permits as bodies release them. The semaphore is fair: a request that asks for permits later gets
    /// them later.
    pub async fn finish(mut self) {
        while self.bytes > 0 {
            let part = u32::try_from(self.bytes).unwrap_or(u32::MAX);
            let permits = self.permits.acquire_many(part).await;
            permits.expect("the semaphore is never closed").forget();
            self.bytes -= part as usize;
            self.surplus.fetch_sub(part as usize, Relaxed);
        }
    }
}

/// A limit above the maximum of a semaphore is reduced to that maximum, which no machine can reach.
fn limit(server: &config::ServerSettings) -> usize {
    let limit = usize::try_from(server.buffered_bodies).unwrap_or(usize::MAX);
    limit.min(Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll};

    use proptest::prelude::*;
    use tokio::sync::OwnedSemaphorePermit;

    use super::*;

    fn server(bytes: usize) -> config::ServerSettings {
        config::ServerSettings {
            buffered_bodies: bytes as u64,
            ..config::ServerSettings::default()
        }
    }

    fn poll(future: impl Future) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        matches!(pin!(future).poll(&mut context), Poll::Ready(_))
    }

    #[test]
    fn released_permits_are_removed_before_another_request_gets_them() {
        let buffer_limit = BufferLimit::new(&server(100));
        let take = |bytes| buffer_limit.permits().clone().try_acquire_many_owned(bytes);
        let (first, second) = (take(60).unwrap(), take(30).unwrap());
        let mut shrinking = Box::pin(buffer_limit.resize(&server(40)).unwrap().finish());
        assert!(!poll(shrinking.as_mut()));
        assert_eq!(buffer_limit.held(), 90);
        drop(second);
        assert!(!poll(shrinking.as_mut()) && take(1).is_err(), "20 are still too many");
        drop(first);
        assert!(poll(shrinking.as_mut()));
        assert_eq!(
            (buffer_limit.held(), buffer_limit.permits().available_permits()),
            (0, 40)
        );
    }

    proptest! {
        /// The limit changes while bodies come and go. When every change has finished, the last limit holds; until then
        /// bodies never take more than the largest limit since.
        #[test]
        fn the_last_limit_holds(steps in prop::collection::vec((0..4u8, 1..200usize), 1..60)) {
            let buffer_limit = BufferLimit::new(&server(100));
            let mut bodies: Vec<OwnedSemaphorePermit> = Vec::new();
            let mut shrinking = Vec::new();
            let mut limit = 100;
            for (step, amount) in steps {
                match step {
                    0 => {
                        limit = amount;
                        shrinking.extend(buffer_limit.resize(&server(limit)).map(|shrinking| Box::pin(shrinking.finish())));
                    }
                    1 if !bodies.is_empty() => drop(bodies.swap_remove(amount % bodies.len())),
                    _ => {
                        let held: usize = bodies.iter().map(OwnedSemaphorePermit::num_permits).sum();
                        let taken = buffer_limit.permits().clone().try_acquire_many_owned(amount as u32);
                        let is_finished = shrinking.is_empty();
                        prop_assert!(taken.is_err() || held + amount <= limit);
                        prop_assert!(!is_finished || taken.is_ok() == (held + amount <= limit));
                        bodies.extend(taken);
                    }
                }
                shrinking.retain_mut(|shrinking| !poll(shrinking.as_mut()));
                let held: usize = bodies.iter().map(OwnedSemaphorePermit::num_permits).sum();
                prop_assert!(buffer_limit.held() >= held);
                prop_assert!(!shrinking.is_empty() || buffer_limit.held() == held);
            }
            bodies.clear();
            shrinking.retain_mut(|shrinking| !poll(shrinking.as_mut()));
            prop_assert!(shrinking.is_empty());
            prop_assert_eq!((buffer_limit.held(), buffer_limit.permits().available_permits()), (0, limit));
        }
    }
}
