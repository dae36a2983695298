//! Examples of the limits, and properties of every sequence of requests.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Tick {
    Tick::ZERO.after(Duration::from_millis(millis))
}

fn quota(requests: Option<u32>, tokens: Option<u64>, concurrent: Option<u32>) -> Quota {
    Quota {
        requests_per_minute: requests,
        tokens_per_minute: tokens,
        max_concurrent: concurrent,
    }
}

#[test]
fn an_admission_counts_for_a_whole_minute() {
    let mut limiter = Limiter::new(quota(Some(2), None, None));
    let _ = limiter.admit(0, at(0)).expect("the first");
    let _ = limiter.admit(0, at(30_000)).expect("the second");
    let denial = limiter.admit(0, at(59_000)).expect_err("a third");
    assert_eq!(
        denial,
        Denial {
            limit: LimitKind::Requests,
            allowed: 2,
            retry_after: Duration::from_secs(1)
        }
    );
    let _ = limiter.admit(0, at(60_000)).expect("the first is a minute old");
    assert_eq!(
        limiter.admit(0, at(60_001)).expect_err("full").retry_after,
        Duration::from_millis(29_999)
    );
}

#[test]
fn of_several_limits_the_longest_is_named_and_nothing_is_charged() {
    let mut limiter = Limiter::new(quota(Some(1), Some(10), Some(1)));
    let first = limiter.admit(10, at(0)).expect("the first");
    assert_eq!(
        limiter.admit(1, at(1000)).expect_err("all").retry_after,
        Duration::from_secs(59)
    );
    limiter.finish(first, None, at(1000));
    let used = limiter.usage(at(1000));
    assert_eq!(used.requests.map(|usage| usage.remaining), Some(0));
    assert_eq!(
        used.tokens.map(|usage| (usage.remaining, usage.reset)),
        Some((0, Duration::from_secs(59)))
    );
    let denial = limiter.admit(11, at(59_500)).expect_err("still");
    assert_ne!(denial.limit, LimitKind::Concurrent);
    assert!(
        limiter.admit(11, at(60_000)).is_ok(),
        "more than the limit counts as the limit"
    );
}

#[test]
fn the_excess_of_an_estimate_is_returned_and_a_shortfall_is_charged() {
    let mut limiter = Limiter::new(quota(None, Some(100), None));
    let high = limiter.admit(90, at(0)).expect("capacity");
    assert!(limiter.admit(20, at(1)).is_err());
    limiter.finish(high, Some(5), at(10_000));
    let low = limiter.admit(20, at(10_000)).expect("85 tokens were returned");
    limiter.finish(low, Some(500), at(20_000));
    let denial = limiter.admit(1, at(20_000)).expect_err("over the limit");
    // 525 tokens are in use. There is capacity again only when the 480 tokens of the last charge have expired.
    assert_eq!(denial.retry_after, MINUTE);
    assert!(limiter.admit(1, at(80_000)).is_ok());
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_denied_correction_changes_nothing() {
    let mut limiter = Limiter::new(quota(None, Some(100), None));
    let other = limiter.admit(60, at(0)).expect("capacity");
    let mut admission = limiter.admit(10, at(5_000)).expect("capacity");
    let denial = limiter.recharge(&mut admission, 50, at(6_000)).expect_err("too much");
    assert_eq!(denial.retry_after, Duration::from_secs(54));
    assert_eq!(limiter.usage(at(6_000)).tokens.map(|usage| usage.remaining), Some(30));
    limiter.recharge(&mut admission, 40, at(6_000)).expect("just fits");
    limiter.finish(admission, Some(0), at(7_000));
    limiter.finish(other, Some(0), at(7_000));
    assert_eq!(limiter.usage(at(7_000)).tokens.map(|usage| usage.remaining), Some(100));
    assert_eq!(limiter.running(), 0);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let mut limiter = Limiter::new(quota(Some(u32::MAX), Some(u64::MAX), Some(u32::MAX)));
    for _ in 0..3 {
        let admission = limiter.admit(u64::MAX / 2, at(0));
        if let Ok(admission) = admission {
            limiter.finish(admission, Some(u64::MAX), at(0));
        }
    }
    assert!(limiter.admit(u64::MAX, Tick::from_nanos(u64::MAX)).is_ok());
    // The clock of another thread that was read earlier.
    assert!(limiter.admit(1, at(0)).is_err());
}

/// An event of one client key.
#[derive(Clone, Debug)]
enum LimiterStep {
    Wait(u64),
    Admit(u64),
    /// Finishes the request at this index with these tokens.
    Finish(usize, Option<u64>),
}

fn steps() -> impl Strategy<Value = Vec<LimiterStep>> {
    let step = prop_oneof![
        (0..20_000_u64).prop_map(LimiterStep::Wait),
        (0..400_u64).prop_map(LimiterStep::Wait),
        (0..60_u64).prop_map(LimiterStep::Admit),
        (0..60_u64).prop_map(LimiterStep::Admit),
        (0..8_usize, proptest::option::of(0..80_u64)).prop_map(|(at, tokens)| LimiterStep::Finish(at, tokens)),
    ];
    proptest::collection::vec(step, 1..200)
}

/// An oracle that remembers every admitted request.
#[derive(Default)]
struct OracleLimiter {
    /// The time in milliseconds and the number of tokens of each request.
    requests: Vec<(u64, u64)>,
}

impl OracleLimiter {
    /// Returns the sum of `of` over the minute that ends now.
    fn within(&self, now: u64, of: impl Fn(&(u64, u64)) -> u64) -> u64 {
        let fresh = self.requests.iter().filter(|(when, _)| now - when < 60_000);
        fresh.map(of).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Without corrections, the admitted requests stay within both limits in every minute, and a denied request is
    /// admitted after exactly the time that the denial named.
    #[test]
    fn no_minute_has_more_than_its_limit(steps in steps(), requests in 1..12_u32, tokens in 1..200_u64) {
        let mut limiter = Limiter::new(quota(Some(requests), Some(tokens), None));
        let mut oracle = OracleLimiter::default();
        let mut now = 0;
        for step in steps {
            match step {
                LimiterStep::Wait(millis) => now += millis,
                LimiterStep::Finish(..) => {}
                LimiterStep::Admit(cost) => {
                    let cost = cost.min(tokens);
                    match limiter.admit(cost, at(now)) {
                        Ok(admission) => {
                            oracle.requests.push((now, cost));
                            limiter.finish(admission, None, at(now));
                        }
                        Err(denial) => {
                            let wait = u64::try_from(denial.retry_after.as_millis()).unwrap();
                            prop_assert!(wait > 0 && wait <= 60_250, "{wait}");
                            prop_assert!(limiter.admit(cost, at(now + wait - 1)).is_err());
                            now += wait;
                            let admission = limiter.admit(cost, at(now));
                            prop_assert!(admission.is_ok(), "{admission:?} at {now}");
                            oracle.requests.push((now, cost));
                            limiter.finish(admission.unwrap(), None, at(now));
                        }
                    }
                    prop_assert!(oracle.within(now, |_| 1) <= u64::from(requests));
                    prop_assert!(oracle.within(now, |(_, tokens)| *tokens) <= tokens);
                }
            }
        }
    }

    /// With corrections, the sum equals the charges that stand, concurrency is given back, and after a minute the
    /// limiter is as new.
    #[test]
    fn corrections_keep_the_sum_of_tokens_right(steps in steps(), tokens in 1..200_u64, concurrent in 1..6_u32) {
        let mut limiter = Limiter::new(quota(None, Some(tokens), Some(concurrent)));
        let mut running = Vec::new();
        let mut now = 0;
        for step in steps {
            match step {
                LimiterStep::Wait(millis) => now += millis,
                LimiterStep::Admit(cost) => {
                    if let Ok(admission) = limiter.admit(cost, at(now)) {
                        running.push(admission);
                    }
                }
                LimiterStep::Finish(place, actual) if place < running.len() => {
                    limiter.finish(running.remove(place), actual, at(now));
                }
                LimiterStep::Finish(..) => {}
            }
            prop_assert_eq!(limiter.running() as usize, running.len());
            prop_assert!(running.len() <= concurrent as usize);
            let held: u64 = running.iter().map(|admission| admission.tokens).sum();
            let used = limiter.usage(at(now)).tokens.unwrap();
            prop_assert!(used.remaining <= tokens);
            // Running requests that were charged less than a minute ago count in full.
            if running.iter().all(|admission| at(now).since(admission.charged_at) < Duration::from_secs(59)) {
                prop_assert!(tokens - used.remaining >= held.min(tokens));
            }
        }
        for admission in running {
            limiter.finish(admission, Some(0), at(now));
        }
        let used = limiter.usage(at(now + 61_000)).tokens.unwrap();
        prop_assert_eq!((used.remaining, used.reset), (tokens, Duration::ZERO));
        prop_assert_eq!(limiter.running(), 0);
    }
}
