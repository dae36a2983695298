//! The usage of the limits of client keys. It outlives every snapshot.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::{
    policy::limiter::{Admission, Denial, Limiter, OpenCharge, Quota, QuotaUsage},
    tick::Clock,
};

/// The limits of one client key, and their usage.
pub struct RateLimits {
    clock: Clock,
    limiter: Mutex<Limiter>,
}

/// The rate limits of all client keys that a snapshot in use refers to.
pub struct RateLimitTable {
    clock: Clock,
    /// The rate limits by the name of their key. Snapshots own the rate limits, so that those of a removed key can be
    /// dropped.
    known: Mutex<HashMap<Arc<str>, Weak<RateLimits>>>,
}

/// The admission of one request by the rate limits of its key. Dropping it ends the request. The tokens that were
/// charged for the request stay charged.
pub struct Permit {
    rate_limits: Arc<RateLimits>,
    /// `None` when the request has ended.
    admission: Option<Admission>,
}

/// The estimate that a client key was charged for a response whose usage is not known yet. If it is dropped, the estimate
/// stands.
pub struct DeferredCharge {
    /// The limits of the key that made the response.
    rate_limits: Weak<RateLimits>,
    charge: OpenCharge,
}

impl DeferredCharge {
    /// Charges the `actual` number of tokens instead of the estimate. The difference is charged now, or given back to the
    /// minute that was charged.
    pub fn settle(self, actual: u64) {
        if let Some(rate_limits) = self.rate_limits.upgrade() {
            let now = rate_limits.clock.now();
            rate_limits.limiter.lock().settle(self.charge, actual, now);
        }
    }
}

impl RateLimitTable {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            known: Mutex::default(),
        }
    }

    /// Returns the rate limits of the key called `name`. If the key had limits before, its usage is kept.
    pub(super) fn get_or_new(&self, name: &Arc<str>) -> Arc<RateLimits> {
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

    /// Drops the rate limits of keys that no snapshot refers to any more.
    pub(super) fn drop_unused(&self) {
        self.known
            .lock()
            .retain(|_, rate_limits| rate_limits.strong_count() > 0);
    }
}

impl RateLimits {
    /// Changes the limits. The usage is kept.
    pub fn set_quota(&self, quota: Quota) {
        self.limiter.lock().set_quota(quota);
    }

    /// Admits a request that will cost an estimated number of `tokens`.
    ///
    /// # Errors
    /// If a limit is reached.
    pub fn admit(self: &Arc<Self>, tokens: u64) -> Result<Permit, Denial> {
        let admission = self.limiter.lock().admit(tokens, self.clock.now())?;
        Ok(Permit {
            rate_limits: self.clone(),
            admission: Some(admission),
        })
    }

    /// Returns the usage of the limits.
    pub fn usage(&self) -> QuotaUsage {
        self.limiter.lock().usage(self.clock.now())
    }
}

impl Permit {
    /// Replaces the estimate by a better one, when the body has been read.
    ///
    /// # Errors
    /// If the better estimate reaches a limit. In that case the earlier estimate stays charged.
    pub fn correct_estimate(&mut self, tokens: u64) -> Result<(), Denial> {
        let admission = self.admission.as_mut();
        let admission = admission.expect("an admission is taken only where the permit is consumed or dropped");
        let mut limiter = self.rate_limits.limiter.lock();
        limiter.recharge(admission, tokens, self.rate_limits.clock.now())
    }

    /// Ends the request and charges it with the `actual` number of tokens instead of the estimate.
    pub fn charge(mut self, actual: u64) {
        self.end(Some(actual));
    }

    /// Ends the request and charges `more` tokens in addition to the estimate. It is for requests whose actual number
    /// of tokens is not known.
    pub fn charge_estimate(mut self, more: u64) {
        let estimated = self.admission.as_ref().map(Admission::tokens);
        self.end(estimated.map(|tokens| tokens.saturating_add(more)));
    }

    /// Ends the request, whose actual number of tokens will be known later. Until then, the estimate and `more` tokens are
    /// charged.
    pub fn defer(mut self, more: u64) -> DeferredCharge {
        let admission = self.admission.take();
        let admission = admission.expect("an admission is taken only where the permit is consumed or dropped");
        let now = self.rate_limits.clock.now();
        DeferredCharge {
            charge: self.rate_limits.limiter.lock().defer(admission, more, now),
            rate_limits: Arc::downgrade(&self.rate_limits),
        }
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
        let rate_limits = RateLimitTable::new(Clock::start()).get_or_new(&"alice".into());
        rate_limits.set_quota(quota);
        rate_limits
    }

    #[test]
    fn two_hundred_threads_are_admitted_exactly_as_often_as_the_limits_allow() {
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
        // Some attempts failed because seven requests were running. The rest of the limit is used up now.
        while let Ok(permit) = rate_limits.admit(0) {
            admitted.fetch_add(1, SeqCst);
            drop(permit);
        }
        assert_eq!(admitted.into_inner(), 1_000);
        assert!(most.into_inner() <= 7);
        assert_eq!(rate_limits.limiter.lock().running(), 0);
    }

    #[test]
    fn usage_survives_while_a_snapshot_refers_to_the_key() {
        let rate_limits = RateLimitTable::new(Clock::start());
        let one_request = Quota {
            requests_per_minute: Some(1),
            ..Quota::default()
        };
        let before = rate_limits.get_or_new(&"alice".into());
        before.set_quota(one_request);
        drop(before.admit(0));
        let after = rate_limits.get_or_new(&"alice".into());
        after.set_quota(one_request);
        drop(before);
        rate_limits.drop_unused();
        assert!(after.admit(0).is_err());
        drop(after);
        rate_limits.drop_unused();
        assert!(rate_limits.known.lock().is_empty());
    }
}
