//! The life of a request: it is sent until it is served, as the gateway does it.

use std::{rc::Rc, time::Duration};

use super::{
    plan::{ATTEMPTS, secs},
    sent::SentRequest,
    upstream::{Evidence, SimulatedAnswer},
    world::{RequestOrigin, RequestStage, SimulatedEvent, SimulatedRequest, World},
};
use crate::{
    endpoint::EndpointClass,
    policy::{Affinity, Attempt, Candidate, Decision, Route, Verdict, WaitLimits, select},
    tick::Tick,
};

/// The time for which an upstream caches a prompt.
const CACHE_LIFE: Duration = secs(300);

impl World {
    pub(super) fn arrive(&mut self, origin: RequestOrigin) {
        let endpoint = self.endpoint();
        self.arrive_at(origin, endpoint);
    }

    pub(super) fn arrive_at(&mut self, origin: RequestOrigin, endpoint: EndpointClass) {
        self.counts.requests += 1;
        self.history.record_arrival(self.now);
        self.budget.sample(self.now, self.counts.requests);
        let is_owned = !self.plan.only_limits && self.rng.u8(..3) == 0;
        let mut affinity = Affinity::default();
        let (mut bytes, mut is_poisoned) = (0, false);
        if let RequestOrigin::Session(session) = origin {
            let session = &self.sessions[session];
            affinity.key = Some(session.key);
            affinity.owner = session.owner.filter(|_| is_owned);
            (bytes, is_poisoned) = (session.bytes, session.is_poisoned);
        }
        let pin = affinity.key.and_then(|key| self.pins.get(key, self.now));
        self.counts.owned += u64::from(affinity.owner.is_some());
        let has_cache = pin.is_some() || affinity.owner.is_some();
        let patience = self.plan.patience;
        let stays = self.now.after(patience.of_session(bytes));
        self.requests.push(SimulatedRequest {
            origin,
            endpoint,
            model: self.models[usize::from(self.rng.bool())],
            affinity,
            pin,
            snapshot: Rc::clone(&self.snapshot),
            random: self.rng.u64(..),
            stays_until: if has_cache { stays } else { Tick::ZERO },
            waits_until: self.now.after(patience.wait.min(patience.wait_max)),
            is_poisoned,
            withheld: Vec::new(),
            resets_until: self.now.after(patience.wait_max),
            recovers_until: if affinity.owner.is_some() { stays } else { Tick::ZERO },
            tried: Vec::new(),
            limited: Vec::new(),
            sent: 0,
            stage: RequestStage::Arrived,
            step: 0,
        });
        let request = self.requests.len() - 1;
        self.check_arrival(request);
        if self.rng.u8(..10) == 0 {
            let stays = Duration::from_millis(self.rng.u64(..20_000));
            self.schedule(stays, SimulatedEvent::ClientLeaves(request));
        }
        self.advance(request);
    }

    fn advance(&mut self, request: usize) {
        let it = &self.requests[request];
        let upstream = |index| it.snapshot.upstream(index);
        let limits = WaitLimits {
            now: self.now,
            stays_until: it.stays_until,
            waits_until: it.waits_until,
            resets_until: it.resets_until,
            recovers_until: it.recovers_until,
        };
        let has_failed = |index| it.tried.contains(&upstream(index));
        let availability = |index| self.availability_to(request, upstream(index));
        let decision = if it.endpoint == EndpointClass::Generation && self.has_slow_upstream() {
            select(
                self.candidates_by_speed(request).into_iter(),
                has_failed,
                availability,
                &limits,
            )
        } else {
            select(self.candidates(request), has_failed, availability, &limits)
        };
        self.check_decision(request, decision);
        self.counts.avoided += u64::from(self.is_avoiding(request, decision));
        match decision {
            Decision::Send(candidate) => self.send(request, candidate),
            Decision::Wait { candidate, until } => {
                let at = self.requests[request].snapshot.upstream(candidate.index);
                self.wait(request, at, until);
            }
            Decision::WaitForChange { until } => {
                let own = self.candidates(request).next().expect("a request waits for candidates");
                let at = self.requests[request].snapshot.upstream(own.index);
                self.wait(request, at, until);
            }
            Decision::NoUpstream => self.end(request),
        }
    }

    fn wait(&mut self, request: usize, at: usize, until: Tick) {
        if !matches!(self.requests[request].stage, RequestStage::Waiting { at: already } if already == at) {
            self.counts.waits += 1;
            self.enter(request, RequestStage::Waiting { at }, until.since(self.now));
            self.upstreams[at].waiting.push(request);
        } else {
            // The request keeps its place in the queue.
            let step = self.next_step(request);
            self.schedule(until.since(self.now), SimulatedEvent::NextStep { request, step });
        }
    }

    fn send(&mut self, request: usize, candidate: Candidate) {
        let (class, to) = {
            let it = &self.requests[request];
            (it.class(), it.snapshot.upstream(candidate.index))
        };
        // A limit that was waited out costs neither a retry nor an attempt.
        let is_waited_out = self.requests[request].limited.contains(&to);
        if is_waited_out {
            self.requests[request].sent -= 1;
        } else if self.requests[request].sent > 0 {
            if !self.budget.try_spend(self.now, self.counts.requests) {
                self.counts.refused += 1;
                return self.end(request);
            }
            self.counts.retries += 1;
            self.history.record_retry(self.now);
        }
        let upstream = &mut self.upstreams[to];
        let answer = match self.requests[request].is_poisoned {
            true => SimulatedAnswer::failed(&mut self.rng),
            false => upstream.answer(class, self.now, &mut self.rng),
        };
        upstream.in_flight += 1;
        let attempt = if upstream.health.is_plain() {
            Attempt::plain(class, self.now)
        } else {
            upstream.health.begin(class, self.now)
        };
        self.counts.probes += u64::from(attempt.is_probe());
        self.counts.before_ejection += u64::from(to == 0 && self.counts.ejections == 0);
        let is_early = self.history.record_send(to, attempt, self.now);
        self.counts.early_probes += u64::from(is_early);
        self.requests[request].sent += 1;
        let sent = SentRequest {
            to,
            at: self.now,
            route: candidate.route,
            attempt,
            verdict: answer.verdict,
            evidence: answer.evidence,
            late: answer.late,
        };
        self.enter(request, RequestStage::Sent(sent), answer.after);
    }

    /// Performs the next step of a request, if `step` is still its next one.
    pub(super) fn step(&mut self, request: usize, step: u32) {
        if self.requests[request].step != step {
            return;
        }
        match self.requests[request].stage {
            RequestStage::Arrived | RequestStage::Ended => panic!("a request in this stage has no next step"),
            RequestStage::Waiting { .. } => self.advance(request),
            RequestStage::Sent(sent) => self.handle_verdict(request, sent),
            RequestStage::Streaming(sent) => {
                self.finish_stream(sent);
                self.end(request);
            }
        }
    }

    fn handle_verdict(&mut self, request: usize, sent: SentRequest) {
        let SentRequest { to, route, verdict, .. } = sent;
        self.judge(request, sent);
        match verdict {
            Verdict::Served | Verdict::Answered => {
                self.record_success(request, to, route, verdict);
                if verdict == Verdict::Served {
                    self.count_withheld(request);
                }
                if verdict == Verdict::Served && sent.is_generation() {
                    let took = self.now.since(sent.at);
                    self.upstreams[to]
                        .outcomes
                        .record_first_output(took, &mut self.model_time);
                }
                let streams = Duration::from_millis(self.rng.u64(100..10_000));
                self.enter(request, RequestStage::Streaming(sent), streams);
                self.changed.push(to);
                return;
            }
            Verdict::Limited { reset: Some(reset), .. } if self.can_wait_out(request, reset) => {
                self.requests[request].limited.push(to);
            }
            Verdict::Limited { .. }
            | Verdict::Failed
            | Verdict::Refused
            | Verdict::Unauthorized
            | Verdict::ModelNotFound
            | Verdict::ObjectNotFound
            | Verdict::Looped => {
                self.requests[request].tried.push(to);
            }
        }
        self.release(to);
        self.requests[request].stage = RequestStage::Arrived;
        let may_go_on = sent.evidence != Evidence::Nothing || verdict != Verdict::Failed;
        if may_go_on && self.requests[request].sent < ATTEMPTS {
            self.advance(request);
        } else {
            self.end(request);
        }
        self.changed.push(to);
    }

    /// A class for a new request, or for new trouble: most often generations.
    pub(super) fn endpoint(&mut self) -> EndpointClass {
        match self.rng.u8(..12) {
            0 if !self.plan.only_limits => EndpointClass::Images,
            1 if !self.plan.only_limits => EndpointClass::Objects,
            _ => EndpointClass::Generation,
        }
    }

    fn record_success(&mut self, request: usize, by: usize, route: Route, verdict: Verdict) {
        self.counts.served += 1;
        let SimulatedRequest {
            origin, pin, affinity, ..
        } = self.requests[request];
        let (RequestOrigin::Session(session), Some(key), true) = (origin, affinity.key, verdict == Verdict::Served)
        else {
            return;
        };
        let id = self.upstreams[by].member.id;
        let confirmed = self.pins.confirm(key, pin, id, self.now);
        self.check_pin(key, pin, id, confirmed);
        self.counts.moves += u64::from(route == Route::Moved && pin.is_some());
        self.sessions[session].owner = Some(id);
        self.read_prompt(session, by);
    }

    /// Whether a limit ends while the request still waits for resets. In that case, the upstream does not count as failed.
    fn can_wait_out(&self, request: usize, reset: Duration) -> bool {
        self.now.after(reset) <= self.requests[request].resets_until
    }

    pub(super) fn leave(&mut self, request: usize) {
        let stage = self.requests[request].stage;
        if let RequestStage::Sent(SentRequest { to, attempt, .. }) = stage {
            self.upstreams[to].health.abandon(attempt);
            self.history.end_probe(to, attempt);
            self.release(to);
        }
        if !matches!(stage, RequestStage::Ended) {
            self.counts.left += 1;
            self.end(request);
        }
        if let RequestStage::Sent(SentRequest { to, .. }) = stage {
            self.changed.push(to);
        }
    }

    /// Ends the request, and frees its slot or its place in the queue.
    fn end(&mut self, request: usize) {
        let before = self.requests[request].stage;
        self.enter(request, RequestStage::Ended, Duration::ZERO);
        self.counts.forgiven += self.requests[request].withheld.len() as u64;
        if let RequestStage::Streaming(SentRequest { to, .. }) = before {
            self.release(to);
            self.changed.push(to);
        }
    }

    fn release(&mut self, upstream: usize) {
        let it = &mut self.upstreams[upstream];
        it.in_flight = it.in_flight.checked_sub(1).expect("a slot was freed twice");
    }

    /// Advances the requests that wait for a changed upstream, in the order of their arrival.
    pub(super) fn advance_waiting(&mut self, upstream: usize) {
        let mut at = 0;
        while let Some(request) = self.upstreams[upstream].waiting.get(at).copied() {
            let it = &self.upstreams[upstream];
            if it.is_ready(self.requests[request].class(), self.now) && !it.has_free_slot() {
                break;
            }
            self.advance(request);
            // If the request has left the queue, the next request has its place now.
            at += usize::from(self.upstreams[upstream].waiting.get(at) == Some(&request));
        }
    }

    fn enter(&mut self, request: usize, stage: RequestStage, lasts: Duration) {
        let step = self.next_step(request);
        let before = std::mem::replace(&mut self.requests[request].stage, stage);
        if let RequestStage::Waiting { at } = before {
            self.upstreams[at].waiting.retain(|waiting| *waiting != request);
            self.changed.push(at);
        }
        if !matches!(stage, RequestStage::Ended) {
            self.schedule(lasts, SimulatedEvent::NextStep { request, step });
        }
    }

    fn next_step(&mut self, request: usize) -> u32 {
        let step = &mut self.requests[request].step;
        *step += 1;
        *step
    }

    /// Records that an upstream has read a session's prompt.
    fn read_prompt(&mut self, session: usize, upstream: usize) {
        let organization = self.upstreams[upstream].member.organization;
        let session = &mut self.sessions[session];
        let last = session.cached.insert(organization, self.now);
        let is_warm = last.is_some_and(|last| self.now.since(last) < CACHE_LIFE);
        self.counts.input_bytes += session.bytes;
        self.counts.cached_bytes += if is_warm { session.bytes } else { 0 };
    }
}
