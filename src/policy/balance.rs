//! Load balancing for requests without a session: the less loaded of two random upstreams.
//!
//! The obvious choice, the least loaded upstream, has two faults. Load figures are a moment old when a request uses
//! them, so all requests of that moment go to the upstream that was idle. And every upstream must be looked at to find
//! the least loaded one. It is enough to draw two random candidates and take the less loaded one: the longest queue
//! shrinks from about log n / log log n with one random choice to log log n with two (Mitzenmacher, *The power of two
//! choices in randomized load balancing*, 2001), and simultaneous requests spread over the pool.
//!
//! The candidates are drawn by weight. Otherwise the light members of a pool would be in every second pair and would
//! be full long before the heavy ones.

use super::{hash::below, rendezvous::MemberIndex};
use crate::ids::Weight;

/// Draws two different members of `members` with probabilities proportional to `weight`, and returns the member with
/// fewer requests in flight per weight. If both are equally loaded, the member that was drawn first is returned.
/// Members whose `weight` is `None` do not take part; the result is `None` if no member takes part.
///
/// `random` is 64 uniformly random bits. `weight` is called up to three times for each member, and `in_flight` at
/// most twice.
pub(super) fn less_loaded_of_two(
    random: u64,
    members: impl Iterator<Item = MemberIndex> + Clone,
    weight: impl Fn(MemberIndex) -> Option<Weight>,
    in_flight: impl Fn(MemberIndex) -> u32,
) -> Option<MemberIndex> {
    let total = members
        .clone()
        .filter_map(&weight)
        .map(|weight| u64::from(weight.get()))
        .sum();
    let (first, first_weight) = draw(below(total, random), members.clone(), &weight)?;
    let others = |member| if member == first { None } else { weight(member) };
    // The multiplication by an odd constant derives a second number from the same bits. Its carries reach the high
    // bits, which are the bits that `below` uses.
    let second_random = (random ^ random >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let second_draw = draw(
        below(total.saturating_sub(first_weight), second_random),
        members,
        others,
    );
    let Some((second, second_weight)) = second_draw else {
        return Some(first);
    };
    // Compares in_flight / weight of both members without a division.
    let is_second_less_loaded =
        u64::from(in_flight(second)) * first_weight < u64::from(in_flight(first)) * second_weight;
    Some(if is_second_less_loaded { second } else { first })
}

/// Returns the member in whose interval `point` lies, and its weight. The intervals of all members are laid end to
/// end, each as long as the weight of its member. If `point` lies past the end, which can happen only when weights
/// change between two calls, the last member is returned.
fn draw(
    mut point: u64,
    members: impl Iterator<Item = MemberIndex>,
    weight: impl Fn(MemberIndex) -> Option<Weight>,
) -> Option<(MemberIndex, u64)> {
    let mut last = None;
    for member in members {
        let Some(weight) = weight(member) else { continue };
        let weight = u64::from(weight.get());
        last = Some((member, weight));
        match point.checked_sub(weight) {
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

    fn members(len: usize) -> impl Iterator<Item = MemberIndex> + Clone {
        (0..len).map(MemberIndex::new)
    }

    fn weights(weights: &[u32]) -> impl Fn(MemberIndex) -> Option<Weight> {
        |member| Weight::new(weights[member.as_usize()])
    }

    #[test]
    fn pools_of_no_one_and_two_members() {
        for n in 0..1_000 {
            let pick = |weight: &[u32], load: [u32; 3]| {
                let load = |member: MemberIndex| load[member.as_usize()];
                less_loaded_of_two(random(n), members(weight.len()), weights(weight), load).map(MemberIndex::as_usize)
            };
            assert_eq!(pick(&[], [0; 3]), None);
            assert_eq!(pick(&[0, 0], [0; 3]), None);
            assert_eq!(pick(&[0, 5, 0], [0, 9, 0]), Some(1));
            // With two members, both are always drawn, so the load per weight decides.
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
            let picked = less_loaded_of_two(rng.u64(..), members(3), weights(&[1, 2, 7]), |_| 0);
            picks[picked.unwrap().as_usize()] += 1.0 / 100_000.0;
        }
        for (share, ideal) in picks.into_iter().zip([0.1, 0.2, 0.7]) {
            assert!((share / ideal - 1.0f64).abs() < 0.05, "{picks:?}");
        }
    }

    #[test]
    fn the_second_draw_follows_weight_too() {
        // The heaviest member is nearly always drawn first and is full, so the member that is picked was drawn
        // second.
        let mut rng = fastrand::Rng::with_seed(2);
        let mut picks = [0.0; 4];
        for _ in 0..100_000 {
            let load = |member: MemberIndex| if member.as_usize() == 3 { u32::MAX } else { 0 };
            let picked = less_loaded_of_two(rng.u64(..), members(4), weights(&[1, 2, 7, 90]), load);
            picks[picked.unwrap().as_usize()] += 1.0 / 100_000.0;
        }
        assert_eq!(picks[3], 0.0);
        for (share, ideal) in picks.into_iter().zip([0.1, 0.2, 0.7]) {
            assert!((share / ideal - 1.0f64).abs() < 0.05, "{picks:?}");
        }
    }

    /// The requests of this test never end. With one random choice, the fullest of 100 members would hold about 130
    /// requests at a mean of 100.
    #[test]
    fn all_members_get_nearly_the_same_load() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut loads = [0u32; 100];
        for _ in 0..10_000 {
            let load = |member: MemberIndex| loads[member.as_usize()];
            let picked = less_loaded_of_two(rng.u64(..), members(100), |_| Some(Weight::ONE), load);
            loads[picked.unwrap().as_usize()] += 1;
        }
        assert!(loads.iter().all(|load| (95..=104).contains(load)), "{loads:?}");
    }

    proptest! {
        #[test]
        fn only_members_that_take_part_are_picked(
            random: u64,
            pool in prop::collection::vec((prop::option::of(1..=Weight::MAX), any::<u32>()), 0..20),
        ) {
            let weight = |member: MemberIndex| pool[member.as_usize()].0.and_then(Weight::new);
            let load = |member: MemberIndex| pool[member.as_usize()].1;
            match less_loaded_of_two(random, members(pool.len()), weight, load) {
                Some(member) => prop_assert!(pool[member.as_usize()].0.is_some()),
                None => prop_assert!(pool.iter().all(|(weight, _)| weight.is_none())),
            }
        }
    }
}
