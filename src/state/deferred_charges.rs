//! The charges of responses that are made in the background. Their usage is known only later, from another request.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;

use super::rate_limits::DeferredCharge;
use crate::ids::OwnedKey;

/// The maximum number of charges that are kept. The oldest ones are dropped: their estimates stand.
const MAX_CHARGES: usize = 65_536;

/// The deferred charges by the response that they are for.
#[derive(Default)]
pub struct DeferredCharges(Mutex<ChargeTable>);

#[derive(Default)]
struct ChargeTable {
    charges: HashMap<OwnedKey, DeferredCharge>,
    /// The keys in the order in which they were added. A key that was taken stays until it is the oldest.
    order: VecDeque<OwnedKey>,
}

impl DeferredCharges {
    /// Keeps the charge of the response `key`.
    pub fn insert(&self, key: OwnedKey, charge: DeferredCharge) {
        let mut table = self.0.lock();
        table.charges.insert(key, charge);
        table.order.push_back(key);
        if table.order.len() > MAX_CHARGES
            && let Some(oldest) = table.order.pop_front()
        {
            table.charges.remove(&oldest);
        }
    }

    /// Takes the charge of the response `key`, if there is one.
    pub fn take(&self, key: OwnedKey) -> Option<DeferredCharge> {
        self.0.lock().charges.remove(&key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{Namespace, ObjectId},
        policy::limiter::Quota,
        state::rate_limits::RateLimitTable,
        tick::Clock,
    };

    fn key(number: usize) -> OwnedKey {
        let id = ObjectId::from_text(number.to_string().as_bytes());
        OwnedKey::from_object(Namespace::of_group(""), id)
    }

    #[test]
    fn an_estimate_becomes_the_real_cost_once_and_belongs_to_the_key_that_was_charged() {
        let limits = RateLimitTable::new(Clock::start()).get_or_new(&"alice".into());
        limits.set_quota(Quota {
            tokens_per_minute: Some(1_000),
            max_concurrent: Some(1),
            ..Quota::default()
        });
        let left = || limits.usage().tokens.expect("a limit on tokens").remaining;
        let deferred = DeferredCharges::default();
        for (more, actual, expected) in [(0, 30, 970), (50, 400, 570), (0, 100, 470)] {
            let before = left();
            let permit = limits.admit(100).expect("within the limits");
            deferred.insert(key(1), permit.defer(more));
            assert_eq!(left(), before - 100 - more);
            deferred.take(key(1)).expect("a charge").settle(actual);
            assert_eq!(left(), expected);
            assert!(deferred.take(key(1)).is_none());
        }
        let permit = limits
            .admit(100)
            .expect("the places of deferred requests are free again");
        let charge = permit.defer(0);
        drop(limits);
        charge.settle(1);
    }

    #[test]
    fn charges_are_bounded() {
        let limits = RateLimitTable::new(Clock::start()).get_or_new(&"alice".into());
        let deferred = DeferredCharges::default();
        for number in 0..=MAX_CHARGES {
            deferred.insert(key(number), limits.admit(0).expect("no limits").defer(0));
        }
        assert!(deferred.take(key(0)).is_none());
        assert!(deferred.take(key(1)).is_some());
        let table = deferred.0.lock();
        assert_eq!((table.charges.len(), table.order.len()), (MAX_CHARGES - 1, MAX_CHARGES));
    }
}
