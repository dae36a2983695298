//! The invariants that must hold in every simulation, written from the rules and not from the code.

use super::{
    plan::{SIMULATED_CLASSES, seconds},
    upstream::SimulatedUpstream,
    world::{RequestStage, World},
};
use crate::{
    endpoint::EndpointClass,
    ids::{SessionKey, UpstreamId},
    policy::{Availability, Candidate, Decision, RequestClass},
    tick::Tick,
};

/// Asserts that an invariant holds, and names the simulated time if it does not.
macro_rules! check {
    ($world:expr, $holds:expr, $rule:literal) => {
        assert!($holds, "at {:.3} s, this is violated: {}", seconds($world.now), $rule)
    };
}

impl World {
    fn availability(&self, request: usize, upstream: usize) -> Availability {
        self.upstreams[upstream]
            .health
            .availability(self.requests[request].class(), self.now)
    }

    fn is_untried(&self, request: usize, upstream: usize) -> bool {
        !self.requests[request].tried.contains(&upstream)
    }

    /// Whether the upstream could take the request now.
    pub(super) fn could_serve(&self, request: usize, upstream: usize) -> bool {
        self.is_untried(request, upstream)
            && self.availability(request, upstream) == Availability::Ready
            && self.has_slot(request, upstream)
    }

    /// Whether the upstream is expected to be ready by `limit`.
    fn is_soon_ready(&self, request: usize, upstream: usize, limit: Tick) -> bool {
        self.is_untried(request, upstream)
            && match self.availability(request, upstream) {
                Availability::Ready | Availability::Full => self.now < limit,
                Availability::Cooling { until, .. } => until <= limit,
                Availability::Ejected { .. } | Availability::Disabled { .. } | Availability::Draining => false,
            }
    }

    /// Checks the candidates of a new request: a pinned session goes to its pin, and a request with an owner stays within
    /// the owner's organization.
    pub(super) fn check_arrival(&self, request: usize) {
        let it = &self.requests[request];
        let pool = &it.snapshot.pool;
        if let Some(key) = it.affinity.key {
            let remembered = self.history.pins.get(&key.as_u64()).copied();
            check!(
                self,
                it.pin == remembered,
                "a pin keeps its value until a request changes it"
            );
        }
        let member = |id: UpstreamId| pool.position(id).map(|index| pool.member(index));
        let organization = |id| member(id).map(|member| member.organization);
        let serves = |class: u16| class == 0 || it.model == self.models[0];
        let first = self.candidates(request).next();
        let first = first.map(|first| pool.member(first.index));
        if let Some(pin) = it.pin.and_then(member).filter(|pin| serves(pin.class))
            && it
                .affinity
                .owner
                .is_none_or(|owner| organization(owner) == Some(pin.organization))
        {
            check!(
                self,
                first == Some(pin),
                "the first candidate of a pinned session is its pin"
            );
        }
        for candidate in self.candidates(request) {
            let of = pool.member(candidate.index).organization;
            let is_allowed = it.affinity.owner.is_none_or(|owner| organization(owner) == Some(of));
            check!(
                self,
                is_allowed,
                "a request with an owner stays within the owner's organization"
            );
        }
    }

    pub(super) fn check_decision(&self, request: usize, decision: Decision) {
        match decision {
            Decision::Send(candidate) => self.check_send(request, candidate),
            Decision::Wait { candidate, until } => self.check_wait(request, candidate, until),
            Decision::WaitForChange { until } => {
                let is_bounded = self.now < until && until <= self.wait_limit(request);
                check!(self, is_bounded, "the time that a request waits is bounded");
                check!(
                    self,
                    !self.any_could_serve(request),
                    "no request waits for a change while an upstream can serve it"
                );
            }
            Decision::NoUpstream => {
                check!(
                    self,
                    !self.any_could_serve(request),
                    "no request is refused while an upstream can serve it"
                );
                let limit = self.wait_limit(request);
                let mut order = self.upstreams_in_order(request).into_iter();
                check!(
                    self,
                    !order.any(|upstream| self.is_soon_ready(request, upstream, limit)),
                    "no request is refused while an upstream will soon serve it"
                );
            }
        }
    }

    fn check_send(&self, request: usize, candidate: Candidate) {
        let order = self.upstreams_in_order(request);
        let to = self.upstream_of(request, candidate);
        check!(
            self,
            self.could_serve(request, to),
            "no request is sent to an upstream that cannot take it or has failed it"
        );
        let able = order
            .iter()
            .copied()
            .filter(|upstream| self.could_serve(request, *upstream));
        check!(
            self,
            able.min_by_key(|upstream| self.speed_for(request, *upstream)) == Some(to),
            "the best candidate comes first, and a slow one comes after the faster ones"
        );
        let own = order.first().copied().filter(|own| *own != to);
        if let Some(own) = own.filter(|own| self.speed_for(request, *own) <= self.speed_for(request, to)) {
            check!(
                self,
                !self.is_soon_ready(request, own, self.requests[request].stays_until),
                "a session leaves its own upstream only if that cannot take the request within the session's patience"
            );
        }
    }

    fn check_wait(&self, request: usize, candidate: Candidate, until: Tick) {
        let at = self.upstream_of(request, candidate);
        let limit = self.wait_limit(request).max(self.requests[request].resets_until);
        let is_bounded = self.now < until && until <= limit;
        check!(self, is_bounded, "the time that a request waits is bounded");
        check!(
            self,
            self.is_untried(request, at),
            "no request waits for an upstream that has failed it"
        );
        let is_own = self.upstreams_in_order(request).first() == Some(&at);
        let stays = is_own && self.is_soon_ready(request, at, self.requests[request].stays_until);
        check!(
            self,
            stays || !self.any_could_serve(request),
            "no request waits while another upstream can serve it"
        );
    }

    fn upstream_of(&self, request: usize, candidate: Candidate) -> usize {
        self.requests[request].snapshot.upstream(candidate.index)
    }

    fn upstreams_in_order(&self, request: usize) -> Vec<usize> {
        self.candidates(request)
            .map(|candidate| self.upstream_of(request, candidate))
            .collect()
    }

    fn any_could_serve(&self, request: usize) -> bool {
        let mut order = self.upstreams_in_order(request).into_iter();
        order.any(|upstream| self.could_serve(request, upstream))
    }

    fn wait_limit(&self, request: usize) -> Tick {
        let it = &self.requests[request];
        it.stays_until.max(it.waits_until)
    }

    /// Checks a confirmed pin: the first request that finishes decides, and the others do not change the pin.
    pub(super) fn check_pin(&mut self, key: SessionKey, seen: Option<UpstreamId>, by: UpstreamId, now_is: UpstreamId) {
        let before = self.history.pins.insert(key.as_u64(), now_is);
        let expected = before.filter(|before| Some(*before) != seen).unwrap_or(by);
        check!(
            self,
            now_is == expected,
            "a request changes a pin only if the pin has the value that the request saw"
        );
    }

    /// Checks slots and wait queues. Called after every event.
    pub(super) fn check_slots(&self) {
        let is_end_of_tick = self.is_end_of_tick();
        for (at, upstream) in self.upstreams.iter().enumerate() {
            let is_within = upstream.slots.is_none_or(|slots| upstream.in_flight <= slots);
            check!(self, is_within, "an upstream has no more requests than slots");
            if is_end_of_tick && upstream.has_free_slot() {
                let is_forgotten = upstream.waiting.iter().any(|request| self.could_serve(*request, at));
                check!(self, !is_forgotten, "no request waits for an upstream that can take it");
            }
        }
    }

    /// Checks that no more upstreams are ejected than may be, that each is counted, and that trouble of one class of
    /// endpoints concerns no other class. Called after every event.
    pub(super) fn check_ejections(&self) {
        for class in SIMULATED_CLASSES {
            let is_ejected =
                |upstream: &&SimulatedUpstream| upstream.is_configured && upstream.health.is_ejected(class);
            let ejected = self.upstreams.iter().filter(is_ejected).count();
            check!(
                self,
                ejected == self.cap.ejected(class),
                "each ejection is counted once"
            );
            check!(
                self,
                ejected <= self.cap.most().max(self.ejected_at_reload[class as usize]),
                "no more upstreams are ejected than may be"
            );
            let troubled = self
                .upstreams
                .iter()
                .enumerate()
                .filter(|(_, upstream)| !upstream.health.is_plain());
            for (at, upstream) in troubled {
                let request = RequestClass {
                    endpoint: class,
                    model: Some(self.models[0]),
                };
                let is_available = matches!(
                    upstream.health.availability(request, self.now),
                    Availability::Ready | Availability::Draining
                );
                check!(
                    self,
                    is_available || !self.history.is_untroubled(at, class),
                    "an upstream takes requests of a class of which it has failed and limited none"
                );
            }
        }
    }

    /// Checks the end of the simulation, some time after all causes of trouble have ended.
    pub(super) fn check_end(&mut self) {
        let all_ended = self
            .requests
            .iter()
            .all(|request| matches!(request.stage, RequestStage::Ended));
        check!(self, all_ended, "every request ends");
        let now = self.now;
        for upstream in &mut self.upstreams {
            while upstream.health.expire(now).is_some() {}
        }
        for upstream in &self.upstreams {
            check!(self, upstream.in_flight == 0, "every slot is freed");
            check!(self, upstream.waiting.is_empty(), "no request waits");
            let mut classes = EndpointClass::ALL.into_iter().flat_map(|endpoint| {
                let class = move |model| RequestClass { endpoint, model };
                self.models.map(|model| class(Some(model)))
            });
            let is_ready = classes.all(|class| upstream.is_ready(class, now));
            check!(
                self,
                is_ready && upstream.health.is_plain(),
                "no state lasts longer than its cause"
            );
        }
    }
}
