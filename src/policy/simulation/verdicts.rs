//! What a verdict changes in a simulation: the health of the upstream, and the places for ejections.

use super::{sent::SentRequest, upstream::Evidence, world::World};
use crate::{
    endpoint::EndpointClass,
    policy::{Verdict, health::Transition},
};

impl World {
    /// Tells the verdict to health, unless it is a failure that does not count yet or at all.
    pub(super) fn judge(&mut self, request: usize, sent: SentRequest) {
        let counts = match sent.evidence {
            _ if sent.verdict != Verdict::Failed => true,
            Evidence::Certain => true,
            Evidence::Withheld => sent.attempt.is_probe(),
            Evidence::Nothing => false,
        };
        if counts {
            return self.observe(&sent);
        }
        self.upstreams[sent.to].health.abandon(sent.attempt);
        self.history.end_probe(sent.to, sent.attempt);
        if sent.evidence == Evidence::Withheld {
            self.requests[request].withheld.push(sent);
        }
    }

    /// Counts the failures of a request that another upstream has served.
    pub(super) fn count_withheld(&mut self, request: usize) {
        for failed in std::mem::take(&mut self.requests[request].withheld) {
            self.check_failure(request, &failed);
            self.observe(&failed);
            self.changed.push(failed.to);
        }
    }

    /// Ends a stream, which is whole or breaks off.
    pub(super) fn finish_stream(&mut self, sent: SentRequest) {
        match sent.late {
            None => self.upstreams[sent.to].health.complete(sent.attempt),
            Some(verdict) => {
                self.counts.broken_off += 1;
                if sent.is_generation() {
                    self.upstreams[sent.to].outcomes.take_back_success(sent.at);
                }
                self.observe(&SentRequest { verdict, ..sent });
                self.changed.push(sent.to);
            }
        }
    }

    fn observe(&mut self, sent: &SentRequest) {
        let &SentRequest {
            to, attempt, verdict, ..
        } = sent;
        let upstream = &mut self.upstreams[to];
        if sent.is_generation() {
            upstream.outcomes.record(sent.at, verdict, self.now);
        }
        let (health, is_configured) = (&mut upstream.health, upstream.is_configured);
        while health.expire(self.now).is_some() {}
        if health.is_plain() && matches!(verdict, Verdict::Served | Verdict::Answered) {
            return;
        }
        let was_ejected = EndpointClass::ALL.map(|class| health.is_ejected(class));
        let (cap, kept) = (&mut self.cap, &mut self.counts.kept);
        let may_eject = |class| {
            let may_eject = !is_configured || cap.try_take(class);
            *kept += u64::from(!may_eject);
            may_eject
        };
        let transition = health.observe(attempt, verdict, self.now, self.rng.u64(..), may_eject);
        self.count_end_of_ejection(to, was_ejected);
        match transition {
            Some(Transition::Ejected { endpoint, .. }) => {
                self.counts.ejections += 1;
                self.counts.partial += u64::from(endpoint != EndpointClass::Generation);
            }
            Some(Transition::Cooling { endpoint, .. }) => {
                self.counts.cooldowns += 1;
                self.counts.partial += u64::from(endpoint != EndpointClass::Generation);
            }
            Some(Transition::Disabled) => self.counts.disabled += 1,
            _ => {}
        }
        self.history.record_verdict(sent, transition, self.now);
        self.history.end_probe(to, attempt);
    }

    /// Whether the upstream is ejected, for each class.
    pub(super) fn ejections(&self, upstream: usize) -> [bool; EndpointClass::COUNT] {
        EndpointClass::ALL.map(|class| self.upstreams[upstream].health.is_ejected(class))
    }

    /// Gives back the place of an upstream whose ejection has ended.
    pub(super) fn count_end_of_ejection(&mut self, upstream: usize, was_ejected: [bool; EndpointClass::COUNT]) {
        let it = &self.upstreams[upstream];
        for (class, was_ejected) in EndpointClass::ALL.into_iter().zip(was_ejected) {
            if was_ejected && it.is_configured && !it.health.is_ejected(class) {
                self.cap.give_back(class);
            }
        }
    }
}
