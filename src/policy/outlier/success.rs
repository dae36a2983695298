//! The success rate of an upstream, compared with the rest of its pool.
//!
//! # The test
//!
//! Envoy ejects a host whose success rate is below the mean of all hosts minus 1.9 standard deviations. This needs at
//! least five hosts with a hundred requests each: with two or three hosts, no value can be that far from the mean,
//! because the outlier itself moves the mean and the deviation. Pools here have two to ten accounts, and an account
//! often gets less than one request per second. So an upstream is compared with the *rest* of its pool, and four
//! conditions must hold before it is ejected:
//!
//! 1. There are at least [`REQUESTS_MIN`] requests within [`SUCCESS_WINDOW`], both at the upstream and at the rest.
//! 2. The upstream failed at least [`FAILURES_MIN`] of them. One or two failures of ten can be bad luck.
//! 3. The upstream's rate of failures is by [`MARGIN`] higher than that of the rest, and at least [`RATIO`] times as
//!    high. A difference can be certain and still too small to give up warm caches for. (Envoy's users asked for such
//!    a minimum, because without one a host with 99 % success is ejected beside hosts with 99.9 %.)
//! 4. The difference is significant: if the upstream were like the rest, a result as bad as this one would have a
//!    probability of at most [`SIGNIFICANCE`]. This is Fisher's exact test, one-sided (R. A. Fisher, *Statistical
//!    Methods for Research Workers*, 5th ed. 1934, § 21.02). It holds for the smallest counts, where tests that
//!    assume a normal distribution do not.
//!
//! The test is repeated every second on a sliding window, so [`SIGNIFICANCE`] is stricter than a single test would
//! need. Measured with random outcomes: beside an equally busy rest that fails 1 % of its requests, an upstream that
//! fails 45, 35 or 20 % is ejected after 15, 20 or 53 requests in the median, at 30 requests per window. If all
//! upstreams fail 2 % of their requests, an upstream is ejected by mistake at most once a day.
//!
//! # One at a time
//!
//! Only the worst outlier is ejected, and the others are judged again a second later, without it. Otherwise, two bad
//! upstreams of four would hide each other: each of them makes the rest of the other one worse.

use std::{
    collections::VecDeque,
    ops::{Add, Sub},
    time::Duration,
};

use crate::tick::Tick;

/// The length of the sliding window over which outcomes are compared.
pub const SUCCESS_WINDOW: Duration = Duration::from_secs(30);
/// The number of requests within the window from which an upstream, or the rest of its pool, can be judged.
pub const REQUESTS_MIN: u64 = 10;
/// The number of failures within the window from which an upstream can be ejected.
pub(super) const FAILURES_MIN: u64 = 3;
/// The difference between the upstream's rate of failures and that of the rest from which it can be ejected.
pub const MARGIN: f64 = 0.15;
/// The quotient of the two rates of failures from which the upstream can be ejected.
pub(super) const RATIO: f64 = 2.0;
/// The maximum probability of a result as bad as the upstream's, if it were like the rest.
pub(super) const SIGNIFICANCE: f64 = 0.005;

/// Numbers of requests at an upstream by their outcome.
///
/// A request succeeds if the upstream answers it, even with an error that the request has caused. It fails if the
/// upstream's [health](crate::policy::health) counts a failure. A request that is refused or limited counts as
/// neither: it was not tried, so it says nothing about the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutcomeCounts {
    /// The requests that the upstream has answered.
    pub succeeded: u64,
    /// The requests that the upstream has failed.
    pub failed: u64,
}

impl OutcomeCounts {
    /// The number of all requests.
    pub fn total(self) -> u64 {
        self.succeeded + self.failed
    }

    fn failure_rate(self) -> f64 {
        self.failed as f64 / self.total() as f64
    }
}

impl Add for OutcomeCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            succeeded: self.succeeded + other.succeeded,
            failed: self.failed + other.failed,
        }
    }
}

impl Sub for OutcomeCounts {
    type Output = Self;

    /// Saturates at zero.
    fn sub(self, other: Self) -> Self {
        Self {
            succeeded: self.succeeded.saturating_sub(other.succeeded),
            failed: self.failed.saturating_sub(other.failed),
        }
    }
}

/// The outcomes at one upstream within the last [`SUCCESS_WINDOW`], from samples of its running totals.
#[derive(Clone, Debug, Default)]
pub(super) struct SuccessWindow {
    /// The samples within the window, the oldest first. What was counted before the first one is outside.
    samples: VecDeque<(Tick, OutcomeCounts)>,
}

impl SuccessWindow {
    /// Begins a new window at `now`, when the totals are `totals`.
    pub fn restart(&mut self, now: Tick, totals: OutcomeCounts) {
        self.samples.clear();
        self.samples.push_back((now, totals));
    }

    /// Records the totals at `now`, and returns the outcomes within the window. The window begins at the first sample that
    /// is not older than it, so it is up to the time between two samples too short, and never too long. At the first
    /// call, everything that was counted is within the window.
    pub fn sample(&mut self, now: Tick, totals: OutcomeCounts) -> OutcomeCounts {
        if self.samples.is_empty() {
            self.restart(now, OutcomeCounts::default());
        }
        while let Some((at, _)) = self.samples.front()
            && now.since(*at) > SUCCESS_WINDOW
        {
            self.samples.pop_front();
        }
        self.samples.push_back((now, totals));
        self.samples
            .front()
            .map_or_else(OutcomeCounts::default, |(_, first)| totals - *first)
    }
}

/// Returns the index of the upstream to eject; `None` if no upstream fails far more often than the others. `pool` has
/// the recent outcomes of each upstream. An upstream that is out of service has none.
pub fn success_outlier(pool: &[OutcomeCounts]) -> Option<usize> {
    let all = pool.iter().fold(OutcomeCounts::default(), |sum, own| sum + *own);
    let outliers = pool
        .iter()
        .enumerate()
        .filter(|(_, own)| is_outlier(**own, all - **own));
    let worst = outliers.max_by(|(_, a), (_, b)| a.failure_rate().total_cmp(&b.failure_rate()));
    worst.map(|(index, _)| index)
}

/// Whether an upstream with the outcomes `own` fails far more often than the `rest` of its pool. See the
/// [module](self).
fn is_outlier(own: OutcomeCounts, rest: OutcomeCounts) -> bool {
    if own.failed < FAILURES_MIN || own.total() < REQUESTS_MIN || rest.total() < REQUESTS_MIN {
        return false;
    }
    let (own_rate, rest_rate) = (own.failure_rate(), rest.failure_rate());
    own_rate - rest_rate >= MARGIN
        && own_rate >= RATIO * rest_rate
        && probability_of_as_many_failures(own, rest) <= SIGNIFICANCE
}

/// The probability that at least `own.failed` of the failures hit `own`, if all requests of `own` and `rest` were equally
/// likely to fail: the upper tail of the hypergeometric distribution.
pub(super) fn probability_of_as_many_failures(own: OutcomeCounts, rest: OutcomeCounts) -> f64 {
    let all = own + rest;
    // `ln_choose` of the ways to place the failures among all requests.
    let ways = ln_choose(all.total(), all.failed);
    let mut sum = 0.0;
    for failed in own.failed..=own.total().min(all.failed) {
        if all.failed - failed > rest.total() {
            continue;
        }
        let term = (ln_choose(own.total(), failed) + ln_choose(rest.total(), all.failed - failed) - ways).exp();
        sum += term;
        // Past the mode of the distribution, the terms fall faster than a geometric series.
        if term < sum * 1e-9 {
            break;
        }
    }
    sum.min(1.0)
}

/// The natural logarithm of the binomial coefficient *n* over *k*.
fn ln_choose(n: u64, k: u64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// The natural logarithm of *n*!, by Stirling's series from 16 on, where its error is below 1e-9.
fn ln_factorial(n: u64) -> f64 {
    let x = n as f64;
    if n < 16 {
        return (2..=n).map(|factor| (factor as f64).ln()).sum();
    }
    let correction = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    x * x.ln() - x + 0.5 * (std::f64::consts::TAU * x).ln() + correction
}
