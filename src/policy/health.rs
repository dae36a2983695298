//! The health of one upstream, judged by what its requests came to.
//!
//! # Three reasons to stay away
//!
//! **Failures** ([`Verdict::Failed`]): the upstream does not work. After [`EJECT_AFTER`] in a row it is ejected, for
//! [`EJECTION`] at first and twice as long each time up to [`EJECTION_MAX`]. Then one request at a time probes it: the
//! first that is answered ends the ejection, the first that fails prolongs it. (Envoy calls this outlier detection, and
//! lets everybody back in at the end of the time; with prompts that cost minutes a single probe is cheaper.)
//!
//! **Cooldowns** ([`Verdict::Limited`]): the upstream works, but has had enough of this account, or of one model of it. It
//! cools down until the moment that it named. Where it named none, the cooldown grows from [`COOLDOWN`] to
//! [`COOLDOWN_MAX`] from one limited request to the next. A cooldown ends by itself and needs no probe.
//!
//! **Refusal** ([`Verdict::Refused`]): the credential is no good, and will not become so by waiting. The
//! upstream is disabled, and probed every [`PROBE_DISABLED`] and after a reload.
//!
//! Apart from all this the operator can drain an upstream: then it takes nothing, however healthy it is.
//!
//! # Old news
//!
//! A hundred requests are under way when the upstream breaks, and a hundred verdicts arrive, the last of them a long
//! time after it works again. So a verdict counts only if its request was sent after what it would change: it cannot
//! double an ejection that it did not probe, end a cooldown that it did not see, or eject an upstream that has recovered
//! since. Only a limit that names a later moment is news from whenever it comes.

use std::time::Duration;

use self::{cooldowns::Cooldowns, outage::Outage};
pub use self::{
    cooldowns::{COOLDOWN, COOLDOWN_MAX, MODELS_MAX, RESET_MAX, RESET_MIN},
    outage::{EJECTION, EJECTION_MAX, PROBE_DISABLED, PROBE_PATIENCE},
    status::{Badness, HealthState, HealthStatus, Reason, Transition},
};
use super::{availability::Availability, hash::unit, verdict::Verdict};
use crate::{ids::ModelKey, tick::Tick};

mod cooldowns;
mod outage;
mod status;
#[cfg(test)]
mod tests;

/// This many failures in a row eject an upstream.
pub const EJECT_AFTER: u32 = 5;
/// A failure this long ago is no part of a row any more.
pub const FAILURE_MEMORY: Duration = Duration::from_secs(300);

/// A request that was sent, as its verdict needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an attempt ends in `observe` or `abandon`, or its probe blocks others for a while"]
pub struct Attempt {
    began: Tick,
    model: Option<ModelKey>,
    is_probe: bool,
}

impl Attempt {
    /// A request to an upstream whose health [is plain](Health::is_plain). It does the same as [`Health::begin`] does
    /// then, without a lock.
    pub fn plain(model: Option<ModelKey>, now: Tick) -> Self {
        Self {
            began: now,
            model,
            is_probe: false,
        }
    }

    /// Whether others wait for what it comes to.
    pub fn is_probe(self) -> bool {
        self.is_probe
    }
}

/// The health of one upstream. See the [module](self).
#[derive(Clone, Debug)]
pub struct Health {
    phase: HealthPhase,
    cooldowns: Cooldowns,
    is_draining: bool,
    /// When it last came back, or was given another credential: what was sent before says nothing on its phase.
    renewed: Option<Tick>,
}

#[derive(Clone, Copy, Debug)]
enum HealthPhase {
    /// `latest` is when the last of `failures` in a row was seen.
    Working {
        failures: u32,
        latest: Tick,
    },
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
    /// The health of an upstream of which nothing is known.
    pub const fn new() -> Self {
        Self {
            phase: WORKING,
            cooldowns: Cooldowns::new(),
            is_draining: false,
            renewed: None,
        }
    }

    /// Whether it is ready for every model, and neither [`Verdict::Served`] nor [`Verdict::Answered`] would change
    /// anything. While that holds nobody needs to ask or tell it anything else.
    pub fn is_plain(&self) -> bool {
        matches!(self.phase, HealthPhase::Working { failures: 0, .. }) && self.cooldowns.is_empty() && !self.is_draining
    }

    /// Whether it can be sent a request for `model`. What is said to be not before a moment may be so for longer when
    /// that moment has come.
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
        cooling.map_or(Availability::Ready, |until| Availability::Cooling { until })
    }

    /// A request for `model` is sent now. It is the probe if the upstream is out and no other probe is under way; that
    /// holds too when no probe is due yet and the request goes there for want of anything better.
    pub fn begin(&mut self, model: Option<ModelKey>, now: Tick) -> Attempt {
        let is_probe = match &mut self.phase {
            HealthPhase::Out(outage) => outage.claim(now),
            HealthPhase::Working { .. } => false,
        };
        Attempt {
            is_probe,
            ..Attempt::plain(model, now)
        }
    }

    /// Takes note of what `attempt` came to. `random` is 64 uniformly random bits, for the jitter.
    ///
    /// Returns what an operator should know of: not every verdict that moves an end by a little.
    pub fn observe(&mut self, attempt: Attempt, verdict: Verdict, now: Tick, random: u64) -> Option<Transition> {
        self.abandon(attempt);
        match verdict {
            Verdict::Served => {
                let recovered = self.works(attempt, now);
                let ended = self.cooldowns.succeeded(attempt, now);
                recovered.or(ended.map(|scope| Transition::CooldownOver { scope }))
            }
            Verdict::Answered => self.works(attempt, now),
            Verdict::Failed => self.failed(attempt, now, random),
            Verdict::Limited { reset, scope } => {
                let recovered = self.works(attempt, now);
                self.cooldowns.limited(attempt, scope, reset, now, random).or(recovered)
            }
            Verdict::Refused => self.refused(attempt, now),
        }
    }

    /// `attempt` ended without a verdict, because the client left. If it was the probe, another may go.
    pub fn abandon(&mut self, attempt: Attempt) {
        if let HealthPhase::Out(outage) = &mut self.phase {
            outage.release(attempt);
        }
    }

    /// Forgets what is over by now, so that it can become [plain](Self::is_plain) again. To be called until it returns
    /// `None`: each call reports one cooldown that has ended by itself.
    pub fn expire(&mut self, now: Tick) -> Option<Transition> {
        if let HealthPhase::Working { latest, .. } = self.phase
            && now.since(latest) > FAILURE_MEMORY
        {
            self.phase = WORKING;
        }
        let scope = self.cooldowns.expire(now)?;
        Some(Transition::CooldownOver { scope })
    }

    /// The operator wants it to take no more requests.
    pub fn drain(&mut self) -> Option<Transition> {
        let was_draining = std::mem::replace(&mut self.is_draining, true);
        (!was_draining).then_some(Transition::Drained)
    }

    /// The operator wants it to take requests, whatever was held against it.
    pub fn enable(&mut self, now: Tick) -> Option<Transition> {
        let was_plain = self.is_plain();
        self.phase = WORKING;
        self.cooldowns.clear(now);
        self.is_draining = false;
        self.renewed = Some(now);
        (!was_plain).then_some(Transition::Enabled)
    }

    /// The configuration was read again, and perhaps with another credential: if it is disabled, a probe is due now.
    /// What was sent before is no news on the credential.
    pub fn reloaded(&mut self, now: Tick) {
        self.renewed = Some(now);
        if let HealthPhase::Out(outage) = &mut self.phase {
            outage.reloaded(now);
        }
    }

    fn works(&mut self, attempt: Attempt, now: Tick) -> Option<Transition> {
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

    fn failed(&mut self, attempt: Attempt, now: Tick, random: u64) -> Option<Transition> {
        let is_old = self.is_old(attempt);
        match &mut self.phase {
            HealthPhase::Out(outage) => outage.failed(attempt, now, random),
            HealthPhase::Working { .. } if is_old => None,
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

    fn refused(&mut self, attempt: Attempt, now: Tick) -> Option<Transition> {
        let is_news = match &mut self.phase {
            HealthPhase::Working { .. } => !self.is_old(attempt),
            HealthPhase::Out(outage) => outage.refused(attempt, now),
        };
        if !is_news {
            return None;
        }
        self.phase = HealthPhase::Out(Outage::disabled(now));
        Some(Transition::Disabled)
    }

    fn is_old(&self, attempt: Attempt) -> bool {
        self.renewed.is_some_and(|renewed| attempt.began <= renewed)
    }
}

/// `base`, a quarter more or less, so that what fell out together does not come back together.
fn jittered(base: Duration, random: u64) -> Duration {
    base.mul_f64(0.75 + unit(random) / 2.0)
}
