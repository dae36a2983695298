//! Picks the upstream that a turn goes to next, and waits for it if necessary.
//!
//! [`policy::select`](policy::select()) decides the order of the candidates and chooses one of them. This file passes the inputs to it
//! (the pin, and the present health and free slots of each upstream) and carries out its decision: it takes a lease, or
//! waits for one.

use std::{mem, time::Duration};

use super::{
    affinity,
    confirm::{self, PinUpdate},
    facts::{HeaderLookup, TurnFacts},
};
use crate::{
    endpoint::EndpointClass,
    fault::{self, Fault},
    ids::{ModelKey, Namespace, UpstreamId},
    policy::{
        self, Affinity, Availability, Candidate, Decision, MemberIndex, Preference, RequestClass, Route, WaitLimits,
        outlier,
    },
    proxy::text::truncated,
    state::{Eligibility, Gateway, Lease, Snapshot, Upstream},
    tick::Tick,
};

#[cfg(test)]
mod tests;

/// The maximum number of times that a request loses a slot to a faster request before it gives up.
const MAX_LOST_SLOTS: usize = 64;
/// The delay after which a caller may retry, if it is not known when an upstream will be ready.
const RETRY_AFTER: Duration = Duration::from_secs(2);

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
    /// A random number for choices that no rule decides. It is drawn once, so that the order of the candidates stays
    /// the same.
    random: u64,
    /// The times until which the turn waits for its own upstream, and for any upstream.
    wait_limits: WaitLimits,
    /// Whether `wait_limits.now` was read just now, when the turn was opened, so that the first pick need not read the
    /// clock again.
    is_now_fresh: bool,
    /// The upstreams that have failed the turn.
    failed: Vec<MemberIndex>,
    /// The time that the turn has waited for upstreams.
    waited: Duration,
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
    /// The turn waits until `candidate` takes it, at most until the given tick.
    Wait { candidate: Candidate, until: Tick },
    /// Another request has taken the slot in the meantime. The turn picks again.
    LostSlot,
    /// No upstream is left that may take it.
    NoneLeft,
}

impl<'a> Turn<'a> {
    /// Begins a turn.
    ///
    /// # Errors
    /// [`Fault::ModelNotServed`] if no upstream serves the model to the caller's group, and [`Fault::ResponseNotFound`]
    /// if the group may not refer to a response that the request names.
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
        affinity::check_named_responses(gateway, group, &facts.named_state)?;
        let affinity = affinity::affinity(gateway, snapshot, facts);
        let now = gateway.clock.now();
        let pin = affinity.key.and_then(|key| gateway.runtime.pins.get(key, now));
        let pinned = pin
            .and_then(|id| snapshot.rendezvous.position(id))
            .map(|index| snapshot.rendezvous.member(index));
        let pin_update = match pinned {
            Some(member) if !eligibility.allows(member.class) => PinUpdate::Never,
            _ => PinUpdate::IfUnchanged(pin),
        };
        let is_cached_somewhere = affinity.owner.is_some() || (pinned.is_some() && pin_update != PinUpdate::Never);
        Ok(Self {
            gateway,
            snapshot,
            eligibility,
            request: RequestClass {
                endpoint: facts.endpoint.class(),
                model: facts.model.map(ModelKey::from_name),
            },
            namespace: group.namespace,
            affinity,
            pin,
            pin_update,
            random: fastrand::u64(..),
            wait_limits: WaitLimits {
                now,
                // A session without a cache or state anywhere loses nothing if it leaves its own upstream.
                stays_until: match is_cached_somewhere {
                    true => now.after(snapshot.patience.of_session(facts.body_bytes)),
                    false => Tick::ZERO,
                },
                waits_until: now.after(snapshot.patience.wait),
            },
            is_now_fresh: true,
            failed: Vec::new(),
            waited: Duration::ZERO,
        })
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
        for _ in 0..MAX_LOST_SLOTS {
            match self.pick_now() {
                PickStep::Go(picked) => return Some(picked),
                // The future is boxed, because waiting is rare and a request's future is as large as its largest
                // branch.
                PickStep::Wait { candidate, until } => {
                    if let Some(lease) = Box::pin(self.wait(candidate, until)).await {
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
        let candidate = match self.decide() {
            Decision::Send(candidate) => candidate,
            Decision::Wait { candidate, until } => return PickStep::Wait { candidate, until },
            Decision::NoUpstream => return PickStep::NoneLeft,
        };
        match self.upstream(candidate.index).state.try_acquire(self.request) {
            Some(lease) => PickStep::Go(self.picked(candidate, lease)),
            None => PickStep::LostSlot,
        }
    }

    /// Excludes the upstream at `index` from the rest of the turn: it has failed the request.
    pub fn mark_failed(&mut self, index: MemberIndex) {
        self.failed.push(index);
    }

    /// Whether the upstream at `index`, which has just reported a limit, is the turn's own and will take it while the
    /// session still waits for its own upstream.
    pub fn is_worth_waiting_for(&self, index: MemberIndex) -> bool {
        let is_own = self.candidates().next().is_some_and(|own| own.index == index);
        is_own
            && matches!(self.availability(index), Availability::Cooling { until, .. } if until <= self.wait_limits.stays_until)
    }

    /// Takes one retry from the retry budget, if there is one left.
    pub fn try_spend_retry(&self) -> bool {
        self.gateway.runtime.retries.try_spend()
    }

    /// Records that `upstream` has served the turn.
    pub fn confirm(&self, upstream: &Upstream) {
        confirm::confirm_pin(self.gateway, self.affinity.key, self.pin_update, upstream.id);
    }

    /// Why no upstream is left.
    pub fn fault_when_none_is_left(&self) -> Fault {
        let now = self.gateway.clock.now();
        let is_owned = self.affinity.owner.is_some();
        let (mut soonest, mut all_limited, mut has_candidates) = (None::<Tick>, true, false);
        for candidate in self.candidates() {
            has_candidates = true;
            match self.availability(candidate.index) {
                Availability::Cooling { until, .. } => {
                    soonest = Some(soonest.map_or(until, |soonest| soonest.min(until)))
                }
                _ => all_limited = false,
            }
        }
        match soonest {
            _ if !has_candidates => Fault::OwnerGone,
            Some(until) if all_limited => {
                let resets_in = until.since(now);
                Fault::Limited {
                    resets_in,
                    resets_at: fault::seconds(self.gateway.clock.unix_time() + resets_in),
                    is_owned,
                }
            }
            _ => Fault::Unavailable {
                retry: RETRY_AFTER,
                is_owned,
            },
        }
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
            |index| !self.failed.contains(&index) && self.availability(index) == Availability::Ready,
            |index| self.upstream(index).state.speed(),
        );
        self.select(candidates.into_iter())
    }

    fn select(&self, candidates: impl Iterator<Item = Candidate>) -> Decision {
        policy::select(
            candidates,
            |index| self.failed.contains(&index),
            |index| self.availability(index),
            &self.wait_limits,
        )
    }

    async fn wait(&mut self, candidate: Candidate, until: Tick) -> Option<Lease> {
        let Some(_permit) = self.gateway.runtime.wait_permit() else {
            // Too many requests wait already: this one goes to another upstream, or is answered with a fault.
            self.wait_limits.stays_until = Tick::ZERO;
            self.wait_limits.waits_until = Tick::ZERO;
            return None;
        };
        let begun = self.gateway.clock.now();
        let lease = self.upstream(candidate.index).state.acquire(self.request, until).await;
        self.waited += self.gateway.clock.now().since(begun);
        lease
    }

    fn upstream(&self, index: MemberIndex) -> &'a Upstream {
        self.snapshot.upstream(index)
    }

    fn availability(&self, index: MemberIndex) -> Availability {
        self.upstream(index).state.availability(self.request)
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        policy::candidates(
            &self.snapshot.rendezvous,
            Preference {
                affinity: self.affinity,
                pin: self.pin,
            },
            |class| self.eligibility.allows(class),
            self.random,
            |index| self.upstream(index).state.in_flight(),
        )
    }
}
