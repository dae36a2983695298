//! The kinds of metric families that requests count in.
//!
//! Each family contains its name, its help text and its labels, and its own [striped](super::super::striped) counters.

use std::{marker::PhantomData, time::Duration};

use super::{
    exposition::{Description, Distribution, Exposition, Labels},
    labels::LabelSet,
};
use crate::{scan::Usage, state::striped::Striped};

/// A metric family, as a scrape reads it.
pub(super) trait Family {
    /// Adds the time series of this family to `exposition`, each with the labels in `shared` beside its own.
    fn expose(&self, shared: Labels<'_>, exposition: &mut Exposition);
}

/// Whether a scrape shows a combination of labels that has not occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zeros {
    /// Every combination is shown from the start, so that `rate()` sees the first increase.
    Shown,
    /// Only combinations that have occurred are shown, because most of them never do.
    Hidden,
}

/// A family of counters, one for each combination of the labels `L`.
pub struct Counter<L> {
    description: Description,
    zeros: Zeros,
    counts: Striped,
    labels: PhantomData<fn(L)>,
}

impl<L: LabelSet> Counter<L> {
    pub(super) fn new(name: &'static str, help: &'static str, zeros: Zeros) -> Self {
        Self {
            description: Description::new(name, help),
            zeros,
            counts: Striped::new(L::COUNT),
            labels: PhantomData,
        }
    }

    /// Adds one.
    #[inline]
    pub fn increment(&self, labels: L) {
        self.counts.own_stripe().add(labels.index(), 1);
    }
}

impl<L: LabelSet> Family for Counter<L> {
    fn expose(&self, shared: Labels<'_>, exposition: &mut Exposition) {
        for labels in L::all() {
            let total = self.counts.total(labels.index());
            if total > 0 || self.zeros == Zeros::Shown {
                exposition.counter(self.description, &joined(shared, labels), total);
            }
        }
    }
}

/// Five families of counters for the tokens that upstreams report: input, cached input, cache writes, output and reasoning.
///
/// They are counted and shown together, so that a ratio of two of them always has both of its sides.
pub struct TokenCounter<L> {
    descriptions: [Description; TOKEN_KINDS],
    zeros: Zeros,
    counts: Striped,
    labels: PhantomData<fn(L)>,
}

/// Input, cached input, cache writes, output and reasoning.
const TOKEN_KINDS: usize = 5;

impl<L: LabelSet> TokenCounter<L> {
    /// `families` are the names and the help texts for the tokens of input, cached input, cache writes, output and reasoning.
    pub(super) fn new(families: [(&'static str, &'static str); TOKEN_KINDS], zeros: Zeros) -> Self {
        Self {
            descriptions: families.map(|(name, help)| Description::new(name, help)),
            zeros,
            counts: Striped::new(TOKEN_KINDS * L::COUNT),
            labels: PhantomData,
        }
    }

    /// Adds the tokens of one request.
    pub fn add(&self, labels: L, usage: Usage) {
        let (mine, first) = (self.counts.own_stripe(), TOKEN_KINDS * labels.index());
        mine.add(first, usage.input_tokens);
        mine.add(first + 1, usage.cached_input_tokens);
        mine.add(first + 2, usage.cache_write_tokens);
        mine.add(first + 3, usage.output_tokens);
        mine.add(first + 4, usage.reasoning_tokens);
    }
}

impl<L: LabelSet> Family for TokenCounter<L> {
    fn expose(&self, shared: Labels<'_>, exposition: &mut Exposition) {
        for labels in L::all() {
            let first = TOKEN_KINDS * labels.index();
            let totals: [u64; TOKEN_KINDS] = std::array::from_fn(|kind| self.counts.total(first + kind));
            for (description, total) in self.descriptions.into_iter().zip(totals) {
                // If there were input tokens, zero cached tokens are a valid result and are shown too.
                if total > 0 || totals[0] > 0 || self.zeros == Zeros::Shown {
                    exposition.counter(description, &joined(shared, labels), total);
                }
            }
        }
    }
}

/// Upper bounds of a histogram's buckets in nanoseconds, ascending. One more bucket counts the durations above all of
/// them.
pub(super) type Bounds = &'static [u64];

/// Sums are counted in units of 0.1 microseconds. In nanoseconds, the sum of a block would overflow within three weeks
/// if 10,000 streams were always open; in this unit it takes six years.
const NANOS_PER_UNIT: u64 = 100;
const UNITS_PER_SECOND: f64 = 1e7;
const NANOS_PER_SECOND: f64 = 1e9;

/// A family of histograms of durations, one for each combination of the labels `L`.
///
/// A scrape that runs while threads observe may see an observation in its bucket and not yet in the sum; the next scrape
/// sees both.
pub struct Histogram<L> {
    description: Description,
    bounds: Bounds,
    /// For each combination: the sum, and the number of observations in each bucket alone.
    counts: Striped,
    labels: PhantomData<fn(L)>,
}

impl<L: LabelSet> Histogram<L> {
    pub(super) fn new(name: &'static str, help: &'static str, bounds: Bounds) -> Self {
        debug_assert!(bounds.is_sorted());
        Self {
            description: Description::new(name, help),
            bounds,
            counts: Striped::new(Self::stride(bounds) * L::COUNT),
            labels: PhantomData,
        }
    }

    /// The number of counters for one combination of labels.
    fn stride(bounds: Bounds) -> usize {
        bounds.len() + 2
    }

    /// Records a duration.
    pub fn observe(&self, labels: L, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // A duration that is equal to a bound belongs to the bucket below it.
        let bucket = self.bounds.partition_point(|bound| *bound < nanos);
        let (mine, sum) = (self.counts.own_stripe(), Self::stride(self.bounds) * labels.index());
        mine.add(sum, nanos.saturating_add(NANOS_PER_UNIT / 2) / NANOS_PER_UNIT);
        mine.add(sum + 1 + bucket, 1);
    }

    /// Returns everything that was observed with `labels`.
    pub(super) fn distribution(&self, labels: L) -> Distribution {
        let first = Self::stride(self.bounds) * labels.index();
        let units: u128 = self.counts.parts(first).map(u128::from).sum();
        let mut count = 0;
        let mut up_to = |bucket: usize| {
            count += self.counts.total(first + 1 + bucket);
            count
        };
        let bounds = self.bounds.iter().enumerate();
        Distribution {
            cumulative: bounds
                .map(|(bucket, bound)| (*bound as f64 / NANOS_PER_SECOND, up_to(bucket)))
                .collect(),
            count: up_to(self.bounds.len()),
            sum: units as f64 / UNITS_PER_SECOND,
        }
    }
}

impl<L: LabelSet> Family for Histogram<L> {
    fn expose(&self, shared: Labels<'_>, exposition: &mut Exposition) {
        for labels in L::all() {
            exposition.histogram(self.description, &joined(shared, labels), &self.distribution(labels));
        }
    }
}

fn joined<'a>(shared: Labels<'a>, own: impl LabelSet) -> Vec<(&'a str, &'a str)> {
    shared.iter().copied().chain(own.pairs()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::metrics::NoLabels;

    const BOUNDS: Bounds = &[10, 1_000, 1_000_000];

    /// Durations in nanoseconds: around the bounds, and anywhere.
    fn nanos() -> impl Strategy<Value = u64> {
        prop_oneof![0..30u64, 900..1_100u64, 999_990..1_000_010u64, 0..u64::from(u32::MAX)]
    }

    proptest! {
        #[test]
        fn a_bucket_holds_the_durations_up_to_its_bound(nanos in prop::collection::vec(nanos(), 0..100)) {
            let histogram = Histogram::new("h", "h", BOUNDS);
            for nanos in &nanos {
                histogram.observe(NoLabels, Duration::from_nanos(*nanos));
            }
            let distribution = histogram.distribution(NoLabels);
            let up_to = |bound: u64| nanos.iter().filter(|nanos| **nanos <= bound).count() as u64;
            let expected: Vec<(f64, u64)> = BOUNDS.iter().map(|bound| (*bound as f64 / 1e9, up_to(*bound))).collect();
            prop_assert_eq!(distribution.cumulative, expected);
            prop_assert_eq!(distribution.count, nanos.len() as u64);
            let sum = nanos.iter().sum::<u64>() as f64 / NANOS_PER_SECOND;
            let rounding = nanos.len() as f64 * 51e-9;
            prop_assert!((distribution.sum - sum).abs() <= rounding, "{} is not {sum}", distribution.sum);
        }
    }
}
