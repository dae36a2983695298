//! What must hold whatever happens, said in terms of the rules.

use super::{request::RequestStage, seconds, world::World};
use crate::{
    ids::{SessionKey, UpstreamId},
    policy::{Availability, Decision},
    tick::Tick,
};

impl World {
    #[track_caller]
    fn check(&self, holds: bool, rule: &str) {
        assert!(holds, "at {:.3} s: not so: {rule}", seconds(self.now));
    }

    fn availability(&self, request: usize, upstream: usize) -> Availability {
        self.upstreams[upstream]
            .health
            .availability(Some(self.requests[request].model), self.now)
    }

    fn is_untried(&self, request: usize, upstream: usize) -> bool {
        !self.requests[request].tried.contains(&upstream)
    }

    /// Whether the request could be sent there and nothing would speak against it.
    fn could_serve(&self, request: usize, upstream: usize) -> bool {
        self.is_untried(request, upstream)
            && self.availability(request, upstream) == Availability::Ready
            && self.has_slot(request, upstream)
    }

    /// Whether it is soon ready: before the request has to leave it.
    fn soon_ready(&self, request: usize, upstream: usize, limit: Tick) -> bool {
        self.is_untried(request, upstream)
            && match self.availability(request, upstream) {
                Availability::Ready | Availability::Full => self.now < limit,
                Availability::Cooling { until } => until <= limit,
                Availability::Ejected { .. } | Availability::Disabled { .. } | Availability::Draining => false,
            }
    }

    /// A session that is pinned goes there, a request with an owner stays with its organization.
    pub(super) fn check_arrival(&self, request: usize) {
        let it = &self.requests[request];
        let pool = &it.snapshot.pool;
        if let Some(key) = it.affinity.key {
            let remembered = self.history.pins.get(&key.as_u64()).copied();
            self.check(it.pin == remembered, "a pin stays what it became");
        }
        let member = |id: UpstreamId| pool.position(id).and_then(|index| pool.member(index));
        let organization = |id| member(id).map(|member| member.organization);
        let serves = |class: u16| class == 0 || it.model == self.models[0];
        let first = self.candidates(request).next();
        let first = first.and_then(|first| pool.member(first.index));
        if let Some(pin) = it.pin.and_then(member).filter(|pin| serves(pin.class))
            && it
                .affinity
                .owner
                .is_none_or(|owner| organization(owner) == Some(pin.organization))
        {
            self.check(first == Some(pin), "a session stays where it went");
        }
        for candidate in self.candidates(request) {
            let of = pool.member(candidate.index).map(|member| member.organization);
            let is_allowed = it
                .affinity
                .owner
                .is_none_or(|owner| of.is_some() && organization(owner) == of);
            self.check(is_allowed, "what is owned stays within the organization");
        }
    }

    pub(super) fn check_decision(&self, request: usize, decision: Decision) {
        let it = &self.requests[request];
        let order: Vec<usize> = self
            .candidates(request)
            .map(|candidate| it.snapshot.upstreams[candidate.index])
            .collect();
        let upstream = |index: usize| it.snapshot.upstreams[index];
        let own = order.first().copied();
        let could_serve = |upstream: &usize| self.could_serve(request, *upstream);
        let limit = it.stays_until.max(it.waits_until);
        match decision {
            Decision::Send(candidate) => {
                let to = upstream(candidate.index);
                self.check(
                    could_serve(&to),
                    "no request goes to an upstream that cannot take it or has failed it",
                );
                self.check(
                    order.iter().find(|at| could_serve(at)) == Some(&to),
                    "the best comes first",
                );
                if let Some(own) = own.filter(|own| *own != to) {
                    let stays = self.soon_ready(request, own, it.stays_until);
                    self.check(
                        !stays,
                        "a session leaves only who could not take it within its patience",
                    );
                }
            }
            Decision::Wait { candidate, until } => {
                let at = upstream(candidate.index);
                self.check(self.now < until && until <= limit, "no request waits for ever");
                self.check(self.is_untried(request, at), "nobody waits for who has failed it");
                let stays = Some(at) == own && self.soon_ready(request, at, it.stays_until);
                self.check(
                    stays || !order.iter().any(could_serve),
                    "nobody waits while another can serve",
                );
            }
            Decision::LeastBad(candidate) => {
                let to = upstream(candidate.index);
                self.check(
                    !order.iter().any(could_serve),
                    "nobody is tried that is out while another can serve",
                );
                let is_soon = |upstream: &usize| self.soon_ready(request, *upstream, limit);
                self.check(!order.iter().any(is_soon), "or soon can");
                self.check(self.is_untried(request, to), "nor who has failed it");
                self.check(
                    self.availability(request, to) != Availability::Draining,
                    "nor who drains",
                );
                self.check(self.upstreams[to].has_free_slot(), "nor who is full");
            }
            Decision::NoUpstream => {
                self.check(
                    !order.iter().any(could_serve),
                    "nobody is refused whom another can serve",
                );
            }
        }
    }

    /// The first to finish decides, and the others leave the pin alone.
    pub(super) fn check_pin(&mut self, key: SessionKey, seen: Option<UpstreamId>, by: UpstreamId, now_is: UpstreamId) {
        let before = self.history.pins.insert(key.as_u64(), now_is);
        let expected = before.filter(|before| Some(*before) != seen).unwrap_or(by);
        self.check(now_is == expected, "a pin changes only from what the request saw");
    }

    /// After everything that happens.
    pub(super) fn check_slots(&self) {
        let is_end_of_tick = self.is_end_of_tick();
        for (at, upstream) in self.upstreams.iter().enumerate() {
            let is_within = upstream.slots.is_none_or(|slots| upstream.in_flight <= slots);
            self.check(is_within, "no more requests than slots");
            if is_end_of_tick && upstream.has_free_slot() {
                let is_forgotten = upstream.waiting.iter().any(|request| self.could_serve(*request, at));
                self.check(!is_forgotten, "nobody waits for who can take it");
            }
        }
    }

    /// After all causes are gone, and some time.
    pub(super) fn check_end(&mut self) {
        let all_ended = self
            .requests
            .iter()
            .all(|request| matches!(request.stage, RequestStage::Ended));
        self.check(all_ended, "every request ends");
        let now = self.now;
        for upstream in &mut self.upstreams {
            while upstream.health.expire(now).is_some() {}
        }
        for upstream in &self.upstreams {
            self.check(upstream.in_flight == 0, "every slot is freed");
            self.check(upstream.waiting.is_empty(), "nobody waits");
            let is_ready = self.models.iter().all(|model| upstream.is_ready(*model, now));
            self.check(is_ready && upstream.health.is_plain(), "no state outlives its cause");
        }
    }
}
