//! Picks the upstream that a turn goes to next, and waits for it if necessary.
//!
//! [`policy::candidates`] decides the order of the candidates, and [`policy::select`](policy::select()) chooses one of them.
//! This file passes the inputs to them (the pin, and the present health and free slots of each upstream) and carries out
//! the decision: it takes a lease, or waits for one.

mod brake;
mod model;
mod search;
mod setbacks;
mod turn_brake;
mod wait;

use std::{mem, time::Duration};

pub(super) use self::turn_brake::FailureEvidence;
use self::{setbacks::Setbacks, turn_brake::TurnBrake};
use super::{
    affinity, beginning,
    confirm::{self, PinUpdate},
    facts::{HeaderLookup, TurnFacts},
    outlook::{Obstacle, Outlook},
    ownership::{self, UnownedState},
};
use crate::{
    endpoint::EndpointClass,
    fault::{self, Fault, UnavailableCause},
    ids::{ModelKey, Namespace, OwnedKey, UpstreamId},
    policy::{
        self, Affinity, Availability, Candidate, Decision, KeylessChoice, LimitCause, MemberIndex, Preference,
        RequestClass, Route, WaitLimits, outlier,
    },
    proxy::text::truncated,
    state::{Eligibility, Gateway, Lease, Snapshot, Upstream},
    tick::Tick,
};

#[cfg(test)]
mod tests;

/// The maximum number of times that a request picks again, because it has lost a slot to a faster request or has waited,
/// before it gives up. Waiting is bounded by time.
const MAX_PICKS: usize = 256;

/// One turn: the upstreams that may serve it, and those that have failed.
pub(in crate::proxy) struct Turn<'a> {
    gateway: &'a Gateway,
    snapshot: &'a Snapshot,
    /// The upstreams that serve the model to the caller's group.
    eligibility: Eligibility,
    /// The part of an upstream that the turn needs.
    request: RequestClass,
    namespace: Namespace,
    /// The session that the turn belongs to, and the owner of the state that it refers to.
    affinity: Affinity,
    /// The upstream that the session is pinned to.
    pin: Option<UpstreamId>,
    /// The rule by which a served turn changes that pin.
    pin_update: PinUpdate,
    /// The beginning of the conversation, if the session has a key.
    beginning: Option<OwnedKey>,
    /// The objects and encrypted items of the request whose owner is not known.
    unowned: Option<Box<UnownedState>>,
    /// How the first upstream is chosen if the turn has neither session nor owner.
    keyless: KeylessChoice,
    /// The number that decides where no rule does: a random one, or that of [`KeylessChoice::ByHash`]. It is drawn once, so
    /// that the order of the candidates stays the same.
    number: u64,
    /// The times until which the turn waits for its own upstream, and for any upstream.
    wait_limits: WaitLimits,
    /// Whether `wait_limits.now` was read just now, when the turn was opened, so that the first pick need not read the
    /// clock again.
    is_now_fresh: bool,
    /// The upstreams that have failed or limited the turn. `None` until that happens, so that most turns stay small.
    setbacks: Option<Box<Setbacks>>,
    /// The time that the turn has waited for upstreams.
    waited: Duration,
    /// What the brakes know of the turn; `None` as long as neither its session nor the turn itself has failed.
    brake: Option<Box<TurnBrake<'a>>>,
}

/// The upstream that a turn goes to, and its lease there.
pub(in crate::proxy) struct PickedUpstream<'a> {
    pub upstream: &'a Upstream,
    /// The index of the upstream in the snapshot of the turn.
    pub index: MemberIndex,
    /// Why the turn goes there.
    pub route: Route,
    pub lease: Lease,
}

/// The next step of a turn.
pub(in crate::proxy) enum PickStep<'a> {
    /// The turn goes to this upstream.
    Go(PickedUpstream<'a>),
    /// The turn waits until this candidate takes it, or, if it is `None`, until the health of a candidate changes.
    Wait(Option<Candidate>),
    /// Another request has taken the slot in the meantime. The turn picks again.
    LostSlot,
    /// No upstream is left that may take it.
    NoneLeft,
}

impl<'a> Turn<'a> {
    /// Begins a turn.
    ///
    /// # Errors
    /// [`Fault::ModelNotServed`] if no upstream serves the model to the caller's group, and [`Fault::ObjectNotFound`]
    /// if the group may not refer to an object that the request names. [`Fault::FailedEverywhere`] if the
    /// requests before have failed at every upstream.
    #[inline]
    pub fn open<'f>(
        gateway: &'a Gateway,
        snapshot: &'a Snapshot,
        facts: &TurnFacts<'f, impl HeaderLookup<'f>>,
    ) -> Result<Self, Fault> {
        let group = facts.group;
        let eligibility = snapshot
            .eligibility(group, facts.model)
            .ok_or_else(|| Fault::ModelNotServed {
                model: truncated(facts.model.unwrap_or_default()),
                served: snapshot.models_of(group),
            })?;
        ownership::check_named_objects(gateway, facts)?;
        let affinity = affinity::affinity(gateway, snapshot, facts);
        let unowned = UnownedState::find(gateway, snapshot, facts, affinity.owner);
        let (keyless, number) = affinity::keyless_choice(facts, unowned.as_deref());
        let now = gateway.clock.now();
        let model = facts.model.map(ModelKey::from_name);
        // The owner of the state that a request names is asked, whatever is known about its models.
        let eligibility = match affinity.owner {
            Some(_) => eligibility,
            None => snapshot.narrowed(eligibility, &gateway.runtime, model, now),
        };
        let pin = beginning::pin(gateway, facts, &affinity, now);
        let beginning = beginning::keyed(facts, &affinity);
        let pinned = pin.and_then(|id| snapshot.rendezvous.position(id));
        let pin_update = affinity::pin_update(snapshot, &eligibility, facts, pinned);
        let class = facts.endpoint.class();
        let is_cached_at_own = affinity::is_cached_at_own(snapshot, &eligibility, class, &affinity, pinned);
        let patient_until = now.after(snapshot.patience.of_session(facts.prompt_bytes));
        let mut turn = Self {
            gateway,
            snapshot,
            eligibility,
            request: RequestClass { endpoint: class, model },
            namespace: group.namespace,
            affinity,
            pin,
            pin_update,
            beginning,
            unowned,
            keyless,
            number,
            wait_limits: WaitLimits {
                now,
                // A session without a cache or state anywhere loses nothing if it leaves its own upstream.
                stays_until: if is_cached_at_own { patient_until } else { Tick::ZERO },
                waits_until: now.after(snapshot.patience.wait),
                resets_until: now.after(snapshot.patience.wait_max),
                // No other upstream has the state that the request refers to.
                recovers_until: affinity.owner.map_or(Tick::ZERO, |_| patient_until),
            },
            is_now_fresh: true,
            setbacks: None,
            waited: Duration::ZERO,
            brake: None,
        };
        turn.pass_brakes()?;
        Ok(turn)
    }

    pub fn gateway(&self) -> &'a Gateway {
        self.gateway
    }

    pub fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// The namespace of the caller's group.
    pub fn namespace(&self) -> Namespace {
        self.namespace
    }

    /// The time that the turn has waited for upstreams.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Picks the next upstream that can take the turn, and waits for it if necessary. `None` when no upstream is left.
    pub async fn next_upstream(&mut self) -> Option<PickedUpstream<'a>> {
        for _ in 0..MAX_PICKS {
            match self.pick_now() {
                PickStep::Go(picked) => return Some(picked),
                // The future is boxed, because waiting is rare and a request's future is as large as its largest
                // branch.
                PickStep::Wait(candidate) => {
                    let lease = Box::pin(self.wait(candidate)).await;
                    if let (Some(candidate), Some(lease)) = (candidate, lease) {
                        return Some(self.picked(candidate, lease));
                    }
                }
                PickStep::LostSlot => {}
                PickStep::NoneLeft => return None,
            }
        }
        None
    }

    /// Picks the next upstream without waiting.
    pub fn pick_now(&mut self) -> PickStep<'a> {
        if !mem::take(&mut self.is_now_fresh) {
            self.wait_limits.now = self.gateway.clock.now();
        }
        let mut decision = self.decide();
        while !matches!(decision, Decision::Send(_)) && self.stop_avoiding_one() {
            decision = self.decide();
        }
        let candidate = match decision {
            Decision::Send(candidate) => candidate,
            Decision::Wait { candidate, .. } => return PickStep::Wait(Some(candidate)),
            Decision::WaitForChange { .. } => return PickStep::Wait(None),
            // An upstream that is limited or out of service gets no requests but its probes.
            Decision::NoUpstream => return PickStep::NoneLeft,
        };
        match self.upstream(candidate.index).state.try_acquire(self.request) {
            Some(lease) => PickStep::Go(self.picked(candidate, lease)),
            None => PickStep::LostSlot,
        }
    }

    /// Excludes the upstream at `index` from the rest of the turn: it has failed the request.
    pub fn mark_failed(&mut self, index: MemberIndex) {
        self.setbacks_mut().add_failed(index);
    }

    /// Records that the upstream at `index` has answered with a limit that the turn can wait out.
    pub fn mark_limited(&mut self, index: MemberIndex) {
        self.setbacks_mut().add_limited(index);
    }

    /// Whether the upstream at `index` has limited this turn before. If it is picked again, its limit was waited out.
    pub fn has_waited_out(&self, index: MemberIndex) -> bool {
        self.setbacks
            .as_ref()
            .is_some_and(|setbacks| setbacks.have_limited(index))
    }

    /// Confines the turn to the upstreams whose limits it can wait out: it may not be tried at another upstream. Returns
    /// whether there is such an upstream.
    pub fn confine_to_limited(&mut self) -> bool {
        self.setbacks_mut().confine()
    }

    /// Whether the upstream at `index`, which has just reported a limit, will take requests again while the turn still
    /// waits for resets. It takes them already if its health did not believe the limit, because a later request has been
    /// served or the operator has enabled the upstream since. Then the turn asks it once more.
    pub fn can_wait_out(&self, index: MemberIndex) -> bool {
        match self.availability(index) {
            Availability::Ready | Availability::Full => !self.has_waited_out(index),
            Availability::Cooling { until, .. } => until <= self.wait_limits.resets_until,
            Availability::Ejected { .. } | Availability::Disabled { .. } | Availability::Draining => false,
        }
    }

    /// Takes one retry from the retry budget, if there is one left.
    pub fn try_spend_retry(&self) -> bool {
        self.gateway.runtime.retries.try_spend()
    }

    /// Records that `upstream` has served the turn.
    pub fn confirm(&self, upstream: &Upstream) {
        confirm::confirm_pin(self.gateway, self.affinity.key, self.pin, self.pin_update, upstream.id);
        if let Some(beginning) = self.beginning {
            beginning::confirm(self.gateway, beginning, upstream.id);
        }
        if let Some(unowned) = &self.unowned {
            unowned.record_owner(self.gateway, upstream.id);
        }
    }

    /// When an upstream may serve the turn, and what stands against it until then; `None` if there is no candidate.
    pub(super) fn outlook(&self) -> Option<Outlook> {
        let candidates = self
            .candidates()
            .filter(|candidate| !self.is_known_loop(candidate.index));
        let availabilities = candidates.map(|candidate| self.availability(candidate.index));
        Outlook::new(availabilities, self.gateway.clock.now())
    }

    /// The fault that tells a caller of this outlook.
    pub(super) fn fault_of(&self, outlook: Option<Outlook>) -> Fault {
        let Some(Outlook { retry, obstacle }) = outlook else {
            return Fault::OwnerGone;
        };
        let is_owned = self.affinity.owner.is_some();
        let unavailable = |cause| Fault::Unavailable { cause, retry, is_owned };
        match obstacle {
            Obstacle::Limit(LimitCause::Quota) => Fault::Limited {
                resets_in: retry,
                resets_at: fault::seconds(self.gateway.clock.unix_time() + retry),
                is_owned,
            },
            Obstacle::Limit(LimitCause::Rate) => Fault::UpstreamsRateLimited {
                resets_in: retry,
                is_owned,
            },
            Obstacle::Unavailable(cause) => unavailable(cause),
            // An upstream has become ready in the meantime, too late for this turn.
            Obstacle::None => unavailable(UnavailableCause::Busy),
        }
    }

    /// Whether the request refers to state that only its candidates have.
    pub fn is_owned(&self) -> bool {
        self.affinity.owner.is_some()
    }

    fn picked(&self, candidate: Candidate, lease: Lease) -> PickedUpstream<'a> {
        PickedUpstream {
            upstream: self.upstream(candidate.index),
            index: candidate.index,
            route: candidate.route,
            lease,
        }
    }

    fn decide(&self) -> Decision {
        // The speed of an upstream is its speed at generations.
        if self.gateway.runtime.has_slow_upstream() && self.request.endpoint == EndpointClass::Generation {
            return self.decide_by_speed();
        }
        self.select(self.candidates())
    }

    /// Decides while some upstream is slower than the others.
    #[cold]
    fn decide_by_speed(&self) -> Decision {
        let mut candidates: Vec<Candidate> = self.candidates().collect();
        outlier::order_by_speed(
            &mut candidates,
            |index| {
                let is_candidate = !self.is_excluded(index) && !self.avoids(index);
                is_candidate && self.availability(index) == Availability::Ready
            },
            |index| self.upstream(index).state.speed(),
        );
        self.select(candidates.into_iter())
    }

    fn select(&self, candidates: impl Iterator<Item = Candidate>) -> Decision {
        policy::select(
            candidates,
            |index| self.is_excluded(index) || self.avoids(index),
            |index| self.availability(index),
            &self.wait_limits,
        )
    }

    /// Whether the turn may not go to the upstream at `index`.
    fn is_excluded(&self, index: MemberIndex) -> bool {
        self.setbacks.as_ref().is_some_and(|setbacks| setbacks.exclude(index))
    }

    fn setbacks_mut(&mut self) -> &mut Setbacks {
        self.setbacks.get_or_insert_default()
    }

    fn upstream(&self, index: MemberIndex) -> &'a Upstream {
        self.snapshot.upstream(index)
    }

    /// Whether the upstream at `index` can take the turn now.
    pub fn availability(&self, index: MemberIndex) -> Availability {
        self.upstream(index).state.availability(self.request)
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        policy::candidates(
            &self.snapshot.rendezvous,
            Preference {
                affinity: self.affinity,
                pin: self.pin,
                keyless: self.keyless,
            },
            &self.eligibility,
            self.number,
            |index| self.upstream(index).state.in_flight(),
        )
    }
}
