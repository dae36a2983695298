//! The retry budget: an upper bound on retries as a share of all requests.
//!
//! When all upstreams fail at once, retries multiply the load by the number of attempts, at the time when there is
//! least capacity. A bound per request does not prevent that; a bound on the share of retries among all requests does
//! (*Site Reliability Engineering*, 2016, ch. 21: "Deciding to retry").
//!
//! In addition, about one retry per second is free. Without free retries, callers would see the failures of an upstream
//! that has little traffic. The free retries are spread over time: a request always gets a retry if no free one was
//! granted within the last second, even if many were granted before.

use std::{collections::VecDeque, time::Duration};

use crate::tick::Tick;

/// The length of the sliding window over which the budget counts requests and retries.
pub const WINDOW: Duration = Duration::from_secs(10);
/// The time in which one free retry is earned. Free retries do not depend on the number of requests.
pub const FREE_EVERY: Duration = Duration::from_secs(1);
/// The maximum number of free retries that are granted at once. When an upstream breaks, this many requests fail
/// before it is ejected.
pub const FREE_BURST: u64 = 5;
/// The maximum number of free retries per window.
pub const FREE: u64 = (WINDOW.as_nanos() / FREE_EVERY.as_nanos()) as u64 + FREE_BURST;

/// The budget counts time in buckets of this length.
const BUCKET: Duration = Duration::from_millis(100);
/// The number of buckets that overlap a window that ends inside a bucket. It includes the two buckets that the window
/// cuts.
const BUCKETS: u64 = (WINDOW.as_nanos() / BUCKET.as_nanos()) as u64 + 1;

/// Grants retries as a share of requests.
///
/// # Guarantee
///
/// The free retries granted within any [`WINDOW`] are at most [`FREE`]. Whenever another retry is granted, those granted
/// within the last window, including this one, are at most `share` times the requests within the same window. A retry is
/// always granted if none was granted within the last [`FREE_EVERY`]. Time is counted in buckets of 0.1 s, and requests
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
    /// When all free retries will have been earned again. (The theoretical arrival time of the generic cell rate
    /// algorithm, ITU-T I.371.)
    free_again: Tick,
}

#[derive(Clone, Copy, Debug)]
struct WindowBucket {
    /// The number of the bucket, counted from [`Tick::ZERO`].
    number: u64,
    /// The running total of requests at the first call in this bucket.
    requests: u64,
    /// The number of retries that were granted in this bucket as a share of requests.
    retries: u64,
}

impl RetryBudget {
    /// Creates a budget of `share` retries per request (clamped to 0..=1; NaN counts as 0) plus one free retry for each
    /// [`FREE_EVERY`].
    pub fn new(share: f64) -> Self {
        let mut budget = Self {
            share: 0.0,
            buckets: VecDeque::new(),
            retries: 0,
            free_again: Tick::ZERO,
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
        // The share comes first, so that free retries are left for a request that comes alone.
        if self.retries >= (self.share * counted as f64) as u64 {
            return self.try_spend_free(now);
        }
        let bucket = self.buckets.back_mut().expect("`sample` leaves a bucket for now");
        bucket.retries += 1;
        self.retries += 1;
        true
    }

    fn try_spend_free(&mut self, now: Tick) -> bool {
        let burst = FREE_EVERY * (FREE_BURST - 1) as u32;
        if now.after(burst) < self.free_again {
            return false;
        }
        self.free_again = self.free_again.max(now).after(FREE_EVERY);
        true
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
    fn one_retry_per_second_is_free_and_a_few_at_once() {
        for share in [0.0, -1.0, f64::NAN] {
            let mut budget = RetryBudget::new(share);
            assert_eq!(spend(&mut budget, 5_000, 0), FREE_BURST);
            assert_eq!(spend(&mut budget, 5_999, 1_000_000), 0);
            for second in 6..60 {
                assert_eq!(spend(&mut budget, second * 1_000, 1_000_000), 1, "{second}");
            }
            assert_eq!(spend(&mut budget, 62_500, 1_000_000), 3);
            assert_eq!(spend(&mut budget, 63_000, 1_000_000), 1);
            assert_eq!(spend(&mut budget, 90_000, 1_000_000), FREE_BURST);
        }
    }

    #[test]
    fn a_request_that_comes_alone_gets_a_retry_after_any_storm() {
        let mut budget = RetryBudget::new(0.1);
        let mut spent = 0;
        for tenth in 0..300 {
            spent += spend(&mut budget, tenth * 100, tenth * 2);
        }
        assert!((30..=30 + FREE_BURST + 60).contains(&spent), "{spent}");
        assert!(budget.try_spend(at(31_000), 600));
    }

    #[test]
    fn further_retries_are_a_share_of_the_requests() {
        let mut budget = RetryBudget::new(0.2);
        // 500 requests per second, and one sample per second.
        for second in 0..60 {
            budget.sample(at(second * 1_000), second * 500);
        }
        // Requests before the second sample within the window do not count.
        assert_eq!(spend(&mut budget, 60_050, 30_000), FREE_BURST + 900);
        budget.set_share(1.0);
        assert_eq!(spend(&mut budget, 60_050, 30_000), 3_600);
        budget.set_share(0.0);
        assert_eq!(spend(&mut budget, 60_050, 30_000), 0);
        assert_eq!(spend(&mut budget, 70_200, 30_000), FREE_BURST);
    }

    #[test]
    fn requests_that_were_not_reported_do_not_count() {
        let mut budget = RetryBudget::new(0.2);
        budget.sample(at(0), 0);
        assert_eq!(spend(&mut budget, 20_000, 1_000_000), FREE_BURST);
    }

    #[test]
    fn a_clock_that_lags_behind_gets_no_additional_retries() {
        let mut budget = RetryBudget::new(0.0);
        assert_eq!(spend(&mut budget, 20_000, 0), FREE_BURST);
        assert_eq!(spend(&mut budget, 5_000, 0), 0);
        assert!(budget.buckets.len() == 1);
    }

    /// The oracle of the budget. It remembers every request and every granted retry.
    #[derive(Default)]
    struct OracleBudget {
        granted: Vec<Tick>,
        /// The retries among them that did not depend on the number of requests.
        free: Vec<Tick>,
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
                    let free_before = budget.free_again;
                    let is_granted = budget.try_spend(now, total);
                    let is_free = is_granted && budget.free_again != free_before;
                    oracle.granted.extend(is_granted.then_some(now));
                    oracle.free.extend(is_free.then_some(now));
                    let free = within(&oracle.free, now, WINDOW);
                    prop_assert!(free <= FREE);
                    let retries = within(&oracle.granted, now, WINDOW) - free;
                    let allowed = share * within(&oracle.requests, now, WINDOW) as f64;
                    let is_within = is_free || retries as f64 <= allowed;
                    prop_assert!(!is_granted || is_within, "{retries} > {allowed}");
                    // Each step reports the number of requests, so at most the requests within two pauses are in
                    // doubt.
                    let sure = WINDOW - 2 * Duration::from_millis(1_500) - BUCKET;
                    let certain = share * within(&oracle.requests, now, sure) as f64;
                    let weighed = within(&oracle.granted, now, WINDOW + BUCKET);
                    prop_assert!(is_granted || weighed as f64 + 1.0 > certain, "{weighed} < {certain}");
                    prop_assert!(is_granted || within(&oracle.granted, now, FREE_EVERY) > 0);
                }
            }
            prop_assert!(budget.buckets.len() as u64 <= BUCKETS);
        }
    }
}
