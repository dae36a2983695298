//! The upstreams that a session avoids, because they have failed its last requests.
//!
//! Two failures do not count against the health of an upstream alone: a request that failed at several upstreams and was
//! served by none, and a response that broke after a part of it had reached the client. The client sends such a request
//! again. The session then prefers an upstream that has not failed it:
//!
//! - After a response that broke, the session avoids the upstream for [`AFTER_OUTPUT`].
//! - After a request that no upstream has served, the session avoids the upstreams that it was tried at, as long as the
//!   [brake](super::brake) remembers the failure. So if a request may be tried at three of six upstreams, the next one is
//!   tried at the other three, and the probes of a braked session go to one upstream after the other.
//!
//! Avoided upstreams are the last choice and not a forbidden one: a request goes to one of them if no other candidate is
//! ready, first to the upstream whose failure is the oldest. So a session with owned state stays in its organization.

use std::time::Duration;

use super::brake::FORGOTTEN_AFTER;
use crate::{ids::UpstreamId, tick::Tick};

/// How long a session avoids an upstream whose response broke after its first output.
pub const AFTER_OUTPUT: Duration = Duration::from_secs(30);
/// The maximum number of upstreams that a session avoids. The oldest failures are forgotten first.
pub const MAX_AVOIDED: usize = 16;

/// What an upstream has done to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionFailure {
    /// The upstream failed a request that no other upstream has served.
    Everywhere,
    /// The upstream broke a response, or reported a failure in it, after its first output.
    AfterOutput,
}

/// The upstreams that one session avoids. See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Avoidance {
    /// The oldest failure first; each upstream at most once.
    failures: Vec<Avoided>,
}

#[derive(Clone, Copy, Debug)]
struct Avoided {
    upstream: UpstreamId,
    until: Tick,
}

impl Avoidance {
    /// Records that `upstream` has failed a request of the session.
    pub fn record(&mut self, upstream: UpstreamId, failure: SessionFailure, now: Tick) {
        let until = now.after(match failure {
            SessionFailure::Everywhere => FORGOTTEN_AFTER,
            SessionFailure::AfterOutput => AFTER_OUTPUT,
        });
        self.failures
            .retain(|avoided| avoided.upstream != upstream && avoided.until > now);
        if self.failures.len() == MAX_AVOIDED {
            self.failures.remove(0);
        }
        self.failures.push(Avoided { upstream, until });
    }

    /// Records that `upstream` has answered a request of the session. The other upstreams that failed it are avoided for
    /// [`AFTER_OUTPUT`] at most.
    pub fn record_answer(&mut self, upstream: UpstreamId, now: Tick) {
        let until = now.after(AFTER_OUTPUT);
        self.failures
            .retain(|avoided| avoided.upstream != upstream && avoided.until > now);
        for avoided in &mut self.failures {
            avoided.until = avoided.until.min(until);
        }
    }

    /// The upstreams to avoid now, the oldest failure first.
    pub fn upstreams(&self, now: Tick) -> impl Iterator<Item = UpstreamId> {
        let current = self.failures.iter().filter(move |avoided| avoided.until > now);
        current.map(|avoided| avoided.upstream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::ZERO.after(Duration::from_secs(seconds))
    }

    fn avoided(avoidance: &Avoidance, now: Tick) -> Vec<UpstreamId> {
        avoidance.upstreams(now).collect()
    }

    #[test]
    fn the_oldest_failure_comes_first_and_each_upstream_once() {
        let [a, b, c] = ["a", "b", "c"].map(UpstreamId::from_name);
        let mut avoidance = Avoidance::default();
        for (upstream, second) in [(a, 0), (b, 1), (c, 2), (a, 3)] {
            avoidance.record(upstream, SessionFailure::Everywhere, at(second));
        }
        assert_eq!(avoided(&avoidance, at(4)), [b, c, a]);
    }

    #[test]
    fn a_broken_response_is_forgotten_sooner_than_a_request_that_failed_everywhere() {
        let [a, b] = ["a", "b"].map(UpstreamId::from_name);
        let mut avoidance = Avoidance::default();
        avoidance.record(a, SessionFailure::AfterOutput, at(0));
        avoidance.record(b, SessionFailure::Everywhere, at(0));
        assert_eq!(avoided(&avoidance, at(29)), [a, b]);
        assert_eq!(avoided(&avoidance, at(30)), [b]);
        let forgotten = FORGOTTEN_AFTER.as_secs();
        assert_eq!(avoided(&avoidance, at(forgotten - 1)), [b]);
        assert_eq!(avoided(&avoidance, at(forgotten)), []);
    }

    #[test]
    fn an_answer_clears_its_upstream_and_shortens_the_others() {
        let [a, b, c] = ["a", "b", "c"].map(UpstreamId::from_name);
        let mut avoidance = Avoidance::default();
        for upstream in [a, b, c] {
            avoidance.record(upstream, SessionFailure::Everywhere, at(0));
        }
        avoidance.record_answer(b, at(10));
        assert_eq!(avoided(&avoidance, at(39)), [a, c]);
        assert_eq!(avoided(&avoidance, at(40)), []);
    }

    #[test]
    fn the_number_of_avoided_upstreams_is_bounded() {
        let upstreams: Vec<_> = (0..40).map(|n| UpstreamId::from_name(&n.to_string())).collect();
        let mut avoidance = Avoidance::default();
        for upstream in &upstreams {
            avoidance.record(*upstream, SessionFailure::Everywhere, at(0));
        }
        assert_eq!(avoided(&avoidance, at(0)), upstreams[40 - MAX_AVOIDED..]);
    }
}
