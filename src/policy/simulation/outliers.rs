//! The comparison of the upstreams with each other in a simulation, and its invariants.

use super::{
    plan::{Focus, START, secs},
    sent::SentRequest,
    world::{SimulatedEvent, World},
};
use crate::{
    endpoint::EndpointClass,
    policy::{
        Candidate, Decision, Route,
        health::Reason,
        outlier::{self, MARGIN, OutcomeCounts, RecentOutcomes, Speed, order_by_speed, success_outlier},
    },
    tick::Tick,
};

impl World {
    pub(super) fn pass_second(&mut self) {
        self.compare_upstreams();
        // Long after the trouble, nothing changes within a second, and the simulation saves time.
        let is_calm = self.now.since(Tick::ZERO) > START + self.plan.chaos + secs(100);
        if !self.event_queue.is_empty() {
            self.schedule(secs(if is_calm { 10 } else { 1 }), SimulatedEvent::Second);
        }
    }

    fn compare_upstreams(&mut self) {
        let now = self.now;
        let configured: Vec<usize> = (0..self.upstreams.len())
            .filter(|upstream| self.upstreams[*upstream].is_configured)
            .collect();
        let sample = |upstream: &usize| {
            let it = &mut self.upstreams[*upstream];
            let state = it.health.describe(now).state;
            it.outcomes.sample(state, now)
        };
        let pool: Vec<RecentOutcomes> = configured.iter().map(sample).collect();
        let outcomes: Vec<OutcomeCounts> = pool.iter().map(|recent| recent.outcomes).collect();
        if let Some(worst) = success_outlier(&outcomes) {
            self.check_outlier(configured[worst], worst, &outcomes);
            self.eject_outlier(configured[worst]);
        }
        // An upstream that was removed is not compared any more.
        self.upstreams
            .iter_mut()
            .for_each(|upstream| upstream.outcomes.speed = Speed::Normal);
        for (upstream, speed) in configured.iter().zip(outlier::speeds(&pool)) {
            self.upstreams[*upstream].outcomes.speed = speed;
        }
    }

    fn eject_outlier(&mut self, upstream: usize) {
        let random = self.rng.u64(..);
        let (health, cap) = (&mut self.upstreams[upstream].health, &mut self.cap);
        let transition = health.eject(Reason::SuccessRate, self.now, random, |class| cap.try_take(class));
        if transition.is_some() {
            (self.counts.ejections, self.counts.outliers) = (self.counts.ejections + 1, self.counts.outliers + 1);
            self.history.record_transition(upstream, transition, self.now);
            self.changed.push(upstream);
        }
    }

    fn check_outlier(&self, upstream: usize, index: usize, pool: &[OutcomeCounts]) {
        let of = |own: &dyn Fn(usize) -> bool| {
            let counts = pool.iter().enumerate().filter(|(other, _)| own(*other));
            let sum = counts.fold(OutcomeCounts::default(), |sum, (_, counts)| sum + *counts);
            sum.failed as f64 / sum.total().max(1) as f64
        };
        let (own, rest) = (of(&|other| other == index), of(&|other| other != index));
        assert!(
            own - rest >= MARGIN,
            "an outlier fails far more often than the others: {own} {rest}"
        );
        let failures = self.upstreams[upstream].outcomes.recent_failures(self.now);
        assert!(
            failures >= 3,
            "an upstream is not ejected for {failures} failures within the window"
        );
        if let Some(focus) = self.plan.focus {
            let is_broken = matches!(focus, Focus::HalfBroken { .. }) && upstream == 0;
            assert!(
                is_broken,
                "only the half-broken upstream is ejected for its success rate"
            );
        }
    }

    /// Checks a failure that counts against an upstream because another one has served the request.
    pub(super) fn check_failure(&self, request: usize, failed: &SentRequest) {
        assert!(
            !self.requests[request].is_poisoned,
            "a request that fails everywhere counts nowhere"
        );
        assert!(
            self.requests[request].tried.contains(&failed.to),
            "the upstream has failed the request"
        );
    }

    pub(super) fn has_slow_upstream(&self) -> bool {
        let mut upstreams = self.upstreams.iter();
        upstreams.any(|upstream| upstream.outcomes.speed > Speed::Normal)
    }

    /// The candidates for the request, the slow ones after the faster ones.
    pub(super) fn candidates_by_speed(&self, request: usize) -> Vec<Candidate> {
        let it = &self.requests[request];
        let upstream = |index| it.snapshot.upstream(index);
        let mut candidates: Vec<Candidate> = self.candidates(request).collect();
        order_by_speed(
            &mut candidates,
            |index| self.could_serve(request, upstream(index)),
            |index| self.upstreams[upstream(index)].outcomes.speed,
        );
        candidates
    }

    /// Whether the request is sent to another upstream although its own could take it.
    pub(super) fn is_avoiding(&self, request: usize, decision: Decision) -> bool {
        let own = self.candidates(request).next();
        match (own, decision) {
            (Some(own), Decision::Send(to)) if own.index != to.index => {
                self.could_serve(request, self.requests[request].snapshot.upstream(own.index))
            }
            _ => false,
        }
    }

    /// The speed of an upstream as it matters to the request: a request tolerates that its own upstream is slow if it has
    /// a cache or state there.
    pub(super) fn speed_for(&self, request: usize, upstream: usize) -> Speed {
        let it = &self.requests[request];
        let speed = self.upstreams[upstream].outcomes.speed;
        let own = self
            .candidates(request)
            .next()
            .filter(|own| it.snapshot.upstream(own.index) == upstream);
        match own.map(|own| own.route) {
            _ if it.endpoint != EndpointClass::Generation => Speed::Normal,
            Some(Route::Owner) => Speed::Normal,
            Some(Route::Pin) if speed < Speed::VerySlow => Speed::Normal,
            _ => speed,
        }
    }
}
