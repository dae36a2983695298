//! The selection among a request's candidates: the upstream to send the request to now, or the upstream to wait for.
//!
//! # The rules
//!
//! 1. If the request's own upstream (the first candidate) is ready, the request is sent to it.
//! 2. If the own upstream is full, or if it is limited and the limit ends before the session's
//!    [patience](super::Patience) does, the request waits for it. The end of a failure is not known, so a request
//!    leaves an ejected upstream at once.
//! 3. Otherwise, the request is sent to the first other candidate that is ready.
//! 4. If no candidate is ready, the request waits for the first candidate that will or may be ready within the time
//!    that the request can wait. Such a candidate is full, or has a limit that ends or a probe that is due within that
//!    time.
//! 5. Otherwise, no upstream is selected, and the request is answered from memory.
//!
//! An upstream that was tried for this request and failed is excluded from all five rules.
//!
//! An upstream in an outage gets no request but its probes, for which its availability is [`Availability::Ready`] to one
//! request at a time. So if all upstreams are in an outage, the requests of all clients do not go to an upstream that is
//! overloaded at best and may be about to recover.

use super::{availability::Availability, rendezvous::MemberIndex, session::Candidate};
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
    /// No candidate can take the request, or will soon.
    NoUpstream,
}

/// Selects one of `candidates`, of which the first is the request's own upstream. See the [module](self).
///
/// `has_failed` returns whether an upstream has failed this request already. `availability` returns whether an upstream
/// can take the request. If the request's own upstream is ready, only its availability is computed.
pub fn select(
    mut candidates: impl Iterator<Item = Candidate>,
    has_failed: impl Fn(MemberIndex) -> bool,
    mut availability: impl FnMut(MemberIndex) -> Availability,
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
    select_any(own.into_iter().chain(others), limits)
}

/// Applies rules 3 to 5.
#[cold]
fn select_any(untried: impl Iterator<Item = (Candidate, Availability)>, limits: &WaitLimits) -> Decision {
    let limit = limits.stays_until.max(limits.waits_until);
    let mut wait = None;
    for (candidate, availability) in untried {
        if availability == Availability::Ready {
            return Decision::Send(candidate);
        }
        if wait.is_some() {
            continue;
        }
        let until = capacity_by(availability, limits.now, limit).or(match availability {
            Availability::Ejected { until } | Availability::Disabled { until } if until <= limit => Some(until),
            _ => None,
        });
        wait = until.map(|until| Decision::Wait { candidate, until });
    }
    wait.unwrap_or(Decision::NoUpstream)
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
