//! Tests of all policies together, in a simulation with a seed.
//!
//! The simulation uses the real code for every decision: pins, rendezvous, candidates, health, budget, patience and
//! `select`. It simulates the upstreams ([`upstream`]), the clients and the trouble of the upstreams ([`timeline`]),
//! and the loop that sends a request until it is served ([`request`]), which is the gateway's loop without its sockets.
//! Once per second, the upstreams are compared with each other ([`outliers`]).
//! Time is a number that jumps from event to event. So half an hour takes some milliseconds, and a seed always gives
//! the same simulation.
//!
//! The invariants that must hold in every simulation are in [`invariants`], written from the rules and not from the
//! code. If an invariant is violated, the test names the seed; `run(&Plan::chaos(seed))` repeats the simulation.

use std::{panic, thread, time::Duration};

mod history;
mod invariants;
mod outcomes;
mod outliers;
mod plan;
mod request;
mod sent;
mod timeline;
mod upstream;
mod verdicts;
mod world;

use plan::{Focus, Plan, SimulationCounts};
use world::World;

use super::Patience;

fn run(plan: &Plan) -> SimulationCounts {
    let simulation = panic::AssertUnwindSafe(|| World::new(plan).run());
    panic::catch_unwind(simulation)
        .unwrap_or_else(|_| panic!("the simulation with seed {} failed; see the panic above", plan.seed))
}

/// Runs many simulations on all processors, and returns the sum of their counts.
fn run_all(plans: &[Plan]) -> SimulationCounts {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut sum = SimulationCounts::default();
    thread::scope(|scope| {
        let part = |first: usize| {
            let mut sum = SimulationCounts::default();
            plans
                .iter()
                .skip(first)
                .step_by(threads)
                .for_each(|plan| sum += run(plan));
            sum
        };
        let parts: Vec<_> = (0..threads).map(|first| scope.spawn(move || part(first))).collect();
        for part in parts {
            sum += part.join().expect("a simulation failed; its seed is printed above");
        }
    });
    sum
}

#[test]
fn the_invariants_hold_in_random_simulations() {
    let plans: Vec<Plan> = (0..600).map(Plan::chaos).collect();
    let mut counts = run_all(&plans);
    // The counts show that the simulations exercised every kind of event.
    assert!(counts.as_array().into_iter().all(|count| *count > 0), "{counts:?}");
    assert!(counts.served * 2 > counts.requests, "{counts:?}");
}

#[test]
fn an_upstream_that_fails_a_fifth_to_a_half_of_its_requests_is_ejected_soon() {
    let plans = (0..60).map(|seed| {
        let percent = 20 + u8::try_from(seed % 26).expect("below 26");
        Plan::focused(seed, Focus::HalfBroken { percent })
    });
    let mut sum = SimulationCounts::default();
    for plan in plans {
        let counts = run(&plan);
        assert!(counts.ejections > 0, "{plan:?} {counts:?}");
        sum += counts;
    }
    assert!(sum.outliers > 40, "{sum:?}");
    assert!(sum.before_ejection < 60 * 60, "{sum:?}");
    assert!(
        sum.served + sum.left + sum.refused >= sum.requests,
        "no request is lost that has a retry: {sum:?}"
    );
    assert!(sum.refused * 200 < sum.requests, "few requests get no retry: {sum:?}");
}

#[test]
fn sessions_avoid_a_slow_upstream() {
    let plans = |factor| {
        (0..20)
            .map(move |seed| Plan::focused(seed, Focus::Slow { factor }))
            .collect::<Vec<_>>()
    };
    let (normal, slow) = (run_all(&plans(1)), run_all(&plans(5)));
    assert!(slow.avoided > 20, "{slow:?}");
    assert!(normal.avoided * 5 < slow.avoided, "{normal:?} {slow:?}");
    assert!(slow.moves > normal.moves, "pinned sessions leave: {normal:?} {slow:?}");
    assert_eq!((slow.ejections, slow.refused), (0, 0), "{slow:?}");
    assert!(slow.served + slow.left >= slow.requests, "no request is lost: {slow:?}");
}

#[test]
fn requests_that_fail_everywhere_eject_no_upstream() {
    let plans: Vec<Plan> = (0..40).map(|seed| Plan::focused(seed, Focus::Poisoned)).collect();
    let counts = run_all(&plans);
    assert_eq!(counts.ejections, 0, "{counts:?}");
    assert!(counts.forgiven > 1_000, "{counts:?}");
}

/// This test shows the purpose of patience with upstreams that reach their limits now and then.
#[test]
fn patience_reduces_moves_and_keeps_more_input_cached() {
    let with = |patience: Patience| {
        let plan = |seed| Plan {
            patience,
            only_limits: true,
            requests: 400,
            ..Plan::chaos(seed)
        };
        run_all(&(1..25).map(plan).collect::<Vec<_>>())
    };
    let with_patience = with(Plan::chaos(0).patience);
    let without_patience = with(Patience {
        wait_max: Duration::ZERO,
        ..Plan::chaos(0).patience
    });
    let cached = |counts: &SimulationCounts| counts.cached_bytes as f64 / counts.input_bytes as f64;
    assert!(
        with_patience.moves < without_patience.moves,
        "{with_patience:?} {without_patience:?}"
    );
    assert!(
        cached(&with_patience) > cached(&without_patience),
        "{with_patience:?} {without_patience:?}"
    );
}
