//! The retry budget: an upper bound on retries as a share of all requests.
//!
//! When all upstreams fail at once, retries multiply the load by the number of attempts, at the time when there is
//! least capacity. A bound per request does not prevent that; a bound on the share of retries among all requests does
//! (*Site Reliability Engineering*, 2016, ch. 21: "Deciding to retry"). A few retries per second are free. Without
//! them, callers would see the failures of an upstream that has little traffic.

use std::{collections::VecDeque, time::Duration};

use crate::tick::Tick;

/// The length of the sliding window over which the budget counts requests and retries.
pub const WINDOW: Duration = Duration::from_secs(10);
/// The number of free retries per window, which do not depend on the number of requests: 10 per second.
pub const FREE: u64 = 100;

/// The budget counts time in buckets of this length.
const BUCKET: Duration = Duration::from_millis(100);
/// The number of buckets that overlap a window that ends inside a bucket. It includes the two buckets that the window
/// cuts.
const BUCKETS: u64 = (WINDOW.as_nanos() / BUCKET.as_nanos()) as u64 + 1;

/// Grants retries as a share of requests.
///
/// # Guarantee
///
/// Whenever a retry is granted, the retries granted within the last [`WINDOW`], including this one, are at most
/// [`FREE`] plus `share` times the requests within the same window. Time is counted in buckets of 0.1 s, and requests
/// count only if they were reported to the budget. Both make the budget stricter, never looser: a retry counts for up
/// to 0.1 s longer than the window, and requests count from the first moment within the window at which their number
/// was reported.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    /// The number of retries for each request, from 0 to 1.
    share: f64,
    /// The buckets of the window in order of time. Buckets without a call are left out.
    buckets: VecDeque<WindowBucket>,
    /// The sum of the retries in `buckets`.
    retries: u64,
}

#[derive(Clone, Copy, Debug)]
struct WindowBucket {
    /// The number of the bucket, counted from [`Tick::ZERO`].
    number: u64,
    /// The running total of requests at the first call in this bucket.
    requests: u64,
    /// The number of retries that were granted in this bucket.
    retries: u64,
}

impl RetryBudget {
    /// Creates a budget of `share` retries per request (clamped to 0..=1; NaN counts as 0) plus [`FREE`] retries per
    /// window.
    pub fn new(share: f64) -> Self {
        let mut budget = Self {
            share: 0.0,
            buckets: VecDeque::new(),
            retries: 0,
        };
        budget.set_share(share);
        budget
    }

    /// Changes the share. Retries that were granted before still count.
    pub fn set_share(&mut self, share: f64) {
        self.share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    }

    /// Records that there have been `requests` requests in total by `now`. This should be called about once per second,
    /// because requests between the last call and the beginning of a window are not counted in that window otherwise.
    pub fn sample(&mut self, now: Tick, requests: u64) {
        // Threads read their clocks before they get here, so calls may arrive out of order. A time before the latest
        // bucket is treated as the time of that bucket.
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

    /// Grants a retry if the budget allows one. `requests` is as in [`RetryBudget::sample`].
    pub fn try_spend(&mut self, now: Tick, requests: u64) -> bool {
        self.sample(now, requests);
        let last = self.buckets.back().expect("`sample` leaves a bucket for now").number;
        // The window cuts its first bucket: requests counted in that bucket may have come before the window, so the
        // count starts at the next bucket.
        let whole = self.buckets.iter().find(|bucket| bucket.number + BUCKETS > last + 1);
        let counted = requests.saturating_sub(whole.map_or(requests, |bucket| bucket.requests));
        let allowed = FREE + (self.share * counted as f64) as u64;
        let is_granted = self.retries < allowed;
        if is_granted {
            let bucket = self.buckets.back_mut().expect("`sample` leaves a bucket for now");
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
    fn a_hundred_retries_per_ten_seconds_are_free() {
        for share in [0.0, -1.0, f64::NAN] {
            let mut budget = RetryBudget::new(share);
            assert_eq!(spend(&mut budget, 5_000, 0), FREE);
            assert_eq!(spend(&mut budget, 14_999, 1_000_000), 0);
            assert_eq!(spend(&mut budget, 15_100, 2_000_000), FREE);
        }
    }

    #[test]
    fn further_retries_are_a_share_of_the_requests() {
        let mut budget = RetryBudget::new(0.2);
        // 500 requests per second, and one sample per second.
        for second in 0..60 {
            budget.sample(at(second * 1_000), second * 500);
        }
        // Requests before the second sample within the window do not count.
        assert_eq!(spend(&mut budget, 60_050, 30_000), FREE + 900);
        budget.set_share(1.0);
        assert_eq!(spend(&mut budget, 60_050, 30_000), 3_600);
        budget.set_share(0.0);
        assert_eq!(spend(&mut budget, 60_050, 30_000), 0);
        assert_eq!(spend(&mut budget, 70_200, 30_000), FREE);
    }

    #[test]
    fn requests_that_were_not_reported_do_not_count() {
        let mut budget = RetryBudget::new(0.2);
        budget.sample(at(0), 0);
        assert_eq!(spend(&mut budget, 20_000, 1_000_000), FREE);
    }

    #[test]
    fn a_clock_that_lags_behind_gets_no_additional_retries() {
        let mut budget = RetryBudget::new(0.0);
        assert_eq!(spend(&mut budget, 20_000, 0), FREE);
        assert_eq!(spend(&mut budget, 5_000, 0), 0);
        assert!(budget.buckets.len() == 1);
    }

    /// The oracle of the budget. It remembers every request and every granted retry.
    #[derive(Default)]
    struct OracleBudget {
        granted: Vec<Tick>,
        /// The time at which each request arrived.
        requests: Vec<Tick>,
    }

    fn within(times: &[Tick], now: Tick, window: Duration) -> u64 {
        times.iter().filter(|time| now.since(**time) < window).count() as u64
    }

    proptest! {
        #[test]
        fn the_guarantee_holds_and_few_retries_are_refused_needlessly(
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
                    // Each step reports the number of requests, so at most the requests within two pauses are in
                    // doubt.
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
