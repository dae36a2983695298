//! The brake of a pool: several sessions, one after the other, have failed at every upstream.

use std::time::Duration;

use super::{Brake, BrakeDecision, BrakeRules, Probe};
use crate::{ids::SessionKey, tick::Tick};

/// The number of different sessions whose requests begin the brake of a pool.
pub const POOL_SESSIONS: usize = 5;

const POOL: BrakeRules = BrakeRules {
    failures: POOL_SESSIONS,
    first_delay: Duration::from_secs(1),
    max_delay: Duration::from_secs(30),
};

/// The brake of one pool of upstreams. It counts each session once, however often the requests of the session fail.
///
/// Requests without a session key count together as one session. A client that repeats such a request cannot stop the
/// pool for other clients in this way, and the retry budget limits what it costs.
#[derive(Clone, Debug)]
pub struct PoolBrake {
    brake: Brake,
    /// The sessions that have been counted; `None` stands for all requests without a session key.
    sessions: Vec<Option<SessionKey>>,
}

impl Default for PoolBrake {
    fn default() -> Self {
        Self {
            brake: Brake::new(POOL),
            sessions: Vec::new(),
        }
    }
}

impl PoolBrake {
    /// Admits or refuses a request.
    pub fn admit(&mut self, now: Tick) -> BrakeDecision {
        self.forget(now);
        self.brake.admit(now)
    }

    /// Records that a request of `session` has failed everywhere. `probe` is the permission that the request was admitted
    /// with. Returns whether the brake has begun with this failure.
    pub fn record_failure(&mut self, session: Option<SessionKey>, probe: Option<Probe>, now: Tick) -> bool {
        self.forget(now);
        if self.brake.is_braking() {
            self.brake.fail_probe(probe, now);
            return false;
        }
        if self.sessions.contains(&session) {
            return false;
        }
        self.sessions.push(session);
        self.brake.count(now)
    }

    /// Gives back the permission of a probe that has ended without a verdict.
    pub fn release(&mut self, probe: Probe) {
        self.brake.release(probe);
    }

    /// Whether the brake has begun.
    pub fn is_braking(&self) -> bool {
        self.brake.is_braking()
    }

    /// Whether the brake has no failure to remember.
    pub fn is_forgotten(&self, now: Tick) -> bool {
        self.brake.is_forgotten(now)
    }

    fn forget(&mut self, now: Tick) {
        if self.brake.is_forgotten(now) {
            self.brake.end();
            self.sessions.clear();
        }
    }
}
