//! What the invariants need to know of the past, kept by themselves: what the policies remember is what is under test.

use std::collections::{HashMap, VecDeque};

use super::SHARE;
use crate::{
    ids::{ModelKey, UpstreamId},
    policy::{
        Attempt, Scope, Verdict,
        budget::{FREE, WINDOW},
        health::{HealthState, PROBE_DISABLED, PROBE_PATIENCE, RESET_MIN, Transition},
    },
    tick::Tick,
};

#[derive(Default)]
pub(super) struct History {
    arrivals: VecDeque<Tick>,
    retries: VecDeque<Tick>,
    pub pins: HashMap<u64, UpstreamId>,
    /// By upstream.
    outages: HashMap<usize, KnownOutage>,
    /// A moment before which it is not over.
    cooldowns: HashMap<(usize, Scope), Tick>,
    /// By upstream, the probe without a verdict and when it was sent.
    probes: HashMap<usize, (Attempt, Tick)>,
}

/// Ejected or disabled.
struct KnownOutage {
    state: HealthState,
    since: Tick,
    until: Tick,
}

impl History {
    pub(super) fn arrived(&mut self, now: Tick) {
        self.arrivals.push_back(now);
    }

    /// Retries are at most a share of the requests, and those that are free.
    pub(super) fn retried(&mut self, now: Tick) {
        self.retries.push_back(now);
        while self.retries.front().is_some_and(|first| now.since(*first) > WINDOW) {
            self.retries.pop_front();
        }
        while self.arrivals.front().is_some_and(|first| now.since(*first) >= WINDOW) {
            self.arrivals.pop_front();
        }
        let (retries, requests) = (self.retries.len() as f64, self.arrivals.len() as f64);
        assert!(
            retries <= FREE as f64 + SHARE * requests,
            "{retries} retries for {requests} requests"
        );
    }

    /// Nobody is sent to an upstream that is out or cooling, but to find out whether it still is, and one at a time.
    pub(super) fn sent(&mut self, to: usize, model: ModelKey, attempt: Attempt, is_least_bad: bool, now: Tick) {
        if !is_least_bad {
            if let Some(outage) = self.outages.get(&to) {
                assert!(outage.until <= now, "sent to an upstream that is out");
                assert!(attempt.is_probe(), "more than one sent to find out");
            }
            for scope in [Scope::Upstream, Scope::Model(model)] {
                let until = self.cooldowns.get(&(to, scope));
                assert!(
                    until.is_none_or(|until| *until <= now),
                    "sent to an upstream that is cooling"
                );
            }
        }
        if attempt.is_probe() {
            let other = self.probes.insert(to, (attempt, now));
            let is_alone = other.is_none_or(|(_, sent)| now.since(sent) >= PROBE_PATIENCE);
            assert!(is_alone, "more than one probe at a time");
        }
    }

    /// A request that was `sent` came to this.
    pub(super) fn observed(
        &mut self,
        upstream: usize,
        outcome: Verdict,
        transition: Option<Transition>,
        sent: Tick,
        now: Tick,
    ) {
        match outcome {
            Verdict::Served => self.cooldowns.retain(|(of, _), _| *of != upstream),
            Verdict::Limited {
                reset: Some(reset),
                scope,
            } => {
                let named = now.after(reset.max(RESET_MIN));
                self.cooldowns
                    .entry((upstream, scope))
                    .and_modify(|until| *until = named.min(*until));
            }
            Verdict::Limited { .. } | Verdict::Answered | Verdict::Failed | Verdict::Refused => {}
        }
        // Whoever answers works, if it was asked after it did not.
        let is_answer = matches!(outcome, Verdict::Served | Verdict::Answered | Verdict::Limited { .. });
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
        match transition {
            Some(Transition::Ejected { until, .. }) => {
                self.outages.insert(upstream, outage(HealthState::Ejected, until));
            }
            Some(Transition::Disabled) => {
                self.probes.remove(&upstream);
                self.outages
                    .insert(upstream, outage(HealthState::Disabled, now.after(PROBE_DISABLED)));
            }
            Some(Transition::Recovered { .. }) => assert!(is_over, "what was sent before an outage cannot end it"),
            Some(Transition::Cooling { until, scope, .. }) => {
                self.cooldowns.insert((upstream, scope), until);
            }
            Some(Transition::CooldownOver { .. } | Transition::Drained | Transition::Enabled) | None => {}
        }
    }

    pub(super) fn probe_over(&mut self, upstream: usize, attempt: Attempt) {
        if self.probes.get(&upstream).is_some_and(|(probe, _)| *probe == attempt) {
            self.probes.remove(&upstream);
        }
    }

    /// The operator knows better.
    pub(super) fn enabled(&mut self, upstream: usize) {
        self.probes.remove(&upstream);
        self.outages.remove(&upstream);
        self.cooldowns.retain(|(of, _), _| *of != upstream);
    }

    /// The credential may be another one.
    pub(super) fn reloaded(&mut self, upstream: usize, now: Tick) {
        if let Some(outage) = self.outages.get_mut(&upstream)
            && outage.state == HealthState::Disabled
        {
            outage.until = now;
            self.probes.remove(&upstream);
        }
    }
}
