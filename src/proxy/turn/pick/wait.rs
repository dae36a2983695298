//! Waits until an upstream takes a turn.
//!
//! A turn waits in the queue of one upstream. It also watches the health of all other upstreams that may serve it: if
//! another one recovers first, or its operator enables it, the turn goes there.

use std::{
    future::{pending, poll_fn},
    mem,
    pin::{Pin, pin},
    task::Poll,
};

use tokio::{sync::futures::Notified, time::sleep_until};

use super::Turn;
use crate::{
    policy::{Availability, Candidate, Decision, WaitLimits, select::NEAR_RESETS},
    state::Lease,
    tick::Tick,
};

impl<'a> Turn<'a> {
    /// Waits for `candidate`, or for a change of health if there is none, until something else is to be decided.
    pub(super) async fn wait(&mut self, candidate: Option<Candidate>) -> Option<Lease> {
        let Some(_permit) = self.gateway.runtime.wait_permit() else {
            // Too many requests wait already: this one goes to another upstream, or is answered with a fault.
            self.wait_limits = WaitLimits {
                now: self.wait_limits.now,
                stays_until: Tick::ZERO,
                waits_until: Tick::ZERO,
                resets_until: Tick::ZERO,
                recovers_until: Tick::ZERO,
            };
            return None;
        };
        let begun = self.gateway.clock.now();
        let lease = self.wait_for(candidate).await;
        self.waited += self.gateway.clock.now().since(begun);
        lease
    }

    /// Waits as long as the decision stays the same. The request keeps its place in the queue of the candidate meanwhile.
    async fn wait_for(&mut self, candidate: Option<Candidate>) -> Option<Lease> {
        let WaitLimits {
            stays_until,
            waits_until,
            resets_until,
            ..
        } = self.wait_limits;
        let deadline = stays_until.max(waits_until).max(resets_until);
        let state = candidate.map(|candidate| &self.upstream(candidate.index).state);
        let request = self.request;
        let mut acquired = pin!(async move {
            match state {
                Some(state) => state.acquire(request, deadline).await,
                None => pending().await,
            }
        });
        let mut has_awaited_reset = false;
        loop {
            // The notifications are enabled before health is read, so that no later change is missed.
            let mut changes = self.changes();
            let at_once = poll_fn(|context| Poll::Ready(acquired.as_mut().poll(context)));
            if let Poll::Ready(lease) = at_once.await {
                return lease;
            }
            self.wait_limits.now = self.gateway.clock.now();
            match candidate.map(|candidate| self.availability(candidate.index)) {
                Some(Availability::Cooling { .. }) => has_awaited_reset = true,
                Some(Availability::Full) if mem::take(&mut has_awaited_reset) => self.wait_for_slot_after_reset(),
                _ => {}
            }
            let until = match self.decide() {
                // A request keeps its place in the queue of a full upstream, even if another one is preferred by now.
                Decision::Wait {
                    candidate: other,
                    until,
                } if candidate.is_some_and(|waits_for| waits_for == other || self.is_full(waits_for)) => until,
                Decision::WaitForChange { until } if candidate.is_none() => until,
                // The other upstream was limited as well, and its reset came a moment earlier.
                Decision::Send(other) => match candidate.and_then(|candidate| self.near_reset(candidate, other)) {
                    Some(until) => until,
                    None => return None,
                },
                _ => return None,
            };
            let changed = poll_fn(|context| {
                let mut all = changes.iter_mut();
                match all.any(|change| change.as_mut().poll(context).is_ready()) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            });
            tokio::select! {
                biased;
                lease = &mut acquired => return lease,
                () = changed => {}
                () = sleep_until(self.gateway.clock.instant(until)) => {}
            }
        }
    }

    /// When the limit of `candidate` resets, if that is soon and `candidate` is better than `other`.
    fn near_reset(&self, candidate: Candidate, other: Candidate) -> Option<Tick> {
        let Availability::Cooling { until, .. } = self.availability(candidate.index) else {
            return None;
        };
        let better = self.candidates().find(|found| [candidate, other].contains(found));
        let is_near = until.since(self.wait_limits.now) <= NEAR_RESETS && until <= self.wait_limits.resets_until;
        (is_near && better == Some(candidate)).then_some(until)
    }

    /// Lets the turn wait for a slot from now, for as long as a new turn does. Other requests have waited for the same reset
    /// and were admitted first.
    fn wait_for_slot_after_reset(&mut self) {
        let limits = &mut self.wait_limits;
        let until = limits.now.after(self.snapshot.patience.wait).min(limits.resets_until);
        limits.waits_until = limits.waits_until.max(until);
    }

    fn is_full(&self, candidate: Candidate) -> bool {
        self.availability(candidate.index) == Availability::Full
    }

    /// The next change of health of each candidate that the turn may go to.
    fn changes(&self) -> Vec<Pin<Box<Notified<'a>>>> {
        let candidates = self.candidates().filter(|candidate| !self.is_excluded(candidate.index));
        let mut changes: Vec<_> = candidates
            .map(|candidate| Box::pin(self.upstream(candidate.index).state.changed()))
            .collect();
        for change in &mut changes {
            change.as_mut().enable();
        }
        changes
    }
}
