//! Counts that threads share without meeting.
//!
//! # The idea
//!
//! A counter that all threads add to is one cache line that travels from core to core, and waiting for it costs more
//! the more cores there are. So each thread adds to a block of its own, and whoever wants the total adds the blocks up:
//! counting is frequent, scraping is rare. (Java's `LongAdder` and the kernel's per-CPU counters do the same.)
//!
//! What is counted together stands together in one block, so that only blocks are padded, not counters, and a thread's
//! adds fall on lines that its core already holds. A block is made when its thread first counts: memory follows the
//! threads that there are, up to a bound. Beyond that many threads blocks are shared, which is slower and still right.
//!
//! # What a total is
//!
//! Every add is in exactly one block, and every block only grows, so totals never go back from one scrape to the next
//! and miss nothing that came before the scrape. A histogram that is scraped while threads observe may have an
//! observation in its buckets and not yet in its sum; the next scrape has both.

use std::{
    cell::Cell,
    sync::{
        OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::cache_padded::CachePadded;

/// Blocks of one [`Striped`] at most.
const STRIPES: usize = 64;

/// A `T` for each thread that asks for one. See the [module](self).
pub(super) struct Striped<T> {
    blocks: [OnceLock<Box<CachePadded<T>>>; STRIPES],
}

impl<T: Default> Striped<T> {
    pub fn new() -> Self {
        Self {
            blocks: [const { OnceLock::new() }; STRIPES],
        }
    }

    /// This thread's block. As a rule no other thread writes to it.
    pub fn mine(&self) -> &T {
        &self.blocks[stripe() % STRIPES].get_or_init(Box::default)
    }

    /// Every block that there is.
    pub fn blocks(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().filter_map(OnceLock::get).map(|block| &***block)
    }

    /// What the counters that `of` names, one in each block, have counted together.
    pub fn total(&self, of: impl Fn(&T) -> &AtomicU64) -> u64 {
        self.blocks().map(|block| of(block).load(Relaxed)).sum()
    }
}

/// This thread's number. Numbers are given in the order of threads' first counts, so that there are no two equal ones
/// among the first [`STRIPES`].
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Without a lazy initialiser reading it is one plain load.
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    let mine = MINE.get();
    if mine != usize::MAX {
        return mine;
    }
    let number = NEXT.fetch_add(1, Relaxed);
    MINE.set(number);
    number
}

/// Adds one. Relaxed: a count orders nothing else.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Adds some more.
pub(super) fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Relaxed);
}

/// Upper bounds of a histogram's buckets, in nanoseconds, rising. One more bucket takes what is above them all.
pub(super) type Bounds = &'static [u64];

/// Room for the longest bounds, and the bucket above them.
const BUCKETS: usize = 16;

/// The unit of sums is a tenth of a microsecond. In nanoseconds, 10,000 streams that are open all the time would
/// overflow a block's sum in three weeks; so they do in six years.
const SUM_UNIT: u64 = 100;
const UNITS_PER_SECOND: f64 = 1e7;
pub(super) const NANOS_PER_SECOND: f64 = 1e9;

/// One block's part of a histogram of durations.
pub(super) struct Histogram {
    bounds: Bounds,
    /// How many fell into each bucket alone; cumulated when they are read.
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// At most 15 `bounds`.
    pub fn new(bounds: Bounds) -> Self {
        debug_assert!(bounds.len() < BUCKETS && bounds.is_sorted());
        Self {
            bounds,
            buckets: Default::default(),
            sum: AtomicU64::new(0),
        }
    }

    pub fn observe(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // A bound belongs to the bucket below it.
        let at = self.bounds.partition_point(|bound| *bound < nanos);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum
            .fetch_add(nanos.saturating_add(SUM_UNIT / 2) / SUM_UNIT, Relaxed);
    }
}

/// A histogram's parts, added up.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Observed {
    /// How many observations were at most as long as each bound.
    pub cumulative: Vec<u64>,
    /// All observations.
    pub count: u64,
    /// In seconds.
    pub sum: f64,
}

impl Observed {
    pub fn add_up<'a>(bounds: Bounds, parts: impl Iterator<Item = &'a Histogram>) -> Self {
        let (mut buckets, mut sum) = ([0; BUCKETS], 0);
        for part in parts {
            for (bucket, counted) in buckets.iter_mut().zip(&part.buckets) {
                *bucket += counted.load(Relaxed);
            }
            sum += u128::from(part.sum.load(Relaxed));
        }
        let mut cumulative: Vec<u64> = buckets
            .iter()
            .take(bounds.len() + 1)
            .scan(0, |count, bucket| {
                *count += bucket;
                Some(*count)
            })
            .collect();
        Self {
            count: cumulative.pop().unwrap_or(0),
            cumulative,
            sum: sum as f64 / UNITS_PER_SECOND,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = &[10, 1_000, 1_000_000];

    #[test]
    fn threads_lose_no_count() {
        const THREADS: usize = STRIPES + 8;
        const EACH: u64 = 2_000;
        let (counts, start) = (Striped::<AtomicU64>::new(), Barrier::new(THREADS));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    (0..EACH).for_each(|_| count(counts.mine()));
                });
            }
        });
        assert_eq!(counts.total(|block| block), THREADS as u64 * EACH);
        assert!(counts.blocks().count() > 1);
    }

    #[test]
    fn totals_never_go_back() {
        let counts = Striped::<AtomicU64>::new();
        thread::scope(|scope| {
            let writers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..50_000).for_each(|_| count(counts.mine()))))
                .collect();
            let mut last = 0;
            while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
                let total = counts.total(|block| block);
                assert!(total >= last);
                last = total;
            }
        });
        assert_eq!(counts.total(|block| block), 200_000);
    }

    #[test]
    fn blocks_share_no_cache_line() {
        let counts = Striped::<AtomicU64>::new();
        let address = || std::ptr::from_ref(counts.mine()).addr();
        let (here, there) = (address(), thread::scope(|scope| scope.spawn(address).join().unwrap()));
        // Both are in one line only if the threads' numbers are a multiple of STRIPES apart.
        assert!(here.abs_diff(there) >= 128 || here == there);
        assert_eq!((here % 128, there % 128), (0, 0));
    }

    /// Around the bounds, and anywhere.
    fn nanos() -> impl Strategy<Value = u64> {
        prop_oneof![0..30u64, 900..1_100u64, 999_990..1_000_010u64, 0..u64::from(u32::MAX)]
    }

    proptest! {
        #[test]
        fn buckets_hold_what_is_at_most_their_bound(
            nanos in prop::collection::vec(nanos(), 0..100),
        ) {
            let parts = [Histogram::new(BOUNDS), Histogram::new(BOUNDS)];
            for (n, nanos) in nanos.iter().enumerate() {
                parts[n % 2].observe(Duration::from_nanos(*nanos));
            }
            let observed = Observed::add_up(BOUNDS, parts.iter());
            let up_to = |bound: u64| nanos.iter().filter(|nanos| **nanos <= bound).count() as u64;
            prop_assert_eq!(observed.cumulative, BOUNDS.iter().map(|bound| up_to(*bound)).collect::<Vec<_>>());
            prop_assert_eq!(observed.count, nanos.len() as u64);
            let sum = nanos.iter().sum::<u64>() as f64 / NANOS_PER_SECOND;
            let rounding = nanos.len() as f64 * 51e-9;
            prop_assert!((observed.sum - sum).abs() <= rounding, "{} is not {sum}", observed.sum);
        }
    }
}
