use std::{cell::RefCell, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::policy::session::Route;

fn at(seconds: u64) -> Tick {
    Tick::ZERO.after(Duration::from_secs(seconds))
}

const NOW: u64 = 100;

/// One upstream as a request finds it.
#[derive(Clone, Copy, Debug)]
struct Found {
    standing: Standing,
    is_probing: bool,
    is_full: bool,
    is_tried: bool,
}

impl Found {
    fn badness(self) -> Option<Badness> {
        match self.standing {
            Standing::Draining | Standing::Full => None,
            _ if self.is_full => None,
            Standing::Ready => Some(Badness::Back(at(NOW))),
            Standing::Ejected { until } if self.is_probing => Some(Badness::Probing(until)),
            Standing::Cooling { until } | Standing::Ejected { until } => Some(Badness::Back(until)),
            Standing::Disabled => Some(Badness::Disabled(at(NOW + 300))),
        }
    }
}

fn candidate(index: usize) -> Candidate {
    let route = if index == 0 { Route::Pin } else { Route::Moved };
    Candidate { index, route }
}

fn terms(stays: u64, waits: u64) -> Terms {
    Terms {
        now: at(NOW),
        stays_until: if stays == 0 { Tick::ZERO } else { at(NOW + stays) },
        waits_until: at(NOW + waits),
    }
}

fn decide(pool: &[Found], terms: &Terms) -> Decision {
    let standing = |index: usize| pool[index].standing;
    let badness = |index: usize| pool[index].badness();
    select(
        (0..pool.len()).map(candidate),
        |index| pool[index].is_tried,
        standing,
        badness,
        terms,
    )
}

/// The five rules, one after the other, each over the whole pool.
fn oracle(pool: &[Found], terms: &Terms) -> Decision {
    let untried = || (0..pool.len()).filter(|index| !pool[*index].is_tried);
    let ready = |index: &usize| pool[*index].standing == Standing::Ready;
    let wait = |index: usize, until| Decision::Wait {
        candidate: candidate(index),
        until,
    };

    if let Some(0) = untried().next() {
        match pool[0].standing {
            Standing::Ready => return Decision::Send(candidate(0)),
            Standing::Full if terms.stays_until > terms.now => return wait(0, terms.stays_until),
            Standing::Cooling { until } if until <= terms.stays_until => return wait(0, until),
            _ => {}
        }
    }
    if let Some(index) = untried().find(ready) {
        return Decision::Send(candidate(index));
    }
    let limit = terms.stays_until.max(terms.waits_until);
    for index in untried() {
        let is_probing = pool[index].is_probing && !pool[index].is_full;
        match pool[index].standing {
            Standing::Full if limit > terms.now => return wait(index, limit),
            Standing::Cooling { until } | Standing::Ejected { until } if until <= limit => return wait(index, until),
            Standing::Ejected { .. } if is_probing && limit > terms.now => return wait(index, limit),
            _ => {}
        }
    }
    let least = untried()
        .filter_map(|index| Some((pool[index].badness()?, index)))
        .min();
    least.map_or(Decision::Nobody, |(_, index)| Decision::LeastBad(candidate(index)))
}

fn found(standing: Standing) -> Found {
    Found {
        standing,
        is_probing: false,
        is_full: false,
        is_tried: false,
    }
}

#[test]
fn a_session_waits_for_its_own_and_for_nobody_else() {
    let (cooling, ready) = (Standing::Cooling { until: at(NOW + 5) }, found(Standing::Ready));
    let [own, other] = [0, 1].map(candidate);
    for (standing, stays, decision) in [
        (
            Standing::Full,
            5,
            Decision::Wait {
                candidate: own,
                until: at(NOW + 5),
            },
        ),
        (Standing::Full, 0, Decision::Send(other)),
        (
            cooling,
            5,
            Decision::Wait {
                candidate: own,
                until: at(NOW + 5),
            },
        ),
        (cooling, 4, Decision::Send(other)),
        (Standing::Ejected { until: at(NOW + 1) }, 60, Decision::Send(other)),
        (Standing::Disabled, 60, Decision::Send(other)),
        (Standing::Draining, 60, Decision::Send(other)),
    ] {
        assert_eq!(
            decide(&[found(standing), ready], &terms(stays, 2)),
            decision,
            "{standing:?} {stays}"
        );
    }
    let tried = Found {
        is_tried: true,
        ..found(cooling)
    };
    assert_eq!(decide(&[tried, ready], &terms(60, 2)), Decision::Send(other));
    let no_patience_for_others = [tried, found(cooling), ready];
    assert_eq!(
        decide(&no_patience_for_others, &terms(60, 2)),
        Decision::Send(candidate(2))
    );
}

#[test]
fn when_all_are_out_the_soonest_back_is_tried_and_a_probe_is_left_alone() {
    let ejected = |seconds| {
        found(Standing::Ejected {
            until: at(NOW + seconds),
        })
    };
    let probing = Found {
        is_probing: true,
        ..ejected(8)
    };
    let [first, second] = [0, 1].map(candidate);
    assert_eq!(
        decide(&[ejected(30), ejected(20)], &terms(0, 2)),
        Decision::LeastBad(second)
    );
    assert_eq!(
        decide(&[probing, ejected(20)], &terms(0, 0)),
        Decision::LeastBad(second)
    );
    assert_eq!(
        decide(&[probing, found(Standing::Disabled)], &terms(0, 0)),
        Decision::LeastBad(first)
    );
    let verdict = Decision::Wait {
        candidate: first,
        until: at(NOW + 2),
    };
    assert_eq!(decide(&[probing, ejected(20)], &terms(0, 2)), verdict);
    assert_eq!(
        decide(&[found(Standing::Full), found(Standing::Draining)], &terms(0, 0)),
        Decision::Nobody
    );
    assert_eq!(decide(&[], &terms(60, 60)), Decision::Nobody);
}

#[test]
fn a_request_whose_own_upstream_is_ready_asks_nothing_else() {
    let asked = RefCell::new(Vec::new());
    let decision = select(
        (0..)
            .map(candidate)
            .inspect(|candidate| asked.borrow_mut().push(candidate.index)),
        |_| false,
        |_| Standing::Ready,
        |_| panic!("nobody is bad"),
        &terms(0, 0),
    );
    assert_eq!((decision, asked.into_inner()), (Decision::Send(candidate(0)), vec![0]));
}

fn standings() -> impl Strategy<Value = Standing> {
    let until = || (1u64..8).prop_map(|seconds| at(NOW + seconds));
    prop_oneof![
        Just(Standing::Ready),
        Just(Standing::Full),
        until().prop_map(|until| Standing::Cooling { until }),
        until().prop_map(|until| Standing::Ejected { until }),
        Just(Standing::Disabled),
        Just(Standing::Draining),
    ]
}

fn pools() -> impl Strategy<Value = Vec<Found>> {
    let found = (standings(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.3)).prop_map(
        |(standing, is_probing, is_full, is_tried)| Found {
            standing,
            is_probing,
            is_full,
            is_tried,
        },
    );
    prop::collection::vec(found, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn the_rules_hold_one_after_the_other(pool in pools(), stays in 0u64..8, waits in 0u64..8) {
        let terms = terms(stays, waits);
        prop_assert_eq!(decide(&pool, &terms), oracle(&pool, &terms));
    }
}
