//! Being out: ejected or disabled, until a probe says otherwise.

use std::time::Duration;

use super::{Attempt, Badness, HealthState, Reason, Transition, jittered};
use crate::{policy::availability::Availability, tick::Tick};

/// How long the first ejection lasts, give or take a quarter.
pub const EJECTION: Duration = Duration::from_secs(30);
/// How long an ejection lasts at most.
pub const EJECTION_MAX: Duration = Duration::from_secs(300);
/// How often a disabled upstream is probed.
pub const PROBE_DISABLED: Duration = Duration::from_secs(300);
/// A probe without a verdict for this long no longer keeps the next one waiting. Its verdict counts nevertheless.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    cause: Cause,
    /// When it went out, or when that was last confirmed.
    since: Tick,
    /// When the next probe is due.
    until: Tick,
    /// When the probe was sent that is under way.
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

    /// The earliest moment for a probe.
    pub(super) fn next_probe(&self) -> Tick {
        let unblocked = self.probe.map_or(Tick::ZERO, |probe| probe.after(PROBE_PATIENCE));
        self.until.max(unblocked)
    }

    fn is_probing(&self, now: Tick) -> bool {
        self.probe.is_some_and(|probe| now < probe.after(PROBE_PATIENCE))
    }

    /// Makes a request that is sent now the probe, unless another is under way.
    pub(super) fn claim(&mut self, now: Tick) -> bool {
        let is_free = !self.is_probing(now);
        if is_free {
            self.probe = Some(now);
        }
        is_free
    }

    pub(super) fn release(&mut self, attempt: Attempt) {
        if attempt.is_probe && self.probe == Some(attempt.began) {
            self.probe = None;
        }
    }

    /// A request failed. It was a test only if it was sent when one was due.
    pub(super) fn failed(&mut self, attempt: Attempt, now: Tick, random: u64) -> Option<Transition> {
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

    /// A request's credential was refused. True if that is news; that it is still refused is none.
    pub(super) fn refused(&mut self, attempt: Attempt, now: Tick) -> bool {
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

    /// It goes on. The verdict of a probe that is under way is still to come, when it was another request that told.
    fn renew(&mut self, outage: Self) {
        *self = Self {
            probe: self.probe,
            ..outage
        };
    }

    pub(super) fn reloaded(&mut self, now: Tick) {
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

    /// `back` is when it may be asked again.
    pub(super) fn badness(&self, back: Tick, now: Tick) -> Badness {
        match self.cause {
            Cause::Refusal => Badness::Disabled(back),
            Cause::Failures { .. } if self.is_probing(now) => Badness::Probing(back),
            Cause::Failures { .. } => Badness::Back(back),
        }
    }
}
