//! Counters that many threads add to at the same time without contention.
//!
//! # The idea
//!
//! If all threads add to one counter, its cache line moves from core to core, and every add waits for it. The wait
//! grows with the number of cores. Here each thread adds to a block of its own, and a reader adds up the blocks:
//! requests count all the time, while a scrape comes every few seconds. Java's `LongAdder` and the per-CPU counters of
//! the Linux kernel do the same.
//!
//! Counters that are counted together share a block, so that the padding is paid per block and not per counter. A block
//! is allocated when its thread first counts. There are at most [`stripes`] blocks; further threads share blocks, which
//! is slower but still correct.
//!
//! # What a total is
//!
//! Every add goes to exactly one block and every counter only grows. A total therefore never decreases from one read to
//! the next, and contains every add that happened before the read.

use std::{
    cell::Cell,
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use crate::cache_padded::CachePadded;

/// The maximum number of blocks in one [`Striped`].
const MAX_STRIPES: usize = 64;

/// The number of counters in one [`CacheLine`].
const PER_LINE: usize = 16;

/// The unit that blocks are allocated in: 128 bytes that belong to one thread.
type CacheLine = CachePadded<[AtomicU64; PER_LINE]>;

/// A fixed number of counters that start at zero. See the [module](self).
pub(super) struct Striped {
    /// One block per stripe, allocated on its first use. The length is a power of two.
    blocks: Box<[OnceLock<Box<[CacheLine]>>]>,
    /// The number of lines in each block.
    lines: usize,
}

impl Striped {
    /// Makes `counters` counters, which are numbered from 0.
    pub fn new(counters: usize) -> Self {
        Self {
            blocks: (0..stripes()).map(|_| OnceLock::new()).collect(),
            lines: counters.div_ceil(PER_LINE),
        }
    }

    /// Returns the calling thread's block.
    #[inline]
    pub fn own_stripe(&self) -> Stripe<'_> {
        let at = thread_number() & (self.blocks.len() - 1);
        Stripe(self.blocks[at].get_or_init(|| (0..self.lines).map(|_| CacheLine::default()).collect()))
    }

    /// Returns the value of the counter numbered `counter` in each block.
    pub fn parts(&self, counter: usize) -> impl Iterator<Item = u64> {
        let blocks = self.blocks.iter().filter_map(OnceLock::get);
        blocks.map(move |block| Stripe(block).counter(counter).load(Relaxed))
    }

    /// Returns the value of the counter numbered `counter`.
    pub fn total(&self, counter: usize) -> u64 {
        self.parts(counter).sum()
    }
}

/// One thread's block of a [`Striped`].
#[derive(Clone, Copy)]
pub(super) struct Stripe<'a>(&'a [CacheLine]);

impl Stripe<'_> {
    /// Adds `more` to the counter numbered `counter`.
    #[inline]
    pub fn add(self, counter: usize, more: u64) {
        // Relaxed, because a count orders no other memory access.
        self.counter(counter).fetch_add(more, Relaxed);
    }
}

impl<'a> Stripe<'a> {
    #[inline]
    fn counter(self, counter: usize) -> &'a AtomicU64 {
        &self.0[counter / PER_LINE][counter % PER_LINE]
    }
}

/// Returns the number of stripes: twice the number of cores, rounded up to a power of two, at most [`MAX_STRIPES`].
///
/// No more threads than cores count at the same moment. The other half is for threads that count seldom, such as those
/// that reload the configuration, so that they seldom share the stripe of a thread that serves requests.
fn stripes() -> usize {
    static STRIPES: OnceLock<usize> = OnceLock::new();
    *STRIPES.get_or_init(|| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        (2 * cores).next_power_of_two().min(MAX_STRIPES)
    })
}

/// Returns the number of the calling thread. Threads are numbered in the order of their first counts.
#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // The initialiser is constant, so that a read is one plain load.
    thread_local! {
        static THREAD_NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    let mine = THREAD_NUMBER.get();
    if mine != usize::MAX {
        return mine;
    }
    let number = NEXT.fetch_add(1, Relaxed);
    THREAD_NUMBER.set(number);
    number
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn no_count_is_lost_when_threads_share_stripes() {
        const EACH: u64 = 2_000;
        let threads = stripes() + 8;
        let (counts, start) = (Striped::new(1), Barrier::new(threads));
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    start.wait();
                    (0..EACH).for_each(|_| counts.own_stripe().add(0, 1));
                });
            }
        });
        assert_eq!(counts.total(0), threads as u64 * EACH);
        assert!(counts.parts(0).count() > 1);
    }

    #[test]
    fn counters_of_one_block_are_independent() {
        let counts = Striped::new(PER_LINE + 1);
        (0..=PER_LINE).for_each(|counter| counts.own_stripe().add(counter, counter as u64));
        let totals: Vec<u64> = (0..=PER_LINE).map(|counter| counts.total(counter)).collect();
        assert_eq!(totals, (0..=PER_LINE as u64).collect::<Vec<_>>());
    }

    #[test]
    fn totals_never_decrease() {
        let counts = Striped::new(1);
        thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..50_000).for_each(|_| counts.own_stripe().add(0, 1))))
                .collect();
            let mut last = 0;
            while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
                let total = counts.total(0);
                assert!(total >= last);
                last = total;
            }
        });
        assert_eq!(counts.total(0), 200_000);
    }

    #[test]
    fn blocks_share_no_cache_line() {
        let counts = Striped::new(1);
        let address = || std::ptr::from_ref(counts.own_stripe().counter(0)).addr();
        let (here, there) = (address(), thread::scope(|scope| scope.spawn(address).join().unwrap()));
        // Both are in one block only if the threads' numbers are a multiple of the number of stripes apart.
        assert!(here.abs_diff(there) >= 128 || here == there);
        assert_eq!((here % 128, there % 128), (0, 0));
    }
}
