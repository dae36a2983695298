//! The health of one upstream, which all its requests share.
//!
//! [`Health`] decides; this module puts it behind a lock, gives it the time, and logs its transitions. The flag
//! `is_plain` beside the lock is a copy of its most frequent answer. While it is true, health would admit every
//! request, and a success would not change it, so that the fast path takes no lock.
//!
//! A request that reads `is_plain` while another request changes health is treated as if it had come before the change.
//! That is harmless, because health judges a verdict by the moment at which its request was sent.
//!
//! The lock of the [`EjectionCap`], which all upstreams share, is taken only under the lock of a health, and only while an
//! ejection begins or ends.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

use crate::{
    endpoint::EndpointClass,
    policy::{
        Attempt, Availability, EjectionCap, Health, RequestClass, Verdict,
        health::{HealthStatus, Reason, Transition},
    },
    tick::{Clock, Tick},
};

/// The health of one upstream. See the [module](self).
pub(super) struct UpstreamHealth {
    /// The name of the upstream, for the log.
    upstream: Arc<str>,
    clock: Clock,
    /// Whether [`Health::is_plain`]. Written under the lock of `health`.
    is_plain: AtomicBool,
    health: Mutex<PooledHealth>,
    /// The number of ejected upstreams.
    cap: Arc<Mutex<EjectionCap>>,
    /// Notified after each transition, so that a waiting request decides again whether to wait.
    changed: Notify,
}

/// The health of an upstream, and whether it belongs to the pool.
struct PooledHealth {
    health: Health,
    membership: Membership,
}

/// Whether an upstream is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) enum Membership {
    /// The upstream is configured. Its ejections count.
    Member,
    /// A reload has removed the upstream, or it has not been applied yet. Its ejections concern no request.
    Outside,
}

impl UpstreamHealth {
    /// The health of an upstream that no request has been sent to, which is not a member of the pool yet.
    pub fn new(upstream: Arc<str>, clock: Clock, cap: Arc<Mutex<EjectionCap>>) -> Self {
        Self {
            upstream,
            clock,
            is_plain: AtomicBool::new(true),
            health: Mutex::new(PooledHealth {
                health: Health::new(),
                membership: Membership::Outside,
            }),
            cap,
            changed: Notify::new(),
        }
    }

    /// Whether health lets a request go to the upstream now.
    pub fn availability(&self, request: RequestClass) -> Availability {
        if self.is_plain() {
            return Availability::Ready;
        }
        self.health.lock().health.availability(request, self.clock.now())
    }

    /// The health, as operators see it.
    pub fn status(&self) -> HealthStatus {
        self.health.lock().health.describe(self.clock.now())
    }

    /// Completes at the next transition after its creation, or after it was enabled.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Begins an attempt, if health admits the request and then `take_slot` succeeds.
    ///
    /// If health has to decide, `take_slot` runs under its lock, so that no probe begins without a slot.
    #[inline]
    pub fn begin(&self, request: RequestClass, take_slot: impl FnOnce() -> bool) -> Option<Attempt> {
        let now = self.clock.now();
        if self.is_plain() {
            return take_slot().then(|| Attempt::plain(request, now));
        }
        let health = &mut self.health.lock().health;
        let is_admitted = health.availability(request, now) == Availability::Ready;
        (is_admitted && take_slot()).then(|| health.begin(request, now))
    }

    /// Records the verdict on an attempt. Returns whether the verdict could change the health.
    pub fn observe(&self, attempt: Attempt, verdict: Verdict) -> bool {
        if verdict == Verdict::Served && self.is_plain() {
            return false;
        }
        self.change(|health, now, may_eject| health.observe(attempt, verdict, now, fastrand::u64(..), may_eject));
        true
    }

    /// Records that the whole response to a request that was served has arrived.
    pub fn complete(&self, attempt: Attempt) {
        if self.is_plain() {
            return;
        }
        self.change(|health, _, _| {
            health.complete(attempt);
            None
        });
    }

    /// Ejects the upstream for generations, if it may be ejected. Returns whether it is ejected now and was not before.
    pub fn eject(&self, reason: Reason) -> bool {
        self.change(|health, now, may_eject| health.eject(reason, now, fastrand::u64(..), may_eject))
    }

    /// Lets the upstream join the pool or leave it. Its ejections count only in the pool. They count even if they are
    /// over the maximum.
    pub fn set_membership(&self, membership: Membership) {
        let mut pooled = self.health.lock();
        if std::mem::replace(&mut pooled.membership, membership) == membership {
            return;
        }
        let ejected = EndpointClass::ALL
            .into_iter()
            .filter(|class| pooled.health.is_ejected(*class));
        let mut cap = self.cap.lock();
        ejected.for_each(|class| match membership {
            Membership::Member => cap.take(class),
            Membership::Outside => cap.give_back(class),
        });
    }

    /// Records that an attempt ended without a verdict.
    pub fn abandon(&self, attempt: Attempt) {
        if attempt.is_probe() {
            self.change(|health, _, _| {
                health.abandon(attempt);
                None
            });
        }
    }

    /// Stops new requests, by order of the operator.
    pub fn drain(&self) {
        self.change(|health, _, _| health.drain());
    }

    /// Ends the drain, every cooldown, the ejection and the disabled state, by order of the operator.
    pub fn enable(&self) {
        self.change(|health, now, _| health.enable(now));
    }

    /// Makes a probe due now if the upstream is disabled, because its credential may have changed.
    pub fn probe_credential(&self) {
        self.change(|health, now, _| {
            health.record_reload(now);
            None
        });
        // This is no transition, but a request that waits for a disabled upstream may be its probe now.
        self.changed.notify_waiters();
    }

    /// Ends the cooldowns whose time is over, and logs that.
    pub fn end_cooldowns(&self) {
        while !self.is_plain() && self.update(|health, now, _| health.expire(now)).is_some() {}
    }

    fn is_plain(&self) -> bool {
        self.is_plain.load(SeqCst)
    }

    /// Changes health, and lets waiting requests decide again if that was a transition. Returns whether it was.
    fn change(
        &self,
        change: impl FnOnce(&mut Health, Tick, &dyn Fn(EndpointClass) -> bool) -> Option<Transition>,
    ) -> bool {
        let is_transition = self.update(change).is_some();
        if is_transition {
            self.changed.notify_waiters();
        }
        is_transition
    }

    /// Changes health under its lock, and logs the transition if there is one. `change` also gets the function that
    /// returns whether the upstream may be ejected. Ejections that `change` has ended are no longer counted.
    fn update(
        &self,
        change: impl FnOnce(&mut Health, Tick, &dyn Fn(EndpointClass) -> bool) -> Option<Transition>,
    ) -> Option<Transition> {
        let now = self.clock.now();
        let transition = {
            let PooledHealth { health, membership } = &mut *self.health.lock();
            let is_member = *membership == Membership::Member;
            let before = EndpointClass::ALL.map(|class| is_member && health.is_ejected(class));
            let transition = change(health, now, &|class| !is_member || self.cap.lock().try_take(class));
            self.is_plain.store(health.is_plain(), SeqCst);
            for (class, was_ejected) in EndpointClass::ALL.into_iter().zip(before) {
                if was_ejected && !health.is_ejected(class) {
                    self.cap.lock().give_back(class);
                }
            }
            transition
        };
        if let Some(transition) = transition {
            self.log(transition);
        }
        transition
    }

    fn log(&self, transition: Transition) {
        let upstream = &*self.upstream;
        let in_s = |until: Tick| until.since(self.clock.now()).as_secs_f64();
        match transition {
            Transition::Disabled => tracing::error!(upstream, "{transition}"),
            Transition::Ejected { until, .. } | Transition::Cooling { until, .. } => {
                tracing::warn!(upstream, for_s = in_s(until), "{transition}");
            }
            Transition::CooldownOver { .. }
            | Transition::Recovered { .. }
            | Transition::Drained
            | Transition::Enabled => tracing::info!(upstream, "{transition}"),
        }
    }
}
