//! An outage: an upstream is ejected or disabled until a probe shows that it works.

use std::time::Duration;

use super::{
    attempt::Attempt,
    jitter::jittered,
    status::{Badness, HealthState, Reason, Transition},
};
use crate::{policy::availability::Availability, tick::Tick};

/// The length of the first ejection, up to a quarter longer or shorter.
pub const EJECTION: Duration = Duration::from_secs(30);
/// The maximum length of an ejection.
pub const EJECTION_MAX: Duration = Duration::from_secs(300);
/// The time between two probes of a disabled upstream.
pub const PROBE_DISABLED: Duration = Duration::from_secs(300);
/// A probe that has no verdict after this time no longer blocks the next probe. Its verdict still counts.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    cause: Cause,
    /// When the outage began or was last confirmed.
    since: Tick,
    /// When the next probe is due.
    until: Tick,
    /// When the probe that is in flight was sent.
    probe: Option<Tick>,
}

#[derive(Clone, Copy, Debug)]
enum Cause {
    Failures { count: u32, doublings: u32 },
    Refusal,
}

impl Outage {
    pub(super) fn ejected(failures: u32, now: Tick, random: u64) -> (Self, Transition) {
        Self::after_failures(failures, 0, now, random)
    }

    pub(super) fn disabled(now: Tick) -> Self {
        Self {
            cause: Cause::Refusal,
            since: now,
            until: now.after(PROBE_DISABLED),
            probe: None,
        }
    }

    fn after_failures(count: u32, doublings: u32, now: Tick, random: u64) -> (Self, Transition) {
        let base = EJECTION.saturating_mul(1 << doublings.min(8)).min(EJECTION_MAX);
        let until = now.after(jittered(base, random).min(EJECTION_MAX));
        let outage = Self {
            cause: Cause::Failures { count, doublings },
            since: now,
            until,
            probe: None,
        };
        (outage, Transition::Ejected { until, failures: count })
    }

    pub(super) fn since(&self) -> Tick {
        self.since
    }

    /// Returns the earliest moment for the next probe.
    pub(super) fn next_probe(&self) -> Tick {
        let unblocked = self.probe.map_or(Tick::ZERO, |probe| probe.after(PROBE_PATIENCE));
        self.until.max(unblocked)
    }

    fn is_probing(&self, now: Tick) -> bool {
        self.probe.is_some_and(|probe| now < probe.after(PROBE_PATIENCE))
    }

    /// Makes a request that is sent now the probe, unless another probe is in flight. Returns whether the request is
    /// the probe.
    pub(super) fn try_claim_probe(&mut self, now: Tick) -> bool {
        let is_free = !self.is_probing(now);
        if is_free {
            self.probe = Some(now);
        }
        is_free
    }

    pub(super) fn release_probe(&mut self, attempt: Attempt) {
        if attempt.is_probe && self.probe == Some(attempt.began) {
            self.probe = None;
        }
    }

    /// Records a failed request. The failure prolongs the outage only if the request was sent when a probe was due.
    pub(super) fn record_failure(&mut self, attempt: Attempt, now: Tick, random: u64) -> Option<Transition> {
        if attempt.began < self.until {
            return None;
        }
        match self.cause {
            Cause::Failures { count, doublings } => {
                let (count, doublings) = (count.saturating_add(1), doublings.saturating_add(1));
                let (outage, transition) = Self::after_failures(count, doublings, now, random);
                self.renew(outage);
                Some(transition)
            }
            Cause::Refusal => {
                self.renew(Self::disabled(now));
                None
            }
        }
    }

    /// Records that the upstream refused the credential of a request. Returns whether this disables the upstream; it
    /// does not if the upstream is disabled already.
    pub(super) fn record_refusal(&mut self, attempt: Attempt, now: Tick) -> bool {
        match self.cause {
            Cause::Failures { .. } => attempt.began > self.since,
            Cause::Refusal => {
                if attempt.began >= self.until {
                    self.renew(Self::disabled(now));
                }
                false
            }
        }
    }

    /// Replaces the outage but keeps the probe that is in flight, because another request may have brought the
    /// verdict.
    fn renew(&mut self, outage: Self) {
        *self = Self {
            probe: self.probe,
            ..outage
        };
    }

    pub(super) fn record_reload(&mut self, now: Tick) {
        if matches!(self.cause, Cause::Refusal) {
            self.until = now;
            self.probe = None;
        }
    }

    pub(super) fn state(&self) -> HealthState {
        match self.cause {
            Cause::Failures { .. } => HealthState::Ejected,
            Cause::Refusal => HealthState::Disabled,
        }
    }

    pub(super) fn reason(&self) -> Reason {
        match self.cause {
            Cause::Failures { .. } => Reason::ConsecutiveFailures,
            Cause::Refusal => Reason::CredentialRefused,
        }
    }

    pub(super) fn failures(&self) -> u32 {
        match self.cause {
            Cause::Failures { count, .. } => count,
            Cause::Refusal => 0,
        }
    }

    pub(super) fn availability(&self, until: Tick) -> Availability {
        match self.cause {
            Cause::Failures { .. } => Availability::Ejected { until },
            Cause::Refusal => Availability::Disabled { until },
        }
    }

    /// `back` is the moment from which the upstream may get requests again.
    pub(super) fn badness(&self, back: Tick, now: Tick) -> Badness {
        match self.cause {
            Cause::Refusal => Badness::Disabled(back),
            Cause::Failures { .. } if self.is_probing(now) => Badness::Probing(back),
            Cause::Failures { .. } => Badness::Back(back),
        }
    }
}
