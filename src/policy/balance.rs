//! Requests without a session: the less loaded of two.
//!
//! Sending each request to the least loaded upstream of all looks best and is not: whoever decides on figures that are
//! a moment old sends a whole herd to the one that was idle then, and finding the least loaded takes a look at
//! everybody. Two random candidates and the less loaded of them suffice: the longest queue shrinks from about log n /
//! log log n with one random choice to log log n with two (Mitzenmacher, *The power of two choices in randomized load
//! balancing*, 2001), and a herd spreads by itself.
//!
//! Candidates are drawn by weight, or else the light members of a pool would stand in every second pair and be full
//! long before the heavy ones.

use super::hash::below;
use crate::ids::Weight;

/// Of `0..len`, draws two different members with chances that follow `weight`, and returns the one with fewer requests
/// in flight per weight; the first drawn if that is equal. Members whose `weight` is `None` do not take part. `None` if
/// no member takes part.
///
/// `random` is 64 uniformly random bits. `weight` is called up to three times for each member, `in_flight` at most
/// twice.
pub fn less_loaded_of_two(
    random: u64,
    len: usize,
    weight: impl Fn(usize) -> Option<Weight>,
    in_flight: impl Fn(usize) -> u32,
) -> Option<usize> {
    let total = (0..len).filter_map(&weight).map(|weight| u64::from(weight.get())).sum();
    let first = draw(below(total, random), len, &weight)?;
    let first_weight = weight(first).map_or(0, |weight| u64::from(weight.get()));
    let others = |member| if member == first { None } else { weight(member) };
    // An odd constant makes a second number of the same bits; adding up carries into the high ones, which count.
    let second_random = (random ^ random >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let Some(second) = draw(below(total.saturating_sub(first_weight), second_random), len, others) else {
        return Some(first);
    };
    // in_flight / weight, compared without dividing.
    let load = |member, other| u64::from(in_flight(member)) * weight(other).map_or(1, |weight| u64::from(weight.get()));
    Some(if load(second, first) < load(first, second) {
        second
    } else {
        first
    })
}

/// The member in whose stretch `point` lies when all are laid end to end, each as long as its weight. The last one past
/// the end, which is where a point can come to lie if weights change meanwhile.
fn draw(mut point: u64, len: usize, weight: impl Fn(usize) -> Option<Weight>) -> Option<usize> {
    let mut last = None;
    for member in 0..len {
        let Some(weight) = weight(member) else { continue };
        last = Some(member);
        match point.checked_sub(weight.get().into()) {
            Some(left) => point = left,
            None => break,
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn random(n: u64) -> u64 {
        fastrand::Rng::with_seed(n).u64(..)
    }

    fn weights(weights: &[u32]) -> impl Fn(usize) -> Option<Weight> {
        |member| Weight::new(weights[member])
    }

    #[test]
    fn nobody_one_and_two() {
        for n in 0..1_000 {
            let pick = |weight: &[u32], load: [u32; 3]| {
                less_loaded_of_two(random(n), weight.len(), weights(weight), |member| load[member])
            };
            assert_eq!(pick(&[], [0; 3]), None);
            assert_eq!(pick(&[0, 0], [0; 3]), None);
            assert_eq!(pick(&[0, 5, 0], [0, 9, 0]), Some(1));
            // With two, both are always drawn: the load per weight decides.
            assert_eq!(pick(&[1, 1], [7, 8, 0]), Some(0));
            assert_eq!(pick(&[1, 10], [1, 9, 0]), Some(1));
            assert_eq!(pick(&[1, 10], [1, 11, 0]), Some(0));
        }
    }

    #[test]
    fn an_idle_pool_is_shared_by_weight() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut picks = [0.0; 3];
        for _ in 0..100_000 {
            picks[less_loaded_of_two(rng.u64(..), 3, weights(&[1, 2, 7]), |_| 0).unwrap()] += 1.0 / 100_000.0;
        }
        for (share, ideal) in picks.into_iter().zip([0.1, 0.2, 0.7]) {
            assert!((share / ideal - 1.0f64).abs() < 0.05, "{picks:?}");
        }
    }

    #[test]
    fn the_second_draw_follows_weight_too() {
        // The first drawn is full, so whoever is picked instead was drawn second.
        let mut rng = fastrand::Rng::with_seed(2);
        let mut picks = [0.0; 4];
        for _ in 0..100_000 {
            let load = |member| if member == 3 { u32::MAX } else { 0 };
            picks[less_loaded_of_two(rng.u64(..), 4, weights(&[1, 2, 7, 90]), load).unwrap()] += 1.0 / 100_000.0;
        }
        assert_eq!(picks[3], 0.0);
        for (share, ideal) in picks.into_iter().zip([0.1, 0.2, 0.7]) {
            assert!((share / ideal - 1.0f64).abs() < 0.05, "{picks:?}");
        }
    }

    /// Requests that never end: with one random choice the fullest of 100 would hold about 130 of a mean of 100.
    #[test]
    fn loads_stay_level() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut loads = [0u32; 100];
        for _ in 0..10_000 {
            let picked = less_loaded_of_two(rng.u64(..), 100, |_| Some(Weight::ONE), |member| loads[member]).unwrap();
            loads[picked] += 1;
        }
        assert!(loads.iter().all(|load| (95..=104).contains(load)), "{loads:?}");
    }

    proptest! {
        #[test]
        fn never_one_that_takes_no_part(
            random: u64,
            members in prop::collection::vec((prop::option::of(1..=Weight::MAX), any::<u32>()), 0..20),
        ) {
            let weight = |member: usize| members[member].0.and_then(Weight::new);
            let picked = less_loaded_of_two(random, members.len(), weight, |member| members[member].1);
            match picked {
                Some(member) => prop_assert!(members[member].0.is_some()),
                None => prop_assert!(members.iter().all(|(weight, _)| weight.is_none())),
            }
        }
    }
}
