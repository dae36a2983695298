//! The brake stops requests that have failed at every upstream from being sent again and again.
//!
//! Clients retry: one turn of Codex against upstreams that all answer 500 is 30 requests, and each of them is tried at
//! several upstreams. [`Health`](super::Health) does not stop this. A failure counts against an upstream only if another
//! upstream then serves the same request, because the request itself may be the cause. So no upstream is ejected for a
//! request that fails everywhere, however often its client repeats it. The brake stops it instead. It concerns the session
//! of the request, and not an upstream.
//!
//! # The rules
//!
//! 1. A *session* is braked after two requests in a row that failed everywhere. A request counts only if it began after
//!    the last counted failure, so that requests which were sent at the same time count once.
//! 2. A *pool* of upstreams is braked when requests of [`POOL_SESSIONS`] different sessions have failed everywhere, with
//!    no request served in between. Then an outage is likelier than as many broken requests, and sessions whose requests
//!    have not failed yet would fail too. See [`PoolBrake`].
//! 3. A braked session or pool is admitted one request at a time, its *probe*. The first probe of a session is due 4 s
//!    after the last failure, that of a pool after 1 s. Each probe that fails doubles the delay, up to 2 min for a session
//!    and 30 s for a pool, which many clients wait for. All other requests are refused. A probe is one attempt: it is not
//!    tried at a second upstream.
//! 4. A request that is served ends the brake, whether it is the probe or began before the brake did. An answer that
//!    refuses the request (4xx) ends it too, because the upstream works.
//! 5. The brake is forgotten [`FORGOTTEN_AFTER`] the last failure.
//!
//! A probe that ends without a verdict (its client has left, for example) is given back with [`Brake::release`], and the
//! next request is the probe. A probe that has no verdict after [`PROBE_LEASE`] no longer prevents the next one.
//!
//! Both delays are those of a circuit breaker with an exponential timeout (M. Nygard, *Release It!*, "Circuit Breaker").

use std::time::Duration;

use crate::tick::Tick;

mod pool;
#[cfg(test)]
mod tests;

pub use pool::{POOL_SESSIONS, PoolBrake};

/// The longest time that a refused client is told to wait. Clients that wait so long repeat a request that is braked
/// several times before the next probe, so that most of their requests reach no upstream.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);
/// The time from the last failure until the brake is forgotten.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(15 * 60);
/// The time after which a probe without a verdict no longer prevents the next probe.
pub const PROBE_LEASE: Duration = Duration::from_secs(30);

/// When a brake begins, and how long it waits for its probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BrakeRules {
    /// The number of failures that begin the brake.
    failures: usize,
    /// The delay until the first probe.
    first_delay: Duration,
    /// The longest delay between two probes.
    max_delay: Duration,
}

const SESSION: BrakeRules = BrakeRules {
    failures: 2,
    first_delay: Duration::from_secs(4),
    max_delay: Duration::from_secs(120),
};

/// The brake of one session or pool. See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brake {
    rules: BrakeRules,
    /// The number of failures that have been counted before the brake began.
    failures: usize,
    /// The time of the last counted failure.
    last_failure: Tick,
    /// The probes; `None` while the brake has not begun.
    probing: Option<Probing>,
}

/// The probes of a brake that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Probing {
    /// The delay before the next probe.
    delay: Duration,
    /// The earliest time of the next probe.
    due: Tick,
    /// The probe that has no verdict yet.
    current: Option<Probe>,
}

/// The permission to be the probe of a brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The time at which the probe was admitted. It identifies the probe within its brake.
    admitted: Tick,
}

/// The answer of a brake to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the comment of a variant describes its fields")]
pub enum BrakeDecision {
    /// The brake has not begun. The request is sent.
    Normal,
    /// The request is sent, as the probe.
    Probe(Probe),
    /// The request is refused. The next request may be admitted at `until`.
    Refuse { until: Tick },
}

impl Brake {
    /// The brake of a session without a failure.
    pub const fn of_session() -> Self {
        Self::new(SESSION)
    }

    const fn new(rules: BrakeRules) -> Self {
        Self {
            rules,
            failures: 0,
            last_failure: Tick::ZERO,
            probing: None,
        }
    }

    /// Admits or refuses a request.
    pub fn admit(&mut self, now: Tick) -> BrakeDecision {
        if self.is_forgotten(now) {
            self.end();
        }
        let first_delay = self.rules.first_delay;
        let Some(probing) = &mut self.probing else {
            return BrakeDecision::Normal;
        };
        if probing.current.is_some_and(|probe| !probe.has_expired(now)) {
            // The verdict on a probe usually comes soon, and ends the brake or sets the time of the next probe.
            let until = now.after(first_delay);
            return BrakeDecision::Refuse { until };
        }
        if now < probing.due {
            return BrakeDecision::Refuse { until: probing.due };
        }
        let probe = Probe { admitted: now };
        probing.current = Some(probe);
        BrakeDecision::Probe(probe)
    }

    /// Records that a request which began at `begun` has failed everywhere. `probe` is the permission that the request
    /// was admitted with. Returns whether the brake has begun with this failure.
    pub fn record_failure(&mut self, begun: Tick, probe: Option<Probe>, now: Tick) -> bool {
        if self.is_forgotten(now) {
            self.end();
        }
        match self.probing {
            None if self.failures > 0 && begun < self.last_failure => false,
            None => self.count(now),
            Some(_) => {
                self.fail_probe(probe, now);
                false
            }
        }
    }

    /// Ends the brake: a request was served, or refused by an upstream that works.
    pub fn end(&mut self) {
        *self = Self::new(self.rules);
    }

    /// Gives back the permission of a probe that has ended without a verdict. The next request is the probe.
    pub fn release(&mut self, probe: Probe) {
        if let Some(probing) = &mut self.probing
            && probing.current == Some(probe)
        {
            probing.current = None;
        }
    }

    /// Whether the brake has begun.
    pub fn is_braking(&self) -> bool {
        self.probing.is_some()
    }

    /// Whether the brake has no failure to remember.
    pub fn is_forgotten(&self, now: Tick) -> bool {
        self.failures == 0 || now.since(self.last_failure) >= FORGOTTEN_AFTER
    }

    /// Counts a failure before the brake has begun. Returns whether it begins now.
    fn count(&mut self, now: Tick) -> bool {
        self.failures += 1;
        self.last_failure = now;
        if self.failures < self.rules.failures {
            return false;
        }
        let delay = self.rules.first_delay;
        self.probing = Some(Probing {
            delay,
            due: now.after(delay),
            current: None,
        });
        true
    }

    /// Doubles the delay if `probe` is the current probe. Other failures are of requests that were sent before the brake
    /// began, or of a probe that has expired.
    fn fail_probe(&mut self, probe: Option<Probe>, now: Tick) {
        if let Some(probing) = &mut self.probing
            && probe.is_some()
            && probing.current == probe
        {
            probing.delay = (2 * probing.delay).min(self.rules.max_delay);
            probing.due = now.after(probing.delay);
            probing.current = None;
            self.last_failure = now;
        }
    }
}

impl Probe {
    fn has_expired(self, now: Tick) -> bool {
        now.since(self.admitted) >= PROBE_LEASE
    }
}
