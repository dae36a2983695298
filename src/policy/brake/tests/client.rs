//! A client that retries as Codex does, against upstreams that fail: how many requests reach an upstream, and when the
//! client is served again.

use std::collections::HashSet;

use super::*;
use crate::{
    ids::UpstreamId,
    policy::avoidance::{Avoidance, SessionFailure},
};

/// The number of upstreams that a request is tried at.
const ATTEMPTS: usize = 3;
/// The pauses of Codex after the failed requests of one round, in milliseconds. A turn has six rounds.
const PAUSES: [u64; 5] = [200, 400, 800, 1_600, 3_200];
const ROUNDS: usize = 6;

/// One session of a gateway: its brake, and the upstreams that it avoids.
struct Session {
    upstreams: Vec<UpstreamId>,
    brake: Brake,
    avoidance: Avoidance,
    /// The upstreams that were called, in their order.
    called: Vec<UpstreamId>,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Served,
    Failed,
    Refused { until: Tick },
}

impl Session {
    fn new(upstreams: usize) -> Self {
        let names = (0..upstreams).map(|number| UpstreamId::from_name(&number.to_string()));
        Self {
            upstreams: names.collect(),
            brake: Brake::of_session(),
            avoidance: Avoidance::default(),
            called: Vec::new(),
        }
    }

    /// The upstreams in the order in which the session tries them.
    fn candidates(&self, now: Tick) -> Vec<UpstreamId> {
        let avoided: Vec<_> = self.avoidance.upstreams(now).collect();
        let preferred = self.upstreams.iter().filter(|upstream| !avoided.contains(upstream));
        preferred.copied().chain(avoided.iter().copied()).collect()
    }

    /// Sends one request. Each attempt takes `latency` milliseconds.
    fn send(&mut self, millis: &mut u64, latency: u64, works: impl Fn(UpstreamId) -> bool) -> Answer {
        let begun = at(*millis);
        let (probe, attempts) = match self.brake.admit(begun) {
            BrakeDecision::Normal => (None, ATTEMPTS),
            BrakeDecision::Probe(probe) => (Some(probe), 1),
            BrakeDecision::Refuse { until } => return Answer::Refused { until },
        };
        let tried: Vec<_> = self.candidates(begun).into_iter().take(attempts).collect();
        for upstream in &tried {
            *millis += latency;
            self.called.push(*upstream);
            if works(*upstream) {
                self.brake.end();
                self.avoidance.record_answer(*upstream, at(*millis));
                return Answer::Served;
            }
        }
        let now = at(*millis);
        self.brake.record_failure(begun, probe, now);
        for upstream in tried {
            self.avoidance.record(upstream, SessionFailure::Everywhere, now);
        }
        Answer::Failed
    }
}

proptest! {
    #[test]
    fn a_turn_of_codex_is_at_most_twelve_requests_upstream_and_is_served_when_an_upstream_works(
        upstreams in 1usize..=6,
        latency in 0u64..300,
        jitter in prop::collection::vec(0.9f64..1.1, ROUNDS * PAUSES.len()),
        heeds_retry_after in any::<bool>(),
        recovered in any::<prop::sample::Index>(),
    ) {
        let mut session = Session::new(upstreams);
        let mut millis = 10;
        for (pause, jitter) in PAUSES.iter().cycle().zip(jitter) {
            let answer = session.send(&mut millis, latency, |_| false);
            prop_assert!(answer != Answer::Served);
            millis += match answer {
                // Codex waits as long as `retry-after` says, which is in whole seconds; other clients do not.
                Answer::Refused { until } if heeds_retry_after => {
                    let wait = until.since(at(millis)).min(MAX_RETRY_AFTER);
                    wait.as_millis().div_ceil(1_000) as u64 * 1_000
                }
                _ => (*pause as f64 * jitter) as u64,
            };
        }
        prop_assert!(session.called.len() <= 12, "{} requests", session.called.len());
        let called: HashSet<_> = session.called.iter().collect();
        prop_assert_eq!(called.len(), upstreams, "every upstream is tried");

        // One upstream works again. A client that comes back when it is told to is served by one of the next probes.
        let recovered = *recovered.get(&session.upstreams);
        let mut probes = 0;
        loop {
            match session.send(&mut millis, latency, |upstream| upstream == recovered) {
                Answer::Served => break,
                Answer::Failed => probes += 1,
                Answer::Refused { until } => {
                    prop_assert!(until.since(at(millis)) <= SESSION.max_delay);
                    millis = until.since(Tick::ZERO).as_millis() as u64 + 1;
                }
            }
            prop_assert!(probes < upstreams, "the probes go to one upstream after the other");
        }
        prop_assert_eq!(session.send(&mut millis, latency, |_| true), Answer::Served);
    }
}

#[test]
fn all_upstreams_work_again_and_the_next_probe_is_served() {
    let mut session = Session::new(3);
    let mut millis = 0;
    for _ in 0..2 {
        assert_eq!(session.send(&mut millis, 10, |_| false), Answer::Failed);
    }
    let Answer::Refused { until } = session.send(&mut millis, 10, |_| true) else {
        panic!("the session is braked")
    };
    millis = until.since(Tick::ZERO).as_millis() as u64;
    assert_eq!(session.send(&mut millis, 10, |_| true), Answer::Served);
    assert_eq!(session.called.len(), 7);
}

#[test]
fn a_request_that_no_upstream_serves_is_tried_at_all_of_them() {
    let mut session = Session::new(6);
    let mut millis = 0;
    let last = session.upstreams[5];
    assert_eq!(
        session.send(&mut millis, 10, |upstream| upstream == last),
        Answer::Failed
    );
    assert_eq!(
        session.send(&mut millis, 10, |upstream| upstream == last),
        Answer::Served
    );
    assert_eq!(session.called, session.upstreams);
}
