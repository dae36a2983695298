//! Frees the memory of large bodies in steps.
//!
//! The system takes pages back at about 5 GB/s or less, so a body of 60 MB would hold up the other tasks of the thread for
//! more than ten milliseconds.

use bytes::Bytes;
use tokio::{runtime::Handle, task::yield_now};

use crate::wire::body::memory::pool::BodyPermit;

/// The number of bytes that are freed without a break.
const STEP: usize = 4 << 20;

/// Drops the pieces of a body of `length` bytes, and then its permit. If that takes long, a task of its own does it, and other
/// tasks run in between.
pub(super) fn drop_in_steps(pieces: Vec<Bytes>, length: usize, permit: Option<BodyPermit>) {
    if length <= STEP || pieces.is_empty() {
        return;
    }
    // Without a runtime there are no other tasks.
    let Ok(runtime) = Handle::try_current() else { return };
    runtime.spawn(async move {
        // The memory counts until it is free.
        let _permit = permit;
        let mut freed = 0;
        for piece in pieces {
            freed += piece.len();
            drop(piece);
            if freed >= STEP {
                freed = 0;
                yield_now().await;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::*;
    use crate::wire::{
        KeptBodyBuilder,
        body::memory::pool::{BodyMemory, MemoryLimits},
    };

    const MIB: usize = 1 << 20;

    /// A piece of a body that counts when it is freed.
    struct CountedPiece(Arc<AtomicUsize>);

    impl AsRef<[u8]> for CountedPiece {
        fn as_ref(&self) -> &[u8] {
            static BYTES: [u8; MIB] = [b'x'; MIB];
            &BYTES
        }
    }

    impl Drop for CountedPiece {
        fn drop(&mut self) {
            self.0.fetch_add(MIB, Relaxed);
        }
    }

    fn collected(mib: usize, freed: &Arc<AtomicUsize>) -> KeptBodyBuilder {
        let mut builder = KeptBodyBuilder::default();
        for _ in 0..mib {
            builder.push(Bytes::from_owner(CountedPiece(freed.clone())));
        }
        builder
    }

    /// The most bytes that were freed between two runs of another task, until all bytes are free.
    async fn longest_step(freed: &AtomicUsize, all: usize) -> usize {
        let (mut before, mut longest) = (0, 0);
        while before < all {
            let now = freed.load(Relaxed);
            longest = longest.max(now - before);
            before = now;
            yield_now().await;
        }
        longest
    }

    #[tokio::test]
    async fn other_tasks_run_while_a_large_body_is_freed() {
        let freed = Arc::default();
        let memory = BodyMemory::new(MemoryLimits {
            all: 100 * MIB,
            share: 100 * MIB,
        });
        let mut permit = BodyPermit::empty(&memory, Arc::default());
        assert!(memory.try_take(permit.account(), 60 * MIB));
        permit.add(60 * MIB);
        drop(collected(60, &freed).finish(Some(permit)));
        assert_eq!(memory.held(), 60 * MIB);
        assert!(longest_step(&freed, 60 * MIB).await <= STEP);
        yield_now().await;
        assert_eq!(memory.held(), 0);
    }

    #[tokio::test]
    async fn other_tasks_run_while_the_beginning_of_a_large_body_is_freed() {
        let freed = Arc::default();
        drop(collected(60, &freed));
        assert!(longest_step(&freed, 60 * MIB).await <= STEP);
    }

    #[test]
    fn without_a_runtime_a_body_is_freed_at_once() {
        let freed = Arc::default();
        drop(collected(8, &freed).finish(None));
        drop(collected(8, &freed));
        assert_eq!(freed.load(Relaxed), 16 * MIB);
    }

    #[tokio::test]
    async fn a_small_body_is_freed_at_once() {
        let freed = Arc::default();
        drop(collected(4, &freed).finish(None));
        assert_eq!(freed.load(Relaxed), 4 * MIB);
    }
}
