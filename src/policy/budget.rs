//! The retry budget: failing over must not finish off what is left.
//!
//! When everything fails at once, retries multiply the load by the number of attempts just when there is least to serve
//! it with. A bound per request does not help against that; a bound on their share of all requests does (*Site
//! Reliability Engineering*, 2016, ch. 21: "Deciding to retry"). A few a second are free, or else an upstream's failure
//! would show wherever there is little traffic.

use std::{collections::VecDeque, time::Duration};

use crate::tick::Tick;

/// The stretch of time that the budget looks back on.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Retries per window that no request needs to pay for: 10 a second.
pub const FREE: u64 = 100;

/// Time is told in buckets of this length.
const BUCKET: Duration = Duration::from_millis(100);
/// How many buckets lie within a window that ends in the middle of one, with the two that it cuts.
const BUCKETS: u64 = (WINDOW.as_nanos() / BUCKET.as_nanos()) as u64 + 1;

/// Grants retries as a share of requests.
///
/// # Guarantee
///
/// Whenever a retry is granted, those granted within the last [`WINDOW`], this one among them, are at most [`FREE`] plus
/// `share` times the requests within the same window. Time is told in buckets of 0.1 s and requests are counted only
/// where the budget is told of them; where that leaves a doubt, it does not grant: a retry weighs for up to 0.1 s longer
/// than the window, and requests count from the first moment within the window at which the budget was told their
/// number.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    share: f64,
    /// By bucket, in order, those that are older than the window dropped, and those left out in which nothing happened.
    buckets: VecDeque<WindowBucket>,
    /// The sum over `buckets`.
    retries: u64,
}

#[derive(Clone, Copy, Debug)]
struct WindowBucket {
    number: u64,
    /// The running total of requests when the bucket was first heard of.
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    /// A budget of `share` retries a request (0 to 1; what is outside counts as the nearer end) and [`FREE`] ones.
    pub fn new(share: f64) -> Self {
        let mut budget = Self {
            share: 0.0,
            buckets: VecDeque::new(),
            retries: 0,
        };
        budget.set_share(share);
        budget
    }

    /// Changes the share; what was granted counts on.
    pub fn set_share(&mut self, share: f64) {
        self.share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    }

    /// Takes note that there have been `requests` in all by `now`. To be called about once a second, or else the
    /// requests since the last call do not count in the next window.
    pub fn sample(&mut self, now: Tick, requests: u64) {
        // Threads read their clocks and then meet here in any order: a moment that has passed counts as the present.
        let number =
            (now.as_nanos() / BUCKET.as_nanos() as u64).max(self.buckets.back().map_or(0, |bucket| bucket.number));
        while let Some(first) = self.buckets.front()
            && first.number + BUCKETS <= number
        {
            self.retries -= first.retries;
            self.buckets.pop_front();
        }
        if self.buckets.back().is_none_or(|last| last.number != number) {
            self.buckets.push_back(WindowBucket {
                number,
                requests,
                retries: 0,
            });
        }
    }

    /// Grants a retry if there is one to spare. `requests` is as in [`RetryBudget::sample`].
    pub fn try_spend(&mut self, now: Tick, requests: u64) -> bool {
        self.sample(now, requests);
        let Some(last) = self.buckets.back().map(|bucket| bucket.number) else {
            return false;
        };
        // The window cuts its first bucket: what was counted in there may have been counted before it.
        let whole = self.buckets.iter().find(|bucket| bucket.number + BUCKETS > last + 1);
        let counted = requests.saturating_sub(whole.map_or(requests, |bucket| bucket.requests));
        let allowed = FREE + (self.share * counted as f64) as u64;
        let is_granted = self.retries < allowed;
        if is_granted && let Some(bucket) = self.buckets.back_mut() {
            bucket.retries += 1;
            self.retries += 1;
        }
        is_granted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Tick {
        Tick::ZERO.after(Duration::from_millis(millis))
    }

    fn spend(budget: &mut RetryBudget, millis: u64, requests: u64) -> u64 {
        (0..100_000)
            .take_while(|_| budget.try_spend(at(millis), requests))
            .count() as u64
    }

    #[test]
    fn a_hundred_in_ten_seconds_are_free() {
        for share in [0.0, -1.0, f64::NAN] {
            let mut budget = RetryBudget::new(share);
            assert_eq!(spend(&mut budget, 5_000, 0), FREE);
            assert_eq!(spend(&mut budget, 14_999, 1_000_000), 0);
            assert_eq!(spend(&mut budget, 15_100, 2_000_000), FREE);
        }
    }

    #[test]
    fn the_rest_is_a_share_of_the_requests() {
        let mut budget = RetryBudget::new(0.2);
        // 500 requests a second, and a sample each.
        for second in 0..60 {
            budget.sample(at(second * 1_000), second * 500);
        }
        // What came before the second sample within the window does not count.
        assert_eq!(spend(&mut budget, 60_050, 30_000), FREE + 900);
        budget.set_share(1.0);
        assert_eq!(spend(&mut budget, 60_050, 30_000), 3_600);
        budget.set_share(0.0);
        assert_eq!(spend(&mut budget, 60_050, 30_000), 0);
        assert_eq!(spend(&mut budget, 70_200, 30_000), FREE);
    }

    #[test]
    fn requests_that_nobody_was_told_of_do_not_count() {
        let mut budget = RetryBudget::new(0.2);
        budget.sample(at(0), 0);
        assert_eq!(spend(&mut budget, 20_000, 1_000_000), FREE);
    }

    #[test]
    fn a_clock_that_lags_behind_wins_nothing() {
        let mut budget = RetryBudget::new(0.0);
        assert_eq!(spend(&mut budget, 20_000, 0), FREE);
        assert_eq!(spend(&mut budget, 5_000, 0), 0);
        assert!(budget.buckets.len() == 1);
    }

    /// Remembers everything.
    #[derive(Default)]
    struct OracleBudget {
        granted: Vec<Tick>,
        /// When each request came.
        requests: Vec<Tick>,
    }

    fn within(times: &[Tick], now: Tick, window: Duration) -> u64 {
        times.iter().filter(|time| now.since(**time) < window).count() as u64
    }

    proptest! {
        #[test]
        fn never_more_than_guaranteed_and_seldom_less(
            share in 0.0f64..1.0,
            steps in prop::collection::vec((0u64..1_500, 0u64..200, 0u64..100), 1..100),
        ) {
            let (mut budget, mut oracle) = (RetryBudget::new(share), OracleBudget::default());
            let mut now = at(0);
            budget.sample(now, 0);
            for (pause, requests, wanted) in steps {
                now = now.after(Duration::from_millis(pause));
                oracle.requests.extend((0..requests).map(|_| now));
                let total = oracle.requests.len() as u64;
                if wanted == 0 {
                    budget.sample(now, total);
                }
                for _ in 0..wanted {
                    let is_granted = budget.try_spend(now, total);
                    oracle.granted.extend(is_granted.then_some(now));
                    let retries = within(&oracle.granted, now, WINDOW);
                    let allowed = FREE as f64 + share * within(&oracle.requests, now, WINDOW) as f64;
                    prop_assert!(!is_granted || retries as f64 <= allowed, "{retries} > {allowed}");
                    // Each step tells the number of requests, so at most what came within two pauses is in doubt.
                    let sure = WINDOW - 2 * Duration::from_millis(1_500) - BUCKET;
                    let certain = FREE as f64 + share * within(&oracle.requests, now, sure) as f64;
                    let weighed = within(&oracle.granted, now, WINDOW + BUCKET);
                    prop_assert!(is_granted || weighed as f64 + 1.0 > certain, "{weighed} < {certain}");
                }
            }
            prop_assert!(budget.buckets.len() as u64 <= BUCKETS);
        }
    }
}
