//! An outage: an upstream is ejected or disabled until a probe shows that it works.

use std::time::Duration;

use super::{
    attempt::Attempt,
    jitter::jittered,
    status::{HealthState, Reason},
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
    Failures {
        count: u32,
        doublings: u32,
        /// Why the ejection began.
        reason: Reason,
    },
    Refusal,
}

impl Outage {
    /// An ejection, and when its first probe is due. It is as long as one that was prolonged `doublings` times.
    pub(super) fn ejected(failures: u32, doublings: u32, reason: Reason, now: Tick, random: u64) -> (Self, Tick) {
        let cause = Cause::Failures {
            count: failures,
            doublings,
            reason,
        };
        let until = now.after(ejection(doublings, random));
        (Self::new(cause, now, until), until)
    }

    pub(super) fn disabled(now: Tick) -> Self {
        Self::new(Cause::Refusal, now, now.after(PROBE_DISABLED))
    }

    fn new(cause: Cause, now: Tick, until: Tick) -> Self {
        Self {
            cause,
            since: now,
            until,
            probe: None,
        }
    }

    pub(super) fn since(&self) -> Tick {
        self.since
    }

    /// Returns the earliest moment for the next probe.
    pub(super) fn next_probe(&self) -> Tick {
        let unblocked = self.probe.map_or(Tick::ZERO, |probe| probe.after(PROBE_PATIENCE));
        self.until.max(unblocked)
    }

    /// Makes a request that is sent now the probe, if a probe is due and no other one is in flight. Returns whether the
    /// request is the probe.
    pub(super) fn try_claim_probe(&mut self, now: Tick) -> bool {
        let is_due = self.next_probe() <= now;
        if is_due {
            self.probe = Some(now);
        }
        is_due
    }

    pub(super) fn release_probe(&mut self, attempt: Attempt) {
        if attempt.is_probe() && self.probe == Some(attempt.began) {
            self.probe = None;
        }
    }

    /// Records a failed request. The failure prolongs the outage only if the request was sent when a probe was due. Returns
    /// the end of an ejection that is prolonged.
    pub(super) fn record_failure(&mut self, attempt: Attempt, now: Tick, random: u64) -> Option<Tick> {
        if attempt.began < self.until {
            return None;
        }
        match self.cause {
            Cause::Failures {
                count,
                doublings,
                reason,
            } => {
                let doublings = doublings.saturating_add(1);
                let cause = Cause::Failures {
                    count: count.saturating_add(1),
                    doublings,
                    reason,
                };
                let until = now.after(ejection(doublings, random));
                self.renew(Self::new(cause, now, until));
                Some(until)
            }
            Cause::Refusal => {
                self.renew(Self::disabled(now));
                None
            }
        }
    }

    /// Records that a disabled upstream has refused the credential again. That prolongs the outage only if the request
    /// was sent when a probe was due.
    pub(super) fn record_refusal(&mut self, attempt: Attempt, now: Tick) {
        if attempt.began >= self.until {
            self.renew(Self::disabled(now));
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
            Cause::Failures { reason, .. } => reason,
            Cause::Refusal => Reason::CredentialRefused,
        }
    }

    /// The number of times that an ejection by the success rate was prolonged; `None` for another outage.
    pub(super) fn outlier_doublings(&self) -> Option<u32> {
        match self.cause {
            Cause::Failures {
                doublings,
                reason: Reason::SuccessRate,
                ..
            } => Some(doublings),
            Cause::Failures { .. } | Cause::Refusal => None,
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
}

/// The length of an ejection that was prolonged `doublings` times. `random` is 64 uniformly random bits.
fn ejection(doublings: u32, random: u64) -> Duration {
    let base = EJECTION.saturating_mul(1 << doublings.min(8)).min(EJECTION_MAX);
    jittered(base, random).min(EJECTION_MAX)
}
