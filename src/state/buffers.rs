//! The room for request bodies, which a reload may grow or shrink while bodies stand in it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::Semaphore;

use crate::config;

/// One permit for each byte of request body that may be held.
pub(super) struct Buffers {
    permits: Arc<Semaphore>,
    bound: AtomicUsize,
    /// Permits above the bound, which are taken away as bodies let go of them.
    surplus: Arc<AtomicUsize>,
}

/// Room that is yet to be given up, since bodies stand in it.
#[must_use = "the bound holds only once this has been finished"]
pub struct Shrinking {
    permits: Arc<Semaphore>,
    surplus: Arc<AtomicUsize>,
    bytes: usize,
}

impl Buffers {
    /// Room for `server.buffered_bodies`.
    pub fn new(server: &config::ServerSettings) -> Self {
        let bound = bound(server);
        Self {
            permits: Arc::new(Semaphore::new(bound)),
            bound: AtomicUsize::new(bound),
            surplus: Arc::default(),
        }
    }

    pub fn permits(&self) -> &Arc<Semaphore> {
        &self.permits
    }

    /// Bytes held at this moment; while room is being given up, at most this many.
    pub fn held(&self) -> usize {
        let all = self.bound.load(Relaxed) + self.surplus.load(Relaxed);
        all.saturating_sub(self.permits.available_permits())
    }

    /// Makes room for `server.buffered_bodies`. What is free is given up at once, the rest by [`Shrinking::finish`]. One caller
    /// at a time.
    pub fn resize(&self, server: &config::ServerSettings) -> Option<Shrinking> {
        let bound = bound(server);
        let before = self.bound.swap(bound, Relaxed);
        if let Some(more) = bound.checked_sub(before) {
            self.permits.add_permits(more);
            return None;
        }
        let less = before - bound;
        let bytes = less - self.permits.forget_permits(less);
        self.surplus.fetch_add(bytes, Relaxed);
        (bytes > 0).then(|| Shrinking {
            permits: self.permits.clone(),
            surplus: self.surplus.clone(),
            bytes,
        })
    }
}

impl Shrinking {
    /// Gives the room up as bodies leave it. The semaphore is fair: whoever asks for room later gets it later.
    pub async fn finish(mut self) {
        while self.bytes > 0 {
            let part = u32::try_from(self.bytes).unwrap_or(u32::MAX);
            // It is closed never; were it, there would be no room to give up.
            let Ok(permits) = self.permits.acquire_many(part).await else {
                return;
            };
            permits.forget();
            self.bytes -= part as usize;
            self.surplus.fetch_sub(part as usize, Relaxed);
        }
    }
}

fn bound(server: &config::ServerSettings) -> usize {
    usize::try_from(server.buffered_bodies)
        .unwrap_or(usize::MAX)
        .min(Semaphore::MAX_PERMITS)
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
    fn what_is_held_is_given_up_when_it_is_let_go_before_anybody_else_gets_it() {
        let buffers = Buffers::new(&server(100));
        let take = |bytes| buffers.permits().clone().try_acquire_many_owned(bytes);
        let (first, second) = (take(60).unwrap(), take(30).unwrap());
        let mut shrinking = Box::pin(buffers.resize(&server(40)).unwrap().finish());
        assert!(!poll(shrinking.as_mut()));
        assert_eq!(buffers.held(), 90);
        drop(second);
        assert!(!poll(shrinking.as_mut()) && take(1).is_err(), "20 are still too many");
        drop(first);
        assert!(poll(shrinking.as_mut()));
        assert_eq!((buffers.held(), buffers.permits().available_permits()), (0, 40));
    }

    proptest! {
        /// However bounds change while bodies come and go, the room is the last bound's once all has settled, and bodies
        /// never take more than the largest bound since.
        #[test]
        fn the_last_bound_holds(steps in prop::collection::vec((0..4u8, 1..200usize), 1..60)) {
            let buffers = Buffers::new(&server(100));
            let mut bodies: Vec<OwnedSemaphorePermit> = Vec::new();
            let mut shrinking = Vec::new();
            let mut bound = 100;
            for (step, amount) in steps {
                match step {
                    0 => {
                        bound = amount;
                        shrinking.extend(buffers.resize(&server(bound)).map(|shrinking| Box::pin(shrinking.finish())));
                    }
                    1 if !bodies.is_empty() => drop(bodies.swap_remove(amount % bodies.len())),
                    _ => {
                        let held: usize = bodies.iter().map(OwnedSemaphorePermit::num_permits).sum();
                        let taken = buffers.permits().clone().try_acquire_many_owned(amount as u32);
                        let settled = shrinking.is_empty();
                        prop_assert!(taken.is_err() || held + amount <= bound);
                        prop_assert!(!settled || taken.is_ok() == (held + amount <= bound));
                        bodies.extend(taken);
                    }
                }
                shrinking.retain_mut(|shrinking| !poll(shrinking.as_mut()));
                let held: usize = bodies.iter().map(OwnedSemaphorePermit::num_permits).sum();
                prop_assert!(buffers.held() >= held);
                prop_assert!(!shrinking.is_empty() || buffers.held() == held);
            }
            bodies.clear();
            shrinking.retain_mut(|shrinking| !poll(shrinking.as_mut()));
            prop_assert!(shrinking.is_empty());
            prop_assert_eq!((buffers.held(), buffers.permits().available_permits()), (0, bound));
        }
    }
}
