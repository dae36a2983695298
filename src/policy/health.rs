//! The health of one upstream, judged by the verdicts on its requests.
//!
//! # Three reasons to send no requests to an upstream
//!
//! **Failures** ([`Verdict::Failed`]): the upstream does not work. After [`EJECT_AFTER`] failures in a row the upstream is
//! ejected, at first for [`EJECTION`], and then each time for twice as long, up to [`EJECTION_MAX`]. After that time, one
//! request at a time probes the upstream: the first probe that is answered ends the ejection, and a probe that fails
//! prolongs it. (Envoy calls this outlier detection, but lets all requests back in at the end of the time. A single probe
//! is cheaper for prompts that cost minutes.)
//!
//! **Limits** ([`Verdict::Limited`]): the upstream works, but this account, or one model of it, has reached a limit. The
//! upstream cools down until the moment that it named. If it named none, the cooldown grows from [`COOLDOWN`] to
//! [`COOLDOWN_MAX`] from one limited request to the next. A cooldown ends by itself and needs no probe.
//!
//! **Refusal** ([`Verdict::Refused`]): the upstream does not accept the credential, and waiting does not change that. The
//! upstream is disabled, and is probed every [`PROBE_DISABLED`] and after a reload.
//!
//! In addition, the operator can drain an upstream. A draining upstream gets no requests, even if it is healthy.
//!
//! # Outdated verdicts
//!
//! A hundred requests may be in flight when an upstream breaks. Their verdicts arrive later, the last of them perhaps
//! long after the upstream works again. So a verdict counts only if its request was sent after the event that the
//! verdict would change. A verdict cannot prolong an ejection that its request did not probe, end a cooldown that began
//! after its request, or eject an upstream that has recovered since. There is one exception: a limit that names a later
//! end counts from every request.
//! from every request.

use std::time::Duration;

pub use self::{
    attempt::Attempt,
    cooldowns::{COOLDOWN, COOLDOWN_MAX, MODELS_MAX, RESET_MAX, RESET_MIN},
    outage::{EJECTION, EJECTION_MAX, PROBE_DISABLED, PROBE_PATIENCE},
    status::{Badness, HealthState, HealthStatus, Reason, Transition},
};
use self::{cooldowns::Cooldowns, outage::Outage};
use super::{
    availability::Availability,
    verdict::{LimitCause, Verdict},
};
use crate::{ids::ModelKey, tick::Tick};

mod attempt;
mod cooldowns;
mod jitter;
mod outage;
mod status;
#[cfg(test)]
mod tests;

/// The number of failures in a row after which an upstream is ejected.
pub const EJECT_AFTER: u32 = 5;
/// A failure that is older than this no longer counts as part of a row.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(300);

/// The health of one upstream. See the [module](self).
#[derive(Clone, Debug)]
pub struct Health {
    phase: HealthPhase,
    cooldowns: Cooldowns,
    /// Whether the operator drains the upstream.
    is_draining: bool,
    /// When the upstream last recovered or got another credential. Verdicts on earlier requests do not change the phase.
    renewed: Option<Tick>,
}

#[derive(Clone, Copy, Debug)]
enum HealthPhase {
    /// The upstream works, or nothing is known about it.
    Working {
        /// The number of failures in a row until now.
        failures: u32,
        /// When the last of these failures was observed.
        latest: Tick,
    },
    /// The upstream is ejected or disabled.
    Out(Outage),
}

const WORKING: HealthPhase = HealthPhase::Working {
    failures: 0,
    latest: Tick::ZERO,
};

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// The health of an upstream about which nothing is known.
    pub const fn new() -> Self {
        Self {
            phase: WORKING,
            cooldowns: Cooldowns::new(),
            is_draining: false,
            renewed: None,
        }
    }

    /// Whether the upstream is ready for every model and remembers nothing that [`Verdict::Served`] or
    /// [`Verdict::Answered`] would change. As long as this is true, requests can be sent, and these two verdicts dropped,
    /// without access to the health.
    pub fn is_plain(&self) -> bool {
        matches!(self.phase, HealthPhase::Working { failures: 0, .. }) && self.cooldowns.is_empty() && !self.is_draining
    }

    /// Whether the upstream can take a request for `model`. A moment in the result is the earliest one: the upstream may
    /// still be unavailable when that moment has come.
    pub fn availability(&self, model: Option<ModelKey>, now: Tick) -> Availability {
        if self.is_draining {
            return Availability::Draining;
        }
        let cooling = self.cooldowns.until(model, now);
        if let HealthPhase::Out(outage) = &self.phase {
            let next = outage.next_probe();
            if now < next {
                return outage.availability(cooling.map_or(next, |until| until.max(next)));
            }
        }
        cooling.map_or(Availability::Ready, |until| Availability::Cooling {
            until,
            cause: LimitCause::Rate,
        })
    }

    /// Begins an attempt: a request for `model` is sent now. The attempt is a probe if the upstream is ejected or disabled
    /// and no other probe is in flight. That also holds if no probe is due yet, and the request is sent only because no
    /// other upstream is better.
    pub fn begin(&mut self, model: Option<ModelKey>, now: Tick) -> Attempt {
        let is_probe = match &mut self.phase {
            HealthPhase::Out(outage) => outage.try_claim_probe(now),
            HealthPhase::Working { .. } => false,
        };
        Attempt {
            is_probe,
            ..Attempt::plain(model, now)
        }
    }

    /// Records the verdict on `attempt`. `random` is 64 uniformly random bits for the jitter.
    ///
    /// Returns a transition if the operator should know about it. A verdict that moves the end of a cooldown by a little
    /// returns none.
    pub fn observe(&mut self, attempt: Attempt, verdict: Verdict, now: Tick, random: u64) -> Option<Transition> {
        self.abandon(attempt);
        match verdict {
            Verdict::Served => {
                let recovered = self.record_answer(attempt, now);
                let ended = self.cooldowns.end_by_success(attempt, now);
                recovered.or(ended.map(|scope| Transition::CooldownOver { scope }))
            }
            Verdict::Answered => self.record_answer(attempt, now),
            Verdict::Failed => self.record_failure(attempt, now, random),
            Verdict::Limited { reset, scope, .. } => {
                let recovered = self.record_answer(attempt, now);
                let limited = self.cooldowns.record_limit(attempt, scope, reset, now, random);
                limited.or(recovered)
            }
            Verdict::Refused => self.record_refusal(attempt, now),
            Verdict::Unauthorized => None,
        }
    }

    /// Ends `attempt` without a verdict, because the client left. If the attempt was the probe, another probe may be sent.
    pub fn abandon(&mut self, attempt: Attempt) {
        if let HealthPhase::Out(outage) = &mut self.phase {
            outage.release_probe(attempt);
        }
    }

    /// Forgets failures and cooldowns that have expired by now, so that the health can become [plain](Self::is_plain)
    /// again. Each call reports one cooldown that has ended by itself; call it until it returns `None`.
    pub fn expire(&mut self, now: Tick) -> Option<Transition> {
        if let HealthPhase::Working { latest, .. } = self.phase
            && now.since(latest) > FAILURE_MEMORY
        {
            self.phase = WORKING;
        }
        let scope = self.cooldowns.expire(now)?;
        Some(Transition::CooldownOver { scope })
    }

    /// Drains the upstream, by order of the operator. Returns `None` if it is draining already.
    pub fn drain(&mut self) -> Option<Transition> {
        let was_draining = std::mem::replace(&mut self.is_draining, true);
        (!was_draining).then_some(Transition::Drained)
    }

    /// Makes the upstream ready for every model, by order of the operator, and forgets all failures, limits and refusals.
    pub fn enable(&mut self, now: Tick) -> Option<Transition> {
        let was_plain = self.is_plain();
        self.phase = WORKING;
        self.cooldowns.clear(now);
        self.is_draining = false;
        self.renewed = Some(now);
        (!was_plain).then_some(Transition::Enabled)
    }

    /// Records that the configuration was read again, perhaps with another credential. If the upstream is disabled, a
    /// probe is due now. Verdicts on requests that were sent before do not apply to the new credential.
    pub fn record_reload(&mut self, now: Tick) {
        self.renewed = Some(now);
        if let HealthPhase::Out(outage) = &mut self.phase {
            outage.record_reload(now);
        }
    }

    /// Returns a summary of the health at `now`, for people.
    pub fn describe(&self, now: Tick) -> HealthStatus {
        let (cooling_models, models_until) = self.cooldowns.cooling_models(now);
        let cooldown = self.cooldowns.of_upstream(now);
        let (state, reason, until) = match &self.phase {
            _ if self.is_draining => (HealthState::Draining, Some(Reason::Operator), None),
            HealthPhase::Out(outage) => (outage.state(), Some(outage.reason()), Some(outage.next_probe())),
            HealthPhase::Working { .. } => match cooldown {
                Some((until, true)) => (HealthState::Cooling, Some(Reason::LimitNamed), Some(until)),
                Some((until, false)) => (HealthState::Cooling, Some(Reason::LimitUnnamed), Some(until)),
                None => (HealthState::Ready, None, None),
            },
        };
        HealthStatus {
            state,
            reason,
            until,
            failures: self.failures(),
            cooling_models,
            models_until,
        }
    }

    /// Returns how bad it would be to send the upstream a request for `model` now although it is not ready; `None` if the
    /// upstream must not get the request at all.
    pub fn badness(&self, model: Option<ModelKey>, now: Tick) -> Option<Badness> {
        if self.is_draining {
            return None;
        }
        let cooling = self.cooldowns.until(model, now).unwrap_or(now);
        Some(match &self.phase {
            HealthPhase::Out(outage) => outage.badness(outage.next_probe().max(cooling), now),
            HealthPhase::Working { .. } => Badness::Back(cooling),
        })
    }

    /// Records that the upstream has answered a request, which ends an ejection and a disabling that began before the
    /// request.
    fn record_answer(&mut self, attempt: Attempt, now: Tick) -> Option<Transition> {
        let from = match &self.phase {
            HealthPhase::Working { .. } => None,
            HealthPhase::Out(outage) if attempt.began <= outage.since() => return None,
            HealthPhase::Out(outage) => Some(outage.state()),
        };
        self.phase = WORKING;
        let from = from?;
        self.renewed = Some(now);
        Some(Transition::Recovered { from })
    }

    fn record_failure(&mut self, attempt: Attempt, now: Tick, random: u64) -> Option<Transition> {
        let is_outdated = self.is_outdated(attempt);
        match &mut self.phase {
            HealthPhase::Out(outage) => outage.record_failure(attempt, now, random),
            HealthPhase::Working { .. } if is_outdated => None,
            HealthPhase::Working { failures, latest } => {
                *failures = if now.since(*latest) > FAILURE_MEMORY {
                    1
                } else {
                    *failures + 1
                };
                *latest = now;
                if *failures < EJECT_AFTER {
                    return None;
                }
                let (outage, transition) = Outage::ejected(*failures, now, random);
                self.phase = HealthPhase::Out(outage);
                Some(transition)
            }
        }
    }

    fn record_refusal(&mut self, attempt: Attempt, now: Tick) -> Option<Transition> {
        let disables = match &mut self.phase {
            HealthPhase::Working { .. } => !self.is_outdated(attempt),
            HealthPhase::Out(outage) => outage.record_refusal(attempt, now),
        };
        if !disables {
            return None;
        }
        self.phase = HealthPhase::Out(Outage::disabled(now));
        Some(Transition::Disabled)
    }

    /// Whether the request was sent before the upstream recovered or got another credential.
    fn is_outdated(&self, attempt: Attempt) -> bool {
        self.renewed.is_some_and(|renewed| attempt.began <= renewed)
    }

    fn failures(&self) -> u32 {
        match &self.phase {
            HealthPhase::Working { failures, .. } => *failures,
            HealthPhase::Out(outage) => outage.failures(),
        }
    }
}
