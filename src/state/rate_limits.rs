//! What client keys have used, whichever snapshot asks.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::{
    policy::limiter::{Admission, Denial, Limiter, Quota, QuotaUsage},
    tick::Clock,
};

/// What one client key may use, and has used.
pub struct RateLimits {
    clock: Clock,
    limiter: Mutex<Limiter>,
}

/// The rate_limits of all keys that a snapshot in use names.
pub struct RateLimitTable {
    clock: Clock,
    /// By the name of the key.
    known: Mutex<HashMap<Arc<str>, Weak<RateLimits>>>,
}

/// A request's part of its key's rate_limits. Dropped, it gives back its place, and what it has been charged stays charged.
pub struct Permit {
    rate_limits: Arc<RateLimits>,
    admission: Option<Admission>,
}

impl RateLimitTable {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            known: Mutex::default(),
        }
    }

    /// The rate_limits of the key called `name`: what it has used before stays used.
    pub fn of(&self, name: &Arc<str>) -> Arc<RateLimits> {
        let mut known = self.known.lock();
        if let Some(known) = known.get(name).and_then(Weak::upgrade) {
            return known;
        }
        let rate_limits = Arc::new(RateLimits {
            clock: self.clock,
            limiter: Mutex::default(),
        });
        known.insert(name.clone(), Arc::downgrade(&rate_limits));
        rate_limits
    }

    /// Forgets the keys that nobody names any more.
    pub(super) fn forget_unused(&self) {
        self.known
            .lock()
            .retain(|_, rate_limits| rate_limits.strong_count() > 0);
    }
}

impl RateLimits {
    /// Allows so much from now on.
    pub fn set_quota(&self, quota: Quota) {
        self.limiter.lock().set_quota(quota);
    }

    /// Lets a request in that will probably cost `tokens`.
    ///
    /// # Errors
    /// Where a limit is reached.
    pub fn admit(self: &Arc<Self>, tokens: u64) -> Result<Permit, Denial> {
        let admission = self.limiter.lock().admit(tokens, self.clock.now())?;
        Ok(Permit {
            rate_limits: self.clone(),
            admission: Some(admission),
        })
    }

    /// How far the limits have been used.
    pub fn used(&self) -> QuotaUsage {
        self.limiter.lock().usage(self.clock.now())
    }
}

impl Permit {
    /// The request turns out to cost probably `tokens`.
    ///
    /// # Errors
    /// Where a limit is reached by that.
    pub fn recharge(&mut self, tokens: u64) -> Result<(), Denial> {
        let Some(admission) = &mut self.admission else {
            return Ok(());
        };
        let mut limiter = self.rate_limits.limiter.lock();
        limiter.recharge(admission, tokens, self.rate_limits.clock.now())
    }

    /// The request is over, and has cost `actual` tokens.
    pub fn settle(mut self, actual: u64) {
        self.end(Some(actual));
    }

    /// The request is over, and has probably cost `more` tokens than it was estimated to.
    pub fn settle_estimated(mut self, more: u64) {
        let estimated = self.admission.as_ref().map(Admission::tokens);
        self.end(estimated.map(|tokens| tokens.saturating_add(more)));
    }

    fn end(&mut self, actual: Option<u64>) {
        if let Some(admission) = self.admission.take() {
            let mut limiter = self.rate_limits.limiter.lock();
            limiter.finish(admission, actual, self.rate_limits.clock.now());
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.end(None);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering::SeqCst},
        thread,
    };

    use super::*;

    fn rate_limits(quota: Quota) -> Arc<RateLimits> {
        let rate_limits = RateLimitTable::new(Clock::start()).of(&"alice".into());
        rate_limits.set_quota(quota);
        rate_limits
    }

    #[test]
    fn two_hundred_callers_get_exactly_what_there_is() {
        let rate_limits = rate_limits(Quota {
            requests_per_minute: Some(1_000),
            max_concurrent: Some(7),
            ..Quota::default()
        });
        let (admitted, inside, most) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Ok(permit) = rate_limits.admit(0) else { continue };
                        admitted.fetch_add(1, SeqCst);
                        most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                        inside.fetch_sub(1, SeqCst);
                        drop(permit);
                    }
                });
            }
        });
        // Whoever found seven inside went away, so that the rest is asked for now.
        while let Ok(permit) = rate_limits.admit(0) {
            admitted.fetch_add(1, SeqCst);
            drop(permit);
        }
        assert_eq!(admitted.into_inner(), 1_000);
        assert!(most.into_inner() <= 7);
        assert_eq!(rate_limits.limiter.lock().running(), 0);
    }

    #[test]
    fn a_key_that_comes_back_has_used_what_it_had_used() {
        let rate_limits = RateLimitTable::new(Clock::start());
        let one_request = Quota {
            requests_per_minute: Some(1),
            ..Quota::default()
        };
        let before = rate_limits.of(&"alice".into());
        before.set_quota(one_request);
        drop(before.admit(0));
        let after = rate_limits.of(&"alice".into());
        after.set_quota(one_request);
        drop(before);
        rate_limits.forget_unused();
        assert!(after.admit(0).is_err());
        drop(after);
        rate_limits.forget_unused();
        assert!(rate_limits.known.lock().is_empty());
    }
}
