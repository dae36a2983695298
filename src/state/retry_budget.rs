//! The retry budget of the process, and the number of requests on which it depends.

use parking_lot::Mutex;

use super::striped::Striped;
use crate::{
    policy::RetryBudget,
    tick::{Clock, Tick},
};

/// Grants retries to all requests of the process.
///
/// Every request is counted once. The count is striped over threads, so that requests that need no retry share no lock
/// and no cache line here. The lock is taken for a retry, and once per second for a sample.
pub struct SharedRetryBudget {
    clock: Clock,
    /// The number of requests that were sent to an upstream, each counted once. A single counter.
    requests: Striped,
    budget: Mutex<RetryBudget>,
}

impl SharedRetryBudget {
    /// A budget of `share` retries per request (0 to 1).
    pub(super) fn new(share: f64, clock: Clock) -> Self {
        let mut budget = RetryBudget::new(share);
        // Without this, the requests before the first regular sample would not count.
        budget.sample(clock.now(), 0);
        Self {
            clock,
            requests: Striped::new(1),
            budget: Mutex::new(budget),
        }
    }

    /// Counts a request that is sent to its first upstream.
    pub fn count_request(&self) {
        self.requests.own_stripe().add(0, 1);
    }

    /// Takes a retry from the budget, if there is one left.
    pub fn try_spend(&self) -> bool {
        self.with_counts(RetryBudget::try_spend)
    }

    /// Gives the budget the number of requests. Must be called about once per second.
    pub(super) fn sample(&self) {
        self.with_counts(RetryBudget::sample);
    }

    /// Changes the share. Retries that were granted before still count.
    pub(super) fn set_share(&self, share: f64) {
        self.budget.lock().set_share(share);
    }

    fn with_counts<R>(&self, act: impl FnOnce(&mut RetryBudget, Tick, u64) -> R) -> R {
        act(&mut self.budget.lock(), self.clock.now(), self.requests.total(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::budget::FREE_BURST;

    #[test]
    fn counted_requests_raise_the_number_of_retries() {
        let budget = SharedRetryBudget::new(0.5, Clock::start());
        (0..1_000).for_each(|_| budget.count_request());
        let granted = (0..10_000).take_while(|_| budget.try_spend()).count() as u64;
        assert_eq!(granted, FREE_BURST + 500);
        budget.set_share(0.0);
        assert!(!budget.try_spend());
    }
}
