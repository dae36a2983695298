//! Examples of each rule, and a comparison with an oracle that follows the rules in their order.

use crate::policy::LimitCause;
use std::{cell::RefCell, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::policy::session::Route;

fn at(seconds: u64) -> Tick {
    Tick::ZERO.after(Duration::from_secs(seconds))
}

const NOW: u64 = 100;

/// The state of one upstream at the time of a request.
#[derive(Clone, Copy, Debug)]
struct UpstreamCase {
    availability: Availability,
    is_tried: bool,
}

fn candidate(index: usize) -> Candidate {
    let route = if index == 0 { Route::Pin } else { Route::Moved };
    Candidate {
        index: MemberIndex::new(index),
        route,
    }
}

fn limits(stays: u64, waits: u64) -> WaitLimits {
    WaitLimits {
        now: at(NOW),
        stays_until: if stays == 0 { Tick::ZERO } else { at(NOW + stays) },
        waits_until: at(NOW + waits),
        resets_until: Tick::ZERO,
        recovers_until: Tick::ZERO,
    }
}

fn decide(pool: &[UpstreamCase], limits: &WaitLimits) -> Decision {
    let case = |index: MemberIndex| pool[index.as_usize()];
    select(
        (0..pool.len()).map(candidate),
        |index| case(index).is_tried,
        |index| case(index).availability,
        limits,
    )
}

/// The five rules, one after the other, each applied to the whole pool.
fn oracle(pool: &[UpstreamCase], limits: &WaitLimits) -> Decision {
    let untried = || (0..pool.len()).filter(|index| !pool[*index].is_tried);
    let ready = |index: &usize| pool[*index].availability == Availability::Ready;
    let wait = |index: usize, until| Decision::Wait {
        candidate: candidate(index),
        until,
    };

    if let Some(0) = untried().next() {
        match pool[0].availability {
            Availability::Ready => return Decision::Send(candidate(0)),
            Availability::Full if limits.stays_until > limits.now => return wait(0, limits.stays_until),
            Availability::Cooling { until, .. } if until <= limits.stays_until => return wait(0, until),
            _ => {}
        }
    }
    if let Some(index) = untried().find(ready) {
        return Decision::Send(candidate(index));
    }
    let limit = limits.stays_until.max(limits.waits_until);
    let earliest = untried()
        .filter_map(|index| match pool[index].availability {
            Availability::Cooling { until, .. } if until <= limit.max(limits.resets_until) => Some((until, index)),
            Availability::Ejected { until } | Availability::Disabled { until } if until <= limit => {
                Some((until, index))
            }
            _ => None,
        })
        .reduce(|best, next| if best.0.since(next.0) > NEAR_RESETS { next } else { best });
    let full = untried().find(|index| pool[*index].availability == Availability::Full);
    if let Some(full) = full.filter(|_| limits.now < limit) {
        return wait(full, earliest.map_or(limit, |(until, _)| until.min(limit)));
    }
    if let Some((until, index)) = earliest {
        return wait(index, until);
    }
    let changes = untried().flat_map(|index| match pool[index].availability {
        Availability::Ejected { until } | Availability::Disabled { until } => {
            vec![until.min(limits.recovers_until)]
        }
        Availability::Draining => vec![limits.recovers_until],
        _ => Vec::new(),
    });
    if let Some(until) = changes.filter(|until| limits.now < *until).min() {
        return Decision::WaitForChange { until };
    }
    Decision::NoUpstream
}

fn case(availability: Availability) -> UpstreamCase {
    UpstreamCase {
        availability,
        is_tried: false,
    }
}

#[test]
fn a_session_waits_only_for_its_own_upstream() {
    let (cooling, ready) = (
        Availability::Cooling {
            until: at(NOW + 5),
            cause: LimitCause::Rate,
        },
        case(Availability::Ready),
    );
    let [own, other] = [0, 1].map(candidate);
    for (availability, stays, decision) in [
        (
            Availability::Full,
            5,
            Decision::Wait {
                candidate: own,
                until: at(NOW + 5),
            },
        ),
        (Availability::Full, 0, Decision::Send(other)),
        (
            cooling,
            5,
            Decision::Wait {
                candidate: own,
                until: at(NOW + 5),
            },
        ),
        (cooling, 4, Decision::Send(other)),
        (Availability::Ejected { until: at(NOW + 1) }, 60, Decision::Send(other)),
        (
            Availability::Disabled { until: at(NOW + 300) },
            60,
            Decision::Send(other),
        ),
        (Availability::Draining, 60, Decision::Send(other)),
    ] {
        assert_eq!(
            decide(&[case(availability), ready], &limits(stays, 2)),
            decision,
            "{availability:?} {stays}"
        );
    }
    let tried = UpstreamCase {
        is_tried: true,
        ..case(cooling)
    };
    assert_eq!(decide(&[tried, ready], &limits(60, 2)), Decision::Send(other));
    let no_patience_for_others = [tried, case(cooling), ready];
    assert_eq!(
        decide(&no_patience_for_others, &limits(60, 2)),
        Decision::Send(candidate(2))
    );
}

#[test]
fn every_request_waits_for_the_earliest_reset_if_no_candidate_is_ready() {
    let cooling = |seconds| {
        case(Availability::Cooling {
            until: at(NOW + seconds),
            cause: LimitCause::Rate,
        })
    };
    let disabled = case(Availability::Disabled { until: at(NOW + 300) });
    let full = case(Availability::Full);
    let wait = |index, seconds| Decision::Wait {
        candidate: candidate(index),
        until: at(NOW + seconds),
    };
    // A new session, which waits 2 s for a slot and 60 s for a reset.
    let new = WaitLimits {
        resets_until: at(NOW + 60),
        ..limits(0, 2)
    };
    for (pool, expected) in [
        (vec![cooling(30), cooling(10), cooling(20)], wait(1, 10)),
        (vec![disabled, cooling(60)], wait(1, 60)),
        (vec![cooling(1), full], wait(1, 1)),
        (vec![cooling(30), full], wait(1, 2)),
        (
            vec![cooling(30), case(Availability::Ready)],
            Decision::Send(candidate(1)),
        ),
    ] {
        assert_eq!(decide(&pool, &new), expected, "{pool:?}");
    }
    let late = WaitLimits {
        now: at(NOW + 5),
        ..new
    };
    assert_eq!(decide(&[cooling(30), full], &late), wait(0, 30), "no slot became free");
}

#[test]
fn of_resets_at_about_the_same_time_that_of_the_best_candidate_is_waited_for() {
    let cooling = |millis| Availability::Cooling {
        until: at(NOW).after(Duration::from_millis(millis)),
        cause: LimitCause::Rate,
    };
    // A session that has waited for its own upstream for as long as its patience allows.
    let limits = WaitLimits {
        resets_until: at(NOW + 60),
        ..limits(0, 0)
    };
    for (resets, expected) in [
        ([5_500, 5_000], 0),
        ([5_501, 5_000], 1),
        ([5_000, 5_000], 0),
        ([5_000, 5_500], 0),
    ] {
        let decision = decide(&resets.map(|millis| case(cooling(millis))), &limits);
        assert_eq!(
            decision,
            Decision::Wait {
                candidate: candidate(expected),
                until: at(NOW).after(Duration::from_millis(resets[expected])),
            },
            "{resets:?}"
        );
    }
}

#[test]
fn only_a_request_with_owned_state_waits_for_a_recovery() {
    let draining = case(Availability::Draining);
    let disabled = case(Availability::Disabled { until: at(NOW + 300) });
    let due_soon = case(Availability::Disabled { until: at(NOW + 3) });
    let ejected = case(Availability::Ejected { until: at(NOW + 30) });
    let owned = WaitLimits {
        recovers_until: at(NOW + 10),
        ..limits(10, 2)
    };
    let until = |seconds| Decision::WaitForChange {
        until: at(NOW + seconds),
    };
    for (pool, expected) in [
        (vec![draining], until(10)),
        (vec![disabled], until(10)),
        (vec![ejected, disabled], until(10)),
        (
            vec![disabled, due_soon],
            Decision::Wait {
                candidate: candidate(1),
                until: at(NOW + 3),
            },
        ),
    ] {
        assert_eq!(decide(&pool, &owned), expected, "{pool:?}");
        let waits = matches!(decide(&pool, &limits(10, 2)), Decision::WaitForChange { .. });
        assert!(!waits, "{pool:?}: other requests do not wait");
    }
}

#[test]
fn in_a_total_outage_a_request_waits_for_a_probe_that_is_due_soon_and_else_for_nothing() {
    let ejected = |seconds| {
        case(Availability::Ejected {
            until: at(NOW + seconds),
        })
    };
    let disabled = |seconds| {
        case(Availability::Disabled {
            until: at(NOW + seconds),
        })
    };
    let cooling = case(Availability::Cooling {
        until: at(NOW + 90),
        cause: LimitCause::Quota,
    });
    let pool = [
        ejected(30),
        ejected(20),
        disabled(300),
        cooling,
        case(Availability::Draining),
    ];
    assert_eq!(decide(&pool, &limits(0, 2)), Decision::NoUpstream);
    let wait = |index, seconds| Decision::Wait {
        candidate: candidate(index),
        until: at(NOW + seconds),
    };
    assert_eq!(decide(&pool, &limits(0, 20)), wait(1, 20));
    assert_eq!(decide(&[ejected(30), disabled(1)], &limits(0, 2)), wait(1, 1));
    assert_eq!(
        decide(&[case(Availability::Full), case(Availability::Draining)], &limits(0, 0)),
        Decision::NoUpstream
    );
    assert_eq!(decide(&[], &limits(60, 60)), Decision::NoUpstream);
}

#[test]
fn a_ready_own_upstream_is_selected_without_a_look_at_the_others() {
    let asked = RefCell::new(Vec::new());
    let decision = select(
        (0..)
            .map(candidate)
            .inspect(|candidate| asked.borrow_mut().push(candidate.index)),
        |_| false,
        |_| Availability::Ready,
        &limits(0, 0),
    );
    assert_eq!(
        (decision, asked.into_inner()),
        (Decision::Send(candidate(0)), vec![MemberIndex::new(0)])
    );
}

fn availabilities() -> impl Strategy<Value = Availability> {
    let until = || (2u32..16).prop_map(|halves| at(NOW).after(NEAR_RESETS * halves));
    prop_oneof![
        Just(Availability::Ready),
        Just(Availability::Full),
        until().prop_map(|until| Availability::Cooling {
            until,
            cause: LimitCause::Rate
        }),
        until().prop_map(|until| Availability::Ejected { until }),
        until().prop_map(|until| Availability::Disabled { until }),
        Just(Availability::Draining),
    ]
}

fn pools() -> impl Strategy<Value = Vec<UpstreamCase>> {
    let case = (availabilities(), prop::bool::weighted(0.3));
    let case = case.prop_map(|(availability, is_tried)| UpstreamCase { availability, is_tried });
    prop::collection::vec(case, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn a_selection_follows_the_rules_in_their_order(
        pool in pools(), stays in 0u64..8, waits in 0u64..8, resets in 0u64..12, is_owned: bool,
    ) {
        let limits = limits(stays, waits);
        let limits = WaitLimits {
            resets_until: at(NOW + resets),
            recovers_until: if is_owned { limits.stays_until } else { Tick::ZERO },
            ..limits
        };
        prop_assert_eq!(decide(&pool, &limits), oracle(&pool, &limits));
    }
}
