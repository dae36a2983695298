//! The policies together, in a small world with a seed.
//!
//! Everything that decides is the real thing: pins, rendezvous, candidates, health, budget, patience and `select`. Made up
//! are the upstreams ([`upstream`]), what happens to them and who calls ([`world`]), and the loop that sends a request
//! until it is served ([`request`]), which is the gateway's without its sockets. Time is a number that jumps from event
//! to event, so that half an hour takes some milliseconds, and a seed always tells the same story.
//!
//! What must hold whatever happens is in [`invariants`], written from the rules and not from the code. A seed that breaks
//! one names itself; `run(&Plan::chaos(seed))` tells its story again.

use std::{ops::AddAssign, panic, thread, time::Duration};

use super::Patience;
use crate::tick::Tick;

mod history;
mod invariants;
mod request;
mod upstream;
mod world;

use world::World;

/// How often a request is sent at most.
const ATTEMPTS: u32 = 3;
/// Retries a request.
const SHARE: f64 = 0.2;

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What kind of world it is.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    /// How many requests come while things happen to the upstreams, and for how long.
    requests: u32,
    chaos: Duration,
    patience: Patience,
    /// Limits with a named end, and slots: the upstreams work otherwise.
    only_limits: bool,
}

impl Plan {
    /// Anything may happen.
    fn chaos(seed: u64) -> Self {
        // Where requests are few, the free retries always suffice.
        let is_storm = seed.is_multiple_of(40);
        Self {
            seed,
            requests: if is_storm { 1_200 } else { 150 },
            chaos: if is_storm { secs(15) } else { secs(150) },
            patience: Patience {
                wait: secs(2),
                reread_rate: 5_000,
                wait_max: secs(60),
            },
            only_limits: false,
        }
    }
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default)]
struct SimulationCounts {
    requests: u64,
    served: u64,
    retries: u64,
    /// No budget for a retry.
    refused: u64,
    least_bad: u64,
    waits: u64,
    /// A session's cache was moved.
    moves: u64,
    probes: u64,
    ejections: u64,
    cooldowns: u64,
    disabled: u64,
    /// Requests kept within an organization.
    owned: u64,
    left: u64,
    input_bytes: u64,
    cached_bytes: u64,
}

impl SimulationCounts {
    fn as_array(&mut self) -> [&mut u64; 15] {
        [
            &mut self.requests,
            &mut self.served,
            &mut self.retries,
            &mut self.refused,
            &mut self.least_bad,
            &mut self.waits,
            &mut self.moves,
            &mut self.probes,
            &mut self.ejections,
            &mut self.cooldowns,
            &mut self.disabled,
            &mut self.owned,
            &mut self.left,
            &mut self.input_bytes,
            &mut self.cached_bytes,
        ]
    }
}

impl AddAssign for SimulationCounts {
    fn add_assign(&mut self, mut other: Self) {
        for (sum, count) in self.as_array().into_iter().zip(other.as_array()) {
            *sum += *count;
        }
    }
}

fn run(plan: &Plan) -> SimulationCounts {
    let story = panic::AssertUnwindSafe(|| World::new(plan).run());
    panic::catch_unwind(story)
        .unwrap_or_else(|_| panic!("the simulation with seed {} failed, as said above", plan.seed))
}

/// The sum over many worlds, on all processors.
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
            sum += part
                .join()
                .expect("a world came to a bad end; its seed is printed above");
        }
    });
    sum
}

#[test]
fn whatever_happens_the_invariants_hold() {
    let plans: Vec<Plan> = (0..1_000).map(Plan::chaos).collect();
    let mut counts = run_all(&plans);
    // A world in which nothing happens proves nothing.
    assert!(counts.as_array().into_iter().all(|count| *count > 100), "{counts:?}");
    assert!(counts.served * 2 > counts.requests, "{counts:?}");
}

/// What patience is for: upstreams that run into their limits now and then.
#[test]
fn patience_keeps_sessions_and_their_caches_where_they_are() {
    let with = |patience: Patience| {
        let plan = |seed| Plan {
            patience,
            only_limits: true,
            requests: 400,
            ..Plan::chaos(seed)
        };
        run_all(&(1..25).map(plan).collect::<Vec<_>>())
    };
    let patient = with(Plan::chaos(0).patience);
    let impatient = with(Patience {
        wait_max: Duration::ZERO,
        ..Plan::chaos(0).patience
    });
    let cached = |counts: &SimulationCounts| counts.cached_bytes as f64 / counts.input_bytes as f64;
    assert!(patient.moves < impatient.moves, "{patient:?} {impatient:?}");
    assert!(cached(&patient) > cached(&impatient), "{patient:?} {impatient:?}");
}

/// A moment in seconds, for messages.
fn seconds(tick: Tick) -> f64 {
    tick.since(Tick::ZERO).as_secs_f64()
}
