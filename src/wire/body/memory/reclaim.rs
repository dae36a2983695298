//! Decides which arriving bodies give way when the memory for bodies is full.
//!
//! # The rules
//!
//! 1. While enough memory is free, no body gives way.
//! 2. A body whose caller stays within its share gets memory from callers that hold more than theirs. Their arriving
//!    bodies give way, the slowest first, until enough memory is free or until the caller is within its share.
//! 3. If no caller holds more than its share, and the body has waited for [`PATIENCE`], the slowest bodies that are slower
//!    than this one give way. So many slow uploads of many callers do not starve a fast one.
//! 4. A body whose caller holds more than its share gets memory from no other caller. If it has waited for
//!    [`OWN_PATIENCE`], a slower body of the same caller gives way, if it holds at least twice the memory that the waiting
//!    body needs as a whole. Otherwise nothing would be gained.
//!
//! Complete bodies are not in the lists, so they never give way.

use std::{cmp::Ordering, collections::HashMap, time::Duration};

use super::account::AccountId;

/// The time that a body waits before slower bodies of callers within their share give way. In this time memory is usually
/// released anyway.
pub(in crate::wire) const PATIENCE: Duration = Duration::from_millis(300);
/// The time that a body of a caller over its share waits before a slower body of the same caller gives way.
pub(in crate::wire) const OWN_PATIENCE: Duration = Duration::from_secs(5);

/// Names an arriving body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wire) struct BodyId {
    /// The stripe of the table.
    pub stripe: usize,
    /// The slot in the stripe.
    pub slot: u32,
    /// The number of the body in the stripe.
    pub generation: u32,
}

/// A body that is arriving and holds memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::wire) struct Arriving {
    pub id: BodyId,
    pub account: AccountId,
    /// The bytes that all bodies of the caller hold.
    pub account_held: usize,
    /// The bytes that this body holds.
    pub bytes: usize,
    /// Bytes per second.
    pub rate: f64,
}

/// A body that waits for memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::wire) struct Waiting {
    /// The body itself, if it holds memory already.
    pub id: Option<BodyId>,
    pub account: AccountId,
    /// The bytes that all bodies of the caller hold.
    pub account_held: usize,
    /// The bytes that the body waits for.
    pub bytes: usize,
    /// The bytes that the body needs as a whole.
    pub whole: usize,
    /// Bytes per second.
    pub rate: f64,
    /// The time that it has waited.
    pub waited: Duration,
}

/// The memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::wire) struct Level {
    /// The bytes that are free, or will be when the bodies have left that have been told so.
    pub free: usize,
    /// The maximum for one caller while others wait.
    pub share: usize,
}

/// A decision about the bodies that give way, as it is being made.
struct ReclaimPlan {
    /// The arriving bodies that are left, the slowest first.
    arriving: Vec<Arriving>,
    /// The bytes that each caller holds when the victims have left.
    held: HashMap<AccountId, usize>,
    level: Level,
    victims: Vec<BodyId>,
}

/// Returns the bodies that give way to the `waiting` ones, which are in the order of their arrival.
pub(in crate::wire) fn choose(waiting: &[Waiting], mut arriving: Vec<Arriving>, level: Level) -> Vec<BodyId> {
    let slowest_first =
        |a: &Arriving, b: &Arriving| -> Ordering { a.rate.total_cmp(&b.rate).then(b.bytes.cmp(&a.bytes)) };
    arriving.sort_unstable_by(slowest_first);
    let mut held: HashMap<AccountId, usize> = waiting.iter().map(|body| (body.account, body.account_held)).collect();
    held.extend(arriving.iter().map(|body| (body.account, body.account_held)));
    let mut decision = ReclaimPlan {
        arriving,
        held,
        level,
        victims: Vec::new(),
    };
    let (within, over): (Vec<&Waiting>, Vec<&Waiting>) =
        waiting.iter().partition(|body| decision.is_within_share(body));
    if !within.iter().all(|body| decision.serve(body)) {
        return decision.victims;
    }
    for body in over {
        decision.serve_by_own(body);
    }
    decision.victims
}

impl ReclaimPlan {
    fn is_within_share(&self, body: &Waiting) -> bool {
        self.held[&body.account].saturating_add(body.bytes) <= self.level.share
    }

    /// Finds memory for a body of a caller within its share. Returns whether there is enough.
    fn serve(&mut self, body: &Waiting) -> bool {
        while self.level.free < body.bytes {
            let share = self.level.share;
            let is_over = |other: &Arriving| self.held[&other.account] > share;
            let Some(at) = self.arriving.iter().position(is_over) else {
                break;
            };
            self.take(at);
        }
        if self.level.free < body.bytes && body.waited >= PATIENCE {
            self.take_slower(body);
        }
        self.grant(body)
    }

    /// Takes the bodies that are slower than `body`, if they hold enough together.
    fn take_slower(&mut self, body: &Waiting) {
        let is_slower = |other: &Arriving| other.rate < body.rate && Some(other.id) != body.id;
        let (mut missing, mut count) = (body.bytes - self.level.free, 0);
        for other in self.arriving.iter().filter(|other| is_slower(other)) {
            count += 1;
            missing = missing.saturating_sub(other.bytes);
            if missing == 0 {
                break;
            }
        }
        if missing > 0 {
            return;
        }
        for _ in 0..count {
            let at = self.arriving.iter().position(is_slower);
            self.take(at.expect("the bodies that have been counted are in the list"));
        }
    }

    /// Finds memory for a body of a caller over its share, among the bodies of the same caller.
    fn serve_by_own(&mut self, body: &Waiting) {
        if self.level.free < body.bytes && body.waited >= OWN_PATIENCE {
            let gives_way = |other: &Arriving| {
                other.account == body.account
                    && other.rate < body.rate
                    && other.bytes / 2 >= body.whole
                    && Some(other.id) != body.id
            };
            if let Some(at) = self.arriving.iter().position(gives_way) {
                self.take(at);
            }
        }
        self.grant(body);
    }

    /// Takes the memory of the arriving body at this index.
    fn take(&mut self, at: usize) {
        let victim = self.arriving.remove(at);
        let held = self.held.entry(victim.account).or_default();
        *held = held.saturating_sub(victim.bytes);
        self.level.free += victim.bytes;
        self.victims.push(victim.id);
    }

    /// Uses free memory for a waiting body. Returns whether there is enough.
    fn grant(&mut self, body: &Waiting) -> bool {
        let Some(free) = self.level.free.checked_sub(body.bytes) else {
            return false;
        };
        self.level.free = free;
        *self.held.entry(body.account).or_default() += body.bytes;
        true
    }
}

#[cfg(test)]
mod tests;
