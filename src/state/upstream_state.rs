//! One upstream as it is now: its health, its slots, and who waits for them. It outlives every snapshot.
//!
//! # The door
//!
//! A request enters through [`UpstreamState::enter`] and leaves when its [`Lease`] is dropped: once, whoever drops it. Where
//! nothing is wrong and nobody waits, entering is one atomic step and takes no lock: `is_plain` says that health has
//! nothing to say, and the count of requests in flight is the count of taken slots.
//!
//! # The line
//!
//! Who cannot enter yet may [`wait`](UpstreamState::wait). A slot is handed over to the first in line that can use it, so nobody
//! is woken in vain; who comes later does not overtake. A request that waits for the end of a cooldown looks again at
//! that end, or when it moves: the first one to look lets everybody in who can enter, in their order.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::sleep_until,
};

use super::metrics::UpstreamMetrics;
use crate::{
    ids::ModelKey,
    policy::{
        Attempt, Availability, Health, Verdict,
        health::{Badness, HealthStatus, Transition},
    },
    tick::{Clock, Tick},
};

#[cfg(test)]
mod tests;

/// One upstream as it is now.
///
/// Aligned away from the reference counts that an `Arc` keeps before it: each request changes those, and all read this.
#[repr(align(128))]
pub struct UpstreamState {
    name: Arc<str>,
    /// What it counts; the number of requests in flight is among it, and is the number of taken slots.
    pub metrics: Arc<UpstreamMetrics>,
    clock: Clock,
    /// How many requests may be in flight; `u32::MAX` for no limit.
    slots: AtomicU32,
    /// Whether health has nothing to say. Written under the lock of `health`.
    is_plain: AtomicBool,
    health: Mutex<Health>,
    /// The length of `line`.
    waiting: AtomicUsize,
    line: Mutex<VecDeque<Waiter>>,
    /// Health has changed: who waits looks again whether that is still worth it.
    changed: Notify,
}

/// Somebody in line.
struct Waiter {
    model: Option<ModelKey>,
    /// Takes the lease; closed when whoever waited has gone.
    enter: oneshot::Sender<Lease>,
}

/// A request that an upstream works on: from its sending to the end, failure or drop of the response body.
pub struct Lease {
    state: Arc<UpstreamState>,
    attempt: Attempt,
    has_verdict: bool,
}

impl Lease {
    /// The counts of the upstream.
    pub fn metrics(&self) -> &UpstreamMetrics {
        &self.state.metrics
    }

    /// Tells what became of the request, as far as its response head (or first event) says.
    pub fn report(&mut self, verdict: Verdict) {
        self.has_verdict = true;
        self.state.observe(self.attempt, verdict);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.has_verdict {
            self.state.abandon(self.attempt);
        }
        self.state.metrics.in_flight.dec();
        if self.state.waiting.load(SeqCst) > 0 {
            self.state.let_in();
        }
    }
}

impl UpstreamState {
    /// An upstream of which nothing is known yet.
    pub(super) fn new(name: &str, metrics: Arc<UpstreamMetrics>, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            metrics,
            clock,
            slots: AtomicU32::new(u32::MAX),
            is_plain: AtomicBool::new(true),
            health: Mutex::new(Health::new()),
            waiting: AtomicUsize::new(0),
            line: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u32 {
        u32::try_from(self.metrics.in_flight.get()).unwrap_or(0)
    }

    /// Requests in line.
    pub fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }

    /// How many requests may be in flight, where that is limited.
    pub fn slots(&self) -> Option<u32> {
        Some(self.slots.load(SeqCst)).filter(|slots| *slots != u32::MAX)
    }

    /// Changes how many requests may be in flight. Those above a lower limit finish.
    pub fn set_slots(self: &Arc<Self>, slots: Option<u32>) {
        self.slots.store(slots.unwrap_or(u32::MAX), SeqCst);
        self.let_in();
    }

    /// How it stands to a request for `model` that comes now.
    pub fn standing(&self, model: Option<ModelKey>) -> Availability {
        match self.availability(model) {
            Availability::Ready if self.is_full() => Availability::Full,
            availability => availability,
        }
    }

    /// How bad it would be to send it a request for `model` though it is not ready; `None` if that is out of the question.
    pub fn badness(&self, model: Option<ModelKey>) -> Option<Badness> {
        if self.is_full() {
            return None;
        }
        self.health.lock().badness(model, self.clock.now())
    }

    /// Enters, where that is possible at once and nobody waits.
    pub fn enter(self: &Arc<Self>, model: Option<ModelKey>) -> Option<Lease> {
        if self.is_full() {
            return None;
        }
        self.admit(model, false)
    }

    /// Enters whatever its health: somebody has to try. A slot is needed all the same.
    pub fn enter_anyway(self: &Arc<Self>, model: Option<ModelKey>) -> Option<Lease> {
        self.admit(model, true)
    }

    /// Waits in line until the request may enter; gives up at `deadline`, and as soon as it is known that it cannot enter
    /// before.
    pub async fn wait(self: &Arc<Self>, model: Option<ModelKey>, deadline: Tick) -> Option<Lease> {
        let mut place = Place::take(self, model);
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            // Before anybody is let in: what becomes possible after this look is seen at `look_again`.
            let look_again = match self.availability(model) {
                Availability::Ready | Availability::Full => deadline,
                Availability::Cooling { until }
                | Availability::Ejected { until }
                | Availability::Disabled { until } => until,
                Availability::Draining => return None,
            };
            self.let_in();
            if look_again > deadline {
                return place.entered();
            }
            tokio::select! {
                biased;
                lease = &mut place.enter => return lease.ok(),
                () = &mut changed => {}
                () = sleep_until(self.clock.instant(look_again)) => {
                    if look_again == deadline {
                        self.let_in();
                        return place.entered();
                    }
                }
            }
        }
    }

    /// Takes nothing more, by the operator's will.
    pub fn drain(&self) {
        self.change(|health, _| health.drain());
    }

    /// Takes requests again, whatever kept it from them.
    pub fn enable(self: &Arc<Self>) {
        self.change(Health::enable);
        self.let_in();
    }

    /// The configuration was read again: a credential that was refused may be another now.
    pub fn reloaded(self: &Arc<Self>) {
        self.change(|health, now| {
            health.record_reload(now);
            None
        });
        self.let_in();
    }

    /// What is known of its health.
    pub fn status(&self) -> HealthStatus {
        self.health.lock().describe(self.clock.now())
    }

    /// Forgets what is over by now, and says so.
    pub fn settle(self: &Arc<Self>) {
        if self.is_plain.load(SeqCst) {
            return;
        }
        let now = self.clock.now();
        loop {
            let transition = {
                let mut health = self.health.lock();
                let transition = health.expire(now);
                self.is_plain.store(health.is_plain(), SeqCst);
                transition
            };
            self.tell(transition);
            if transition.is_none() {
                return;
            }
        }
    }

    fn availability(&self, model: Option<ModelKey>) -> Availability {
        if self.is_plain.load(SeqCst) {
            return Availability::Ready;
        }
        self.health.lock().availability(model, self.clock.now())
    }

    /// Whether all slots are taken, or belong to those in line.
    fn is_full(&self) -> bool {
        !self.has_slot() || (self.slots().is_some() && self.waiting() > 0)
    }

    fn has_slot(&self) -> bool {
        self.slots().is_none_or(|slots| self.in_flight() < slots)
    }

    fn take_slot(&self) -> bool {
        match self.slots() {
            None => {
                self.metrics.in_flight.inc();
                true
            }
            Some(slots) => self.metrics.in_flight.try_inc(slots),
        }
    }

    /// Takes a slot, with the permission of health where it has something to say.
    fn admit(self: &Arc<Self>, model: Option<ModelKey>, anyway: bool) -> Option<Lease> {
        let now = self.clock.now();
        let attempt = if self.is_plain.load(SeqCst) {
            self.take_slot().then(|| Attempt::plain(model, now))
        } else {
            let mut health = self.health.lock();
            let may = anyway || health.availability(model, now) == Availability::Ready;
            (may && self.take_slot()).then(|| health.begin(model, now))
        };
        attempt.map(|attempt| Lease {
            state: self.clone(),
            attempt,
            has_verdict: false,
        })
    }

    /// Lets in who can enter now, the first in line first.
    fn let_in(self: &Arc<Self>) {
        let mut refused = Vec::new();
        loop {
            let (waiter, lease) = {
                let mut line = self.line.lock();
                let first = (0..line.len()).find_map(|at| {
                    let model = line.get(at)?.model;
                    if !self.has_slot() || refused.contains(&model) {
                        return None;
                    }
                    let lease = self.admit(model, false);
                    if lease.is_none() {
                        refused.push(model);
                    }
                    lease.map(|lease| (at, lease))
                });
                let Some((at, lease)) = first else { return };
                let waiter = line.remove(at);
                self.waiting.store(line.len(), SeqCst);
                (waiter, lease)
            };
            // Outside the lock: where nobody waits for it any more the lease comes back, and ends here.
            if let Some(waiter) = waiter {
                drop(waiter.enter.send(lease));
            }
        }
    }

    fn observe(self: &Arc<Self>, attempt: Attempt, verdict: Verdict) {
        if verdict == Verdict::Served && self.is_plain.load(SeqCst) {
            return;
        }
        self.change(|health, now| health.observe(attempt, verdict, now, fastrand::u64(..)));
        if self.waiting.load(SeqCst) > 0 {
            self.let_in();
        }
    }

    fn abandon(&self, attempt: Attempt) {
        if attempt.is_probe() {
            self.change(|health, _| {
                health.abandon(attempt);
                None
            });
        }
    }

    fn change(&self, change: impl FnOnce(&mut Health, Tick) -> Option<Transition>) {
        let now = self.clock.now();
        let transition = {
            let mut health = self.health.lock();
            let transition = change(&mut health, now);
            self.is_plain.store(health.is_plain(), SeqCst);
            transition
        };
        if transition.is_some() {
            self.changed.notify_waiters();
        }
        self.tell(transition);
    }

    fn tell(&self, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        let upstream = &*self.name;
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

/// A place in line, left when the wait ends, however it ends.
struct Place<'a> {
    state: &'a Arc<UpstreamState>,
    enter: oneshot::Receiver<Lease>,
}

impl<'a> Place<'a> {
    fn take(state: &'a Arc<UpstreamState>, model: Option<ModelKey>) -> Self {
        let (enter, entered) = oneshot::channel();
        let mut line = state.line.lock();
        line.push_back(Waiter { model, enter });
        state.waiting.store(line.len(), SeqCst);
        drop(line);
        Self { state, enter: entered }
    }

    /// The lease, if it was handed over meanwhile.
    fn entered(&mut self) -> Option<Lease> {
        self.enter.try_recv().ok()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // From here on nothing is handed over; what was is dropped with the receiver, outside the lock.
        self.enter.close();
        let mut line = self.state.line.lock();
        line.retain(|waiter| !waiter.enter.is_closed());
        self.state.waiting.store(line.len(), SeqCst);
    }
}
