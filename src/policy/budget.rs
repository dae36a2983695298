//! The retry budget: failing over must not finish off what is left.
//!
//! When everything fails at once, retries multiply the load by the number of attempts just when there is least to serve
//! it with. A bound per request does not help against that; a bound on their share of all requests does (*Site
//! Reliability Engineering*, 2016, ch. 21: "Deciding to retry"). A few a second are free, or else an upstream's failure
//! would show wherever there is little traffic.

use std::{collections::VecDeque, time::Duration};

use crate::tick::Tick;

/// The stretch of time that the budget looks back on.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Retries per window that no request needs to pay for: 10 a second.
pub const FREE: u64 = 100;

/// Time is told in slots of this length.
const SLOT: Duration = Duration::from_millis(100);
/// How many slots lie within a window that ends in the middle of one, with the two that it cuts.
const SLOTS: u64 = (WINDOW.as_nanos() / SLOT.as_nanos()) as u64 + 1;

/// Grants retries as a share of requests.
///
/// # Guarantee
///
/// Whenever a retry is granted, those granted within the last [`WINDOW`], this one among them, are at most [`FREE`] plus
/// `share` times the requests within the same window. Time is told in slots of 0.1 s and requests are counted only
/// where the budget is told of them; where that leaves a doubt, it does not grant: a retry weighs for up to 0.1 s longer
/// than the window, and requests count from the first moment within the window at which the budget was told their
/// number.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    share: f64,
    /// By slot, in order, those that are older than the window dropped, and those left out in which nothing happened.
    slots: VecDeque<Slot>,
    /// The sum over `slots`.
    retries: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    number: u64,
    /// The running total of requests when the slot was first heard of.
    requests: u64,
    retries: u64,
}

impl RetryBudget {
    /// A budget of `share` retries a request (0 to 1; what is outside counts as the nearer end) and [`FREE`] ones.
    pub fn new(share: f64) -> Self {
        let mut budget = Self {
            share: 0.0,
            slots: VecDeque::new(),
            retries: 0,
        };
        budget.set_share(share);
        budget
    }

    /// Changes the share; what was granted counts on.
    pub fn set_share(&mut self, share: f64) {
        self.share = if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) };
    }

    /// Takes note that there have been `requests` in all by `now`. To be called about once a second, or else the
    /// requests since the last call do not count in the next window.
    pub fn sample(&mut self, now: Tick, requests: u64) {
        // Threads read their clocks and then meet here in any order: a moment that has passed counts as the present.
        let number = (now.as_nanos() / SLOT.as_nanos() as u64).max(self.slots.back().map_or(0, |slot| slot.number));
        while let Some(first) = self.slots.front()
            && first.number + SLOTS <= number
        {
            self.retries -= first.retries;
            self.slots.pop_front();
        }
        if self.slots.back().is_none_or(|last| last.number != number) {
            self.slots.push_back(Slot {
                number,
                requests,
                retries: 0,
            });
        }
    }

    /// Grants a retry if there is one to spare. `requests` is as in [`RetryBudget::sample`].
    pub fn try_spend(&mut self, now: Tick, requests: u64) -> bool {
        self.sample(now, requests);
        let Some(last) = self.slots.back().map(|slot| slot.number) else {
            return false;
        };
        // The window cuts its first slot: what was counted in there may have been counted before it.
        let whole = self.slots.iter().find(|slot| slot.number + SLOTS > last + 1);
        let counted = requests.saturating_sub(whole.map_or(requests, |slot| slot.requests));
        let allowed = FREE + (self.share * counted as f64) as u64;
        let is_granted = self.retries < allowed;
        if is_granted && let Some(slot) = self.slots.back_mut() {
            slot.retries += 1;
            self.retries += 1;
        }
        is_granted
    }
}
