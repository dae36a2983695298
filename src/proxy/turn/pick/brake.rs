//! Applies the brake to a turn: refuses a turn that would probably fail at every upstream, sends it elsewhere than the last
//! one, and records how it ends.
//!
//! [`state::Brakes`](crate::state::Brakes) keeps what the requests before have shown. While no session is in trouble,
//! a turn reads one atomic number here, and has no [`TurnBrake`].

use std::time::Duration;

use super::{
    Turn,
    turn_brake::{self, FailureEvidence, TurnBrake},
};
use crate::{
    fault::Fault,
    ids::UpstreamId,
    policy::{Availability, MemberIndex, avoidance::MAX_AVOIDED},
    state::{BrakeKeys, BrakeRefusal, ClassSession, PoolKey, SessionAge, Upstream},
    tick::Tick,
};

impl<'a> Turn<'a> {
    /// Lets the brakes admit the turn, or refuse it.
    ///
    /// # Errors
    /// [`Fault::FailedEverywhere`] if the requests before have failed at every upstream, and no probe is due. If the health
    /// of all upstreams admits no request for longer, the fault that tells of that.
    #[inline]
    pub(super) fn pass_brakes(&mut self) -> Result<(), Fault> {
        if !self.gateway.runtime.brakes.are_idle() {
            let has_untried = |failed: &[UpstreamId]| self.has_untried(failed);
            let admitted = TurnBrake::admit(self.gateway, self.brake_keys(), has_untried);
            self.brake = admitted.map_err(|refusal| self.fault_of_refusal(&refusal))?;
        }
        Ok(())
    }

    /// The fault that tells of a brake's refusal, or of the health of the upstreams if that stands against the turn for
    /// longer. A client that came back earlier would be refused again.
    #[cold]
    fn fault_of_refusal(&self, refusal: &BrakeRefusal) -> Fault {
        self.gateway.metrics.braked_requests.increment(refusal.by);
        let retry = refusal.until.since(self.gateway.clock.now());
        match self.outlook() {
            Some(outlook) if outlook.is_known() && outlook.retry > retry => self.fault_of(Some(outlook)),
            _ => turn_brake::fault(refusal.by, retry),
        }
    }

    /// Whether the turn is a probe. A probe is sent once only.
    pub fn is_probe(&self) -> bool {
        self.brake.as_ref().is_some_and(|brake| brake.probes.has_any())
    }

    /// Whether the turn prefers another upstream than the one at `index`.
    pub(super) fn avoids(&self, index: MemberIndex) -> bool {
        let brake = self.brake.as_ref();
        brake.is_some_and(|brake| brake.avoided.contains(&self.upstream(index).id)) || self.is_known_loop(index)
    }

    /// Whether requests like this one have lately come back from the upstream at `index`, and another one may serve the turn.
    #[inline]
    pub(super) fn is_known_loop(&self, index: MemberIndex) -> bool {
        let state = &self.upstream(index).state;
        state.leads_back(self.request, self.wait_limits.now)
            && !self.setbacks.as_ref().is_some_and(|setbacks| setbacks.admits_loops)
    }

    /// Admits the avoided upstream whose failure is the oldest, because no other upstream is ready, or those that lead back to
    /// this gateway, if there are no others. Returns whether there was one.
    pub(super) fn stop_avoiding_one(&mut self) -> bool {
        let brake = self.brake.as_mut();
        if brake.is_some_and(|brake| !brake.is_confined && brake.avoided.pop().is_some()) {
            return true;
        }
        let are_loops = self.are_all_loops();
        if are_loops {
            self.setbacks_mut().admits_loops = true;
        }
        are_loops
    }

    /// Whether there are upstreams for the turn, and all of them are known to lead back to this gateway.
    fn are_all_loops(&self) -> bool {
        let mut candidates = self.candidates().peekable();
        candidates.peek().is_some() && candidates.all(|candidate| self.is_known_loop(candidate.index))
    }

    /// Whether an upstream that is not in `failed` may take the turn. A longer list has lost its oldest upstreams.
    fn has_untried(&self, failed: &[UpstreamId]) -> bool {
        let may_take = |index| match self.availability(index) {
            _ if self.is_known_loop(index) => false,
            Availability::Ready | Availability::Full => true,
            Availability::Cooling { until, .. } => until <= self.wait_limits.resets_until,
            Availability::Ejected { .. } | Availability::Disabled { .. } | Availability::Draining => false,
        };
        failed.len() < MAX_AVOIDED
            && self
                .candidates()
                .any(|candidate| !failed.contains(&self.upstream(candidate.index).id) && may_take(candidate.index))
    }

    /// Records what a failed attempt at `upstream` says.
    pub(in crate::proxy::turn) fn record_failed_attempt(&mut self, upstream: &Upstream, evidence: FailureEvidence) {
        let (gateway, keys) = (self.gateway, || self.brake_keys());
        if evidence == FailureEvidence::Failed && self.brake.is_none() {
            self.brake = Some(Box::new(TurnBrake::of_failed_turn(gateway, keys())));
        }
        let Some(brake) = &mut self.brake else { return };
        match evidence {
            FailureEvidence::Failed => brake.failed.push(upstream.id),
            FailureEvidence::Refused => {}
            FailureEvidence::Unclear => brake.failed.clear(),
        }
    }

    /// Ends the turn for the brakes: `upstream` has answered.
    pub fn end_answered(&mut self, upstream: &Upstream) {
        let brakes = &self.gateway.runtime.brakes;
        if !brakes.are_idle() {
            let position = self.snapshot.rendezvous.position(upstream.id);
            let index = position.expect("the upstream of a turn is in the snapshot of the turn");
            let organization = self.snapshot.rendezvous.member(index).organization;
            brakes.record_answer(&self.brake_keys(), upstream.id, organization);
        }
    }

    /// Ends the turn for the brakes: no upstream has served it. The turn began `age` ago.
    pub fn end_failed(&mut self, age: Duration) {
        if let Some(mut brake) = self.brake.take()
            && !brake.failed.is_empty()
        {
            let now = self.gateway.clock.now();
            let begun = Tick::ZERO.after(now.since(Tick::ZERO).saturating_sub(age));
            let probes = std::mem::take(&mut brake.probes);
            let brakes = &self.gateway.runtime.brakes;
            brakes.record_failure(&brake.keys, begun, probes, &brake.failed);
        }
    }

    /// The session of the turn, to record a failure that comes after the first output.
    pub fn class_session(&self) -> Option<ClassSession> {
        self.affinity.key.map(|key| ClassSession::new(key, self.request))
    }

    fn brake_keys(&self) -> BrakeKeys {
        let pool = &self.snapshot.rendezvous;
        let organization_of = |id| pool.position(id).map(|index| pool.member(index).organization);
        BrakeKeys {
            session: self.affinity.key,
            pool: PoolKey {
                group: self.namespace,
                session: match self.pin.or(self.affinity.owner) {
                    Some(_) => SessionAge::Running,
                    None => SessionAge::New,
                },
                class: self.request,
                eligibility: self.eligibility.fingerprint(),
                owner: self.affinity.owner.and_then(organization_of),
            },
        }
    }
}
