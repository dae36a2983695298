//! The selection among a request's candidates: the upstream to send the request to now, the upstream to wait for, or
//! the least bad upstream.
//!
//! # The rules
//!
//! 1. If the request's own upstream (the first candidate) is ready, the request is sent to it.
//! 2. If the own upstream is full, or if it is limited and the limit ends before the session's
//!    [patience](super::Patience) does, the request waits for it. The end of a failure is not known, so a request
//!    leaves an ejected upstream at once.
//! 3. Otherwise, the request is sent to the first other candidate that is ready.
//! 4. If no candidate is ready, the request waits for the first candidate that will or may be ready within the time
//!    that the request can wait. Such a candidate is full, has a limit or ejection that ends within that time, or is
//!    being probed now.
//! 5. Otherwise, the least bad candidate is selected.
//!
//! An upstream that was tried for this request and failed is excluded from all five rules.
//!
//! # The least bad candidate
//!
//! A request that is sent to an upstream in an outage tests whether the upstream works in spite of the evidence. So a
//! mistaken ejection never makes the last upstream of a pool unusable. But if all upstreams are in an outage, the
//! requests of all clients go to the upstream that is expected back first, which is overloaded at best and may be about
//! to recover. So an attempt on the least bad candidate counts as a retry: it is charged to the [retry
//! budget](super::RetryBudget), even if it is the request's first attempt. If the budget does not allow the attempt,
//! the request is answered at once with the time to try again.
//!
//! For the same reason, requests do not join a probe. A request that can wait waits for the probe's verdict (rule 4).
//! A request that cannot wait prefers an upstream that is not being probed. A full upstream is never the least bad
//! candidate: the requests that wait for it have an order, and a later request would enter before them. A draining
//! upstream is not the least bad candidate either.

use super::{availability::Availability, health::Badness, rendezvous::MemberIndex, session::Candidate};
use crate::tick::Tick;

#[cfg(test)]
mod tests;

/// How long a request may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitLimits {
    /// The current time.
    pub now: Tick,
    /// The time until which the request waits for its own upstream although others are ready. It lies in the past (for
    /// example [`Tick::ZERO`]) if the request loses nothing by moving.
    pub stays_until: Tick,
    /// The time until which the request waits for any upstream if none is ready. It has no effect if it is before
    /// `stays_until`.
    pub waits_until: Tick,
}

/// The result of a selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the comment of a variant describes its fields")]
pub enum Decision {
    /// Send the request to this candidate.
    Send(Candidate),
    /// Wait for this candidate. Select again when the candidate has a slot for the request, when its health changes,
    /// and at `until` at the latest.
    Wait { candidate: Candidate, until: Tick },
    /// Send the request to this candidate, if the retry budget allows it. No candidate can take the request, and this
    /// one is the least bad.
    LeastBad(Candidate),
    /// No candidate is left to try.
    NoUpstream,
}

/// Selects one of `candidates`, of which the first is the request's own upstream. See the [module](self).
///
/// `has_failed` returns whether an upstream has failed this request already. `availability` returns whether an upstream
/// can take the request. `badness` returns how bad it would be to send the request to an upstream that is not ready;
/// `None` if the upstream is draining or all its slots are taken. If the request's own upstream is ready, only its
/// availability is computed.
pub fn select(
    mut candidates: impl Iterator<Item = Candidate>,
    has_failed: impl Fn(MemberIndex) -> bool,
    mut availability: impl FnMut(MemberIndex) -> Availability,
    badness: impl FnMut(MemberIndex) -> Option<Badness>,
    limits: &WaitLimits,
) -> Decision {
    let Some(own) = candidates.next() else {
        return Decision::NoUpstream;
    };
    let own = if has_failed(own.index) {
        None
    } else {
        match availability(own.index) {
            Availability::Ready => return Decision::Send(own),
            availability => Some((own, availability)),
        }
    };
    if let Some((candidate, availability)) = own
        && let Some(until) = capacity_by(availability, limits.now, limits.stays_until)
    {
        return Decision::Wait { candidate, until };
    }
    let others = candidates.filter(|candidate| !has_failed(candidate.index));
    let others = others.map(|candidate| (candidate, availability(candidate.index)));
    select_any(own.into_iter().chain(others), badness, limits)
}

/// Applies rules 3 to 5.
#[cold]
fn select_any(
    untried: impl Iterator<Item = (Candidate, Availability)>,
    mut badness: impl FnMut(MemberIndex) -> Option<Badness>,
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
        let until = capacity_by(availability, limits.now, limit).or(match (availability, badness) {
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

/// Returns until when to wait for an upstream that works but has no capacity now; `None` if no capacity is known to
/// come before `limit`.
fn capacity_by(availability: Availability, now: Tick, limit: Tick) -> Option<Tick> {
    match availability {
        Availability::Full => (now < limit).then_some(limit),
        Availability::Cooling { until, .. } => (until <= limit).then_some(until),
        Availability::Ready | Availability::Ejected { .. } | Availability::Disabled { .. } | Availability::Draining => {
            None
        }
    }
}
