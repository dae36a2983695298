//! One upstream as it is now: its [`slots`], its [`health`](mod@health), and its [`outcomes`] for the comparison with the
//! other upstreams. It outlives every snapshot.
//!
//! A request takes a slot with [`UpstreamState::try_acquire`] and gives it back when its [`Lease`] is dropped. While the
//! upstream is healthy and no request waits for a slot, both are one atomic step and take no lock.
//!
//! A request that cannot have a slot now may wait for one with [`UpstreamState::acquire`]: until another request ends,
//! or until a cooldown ends. At the end of a cooldown every waiting request wakes up. The first one that runs admits
//! the others in the order of the queue.

mod health;
mod loops;
mod outcomes;
mod slots;

#[cfg(test)]
mod tests;

use std::{pin::pin, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::futures::Notified, time::sleep_until};

pub(super) use self::health::Membership;
use self::{health::UpstreamHealth, loops::KnownLoops, outcomes::Outcomes, slots::Slots};
use super::{
    metrics::{NoLabels, UpstreamMetrics},
    model_times::ModelTimes,
};
use crate::{
    endpoint::EndpointClass,
    ids::UpstreamId,
    policy::{
        Attempt, Availability, EjectionCap, RequestClass, Verdict,
        health::{HealthState, HealthStatus, Reason},
        outlier::{LogTime, RecentOutcomes, ResponseKind, Speed},
    },
    tick::{Clock, Tick},
};

/// One upstream as it is now.
///
/// The alignment keeps it apart from the reference counts that an `Arc` stores before it: every request changes those,
/// while most requests only read this.
#[repr(align(128))]
pub struct UpstreamState {
    /// The name of the upstream.
    pub(super) name: Arc<str>,
    /// The metrics of the upstream's requests.
    pub metrics: UpstreamMetrics,
    clock: Clock,
    slots: Slots<Lease>,
    health: UpstreamHealth,
    /// The outcomes of the requests, for the comparison with the other upstreams.
    outcomes: Outcomes,
    /// Held while a request asks whether the upstream refuses the credential, so that there is one such request at a time.
    refusal_check: tokio::sync::Mutex<()>,
    /// The requests that have lately come back from the upstream to this gateway.
    loops: KnownLoops,
}

/// A slot at an upstream, held from the sending of the request to the end, failure or drop of the response body.
pub struct Lease {
    state: Arc<UpstreamState>,
    attempt: Attempt,
    reported: Reported,
}

/// What a lease has reported about its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reported {
    /// Nothing.
    Nothing,
    /// The upstream answered the request, and is not known to have failed since.
    Answer,
    /// The upstream did not serve the request, or not to its end.
    Trouble,
}

impl Lease {
    /// The metrics of the upstream.
    pub fn metrics(&self) -> &UpstreamMetrics {
        &self.state.metrics
    }

    /// The upstream.
    pub fn upstream(&self) -> UpstreamId {
        UpstreamId::from_name(&self.state.name)
    }

    /// Reports the verdict on the request to the upstream's health. The verdict comes from the response head or the
    /// first events. A second verdict is reported if a stream fails after its first output.
    pub fn report(&mut self, verdict: Verdict) {
        let before = self.reported;
        let attempt = match before {
            Reported::Answer => self.attempt.answered(),
            Reported::Nothing | Reported::Trouble => self.attempt,
        };
        self.reported = match verdict {
            Verdict::Served | Verdict::Answered | Verdict::ModelNotFound | Verdict::ObjectNotFound => Reported::Answer,
            Verdict::Limited { .. } | Verdict::Failed | Verdict::Refused | Verdict::Unauthorized | Verdict::Looped => {
                Reported::Trouble
            }
        };
        if (before, self.reported) == (Reported::Answer, Reported::Trouble) {
            self.state.metrics.late_failures.increment(NoLabels);
            if verdict == Verdict::Failed {
                self.state.outcomes.take_back_success(attempt);
            }
        }
        self.state.report(attempt, verdict);
    }

    /// Counts the time from the beginning of the attempt to now as the time to the first output of the response. `models`
    /// has the typical times of the models at all upstreams.
    pub fn record_first_output(&self, kind: ResponseKind, models: &ModelTimes) {
        let (state, attempt) = (&self.state, self.attempt);
        if attempt.request().endpoint == EndpointClass::Generation {
            let took = state.clock.now().since(attempt.began());
            let time = LogTime::of(took);
            let relative = models.record(attempt.request().model, kind, time);
            state.outcomes.record_first_output(kind, time, relative);
        }
    }

    /// Reports that the whole response has arrived. That has no effect after a verdict by which the upstream failed.
    pub fn complete(&self) {
        if self.reported == Reported::Answer {
            self.state.health.complete(self.attempt);
        }
    }
}

/// A failed request whose failure does not count against the upstream yet, because the request itself may be the cause.
/// Dropping it forgets the failure.
pub struct WithheldFailure {
    state: Arc<UpstreamState>,
    attempt: Attempt,
}

impl WithheldFailure {
    /// Counts the failure against the upstream.
    pub fn count(self) {
        self.state.report(self.attempt, Verdict::Failed);
    }
}

impl Lease {
    /// Gives the slot back after the request has failed, without a verdict on the upstream. The failure of a probe counts at
    /// once, so that the next probe waits; the result is then `None`.
    pub fn withhold_failure(mut self) -> Option<WithheldFailure> {
        if self.attempt.is_probe() {
            self.report(Verdict::Failed);
            return None;
        }
        Some(WithheldFailure {
            state: self.state.clone(),
            attempt: self.attempt,
        })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.reported == Reported::Nothing {
            self.state.health.abandon(self.attempt);
        }
        if self.state.slots.release() {
            self.state.serve_queue();
        }
    }
}

impl UpstreamState {
    /// The state of an upstream that no request has been sent to.
    pub(super) fn new(name: &Arc<str>, clock: Clock, cap: &Arc<Mutex<EjectionCap>>) -> Arc<Self> {
        Arc::new(Self {
            name: name.clone(),
            metrics: UpstreamMetrics::default(),
            clock,
            slots: Slots::default(),
            health: UpstreamHealth::new(name.clone(), clock, cap.clone()),
            outcomes: Outcomes::default(),
            refusal_check: tokio::sync::Mutex::default(),
            loops: KnownLoops::default(),
        })
    }

    /// The number of requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.slots.in_flight()
    }

    /// The number of requests that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.slots.waiting()
    }

    /// The maximum number of requests in flight; `None` if there is no limit.
    pub fn max_in_flight(&self) -> Option<u32> {
        self.slots.limit()
    }

    /// Changes the maximum number of requests in flight. Requests above a lower maximum finish.
    pub fn set_max_in_flight(self: &Arc<Self>, limit: Option<u32>) {
        self.slots.set_limit(limit);
        self.serve_queue();
    }

    /// Whether a request can be sent now.
    pub fn availability(&self, request: RequestClass) -> Availability {
        match self.health.availability(request) {
            Availability::Ready if self.is_full() => Availability::Full,
            availability => availability,
        }
    }

    /// Takes a slot, if the upstream is available and no other request waits for it.
    pub fn try_acquire(self: &Arc<Self>, request: RequestClass) -> Option<Lease> {
        if self.is_full() {
            return None;
        }
        self.admit(request)
    }

    fn is_full(&self) -> bool {
        let is_ready = |class| self.health.availability(class) == Availability::Ready;
        self.slots.is_full(is_ready)
    }

    /// Waits for a slot. Returns `None` at `deadline`, and as soon as it is known that the upstream will not be available
    /// by then.
    pub async fn acquire(self: &Arc<Self>, request: RequestClass, deadline: Tick) -> Option<Lease> {
        let mut position = self.slots.enqueue(request);
        loop {
            // The notification is enabled before health is read, so that no later transition is missed.
            let mut changed = pin!(self.health.changed());
            changed.as_mut().enable();
            let look_again = match self.health.availability(request) {
                Availability::Ready | Availability::Full => deadline,
                Availability::Cooling { until, .. }
                | Availability::Ejected { until }
                | Availability::Disabled { until } => until,
                Availability::Draining => return None,
            };
            self.serve_queue();
            if look_again > deadline {
                return position.try_receive();
            }
            tokio::select! {
                biased;
                lease = position.receive() => return Some(lease),
                () = &mut changed => {}
                () = sleep_until(self.clock.instant(look_again)) => {
                    if look_again == deadline {
                        self.serve_queue();
                        return position.try_receive();
                    }
                }
            }
        }
    }

    /// Completes when the health changes after this call has been enabled or polled.
    pub fn changed(&self) -> Notified<'_> {
        self.health.changed()
    }

    /// The lock that a request holds while it asks the upstream whether it refuses the credential.
    pub fn refusal_check(&self) -> &tokio::sync::Mutex<()> {
        &self.refusal_check
    }

    /// Whether to log now that the upstream leads back to this gateway: once in a minute.
    pub fn may_log_loop(&self, now: Tick) -> bool {
        self.loops.may_log(now)
    }

    /// Records that the upstream has sent a request back to this gateway.
    pub fn record_loop(&self, request: RequestClass, now: Tick) {
        self.loops.record(request, now);
    }

    /// Whether the upstream has lately sent such a request back to this gateway.
    #[inline]
    pub fn leads_back(&self, request: RequestClass, now: Tick) -> bool {
        self.loops.contain(request, now)
    }

    /// Stops new requests, by order of the operator. Requests in flight finish.
    pub fn drain(&self) {
        self.health.drain();
    }

    /// Lets the upstream take requests again, by order of the operator. It ends the drain, a cooldown, an ejection and
    /// a disabled state, and known loops are forgotten.
    pub fn enable(self: &Arc<Self>) {
        self.loops.forget();
        self.health.enable();
        self.serve_queue();
    }

    /// Makes a probe due now if the upstream is disabled, and forgets known loops. Must be called when the configuration has
    /// been read again, because the credential or the base URL may have changed.
    pub fn probe_credential(self: &Arc<Self>) {
        self.loops.forget();
        self.health.probe_credential();
        self.serve_queue();
    }

    /// Ejects the upstream for generations, because it fails more often than the others of its pool. Returns whether that
    /// has ejected it: it has not if the upstream is out already, or if no more upstreams may be ejected now.
    pub fn eject_outlier(&self) -> bool {
        self.health.eject(Reason::SuccessRate)
    }

    /// Returns what was observed at the upstream lately, for the comparison with the others. Must be called once per second.
    pub(super) fn sample_outcomes(&self) -> RecentOutcomes {
        let now = self.clock.now();
        match self.status().state {
            HealthState::Ready | HealthState::Cooling => self.outcomes.sample(now),
            HealthState::Ejected | HealthState::Disabled | HealthState::Draining => {
                self.outcomes.restart(now);
                RecentOutcomes::default()
            }
        }
    }

    /// The speed of the upstream, compared with the others of its pool.
    pub fn speed(&self) -> Speed {
        self.outcomes.speed()
    }

    /// Records the speed of the upstream, and logs a change.
    pub(super) fn set_speed(&self, speed: Speed) {
        let before = self.outcomes.replace_speed(speed);
        if before != speed {
            let (upstream, before, now) = (&*self.name, before.label(), speed.label());
            tracing::info!(
                upstream,
                before,
                now,
                "the speed of the upstream changed, compared with the others"
            );
        }
    }

    /// Lets the upstream join the pool of upstreams or leave it. Its ejections count towards the maximum only in the pool.
    pub(super) fn set_membership(&self, membership: Membership) {
        self.health.set_membership(membership);
    }

    /// The upstream's health, as operators see it.
    pub fn status(&self) -> HealthStatus {
        self.health.status()
    }

    /// Ends the cooldowns whose time is over, and logs that.
    pub fn end_cooldowns(&self) {
        self.health.end_cooldowns();
    }

    fn report(self: &Arc<Self>, attempt: Attempt, verdict: Verdict) {
        self.outcomes.record(attempt, verdict);
        if self.health.observe(attempt, verdict) && self.slots.waiting() > 0 {
            self.serve_queue();
        }
    }

    fn admit(self: &Arc<Self>, request: RequestClass) -> Option<Lease> {
        let attempt = self.health.begin(request, || self.slots.try_take())?;
        if let Some(state) = attempt.probed() {
            self.metrics.probes.increment(state);
        }
        Some(Lease {
            state: self.clone(),
            attempt,
            reported: Reported::Nothing,
        })
    }

    fn serve_queue(self: &Arc<Self>) {
        self.slots.serve_queue(|request| self.admit(request));
    }
}
