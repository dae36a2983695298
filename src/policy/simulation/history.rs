//! The history of a simulation, recorded separately for the invariants, because the memory of the policies is under
//! test.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{plan::SHARE, sent::SentRequest};
use crate::{
    endpoint::EndpointClass,
    ids::UpstreamId,
    policy::{
        Attempt, RequestClass, Scope, Verdict,
        budget::{FREE, WINDOW},
        health::{EARLY_PROBE, HealthState, PROBE_DISABLED, PROBE_PATIENCE, RESET_MIN, Transition},
    },
    tick::Tick,
};

/// The past events of a simulation that the invariants depend on.
#[derive(Default)]
pub(super) struct History {
    arrivals: VecDeque<Tick>,
    retries: VecDeque<Tick>,
    pub pins: HashMap<u64, UpstreamId>,
    /// The ejection of each upstream for a class of endpoints.
    ejections: HashMap<(usize, EndpointClass), KnownOutage>,
    /// The upstreams that have refused their credentials.
    refusals: HashMap<usize, KnownOutage>,
    cooldowns: HashMap<(usize, EndpointClass, Scope), KnownCooldown>,
    /// For each outage, the probe without a verdict and the time when it was sent. The class is `None` for a refusal.
    probes: HashMap<(usize, Option<EndpointClass>), (Attempt, Tick)>,
    /// The upstreams that are disabled, by what health has reported.
    disabled: HashSet<usize>,
    /// The classes for which each upstream has failed or limited a request.
    troubled: HashSet<(usize, EndpointClass)>,
}

/// A cooldown of a scope of an upstream, as the invariants know it.
#[derive(Clone, Copy)]
struct KnownCooldown {
    /// A moment before which the cooldown does not end.
    until: Tick,
    /// When the last early probe was sent, or when the cooldown began.
    probed: Tick,
}

/// An ejection or a disabling of an upstream, as the invariants know it.
struct KnownOutage {
    since: Tick,
    until: Tick,
}

impl History {
    pub(super) fn record_arrival(&mut self, now: Tick) {
        self.arrivals.push_back(now);
    }

    /// Records a retry, and checks that the retries are at most the free ones and a share of the requests.
    pub(super) fn record_retry(&mut self, now: Tick) {
        self.retries.push_back(now);
        while self.retries.front().is_some_and(|first| now.since(*first) > WINDOW) {
            self.retries.pop_front();
        }
        // The last retry for which a share of the requests was needed may have been granted a whole window ago.
        while self
            .arrivals
            .front()
            .is_some_and(|first| now.since(*first) >= 2 * WINDOW)
        {
            self.arrivals.pop_front();
        }
        let (retries, requests) = (self.retries.len() as f64, self.arrivals.len() as f64);
        assert!(
            retries <= FREE as f64 + SHARE * requests,
            "{retries} retries for {requests} requests"
        );
    }

    /// Records a sent request, and checks that an upstream in an outage gets only one probe at a time, and an
    /// upstream that is cooling down gets at most one request a minute. Returns whether the request was such an early
    /// probe.
    pub(super) fn record_send(&mut self, to: usize, attempt: Attempt, now: Tick) -> bool {
        let RequestClass { endpoint, model } = attempt.request();
        let mut is_early = false;
        let refusal = self.refusals.get(&to);
        if let Some(outage) = refusal.or(self.ejections.get(&(to, endpoint))) {
            assert!(outage.until <= now, "a request was sent to an upstream in an outage");
            assert!(attempt.is_probe(), "more than one request was sent as a probe");
        }
        let scopes = [Scope::Upstream].into_iter().chain(model.map(Scope::Model));
        for scope in scopes {
            let known = self.cooldowns.get_mut(&(to, endpoint, scope));
            if let Some(cooldown) = known.filter(|cooldown| now < cooldown.until) {
                assert!(
                    now.since(cooldown.probed) >= EARLY_PROBE,
                    "a request was sent to an upstream that is cooling down"
                );
                cooldown.probed = now;
                is_early = true;
            }
        }
        if attempt.is_probe() {
            let outage = (to, refusal.is_none().then_some(endpoint));
            let other = self.probes.insert(outage, (attempt, now));
            let is_alone = other.is_none_or(|(_, sent)| now.since(sent) >= PROBE_PATIENCE);
            assert!(is_alone, "more than one probe at a time");
        }
        is_early
    }

    /// Records the verdict on a request, and its effect.
    pub(super) fn record_verdict(&mut self, request: &SentRequest, transition: Option<Transition>, now: Tick) {
        let (upstream, endpoint) = (request.to, request.attempt.request().endpoint);
        match request.verdict {
            Verdict::Served => self
                .cooldowns
                .retain(|(of, class, _), _| (*of, *class) != (upstream, endpoint)),
            Verdict::Limited { reset, scope, .. } => {
                self.troubled.insert((upstream, endpoint));
                if let Some(reset) = reset {
                    let named = now.after(reset.max(RESET_MIN));
                    self.cooldowns
                        .entry((upstream, endpoint, scope))
                        .and_modify(|cooldown| cooldown.until = named.min(cooldown.until));
                }
            }
            Verdict::Failed => {
                self.troubled.insert((upstream, endpoint));
                self.renew_refusal(request, now);
            }
            Verdict::Refused => self.renew_refusal(request, now),
            Verdict::Answered
            | Verdict::Unauthorized
            | Verdict::ModelNotFound
            | Verdict::ObjectNotFound
            | Verdict::Looped => {}
        }
        // An upstream that answers a request works, if the request was sent after the outage began.
        let is_answer = matches!(
            request.verdict,
            Verdict::Served | Verdict::Answered | Verdict::Limited { .. }
        );
        let is_over = is_answer && self.end_outage(upstream, endpoint, request.at);
        if let Some(Transition::Recovered { .. }) = transition {
            assert!(is_over, "a request that was sent before an outage cannot end it");
        }
        self.record_transition(upstream, transition, now);
    }

    /// Records that a probe has not shown that a disabled upstream accepts its credential.
    fn renew_refusal(&mut self, request: &SentRequest, now: Tick) {
        if let Some(refusal) = self.refusals.get_mut(&request.to)
            && refusal.until <= request.at
        {
            *refusal = KnownOutage {
                since: now,
                until: now.after(PROBE_DISABLED),
            };
        }
    }

    /// Records that an upstream has answered a request that was sent at `sent`. Returns whether that ends an outage.
    fn end_outage(&mut self, upstream: usize, endpoint: EndpointClass, sent: Tick) -> bool {
        let is_refusal = self.refusals.contains_key(&upstream);
        let outage = self
            .refusals
            .get(&upstream)
            .or(self.ejections.get(&(upstream, endpoint)));
        let is_over = outage.is_some_and(|outage| outage.since < sent);
        if is_over {
            self.probes.remove(&(upstream, (!is_refusal).then_some(endpoint)));
            match is_refusal {
                true => self.refusals.remove(&upstream),
                false => self.ejections.remove(&(upstream, endpoint)),
            };
        }
        is_over
    }

    pub(super) fn record_transition(&mut self, upstream: usize, transition: Option<Transition>, now: Tick) {
        match transition {
            Some(Transition::Ejected { until, endpoint, .. }) => {
                self.ejections
                    .insert((upstream, endpoint), KnownOutage { since: now, until });
            }
            Some(Transition::Disabled) => {
                self.disabled.insert(upstream);
                // The refusal takes the place of all ejections.
                self.probes.retain(|(of, _), _| *of != upstream);
                self.ejections.retain(|(of, _), _| *of != upstream);
                let until = now.after(PROBE_DISABLED);
                self.refusals.insert(upstream, KnownOutage { since: now, until });
            }
            Some(Transition::Cooling {
                until, scope, endpoint, ..
            }) => {
                // If the cooldown goes on, the time of its last probe stays.
                let begun = KnownCooldown { until, probed: now };
                let cooldown = self.cooldowns.entry((upstream, endpoint, scope)).or_insert(begun);
                cooldown.until = until;
            }
            Some(Transition::Recovered {
                from: HealthState::Disabled,
                ..
            }) => {
                self.disabled.remove(&upstream);
            }
            Some(
                Transition::CooldownOver { .. }
                | Transition::Recovered { .. }
                | Transition::Drained
                | Transition::Enabled,
            )
            | None => {}
        }
    }

    pub(super) fn end_probe(&mut self, upstream: usize, attempt: Attempt) {
        self.probes
            .retain(|(of, _), (probe, _)| *of != upstream || *probe != attempt);
    }

    /// Whether the upstream has never failed or limited a request of this class, and accepts its credential.
    pub(super) fn is_untroubled(&self, upstream: usize, endpoint: EndpointClass) -> bool {
        !self.disabled.contains(&upstream) && !self.troubled.contains(&(upstream, endpoint))
    }

    /// Records that the operator has enabled the upstream, which ends every outage and cooldown.
    pub(super) fn record_enabling(&mut self, upstream: usize) {
        self.disabled.remove(&upstream);
        self.refusals.remove(&upstream);
        self.probes.retain(|(of, _), _| *of != upstream);
        self.ejections.retain(|(of, _), _| *of != upstream);
        self.cooldowns.retain(|(of, _, _), _| *of != upstream);
    }

    /// Records a reload, which may bring another credential.
    pub(super) fn record_reload(&mut self, upstream: usize, now: Tick) {
        if let Some(refusal) = self.refusals.get_mut(&upstream) {
            refusal.until = now;
            self.probes.remove(&(upstream, None));
        }
    }
}
