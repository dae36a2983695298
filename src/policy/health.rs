//! The health of one upstream, judged by the verdicts on its requests.
//!
//! # Three reasons to send no requests to an upstream
//!
//! **Failures** ([`Verdict::Failed`]): the upstream does not work. After [`EJECT_AFTER`] failures in a row the upstream is
//! ejected, at first for [`EJECTION`], and then each time for twice as long, up to [`EJECTION_MAX`]. After that time, one
//! request at a time probes the upstream: the first probe that is answered ends the ejection, and a probe that fails
//! prolongs it. (Envoy calls this outlier detection, but lets all requests back in at the end of the time. A single probe
//! is cheaper for prompts that cost minutes.) An answer whose stream then breaks is a failure too, so a success ends a row
//! of failures only when its whole response has arrived ([`Health::complete`]). An upstream can also be ejected because it
//! fails more often than the others ([`Health::eject`]).
//!
//! At most a share of a pool is ejected at the same time, see [`EjectionCap`]. The caller of [`Health::observe`] says
//! whether there may be one more. An upstream that may not be ejected keeps its row of failures, and is ejected at its
//! next failure for which there is a place.
//!
//! **Limits** ([`Verdict::Limited`]): the upstream works, but this account, or one model of it, has reached a limit. The
//! upstream cools down until the moment that it named. If it named none, the cooldown grows from [`COOLDOWN`] to
//! [`COOLDOWN_MAX`] from one limited request to the next; if a quota is used up, each cooldown is as long as
//! [`COOLDOWN_MAX`]. A cooldown ends by itself and needs no probe. But limits are often lifted before the named moment. So
//! an upstream that cools down for longer than [`EARLY_PROBE`] gets one request per [`EARLY_PROBE`], the first of them that
//! long after the beginning. If that request is served, the cooldown is over.
//!
//! **Refusal** ([`Verdict::Refused`]): the upstream does not accept the credential, and waiting does not change that. The
//! upstream is disabled, and is probed every [`PROBE_DISABLED`] and after a reload.
//!
//! In addition, the operator can drain an upstream. A draining upstream gets no requests, even if it is healthy.
//!
//! # Classes of endpoints
//!
//! A limit of images says nothing about text, and the part of a service that stores files can fail alone. So failures and
//! limits are kept for each [`EndpointClass`], and concern only requests of that class. A refused credential, draining
//! and a reload concern all requests.
//!
//! # Outdated verdicts
//!
//! A hundred requests may be in flight when an upstream breaks. Their verdicts arrive later, the last of them perhaps
//! long after the upstream works again. So a verdict counts only if its request was sent after the event that the
//! verdict would change. A verdict cannot prolong an ejection that its request did not probe, end a cooldown that began
//! after its request, or eject an upstream that has recovered since. There is one exception: a limit that names a later
//! end counts from every request, unless a request that was sent during the cooldown has been served, which proves the
//! limit wrong. And a stream may be answered and fail minutes later: a limit that ends it is news
//! ([`Attempt::answered`]), as is the failure of the stream of a probe.

pub use self::{
    attempt::Attempt,
    cap::EjectionCap,
    class::{EJECT_AFTER, FAILURE_MEMORY, OUTLIER_MEMORY},
    cooldowns::{COOLDOWN, COOLDOWN_MAX, EARLY_PROBE, MODELS_MAX, RESET_MAX, RESET_MIN},
    outage::{EJECTION, EJECTION_MAX, PROBE_DISABLED, PROBE_PATIENCE},
    status::{ClassStatus, HealthState, HealthStatus, Reason, Transition},
};
use self::{class::ClassHealth, cooldowns::LimitReport, outage::Outage};
use super::{availability::Availability, request_class::RequestClass, verdict::Verdict};
use crate::{endpoint::EndpointClass, tick::Tick};

mod attempt;
mod cap;
mod class;
mod cooldowns;
mod jitter;
mod outage;
mod status;
#[cfg(test)]
mod tests;

/// The health of one upstream. See the [module](self).
#[derive(Clone, Debug)]
pub struct Health {
    /// The health of each class of endpoints, in the order of its discriminant. `None` if nothing is known about it, as
    /// about most classes of most upstreams.
    classes: [Option<Box<ClassHealth>>; EndpointClass::COUNT],
    /// The outage of an upstream that refused its credential. No class is ejected then.
    refusal: Option<Outage>,
    /// Whether the operator drains the upstream.
    is_draining: bool,
    /// When the upstream last accepted its credential again or got another one. Failures and refusals of earlier requests
    /// do not count.
    renewed: Option<Tick>,
    /// When the operator last enabled the upstream. Limits of earlier requests do not count.
    enabled: Option<Tick>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// The health of an upstream about which nothing is known.
    pub const fn new() -> Self {
        Self {
            classes: [const { None }; EndpointClass::COUNT],
            refusal: None,
            is_draining: false,
            renewed: None,
            enabled: None,
        }
    }

    /// Whether the upstream is ready for every request and remembers nothing that [`Verdict::Served`],
    /// [`Verdict::Answered`] or [`Health::complete`] would change. As long as this is true, requests can be sent, and
    /// these three dropped, without access to the health.
    pub fn is_plain(&self) -> bool {
        self.refusal.is_none() && !self.is_draining && self.known_classes().all(ClassHealth::is_plain)
    }

    /// Whether the upstream can take a request. A moment in the result is the earliest one: the upstream may still be
    /// unavailable when that moment has come.
    pub fn availability(&self, request: RequestClass, now: Tick) -> Availability {
        if self.is_draining {
            return Availability::Draining;
        }
        let class = self.class(request.endpoint);
        let cooling = class.and_then(|class| class.cooldowns.until(request.model, now));
        let ejection = class.and_then(ClassHealth::ejection);
        if let Some(outage) = self.refusal.as_ref().or(ejection) {
            let next = outage.next_probe();
            if now < next {
                return outage.availability(cooling.map_or(next, |(until, _)| until.max(next)));
            }
        }
        cooling.map_or(Availability::Ready, |(until, cause)| Availability::Cooling {
            until,
            cause,
        })
    }

    /// Begins an attempt: a request is sent now. The attempt is a probe if the upstream is ejected or disabled, a probe
    /// is due, and no other one is in flight.
    pub fn begin(&mut self, request: RequestClass, now: Tick) -> Attempt {
        let class = self.classes[request.endpoint as usize].as_deref_mut();
        let is_early = class.is_some_and(|class| class.cooldowns.claim_early_probes(request.model, now));
        let outage = self.outage_mut(request.endpoint);
        let probed = outage.and_then(|outage| outage.try_claim_probe(now).then(|| outage.state()));
        Attempt {
            probed: probed.or(is_early.then_some(HealthState::Cooling)),
            ..Attempt::plain(request, now)
        }
    }

    /// Records the verdict on `attempt`. `random` is 64 uniformly random bits for the jitter. `may_eject` returns whether
    /// the upstream may be ejected for these endpoints, and counts the ejection if it may; it is asked only if the
    /// upstream should be ejected.
    ///
    /// Returns a transition if the operator should know about it. A verdict that moves the end of a cooldown by a little
    /// returns none.
    pub fn observe(
        &mut self,
        attempt: Attempt,
        verdict: Verdict,
        now: Tick,
        random: u64,
        may_eject: impl FnOnce(EndpointClass) -> bool,
    ) -> Option<Transition> {
        self.abandon(attempt);
        match verdict {
            Verdict::Served => {
                let recovered = self.record_answer(attempt, now);
                let ended = self.end_cooldowns(attempt, now);
                recovered.or(ended)
            }
            Verdict::Answered | Verdict::ModelNotFound | Verdict::ObjectNotFound => {
                self.complete(attempt);
                self.record_answer(attempt, now)
            }
            Verdict::Failed => self.record_failure(attempt, now, random, may_eject),
            Verdict::Limited { reset, scope, cause } => {
                self.complete(attempt);
                let recovered = self.record_answer(attempt, now);
                if self.enabled.is_some_and(|enabled| attempt.began <= enabled) {
                    return recovered;
                }
                let report = LimitReport { reset, scope, cause };
                let class = self.class_mut(attempt.request.endpoint);
                class.cooldowns.record_limit(attempt, report, now, random).or(recovered)
            }
            Verdict::Refused => self.record_refusal(attempt, now),
            Verdict::Unauthorized | Verdict::Looped => None,
        }
    }

    /// Records that the whole response to a request that was served has arrived, which ends a row of failures.
    pub fn complete(&mut self, attempt: Attempt) {
        if let Some(class) = &mut self.classes[attempt.request.endpoint as usize] {
            class.end_row();
        }
    }

    /// Ends `attempt` without a verdict, because the client left. If the attempt was the probe, another probe may be sent.
    pub fn abandon(&mut self, attempt: Attempt) {
        if let Some(outage) = self.outage_mut(attempt.request.endpoint) {
            outage.release_probe(attempt);
        }
    }

    /// Ejects the upstream for generations for this reason, unless it is out already or `may_eject` returns that it may
    /// not be ejected. `random` and `may_eject` are as in [`Health::observe`].
    pub fn eject(
        &mut self,
        reason: Reason,
        now: Tick,
        random: u64,
        may_eject: impl FnOnce(EndpointClass) -> bool,
    ) -> Option<Transition> {
        const CLASS: EndpointClass = EndpointClass::Generation;
        let is_out = self.refusal.is_some() || self.is_ejected(CLASS);
        if is_out || !may_eject(CLASS) {
            return None;
        }
        Some(self.class_mut(CLASS).eject(reason, now, random))
    }

    /// Forgets failures and cooldowns that have expired by now, so that the health can become [plain](Self::is_plain)
    /// again. Each call reports one cooldown that has ended by itself; call it until it returns `None`.
    pub fn expire(&mut self, now: Tick) -> Option<Transition> {
        EndpointClass::ALL.into_iter().find_map(|endpoint| {
            let class = self.classes[endpoint as usize].as_mut()?;
            let scope = class.expire(now)?;
            Some(Transition::CooldownOver { scope, endpoint })
        })
    }

    /// Drains the upstream, by order of the operator. Returns `None` if it is draining already.
    pub fn drain(&mut self) -> Option<Transition> {
        let was_draining = std::mem::replace(&mut self.is_draining, true);
        (!was_draining).then_some(Transition::Drained)
    }

    /// Makes the upstream ready for every request, by order of the operator, and forgets all failures, limits and
    /// refusals.
    pub fn enable(&mut self, now: Tick) -> Option<Transition> {
        let was_plain = self.is_plain();
        *self = Self {
            renewed: Some(now),
            enabled: Some(now),
            ..Self::new()
        };
        (!was_plain).then_some(Transition::Enabled)
    }

    /// Records that the configuration was read again, perhaps with another credential. If the upstream is disabled, a
    /// probe is due now. Verdicts on requests that were sent before do not apply to the new credential.
    pub fn record_reload(&mut self, now: Tick) {
        self.renewed = Some(now);
        if let Some(refusal) = &mut self.refusal {
            refusal.record_reload(now);
        }
    }

    /// Whether the upstream is ejected for these endpoints.
    pub fn is_ejected(&self, endpoint: EndpointClass) -> bool {
        self.class(endpoint).and_then(ClassHealth::ejection).is_some()
    }

    /// Returns a summary of the health at `now`, for people.
    pub fn describe(&self, now: Tick) -> HealthStatus {
        const MAIN: EndpointClass = EndpointClass::Generation;
        let (main, known) = (self.class(MAIN), self.known_classes());
        let mut classes: Vec<ClassStatus> = known.filter_map(|class| class.describe(now)).collect();
        let generation = classes.iter().find(|class| class.endpoint == MAIN).copied();
        classes.retain(|class| class.endpoint != MAIN);
        let (state, reason, until) = match (&self.refusal, generation) {
            _ if self.is_draining => (HealthState::Draining, Some(Reason::Operator), None),
            (Some(outage), _) => (outage.state(), Some(outage.reason()), Some(outage.next_probe())),
            (None, Some(class)) => (class.state, Some(class.reason), Some(class.until)),
            (None, None) => (HealthState::Ready, None, None),
        };
        let (cooling_models, models_until) = main.map_or((0, None), |main| main.cooldowns.cooling_models(now));
        HealthStatus {
            state,
            reason,
            until,
            failures: main.map_or(0, ClassHealth::failures),
            cooling_models,
            models_until,
            classes,
        }
    }

    /// Records that the upstream has answered a request, which ends an outage that began before the request.
    fn record_answer(&mut self, attempt: Attempt, now: Tick) -> Option<Transition> {
        let Some(refusal) = &self.refusal else {
            let class = self.classes[attempt.request.endpoint as usize].as_mut()?;
            return class.record_answer(attempt, now);
        };
        if attempt.began <= refusal.since() {
            return None;
        }
        self.refusal = None;
        self.renewed = Some(now);
        Some(Transition::Recovered {
            from: HealthState::Disabled,
            endpoint: EndpointClass::Generation,
        })
    }

    fn end_cooldowns(&mut self, attempt: Attempt, now: Tick) -> Option<Transition> {
        let endpoint = attempt.request.endpoint;
        let class = self.classes[endpoint as usize].as_mut()?;
        let scope = class.cooldowns.end_by_success(attempt, now)?;
        Some(Transition::CooldownOver { scope, endpoint })
    }

    fn record_failure(
        &mut self,
        attempt: Attempt,
        now: Tick,
        random: u64,
        may_eject: impl FnOnce(EndpointClass) -> bool,
    ) -> Option<Transition> {
        if let Some(refusal) = &mut self.refusal {
            // A failure does not show that the credential is accepted.
            refusal.record_failure(attempt, now, random);
            return None;
        }
        let is_outdated = self.is_outdated(attempt);
        let class = self.class_mut(attempt.request.endpoint);
        if is_outdated && class.ejection().is_none() {
            return None;
        }
        class.record_failure(attempt, now, random, may_eject)
    }

    fn record_refusal(&mut self, attempt: Attempt, now: Tick) -> Option<Transition> {
        if let Some(refusal) = &mut self.refusal {
            refusal.record_refusal(attempt, now);
            return None;
        }
        let ejection = self.class(attempt.request.endpoint).and_then(ClassHealth::ejection);
        let disables = match ejection {
            Some(ejection) => ejection.since() < attempt.began,
            None => !self.is_outdated(attempt),
        };
        if !disables {
            return None;
        }
        self.classes
            .iter_mut()
            .flatten()
            .for_each(|class| class.forget_failures());
        self.refusal = Some(Outage::disabled(now));
        Some(Transition::Disabled)
    }

    /// Whether the request was sent before the upstream recovered or got another credential.
    fn is_outdated(&self, attempt: Attempt) -> bool {
        let class = self.class(attempt.request.endpoint);
        self.renewed.is_some_and(|renewed| attempt.began <= renewed)
            || class.is_some_and(|class| class.is_outdated(attempt))
    }

    fn class(&self, endpoint: EndpointClass) -> Option<&ClassHealth> {
        self.classes[endpoint as usize].as_deref()
    }

    fn class_mut(&mut self, endpoint: EndpointClass) -> &mut ClassHealth {
        let class = &mut self.classes[endpoint as usize];
        class.get_or_insert_with(|| Box::new(ClassHealth::new(endpoint)))
    }

    fn known_classes(&self) -> impl Iterator<Item = &ClassHealth> {
        self.classes.iter().flatten().map(|class| &**class)
    }

    /// The outage that concerns requests to these endpoints.
    fn outage_mut(&mut self, endpoint: EndpointClass) -> Option<&mut Outage> {
        match &mut self.refusal {
            Some(refusal) => Some(refusal),
            None => self.classes[endpoint as usize].as_mut()?.ejection_mut(),
        }
    }
}
