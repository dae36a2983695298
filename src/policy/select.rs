//! Which of its candidates a request goes to now, which it waits for, or which is the least bad.
//!
//! # The rule
//!
//! 1. Its own upstream (the first candidate), if that is ready.
//! 2. Its own, as soon as that has room: if it is full, or limited with an end that comes before the session's
//!    [patience](super::Patience) does. What fails has no known end, so that an ejected upstream is left at once.
//! 3. The first of the others that is ready.
//! 4. When nobody is ready, the first who will be, or may be, within the time that the request can wait for anybody:
//!    who is full, who is limited or ejected until then, or who is being probed right now.
//! 5. The least bad.
//!
//! Whoever was tried and failed is out of all five.
//!
//! # The least bad
//!
//! An upstream that is out and yet sent a request is tested against better knowledge: that is why the last upstream of a
//! pool is never lost to a mistaken ejection. But where everybody is out, everybody's requests arrive at the one that is
//! back the soonest, which is at best overloaded and may be about to recover. So a try with the least bad is worth as
//! little as a retry: it is to be paid for from the [retry budget](super::RetryBudget), even when it is the request's
//! first. Whoever finds no budget is answered at once with when to come again.
//!
//! For the same reason nobody is in a hurry to join a probe. A request that can wait does so for the probe's verdict
//! (rule 4), and then goes in with all the others or stays away with them; one that cannot prefers an upstream that
//! nobody probes. One that is full is never the least bad: its requests wait in order, and whoever came later would go
//! in before them. Nor is one that the operator drains.

use super::{availability::Availability, health::Badness, session::Candidate};
use crate::tick::Tick;

#[cfg(test)]
mod tests;

/// What a request can put up with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitLimits {
    /// The present moment.
    pub now: Tick,
    /// Until when it waits for its own upstream, though others are ready; in the past (say [`Tick::ZERO`]) when it would
    /// lose nothing by leaving.
    pub stays_until: Tick,
    /// Until when it waits for anybody when nobody is ready, if that is later.
    pub waits_until: Tick,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "a variant's line says what its fields are")]
pub enum Decision {
    /// There.
    Send(Candidate),
    /// Nowhere yet: select again when this candidate has a slot for it, when its health changes, and at the latest then.
    Wait { candidate: Candidate, until: Tick },
    /// There, if the retry budget pays for it: nobody can take it, and this one refuses it with the least certainty.
    LeastBad(Candidate),
    /// Nowhere: nobody is left to try.
    NoUpstream,
}

/// Selects among `candidates`, of which the first is the request's own. See the [module](self).
///
/// `tried` says who has failed this request already, `availability` who can take it, and `badness` how bad it would be to
/// send it to somebody who cannot: `None` if that is out of the question, because the upstream is draining or all its
/// slots are taken. As long as a request's own upstream is ready nothing is asked but that.
pub fn select(
    mut candidates: impl Iterator<Item = Candidate>,
    tried: impl Fn(usize) -> bool,
    mut availability: impl FnMut(usize) -> Availability,
    badness: impl FnMut(usize) -> Option<Badness>,
    limits: &WaitLimits,
) -> Decision {
    let Some(own) = candidates.next() else {
        return Decision::NoUpstream;
    };
    let own = if tried(own.index) {
        None
    } else {
        match availability(own.index) {
            Availability::Ready => return Decision::Send(own),
            availability => Some((own, availability)),
        }
    };
    if let Some((candidate, availability)) = own
        && let Some(until) = room(availability, limits.now, limits.stays_until)
    {
        return Decision::Wait { candidate, until };
    }
    let others = candidates.filter(|candidate| !tried(candidate.index));
    let others = others.map(|candidate| (candidate, availability(candidate.index)));
    select_any(own.into_iter().chain(others), badness, limits)
}

/// Rules 3 to 5.
#[cold]
fn select_any(
    untried: impl Iterator<Item = (Candidate, Availability)>,
    mut badness: impl FnMut(usize) -> Option<Badness>,
    limits: &WaitLimits,
) -> Decision {
    let limit = limits.stays_until.max(limits.waits_until);
    let (mut wait, mut least_bad) = (None, None::<(Badness, Candidate)>);
    for (candidate, availability) in untried {
        if availability == Availability::Ready {
            return Decision::Send(candidate);
        }
        if wait.is_some() {
            continue;
        }
        let badness = match availability {
            Availability::Ready | Availability::Full | Availability::Draining => None,
            Availability::Cooling { .. } | Availability::Ejected { .. } | Availability::Disabled { .. } => {
                badness(candidate.index)
            }
        };
        let until = room(availability, limits.now, limit).or(match (availability, badness) {
            (Availability::Ejected { until }, _) if until <= limit => Some(until),
            (Availability::Ejected { .. }, Some(Badness::Probing(_))) if limits.now < limit => Some(limit),
            _ => None,
        });
        wait = until.map(|until| Decision::Wait { candidate, until });
        if let Some(badness) = badness
            && least_bad.is_none_or(|(least, _)| badness < least)
        {
            least_bad = Some((badness, candidate));
        }
    }
    let least_bad = least_bad.map(|(_, candidate)| Decision::LeastBad(candidate));
    wait.or(least_bad).unwrap_or(Decision::NoUpstream)
}

/// Until when to wait for somebody who works, but has no room now; `None` where none is known to come before `limit`.
fn room(availability: Availability, now: Tick, limit: Tick) -> Option<Tick> {
    match availability {
        Availability::Full => (now < limit).then_some(limit),
        Availability::Cooling { until } => (until <= limit).then_some(until),
        Availability::Ready | Availability::Ejected { .. } | Availability::Disabled { .. } | Availability::Draining => {
            None
        }
    }
}
