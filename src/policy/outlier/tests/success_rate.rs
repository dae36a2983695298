//! Tests of the comparison of success rates.

use super::*;
use crate::policy::outlier::success::{FAILURES_MIN, RATIO, SIGNIFICANCE, probability_of_as_many_failures};

/// The binomial coefficient, exactly.
fn choose(n: u64, k: u64) -> u128 {
    (0..k).fold(1, |product, i| product * u128::from(n - i) / u128::from(i + 1))
}

/// The oracle of the test: the same probability, by counting all ways to place the failures.
fn share_of_worse_ways(own: OutcomeCounts, rest: OutcomeCounts) -> f64 {
    let failed = own.failed + rest.failed;
    let ways = |at_own: u64| match failed.checked_sub(at_own) {
        Some(at_rest) if at_own <= own.total() && at_rest <= rest.total() => {
            choose(own.total(), at_own) * choose(rest.total(), at_rest)
        }
        _ => 0,
    };
    let worse: u128 = (own.failed..=failed).map(ways).sum();
    worse as f64 / choose(own.total() + rest.total(), failed) as f64
}

/// Whether two numbers are equal but for rounding.
fn is_close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * b.max(1e-6)
}

#[test]
fn an_upstream_that_fails_a_fifth_to_a_half_beside_good_ones_is_an_outlier() {
    for (own, rest) in [
        (counts(3, 10), counts(0, 60)),
        (counts(6, 10), counts(1, 20)),
        (counts(8, 30), counts(0, 30)),
        (counts(6, 30), counts(1, 90)),
        (counts(14, 40), counts(2, 40)),
        (counts(9, 20), counts(0, 20)),
        (counts(2_000, 10_000), counts(100, 10_000)),
    ] {
        assert_eq!(success_outlier(&[rest, own]), Some(1), "{own:?} beside {rest:?}");
        assert_eq!(success_outlier(&[own, rest]), Some(0), "{own:?} beside {rest:?}");
    }
}

#[test]
fn bad_luck_small_differences_and_too_few_requests_make_no_outlier() {
    for (own, rest) in [
        // One or two of ten, even beside very many good requests.
        (counts(1, 10), counts(0, 1_000)),
        (counts(2, 10), counts(0, 1_000)),
        (counts(2, 12), counts(1, 1_000)),
        // Too few requests at either side.
        (counts(9, 9), counts(0, 1_000)),
        (counts(30, 30), counts(0, 9)),
        (counts(30, 30), counts(0, 0)),
        // Not significant: the rest has too few requests.
        (counts(3, 10), counts(0, 10)),
        // Certain, but small.
        (counts(1_400, 10_000), counts(0, 10_000)),
        // The whole pool fails.
        (counts(30, 100), counts(30, 100)),
        (counts(50, 100), counts(30, 100)),
        (counts(100, 100), counts(100, 100)),
    ] {
        assert_eq!(success_outlier(&[rest, own]), None, "{own:?} beside {rest:?}");
    }
    assert_eq!(success_outlier(&[]), None);
    assert_eq!(
        success_outlier(&[counts(100, 100)]),
        None,
        "an upstream alone has no rest"
    );
}

#[test]
fn the_worst_of_several_outliers_goes_first() {
    let good = counts(0, 30);
    let mut pool = [good, counts(9, 30), counts(13, 30), good];
    assert_eq!(success_outlier(&pool), Some(2));
    pool[2] = OutcomeCounts::default();
    assert_eq!(success_outlier(&pool), Some(1));
    pool[1] = OutcomeCounts::default();
    assert_eq!(success_outlier(&pool), None);
}

/// The number of requests until an upstream that fails `percent` of them is found, and whether another upstream was
/// found before it. Each second, each of `pool` upstreams gets one request.
fn requests_until_found(percent: u8, pool: usize, seed: u64) -> Option<u64> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut records = vec![OutlierRecord::default(); pool];
    let mut totals = vec![OutcomeCounts::default(); pool];
    for second in 0..600 {
        for (index, total) in totals.iter_mut().enumerate() {
            let is_failure = rng.u8(..100) < if index == 0 { percent } else { 1 };
            total.failed += u64::from(is_failure);
            total.succeeded += u64::from(!is_failure);
        }
        let recent: Vec<OutcomeCounts> = records
            .iter_mut()
            .zip(&totals)
            .map(|(record, total)| record.sample(at(second), *total, TimeSums::default()).outcomes)
            .collect();
        match success_outlier(&recent) {
            Some(0) => return Some(second + 1),
            Some(good) => panic!("upstream {good} fails 1 % of its requests, seed {seed}"),
            None => {}
        }
    }
    None
}

#[test]
fn a_half_broken_upstream_is_found_within_some_tens_of_requests() {
    for (percent, pool, median_limit) in [
        (45, 2, 25),
        (35, 2, 35),
        (20, 2, 90),
        (45, 3, 20),
        (35, 4, 25),
        (20, 4, 60),
    ] {
        let mut requests: Vec<u64> = (0..101)
            .map(|seed| requests_until_found(percent, pool, seed).expect("it is found within ten minutes"))
            .collect();
        requests.sort_unstable();
        assert!(requests[50] <= median_limit, "{percent} % of {pool}: {requests:?}");
    }
}

#[test]
fn upstreams_that_rarely_fail_are_never_outliers_in_an_hour() {
    for seed in 0..3 {
        for pool in 2..6 {
            assert_eq!(requests_until_found(1, pool, seed), None);
        }
    }
}

#[test]
fn the_window_forgets_and_begins_anew() {
    let mut record = OutlierRecord::default();
    let mut sample = |second, failed, total| {
        record
            .sample(at(second), counts(failed, total), TimeSums::default())
            .outcomes
    };
    assert_eq!(
        sample(0, 5, 10),
        counts(5, 10),
        "the first sample is the beginning of the counts"
    );
    assert_eq!(sample(1, 8, 20), counts(8, 20));
    assert_eq!(sample(30, 8, 30), counts(8, 30));
    assert_eq!(sample(31, 8, 30), counts(0, 10));
    assert_eq!(
        sample(200, 9, 40),
        counts(0, 0),
        "no sample came for longer than the window"
    );
    record.restart(at(201), counts(20, 60), TimeSums::default());
    assert_eq!(
        record.sample(at(202), counts(21, 62), TimeSums::default()).outcomes,
        counts(1, 2)
    );
    // A success that is taken back is not in the window any more.
    let taken_back = OutcomeCounts {
        succeeded: 39,
        failed: 22,
    };
    assert_eq!(
        record.sample(at(203), taken_back, TimeSums::default()).outcomes,
        counts(2, 2)
    );
}

proptest! {
    #[test]
    fn the_probability_is_the_share_of_ways_as_bad(
        (own, failed) in (0u64..40).prop_flat_map(|own| (Just(own), 0..=own)),
        (rest, rest_failed) in (0u64..40).prop_flat_map(|rest| (Just(rest), 0..=rest)),
    ) {
        let (own, rest) = (counts(failed, own), counts(rest_failed, rest));
        let (fast, slow) = (probability_of_as_many_failures(own, rest), share_of_worse_ways(own, rest));
        prop_assert!(is_close(fast, slow), "{fast} {slow}");
    }

    #[test]
    fn the_outlier_fulfils_every_condition_and_no_other_is_worse(
        pool in prop::collection::vec((0u64..25).prop_flat_map(|own| (Just(own), 0..=own)), 0..6),
    ) {
        let pool: Vec<OutcomeCounts> = pool.into_iter().map(|(total, failed)| counts(failed, total)).collect();
        let fulfils = |index: usize| {
            let others = pool.iter().enumerate().filter(|(other, _)| *other != index);
            let rest = others.fold(OutcomeCounts::default(), |sum, (_, other)| sum + *other);
            let own = pool[index];
            let rate = |of: OutcomeCounts| of.failed as f64 / of.total() as f64;
            own.total() >= REQUESTS_MIN
                && rest.total() >= REQUESTS_MIN
                && own.failed >= FAILURES_MIN
                && rate(own) - rate(rest) >= MARGIN
                && rate(own) >= RATIO * rate(rest)
                && share_of_worse_ways(own, rest) <= SIGNIFICANCE
        };
        let rate = |index: usize| pool[index].failed as f64 / pool[index].total() as f64;
        match success_outlier(&pool) {
            Some(found) => {
                prop_assert!(fulfils(found));
                prop_assert!((0..pool.len()).all(|other| !fulfils(other) || rate(other) <= rate(found)));
            }
            None => prop_assert!(!(0..pool.len()).any(fulfils)),
        }
    }

    #[test]
    fn the_window_counts_what_happened_within_it(
        steps in prop::collection::vec((0u64..8, 0u64..5, 0u64..5), 1..80),
    ) {
        let (mut record, mut now, mut total) = (OutlierRecord::default(), 100, OutcomeCounts::default());
        // The oracle keeps every sample forever.
        let mut samples = Vec::new();
        for (pause, succeeded, failed) in steps {
            now += pause;
            if samples.is_empty() {
                samples.push((now, OutcomeCounts::default()));
            }
            total = total + OutcomeCounts { succeeded, failed };
            samples.push((now, total));
            let first = samples.iter().find(|(at, _)| now - at <= SUCCESS_WINDOW.as_secs()).expect("the last one");
            prop_assert_eq!(record.sample(at(now), total, TimeSums::default()).outcomes, total - first.1);
        }
    }
}
