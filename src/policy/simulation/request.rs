//! A request: sent until it is served, as the gateway does it.

use std::{rc::Rc, time::Duration};

use super::{
    ATTEMPTS,
    world::{Happening, SimulatedConfig, World},
};
use crate::{
    ids::{ModelKey, UpstreamId},
    policy::{
        Affinity, Attempt, Availability, Candidate, Decision, Preference, Route, Verdict, WaitLimits, candidates,
        health::Transition, select,
    },
    tick::Tick,
};

/// Whose request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RequestOrigin {
    Session(usize),
    Keyless,
}

pub(super) struct SimulatedRequest {
    pub caller: RequestOrigin,
    pub model: ModelKey,
    pub affinity: Affinity,
    pub pin: Option<UpstreamId>,
    /// The configuration that it began with.
    pub snapshot: Rc<SimulatedConfig>,
    random: u64,
    pub stays_until: Tick,
    pub waits_until: Tick,
    /// Upstreams that have failed it.
    pub tried: Vec<usize>,
    pub sent: u32,
    pub stage: RequestStage,
    /// SimulationCounts the stages, so that what was planned for an earlier one is not done.
    turn: u32,
}

/// What becomes of a request that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentRequest {
    to: usize,
    at: Tick,
    route: Route,
    attempt: Attempt,
    outcome: Verdict,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum RequestStage {
    Arrived,
    Waiting { at: usize },
    Sent(SentRequest),
    Streaming { from: usize },
    Ended,
}

impl World {
    pub(super) fn arrive(&mut self, caller: RequestOrigin) {
        self.counts.requests += 1;
        self.history.arrived(self.now);
        self.budget.sample(self.now, self.counts.requests);
        let is_owned = !self.plan.only_limits && self.rng.u8(..3) == 0;
        let mut affinity = Affinity::default();
        let mut bytes = 0;
        if let RequestOrigin::Session(session) = caller {
            let session = &self.sessions[session];
            affinity.key = Some(session.key);
            affinity.owner = session.owner.filter(|_| is_owned);
            bytes = session.bytes;
        }
        let pin = affinity.key.and_then(|key| self.pins.get(key, self.now));
        self.counts.owned += u64::from(affinity.owner.is_some());
        let is_settled = pin.is_some() || affinity.owner.is_some();
        let patience = self.plan.patience;
        let stays = self.now.after(patience.of_session(bytes));
        self.requests.push(SimulatedRequest {
            caller,
            model: self.models[usize::from(self.rng.bool())],
            affinity,
            pin,
            snapshot: Rc::clone(&self.snapshot),
            random: self.rng.u64(..),
            stays_until: if is_settled { stays } else { Tick::ZERO },
            waits_until: self.now.after(patience.wait.min(patience.wait_max)),
            tried: Vec::new(),
            sent: 0,
            stage: RequestStage::Arrived,
            turn: 0,
        });
        let request = self.requests.len() - 1;
        self.check_arrival(request);
        if self.rng.u8(..10) == 0 {
            let stays = Duration::from_millis(self.rng.u64(..20_000));
            self.schedule(stays, Happening::Leave(request));
        }
        self.advance(request);
    }

    /// Where the request may go, best first: positions in its configuration's pool.
    pub(super) fn candidates(&self, request: usize) -> impl Iterator<Item = Candidate> {
        let SimulatedRequest {
            affinity,
            pin,
            model,
            random,
            snapshot,
            ..
        } = &self.requests[request];
        let serves_all = *model == self.models[0];
        let in_flight = |index: usize| self.upstreams[snapshot.upstreams[index]].in_flight;
        candidates(
            &snapshot.pool,
            Preference {
                affinity: *affinity,
                pin: *pin,
            },
            move |class| class == 0 || serves_all,
            *random,
            in_flight,
        )
    }

    pub(super) fn availability_to(&self, request: usize, upstream: usize) -> Availability {
        let it = &self.upstreams[upstream];
        let availability = it.health.availability(Some(self.requests[request].model), self.now);
        match availability {
            Availability::Ready if !self.has_slot(request, upstream) => Availability::Full,
            availability => availability,
        }
    }

    /// Whether there is a slot for the request that nobody waits for who came before it.
    pub(super) fn has_slot(&self, request: usize, upstream: usize) -> bool {
        let it = &self.upstreams[upstream];
        let mut before = it.waiting.iter().take_while(|waiting| **waiting != request);
        let wants = |waiting: &usize| it.is_ready(self.requests[*waiting].model, self.now);
        it.slots.is_none() || (it.has_free_slot() && !before.any(wants))
    }

    fn advance(&mut self, request: usize) {
        let it = &self.requests[request];
        let upstream = |index: usize| it.snapshot.upstreams[index];
        let limits = WaitLimits {
            now: self.now,
            stays_until: it.stays_until,
            waits_until: it.waits_until,
        };
        let decision = select(
            self.candidates(request),
            |index| it.tried.contains(&upstream(index)),
            |index| self.availability_to(request, upstream(index)),
            |index| {
                let it = &self.upstreams[upstream(index)];
                let badness = it.health.badness(Some(self.requests[request].model), self.now);
                badness.filter(|_| it.has_free_slot())
            },
            &limits,
        );
        self.check_decision(request, decision);
        match decision {
            Decision::Send(candidate) => self.send(request, candidate, false),
            Decision::LeastBad(candidate) => {
                self.counts.least_bad += 1;
                self.send(request, candidate, true);
            }
            Decision::Wait { candidate, until } => {
                let at = self.requests[request].snapshot.upstreams[candidate.index];
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
            // It keeps its place.
            let turn = self.next_turn(request);
            self.schedule(until.since(self.now), Happening::Turn { request, turn });
        }
    }

    fn send(&mut self, request: usize, candidate: Candidate, is_least_bad: bool) {
        let (model, to) = {
            let it = &self.requests[request];
            (it.model, it.snapshot.upstreams[candidate.index])
        };
        if is_least_bad || self.requests[request].sent > 0 {
            if !self.budget.try_spend(self.now, self.counts.requests) {
                self.counts.refused += 1;
                return self.end(request);
            }
            self.counts.retries += 1;
            self.history.retried(self.now);
        }
        let upstream = &mut self.upstreams[to];
        let (after, outcome) = upstream.answer(model, self.now, &mut self.rng);
        upstream.in_flight += 1;
        let attempt = if upstream.health.is_plain() {
            Attempt::plain(Some(model), self.now)
        } else {
            upstream.health.begin(Some(model), self.now)
        };
        self.counts.probes += u64::from(attempt.is_probe());
        self.history.sent(to, model, attempt, is_least_bad, self.now);
        self.requests[request].sent += 1;
        let sent = SentRequest {
            to,
            at: self.now,
            route: candidate.route,
            attempt,
            outcome,
        };
        self.enter(request, RequestStage::Sent(sent), after);
    }

    /// The time has come for which the request's next turn was planned.
    pub(super) fn turn(&mut self, request: usize, turn: u32) {
        if self.requests[request].turn != turn {
            return;
        }
        match self.requests[request].stage {
            RequestStage::Arrived | RequestStage::Ended => panic!("it has nothing planned"),
            RequestStage::Waiting { .. } => self.advance(request),
            RequestStage::Sent(sent) => self.answered(request, sent),
            RequestStage::Streaming { .. } => self.end(request),
        }
    }

    fn answered(&mut self, request: usize, sent: SentRequest) {
        self.observe(&sent);
        let SentRequest { to, route, outcome, .. } = sent;
        match outcome {
            Verdict::Served | Verdict::Answered => {
                self.served(request, to, route, outcome == Verdict::Served);
                let streams = Duration::from_millis(self.rng.u64(100..10_000));
                self.enter(request, RequestStage::Streaming { from: to }, streams);
                self.changed.push(to);
                return;
            }
            Verdict::Limited { reset: Some(reset), .. } if self.is_worth_waiting(request, to, reset) => {}
            Verdict::Limited { .. } | Verdict::Failed | Verdict::Refused => self.requests[request].tried.push(to),
        }
        self.release(to);
        self.requests[request].stage = RequestStage::Arrived;
        if self.requests[request].sent < ATTEMPTS {
            self.advance(request);
        } else {
            self.end(request);
        }
        self.changed.push(to);
    }

    fn observe(&mut self, sent: &SentRequest) {
        let &SentRequest {
            to, attempt, outcome, ..
        } = sent;
        let health = &mut self.upstreams[to].health;
        while health.expire(self.now).is_some() {}
        if health.is_plain() && matches!(outcome, Verdict::Served | Verdict::Answered) {
            return;
        }
        let transition = health.observe(attempt, outcome, self.now, self.rng.u64(..));
        match transition {
            Some(Transition::Ejected { .. }) => self.counts.ejections += 1,
            Some(Transition::Cooling { .. }) => self.counts.cooldowns += 1,
            Some(Transition::Disabled) => self.counts.disabled += 1,
            _ => {}
        }
        self.history.observed(to, outcome, transition, sent.at, self.now);
        self.history.probe_over(to, attempt);
    }

    fn served(&mut self, request: usize, by: usize, route: Route, is_pinned: bool) {
        self.counts.served += 1;
        let SimulatedRequest {
            caller, pin, affinity, ..
        } = self.requests[request];
        let (RequestOrigin::Session(session), Some(key), true) = (caller, affinity.key, is_pinned) else {
            return;
        };
        let id = self.upstreams[by].member.id;
        let standing = self.pins.confirm(key, pin, id, self.now);
        self.check_pin(key, pin, id, standing);
        self.counts.moves += u64::from(route == Route::Moved && pin.is_some());
        self.sessions[session].owner = Some(id);
        self.read(session, by);
    }

    /// Whether a limit ends while the session still waits for its own upstream; then it has not failed it.
    fn is_worth_waiting(&self, request: usize, upstream: usize, reset: Duration) -> bool {
        let it = &self.requests[request];
        let own = self
            .candidates(request)
            .next()
            .map(|own| it.snapshot.upstreams[own.index]);
        own == Some(upstream) && self.now.after(reset) <= it.stays_until
    }

    pub(super) fn leave(&mut self, request: usize) {
        let stage = self.requests[request].stage;
        if let RequestStage::Sent(SentRequest { to, attempt, .. }) = stage {
            self.upstreams[to].health.abandon(attempt);
            self.history.probe_over(to, attempt);
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

    /// It is over; its slot, or its place in the queue, is free.
    fn end(&mut self, request: usize) {
        let before = self.requests[request].stage;
        self.enter(request, RequestStage::Ended, Duration::ZERO);
        if let RequestStage::Streaming { from } = before {
            self.release(from);
            self.changed.push(from);
        }
    }

    fn release(&mut self, upstream: usize) {
        let it = &mut self.upstreams[upstream];
        it.in_flight = it.in_flight.checked_sub(1).expect("a slot was freed twice");
    }

    /// An upstream has changed: whoever waits for it looks again, the first first.
    pub(super) fn look_again(&mut self, upstream: usize) {
        let mut at = 0;
        while let Some(request) = self.upstreams[upstream].waiting.get(at).copied() {
            let it = &self.upstreams[upstream];
            if it.is_ready(self.requests[request].model, self.now) && !it.has_free_slot() {
                break;
            }
            self.advance(request);
            // If it has left, the next has taken its place.
            at += usize::from(self.upstreams[upstream].waiting.get(at) == Some(&request));
        }
    }

    fn enter(&mut self, request: usize, stage: RequestStage, lasts: Duration) {
        let turn = self.next_turn(request);
        let before = std::mem::replace(&mut self.requests[request].stage, stage);
        if let RequestStage::Waiting { at } = before {
            self.upstreams[at].waiting.retain(|waiting| *waiting != request);
            self.changed.push(at);
        }
        if !matches!(stage, RequestStage::Ended) {
            self.schedule(lasts, Happening::Turn { request, turn });
        }
    }

    fn next_turn(&mut self, request: usize) -> u32 {
        let turn = &mut self.requests[request].turn;
        *turn += 1;
        *turn
    }
}
