//! The history of a simulation, recorded separately for the invariants, because the memory of the policies is under
//! test.

use std::collections::{HashMap, VecDeque};

use super::plan::SHARE;
use crate::{
    ids::{ModelKey, UpstreamId},
    policy::{
        Attempt, Scope, Verdict,
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
    /// The outage of each upstream.
    outages: HashMap<usize, KnownOutage>,
    cooldowns: HashMap<(usize, Scope), KnownCooldown>,
    /// For each upstream, the probe without a verdict and the time when it was sent.
    probes: HashMap<usize, (Attempt, Tick)>,
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
    state: HealthState,
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
    pub(super) fn record_send(&mut self, to: usize, model: ModelKey, attempt: Attempt, now: Tick) -> bool {
        let mut is_early = false;
        if let Some(outage) = self.outages.get(&to) {
            assert!(outage.until <= now, "a request was sent to an upstream in an outage");
            assert!(attempt.is_probe(), "more than one request was sent as a probe");
        }
        for scope in [Scope::Upstream, Scope::Model(model)] {
            let known = self.cooldowns.get_mut(&(to, scope));
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
            let other = self.probes.insert(to, (attempt, now));
            let is_alone = other.is_none_or(|(_, sent)| now.since(sent) >= PROBE_PATIENCE);
            assert!(is_alone, "more than one probe at a time");
        }
        is_early
    }

    /// Records the verdict on a request that was sent at `sent`.
    pub(super) fn record_verdict(
        &mut self,
        upstream: usize,
        verdict: Verdict,
        transition: Option<Transition>,
        sent: Tick,
        now: Tick,
    ) {
        match verdict {
            Verdict::Served => self.cooldowns.retain(|(of, _), _| *of != upstream),
            Verdict::Limited {
                reset: Some(reset),
                scope,
                ..
            } => {
                let named = now.after(reset.max(RESET_MIN));
                self.cooldowns
                    .entry((upstream, scope))
                    .and_modify(|cooldown| cooldown.until = named.min(cooldown.until));
            }
            Verdict::Limited { .. }
            | Verdict::Answered
            | Verdict::Failed
            | Verdict::Refused
            | Verdict::Unauthorized => {}
        }
        // An upstream that answers a request works, if the request was sent after the outage began.
        let is_answer = matches!(verdict, Verdict::Served | Verdict::Answered | Verdict::Limited { .. });
        let is_over = is_answer && self.outages.get(&upstream).is_some_and(|outage| outage.since < sent);
        if is_over {
            self.outages.remove(&upstream);
            self.probes.remove(&upstream);
        }
        let outage = |state, until| KnownOutage {
            state,
            since: now,
            until,
        };
        if matches!(verdict, Verdict::Failed | Verdict::Refused) {
            self.prolong_disabling(upstream, sent, now);
        }
        match transition {
            Some(Transition::Ejected { until, .. }) => {
                self.outages.insert(upstream, outage(HealthState::Ejected, until));
            }
            Some(Transition::Disabled) => {
                self.probes.remove(&upstream);
                self.outages
                    .insert(upstream, outage(HealthState::Disabled, now.after(PROBE_DISABLED)));
            }
            Some(Transition::Recovered { .. }) => {
                assert!(is_over, "a request that was sent before an outage cannot end it")
            }
            Some(Transition::Cooling { until, scope, .. }) => {
                // If the cooldown goes on, the time of its last probe stays.
                let begun = KnownCooldown { until, probed: now };
                let cooldown = self.cooldowns.entry((upstream, scope)).or_insert(begun);
                cooldown.until = until;
            }
            Some(Transition::CooldownOver { .. } | Transition::Drained | Transition::Enabled) | None => {}
        }
    }

    /// Records that a request that was sent at `sent` has failed. If it was the probe of a disabled upstream, the disabling
    /// is prolonged, which is no transition.
    fn prolong_disabling(&mut self, upstream: usize, sent: Tick, now: Tick) {
        if let Some(known) = self.outages.get_mut(&upstream)
            && known.state == HealthState::Disabled
            && known.until <= sent
        {
            (known.since, known.until) = (now, now.after(PROBE_DISABLED));
        }
    }

    pub(super) fn end_probe(&mut self, upstream: usize, attempt: Attempt) {
        if self.probes.get(&upstream).is_some_and(|(probe, _)| *probe == attempt) {
            self.probes.remove(&upstream);
        }
    }

    /// Records that the operator has enabled the upstream, which ends every outage and cooldown.
    pub(super) fn record_enabling(&mut self, upstream: usize) {
        self.probes.remove(&upstream);
        self.outages.remove(&upstream);
        self.cooldowns.retain(|(of, _), _| *of != upstream);
    }

    /// Records a reload, which may bring another credential.
    pub(super) fn record_reload(&mut self, upstream: usize, now: Tick) {
        if let Some(outage) = self.outages.get_mut(&upstream)
            && outage.state == HealthState::Disabled
        {
            outage.until = now;
            self.probes.remove(&upstream);
        }
    }
}
