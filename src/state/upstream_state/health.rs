//! The health of one upstream, which all its requests share.
//!
//! [`Health`] decides; this module puts it behind a lock, gives it the time, and logs its transitions. The flag
//! `is_plain` beside the lock is a copy of its most frequent answer. While it is true, health would admit every
//! request, and a success would not change it, so that the fast path takes no lock.
//!
//! A request that reads `is_plain` while another request changes health is treated as if it had come before the change.
//! That is harmless, because health judges a verdict by the moment at which its request was sent.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

use crate::{
    ids::ModelKey,
    policy::{
        Attempt, Availability, Health, Verdict,
        health::{Badness, HealthStatus, Transition},
    },
    tick::{Clock, Tick},
};

/// The requests that health admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admit {
    /// Health admits the requests that the upstream is available for.
    IfAvailable,
    /// Health admits every request, because no better upstream is left.
    Always,
}

/// The health of one upstream. See the [module](self).
pub(super) struct UpstreamHealth {
    /// The name of the upstream, for the log.
    upstream: Arc<str>,
    clock: Clock,
    /// Whether [`Health::is_plain`]. Written under the lock of `health`.
    is_plain: AtomicBool,
    health: Mutex<Health>,
    /// Notified after each transition, so that a waiting request decides again whether to wait.
    changed: Notify,
}

impl UpstreamHealth {
    /// The health of an upstream that no request has been sent to.
    pub fn new(upstream: Arc<str>, clock: Clock) -> Self {
        Self {
            upstream,
            clock,
            is_plain: AtomicBool::new(true),
            health: Mutex::new(Health::new()),
            changed: Notify::new(),
        }
    }

    /// Whether health lets a request for `model` go to the upstream now.
    pub fn availability(&self, model: Option<ModelKey>) -> Availability {
        if self.is_plain() {
            return Availability::Ready;
        }
        self.health.lock().availability(model, self.clock.now())
    }

    /// How bad it would be to send a request for `model` although the upstream is not available; `None` if it must not
    /// be sent.
    pub fn badness(&self, model: Option<ModelKey>) -> Option<Badness> {
        self.health.lock().badness(model, self.clock.now())
    }

    /// The health, as operators see it.
    pub fn status(&self) -> HealthStatus {
        self.health.lock().describe(self.clock.now())
    }

    /// Completes at the next transition after its creation, or after it was enabled.
    pub fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Begins an attempt for `model`, if health admits it and then `take_slot` succeeds.
    ///
    /// If health has to decide, `take_slot` runs under its lock, so that no probe begins without a slot.
    #[inline]
    pub fn begin(&self, model: Option<ModelKey>, admit: Admit, take_slot: impl FnOnce() -> bool) -> Option<Attempt> {
        let now = self.clock.now();
        if self.is_plain() {
            return take_slot().then(|| Attempt::plain(model, now));
        }
        let mut health = self.health.lock();
        let is_admitted = admit == Admit::Always || health.availability(model, now) == Availability::Ready;
        (is_admitted && take_slot()).then(|| health.begin(model, now))
    }

    /// Records the verdict on an attempt. Returns whether the verdict could change the health.
    pub fn observe(&self, attempt: Attempt, verdict: Verdict) -> bool {
        if verdict == Verdict::Served && self.is_plain() {
            return false;
        }
        self.change(|health, now| health.observe(attempt, verdict, now, fastrand::u64(..)));
        true
    }

    /// Records that an attempt ended without a verdict.
    pub fn abandon(&self, attempt: Attempt) {
        if attempt.is_probe() {
            self.change(|health, _| {
                health.abandon(attempt);
                None
            });
        }
    }

    /// Stops new requests, by order of the operator.
    pub fn drain(&self) {
        self.change(|health, _| health.drain());
    }

    /// Ends the drain, every cooldown, the ejection and the disabled state, by order of the operator.
    pub fn enable(&self) {
        self.change(Health::enable);
    }

    /// Makes a probe due now if the upstream is disabled, because its credential may have changed.
    pub fn probe_credential(&self) {
        self.change(|health, now| {
            health.record_reload(now);
            None
        });
        // This is no transition, but a request that waits for a disabled upstream may be its probe now.
        self.changed.notify_waiters();
    }

    /// Ends the cooldowns whose time is over, and logs that.
    pub fn end_cooldowns(&self) {
        while !self.is_plain() && self.update(Health::expire).is_some() {}
    }

    fn is_plain(&self) -> bool {
        self.is_plain.load(SeqCst)
    }

    /// Changes health, and lets waiting requests decide again if that was a transition.
    fn change(&self, change: impl FnOnce(&mut Health, Tick) -> Option<Transition>) {
        if self.update(change).is_some() {
            self.changed.notify_waiters();
        }
    }

    /// Changes health under its lock, and logs the transition if there is one.
    fn update(&self, change: impl FnOnce(&mut Health, Tick) -> Option<Transition>) -> Option<Transition> {
        let now = self.clock.now();
        let transition = {
            let mut health = self.health.lock();
            let transition = change(&mut health, now);
            self.is_plain.store(health.is_plain(), SeqCst);
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
